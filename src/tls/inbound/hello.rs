//! From a client's first byte to our answer, which leaves when the target is ready.

use std::io;

use rustls::HandshakeKind;
use rustls::server::{Accepted, AcceptedAlert, Acceptor, ServerConnection};
use tokio::io::Interest;

use super::alert::{Alert, end_of_session, fatal, linger, refusal, refuse, turned_away};
use super::listener::{Configs, Listener};
use super::{Error, Inbound};
use crate::leg::proxy::{self, Header};
use crate::leg::socket::Socket;

/// Reads the PROXY header that a load balancer begins with. Without one there is an alert and the end:
/// who asks may be a client that has come past it.
///
/// # Errors
/// [`Error::Left`], [`Error::ProxyHeader`], [`Error::Io`].
///
/// # Cancel safety
/// As [`Listener::hello`].
pub async fn proxy_header(socket: &mut Socket) -> Result<Header, Error> {
    match proxy::receive(socket).await {
        Ok(header) => Ok(header),
        Err(proxy::Failed::Malformed(malformed)) => {
            let _ = io::Write::write_all(socket, &fatal(Alert::HandshakeFailure));
            linger(socket).await;
            Err(Error::ProxyHeader(malformed))
        }
        Err(proxy::Failed::Left) => Err(Error::Left),
        Err(proxy::Failed::Io(error)) => Err(Error::Io(error)),
    }
}

impl Listener {
    /// Reads a whole ClientHello. What can't be one is answered with an alert.
    ///
    /// # Errors
    /// [`Error::Left`] for a client that ended before, [`Error::Tls`] for what is no ClientHello.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn hello(&self, mut socket: Socket) -> Result<Hello, Error> {
        let mut acceptor = Box::new(Acceptor::default());
        loop {
            match acceptor.read_tls(&mut socket) {
                Ok(0) => return Err(Error::Left),
                Ok(_) => match accept(&mut acceptor) {
                    Ok(Some(accepted)) => return Ok(Hello { accepted, socket, configs: self.configs() }),
                    Ok(None) => {}
                    Err(refused) => return Err(turned_away(socket, refused.0, refused.1).await),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.readable().await.map_err(Error::Io)?;
                }
                Err(error) => return Err(Error::Io(error)),
            }
        }
    }
}

/// rustls' word on a ClientHello that won't do, and the alert that says so.
type Unacceptable = Box<(rustls::Error, AcceptedAlert)>;

// Large values are boxed before a future can hold them: it would keep room for them, each time they are
// moved, for as long as the connection lasts.
fn accept(acceptor: &mut Acceptor) -> Result<Option<Box<Accepted>>, Unacceptable> {
    acceptor.accept().map(|accepted| accepted.map(Box::new)).map_err(Box::new)
}

/// A complete ClientHello.
pub struct Hello {
    accepted: Box<Accepted>,
    socket: Socket,
    configs: Configs,
}

impl Hello {
    /// Judges the ClientHello and computes our answer, which stays in memory.
    ///
    /// # Errors
    /// [`Error::Tls`] if there is no version, suite or group in common, [`Error::Certificate`] if a session
    /// is resumed whose certificate is no longer good; the client has then been told by an alert.
    pub async fn answer(self) -> Result<Answered, Error> {
        let authorities = self.configs.authorities.clone();
        let (socket, computed) = self.compute();
        let connection = match computed {
            Ok(connection) => connection,
            Err(refused) => return Err(turned_away(socket, refused.0, refused.1).await),
        };
        // rustls takes a session's certificate as it was judged when the session began.
        if let Some(authorities) = &authorities
            && connection.handshake_kind() == Some(HandshakeKind::Resumed)
            && let Err(error) = authorities.still_accept(connection.peer_certificates())
        {
            return Err(end_of_session(socket, error).await);
        }
        Ok(Answered { connection, socket, asks_for_certificate: authorities.is_some() })
    }

    fn compute(self) -> (Socket, Result<Box<ServerConnection>, Unacceptable>) {
        // A client that offers protocols without HTTP/1.1 gets no ALPN at all, as from a server
        // that knows none; with a list in force rustls would refuse it.
        let wants_http =
            self.accepted.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == b"http/1.1"));
        let config = if wants_http { self.configs.with_http } else { self.configs.without_alpn };
        (self.socket, self.accepted.into_connection(config).map(Box::new).map_err(Box::new))
    }
}

/// A ClientHello whose answer is computed and held back.
pub struct Answered {
    connection: Box<ServerConnection>,
    socket: Socket,
    asks_for_certificate: bool,
}

impl Answered {
    /// Whether the client must show a certificate, so that its handshake must end before the target may
    /// hear of it.
    pub fn asks_for_certificate(&self) -> bool {
        self.asks_for_certificate
    }

    /// Resolves when the client has gone meanwhile.
    pub async fn client_left(&self) {
        self.socket.ended().await;
    }

    /// Sends a fatal alert in place of the ServerHello and closes.
    ///
    /// Nothing has been sent yet, so that the alert goes in the clear (RFC 8446 §6).
    pub async fn refuse(self, alert: Alert) {
        refuse(self.socket, alert).await;
    }

    /// Sends our ServerHello and leads the handshake to its end.
    ///
    /// # Errors
    /// [`Error::Tls`] if the client refuses us (its alert) or breaks the protocol, [`Error::Io`] if
    /// it goes away.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn finish(mut self) -> Result<Inbound, Error> {
        if let Err(error) = self.connection.process_new_packets() {
            return Err(self.give_up(error).await);
        }
        loop {
            while self.connection.wants_write() {
                match self.connection.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.socket.tcp().ready(Interest::WRITABLE).await.map_err(Error::Io)?;
                    }
                    Err(error) => return Err(Error::Io(error)),
                }
            }
            if !self.connection.is_handshaking() {
                return Ok(Inbound::new(self.connection, self.socket));
            }
            match self.connection.read_tls(&mut self.socket) {
                Ok(0) => return Err(Error::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {
                    if let Err(error) = self.connection.process_new_packets() {
                        return Err(self.give_up(error).await);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.readable().await.map_err(Error::Io)?;
                }
                Err(error) => return Err(Error::Io(error)),
            }
        }
    }

    /// Sends the alert that rustls has prepared, and lets the client read it.
    async fn give_up(mut self, error: rustls::Error) -> Error {
        while self.connection.wants_write() && self.connection.write_tls(&mut self.socket).is_ok() {}
        // Before another task of this thread asks for the same.
        let error = refusal(error);
        linger(&mut self.socket).await;
        error
    }
}
