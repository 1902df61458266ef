//! The target's side of an established connection, in the relay's terms.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{self, ErrorCode, ShutdownState, SslRef, SslStream, SslVersion};
use openssl::x509::X509;
use tokio::time::timeout;

use crate::config::values::duration_text;
use crate::leg::health::Health;
use crate::leg::socket::{Socket, Writes};
use crate::leg::{Ending, Fill, Leg};
use crate::tls::explain;
use crate::tls::inbound::is_reset;
use crate::tls::overtime::Overtime;

/// The target's side of an established connection.
pub struct Outbound {
    pub(super) stream: SslStream<Socket>,
    ended: Option<Ending>,
    /// What came while a new handshake kept a write waiting.
    early: Early,
    /// The deadline of a new handshake.
    overtime: Overtime,
}

impl Outbound {
    pub(super) fn new(stream: SslStream<Socket>, overtime: Overtime) -> Self {
        Self { stream, ended: None, early: Early::default(), overtime }
    }

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
    pub(super) async fn shake(&mut self, limit: Duration) -> Result<(), Option<ssl::Error>> {
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
            let socket = self.stream.get_ref();
            // A failure of the wait itself shows in the next attempt.
            let _ = match error.code() {
                ErrorCode::WANT_READ if error.io_error().is_some() => ready!(socket.poll_read_ready(cx)),
                ErrorCode::WANT_WRITE => ready!(socket.tcp().poll_write_ready(cx)),
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
        if !is_renegotiating(self.stream.ssl()) && !has_pending(self.stream.ssl()) {
            // At rest this is all that is asked; what fails shows in the read.
            self.overtime.clear();
            // The last message of a handshake may be held.
            let _ = self.stream.get_mut().poll_sent(cx);
            let _ = ready!(self.stream.get_ref().poll_read_ready(cx));
        }
        // A read may begin a new handshake, or go on with one. A server that is in the middle of a record
        // may not read our message before we have read that record.
        self.stream.get_mut().set_writes(Writes::Held);
        let read = self.drive(cx, |stream| stream.ssl_read(buffer));
        let socket = self.stream.get_mut();
        socket.set_writes(Writes::Through);
        // Whoever is asked to read next, or to write, sends on; what fails shows there.
        let _ = socket.poll_sent(cx);
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

    /// Encrypts for the socket, which takes all of it; how much of `bytes` that was, at least one.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            drop(ErrorStack::get());
            match self.stream.ssl_write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(error) if taken == 0 => return Err(as_io(error)),
                // It comes again.
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    /// Lets a new handshake that the server has asked for come to its end.
    ///
    /// Until it does, the server's bytes still arrive, and OpenSSL takes them for a violation of the
    /// protocol unless it meets them in a read (measured: alert 10, and the connection lost). So no
    /// write goes on meanwhile; what is read is kept for [`Leg::poll_fill`]. When [`EARLY`] bytes are
    /// kept, it waits for that to be called, by the task that polls both.
    fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while is_renegotiating(self.stream.ssl()) {
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

/// Whether OpenSSL holds anything of a record, be it decrypted or not.
#[allow(unsafe_code)]
fn has_pending(ssl: &SslRef) -> bool {
    use foreign_types::ForeignTypeRef;
    unsafe extern "C" {
        fn SSL_has_pending(ssl: *const openssl_sys::SSL) -> std::ffi::c_int;
    }
    // SAFETY: the connection is alive, and the call only looks at it.
    unsafe { SSL_has_pending(ssl.as_ptr()) != 0 }
}

/// Whether a part of a record has come, and nothing of it was given out.
#[allow(unsafe_code)]
fn is_inside_record(ssl: &SslRef) -> bool {
    use foreign_types::ForeignTypeRef;
    unsafe extern "C" {
        fn SSL_rstate_string(ssl: *const openssl_sys::SSL) -> *const std::ffi::c_char;
    }
    // SAFETY: the connection is alive, the call only looks at it, and the answer is a constant string.
    let state = unsafe { std::ffi::CStr::from_ptr(SSL_rstate_string(ssl.as_ptr())) };
    // The header is complete, and the body is awaited (SSL_rstate_string(3)); or a part of the header is there.
    state == c"RB" || has_pending(ssl)
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
        // So that a buffer has room for all that is written now.
        ready!(self.stream.get_mut().poll_sent(cx))?;
        self.stream.get_mut().set_writes(Writes::Gathered);
        let written = self.write(bytes);
        let socket = self.stream.get_mut();
        socket.set_writes(Writes::Through);
        // What fails shows at the next call.
        let _ = socket.poll_sent(cx);
        Poll::Ready(written)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.get_mut().poll_sent(cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, how: Ending) -> Poll<io::Result<()>> {
        if how != Ending::Reset {
            ready!(self.poll_flush(cx))?;
        }
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
