//! PFX (PKCS #12) files, as Exchange exports its certificate with its key.
//!
//! Old Windows encrypts them with RC2-40 and 3DES, so OpenSSL's legacy algorithms are loaded when,
//! and only when, such a file is met.

use openssl::error::ErrorStack;
use openssl::pkcs12::{ParsedPkcs12_2, Pkcs12};
use openssl::x509::{X509, X509VerifyResult};

use super::{certificate, library};

/// What a PFX file holds, ready for [`super::identity::install`].
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    /// The certificate of the key, then its intermediates, without the root.
    pub chain_pem: String,
    /// The private key as unencrypted PKCS #8.
    pub key_pem: String,
}

/// Why a PFX file can't be used. The texts leave the file's name to the caller, who knows it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another kind of file.
    #[error("PFX: read: it is {0}")]
    NotPfx(&'static str),
    /// The checksum doesn't match under this password.
    #[error("PFX: decrypt: wrong password")]
    WrongPassword,
    /// No private key inside.
    #[error("PFX: read: no private key inside, only certificates; export it with its private key")]
    NoKey,
    /// A key alone.
    #[error("PFX: read: no certificate that belongs to its private key")]
    NoCertificate,
    /// The password is right, the contents aren't.
    #[error("PFX: decrypt: {0}")]
    Damaged(String),
    /// It needs RC2 and the linked OpenSSL has none.
    #[error("PFX: decrypt: {0}")]
    Library(#[from] library::Error),
}

/// Decrypts a PFX file.
///
/// # Errors
/// [`Error::NotPfx`] before the password matters, [`Error::WrongPassword`] only if it is one.
pub fn read(bytes: &[u8], password: &str) -> Result<Contents, Error> {
    library::init();
    let pfx = Pkcs12::from_der(bytes).map_err(|_| Error::NotPfx(what_is_it(bytes)))?;
    // The crate panics on a NUL; no password of Windows holds one.
    if password.contains('\0') {
        return Err(Error::WrongPassword);
    }
    let parsed = match pfx.parse2(password) {
        Err(error) if !is_wrong_password(&error) => {
            library::load_legacy_provider()?;
            pfx.parse2(password)
        }
        other => other,
    };
    let damaged = |error: ErrorStack| Error::Damaged(certificate::openssl_cause(&error));
    let ParsedPkcs12_2 { pkey, cert, ca } = parsed.map_err(|error| match is_wrong_password(&error) {
        true => Error::WrongPassword,
        false => damaged(error),
    })?;
    let key_pem = pkey.ok_or(Error::NoKey)?.private_key_to_pem_pkcs8().map_err(damaged)?;
    let chain = ordered(cert.ok_or(Error::NoCertificate)?, ca.into_iter().flatten().collect());
    let chain_pem = chain.iter().map(|one| one.to_pem()).collect::<Result<Vec<_>, _>>().map_err(damaged)?.concat();
    // PEM is ASCII.
    let text = |pem: Vec<u8>| String::from_utf8_lossy(&pem).into_owned();
    Ok(Contents { chain_pem: text(chain_pem), key_pem: text(key_pem) })
}

/// The chain from the leaf upwards. What doesn't lead on is dropped, and so is the root: a client
/// either has it or wouldn't believe it.
fn ordered(leaf: X509, mut others: Vec<X509>) -> Vec<X509> {
    let mut chain = vec![leaf];
    while let Some(next) = chain.last().and_then(|last| others.iter().position(|other| issued(other, last))) {
        let next = others.swap_remove(next);
        if issued(&next, &next) {
            break;
        }
        chain.push(next);
    }
    chain
}

fn issued(issuer: &X509, subject: &X509) -> bool {
    issuer.issued(subject) == X509VerifyResult::OK
        && issuer.public_key().is_ok_and(|key| certificate::is_signed_by(subject, &key))
}

fn is_wrong_password(error: &ErrorStack) -> bool {
    error.errors().iter().any(|error| error.reason() == Some("mac verify failure"))
}

fn what_is_it(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "empty",
        _ if bytes.windows(11).any(|window| window == b"-----BEGIN ") => "a PEM file; use --cert and --key",
        _ => "no PKCS #12 file, or a damaged one",
    }
}
