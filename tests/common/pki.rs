//! A private CA for one test, and server certificates with the flaws found on old Exchange servers.

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// A CA in a directory of its own, which goes when the last certificate does.
pub struct Pki {
    dir: Arc<TempDir>,
    root: X509,
    root_key: PKey<Private>,
}

/// A server's certificate with its key, in memory and as PEM files.
#[derive(Clone)]
pub struct Certificate {
    /// The leaf first, then an intermediate if there is one.
    pub chain: Vec<X509>,
    pub key: PKey<Private>,
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    _dir: Arc<TempDir>,
}

/// What can be wrong with a certificate. Each is wrong alone: the rest of the chain is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The leaf is signed with SHA-1: Exchange before CU13, many AD CS.
    Sha1,
    /// The intermediate is.
    Sha1Intermediate,
    /// The leaf is signed with MD5.
    Md5,
    /// The intermediate is.
    Md5Intermediate,
    /// The leaf's key is RSA-1024.
    Rsa1024,
    /// The intermediate's is.
    Rsa1024Intermediate,
    /// The leaf's key is RSA-768, which has been factored in public.
    Rsa768,
    /// Ended yesterday.
    Expired,
    /// For `other.example` only.
    WrongName,
    /// No subjectAltName; the address stands in the common name.
    IpInCn,
    /// Signed by itself, as Exchange's own set-up makes it.
    SelfSigned,
}

impl Pki {
    pub fn new() -> Self {
        Self::named("The test's root")
    }

    /// With a CA of this name.
    pub fn named(name: &str) -> Self {
        // A key of its own: two CAs of one test must not be able to vouch for each other's servers.
        let root_key = PKey::from_rsa(Rsa::generate(2048).expect("RSA key")).expect("RSA key");
        let name = common_name(name);
        let mut root = builder(&name, &root_key, false);
        root.set_issuer_name(&name).expect("root");
        make_authority(&mut root);
        root.sign(&root_key, MessageDigest::sha256()).expect("root");
        let dir = Arc::new(TempDir::with_prefix("ewsbridge-pki-").expect("temporary directory"));
        let root = root.build();
        fs::write(dir.path().join("ca.pem"), root.to_pem().expect("PEM")).expect("CA file");
        Self { dir, root, root_key }
    }

    /// The directory, for a test's other files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a client or the bridge's `--ca` is given.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// An ordinary certificate: RSA-2048, SHA-256, valid now, for localhost, 127.0.0.1 and ::1.
    pub fn server(&self) -> Certificate {
        let leaf_key = key(2048, "leaf");
        let leaf = leaf(&leaf_key, None, &self.root, &self.root_key);
        self.store("server", vec![leaf], leaf_key)
    }

    /// The same, valid until then.
    pub fn server_until(&self, until: SystemTime) -> Certificate {
        let leaf_key = key(2048, "leaf");
        let mut leaf = builder(&common_name("exchange"), &leaf_key, false);
        leaf.set_not_after(&date(until)).expect("date");
        leaf.set_issuer_name(self.root.subject_name()).expect("issuer");
        add_names(&mut leaf, None);
        leaf.sign(&self.root_key, MessageDigest::sha256()).expect("signature");
        self.store("short-lived", vec![leaf.build()], leaf_key)
    }

    /// A certificate for a client that has to show one.
    pub fn client(&self, name: &str) -> Certificate {
        self.client_until(name, SystemTime::now() + Duration::from_secs(24 * 3600))
    }

    /// The same, valid until then.
    pub fn client_until(&self, name: &str, until: SystemTime) -> Certificate {
        let leaf_key = key(2048, "client");
        let mut leaf = builder(&common_name(name), &leaf_key, false);
        leaf.set_not_after(&date(until)).expect("date");
        leaf.set_issuer_name(self.root.subject_name()).expect("issuer");
        let client = ExtendedKeyUsage::new().client_auth().build().expect("extended key usage");
        leaf.append_extension(client).expect("extended key usage");
        leaf.sign(&self.root_key, MessageDigest::sha256()).expect("signature");
        self.store(name, vec![leaf.build()], leaf_key)
    }

    /// With an ECDSA key.
    pub fn ecdsa_server(&self) -> Certificate {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("P-256");
        let leaf_key = PKey::from_ec_key(EcKey::generate(&group).expect("EC key")).expect("EC key");
        let leaf = leaf(&leaf_key, None, &self.root, &self.root_key);
        self.store("ecdsa", vec![leaf], leaf_key)
    }

