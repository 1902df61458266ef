//! Targets that are other programs: `openssl s_server` of this system, and HTTPS servers of 2012–2018.

use super::pki::P12_PASSWORD;
use super::{Certificate, Child, Listening};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

/// A running `openssl s_server`.
pub struct SServer {
    pub child: Child,
    address: SocketAddr,
}

impl SServer {
    /// Starts it on a free port. The arguments say version, ciphers (with `@SECLEVEL=0` for the old
    /// ones) and mode: `-www`, `-WWW`, `-rev`, or none for standard input and output.
    pub fn start(certificate: &Certificate, arguments: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0"]);
        command.arg("-cert").arg(&certificate.cert_file).arg("-key").arg(&certificate.key_file);
        command.arg("-cert_chain").arg(&certificate.cert_file);
        command.args(arguments);
        let child = Child::spawn(clean(&mut command));
        // `ACCEPT 127.0.0.1:39865`; its standard output is a pipe, but this line is flushed.
        let line = child.stdout.wait_for(&["ACCEPT 127.0.0.1:"]);
        let address = line.trim_start_matches("ACCEPT ").parse().expect("an address after ACCEPT");
        Self { child, address }
    }
}

impl Listening for SServer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A running small HTTPS server of `tests/servers`: `POST /echo` and `GET /EWS/Exchange.asmx`.
pub struct SmallServer {
    pub child: Child,
    address: SocketAddr,
    /// The library that it is made with.
    pub library: Library,
}

/// A TLS library, as the server itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    pub name: String,
    pub version: String,
}

impl SmallServer {
    /// Starts one; each program's head says which options it takes.
    pub fn start(program: Program, certificate: &Certificate, options: &[&str]) -> Self {
        let mut command = program.command(certificate);
        let child = Child::spawn(clean(command.args(options)));
        let (port, library) = Library::told(&child);
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), library }
    }
}

impl Listening for SmallServer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Library {
    /// From the line `listening PORT LIBRARY VERSION`.
    fn told(child: &Child) -> (u16, Self) {
        let line = child.stdout.wait_for(&["listening "]);
        let words: Vec<&str> = line.split(' ').collect();
        let port = words[1].parse().expect("a port after `listening`");
        (port, Self { name: words[2].to_owned(), version: words[3].to_owned() })
    }

    /// Without what a distribution's next update may change.
    pub fn line(&self) -> String {
        // OpenSSL's letters were patches, before there was a 3.0.
        let version = self.version.trim_end_matches(char::is_alphabetic);
        let parts = if version.starts_with("1.") && self.name == "OpenSSL" { 3 } else { 2 };
        let version: Vec<&str> = version.split('.').take(parts).collect();
        format!("{} {}", self.name, version.join("."))
    }
}

/// The small servers.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// This system's.
    OpenSsl,
    OpenSsl1_1_0,
    OpenSsl1_1_1,
    GnuTls,
    BearSsl,
    MbedTls,
    WolfSsl,
    Nss,
    Go,
    Java,
    /// Of 2015.
    Tlslite,
    TlsliteNg,
}

impl Program {
    /// Its command with the certificate in the form that it reads.
    fn command(self, certificate: &Certificate) -> Command {
        make();
        let pem =
            [format!("key={}", certificate.key_file.display()), format!("cert={}", certificate.cert_file.display())];
        let made = |name: &str| {
            let mut command = Command::new(in_project("target/servers").join(name));
            command.args(&pem);
            command
        };
        match self {
            Self::OpenSsl => made("openssl"),
            Self::OpenSsl1_1_0 => made("openssl-1.1.0"),
            Self::OpenSsl1_1_1 => made("openssl-1.1.1"),
            Self::GnuTls => made("gnutls"),
            Self::BearSsl => made("bearssl"),
            Self::MbedTls => made("mbedtls"),
            Self::WolfSsl => made("wolfssl"),
            Self::Go => made("gotls"),
            Self::Nss => {
                let mut command = Command::new(in_project("target/servers/nss"));
                command.arg(format!("db=sql:{}", certificate.nss_database().display()));
                command
            }
            Self::Java => {
                let mut command = Command::new("java");
                // Many small programs on few cores.
                command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]).arg(in_project("target/servers"));
                command.args(["Jsse", &format!("p12={}", certificate.p12_file().display())]);
                command.arg(format!("password={P12_PASSWORD}"));
                command
            }
            Self::Tlslite | Self::TlsliteNg => {
                let folder = if matches!(self, Self::Tlslite) { "old" } else { "new" };
                let cache = cached("tlslite");
                let mut command = Command::new("python3");
                // The old one's text has escapes that Python has come to warn of.
                command.args(["-W", "ignore"]).arg(in_project("tests/servers/tlslite_https.py")).args(&pem);
                let paths = [cache.join(folder), cache.join("both")].map(|path| path.display().to_string());
                command.env("PYTHONPATH", paths.join(":")).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
        }
    }
}

