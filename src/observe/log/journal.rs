//! The journal's native protocol: a datagram an event, a field each, so that
//! `journalctl EWSBRIDGE_FORWARDER=exch1` finds it (systemd's "Native Journal Protocol").
//!
//! `tracing-journald` would do it, but for two things that can't be had of it: our own line for people as
//! `MESSAGE`, and fields without those of the source.
//!
//! It never waits: a journal that takes nothing for the moment, or a line too large for a datagram,
//! is an error, and the line then takes the way of stderr.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::{Said, Value, events, json};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// A way to the journal.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// The journal of this machine; `None`: there is none, or it can't be reached.
    pub(super) fn open() -> Option<Self> {
        Self::at(Path::new(SOCKET)).ok()
    }

    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // Not connected: journald may be restarted, with another socket in the place.
        if path.exists() { Ok(Self(socket)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Sends one event.
    pub(super) fn send(&self, priority: u8, name: &str, said: &Said) -> io::Result<()> {
        self.send_to(Path::new(SOCKET), &datagram(priority, name, said))
    }

    fn send_to(&self, path: &Path, datagram: &[u8]) -> io::Result<()> {
        let sent = self.0.send_to(datagram, path)?;
        if sent == datagram.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

fn datagram(priority: u8, name: &str, said: &Said) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    field(&mut out, "MESSAGE", &said.text());
    field(&mut out, "PRIORITY", &priority.to_string());
    field(&mut out, "SYSLOG_IDENTIFIER", "ewsbridge");
    if let Some(id) = events::id(name) {
        field(&mut out, "MESSAGE_ID", id);
        field(&mut out, "EWSBRIDGE_EVENT", name);
    }
    for (key, value) in &said.fields {
        let key = format!("EWSBRIDGE_{}", json::with_unit(key).to_ascii_uppercase());
        match value {
            Value::Text(text) => field(&mut out, &key, text),
            Value::Shown(text) => field(&mut out, &key, json::plain(text)),
            Value::Number(number) => field(&mut out, &key, &number.to_string()),
            Value::Truth(truth) => field(&mut out, &key, &truth.to_string()),
        }
    }
    out
}

/// A field whose value may hold anything: its length stands before it where it has more than a line.
fn field(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_two_lines_forges_no_field() {
        let said = Said {
            message: "bad".to_owned(),
            fields: vec![("client_cert", Value::Text("CN=x\nPRIORITY=0".to_owned())), ("up", Value::Number(7))],
        };
        let sent = datagram(4, "client_failed", &said);
        let expected = [
            &b"MESSAGE=bad client_cert=\"CN=x\\nPRIORITY=0\" up=7\nPRIORITY=4\nSYSLOG_IDENTIFIER=ewsbridge\nMESSAGE_ID="[..],
            events::id("client_failed").unwrap().as_bytes(),
            b"\nEWSBRIDGE_EVENT=client_failed\nEWSBRIDGE_CLIENT_CERT\n\x0f\0\0\0\0\0\0\0CN=x\nPRIORITY=0\nEWSBRIDGE_UP_BYTES=7\n",
        ];
        assert_eq!(String::from_utf8_lossy(&sent), String::from_utf8_lossy(&expected.concat()));
    }

    #[test]
    fn a_journal_that_takes_nothing_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(Journal::at(&path).is_err(), "there is none");
        let reader = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path).unwrap();
        // Until its queue is full.
        let refused = (0..100_000).find_map(|_| journal.send_to(&path, b"MESSAGE=x\n").err()).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 16];
        assert_eq!(reader.recv(&mut buffer).unwrap(), 10);
        journal.send_to(&path, b"MESSAGE=y\n").unwrap();
    }
}
