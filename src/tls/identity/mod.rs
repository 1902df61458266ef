//! Our own certificate: a local CA, the leaf a forwarder serves, or a foreign pair put in its place.
//!
//! A pair lies in two files, and no file system replaces two files at once. So whoever writes has
//! both on the disk before renaming the first, and whoever reads checks that the key belongs to the
//! certificate and looks again if it doesn't: an old certificate never meets a new key unnoticed.
//! A power cut between the two renames leaves a pair that is refused by name; `renew` repairs it.
//!
//! Invariants: no pair is written that could not be served; the CA's key is read only to issue.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io, thread};

use nix::unistd::Gid;
use openssl::pkey::{Id, PKey};
use openssl::x509::X509;
use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::config::{Name, Places};
use crate::tls::certificate::{self, Facts};
use crate::words;

mod authority;
mod files;
mod names;

pub use authority::{Authority, Issued};
pub use names::{machine_names, normal};

/// A certificate with its chain and its key, known to belong together and to be usable.
#[derive(Debug)]
pub struct Pair {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// What the leaf says.
    pub facts: Facts,
}

/// A pair that no file holds, and the CA that clients of this run must trust.
#[derive(Debug)]
pub struct ForThisRun {
    /// The pair.
    pub pair: Pair,
    /// The CA's certificate; its key is forgotten at once.
    pub authority_pem: String,
}

/// What [`renew`] or [`adopt`] did, with the facts of the certificate now served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It has time left, or is the same as before.
    Unchanged(Facts),
    /// Another one lies in its place.
    Renewed(Facts),
    /// It isn't from a local CA, so [`renew`] left it alone: its owner brings the next one.
    Foreign(Facts),
}

/// Why an identity can't be made, read or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate can't be read.
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    /// A file or folder can't be read or written.
    #[error("{}: {what}: {}", path.display(), words::of(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A private key can't be read or used.
    #[error("{}: read the private key: {cause}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The key belongs to another certificate.
    #[error("{}: check: its key is not the one in {}", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The key's certificate is there, but not at the top.
    #[error("{}: check: the certificate of the key stands at place {number}, it must be the first", path.display())]
    Order {
        /// The file.
        path: PathBuf,
        /// Where it stands, from 1.
        number: usize,
    },
    /// A certificate that no client of today accepts or rustls can't serve.
    #[error("{}: check: {cause}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
    /// No local CA yet.
    #[error("{}: local CA: there is none yet", .0.display())]
    NoAuthority(PathBuf),
    /// Half of the local CA is missing.
    #[error("{}: local CA: {missing} is missing, the other file is there", folder.display())]
    HalfAuthority {
        /// The CA's folder.
        folder: PathBuf,
        /// The file that isn't there.
        missing: &'static str,
    },
    /// The CA's files don't belong together.
    #[error("{}: local CA: ca.key is not the key of ca.pem", .0.display())]
    AuthorityMismatch(PathBuf),
    /// The CA has expired, or the clock is wrong.
    #[error("{}: local CA: not valid today: {lifetime}", folder.display())]
    AuthorityDates {
        /// The CA's folder.
        folder: PathBuf,
        /// From when to when.
        lifetime: String,
    },
    /// Not a name for a certificate.
    #[error("name '{0}': put into a certificate: not a DNS name or an IP address")]
    Name(String),
    /// A certificate for nobody.
    #[error("certificate: issue: no name to put into it")]
    NoNames,
    /// The cryptographic library refused.
    #[error("certificate: issue: {0}")]
    Issue(#[from] rcgen::Error),
}

impl Error {
    fn io(path: &Path, what: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), what, source }
    }

    /// What an admin can do about it, if that isn't plain from the text.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::HalfAuthority { folder, .. } | Self::AuthorityMismatch(folder) => Some(format!(
                "restore {} from a backup; moved away, the next `ewsbridge add` makes a new CA, which every client must paste anew",
                folder.display()
            )),
            Self::AuthorityDates { folder, .. } => Some(format!(
                "if the clock is right, move {} away and run `ewsbridge cert renew --all --force`; every client must paste the new CA",
                folder.display()
            )),
            Self::Key { path, cause } if cause == ENCRYPTED => {
                Some(format!("decrypt it first: openssl pkey -in {} -out plain.key", path.display()))
            }
            _ => None,
        }
    }
}

