//! What a listener serves: a certificate chain and its key.

use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{self, Facts};

/// Why a pair can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("{}: read: {cause}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    /// Generation.
    #[error("make a certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// A certificate chain and its key.
pub struct Pair {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// The leaf's.
    pub facts: Facts,
}

/// A pair that lives as long as this run.
pub struct ForThisRun {
    /// The pair.
    pub pair: Pair,
    /// What clients must trust.
    pub authority_pem: String,
}

/// Reads `cert.pem` and `key.pem` of a folder.
///
/// # Errors
/// As [`read_files`].
pub fn read(folder: &Path) -> Result<Pair, Error> {
    read_files(&folder.join("cert.pem"), &folder.join("key.pem"))
}

/// Reads a pair.
///
/// # Errors
/// Whatever is unreadable.
pub fn read_files(cert: &Path, key: &Path) -> Result<Pair, Error> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |error: rustls_pki_types::pem::Error| Error::Read { path, cause: error.to_string() }
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(cert).map_err(fail(cert))?.collect::<Result<_, _>>().map_err(fail(cert))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(fail(key))?;
    let facts = Facts::of_der(chain.first().map(|leaf| leaf.as_ref()).unwrap_or_default())?;
    Ok(Pair { chain, key, facts })
}

/// Makes a pair for this run.
///
/// # Errors
/// No randomness.
pub fn for_this_run() -> Result<ForThisRun, Error> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let key = rcgen::KeyPair::generate()?;
    let ca = params.self_signed(&key)?;
    let issuer = rcgen::Issuer::new(params, key);
    let mut leaf = rcgen::CertificateParams::new(names.to_vec())?;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    leaf.is_ca = rcgen::IsCa::ExplicitNoCa;
    let leaf_key = rcgen::KeyPair::generate()?;
    let leaf = leaf.signed_by(&leaf_key, &issuer)?;
    let facts = Facts::of_der(leaf.der())?;
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der())
        .map_err(|cause| Error::Read { path: PathBuf::new(), cause: cause.to_owned() })?;
    Ok(ForThisRun { pair: Pair { chain: vec![leaf.der().clone()], key, facts }, authority_pem: ca.pem() })
}
