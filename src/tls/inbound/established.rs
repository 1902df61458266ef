//! The client's side of an established connection, in the relay's terms.

use std::io;
use std::task::{Context, Poll, ready};

use rustls::HandshakeKind;
use rustls::server::ServerConnection;

use super::alert::linger;
use super::is_reset;
use crate::leg::health::Health;
use crate::leg::socket::Socket;
use crate::leg::{Ending, Fill, Leg};
use crate::tls::certificate::Facts;

/// The client's side of an established connection.
pub struct Inbound {
    connection: Box<ServerConnection>,
    socket: Socket,
    closing: bool,
    /// What was wrong with a record, until the bytes before it are given out.
    failed: Option<rustls::Error>,
}

impl Inbound {
    pub(super) fn new(connection: Box<ServerConnection>, socket: Socket) -> Self {
        Self { connection, socket, closing: false, failed: None }
    }

    /// `1.3` or `1.2`.
    pub fn version(&self) -> &'static str {
        match self.connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            _ => "-",
        }
    }

    /// The cipher suite's IANA name (rustls puts TLS13 where the registry has TLS).
    pub fn suite(&self) -> String {
        let name = self.connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("-");
        name.replacen("TLS13_", "TLS_", 1)
    }

    /// Whose certificate the client has shown, safe to print.
    pub fn certificate_subject(&self) -> Option<String> {
        let leaf = self.connection.peer_certificates()?.first()?;
        Some(Facts::of_der(leaf).map_or_else(|_| "?".to_owned(), |facts| facts.subject))
    }

    /// Resolves when the client has gone meanwhile.
    pub async fn client_left(&self) {
        self.socket.ended().await;
    }

    /// Ends the connection without close_notify, so that nobody takes it for a whole answer.
    pub async fn abandon(mut self) {
        linger(&mut self.socket).await;
    }

    /// Whether the client resumed an earlier session.
    pub fn resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// An eye on the client's answers.
    pub fn health(&self) -> Health {
        self.socket.health()
    }

    /// Reads what has come, be it the end of TCP or a broken record, which rustls' reader and
    /// `failed` then tell.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // At rest this is all that is asked.
            ready!(self.socket.poll_read_ready(cx))?;
            match self.connection.read_tls(&mut self.socket) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {
                    if let Err(error) = self.connection.process_new_packets() {
                        // The alert that says so leaves if it can.
                        let _ = self.connection.write_tls(&mut self.socket);
                        self.failed = Some(error);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.tcp().poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// How often one fill goes on before other tasks get their turn: a client that sends empty records
/// would otherwise keep a thread.
const ATTEMPTS: usize = 64;

impl Leg for Inbound {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Fill>> {
        for _ in 0..ATTEMPTS {
            match io::Read::read(&mut self.connection.reader(), buffer) {
                Ok(0) => return Poll::Ready(Ok(Fill::Ended(Ending::CloseNotify))),
                Ok(count) => return Poll::Ready(Ok(Fill::Bytes(count))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    // rustls does not tell whether it was inside a record.
                    return Poll::Ready(Ok(Fill::Ended(Ending::Fin)));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Some(error) = self.failed.clone() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            match ready!(self.poll_receive(cx)) {
                Ok(()) => {}
                Err(error) if is_reset(&error) => return Poll::Ready(Ok(Fill::Ended(Ending::Reset))),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // What rustls holds leaves before it takes more: at most one buffer is held.
        ready!(self.poll_send(cx))?;
        let count = io::Write::write(&mut self.connection.writer(), bytes)?;
        // Whether it leaves now or later, it is taken.
        let _ = self.poll_send(cx)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, how: Ending) -> Poll<io::Result<()>> {
        if how == Ending::Reset {
            return Poll::Ready(self.socket.abort());
        }
        if how == Ending::CloseNotify && !self.closing {
            self.connection.send_close_notify();
            self.closing = true;
        }
        ready!(self.poll_send(cx))?;
        Poll::Ready(self.socket.finish())
    }

    fn is_gone(&self) -> bool {
        self.socket.is_gone()
    }

    fn has_ended(&self) -> bool {
        self.socket.has_ended()
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_linger(cx)
    }
}
