//! What OpenSSL refuses in our name: the settings forbid it, or the server breaks the protocol.

use super::wire::{enable_tls, no_offer_is_taken};
use super::{Cure, Explained, Seen, offered_versions};
use crate::config::Settings;
use crate::config::values::{Version, Weak};

/// OpenSSL's reason codes (sslerr.h).
mod reason {
    pub(super) const DH_KEY_TOO_SMALL: i32 = 394;
    pub(super) const EXCESSIVE_MESSAGE_SIZE: i32 = 152;
    pub(super) const LEGACY_SIGALG: i32 = 333;
    pub(super) const UNSAFE_LEGACY_RENEGOTIATION: i32 = 338;
    pub(super) const UNSUPPORTED_PROTOCOL: i32 = 258;
    pub(super) const VERSION_TOO_LOW: i32 = 396;
    pub(super) const WRONG_SIGNATURE_TYPE: i32 = 370;
    pub(super) const WRONG_SSL_VERSION: i32 = 266;
    /// Another library's trouble, reading a certificate say (err.h: `ERR_R_ASN1_LIB`, `ERR_R_X509_LIB`).
    pub(super) const ASN1: i32 = 13 | COMMON;
    pub(super) const X509: i32 = 11 | COMMON;
    /// `ERR_R_MALLOC_FAILURE`, `ERR_R_CRYPTO_LIB`, `ERR_R_RAND_LIB`.
    pub(super) const NO_MEMORY: i32 = 256 | FATAL | COMMON;
    pub(super) const NO_CRYPTO: i32 = 15 | COMMON;
    pub(super) const NO_RANDOMNESS: i32 = 36 | COMMON;
    const COMMON: i32 = 2 << 18;
    const FATAL: i32 = 1 << 18;
}

/// Explains what OpenSSL itself refuses; `code` is its text.
pub(super) fn ours(reason: i32, code: &str, seen: &Seen<'_>, settings: &Settings) -> Explained {
    let level = settings.security_level;
    match reason {
        reason::UNSUPPORTED_PROTOCOL | reason::WRONG_SSL_VERSION | reason::VERSION_TOO_LOW => {
            version(code, seen, settings)
        }
        reason::LEGACY_SIGALG | reason::WRONG_SIGNATURE_TYPE if level > 0 => Explained::cured(
            format!(
                "the server signs its key exchange with SHA-1, which is too weak for security_level {level} ({code})"
            ),
            Cure::set("security_level", "0"),
        ),
        reason::DH_KEY_TOO_SMALL => {
            let bits = if level > 1 { "2048" } else { "1024" };
            let cause = format!(
                "the server's Diffie-Hellman group has fewer than {bits} bits, the least at security_level {level} ({code})"
            );
            let server = Cure::to_do("give the server a group of 2048 bits, or a cipher without DHE");
            Explained::cured(cause, Cure::search(settings, server))
        }
        reason::UNSAFE_LEGACY_RENEGOTIATION => Explained::cured(
            format!("the server lacks secure renegotiation (RFC 5746; Windows gets it with KB980436) ({code})"),
            Cure::set("allow_weak", allowing(settings, Weak::NoRfc5746)),
        ),
        reason::EXCESSIVE_MESSAGE_SIZE => Explained::cured(
            format!("the server sends a longer message than is read, 32 KiB of certificates ({code})"),
            Cure::to_do("let the server send its own certificate and its intermediates, and no others"),
        ),
        reason::ASN1 | reason::X509 => Explained::cured(
            format!("the server's certificate can't be read ({code})"),
            Cure::to_do("have the server's certificate issued anew"),
        ),
        reason::NO_MEMORY | reason::NO_CRYPTO | reason::NO_RANDOMNESS => {
            Explained { is_ours: true, ..Explained::plain(format!("OpenSSL can't go on ({code})")) }
        }
        _ => Explained::cured(
            format!("the server breaks the protocol {} ({code})", seen.step().text()),
            Cure::search(settings, no_offer_is_taken(seen, settings)),
        ),
    }
}

/// The server answers with a version that was not offered.
fn version(code: &str, seen: &Seen<'_>, settings: &Settings) -> Explained {
    let chosen = match seen.chosen() {
        Some((3, 1)) => Version::Tls1_0,
        Some((3, 2)) => Version::Tls1_1,
        Some((3, 3)) => Version::Tls1_2,
        Some((3, 0)) => {
            let cause = format!("the server speaks SSL 3, which is no protection and is never used ({code})");
            return Explained::cured(cause, enable_tls());
        }
        _ => {
            let cause = format!("the server chose no version of {} ({code})", offered_versions(settings));
            return Explained::cured(cause, Cure::search(settings, no_offer_is_taken(seen, settings)));
        }
    };
    if chosen > settings.newest() {
        let cause = format!("the server answers with TLS {chosen}, which was not offered ({code})");
        return Explained::cured(cause, Cure::search(settings, no_offer_is_taken(seen, settings)));
    }
    let mut forbidding = Vec::new();
    let mut cure = Vec::new();
    if chosen < settings.min_tls {
        forbidding.push(format!("min_tls is {}", settings.min_tls));
        cure.push(("min_tls", chosen.to_string()));
    }
    if chosen < Version::Tls1_2 && settings.security_level > 0 {
        forbidding.push(format!("security_level {} needs TLS 1.2", settings.security_level));
        cure.push(("security_level", "0".to_owned()));
    }
    let cause = format!("the server speaks nothing newer than TLS {chosen}, and {} ({code})", forbidding.join(", "));
    if cure.is_empty() { Explained::plain(cause) } else { Explained::cured(cause, Cure::Set(cure)) }
}

/// The value of `allow_weak` with one more word.
fn allowing(settings: &Settings, more: Weak) -> String {
    let words = Weak::ALL.iter().filter(|weak| settings.allows(**weak) || **weak == more).map(|weak| weak.word());
    words.collect::<Vec<_>>().join(",")
}
