//! One side of a connection, in the relay's own terms; what both the relay and TLS speak.
//!
//! `AsyncRead` and `AsyncWrite` can't say how a peer ended nor end in a chosen way, so nothing
//! above the legs uses them. A leg is polled by one task alone, both directions from there: TLS may
//! have to read before it can write and the other way round (renegotiation, key update), and a
//! second task's waker would be lost.

pub mod buffer;
pub mod health;
pub mod proxy;
pub mod socket;

use std::io;
use std::task::{Context, Poll};

/// How one direction of a connection came to its end, or shall come to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// TLS said so: nothing was cut off.
    CloseNotify,
    /// TCP ended without a word from TLS: what came before may have been cut short.
    Fin,
    /// The same inside a record: something was cut short for certain. Passed on it is a FIN.
    Truncated,
    /// TCP was torn down, or TLS gave up.
    Reset,
}

impl Ending {
    /// The word in log lines.
    pub fn word(self) -> &'static str {
        match self {
            Self::CloseNotify => "close_notify",
            Self::Fin => "fin",
            Self::Truncated => "truncated",
            Self::Reset => "reset",
        }
    }
}

/// What filling a buffer brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The peer has ended; so does every later call.
    Ended(Ending),
}

/// One side of a connection: bytes in, bytes out, an end each way.
///
/// Every method may be called again after `Pending` and is then woken through the context of the
/// last call. A call that returns `Ready` has taken effect once.
pub trait Leg {
    /// Puts bytes from the peer into `buffer`, which must not be empty.
    ///
    /// # Errors
    /// A broken record, a lost connection: whatever is not one of the three endings.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Fill>>;

    /// Takes some of `bytes` (not empty) for the peer; how many is the answer, at least one.
    ///
    /// After `Pending` the same bytes must be offered again: TLS may have begun to send them.
    ///
    /// # Errors
    /// The peer can't be written to any more. What it has sent may still be there to be read.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Hands everything taken to the kernel.
    ///
    /// # Errors
    /// As [`Leg::poll_write`].
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends our direction towards the peer in the given way; nothing may be written after that.
    ///
    /// [`Ending::CloseNotify`], [`Ending::Fin`] and [`Ending::Truncated`] come after everything taken so far and leave the
    /// peer's direction open. [`Ending::Reset`] never waits; where bytes are still queued for the
    /// peer it is a FIN without close_notify, for a reset would destroy them.
    ///
    /// # Errors
    /// As [`Leg::poll_write`].
    fn poll_end(&mut self, cx: &mut Context<'_>, how: Ending) -> Poll<io::Result<()>>;

    /// Whether TCP was torn down, seen without reading: while a peer's bytes can't be passed on nobody
    /// reads, and a reset behind them would go unheard.
    fn is_gone(&self) -> bool;

    /// Whether the peer has ended its direction, seen without reading.
    fn has_ended(&self) -> bool;

    /// Closes for good once the peer has what we sent: ends TCP's write side, then reads and drops
    /// what still comes until the peer ends too. Unread input at a `close` makes the kernel reset
    /// the connection, and a reset destroys what is still queued for the peer.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}
