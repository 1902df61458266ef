//! Connections that end or fall silent in mid-handshake, and ports that speak something else.

use std::io;

use super::{Cure, Explained, Seen, Step, alert};
use crate::config::Settings;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// TCP ended.
    Closed,
    /// TCP was torn down.
    Reset,
    /// TLS said that it ends, and no more.
    CloseNotify,
}

impl How {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Closed => "the server closed the connection",
            Self::Reset => "the server reset the connection",
            Self::CloseNotify => "the server closed the connection (close_notify)",
        }
    }
}

/// How the peer ended, if that is what the error says.
pub(super) fn how(error: &io::Error) -> Option<How> {
    match error.kind() {
        io::ErrorKind::ConnectionReset => Some(How::Reset),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
            Some(How::Closed)
        }
        _ => None,
    }
}

/// A connection that ended without a reason.
pub(super) fn ended(how: How, seen: &Seen<'_>, settings: &Settings) -> Explained {
    let step = seen.step();
    let cause = format!("{} {}", how.text(), step.text());
    if step == Step::Ours && seen.asked {
        return alert::about_client_certificate(&cause, settings);
    }
    let cause = if step == Step::Hello { format!("{cause}, without a reason") } else { cause };
    Explained::cured(cause, Cure::search(settings, no_offer_is_taken(seen, settings)))
}

/// What is left where no offer of ours brings a ServerHello, or none leads to the handshake's end.
pub(super) fn no_offer_is_taken(seen: &Seen<'_>, settings: &Settings) -> Cure {
    if seen.step() == Step::Hello && settings.sni_name().is_none() {
        let name = Cure::set("server_name", "NAME");
        return Cure::one_of([("if the server serves by name", name), ("else", its_own_log())]);
    }
    its_own_log()
}

/// What is left where only the server knows.
pub(super) fn its_own_log() -> Cure {
    Cure::to_do(
        "the server's own log has the cause, if its port speaks TLS and lets this machine in (Windows: event log, System, Schannel)",
    )
}

/// A handshake that did not end in time.
pub(super) fn silent(limit: &str, seen: &Seen<'_>, settings: &Settings) -> Explained {
    let slow = ("if the server is only slow", Cure::Patience);
    let (what, cure) = match (seen.first, seen.step()) {
        ([], _) => {
            let port = ("else", Cure::to_do("it may be no TLS port: name the server's HTTPS port, usually 443"));
            ("no answer to our ClientHello", Cure::search(settings, Cure::one_of([slow, port])))
        }
        (_, Step::Ours) => {
            let log = ("else", its_own_log());
            ("no answer to our key exchange", Cure::one_of([slow, log]))
        }
        _ => {
            // Long messages are the first that a path loses which drops the packets that tell of its MTU.
            let path = ("else", Cure::to_do("does the path lose long packets? compare: ping -M do -s 1472 from here"));
            ("its answer to our ClientHello does not end", Cure::one_of([slow, path]))
        }
    };
    Explained::cured(format!("not finished within {limit}: {what}"), cure)
}

/// What some servers say first that don't speak TLS on this port.
pub(super) fn not_tls(first: &[u8]) -> Option<Explained> {
    let speaks = match first {
        [b'H', b'T', b'T', b'P', ..] | [b'<', ..] => "plain HTTP",
        [b'2' | b'4' | b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..] => "SMTP or FTP",
        [b'S', b'S', b'H', b'-', ..] => "SSH",
        [b'+', b'O', b'K', ..] | [b'-', b'E', b'R', b'R', ..] => "POP3",
        [b'*', b' ', ..] => "IMAP",
        // A ServerHello of SSL 2: its length, its type.
        [0x80..=0xff, _, 4, ..] => return Some(Explained { is_foreign: true, ..ssl_2() }),
        // A record begins with its type, 20 to 23, and a version 3.x (RFC 5246 §6.2.1).
        [20..=23, 3, ..] | [20..=23] | [] => return None,
        _ => {
            let cure = Cure::to_do("name the server's HTTPS port, usually 443");
            let explained = Explained::cured("what the server sent is not TLS", cure);
            return Some(Explained { is_foreign: true, ..explained });
        }
    };
    let cure = Cure::to_do("name the server's HTTPS port, usually 443");
    let explained = Explained::cured(format!("the server speaks {speaks} on this port, not TLS"), cure);
    Some(Explained { is_foreign: true, ..explained })
}

fn ssl_2() -> Explained {
    Explained::cured("the server speaks SSL 2, which is no protection and is never used", enable_tls())
}

/// For servers that speak nothing that is still used.
pub(super) fn enable_tls() -> Cure {
    Cure::to_do("enable TLS 1.0 or newer on the server (Windows: registry, SCHANNEL, Protocols), then restart it")
}