    /// Under so many intermediates that the chain takes more than 16 KiB, which is more than a record.
    pub fn server_under_many(&self) -> Certificate {
        let authority_key = key(2048, "intermediate");
        let mut chain = Vec::new();
        let mut issuer = (self.root.clone(), self.root_key.clone());
        while chain.iter().map(|link: &X509| link.to_der().expect("DER").len()).sum::<usize>() < 16 << 10 {
            let mut authority = builder(&common_name(&format!("Level {}", chain.len())), &authority_key, false);
            authority.set_issuer_name(issuer.0.subject_name()).expect("intermediate");
            make_authority(&mut authority);
            let mut names = SubjectAlternativeName::new();
            (0..30).for_each(|number| _ = names.dns(&format!("authority-{number}.certificates.exchange.example")));
            let names = names.build(&authority.x509v3_context(None, None)).expect("names");
            authority.append_extension(names).expect("names");
            authority.sign(&issuer.1, MessageDigest::sha256()).expect("intermediate");
            issuer = (authority.build(), authority_key.clone());
            chain.insert(0, issuer.0.clone());
        }
        let leaf_key = key(2048, "leaf");
        chain.insert(0, leaf(&leaf_key, None, &issuer.0, &issuer.1));
        self.store("many", chain, leaf_key)
    }

    /// The same under an intermediate.
    pub fn server_under_intermediate(&self) -> Certificate {
        self.under_intermediate("good", 2048, MessageDigest::sha256())
    }

    /// A certificate with one flaw.
    pub fn flawed(&self, flaw: Flaw) -> Certificate {
        let name = format!("{flaw:?}");
        match flaw {
            Flaw::Sha1Intermediate => self.under_intermediate(&name, 2048, MessageDigest::sha1()),
            Flaw::Md5Intermediate => self.under_intermediate(&name, 2048, MessageDigest::md5()),
            Flaw::Rsa1024Intermediate => self.under_intermediate(&name, 1024, MessageDigest::sha256()),
            _ => {
                let bits = match flaw {
                    Flaw::Rsa768 => 768,
                    Flaw::Rsa1024 => 1024,
                    _ => 2048,
                };
                let leaf_key = key(bits, "leaf");
                let leaf = leaf(&leaf_key, Some(flaw), &self.root, &self.root_key);
                self.store(&name, vec![leaf], leaf_key)
            }
        }
    }

    fn under_intermediate(&self, name: &str, bits: u32, digest: MessageDigest) -> Certificate {
        let authority_key = key(bits, "intermediate");
        let mut authority = builder(&common_name("The test's intermediate"), &authority_key, false);
        authority.set_issuer_name(self.root.subject_name()).expect("intermediate");
        make_authority(&mut authority);
        authority.sign(&self.root_key, digest).expect("intermediate");
        let authority = authority.build();
        let leaf_key = key(2048, "leaf");
        let leaf = leaf(&leaf_key, None, &authority, &authority_key);
        self.store(name, vec![leaf, authority], leaf_key)
    }

    fn store(&self, name: &str, chain: Vec<X509>, key: PKey<Private>) -> Certificate {
        let cert_file = self.dir.path().join(format!("{name}.pem"));
        let key_file = self.dir.path().join(format!("{name}.key"));
        let pem: Vec<u8> = chain.iter().flat_map(|cert| cert.to_pem().expect("PEM")).collect();
        fs::write(&cert_file, pem).expect("certificate file");
        // The traditional form, which OpenSSL of 2012 reads as well.
        let key_pem = match key.rsa() {
            Ok(rsa) => rsa.private_key_to_pem().expect("PEM"),
            Err(_) => key.private_key_to_pem_pkcs8().expect("PEM"),
        };
        fs::write(&key_file, key_pem).expect("key file");
        Certificate { chain, key, cert_file, key_file, _dir: self.dir.clone() }
    }
}

impl Certificate {
    /// With its key as Java reads it.
    pub fn p12_file(&self) -> PathBuf {
        let file = self.cert_file.with_extension("p12");
        made_once(&file, |file| {
            let mut chain = openssl::stack::Stack::new().expect("a stack");
            self.chain[1..].iter().for_each(|link| chain.push(link.clone()).expect("a stack"));
            let mut p12 = Pkcs12::builder();
            p12.name("server").pkey(&self.key).cert(&self.chain[0]).ca(chain);
            let p12 = p12.build2(P12_PASSWORD).expect("PKCS #12");
            fs::write(file, p12.to_der().expect("DER")).expect("PKCS #12 file");
        });
        file
    }

    /// With its key as NSS reads it: a folder.
    pub fn nss_database(&self) -> PathBuf {
        let (folder, p12) = (self.cert_file.with_extension("nss"), self.p12_file());
        made_once(&folder, |folder| {
            fs::create_dir(folder).expect("a folder");
            let database = format!("sql:{}", folder.display());
            run(Command::new("certutil").args(["-N", "--empty-password", "-d", &database]));
            let mut import = Command::new("pk12util");
            import.arg("-i").arg(p12).args(["-d", &database, "-W", P12_PASSWORD, "-K", ""]);
            run(&mut import);
        });
        folder
    }

    /// As a pin is written: over the leaf.
    pub fn pin(&self) -> String {
        format!("sha256:{}", super::sha256(&self.chain[0].to_der().expect("DER")))
    }
}

