//! Any failure of TLS, of a socket or of a certificate: its cause in plain words, and the cure.
//!
//! `alert` is about what the target said, `verdict` about what OpenSSL refuses in our name,
//! `wire` about connections that end, fall silent or speak something else; [`way`] is the way to
//! the target, [`certificate`] its certificate, [`client`] the other side. Nobody here knows who asks:
//! `add`, `check`, `probe`, the log.
//!
//! A wrong cure is worse than none. `tests/explain.rs` provokes each text by a server, applies the
//! cure as it is printed, and sees it work; `docs/errors.md` lists them. Where a failure may have
//! several causes the cure is to let [`crate::bridge::auto`] find out, and the failure also says what
//! is left to do where that has been tried.

mod alert;
pub mod certificate;
pub mod client;
mod client_certificate;
mod cure;
mod reason;
mod verdict;
pub mod way;
mod wire;

use std::io;

use openssl::error::Error as Entry;
use openssl::ssl::{self, ErrorCode, SslRef};

pub use cure::Cure;
pub use reason::Reason;

use super::credential;
use crate::config::Settings;
use crate::config::values::SendProxy;

/// Cause and cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// One cause, with the library's code.
    pub cause: String,
    /// The setting to change, or what else to do.
    pub cure: Option<Cure>,
    /// Whether another protocol than TLS is spoken there.
    pub is_foreign: bool,
    /// Whether this machine is at fault.
    pub is_ours: bool,
    /// What kind of cause.
    pub reason: Reason,
}

impl Explained {
    fn plain(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), cure: None, is_foreign: false, is_ours: false, reason: Reason::Other }
    }

    /// This machine's own fault.
    pub fn ours(cause: impl Into<String>) -> Self {
        Self { is_ours: true, ..Self::plain(cause) }
    }

    fn cured(cause: impl Into<String>, cure: Cure) -> Self {
        Self { cure: Some(cure), ..Self::plain(cause) }
    }

    /// The same, counted as this, unless it has a kind already.
    fn counted(self, reason: Reason) -> Self {
        let reason = match self.reason {
            _ if self.is_foreign => Reason::NotTls,
            Reason::Other => reason,
            known => known,
        };
        Self { reason, ..self }
    }
}

/// What a failed handshake showed beside its error.
pub struct Seen<'a> {
    /// What the target sent first.
    first: &'a [u8],
    /// Whether it asked for a client certificate.
    asked: bool,
    /// Whether we have sent our key exchange and all that belongs to it.
    finished: bool,
}

/// How far a handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Our ClientHello has left, and no ServerHello has come.
    Hello,
    /// The server's messages have begun to come.
    Theirs,
    /// All of ours have left, and the end of theirs has not come.
    Ours,
}

impl Step {
    /// As a part of a sentence about the server.
    fn text(self) -> &'static str {
        match self {
            Self::Hello => "at our ClientHello",
            Self::Theirs => "in mid-handshake, after its ServerHello",
            Self::Ours => "in mid-handshake, after our key exchange",
        }
    }
}

impl<'a> Seen<'a> {
    /// Looks at a connection that has failed, or has not come to its end; `first` is what the target
    /// sent first.
    pub fn of(ssl: &SslRef, first: &'a [u8]) -> Self {
        Self { first, asked: credential::was_asked_for(ssl), finished: ssl.finished(&mut [0; 64]) > 0 }
    }

    fn step(&self) -> Step {
        match self.first {
            [HANDSHAKE, ..] if self.finished => Step::Ours,
            [HANDSHAKE, ..] => Step::Theirs,
            _ => Step::Hello,
        }
    }

    /// The version of its ServerHello as it stands there, 3.1 for TLS 1.0.
    fn chosen(&self) -> Option<(u8, u8)> {
        match self.first {
            // Record header, handshake header, version (RFC 5246 §6.2.1, §7.4).
            [HANDSHAKE, _, _, _, _, 2, _, _, _, major, minor] => Some((*major, *minor)),
            _ => None,
        }
    }
}

/// The type of a record with handshake messages (RFC 5246 §6.2.1).
const HANDSHAKE: u8 = 22;

