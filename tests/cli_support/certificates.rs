//! Certificates for targets, good and bad ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name, X509NameBuilder};

/// A certificate and its key, in files too.
pub struct Certificate {
    pub x509: X509,
    pub pkey: PKey<Private>,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a certificate says.
#[derive(Clone)]
pub struct Leaf<'a> {
    /// Its common name, and its file's.
    pub name: &'a str,
    /// Its alternative names.
    pub dns: &'a [&'a str],
    /// Whether 127.0.0.1 is one of them.
    pub loopback: bool,
    pub expired: bool,
    pub bits: u32,
}

impl Default for Leaf<'_> {
    fn default() -> Self {
        Self { name: "EXCH1", dns: &[], loopback: true, expired: false, bits: 2048 }
    }
}

impl Certificate {
    /// Signed by itself, as a fresh Exchange has it.
    pub fn self_signed(folder: &Path, name: &str) -> Self {
        Leaf { name, ..Leaf::default() }.issue(folder, None)
    }

    /// `sha256:` and 64 digits.
    pub fn pin(&self) -> String {
        let digest = self.x509.digest(MessageDigest::sha256()).expect("a digest");
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    }

    pub fn pem(&self) -> String {
        fs::read_to_string(&self.cert).expect("the certificate's file")
    }
}

/// A private authority.
pub struct Authority(pub Certificate);

impl Authority {
    pub fn new(folder: &Path) -> Self {
        let key = fresh_key(2048);
        let name = common_name("CORP-CA");
        let mut builder = builder(&name, &key, false);
        builder.set_issuer_name(&name).expect("an issuer");
        builder.append_extension(BasicConstraints::new().critical().ca().build().expect("constraints")).expect("added");
        builder.sign(&key, MessageDigest::sha256()).expect("signed");
        Self(written(folder, "CORP-CA", builder.build(), key))
    }
}

impl Leaf<'_> {
    pub fn issue(&self, folder: &Path, by: Option<&Authority>) -> Certificate {
        let key = if self.bits == 2048 { some_key() } else { fresh_key(self.bits) };
        let name = common_name(self.name);
        let mut builder = builder(&name, &key, self.expired);
        builder.set_issuer_name(by.map_or(&name, |by| by.0.x509.subject_name())).expect("an issuer");
        if self.loopback || !self.dns.is_empty() {
            let mut names = SubjectAlternativeName::new();
            self.dns.iter().for_each(|name| _ = names.dns(name));
            if self.loopback {
                names.ip("127.0.0.1");
            }
            let names = names.build(&builder.x509v3_context(None, None)).expect("names");
            builder.append_extension(names).expect("added");
        }
        builder.sign(by.map_or(&key, |by| &by.0.pkey), MessageDigest::sha256()).expect("signed");
        written(folder, self.name, builder.build(), key)
    }
}

/// One key for whoever needs just any: a fresh one takes its time.
fn some_key() -> PKey<Private> {
    static KEY: LazyLock<PKey<Private>> = LazyLock::new(|| fresh_key(2048));
    KEY.clone()
}

pub fn fresh_key(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).expect("a key")).expect("a key")
}

fn common_name(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("a name");
    builder.append_entry_by_text("CN", name).expect("a name");
    builder.build()
}

fn builder(subject: &X509Name, key: &PKey<Private>, expired: bool) -> openssl::x509::X509Builder {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let day = 24 * 3600;
    let until = if expired { now - day } else { now + 300 * day };
    let mut serial = BigNum::new().expect("a number");
    serial.rand(120, MsbOption::ONE, false).expect("random");
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("version 3");
    builder.set_serial_number(&serial.to_asn1_integer().expect("a serial")).expect("set");
    builder.set_subject_name(subject).expect("set");
    builder.set_pubkey(key).expect("set");
    builder.set_not_before(&Asn1Time::from_unix(now - 3 * day).expect("a date")).expect("set");
    builder.set_not_after(&Asn1Time::from_unix(until).expect("a date")).expect("set");
    builder
}

fn written(folder: &Path, name: &str, x509: X509, pkey: PKey<Private>) -> Certificate {
    let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    fs::write(&cert, x509.to_pem().expect("PEM")).expect("written");
    fs::write(&key, pkey.private_key_to_pem_pkcs8().expect("PEM")).expect("written");
    Certificate { x509, pkey, cert, key }
}
