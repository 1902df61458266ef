//! The way to the target: its name, and TCP.

use std::io;

use super::{Cure, Explained, Reason};
use crate::words;

/// Explains a look-up that brought no address.
///
/// What has a number of the system's own is a shortage of this machine, out of descriptors say, and
/// no answer about the name. The resolver's words come without the standard library's preface.
pub fn look_up(error: &io::Error) -> Explained {
    if error.raw_os_error().is_some() {
        let cure = is_out_of_descriptors(error).then(|| Cure::to_do(DESCRIPTORS));
        let explained = Explained { is_ours: true, cure, ..Explained::plain(words::of(error)) };
        return explained.counted(Reason::Shortage);
    }
    let text = resolver_words(error);
    // EAI_AGAIN of getaddrinfo(3), whose number does not reach us.
    if text.starts_with("temporary failure") {
        return Explained::cured(text, Cure::to_do(NAME_SERVER)).counted(Reason::Name);
    }
    Explained::cured(text, Cure::to_do(NAME)).counted(Reason::Name)
}

/// Whether this process, or this machine, has no descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE))
}

/// Whether nobody said anything about the name: no name server answered, all that did can't tell or
/// won't (RFC 1035 §4.1.1, codes 2 and 5), or this machine could not ask.
pub fn is_no_answer(error: &io::Error) -> bool {
    // EAI_AGAIN, EAI_FAIL, EAI_MEMORY and EAI_SYSTEM of getaddrinfo(3), in glibc's words.
    let words = ["temporary failure", "non-recoverable failure", "memory allocation failure", "system error"];
    error.raw_os_error().is_some() || words.iter().any(|word| resolver_words(error).starts_with(word))
}

fn resolver_words(error: &io::Error) -> String {
    let text = error.to_string();
    words::lower(text.strip_prefix("failed to lookup address information: ").unwrap_or(&text))
}

/// A name of which the look-up knows, but no address.
pub fn no_address() -> Explained {
    Explained::cured("the name has no address", Cure::to_do(NAME)).counted(Reason::Name)
}

/// A look-up that goes on for longer than it may.
pub fn look_up_silence(limit: &str) -> Explained {
    Explained::cured(format!("no answer within {limit}"), Cure::to_do(NAME_SERVER)).counted(Reason::Timeout)
}

const DESCRIPTORS: &str = "raise LimitNOFILE= of the unit, or find what holds so many connections";
const NAME: &str = "is the name right? this machine must find it: getent hosts NAME";
const NAME_SERVER: &str = "is the name server of this machine up (/etc/resolv.conf)? or give the target's address";

/// Explains a TCP connection that was not made to `port`.
pub fn connect(error: &io::Error, port: u16) -> Explained {
    use nix::libc::{EACCES, EHOSTUNREACH, ENETUNREACH, ENOBUFS, ENOMEM, EPERM};
    let cause = words::of(error);
    match error.raw_os_error() {
        // No other address would do better.
        _ if is_out_of_descriptors(error) => {
            Explained { is_ours: true, ..Explained::cured(cause, Cure::to_do(DESCRIPTORS)) }.counted(Reason::Shortage)
        }
        Some(ENOBUFS | ENOMEM) => Explained { is_ours: true, ..Explained::plain(cause) }.counted(Reason::Shortage),
        Some(ENETUNREACH | EHOSTUNREACH) => {
            Explained::cured(cause, Cure::to_do("this machine has no way there; see: ip route get ADDRESS"))
                .counted(Reason::Unreachable)
        }
        Some(EACCES | EPERM) => Explained::cured(
            cause,
            Cure::to_do("this machine itself forbids it; see: ip route get ADDRESS, nft list ruleset"),
        )
        .counted(Reason::Unreachable),
        _ if error.kind() == io::ErrorKind::ConnectionRefused => Explained::cured(
            cause,
            Cure::to_do(format!("nothing listens there on port {port}: is the service started, and is it that port?")),
        )
        .counted(Reason::Refused),
        _ if error.kind() == io::ErrorKind::TimedOut => Explained::plain(cause).counted(Reason::Timeout),
        _ => Explained::plain(cause),
    }
}

/// A TCP connection that was not answered.
pub fn connect_silence(limit: &str) -> Explained {
    Explained::cured(
        format!("no answer within {limit}"),
        Cure::to_do("is the server on, and does no firewall on the way drop connections to that port?"),
    )
    .counted(Reason::Timeout)
}
