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
    /// It would take minutes, or hours.
    #[error("PFX: decrypt: its password has to be hashed more than {ROUNDS} times; export it anew")]
    TooManyRounds,
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
    if rounds(bytes, 0) > ROUNDS {
        return Err(Error::TooManyRounds);
    }
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

/// How often a password may be hashed in all: some seconds' work. Windows does it 2000 times for each
/// part of a file; what is advised today is some hundred thousand.
const ROUNDS: u64 = 3_000_000;

/// How deep elements may lie in each other before nobody looks any more.
const DEPTH: usize = 32;

/// The sum of all numbers of rounds that stand in the file in the clear: the INTEGER behind a salt, an
/// OCTET STRING, both in PKCS #12 (RFC 7292 §4, appendix C) and in PKCS #5 (RFC 8018 §A).
fn rounds(mut bytes: &[u8], depth: usize) -> u64 {
    const CONSTRUCTED: u8 = 0x20;
    const INTEGER: u8 = 2;
    const OCTETS: u8 = 4;
    // OpenSSL reads a SEQUENCE OF without asking whether it says that it is constructed.
    const LISTS: [u8; 2] = [0x10, 0x11];
    let (mut sum, mut after_salt) = (0_u64, false);
    while let Some((tag, content, rest)) = element(bytes) {
        // With its class: a name of kind 4 and one of kind 2 behind it are another thing.
        let kind = tag & !CONSTRUCTED;
        if kind == INTEGER && after_salt {
            let number =
                content.iter().fold(0_u64, |all, byte| all.saturating_mul(256).saturating_add(u64::from(*byte)));
            sum = sum.saturating_add(number);
        } else if depth < DEPTH && (tag & CONSTRUCTED != 0 || kind == OCTETS || LISTS.contains(&kind)) {
            sum = sum.saturating_add(rounds(content, depth + 1));
        }
        // The end of an element of indefinite length is nothing between two others.
        after_salt = kind == OCTETS || (after_salt && tag == 0);
        bytes = rest;
    }
    sum
}

/// The first element of DER: tag, content, and what follows it. One of indefinite length (BER) goes to
/// the end; its own end is an empty element then.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    if first == 0x80 {
        return Some((tag, rest, &[]));
    }
    let count = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    let (long, rest) = rest.split_at_checked(count)?;
    let length = match count {
        0 => usize::from(first),
        _ => long.iter().fold(0_usize, |sum, byte| sum.saturating_mul(256).saturating_add(usize::from(*byte))),
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_found_wherever_they_stand() {
        let one = [0x30, 7, 4, 1, 9, 2, 2, 8, 0];
        assert_eq!(rounds(&one, 0), 2048);
        assert_eq!(rounds(&one.repeat(3), 0), 3 * 2048);
        // In octets, behind a salt of two parts and indefinite length, more than any number holds.
        let hidden = [0x24, 0x80, 4, 1, 9, 4, 1, 9, 0, 0, 2, 3, 0x7f, 0xff, 0xff];
        assert_eq!(rounds(&[&[4, 15][..], &hidden].concat(), 0), 0x7f_ffff);
        assert_eq!(rounds(&[&[4, 1, 9, 2, 9][..], &[0xff; 9]].concat(), 0), u64::MAX);
        // Names of a certificate: a directory's, then DNS's.
        assert_eq!(rounds(&[0x30, 8, 0xa4, 0, 0x82, 4, b'e', b'w', b's', b'x'], 0), 0);
        // In a list that does not say that it is constructed.
        assert_eq!(rounds(&[0x10, 7, 4, 1, 9, 2, 2, 8, 0], 0), 2048);
        // A serial number stands behind no salt.
        assert_eq!(rounds(&[0x30, 8, 0xa0, 0, 2, 4, 9, 9, 9, 9], 0), 0);
    }

    #[test]
    fn no_depth_and_no_length_is_too_much() {
        let deep = (0..5000).fold(vec![5, 0], |inner: Vec<u8>, _| {
            let length = u16::try_from(inner.len()).unwrap().to_be_bytes();
            [&[0x30, 0x82], &length[..], &inner].concat()
        });
        assert_eq!(rounds(&deep, 0), 0);
        for cut in [&[0x30][..], &[0x30, 0x84, 0xff, 0xff], &[4, 0xff], &[4, 0x7f, 1], &[0x80; 300]] {
            assert_eq!(rounds(cut, 0), 0);
        }
    }
}
