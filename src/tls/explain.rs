//! A failed handshake with the target: its cause in plain words, and the cure.
//!
//! A wrong cure is worse than none: a code that may have several causes gets no hint.

use std::io;

use openssl::ssl::{self, ErrorCode};

use crate::config::Settings;
use crate::config::values::{Version, Weak};

/// Cause and cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// One cause, with the library's code.
    pub cause: String,
    /// The setting to change, or what else to do.
    pub hint: Option<Cure>,
    /// Whether another protocol than TLS is spoken there.
    pub is_foreign: bool,
}

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cure {
    /// Change a setting of the forwarder.
    Set(&'static str, String),
    /// Something else.
    Do(String),
}

impl Cure {
    /// As a line that can be pasted: for a named forwarder, or as a flag where there is no file.
    pub fn text(&self, name: Option<&str>) -> String {
        match (self, name) {
            (Self::Set(key, value), Some(name)) => format!("ewsbridge set {name} {key}={value}"),
            // Its list is optional, so the value needs the sign.
            (Self::Set("allow_weak", value), None) => format!("--allow-weak={value}"),
            (Self::Set(key, value), None) => format!("--{} {value}", key.replace('_', "-")),
            (Self::Do(text), _) => text.clone(),
        }
    }
}

fn plain(cause: impl Into<String>) -> Explained {
    Explained { cause: cause.into(), hint: None, is_foreign: false }
}

fn cured(cause: impl Into<String>, cure: Cure) -> Explained {
    Explained { cause: cause.into(), hint: Some(cure), is_foreign: false }
}

/// Explains a failure of the socket under a handshake.
pub fn io(error: &io::Error) -> Explained {
    plain(match error.kind() {
        io::ErrorKind::ConnectionReset => "the server reset the connection".to_owned(),
        io::ErrorKind::BrokenPipe => "the server closed the connection".to_owned(),
        _ => crate::words::of(error),
    })
}

/// OpenSSL's reason codes (sslerr.h); alerts that we received are 1000 and the alert's number.
mod reason {
    pub(super) const NO_PROTOCOLS_AVAILABLE: i32 = 191;
    pub(super) const UNSUPPORTED_PROTOCOL: i32 = 258;
    pub(super) const LEGACY_SIGALG: i32 = 333;
    pub(super) const WRONG_SIGNATURE_TYPE: i32 = 370;
    pub(super) const DH_KEY_TOO_SMALL: i32 = 394;
    pub(super) const WRONG_VERSION_NUMBER: i32 = 267;
    pub(super) const UNEXPECTED_EOF: i32 = 294;
    pub(super) const UNSAFE_LEGACY_RENEGOTIATION: i32 = 338;
    pub(super) const WRONG_SSL_VERSION: i32 = 266;
    pub(super) const VERSION_TOO_LOW: i32 = 396;
    pub(super) const ALERT_HANDSHAKE_FAILURE: i32 = 1040;
    pub(super) const ALERT_INSUFFICIENT_SECURITY: i32 = 1071;
    pub(super) const ALERT_PROTOCOL_VERSION: i32 = 1070;
    pub(super) const ALERT_UNRECOGNIZED_NAME: i32 = 1112;
    pub(super) const ALERT_INTERNAL_ERROR: i32 = 1080;
}

/// What a failed handshake showed beside its error.
pub struct Seen<'a> {
    /// What the target sent first.
    pub first: &'a [u8],
    /// Whether it asked for a client certificate.
    pub asked: bool,
}

