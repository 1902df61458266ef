//! The client's leg: TLS 1.2 and 1.3 by rustls.
//!
//! A ClientHello is read and answered in memory first ([`Hello::answer`]); what was computed leaves
//! only in [`Answered::finish`], when the target is ready. [`Answered::refuse`] puts a fatal alert in
//! the ServerHello's place, so that a client is never told "connected" before it is true.
//!
//! rustls is driven directly. tokio-rustls' acceptor would answer a TLS 1.1 hello with alert 40
//! before we could say 70, its stream sends the ServerHello at once, and it hides how a peer ended.

use std::io;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{Accepted, AcceptedAlert, Acceptor, ServerConfig, ServerConnection};
use rustls::{HandshakeKind, SupportedProtocolVersion, version};
use tokio::io::Interest;

use super::certificate::Facts;
use super::client_auth::{self, Authorities, Refused};
use super::identity::Pair;
use crate::config::Settings;
use crate::config::values::Version;
use crate::leg::health::Health;
use crate::leg::proxy::{self, Header, Malformed};
use crate::leg::socket::Socket;
use crate::leg::{Ending, Fill, Leg};

/// How a refused client is told: the alert that takes the ServerHello's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// 40, handshake_failure: the target's fault.
    HandshakeFailure = 40,
    /// 45, certificate_expired: the certificate by which the client began the session that it resumes.
    CertificateExpired = 45,
    /// 49, access_denied: the client may not come from there.
    AccessDenied = 49,
    /// 70, protocol_version: the client is older than TLS 1.2.
    ProtocolVersion = 70,
    /// 80, internal_error: our own.
    InternalError = 80,
}

/// A fatal alert's record in the clear (RFC 8446 §6).
fn fatal(alert: Alert) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, alert as u8]
}

/// Whether a ClientHello's version, which is 3.3 from TLS 1.2 on (RFC 8446 §4.1.2), says less.
///
/// rustls looks for signature algorithms first, which such hellos lack, and would answer 40.
fn is_too_old(first: &[u8]) -> bool {
    matches!(first, [22, _, _, _, _, 1, _, _, _, 3, 0..=2])
}

/// What can be wrong with the listener's side of TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client vanished before its ClientHello was whole.
    #[error("the client left before its ClientHello was complete")]
    Left,
    /// The client speaks nothing newer than TLS 1.1.
    #[error("the client speaks nothing newer than TLS 1.1")]
    TooOld,
    /// The client speaks HTTP without TLS.
    #[error("the client speaks plain HTTP")]
    PlainHttp,
    /// It must begin with a PROXY header, and does not.
    #[error("PROXY header: {0}")]
    ProxyHeader(Malformed),
    /// A PROXY header where none may be.
    #[error("a PROXY header where none may be")]
    StrayProxyHeader,
    /// The certificate that it shows won't do.
    #[error("client certificate: {}", .0.why)]
    Certificate(Refused),
    /// The client's TLS is not acceptable, or it gave up: rustls' words.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// Authorities that can't be used.
    #[error("client_ca: {0}")]
    ClientCa(#[from] client_auth::Error),
    /// The connection broke.
    #[error("{0}")]
    Io(io::Error),
}

/// What every connection of a forwarder shares: configuration, certificate, ticket keys.
pub struct Listener {
    /// Replaced as a whole when the certificate changes; connections keep the one they began with.
    configs: RwLock<Configs>,
    /// Kept over a change of certificate, so that resumption goes on.
    template: Template,
}

#[derive(Clone)]
struct Configs {
    /// By whom clients' certificates must be.
    authorities: Option<Authorities>,
    with_http: Arc<ServerConfig>,
    without_alpn: Arc<ServerConfig>,
}

struct Template {
    provider: Arc<CryptoProvider>,
    authorities: Option<Authorities>,
    versions: &'static [&'static SupportedProtocolVersion],
    ticketer: Arc<dyn rustls::server::ProducesTickets>,
}

static MODERN: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static NEWEST: [&SupportedProtocolVersion; 1] = [&version::TLS13];

impl Listener {
    /// Prepares to serve with this certificate and key.
    ///
    /// # Errors
    /// [`Error::ClientCa`] for authorities that can't be used, [`Error::Tls`] if rustls refuses the pair
    /// or has no randomness for ticket keys.
    pub fn new(pair: Pair, settings: &Settings) -> Result<Self, Error> {
        Self::with(pair, settings, None)
    }

    fn with(pair: Pair, settings: &Settings, old: Option<&Template>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let authorities = settings.client_ca.as_deref().map(|file| Authorities::read(file, &provider)).transpose()?;
        let ticketer = match old.filter(|old| old.authorities == authorities) {
            Some(old) => Arc::clone(&old.ticketer),
            None => aws_lc_rs::Ticketer::new()?,
        };
        let versions: &[_] = if settings.client_min_tls == Version::Tls1_3 { &NEWEST } else { &MODERN };
        let template = Template { provider, authorities, versions, ticketer };
        Ok(Self { configs: RwLock::new(template.configs(pair)?), template })
    }

    /// Prepares to serve with other settings; who has a ticket of ours may still resume, unless clients
    /// are now judged by other authorities.
    ///
    /// # Errors
    /// As [`Listener::new`].
    pub fn successor(&self, pair: Pair, settings: &Settings) -> Result<Self, Error> {
        Self::with(pair, settings, Some(&self.template))
    }

    /// Serves new connections with another certificate; open ones are untouched.
    ///
    /// # Errors
    /// [`Error::Tls`] if rustls refuses the pair; the old one then stays in force.
    pub fn replace(&self, pair: Pair) -> Result<(), Error> {
        let configs = self.template.configs(pair)?;
        *self.configs.write().unwrap_or_else(std::sync::PoisonError::into_inner) = configs;
        Ok(())
    }

