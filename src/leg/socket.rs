//! A TCP connection as both TLS libraries want it: plain reads and writes that may say `WouldBlock`.

mod kernel;
mod outgoing;

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio::time::{Sleep, sleep};

pub(super) use self::kernel::dissolve;
use self::kernel::{has_ended, is_closed, unsent};
use self::outgoing::Outgoing;
pub use self::outgoing::Writes;
use super::buffer::Buffer;
use super::health::Health;
use crate::config::settings::Keepalive;

/// A connected TCP socket, read and written without waiting.
#[derive(Debug)]
pub struct Socket {
    tcp: Arc<TcpStream>,
    /// Reads since the peer last had nothing to say, or a caller was sent to wait.
    reads: u32,
    /// How much a lingering close may still read and drop.
    linger_left: usize,
    /// The peer's first bytes, which tell what it speaks if it isn't TLS, or how old its TLS is.
    first: [u8; FIRST],
    first_count: usize,
    /// What was read from the kernel and not given out yet; gone with the last byte.
    ahead: Option<Ahead>,
    /// What was written and the kernel does not have yet; it leaves first.
    outgoing: Outgoing,
    writes: Writes,
    /// How the connection was lost, if a write was told so: the kernel tells it once, and then reads as at an end.
    lost: Option<io::ErrorKind>,
    /// Our direction has ended.
    finished: bool,
    /// The close will be a reset.
    aborted: bool,
    /// Until the send queue is looked at again.
    pause: Option<Pin<Box<Sleep>>>,
}

/// Bytes that one system call brought, which the TLS libraries then take in pieces: rustls asks for 4 KiB
/// at once, OpenSSL for a record's header and then for its body.
#[derive(Debug)]
struct Ahead {
    buffer: Buffer,
    start: usize,
    end: usize,
}

/// As many bytes as lead to the version in a ClientHello: record header, handshake header, version.
pub const FIRST: usize = 11;

/// So many reads in a row, then the caller is told to wait although there is more, and does not wait
/// long: a TLS library may pass over records within one call for as long as they come (OpenSSL does
/// over HelloRequests in a handshake), and no deadline is looked at before it returns.
const READS: u32 = 64;

/// What a lingering close reads at most; from then on it only waits for the acknowledgement of ours.
const LINGER_BYTES: usize = 64 << 20;

