//! What was taken for the peer and is not the kernel's yet.

use std::collections::VecDeque;
use std::io;

use tokio::net::TcpStream;

use super::torn_down;
use crate::leg::buffer::Buffer;

/// Whether a write waits for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// It goes to the kernel or says `WouldBlock`.
    Through,
    /// It goes to the kernel; what finds no room there is held, up to 64 KiB.
    Held,
    /// It is held, up to a buffer, so that several leave together; beyond that as above.
    Gathered,
}

/// What is held beside a buffer at most: the messages of a handshake, up to a chain of certificates with what
/// follows it.
const HELD: usize = 64 << 10;

/// A queue of bytes, in the order they were put in; empty it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
    /// What came when the buffer was full, or was not wanted.
    more: VecDeque<u8>,
}

impl Outgoing {
    #[cfg(test)]
    pub(super) fn holds_memory(&self) -> bool {
        self.buffer.is_some() || self.more.capacity() > 0
    }

    /// Takes what a buffer has room for; how much that was.
    pub(super) fn gather(&mut self, bytes: &[u8]) -> usize {
        if !self.more.is_empty() {
            return 0;
        }
        if self.buffer.is_none() {
            (self.start, self.end) = (0, 0);
        }
        let buffer = self.buffer.get_or_insert_with(Buffer::take);
        let count = bytes.len().min(buffer.len() - self.end);
        buffer[self.end..][..count].copy_from_slice(&bytes[..count]);
        self.end += count;
        count
    }

    /// Takes what there is room for beside the buffer; how much that was.
    pub(super) fn hold(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(HELD.saturating_sub(self.more.len()));
        self.more.extend(&bytes[..count]);
        count
    }

    /// Hands to the kernel what it takes; `Ok`: everything.
    pub(super) fn send(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while let Some(buffer) = &self.buffer {
            self.start += tcp.try_write(&buffer[self.start..self.end]).map_err(torn_down)?;
            if self.start == self.end {
                self.buffer = None;
            }
        }
        while !self.more.is_empty() {
            let count = tcp.try_write(self.more.as_slices().0).map_err(torn_down)?;
            self.more.drain(..count);
            if self.more.is_empty() {
                self.more = VecDeque::new();
            }
        }
        Ok(())
    }
}
