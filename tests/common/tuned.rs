//! An OpenSSL server inside the test whose context the test sets up, and certificates with several
//! faults at once.

use super::{Listening, TIMEOUT, TcpTarget};
use openssl::asn1::{Asn1Integer, Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod};
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Extension, X509NameBuilder};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// An OpenSSL server that sends back what it gets.
pub struct Tuned(TcpTarget);

impl Tuned {
    /// With this chain and key, and whatever `tune` sets.
    pub fn serve(chain: &[X509], key: &PKey<Private>, tune: impl FnOnce(&mut SslContextBuilder)) -> Self {
        let mut builder = SslContext::builder(SslMethod::tls_server()).expect("context");
        builder.set_security_level(0);
        builder.set_cipher_list("ALL:@SECLEVEL=0").expect("ciphers");
        builder.set_certificate(&chain[0]).expect("certificate");
        for authority in &chain[1..] {
            builder.add_extra_chain_cert(authority.clone()).expect("chain");
        }
        builder.set_private_key(key).expect("key");
        tune(&mut builder);
        let context = builder.build();
        Self(TcpTarget::serve(move |stream| {
            let Ok(mut stream) = Ssl::new(&context).expect("connection").accept(stream) else { return };
            stream.get_ref().set_read_timeout(Some(TIMEOUT)).expect("socket option");
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            let _ = stream.shutdown();
        }))
    }
}

impl Listening for Tuned {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

/// What a certificate is to be like.
#[derive(Clone, Copy)]
pub struct Spec<'a> {
    pub subject: &'a str,
    pub bits: u32,
    pub digest: fn() -> MessageDigest,
    /// Days from now at which it begins and ends.
    pub days: (i64, i64),
    /// Names and addresses that it is for.
    pub names: &'a [&'a str],
    /// Whether it may issue others.
    pub issues: bool,
    /// Whether it is for clients alone.
    pub for_clients: bool,
    /// Whether it is for servers alone.
    pub for_servers: bool,
    /// Whether it has a critical extension that nobody knows.
    pub odd: bool,
}

impl Spec<'_> {
    /// Nothing is wrong with it.
    pub const GOOD: Self = Self {
        subject: "exchange",
        bits: 2048,
        digest: MessageDigest::sha256,
        days: (-2, 30),
        names: &["localhost", "127.0.0.1"],
        issues: false,
        for_clients: false,
        for_servers: false,
        odd: false,
    };
    /// An authority.
    pub const AUTHORITY: Self = Self { subject: "The corp's root", names: &[], issues: true, ..Self::GOOD };
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    pub certificate: X509,
    pub key: PKey<Private>,
}

impl Issued {
    /// Issued by this authority, or by itself.
    pub fn by(authority: Option<&Self>, spec: &Spec<'_>) -> Self {
        let key = key(spec.bits, spec.issues);
        let mut builder = X509::builder().expect("certificate");
        builder.set_version(2).expect("version 3");
        let mut serial = BigNum::new().expect("serial");
        serial.rand(127, MsbOption::MAYBE_ZERO, false).expect("serial");
        builder.set_serial_number(&Asn1Integer::from_bn(&serial).expect("serial")).expect("serial");
        let mut subject = X509NameBuilder::new().expect("name");
        subject.append_entry_by_text("CN", spec.subject).expect("name");
        let subject = subject.build();
        builder.set_subject_name(&subject).expect("subject");
        builder.set_pubkey(&key).expect("key");
        builder.set_not_before(&day(spec.days.0)).expect("date");
        builder.set_not_after(&day(spec.days.1)).expect("date");
        extend(&mut builder, spec);
        match authority {
            Some(authority) => {
                builder.set_issuer_name(authority.certificate.subject_name()).expect("issuer");
                builder.sign(&authority.key, (spec.digest)()).expect("signature");
            }
            None => {
                builder.set_issuer_name(&subject).expect("issuer");
                builder.sign(&key, (spec.digest)()).expect("signature");
            }
        }
        Self { certificate: builder.build(), key }
    }

    /// Writes certificate and key, and says where.
    pub fn store(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, self.certificate.to_pem().expect("PEM")).expect("certificate file");
        std::fs::write(&key, self.key.private_key_to_pem_pkcs8().expect("PEM")).expect("key file");
        (cert, key)
    }
}

/// RSA keys take long to make: one of each size for those that issue, and one for the others.
fn key(bits: u32, issues: bool) -> PKey<Private> {
    static MADE: [[OnceLock<PKey<Private>>; 2]; 3] = [const { [const { OnceLock::new() }; 2] }; 3];
    let size = [2048, 1024, 768].iter().position(|size| *size == bits).expect("one of the sizes");
    let made =
        MADE[size][usize::from(issues)].get_or_init(|| PKey::from_rsa(Rsa::generate(bits).expect("RSA")).expect("RSA"));
    made.clone()
}

fn day(from_now: i64) -> Asn1Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    Asn1Time::from_unix(i64::try_from(now).expect("soon enough") + from_now * 24 * 3600).expect("date")
}

fn extend(builder: &mut X509Builder, spec: &Spec<'_>) {
    let mut add = |extension: X509Extension| builder.append_extension(extension).expect("extension");
    let mut constraints = BasicConstraints::new();
    if spec.issues {
        constraints.critical().ca();
    }
    add(constraints.build().expect("constraints"));
    if spec.for_clients {
        add(ExtendedKeyUsage::new().client_auth().build().expect("usage"));
    }
    if spec.for_servers {
        add(ExtendedKeyUsage::new().server_auth().build().expect("usage"));
    }
    if spec.odd {
        let object = Asn1Object::from_str("1.3.6.1.4.1.99999.1").expect("object");
        let content = Asn1OctetString::new_from_bytes(&[5, 0]).expect("content");
        add(X509Extension::new_from_der(&object, true, &content).expect("extension"));
    }
    if !spec.names.is_empty() {
        let mut names = SubjectAlternativeName::new();
        for name in spec.names {
            if name.parse::<std::net::IpAddr>().is_ok() {
                names.ip(name)
            } else {
                names.dns(name)
            };
        }
        let names = names.build(&builder.x509v3_context(None, None)).expect("names");
        builder.append_extension(names).expect("names");
    }
}