/// Reads the pair of a forwarder's folder ([`Places::identity`]), and looks again while a writer is between its two renames.
///
/// Blocks for at most 100 ms, and only if the files don't match.
///
/// # Errors
/// Every reason why the pair can't be served, with the file it lies in.
pub fn read(folder: &Path) -> Result<Pair, Error> {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    for _ in 0..LOOKS - 1 {
        match read_pair(&certificate, &key) {
            Err(Error::Mismatch { .. } | Error::Order { .. }) => thread::sleep(LOOK_PAUSE),
            other => return other,
        }
    }
    read_pair(&certificate, &key)
}

/// Reads and checks a pair of any two files, once.
///
/// # Errors
/// As [`read`].
pub fn read_pair(certificate: &Path, key: &Path) -> Result<Pair, Error> {
    let bytes = |path: &Path| fs::read(path).map_err(|error| Error::io(path, "read", error));
    check(&bytes(certificate)?, &bytes(key)?, certificate, key)
}

/// Puts a pair into a forwarder's folder ([`Places::identity`]), after checking it, readable for its owner and the group.
///
/// Without a group an existing pair's group is kept.
///
/// # Errors
/// Those of [`read`]; [`Error::Io`] if it can't be written. The old pair then stays.
pub fn install(
    places: &Places,
    folder: &Path,
    chain_pem: &str,
    key_pem: &str,
    group: Option<Gid>,
) -> Result<(), Error> {
    check(chain_pem.as_bytes(), key_pem.as_bytes(), Path::new("certificate"), Path::new("key"))?;
    place(places, folder, chain_pem, key_pem, group)
}

/// Puts a pair that was checked into a folder of [`Places::state`].
pub(super) fn place(
    places: &Places,
    folder: &Path,
    chain_pem: &str,
    key_pem: &str,
    group: Option<Gid>,
) -> Result<(), Error> {
    let files = [files::Content(KEY, key_pem, PAIR_MODE), files::Content(CERTIFICATE, chain_pem, PAIR_MODE)];
    files::folder(&places.state, group)?;
    files::folder(folder.parent().unwrap_or(&places.state), group)?;
    if !folder.exists() && files::fill(folder, files::FOLDER_MODE, group, &files)? {
        return Ok(());
    }
    let group = group.or_else(|| files::group_of(folder));
    files::replace(folder, group, &files).map_err(|error| Error::io(folder, "write", error))
}