/// Explains a handshake with the target that failed.
pub fn outbound(error: &ssl::Error, seen: &Seen<'_>, settings: &Settings) -> Explained {
    if let Some(foreign) = wire::not_tls(seen.first) {
        return foreign.counted(Reason::NotTls);
    }
    match error.code() {
        ErrorCode::ZERO_RETURN => wire::ended(wire::How::CloseNotify, seen, settings).counted(Reason::Closed),
        ErrorCode::SYSCALL => match error.io_error() {
            Some(error) => broken(error, seen, settings),
            None => wire::ended(wire::How::Closed, seen, settings).counted(Reason::Closed),
        },
        _ => match entry(error).map(|entry| entry.reason_code()) {
            Some(UNEXPECTED_EOF) => wire::ended(wire::How::Closed, seen, settings).counted(Reason::Closed),
            // A close_notify of the fatal kind is one all the same.
            Some(ALERT) => wire::ended(wire::How::CloseNotify, seen, settings).counted(Reason::Closed),
            Some(code @ ALERT..=LAST_ALERT) => {
                alert::received(code - ALERT, &openssl_text(error), seen, settings).counted(Reason::Alert)
            }
            Some(code) => verdict::ours(code, &openssl_text(error), seen, settings).counted(Reason::Protocol),
            None => Explained::plain(openssl_text(error)),
        },
    }
}

/// Explains a handshake that did not end within its deadline, which is `limit` in words.
pub fn silence(limit: &str, seen: &Seen<'_>, settings: &Settings) -> Explained {
    wire::silent(limit, seen, settings).counted(Reason::Timeout)
}

/// The same for a target that was sent a PROXY header first, which it may not expect.
pub fn behind_proxy_header(explained: Explained, settings: &Settings) -> Explained {
    if settings.send_proxy == SendProxy::Off {
        return explained;
    }
    let off = ("if the server expects no PROXY header", Cure::set("send_proxy", "off"));
    let cure = match explained.cure {
        Some(cure) => Cure::one_of([off, ("else", cure)]),
        None => Cure::one_of([off]),
    };
    Explained { cure: Some(cure), ..explained }
}

/// A server that broke off two handshakes while sessions were to be resumed.
pub fn no_session() -> Explained {
    let cause = "the server breaks off whenever a session is to be resumed";
    Explained::cured(cause, Cure::set("resumption", "false")).counted(Reason::Closed)
}

/// Explains a socket that broke before its first byte.
pub fn io(error: &io::Error) -> Explained {
    match wire::how(error) {
        Some(how) => Explained::plain(how.text()).counted(Reason::Closed),
        None => Explained::plain(crate::words::of(error)),
    }
}

fn broken(error: &io::Error, seen: &Seen<'_>, settings: &Settings) -> Explained {
    match wire::how(error) {
        Some(how) => wire::ended(how, seen, settings).counted(Reason::Closed),
        None => Explained::plain(format!("{} {}", crate::words::of(error), seen.step().text())),
    }
}

/// OpenSSL's reason for a peer whose TCP ended where TLS should have said so.
const UNEXPECTED_EOF: i32 = 294;
/// Its reasons for alerts that were received: this and the alert's number.
const ALERT: i32 = 1000;
const LAST_ALERT: i32 = ALERT + 255;
/// Its number for libssl itself, among the libraries that leave errors (err.h).
const LIBSSL: std::ffi::c_ulong = 20;

/// The entry of the error queue that tells: the first of libssl's own. What stands before it, a
/// certificate's syntax say, is detail.
fn entry(error: &ssl::Error) -> Option<&Entry> {
    let entries = error.ssl_error()?.errors();
    let is_libssl = |entry: &&Entry| entry.code() >> 23 & 0xff == LIBSSL;
    entries.iter().find(is_libssl).or_else(|| entries.first())
}

/// Whether TCP ended where TLS should have said so.
pub fn is_unexpected_eof(error: &ssl::Error) -> bool {
    let errors = error.ssl_error().map(|stack| stack.errors()).unwrap_or_default();
    errors.iter().any(|entry| entry.reason_code() == UNEXPECTED_EOF)
}

/// OpenSSL's code and words, without its file names.
pub fn openssl_text(error: &ssl::Error) -> String {
    if let Some(error) = error.io_error() {
        return crate::words::of(error);
    }
    match entry(error) {
        Some(entry) => format!("openssl {:08X} {}", entry.code(), entry.reason().unwrap_or("unknown reason")),
        None => format!("openssl {}", error.code().as_raw()),
    }
}

/// The versions that our ClientHello offers, in words.
fn offered_versions(settings: &Settings) -> String {
    let (oldest, newest) = (settings.min_tls, settings.newest());
    if oldest == newest { format!("TLS {oldest}") } else { format!("TLS {oldest} to {newest}") }
}
