//! Buffers that are held only while bytes move.
//!
//! A connection at rest holds none. What one gives back the next one on the same thread takes, so that a
//! busy thread neither asks the allocator nor clears memory for each turn.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Bytes of a stream that are moved at once: four full TLS records, as much as rustls takes and as OpenSSL
/// encrypts together where it can.
pub const STREAM: usize = 64 << 10;

/// Bytes in one buffer: as much of a stream, or the same as TLS sends it.
pub const SIZE: usize = STREAM + (4 << 10);

/// Free buffers that a thread keeps. One turn of a connection uses three at once; more lie with
/// connections whose peers are slow.
const KEPT: usize = 8;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// [`SIZE`] bytes, which the thread that drops them keeps for the next. They may hold what an earlier
/// connection left: whoever fills them keeps count.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// Takes a free one, or makes one.
    pub fn take() -> Self {
        let free = FREE.with_borrow_mut(Vec::pop);
        Self(free.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // A thread that ends keeps nothing.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_was_given_back_is_taken_again() {
        let first = Buffer::take();
        let at = first.as_ptr();
        drop(first);
        assert_eq!(Buffer::take().as_ptr(), at);
    }

    #[test]
    fn a_thread_keeps_no_more_than_a_few() {
        let many: Vec<Buffer> = (0..3 * KEPT).map(|_| Buffer::take()).collect();
        drop(many);
        assert_eq!(FREE.with_borrow(Vec::len), KEPT);
    }
}
