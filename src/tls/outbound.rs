//! The target's leg: TLS 1.0 to 1.2 by OpenSSL, offering what [`super::offer`] says.
//!
//! tokio-openssl can't be this leg: it hides how the peer ended (`SSL_get_shutdown`) and ties
//! close_notify to TCP's FIN, which a server with an answer still to send would obey by dropping it.
//! So the leg drives `openssl::ssl::SslStream` over a non-blocking socket itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, ShutdownState, Ssl, SslContext, SslRef, SslStream, SslVersion};
use openssl::x509::X509;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::explain::{self, Explained, Seen};
use super::inbound::is_reset;
pub use super::offer::Error;
use super::overtime::Overtime;
use super::sessions::{Kept, Moment, Resuming, Sessions};
use super::trust::{Judge, Refusal, Voucher};
use super::{credential, offer};
use crate::config::Settings;
use crate::config::settings::{Keepalive, Trust};
use crate::config::values::duration_text;
use crate::leg::health::Health;
use crate::leg::socket::Socket;
use crate::leg::{Ending, Fill, Leg};

/// Opens TLS to one forwarder's target.
pub struct Connector {
    context: SslContext,
    judge: Judge,
    sni: Option<String>,
    keepalive: Keepalive,
    settings: Arc<Settings>,
    /// `None`: nothing is resumed.
    sessions: Option<Sessions>,
}

impl Connector {
    /// Builds everything that the forwarder's connections share.
    ///
    /// # Errors
    /// Ciphers that OpenSSL doesn't have, authorities or a client certificate that can't be loaded.
    pub fn new(settings: Arc<Settings>) -> Result<Self, Error> {
        let mut context = offer::context(&settings)?;
        if let Some((cert, key)) = &settings.credential {
            credential::load(&mut context, cert, key)?;
        }
        let judge = Judge::new(&settings, &mut context)?;
        // Without extensions a session would be bound to nothing (RFC 7627 §1).
        let resumes = settings.resumption && settings.extensions && settings.trust != Trust::Insecure;
        Ok(Self {
            context: context.build(),
            judge,
            sessions: resumes.then(Sessions::default),
            sni: settings.sni_name().map(str::to_owned),
            keepalive: settings.keepalive.clone(),
            settings,
        })
    }

    /// Who vouches for the certificates that this connector accepts.
    pub fn voucher(&self) -> Voucher {
        self.judge.voucher()
    }