    fn configs(&self) -> Configs {
        self.configs.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Reads a whole ClientHello. What can't be one is answered with an alert.
    ///
    /// # Errors
    /// [`Error::Left`] for a client that ended before, [`Error::Tls`] for what is no ClientHello.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn hello(&self, mut socket: Socket) -> Result<Hello, Error> {
        let mut acceptor = Acceptor::default();
        loop {
            match acceptor.read_tls(&mut socket) {
                Ok(0) => return Err(Error::Left),
                Ok(_) => match acceptor.accept() {
                    Ok(Some(accepted)) => return Ok(Hello { accepted, socket, configs: self.configs() }),
                    Ok(None) => {}
                    Err((error, alert)) => return Err(turned_away(socket, error, alert).await),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.tcp().ready(Interest::READABLE).await.map_err(Error::Io)?;
                }
                Err(error) => return Err(Error::Io(error)),
            }
        }
    }
}

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

/// Tells the client by an alert, and the caller by an error, why its ClientHello won't do.
async fn turned_away(mut socket: Socket, error: rustls::Error, mut alert: AcceptedAlert) -> Error {
    let is_too_old = is_too_old(socket.first_bytes());
    // An alert is a few bytes on a fresh connection: it fits the empty send queue.
    let _ = if is_too_old {
        io::Write::write_all(&mut socket, &fatal(Alert::ProtocolVersion))
    } else {
        alert.write_all(&mut socket)
    };
    linger(&mut socket).await;
    match socket.first_bytes() {
        _ if is_too_old => Error::TooOld,
        first if proxy::begins(first) => Error::StrayProxyHeader,
        first if is_http(first) => Error::PlainHttp,
        _ => Error::Tls(error),
    }
}

/// Whether it begins as a request of HTTP does: a method in capitals, then a space (RFC 9112 §3).
fn is_http(first: &[u8]) -> bool {
    let method = first.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    method > 0 && first.get(method) == Some(&b' ')
}

impl Template {
    fn configs(&self, pair: Pair) -> Result<Configs, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_protocol_versions(self.versions)?;
        let builder = match &self.authorities {
            Some(authorities) => builder.with_client_cert_verifier(authorities.verifier()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(pair.chain, pair.key)?;
        // Ours is the better order for TLS 1.2, and scanners mark a server down that has none.
        config.ignore_client_order = true;
        config.ticketer = Arc::clone(&self.ticketer);
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let without_alpn = Arc::new(config.clone());
        // HTTP/1.1 and nothing else: NTLM is unusable over HTTP/2, and the target has none.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Configs { authorities: self.authorities.clone(), with_http: Arc::new(config), without_alpn })
    }
}

/// A complete ClientHello.
pub struct Hello {
    accepted: Accepted,
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
        // A client that offers protocols without HTTP/1.1 gets no ALPN at all, as from a server
        // that knows none; with a list in force rustls would refuse it.
        let wants_http =
            self.accepted.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == b"http/1.1"));
        let config = if wants_http { self.configs.with_http } else { self.configs.without_alpn };
        let (socket, authorities) = (self.socket, self.configs.authorities);
        match self.accepted.into_connection(config) {
            Ok(connection) => {
                // rustls takes a session's certificate as it was judged when the session began.
                if let Some(authorities) = &authorities
                    && connection.handshake_kind() == Some(HandshakeKind::Resumed)
                    && let Err(error) = authorities.still_accept(connection.peer_certificates())
                {
                    return Err(end_of_session(socket, error).await);
                }
                Ok(Answered { connection, socket, asks_for_certificate: authorities.is_some() })
            }
            Err((error, alert)) => Err(turned_away(socket, error, alert).await),
        }
    }
}

/// A ClientHello whose answer is computed and held back.
pub struct Answered {
    connection: ServerConnection,
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
                return Ok(Inbound { connection: self.connection, socket: self.socket, closing: false, failed: None });
            }
            match self.connection.read_tls(&mut self.socket) {
                Ok(0) => return Err(Error::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {
                    if let Err(error) = self.connection.process_new_packets() {
                        return Err(self.give_up(error).await);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.tcp().ready(Interest::READABLE).await.map_err(Error::Io)?;
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

/// Sends a fatal alert to a client that was sent nothing yet, and closes.
pub async fn refuse(mut socket: Socket, alert: Alert) {
    if io::Write::write_all(&mut socket, &fatal(alert)).is_ok() {
        linger(&mut socket).await;
    }
}

/// The error with what is known of the certificate that was refused by the call that has just failed.
fn refusal(error: rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(why) => Error::Certificate(client_auth::refused(why)),
        other => Error::Tls(other),
    }
}

/// Tells a client that the certificate won't do any more by which it began the session that it resumes.
/// A fatal alert ends the session for good (RFC 5246 §7.2).
async fn end_of_session(socket: Socket, error: rustls::Error) -> Error {
    refuse(socket, Alert::CertificateExpired).await;
    refusal(error)
}

/// How long a refused client may take to read its alert.
const ALERT_LINGER: Duration = Duration::from_secs(1);

async fn linger(socket: &mut Socket) {
    let lingering = std::future::poll_fn(|cx| socket.poll_linger(cx));
    let _ = tokio::time::timeout(ALERT_LINGER, lingering).await;
}

/// The client's side of an established connection.
pub struct Inbound {
    connection: ServerConnection,
    socket: Socket,
    closing: bool,
    /// What was wrong with a record, until the bytes before it are given out.
    failed: Option<rustls::Error>,
}

impl Inbound {
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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.tcp().poll_read_ready(cx))?;
                }
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

/// Whether TCP was torn down by the peer.
pub(super) fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
    )
}