/// The password of [`Certificate::p12_file`].
pub const P12_PASSWORD: &str = "not secret";

/// Makes a file or folder that isn't there; tests that want the same one wait for each other.
fn made_once(path: &Path, make: impl FnOnce(&Path)) {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().expect("no panic while held");
    if !path.exists() {
        make(path);
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// RSA keys take long to make; each use below a root has one for the whole test program.
fn key(bits: u32, role: &'static str) -> PKey<Private> {
    type Made = (u32, &'static str, PKey<Private>);
    static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().expect("no panic while held");
    if let Some((_, _, key)) = made.iter().find(|(size, used_as, _)| *size == bits && *used_as == role) {
        return key.clone();
    }
    let key = PKey::from_rsa(Rsa::generate(bits).expect("RSA key")).expect("RSA key");
    made.push((bits, role, key.clone()));
    key
}

fn leaf(leaf_key: &PKey<Private>, flaw: Option<Flaw>, issuer: &X509, issuer_key: &PKey<Private>) -> X509 {
    let subject = common_name(if flaw == Some(Flaw::IpInCn) { "127.0.0.1" } else { "exchange" });
    let mut leaf = builder(&subject, leaf_key, flaw == Some(Flaw::Expired));
    let self_signed = flaw == Some(Flaw::SelfSigned);
    let issuer_name = if self_signed { &*subject } else { issuer.subject_name() };
    leaf.set_issuer_name(issuer_name).expect("issuer");
    let usage = KeyUsage::new().critical().digital_signature().key_encipherment().build().expect("key usage");
    leaf.append_extension(usage).expect("key usage");
    let server = ExtendedKeyUsage::new().server_auth().build().expect("extended key usage");
    leaf.append_extension(server).expect("extended key usage");
    let subject_id = SubjectKeyIdentifier::new().build(&leaf.x509v3_context(None, None)).expect("identifier");
    leaf.append_extension(subject_id).expect("identifier");
    if !self_signed {
        let context = leaf.x509v3_context(Some(issuer), None);
        let authority_id = AuthorityKeyIdentifier::new().keyid(true).build(&context).expect("identifier");
        leaf.append_extension(authority_id).expect("identifier");
    }
    add_names(&mut leaf, flaw);
    let digest = match flaw {
        Some(Flaw::Sha1) => MessageDigest::sha1(),
        Some(Flaw::Md5) => MessageDigest::md5(),
        _ => MessageDigest::sha256(),
    };
    leaf.sign(if self_signed { leaf_key } else { issuer_key }, digest).expect("signature");
    leaf.build()
}

fn add_names(leaf: &mut X509Builder, flaw: Option<Flaw>) {
    let mut names = SubjectAlternativeName::new();
    match flaw {
        Some(Flaw::IpInCn) => return,
        Some(Flaw::WrongName) => names.dns("other.example"),
        _ => names.dns("localhost").ip("127.0.0.1").ip("::1"),
    };
    let extension = names.build(&leaf.x509v3_context(None, None)).expect("names");
    leaf.append_extension(extension).expect("names");
}

fn make_authority(builder: &mut X509Builder) {
    let constraints = BasicConstraints::new().critical().ca().build().expect("constraints");
    builder.append_extension(constraints).expect("constraints");
    let usage = KeyUsage::new().critical().key_cert_sign().crl_sign().build().expect("key usage");
    builder.append_extension(usage).expect("key usage");
    let subject_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None)).expect("identifier");
    builder.append_extension(subject_id).expect("identifier");
}

fn builder(subject: &X509Name, key: &PKey<Private>, expired: bool) -> X509Builder {
    const DAY: i64 = 24 * 3600;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let now = i64::try_from(now).expect("before the year 292 billion");
    let until = if expired { now - DAY } else { now + 30 * DAY };
    let mut serial = BigNum::new().expect("serial");
    serial.rand(127, MsbOption::MAYBE_ZERO, false).expect("serial");

    let mut builder = X509::builder().expect("certificate");
    builder.set_version(2).expect("version 3");
    builder.set_serial_number(&Asn1Integer::from_bn(&serial).expect("serial")).expect("serial");
    builder.set_subject_name(subject).expect("subject");
    builder.set_pubkey(key).expect("key");
    builder.set_not_before(&Asn1Time::from_unix(now - 2 * DAY).expect("date")).expect("date");
    builder.set_not_after(&Asn1Time::from_unix(until).expect("date")).expect("date");
    builder
}

fn date(at: SystemTime) -> Asn1Time {
    let seconds = at.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    Asn1Time::from_unix(i64::try_from(seconds).expect("before the year 292 billion")).expect("date")
}

fn common_name(name: &str) -> X509Name {
    let mut builder = X509NameBuilder::new().expect("name");
    builder.append_entry_by_text("CN", name).expect("name");
    builder.build()
}