    /// Leads the TLS handshake on a fresh TCP connection to its end, resuming a session if there is
    /// one that may still be trusted.
    ///
    /// # Errors
    /// [`Failed`]: refused certificate, or cause and cure of a failed handshake.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(&self, tcp: TcpStream) -> Result<Outbound, Failed> {
        let socket = Socket::new(tcp, &self.keepalive).map_err(Failed::io)?;
        let mut ssl = Ssl::new(&self.context).map_err(Failed::openssl)?;
        ssl.set_connect_state();
        if let Some(name) = &self.sni {
            ssl.set_hostname(name).map_err(Failed::openssl)?;
        }
        let verdict = self.judge.attach(&mut ssl).map_err(|error| Failed::ours(error.to_string()))?;
        let address = socket.tcp().peer_addr().ok();
        let resuming = address.and_then(|address| self.resume(&mut ssl, address));
        let stream = SslStream::new(ssl, socket).map_err(Failed::openssl)?;
        let overtime = Overtime::new(self.settings.deadlines.handshake);
        let mut leg = Outbound { stream, ended: None, early: Early::default(), is_writing: false, overtime };
        let limit = self.settings.deadlines.handshake;
        let shaken = leg.shake(if resuming.is_some() { RESUMPTION.min(limit / 2) } else { limit }).await;
        if let Some(refusal) = verdict.get().cloned() {
            return Err(Failed::Certificate(Box::new(refusal)));
        }
        let since = match (shaken, resuming) {
            (Ok(()), resuming) => resuming,
            (Err(_), Some((resuming, _))) => {
                resuming.failed();
                return Err(Failed::Resumption);
            }
            (Err(error), None) => return Err(self.explain(error, &leg)),
        };
        self.judge.confirm(leg.certificate().as_deref()).map_err(|refusal| Failed::Certificate(Box::new(refusal)))?;
        let since = since.map(|(resuming, since)| {
            resuming.succeeded();
            since
        });
        if let Some(address) = address {
            self.keep(&leg, address, since);
        }
        Ok(leg)
    }

    /// `None`: the deadline passed.
    fn explain(&self, error: Option<ssl::Error>, leg: &Outbound) -> Failed {
        let seen = Seen::of(leg.stream.ssl(), leg.stream.get_ref().first_bytes());
        match error {
            Some(error) => Failed::Handshake(explain::outbound(&error, &seen, &self.settings)),
            None => {
                let limit = duration_text(self.settings.deadlines.handshake);
                Failed::Silence(explain::silence(&limit, &seen, &self.settings))
            }
        }
    }

    /// Offers a session that is kept for this address, if its certificate would still be accepted.
    #[allow(unsafe_code)]
    fn resume(&self, ssl: &mut Ssl, address: SocketAddr) -> Option<(Resuming<'_>, Moment)> {
        let sessions = self.sessions.as_ref()?;
        let kept = sessions.find(address)?;
        let resuming = Resuming::new(sessions, address);
        if !self.judge.still_accepts(&kept.leaf) {
            return None;
        }
        // SAFETY: the session comes from a connection of this very context.
        unsafe { ssl.set_session(&kept.session) }.ok()?;
        Some((resuming, kept.since))
    }

    /// Keeps the session of a verified connection. One that continues an earlier one, or only renews
    /// its ticket, is as old as that.
    fn keep(&self, leg: &Outbound, address: SocketAddr, resumed: Option<Moment>) {
        let Some(sessions) = &self.sessions else { return };
        let since = resumed.filter(|_| leg.resumed()).unwrap_or_else(Moment::now);
        let session = leg.stream.ssl().session().filter(|session| !session.id().is_empty());
        match (session, leg.certificate()) {
            (Some(session), Some(leaf)) => sessions.keep(address, Kept { session: session.to_owned(), leaf, since }),
            // The server keeps none, or no longer.
            _ => sessions.forget(address),
        }
    }
}

/// How long a handshake may take that resumes a session, or half of the deadline if that is less: some servers hang at a longer ClientHello,
/// and a handshake in full must still have its time.
const RESUMPTION: Duration = Duration::from_secs(5);

/// Why there is no TLS to the target.
#[derive(Debug)]
pub enum Failed {
    /// Its certificate was refused.
    Certificate(Box<Refusal>),
    /// The handshake failed.
    Handshake(Explained),
    /// It did not end within its deadline.
    Silence(Explained),
    /// It failed while a session was to be resumed, which is forgotten now: a handshake in full may
    /// still succeed.
    Resumption,
    /// Our own fault.
    Ours(String),
}

impl Failed {
    fn io(error: io::Error) -> Self {
        Self::Handshake(explain::io(&error))
    }

    fn openssl(error: ErrorStack) -> Self {
        Self::ours(format!("openssl: {error}"))
    }

    fn ours(cause: String) -> Self {
        Self::Ours(cause)
    }
}

/// The target's side of an established connection.
pub struct Outbound {
    stream: SslStream<Socket>,
    ended: Option<Ending>,
    /// What came while a new handshake kept a write waiting.
    early: Early,
    /// A write has begun and is to be repeated.
    is_writing: bool,
    /// The deadline of a new handshake.
    overtime: Overtime,
}