/// Compiles what has changed; once for all tests of a program.
fn make() {
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        let mut command = Command::new("make");
        let made = command.arg("--silent").arg("--directory").arg(in_project("tests/servers")).output().expect("make");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(
            made.status.success(),
            "{said}\nto get what is missing: deploy/setup build tests && tests/servers/fetch"
        );
    });
}

/// A running `tests/servers/https.js` on an old node.
pub struct NodeServer {
    pub child: Child,
    address: SocketAddr,
    /// OpenSSL, of its time.
    pub library: Library,
}

impl NodeServer {
    /// `version` as `tests/servers/fetch` has it, `protocol` TLSv1, TLSv1_1 or TLSv1_2.
    pub fn start(version: &str, certificate: &Certificate, protocol: &str, ciphers: &str) -> Self {
        let mut command = Command::new(cached(&format!("node-{version}/bin/node")));
        command.arg(in_project("tests/servers/https.js"));
        command.args([&certificate.key_file, &certificate.cert_file]);
        command.args([protocol, ciphers]);
        let child = Child::spawn(clean(&mut command));
        let (port, library) = Library::told(&child);
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), library }
    }

    /// How many TLS connections it has had.
    pub fn connections(&self) -> usize {
        self.child.stdout.count("connection ")
    }
}

impl Listening for NodeServer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What `tests/servers/fetch` has put into the cache.
pub fn cached(path: &str) -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("EWSBRIDGE_SERVERS").or_else(|| {
        let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        Some(caches?.join("ewsbridge-servers"))
    });
    let found = cache.expect("HOME is set").join(path);
    let fetch = in_project("tests/servers/fetch");
    assert!(found.exists(), "the old server {} is missing; fetch it with: {}", found.display(), fetch.display());
    found
}

/// Without what the environment of the person testing would change.
fn clean(command: &mut Command) -> &mut Command {
    for name in
        ["OPENSSL_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_MODULES", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS"]
    {
        command.env_remove(name);
    }
    command
}

/// A running `gnutls-serv` that sends back what it gets.
pub struct GnutlsServer {
    _child: Child,
    address: SocketAddr,
}

impl GnutlsServer {
    /// `priority` as GnuTLS has it (gnutls_priority_init(3)), after `NORMAL`.
    pub fn echo(certificate: &Certificate, priority: &str) -> Self {
        Self::with(certificate, priority, &[])
    }

    /// The same with more arguments.
    pub fn with(certificate: &Certificate, priority: &str, arguments: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
        let mut command = Command::new("gnutls-serv");
        command.args(["--echo", "--port", &port.to_string(), "--priority", &format!("NORMAL:{priority}")]);
        command.arg("--x509keyfile").arg(&certificate.key_file).arg("--x509certfile").arg(&certificate.cert_file);
        command.args(arguments);
        let child = Child::spawn(clean(&mut command));
        // What it prints stays in its buffer.
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let until = Instant::now() + super::TIMEOUT;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "gnutls-serv (Debian's gnutls-bin) does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { _child: child, address }
    }
}

impl Listening for GnutlsServer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}
