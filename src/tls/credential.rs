//! The certificate that we show to a target that asks for one.
//!
//! Shown to nobody else: TLS sends it only where the server's handshake requests it. It is judged by
//! that server, so less is asked of it than of the certificate that we serve.

use std::path::Path;

use nix::unistd::Gid;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl::x509::X509;

use super::{certificate, identity, pfx};
use crate::config::Places;

/// Why a certificate can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pair can't be read, written, or does not belong together.
    #[error("auth_cert: {0}")]
    Pair(#[from] identity::Error),
    /// OpenSSL refuses it, for its level say.
    #[error("auth_cert: {path}: {}", certificate::openssl_cause(source))]
    Refused {
        /// The certificate's file.
        path: String,
        /// OpenSSL's reason.
        source: ErrorStack,
    },
}

/// A certificate with its chain, leaf first, and the key that belongs to it.
struct Pair {
    chain: Vec<X509>,
    key: PKey<Private>,
}

/// Makes a pair known to a context.
///
/// # Errors
/// Files that can't be read or don't match, a certificate too weak for the context's level.
pub(super) fn load(context: &mut SslContextBuilder, cert: &Path, key: &Path) -> Result<(), Error> {
    let Pair { chain, key: private } = read(cert, key)?;
    let refused = |source| Error::Refused { path: cert.display().to_string(), source };
    let mut chain = chain.into_iter();
    if let Some(leaf) = chain.next() {
        context.set_certificate(&leaf).map_err(refused)?;
    }
    for authority in chain {
        context.add_extra_chain_cert(authority).map_err(refused)?;
    }
    context.set_private_key(&private).map_err(refused)
}

/// Copies a pair into a forwarder's folder ([`Places::credential`]), after checking it.
///
/// # Errors
/// As for [`super::identity::install`].
pub fn adopt(places: &Places, folder: &Path, cert: &Path, key: &Path, group: Option<Gid>) -> Result<(), Error> {
    let Pair { chain, key: private } = read(cert, key)?;
    let refused = |source| Error::Refused { path: cert.display().to_string(), source };
    let chain = chain.iter().map(|one| one.to_pem()).collect::<Result<Vec<_>, _>>().map_err(refused)?.concat();
    let private = private.private_key_to_pem_pkcs8().map_err(refused)?;
    // PEM is ASCII.
    let (chain, private) = (String::from_utf8_lossy(&chain), String::from_utf8_lossy(&private));
    Ok(identity::place(places, folder, &chain, &private, group)?)
}

/// Puts the pair of a PFX file into a forwarder's folder.
///
/// # Errors
/// It can't be written.
pub fn install(places: &Places, folder: &Path, from: &pfx::Contents, group: Option<Gid>) -> Result<(), Error> {
    Ok(identity::place(places, folder, &from.chain_pem, &from.key_pem, group)?)
}

fn read(cert: &Path, key: &Path) -> Result<Pair, Error> {
    let chain = certificate::read_pem_chain(cert).map_err(identity::Error::from)?;
    let private = PKey::private_key_from_der(identity::read_key(key)?.secret_der());
    let private = private.map_err(|source| Error::Refused { path: key.display().to_string(), source })?;
    let belongs = |one: &X509| one.public_key().is_ok_and(|public| public.public_eq(&private));
    match chain.iter().position(belongs) {
        Some(0) => Ok(Pair { chain, key: private }),
        Some(index) => Err(identity::Error::Order { path: cert.to_owned(), number: index + 1 }.into()),
        None => Err(identity::Error::Mismatch { certificate: cert.to_owned(), key: key.to_owned() }.into()),
    }
}

/// Whether the server has asked for a certificate in this handshake.
#[allow(unsafe_code)]
pub(super) fn was_asked_for(ssl: &SslRef) -> bool {
    use foreign_types::ForeignTypeRef;
    /// `SSL_CTRL_GET_CLIENT_CERT_TYPES` (ssl.h): how many kinds a CertificateRequest named.
    const GET_CLIENT_CERT_TYPES: std::ffi::c_int = 103;
    let mut kinds: *const u8 = std::ptr::null();
    // SAFETY: the connection is alive, and the control writes one pointer, into memory that it owns.
    let count = unsafe { openssl_sys::SSL_ctrl(ssl.as_ptr(), GET_CLIENT_CERT_TYPES, 0, (&raw mut kinds).cast()) };
    count > 0
}
