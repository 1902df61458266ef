//! What the running service tells systemd about itself.
//!
//! Without `NOTIFY_SOCKET` (in the foreground, in a container) each function does nothing. A lost
//! message is no reason to stop serving, so none of them fails: systemd's start timeout, not we,
//! decides about a lost READY.

use sd_notify::NotifyState;

/// Says that every socket is bound, and how things stand in one sentence.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Says that it is ending and lets the open connections finish.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Says that it is taking over changed settings; [`ready`] ends that.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    send(&states);
}

/// Says how things stand in one sentence, the line `Status:` of `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&one_line(text))]);
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
