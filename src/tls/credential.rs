//! The certificate that we show to a target that asks for one.
//!
//! Shown to nobody else: TLS sends it only where the server's handshake requests it.

use std::path::Path;

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{SslContextBuilder, SslRef};
use openssl::x509::X509;

use super::identity;

/// Why a certificate can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pair can't be read, or does not belong together.
    #[error("auth_cert: {0}")]
    Pair(#[from] identity::Error),
    /// OpenSSL refuses it, for its level say.
    #[error("auth_cert: {path}: {}", super::certificate::openssl_cause(source))]
    Refused {
        /// The certificate's file.
        path: String,
        /// OpenSSL's reason.
        source: ErrorStack,
    },
}

/// Makes a pair known to a context.
///
/// # Errors
/// Files that can't be read or don't match, a certificate too weak for the context's level.
pub(super) fn load(context: &mut SslContextBuilder, cert: &Path, key: &Path) -> Result<(), Error> {
    let pair = identity::read_pair(cert, key)?;
    let refused = |source| Error::Refused { path: cert.display().to_string(), source };
    let mut chain = pair.chain.iter();
    if let Some(leaf) = chain.next() {
        context.set_certificate(&*X509::from_der(leaf).map_err(refused)?).map_err(refused)?;
    }
    for authority in chain {
        context.add_extra_chain_cert(X509::from_der(authority).map_err(refused)?).map_err(refused)?;
    }
    let key = PKey::private_key_from_der(pair.key.secret_der()).map_err(refused)?;
    context.set_private_key(&key).map_err(refused)
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
