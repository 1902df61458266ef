//! What the running service tells systemd about itself.
//!
//! Without `NOTIFY_SOCKET` (in the foreground, in a container) each function does nothing. A lost
//! message is no reason to stop serving, so none of them fails: systemd's start timeout, not we,
//! decides about a lost READY.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use sd_notify::NotifyState;

/// Says that every socket is bound, and how things stand in one sentence.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Says that it is ending and lets the open connections finish within this time, whatever the unit's
/// `TimeoutStopSec=`.
pub fn stopping(limit: Duration) {
    let extended = format!("EXTEND_TIMEOUT_USEC={}", (limit + SPARE).as_micros());
    send(&[NotifyState::Stopping, NotifyState::Custom(&extended)]);
}

/// What an end takes after the last connection has ended or was cut.
const SPARE: Duration = Duration::from_secs(5);

/// Says that it is taking over changed settings; [`ready`] ends that.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    send(&states);
}

/// Says that it lives.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// Says how things stand in one sentence, the line `Status:` of `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&one_line(text))]);
}

/// Has a copy of a descriptor kept in the unit's store under a name, for the next process.
///
/// `FDPOLL=0`: it stays there whatever happens to it.
pub fn store(name: &str, descriptor: BorrowedFd<'_>) {
    if let Err(cause) = send_with(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n"), descriptor) {
        tracing::debug!("systemd: store a descriptor: {cause}");
    }
}

/// Has all that the store keeps under a name closed.
pub fn forget(name: &str) {
    send(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(&format!("FDNAME={name}"))]);
}

fn send_with(message: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    let descriptors = [descriptor.as_raw_fd()];
    let attached = [ControlMessage::ScmRights(&descriptors)];
    let text = [IoSlice::new(message.as_bytes())];
    // Connected: it needs no address.
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &text, &attached, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(cause) = sd_notify::notify(states) {
        tracing::debug!("systemd: notify: {cause}");
    }
}

/// A line break would begin another assignment of the protocol.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_in_a_status_begins_no_other_assignment() {
        assert_eq!(one_line("target down\nMAINPID=1"), "target down MAINPID=1");
    }
}