impl Socket {
    /// Takes a connection over: no delay for small writes, keepalive as set.
    ///
    /// # Errors
    /// The system refuses an option, or the peer is gone already.
    pub fn new(tcp: TcpStream, keepalive: &Keepalive) -> io::Result<Self> {
        tcp.set_nodelay(true)?;
        let probes = TcpKeepalive::new()
            .with_time(keepalive.time)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.probes);
        SockRef::from(&tcp).set_tcp_keepalive(&probes)?;
        Ok(Self {
            tcp: Arc::new(tcp),
            reads: 0,
            linger_left: LINGER_BYTES,
            first: [0; FIRST],
            first_count: 0,
            ahead: None,
            outgoing: Outgoing::default(),
            writes: Writes::Through,
            lost: None,
            finished: false,
            aborted: false,
            pause: None,
        })
    }

    /// The connection itself.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// An eye on the peer's answers.
    pub fn health(&self) -> Health {
        Health::of(Arc::clone(&self.tcp))
    }

    /// The first bytes that the peer has sent, at most [`FIRST`].
    pub fn first_bytes(&self) -> &[u8] {
        &self.first[..self.first_count]
    }

    /// Puts bytes back that belong to whoever reads next.
    ///
    /// # Panics
    /// If they are more than a buffer holds ([`SIZE`](super::buffer::SIZE)).
    pub fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut buffer = Buffer::take();
            buffer[..bytes.len()].copy_from_slice(bytes);
            self.ahead = Some(Ahead { buffer, start: 0, end: bytes.len() });
        }
    }

    /// Whether a read may bring something; if not, the task is woken when one may.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_none() {
            return self.tcp.poll_read_ready(cx);
        }
        // What is here costs a turn as well, or a peer whose bytes always are would keep the thread.
        ready!(coop::poll_proceed(cx)).made_progress();
        Poll::Ready(Ok(()))
    }

    /// Waits until a read may bring something.
    ///
    /// # Errors
    /// As [`Socket::poll_read_ready`].
    ///
    /// # Cancel safety
    /// Nothing is read.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Reads what the kernel has, up to a buffer; nothing, if the peer has ended.
    fn fetch(&self) -> io::Result<Ahead> {
        let mut buffer = Buffer::take();
        let mut read = None;
        let left = self.tcp.try_io(Interest::READABLE, || {
            let count = recv(self.tcp.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            read = Some(count);
            // Fewer than there is room for: the kernel has no more. The runtime takes note of it as of
            // the event from before the read, so that the next attempt waits without a system call and
            // what came meanwhile is not missed; of a peer's FIN it keeps knowing.
            if count > 0 && count < buffer.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (read, self.lost) {
            (Some(0), Some(how)) => Err(how.into()),
            (Some(end), _) => Ok(Ahead { buffer, start: 0, end }),
            (None, _) => Err(left.err().map_or_else(|| io::ErrorKind::WouldBlock.into(), torn_down)),
        }
    }

    /// Whether writes wait for the kernel from now on.
    ///
    /// A peer may read nothing before what it sends is read, and a TLS library reads nothing before its own
    /// message has left; nor does it say what became of a message that had to wait. So it shall not wait.
    pub fn set_writes(&mut self, writes: Writes) {
        self.writes = writes;
    }

    /// Hands to the kernel what is held, and resolves when nothing is.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.send() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.tcp.poll_write_ready(cx))?,
                done => return Poll::Ready(done),
            }
        }
    }

    /// Hands to the kernel what it takes of what is held; `Ok`: everything.
    fn send(&mut self) -> io::Result<()> {
        let sent = self.outgoing.send(&self.tcp);
        self.note(sent)
    }

    /// Keeps in mind what a write was told.
    fn note<T>(&mut self, written: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &written
            && matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::TimedOut)
        {
            self.lost = Some(error.kind());
        }
        written
    }

    /// Ends the write side, once; the read side stays open.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn finish(&mut self) -> io::Result<()> {
        if !self.finished {
            SockRef::from(&self.tcp).shutdown(std::net::Shutdown::Write)?;
            self.finished = true;
        }
        Ok(())
    }

    /// Tears the connection down at once: a reset where nothing is queued for the peer any more, else
    /// a plain end of the write side, since a reset would destroy what is queued; then linger.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn abort(&mut self) -> io::Result<()> {
        match self.send() {
            // A lingering close sends it and ends the write side then.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            sent => sent?,
        }
        if unsent(&self.tcp)? == 0 {
            self.aborted = true;
            SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO))?;
            // The close may come much later: the other leg may still linger.
            return dissolve(&self.tcp);
        }
        self.finish()
    }

    /// Sends what is held and ends the write side, and reads and drops until the peer ends or fails. From a
    /// peer that has sent enough it reads no more, and waits until that one has all of ours.
    pub fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.aborted {
            return Poll::Ready(());
        }
        // A peer that has no room for its own bytes may take none of ours, so that reading goes on.
        let sent = self.poll_sent(cx);
        if let Poll::Ready(sent) = &sent
            && (sent.is_err() || self.finish().is_err())
        {
            return Poll::Ready(());
        }
        if let Some(ahead) = self.ahead.take() {
            self.linger_left = self.linger_left.saturating_sub(ahead.end - ahead.start);
        }
        let mut scratch = [0; 16 << 10];
        while self.linger_left > 0 {
            match self.tcp.try_read(&mut scratch) {
                // Its own end does not say that it takes nothing.
                Ok(0) => return sent.map(drop),
                Ok(count) => self.linger_left = self.linger_left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(self.tcp.poll_read_ready(cx)).is_err() {
                        return Poll::Ready(());
                    }
                }
                Err(_) => return Poll::Ready(()),
            }
        }
        let _ = ready!(sent);
        // No event tells of an acknowledgement.
        while unsent(&self.tcp).is_ok_and(|count| count > 0) {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(ACKNOWLEDGED)));
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    /// Whether TCP was torn down, whatever may still lie unread before that.
    pub fn is_gone(&self) -> bool {
        is_closed(&self.tcp)
    }

    /// Whether the peer's FIN, or the end of the connection, has come, whatever may lie unread before it.
    pub fn has_ended(&self) -> bool {
        has_ended(&self.tcp)
    }

    /// Resolves when the peer has ended or reset the connection; never while bytes or silence come.
    pub async fn ended(&self) {
        if self.ahead.is_some() {
            // Bytes hide the end of the stream, but not a reset, and so do those below.
            _ = self.tcp.ready(Interest::ERROR).await;
            return;
        }
        let mut byte = [0];
        match self.tcp.peek(&mut byte).await {
            Ok(0) | Err(_) => {}
            Ok(_) => _ = self.tcp.ready(Interest::ERROR).await,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The socket stays known as readable, so that waiting for it ends at once.
        let reads = std::mem::take(&mut self.reads);
        if reads >= READS {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut ahead = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.fetch()?,
        };
        let count = buffer.len().min(ahead.end - ahead.start);
        buffer[..count].copy_from_slice(&ahead.buffer[ahead.start..][..count]);
        ahead.start += count;
        if ahead.start < ahead.end {
            self.ahead = Some(ahead);
        }
        self.reads = reads + 1;
        if self.first_count < self.first.len() {
            let more = count.min(self.first.len() - self.first_count);
            self.first[self.first_count..][..more].copy_from_slice(&buffer[..more]);
            self.first_count += more;
        }
        Ok(count)
    }
}

/// A connection that we gave up ourselves reads as one that never was (ENOTCONN), which OpenSSL's binding
/// takes for one that is yet to be: it would be tried again without end.
fn torn_down(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotConnected { io::ErrorKind::ConnectionReset.into() } else { error }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.writes == Writes::Gathered {
            let count = self.outgoing.gather(bytes);
            if count > 0 {
                return Ok(count);
            }
        }
        let sent = self.send().and_then(|()| self.tcp.try_write(bytes).map_err(torn_down));
        match self.note(sent) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.writes != Writes::Through => {
                let count = self.outgoing.hold(bytes);
                if count > 0 { Ok(count) } else { Err(error) }
            }
            sent => sent,
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send()?;
        let sent = self.tcp.try_write_vectored(pieces).map_err(torn_down);
        self.note(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How often the send queue is looked at.
const ACKNOWLEDGED: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
