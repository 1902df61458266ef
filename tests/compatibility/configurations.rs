//! The servers: which library, set to what, behind which device, and what a connection to it needs.

use std::time::Duration;

use crate::common::{
    Certificate, Dislike, Library, Listening, Manner, NodeServer, Pki, Program, SmallServer, TcpTarget, before,
    dripping, slow,
};

/// One server as it is set up, and what `auto` has to find for it.
#[derive(Clone, Copy)]
pub struct Configuration {
    server: Server,
    certificate: Shown,
    device: Device,
    /// What the target is called in the command: the address, or a name that it insists on.
    pub host: &'static str,
    /// Sent as the server's name, where it isn't the host's.
    pub sni: Option<&'static str>,
    /// The lines of the forwarder's file, `security_level` at 2 apart.
    pub needs: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Server {
    Small(Program, &'static str),
    Node(&'static str, &'static str, &'static str),
}

/// The certificate that it shows.
#[derive(Clone, Copy)]
enum Shown {
    Rsa,
    Ecdsa,
    /// A chain longer than a record.
    Many,
}

#[derive(Clone, Copy)]
enum Device {
    None,
    Dislikes(Dislike, Manner),
    /// Six seconds for a handshake.
    Slow,
    Drips,
}

const fn small(program: Program, options: &'static str, needs: &'static [&'static str]) -> Configuration {
    let server = Server::Small(program, options);
    Configuration { server, certificate: Shown::Rsa, device: Device::None, host: "127.0.0.1", sni: None, needs }
}

const fn node(
    version: &'static str,
    protocol: &'static str,
    ciphers: &'static str,
    needs: &'static [&'static str],
) -> Configuration {
    Configuration { server: Server::Node(version, protocol, ciphers), ..small(Program::OpenSsl, "", needs) }
}

impl Configuration {
    const fn behind(self, dislike: Dislike, manner: Manner) -> Self {
        Self { device: Device::Dislikes(dislike, manner), ..self }
    }

    const fn by_name(self) -> Self {
        Self { host: "localhost", ..self }
    }
}

/// A server that runs, with the device before it.
pub struct Running {
    pub library: Library,
    pub certificate: Certificate,
    pub port: u16,
    _server: Box<dyn Listening>,
    _device: Option<TcpTarget>,
}

/// What all servers share.
pub struct Material {
    rsa: Certificate,
    ecdsa: Certificate,
    many: Certificate,
    /// A group of 1024 bits for Diffie-Hellman, as servers of that time have it.
    group: String,
}

impl Material {
    pub fn new() -> Self {
        let pki = Pki::new();
        let group = pki.dir().join("dh1024.pem");
        let prime = openssl::bn::BigNum::get_rfc2409_prime_1024().expect("a prime");
        let base = openssl::bn::BigNum::from_u32(2).expect("a number");
        let pem = openssl::dh::Dh::from_pqg(prime, None, base).expect("a group").params_to_pem().expect("PEM");
        std::fs::write(&group, pem).expect("a file");
        let group = group.display().to_string();
        Self { rsa: pki.server(), ecdsa: pki.ecdsa_server(), many: pki.server_under_many(), group }
    }
}

impl Configuration {
    pub fn start(&self, material: &Material) -> Running {
        let certificate = match self.certificate {
            Shown::Rsa => &material.rsa,
            Shown::Ecdsa => &material.ecdsa,
            Shown::Many => &material.many,
        };
        let (server, library): (Box<dyn Listening>, _) = match self.server {
            Server::Small(program, options) => {
                let options: Vec<String> = options
                    .split_whitespace()
                    .map(|option| option.replace("dh=FILE", &format!("dh={}", material.group)))
                    .collect();
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                let server = SmallServer::start(program, certificate, &options);
                let library = server.library.clone();
                (Box::new(server), library)
            }
            Server::Node(version, protocol, ciphers) => {
                let server = NodeServer::start(version, certificate, protocol, ciphers);
                let library = server.library.clone();
                (Box::new(server), library)
            }
        };
        let device = match self.device {
            Device::None => None,
            Device::Dislikes(dislike, manner) => Some(before(&server.address(), dislike, manner)),
            Device::Slow => Some(slow(&server.address(), Duration::from_secs(6))),
            Device::Drips => Some(dripping(&server.address())),
        };
        let port = device.as_ref().map_or(server.address(), Listening::address).port();
        Running { library, certificate: certificate.clone(), port, _server: server, _device: device }
    }

    /// Whether it refuses who calls it by its address.
    pub fn insists_on_its_name(&self) -> bool {
        self.host != "127.0.0.1"
    }

    /// How the server is set, in its own words.
    pub fn setting(&self) -> String {
        match self.server {
            Server::Small(_, options) => options.to_owned(),
            Server::Node(_, protocol, ciphers) => format!("{protocol} {ciphers}"),
        }
    }

    /// What else is special about it.
    pub fn besides(&self) -> String {
        let mut besides = Vec::new();
        match self.certificate {
            Shown::Rsa => {}
            Shown::Ecdsa => besides.push("ECDSA certificate".to_owned()),
            Shown::Many => besides.push("a chain of more than 16 KiB".to_owned()),
        }
        match self.device {
            Device::None => {}
            Device::Dislikes(dislike, manner) => {
                let manner = match manner {
                    Manner::Closes => "closes",
                    Manner::Alerts => "sends an alert",
                    Manner::Hangs => "hangs",
                };
                let dislike = match dislike {
                    Dislike::VersionAbove(minor) => format!("hellos above TLS 1.{}", minor - 1),
                    Dislike::MiddlingHello => "hellos of 256 to 511 bytes".to_owned(),
                    Dislike::Extensions => "extensions".to_owned(),
                    Dislike::EmptyRecords => "empty records".to_owned(),
                };
                besides.push(format!("a device that {manner} at {dislike}"));
            }
            Device::Slow => besides.push("6 s for each handshake".to_owned()),
            Device::Drips => besides.push("the handshake comes byte by byte".to_owned()),
        }
        if self.insists_on_its_name() {
            besides.push(format!("answers to {} alone", self.host));
        }
        if let Some(name) = self.sni {
            besides.push(format!("SNI of {} letters", name.len()));
        }
        besides.join("; ")
    }
}

/// TLS 1.0 and 1.1.
const L0: &str = "security_level = 0";
/// DHE with 1024 bits, RC4 with SHA-1.
const L1: &str = "security_level = 1";
const UP_TO_1_0: &str = "max_tls = \"1.0\"";
const UP_TO_1_1: &str = "max_tls = \"1.1\"";
const BARE: &str = "extensions = false";
const WHOLE: &str = "empty_fragments = false";
const DHE: &str = "allow_weak = [\"dhe\"]";
const TRIPLE_DES: &str = "allow_weak = [\"3des\"]";
const RC4: &str = "allow_weak = [\"rc4\"]";
const UNSAFE: &str = "allow_weak = [\"no-rfc5746\"]";

const ABOVE_1_0: Dislike = Dislike::VersionAbove(1);
const ABOVE_1_1: Dislike = Dislike::VersionAbove(2);

/// With the other extensions, a hello of 256 bytes and more, were it not padded.
const LONG_NAME: &str = "a-name-that-makes-the-hello-long.a-name-that-makes-the-hello-long.\
    a-name-that-makes-the-hello-long.a-name-that-makes-the-hello-long.exchange.example";

/// All of them; those that take longest first.
pub const ALL: &[Configuration] = &[
    // Devices.
    Configuration { device: Device::Slow, ..small(Program::OpenSsl, "min=1.2 max=1.2 ciphers=AES128-GCM-SHA256", &[]) },
    node("4.9.1", "TLSv1_1", "AES128-SHA", &[UP_TO_1_1, L0]).behind(ABOVE_1_1, Manner::Hangs),
    node("4.9.1", "TLSv1", "AES256-SHA", &[L0, WHOLE]).behind(Dislike::EmptyRecords, Manner::Hangs),
    Configuration {
        device: Device::Drips,
        ..small(Program::Go, "min=1.2 max=1.2 ciphers=TLS_RSA_WITH_AES_128_CBC_SHA", &[])
    },
    Configuration {
        sni: Some(LONG_NAME),
        ..small(Program::OpenSsl1_1_1, "min=1.2 max=1.2 ciphers=ECDHE-RSA-AES256-SHA384", &[])
    }
    .behind(Dislike::MiddlingHello, Manner::Hangs),
    small(Program::OpenSsl1_1_0, "min=1.0 max=1.0 ciphers=AES128-SHA", &[UP_TO_1_0, L0])
        .behind(ABOVE_1_0, Manner::Alerts),
    node("0.12.18", "TLSv1", "RC4-SHA", &[UP_TO_1_0, L0, RC4]).behind(ABOVE_1_0, Manner::Closes),
    small(Program::Java, "versions=TLSv1.1 ciphers=TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", &[UP_TO_1_1, L0])
        .behind(ABOVE_1_1, Manner::Closes),
    small(Program::Tlslite, "min=1.0 max=1.0 ciphers=aes128", &[UP_TO_1_0, L0, UNSAFE])
        .behind(ABOVE_1_0, Manner::Closes),
    small(Program::OpenSsl1_1_1, "min=1.0 max=1.1 ciphers=AES256-SHA", &[L0, BARE])
        .behind(Dislike::Extensions, Manner::Alerts),
    node("4.9.1", "TLSv1", "DES-CBC3-SHA", &[L0, BARE, TRIPLE_DES]).behind(Dislike::Extensions, Manner::Alerts),
    small(Program::MbedTls, "min=1.0 max=1.0 ciphers=TLS-RSA-WITH-AES-128-CBC-SHA", &[L0, BARE])
        .behind(Dislike::Extensions, Manner::Closes),
    small(Program::GnuTls, "priority=-VERS-ALL:+VERS-TLS1.1:-KX-ALL:+RSA", &[L0, BARE])
        .behind(Dislike::Extensions, Manner::Closes),
    small(Program::Nss, "min=1.0 max=1.0 ciphers=TLS_RSA_WITH_AES_128_CBC_SHA", &[L0, WHOLE])
        .behind(Dislike::EmptyRecords, Manner::Closes),
    small(Program::OpenSsl1_1_0, "min=1.0 max=1.0 ciphers=ECDHE-RSA-AES128-SHA", &[UP_TO_1_0, L0])
        .behind(ABOVE_1_0, Manner::Closes),
    // OpenSSL.
    node("0.10.48", "TLSv1", "AES128-SHA", &[L0]),
    node("0.10.48", "TLSv1_2", "AES256-GCM-SHA384", &[]),
    node("0.10.48", "TLSv1_2", "DES-CBC3-SHA", &[TRIPLE_DES]),
    node("4.9.1", "TLSv1_1", "ECDHE-RSA-AES128-SHA", &[L0]),
    node("4.9.1", "TLSv1_2", "ECDHE-RSA-AES128-GCM-SHA256", &[]),
    node("4.9.1", "TLSv1_2", "RC4-MD5", &[L0, RC4]),
    small(Program::OpenSsl1_1_0, "min=1.0 max=1.0 ciphers=ECDHE-RSA-RC4-SHA", &[L0, RC4]),
    small(Program::OpenSsl1_1_1, "min=1.0 max=1.2 ciphers=DHE-RSA-AES256-SHA dh=1024", &[L1, DHE]),
    small(Program::OpenSsl1_1_1, "min=1.2 max=1.2 ciphers=ECDHE-RSA-AES256-GCM-SHA384 groups=X25519", &[]),
    small(Program::OpenSsl, "min=1.2 max=1.2 ciphers=ECDHE-RSA-AES256-GCM-SHA384 groups=P-521", &[]),
    small(Program::OpenSsl, "min=1.0 max=1.2 ciphers=ECDHE-RSA-AES128-GCM-SHA256 sni=localhost", &[]).by_name(),
    Configuration {
        certificate: Shown::Many,
        ..small(Program::OpenSsl1_1_0, "min=1.0 max=1.0 ciphers=ECDHE-RSA-AES256-SHA", &[L0])
    },
    small(Program::OpenSsl, "min=1.0 max=1.3 ciphers=AES256-SHA256", &[]),
    small(Program::OpenSsl1_1_1, "min=1.2 max=1.2 ciphers=ECDHE-RSA-CHACHA20-POLY1305", &[]),
    // GnuTLS.
    small(Program::GnuTls, "priority=-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-RSA", &[DHE]),
    small(Program::GnuTls, "priority=-VERS-ALL:+VERS-TLS1.0:-KX-ALL:+DHE-RSA dh=FILE", &[L0, DHE]),
    small(Program::GnuTls, "priority=-VERS-ALL:+VERS-TLS1.2:%DISABLE_SAFE_RENEGOTIATION", &[UNSAFE]),
    small(Program::GnuTls, "priority=-VERS-ALL:+VERS-TLS1.0:%DISABLE_SAFE_RENEGOTIATION", &[L0, UNSAFE]),
    small(
        Program::GnuTls,
        "priority=-VERS-ALL:+VERS-TLS1.1:-KX-ALL:+DHE-RSA:%DISABLE_SAFE_RENEGOTIATION",
        &[L0, "allow_weak = [\"no-rfc5746\", \"dhe\"]"],
    ),
    small(Program::GnuTls, "priority=-VERS-ALL:+VERS-TLS1.0:-CIPHER-ALL:+3DES-CBC", &[L0, TRIPLE_DES]),
    small(Program::GnuTls, "priority=-VERS-ALL:+VERS-TLS1.0:-CIPHER-ALL:+ARCFOUR-128", &[L0, RC4]),
    Configuration {
        certificate: Shown::Many,
        ..small(Program::GnuTls, "priority=-VERS-ALL:+VERS-TLS1.2:-GROUP-ALL:+GROUP-SECP384R1", &[])
    },
    // NSS.
    small(Program::Nss, "min=1.2 max=1.2 ciphers=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 groups=secp384r1", &[]),
    small(Program::Nss, "min=1.0 max=1.1 ciphers=TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", &[L0]),
    small(Program::Nss, "min=1.2 max=1.2 ciphers=TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", &[DHE]),
    small(Program::Nss, "min=1.0 max=1.1 ciphers=TLS_RSA_WITH_3DES_EDE_CBC_SHA", &[L0, TRIPLE_DES]),
    small(Program::Nss, "min=1.0 max=1.2 ciphers=TLS_RSA_WITH_RC4_128_SHA", &[L1, RC4]),
    // Java.
    small(Program::Java, "versions=TLSv1 ciphers=TLS_RSA_WITH_AES_128_CBC_SHA", &[L0]),
    small(Program::Java, "versions=TLSv1.2 ciphers=TLS_RSA_WITH_AES_256_CBC_SHA256", &[]),
    small(Program::Java, "versions=TLSv1.2 ciphers=TLS_DHE_RSA_WITH_AES_128_CBC_SHA256 dh=1024", &[L1, DHE]),
    small(Program::Java, "versions=TLSv1.1 ciphers=SSL_RSA_WITH_3DES_EDE_CBC_SHA", &[L0, TRIPLE_DES]),
    small(Program::Java, "versions=TLSv1,TLSv1.1,TLSv1.2 ciphers=SSL_RSA_WITH_RC4_128_MD5", &[L0, RC4]),
    Configuration {
        certificate: Shown::Ecdsa,
        ..small(Program::Java, "versions=TLSv1.2 ciphers=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", &[])
    },
    small(
        Program::Java,
        "versions=TLSv1.2,TLSv1.3 ciphers=TLS_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA groups=secp521r1",
        &[],
    ),
    small(Program::Java, "versions=TLSv1.2 ciphers=TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", &[]),
    // mbedTLS.
    small(Program::MbedTls, "min=1.0 max=1.1 ciphers=TLS-ECDHE-RSA-WITH-AES-256-CBC-SHA", &[L0]),
    small(Program::MbedTls, "min=1.0 max=1.0 ciphers=TLS-RSA-WITH-3DES-EDE-CBC-SHA", &[L0, TRIPLE_DES]),
    small(Program::MbedTls, "min=1.0 max=1.2 ciphers=TLS-RSA-WITH-RC4-128-SHA", &[L1, RC4]),
    small(Program::MbedTls, "min=1.2 max=1.2 ciphers=TLS-DHE-RSA-WITH-AES-128-CBC-SHA dh=FILE", &[L1, DHE]),
    Configuration {
        certificate: Shown::Ecdsa,
        ..small(
            Program::MbedTls,
            "min=1.2 max=1.2 ciphers=TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256 groups=secp384r1,secp256r1",
            &[],
        )
    },
    // wolfSSL.
    small(Program::WolfSsl, "max=1.2 ciphers=ECDHE-RSA-AES128-SHA256", &[]),
    small(Program::WolfSsl, "max=1.1 ciphers=ECDHE-RSA-AES128-SHA", &[L0]),
    small(Program::WolfSsl, "max=1.2 ciphers=ECDHE-RSA-DES-CBC3-SHA", &[TRIPLE_DES]),
    small(Program::WolfSsl, "max=1.2 ciphers=ECDHE-RSA-RC4-SHA", &[L1, RC4]),
    small(Program::WolfSsl, "max=1.2 ciphers=DHE-RSA-AES128-SHA256 dh=FILE", &[L1, DHE]),
    // BearSSL.
    small(Program::BearSsl, "min=1.0 max=1.0 ciphers=RSA_WITH_AES_128_CBC_SHA", &[L0]),
    small(Program::BearSsl, "min=1.0 max=1.1 ciphers=RSA_WITH_3DES_EDE_CBC_SHA", &[L0, TRIPLE_DES]),
    small(Program::BearSsl, "min=1.0 max=1.2 ciphers=ECDHE_RSA_WITH_AES_128_GCM_SHA256", &[]),
    small(Program::BearSsl, "min=1.2 max=1.2 ciphers=ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", &[]),
    // tlslite, old and new.
    small(Program::Tlslite, "min=1.0 max=1.2 ciphers=rc4", &[L1, "allow_weak = [\"no-rfc5746\", \"rc4\"]"]),
    small(Program::Tlslite, "min=1.2 max=1.2 ciphers=aes256", &[UNSAFE]),
    small(Program::TlsliteNg, "min=1.0 max=1.2 ciphers=aes256 kx=ecdhe_rsa groups=secp384r1", &[]),
    small(Program::TlsliteNg, "min=1.0 max=1.0 ciphers=3des kx=rsa", &[L0, TRIPLE_DES]),
    small(Program::TlsliteNg, "min=1.2 max=1.2 ciphers=aes128 kx=dhe_rsa", &[DHE]),
    // Go.
    small(Program::Go, "min=1.0 max=1.0 ciphers=TLS_RSA_WITH_3DES_EDE_CBC_SHA", &[L0, TRIPLE_DES]),
    small(Program::Go, "min=1.0 max=1.2 ciphers=TLS_RSA_WITH_RC4_128_SHA", &[L1, RC4]),
    small(Program::Go, "min=1.0 max=1.1 ciphers=TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", &[L0]),
    small(Program::Go, "min=1.2 max=1.2 ciphers=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 groups=P521 sni=localhost", &[])
        .by_name(),
];