/// Removes a forwarder's pairs; harmless if there are none.
///
/// # Errors
/// [`Error::Io`] if one can't be removed.
pub fn remove(places: &Places, name: &Name) -> Result<(), Error> {
    for folder in [places.identity(name), places.credential(name)] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io(&folder, "remove", error)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether two thirds of a certificate's life have passed.
pub fn renewal_due(facts: &Facts, now: OffsetDateTime) -> bool {
    (now - facts.not_before) * 3 >= (facts.not_after - facts.not_before) * 2
}

/// Reissues a forwarder's certificate if it is due, forced, broken, or not from the CA that clients are told to trust.
///
/// The new one carries every name of the old one, then those of `names` that are new. New names
/// alone are no reason: addresses come and go, and each would leave its trace for ever.
///
/// # Errors
/// Those of [`Authority::load`] and [`Authority::issue`]; the old pair then stays.
pub fn renew(
    places: &Places,
    name: &Name,
    names: &[String],
    force: bool,
    now: OffsetDateTime,
) -> Result<Renewal, Error> {
    let folder = places.identity(name);
    let leaf = certificate::read_pem_chain(&folder.join(CERTIFICATE))?.swap_remove(0);
    let facts = Facts::of(&leaf)?;
    if !facts.issuer_common_name.as_ref().is_some_and(|issuer| issuer.starts_with(authority::COMMON_NAME)) {
        return Ok(Renewal::Foreign(facts));
    }
    let (authority, _) = Authority::certificate(places)?;
    let current = authority.public_key().is_ok_and(|key| leaf.verify(&key).unwrap_or(false));
    if !force && current && !renewal_due(&facts, now) && read(&folder).is_ok() {
        return Ok(Renewal::Unchanged(facts));
    }
    let names = names::merged(facts.names.into_iter().chain(names.iter().cloned()));
    let issued = Authority::load(places)?.issue(&names, now)?;
    install(places, &folder, &issued.chain_pem, &issued.key_pem, None)?;
    Ok(Renewal::Renewed(read(&folder)?.facts))
}

/// Copies a foreign certificate and its key into a forwarder's folder, after checking them; nothing happens if they are the same.
///
/// # Errors
/// As [`install`].
pub fn adopt(
    places: &Places,
    folder: &Path,
    certificate: &Path,
    key: &Path,
    group: Option<Gid>,
) -> Result<Renewal, Error> {
    let Pair { chain, key, facts } = read_pair(certificate, key)?;
    let encoded = chain.iter().map(|der| X509::from_der(der)?.to_pem()).collect::<Result<Vec<_>, _>>();
    let chain = encoded.map_err(certificate::Error::from)?.concat();
    let key = PKey::private_key_from_der(key.secret_der()).and_then(|key| key.private_key_to_pem_pkcs8());
    let key = key.map_err(certificate::Error::from)?;
    let same = |file: &str, bytes: &[u8]| fs::read(folder.join(file)).is_ok_and(|old| old == bytes);
    if same(CERTIFICATE, &chain) && same(KEY, &key) {
        return Ok(Renewal::Unchanged(facts));
    }
    install(places, folder, &String::from_utf8_lossy(&chain), &String::from_utf8_lossy(&key), group)?;
    Ok(Renewal::Renewed(facts))
}

/// Makes a CA and a pair for these names that live as long as the process: nothing is written.
///
/// # Errors
/// As [`Authority::issue`].
pub fn for_this_run(names: &[String], now: OffsetDateTime) -> Result<ForThisRun, Error> {
    let (authority, authority_pem) = Authority::in_memory("a run without a file", now)?;
    let issued = authority.issue(names, now)?;
    let origin = Path::new("certificate of this run");
    let pair = check(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes(), origin, origin)?;
    Ok(ForThisRun { pair, authority_pem })
}

/// Everything that would keep rustls from serving the pair, or a client of today from accepting it.
fn check(chain: &[u8], key: &[u8], chain_path: &Path, key_path: &Path) -> Result<Pair, Error> {
    let unusable = |cause: String| Error::Unusable { path: chain_path.to_owned(), cause };
    let certificates = certificate::parse_chain(chain, chain_path)?;
    let key = parse_key(key, key_path)?;
    let facts = Facts::of(&certificates[0])?;
    if certificates[0].public_key().is_ok_and(|key| key.id() == Id::RSA && key.bits() < RSA_MIN) {
        return Err(unusable(format!("its key is {}, clients of today demand RSA {RSA_MIN} or more", facts.key)));
    }
    let chain = certificates.iter().map(|one| one.to_der().map(CertificateDer::from)).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(certificate::Error::from)?;
    let signer = aws_lc_rs::default_provider().key_provider.load_private_key(key.clone_key());
    let signer = signer.map_err(|error| Error::Key { path: key_path.to_owned(), cause: error.to_string() })?;
    let belongs = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], signer.clone()).keys_match()
    };
    match belongs(&chain[0]) {
        Ok(()) => Ok(Pair { chain, key, facts }),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(match chain.iter().position(|other| belongs(other).is_ok()) {
                Some(index) => Error::Order { path: chain_path.to_owned(), number: index + 1 },
                None => Error::Mismatch { certificate: chain_path.to_owned(), key: key_path.to_owned() },
            })
        }
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// The private key of a file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    parse_key(&fs::read(path).map_err(|error| Error::io(path, "read", error))?, path)
}

fn parse_key(bytes: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    PrivateKeyDer::from_pem_slice(bytes)
        .map_err(|error| match error {
            _ if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") => ENCRYPTED.to_owned(),
            pem::Error::NoItemsFound if has("BEGIN CERTIFICATE") => "none inside, only a certificate".to_owned(),
            pem::Error::NoItemsFound => "none inside".to_owned(),
            error => certificate::pem_cause(&error),
        })
        .map_err(|cause| Error::Key { path: path.to_owned(), cause })
}

const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
const ENCRYPTED: &str = "it is encrypted, and nobody is there to type its password at a start";
/// The service's group reads both files; it never writes.
const PAIR_MODE: u32 = 0o640;
/// What browsers, OpenSSL's level 2 and aws-lc demand of RSA, in bits.
const RSA_MIN: u32 = 2048;
/// How often, and how far apart, a pair is read that doesn't match; a writer needs well under 1 ms between its renames.
const LOOKS: u32 = 11;
const LOOK_PAUSE: Duration = Duration::from_millis(10);