impl Outbound {
    /// `1.0`, `1.1` or `1.2`.
    pub fn version(&self) -> &'static str {
        match self.stream.ssl().version2() {
            Some(SslVersion::TLS1) => "1.0",
            Some(SslVersion::TLS1_1) => "1.1",
            Some(SslVersion::TLS1_2) => "1.2",
            _ => "-",
        }
    }

    /// The cipher suite by OpenSSL's name, which Exchange admins find in the same lists.
    pub fn suite(&self) -> &'static str {
        self.stream.ssl().current_cipher().map_or("-", |cipher| cipher.name())
    }

    /// Whether an earlier session was resumed.
    pub fn resumed(&self) -> bool {
        self.stream.ssl().session_reused()
    }

    /// The address that answered.
    pub fn address(&self) -> Option<SocketAddr> {
        self.stream.get_ref().tcp().peer_addr().ok()
    }

    /// An eye on the target's answers.
    pub fn health(&self) -> Health {
        self.stream.get_ref().health()
    }

    /// The certificate that the target showed.
    pub fn certificate(&self) -> Option<X509> {
        self.stream.ssl().peer_certificate()
    }

    /// Leads the handshake to its end; `Err(None)`: it took longer than `limit`.
    async fn shake(&mut self, limit: Duration) -> Result<(), Option<ssl::Error>> {
        let shaken = std::future::poll_fn(|cx| self.drive(cx, SslStream::do_handshake));
        timeout(limit, shaken).await.map_err(|_| None)?.map_err(Some)
    }

    /// Repeats one OpenSSL operation until it is done, waiting for whatever it wants.
    ///
    /// An operation may want the other direction: to write it may have to read first.
    fn drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut operation: impl FnMut(&mut SslStream<Socket>) -> Result<T, ssl::Error>,
    ) -> Poll<Result<T, ssl::Error>> {
        for _ in 0..ATTEMPTS {
            // What another connection on this thread has left would be taken for this one's failure
            // (SSL_get_error(3)).
            drop(ErrorStack::get());
            let error = match operation(&mut self.stream) {
                Ok(value) => return Poll::Ready(Ok(value)),
                Err(error) => error,
            };
            let tcp = self.stream.get_ref().tcp();
            // A failure of the wait itself shows in the next attempt.
            let _ = match error.code() {
                ErrorCode::WANT_READ if error.io_error().is_some() => ready!(tcp.poll_read_ready(cx)),
                ErrorCode::WANT_WRITE => ready!(tcp.poll_write_ready(cx)),
                ErrorCode::WANT_READ => Ok(()),
                _ => return Poll::Ready(Err(error)),
            };
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn too_late(&self) -> io::Error {
        let limit = duration_text(self.overtime.limit());
        io::Error::other(format!("renegotiation: not finished within {limit} (handshake_timeout)"))
    }

    fn note_fin(&mut self) -> Fill {
        self.note(if is_inside_record(self.stream.ssl()) { Ending::Truncated } else { Ending::Fin })
    }

    fn note(&mut self, how: Ending) -> Fill {
        self.ended = Some(how);
        Fill::Ended(how)
    }

    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Fill>> {
        if let Some(how) = self.ended {
            return Poll::Ready(Ok(Fill::Ended(how)));
        }
        let read = self.drive(cx, |stream| stream.ssl_read(buffer));
        if !is_renegotiating(self.stream.ssl()) {
            self.overtime.clear();
        } else if read.is_pending() {
            ready!(self.overtime.poll(cx));
            return Poll::Ready(Err(self.too_late()));
        } else {
            self.overtime.stop();
        }
        let error = match ready!(read) {
            Ok(count) => return Poll::Ready(Ok(Fill::Bytes(count))),
            Err(error) => error,
        };
        Poll::Ready(match error.code() {
            ErrorCode::ZERO_RETURN => Ok(self.note(Ending::CloseNotify)),
            ErrorCode::SYSCALL if error.io_error().is_none_or(|cause| cause.kind() == io::ErrorKind::UnexpectedEof) => {
                Ok(self.note_fin())
            }
            ErrorCode::SYSCALL if error.io_error().is_some_and(is_reset) => Ok(self.note(Ending::Reset)),
            ErrorCode::SSL if explain::is_unexpected_eof(&error) => Ok(self.note_fin()),
            _ => Err(as_io(error)),
        })
    }

    /// Lets a new handshake that the server has asked for come to its end.
    ///
    /// Until it does, the server's bytes still arrive, and OpenSSL takes them for a violation of the
    /// protocol unless it meets them in a read (measured: alert 10, and the connection lost). So no
    /// write goes on meanwhile; what is read is kept for [`Leg::poll_fill`]. When [`EARLY`] bytes are
    /// kept, it waits for that to be called, by the task that polls both.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A record that has begun to leave comes first; OpenSSL begins no handshake before its end.
        while !self.is_writing && is_renegotiating(self.stream.ssl()) {
            if self.early.is_full() {
                return Poll::Pending;
            }
            let mut piece = [0; 4096];
            match self.read(cx, &mut piece) {
                Poll::Ready(Ok(Fill::Bytes(count))) => self.early.put(&piece[..count]),
                Poll::Ready(Ok(Fill::Ended(_))) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // The handshake may have ended behind the last byte.
                Poll::Pending if is_renegotiating(self.stream.ssl()) => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Bytes that were read before they were asked for, in order.
#[derive(Default)]
struct Early {
    bytes: Vec<u8>,
    given: usize,
}

/// As much as a server may send between its wish for a handshake and our hello, within what TCP holds
/// in flight on an ordinary network.
const EARLY: usize = 1 << 20;

impl Early {
    fn is_full(&self) -> bool {
        self.bytes.len() - self.given >= EARLY
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Gives back the next bytes, if there are any; memory goes with the last.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let left = &self.bytes[self.given..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        if self.given == self.bytes.len() {
            *self = Self::default();
        }
        count
    }
}

/// Whether a handshake is under way, or asked for, on a connection that had its first.
#[allow(unsafe_code)]
fn is_renegotiating(ssl: &SslRef) -> bool {
    use foreign_types::ForeignTypeRef;
    unsafe extern "C" {
        fn SSL_renegotiate_pending(ssl: *const openssl_sys::SSL) -> std::ffi::c_int;
    }
    // SAFETY: the connection is alive, and the call only looks at it.
    !ssl.is_init_finished() || unsafe { SSL_renegotiate_pending(ssl.as_ptr()) } != 0
}

/// Whether a part of a record has come, and nothing of it was given out.
#[allow(unsafe_code)]
fn is_inside_record(ssl: &SslRef) -> bool {
    use foreign_types::ForeignTypeRef;
    unsafe extern "C" {
        fn SSL_has_pending(ssl: *const openssl_sys::SSL) -> std::ffi::c_int;
        fn SSL_rstate_string(ssl: *const openssl_sys::SSL) -> *const std::ffi::c_char;
    }
    // SAFETY: the connection is alive, the calls only look at it, and the answer is a constant string.
    unsafe {
        // The header is complete, and the body is awaited (SSL_rstate_string(3)); or a part of the header is there.
        std::ffi::CStr::from_ptr(SSL_rstate_string(ssl.as_ptr())) == c"RB" || SSL_has_pending(ssl.as_ptr()) != 0
    }
}

/// How often one operation goes on before other tasks get their turn: a peer that drips records
/// would otherwise keep a thread.
const ATTEMPTS: usize = 64;

impl Leg for Outbound {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Fill>> {
        let early = self.early.take(buffer);
        if early > 0 {
            return Poll::Ready(Ok(Fill::Bytes(early)));
        }
        let was_renegotiating = is_renegotiating(self.stream.ssl());
        let filled = self.read(cx, buffer);
        if was_renegotiating && filled.is_pending() && !is_renegotiating(self.stream.ssl()) {
            // A write that waited for this end has seen no event of its own.
            cx.waker().wake_by_ref();
        }
        filled
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_settled(cx))?;
        let written = self.drive(cx, |stream| stream.ssl_write(bytes)).map_err(as_io);
        self.is_writing = written.is_pending();
        written
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // OpenSSL reports a write as done when the kernel has it.
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, how: Ending) -> Poll<io::Result<()>> {
        match how {
            Ending::Reset => Poll::Ready(self.stream.get_mut().abort()),
            Ending::Fin | Ending::Truncated => Poll::Ready(self.stream.get_mut().finish()),
            // No FIN yet: IIS takes it for a client that has gone. It follows when the target has ended.
            Ending::CloseNotify => {
                ready!(self.poll_settled(cx))?;
                match ready!(self.drive(cx, SslStream::shutdown)) {
                    Ok(_) => Poll::Ready(Ok(())),
                    Err(error) if error.code() == ErrorCode::ZERO_RETURN => Poll::Ready(Ok(())),
                    Err(error) => Poll::Ready(Err(as_io(error))),
                }
            }
        }
    }

    fn is_gone(&self) -> bool {
        self.stream.get_ref().is_gone()
    }

    fn has_ended(&self) -> bool {
        self.stream.get_ref().has_ended()
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.get_mut().poll_linger(cx)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        // OpenSSL takes a session whose connection ended without close_notify for spoilt, by a rule of
        // TLS 1.0 that TLS 1.1 dropped (RFC 4346 §7.2.1), and many old servers end so.
        self.stream.set_shutdown(ShutdownState::SENT | ShutdownState::RECEIVED);
    }
}

fn as_io(error: ssl::Error) -> io::Error {
    error.into_io_error().unwrap_or_else(|error| io::Error::other(explain::openssl_text(&error)))
}