/// Explains a failed handshake with the target.
pub fn outbound(error: &ssl::Error, seen: &Seen<'_>, settings: &Settings) -> Explained {
    let first = seen.first;
    if let Some(foreign) = not_tls(first) {
        return Explained { is_foreign: true, ..foreign };
    }
    if error.code() == ErrorCode::SYSCALL {
        return error.io_error().map_or_else(|| closed(first), io);
    }
    let Some(code) = error.ssl_error().and_then(|stack| stack.errors().first()).map(|first| first.reason_code()) else {
        return plain(openssl_text(error));
    };
    let with_code = |cause: &str| format!("{cause} ({})", openssl_text(error));
    let spoken = if settings.min_tls == settings.max_tls {
        format!("TLS {}", settings.min_tls)
    } else {
        format!("TLS {} to {}", settings.min_tls, settings.max_tls)
    };
    let lower = |cause: String| cured(cause, Cure::Set("security_level", "0".to_owned()));
    let search = || Cure::Set("outbound", "auto".to_owned());
    match code {
        reason::LEGACY_SIGALG
        | reason::WRONG_SIGNATURE_TYPE
        | reason::DH_KEY_TOO_SMALL
        | reason::NO_PROTOCOLS_AVAILABLE
            if settings.security_level > 0 =>
        {
            let level = settings.security_level;
            let what = match code {
                reason::DH_KEY_TOO_SMALL => "the server's Diffie-Hellman group is too small for",
                reason::NO_PROTOCOLS_AVAILABLE => "no TLS version is left at",
                _ => "the server signs its key exchange with SHA-1, which is too weak for",
            };
            lower(with_code(&format!("{what} security_level {level}")))
        }
        reason::UNSUPPORTED_PROTOCOL | reason::ALERT_PROTOCOL_VERSION if settings.security_level > 0 => {
            let level = settings.security_level;
            lower(with_code(&format!(
                "the server speaks nothing newer than TLS 1.1, which security_level {level} forbids"
            )))
        }
        reason::UNSUPPORTED_PROTOCOL | reason::WRONG_SSL_VERSION | reason::VERSION_TOO_LOW => {
            let cause = with_code(&format!("the server chose a TLS version outside {spoken}"));
            if settings.min_tls > Version::Tls1_0 {
                cured(cause, Cure::Set("min_tls", "1.0".to_owned()))
            } else {
                plain(cause)
            }
        }
        reason::ALERT_PROTOCOL_VERSION => {
            let cause = with_code(&format!("the server speaks none of {spoken}"));
            let narrowed = settings.min_tls > Version::Tls1_0;
            if narrowed { cured(cause, Cure::Set("min_tls", "1.0".to_owned())) } else { plain(cause) }
        }
        reason::ALERT_HANDSHAKE_FAILURE | reason::ALERT_INSUFFICIENT_SECURITY => {
            let mut offered = vec![spoken.as_str(), settings.ciphers.as_deref().unwrap_or("AES ciphers")];
            offered.extend(settings.allow_weak.iter().filter(|weak| **weak != Weak::NoRfc5746).map(|weak| weak.word()));
            let offered = offered.join(", ");
            let cause = format!("the server refused what we offered ({offered}): no version, cipher or name in common");
            cured(with_code(&cause), search())
        }
        reason::ALERT_UNRECOGNIZED_NAME => {
            plain(with_code(&format!("the server knows no site named '{}'", settings.sni_name().unwrap_or("-"))))
        }
        reason::ALERT_INTERNAL_ERROR => plain(with_code("the server reports an error of its own")),
        reason::UNSAFE_LEGACY_RENEGOTIATION => cured(
            with_code("the server lacks secure renegotiation (RFC 5746; Windows gets it with KB980436)"),
            Cure::Set("allow_weak", allowing(settings, Weak::NoRfc5746)),
        ),
        reason::WRONG_VERSION_NUMBER => plain(with_code("what the server sent is not TLS")),
        reason::UNEXPECTED_EOF => closed(first),
        _ => plain(openssl_text(error)),
    }
}

/// The value of `allow_weak` with one more word.
fn allowing(settings: &Settings, more: Weak) -> String {
    let words = Weak::ALL.iter().filter(|weak| settings.allows(**weak) || **weak == more).map(|weak| weak.word());
    words.collect::<Vec<_>>().join(",")
}

fn closed(first: &[u8]) -> Explained {
    plain(if first.is_empty() {
        "the server closed the connection at our ClientHello, without a word"
    } else {
        "the server closed the connection in mid-handshake"
    })
}

/// What some servers say first that don't speak TLS on this port.
fn not_tls(first: &[u8]) -> Option<Explained> {
    let speaks = match first {
        [b'H', b'T', b'T', b'P', ..] => "plain HTTP",
        [b'2' | b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..] => "SMTP or FTP",
        [b'S', b'S', b'H', b'-', ..] => "SSH",
        [b'+', b'O', b'K', ..] => "POP3",
        [b'*', b' ', ..] => "IMAP",
        // A record begins with its type, 20 to 23, and a version 3.x (RFC 5246 §6.2.1).
        [20..=23, 3, ..] | [] => return None,
        [20..=23] => return None,
        _ => return Some(plain("what the server sent is not TLS")),
    };
    let cure = Cure::Do("name the server's HTTPS port, usually 443".to_owned());
    Some(cured(format!("the server speaks {speaks} on this port, not TLS"), cure))
}

/// Whether TCP ended where TLS should have said so.
pub fn is_unexpected_eof(error: &ssl::Error) -> bool {
    let errors = error.ssl_error().map(|stack| stack.errors()).unwrap_or_default();
    errors.iter().any(|entry| entry.reason_code() == reason::UNEXPECTED_EOF)
}

/// OpenSSL's code and words, without its file names.
pub fn openssl_text(error: &ssl::Error) -> String {
    if let Some(error) = error.io_error() {
        return crate::words::of(error);
    }
    match error.ssl_error().and_then(|stack| stack.errors().first()) {
        Some(first) => format!("openssl {:08X} {}", first.code(), first.reason().unwrap_or("unknown reason")),
        None => format!("openssl {}", error.code().as_raw()),
    }
}
