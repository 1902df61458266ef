//! The relay between two legs in memory: what it costs beyond TLS and the kernel.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use divan::Bencher;
use divan::counter::BytesCount;
use ewsbridge::bridge::relay::{self, Patience, Terms};
use ewsbridge::leg::{Ending, Fill, Leg};
use ewsbridge::observe::progress::Progress;

use crate::peers::runtime;

const TERMS: Terms = Terms {
    patience: Patience { open: None, half_closed: Duration::from_secs(10), linger: Duration::from_secs(1) },
    target_fin: Ending::Fin,
    hold: None,
};

/// What one run of a direction moves.
const BULK: usize = 16 << 20;

#[divan::bench(args = [2 << 10, 16 << 10])]
fn down_by_record_size(bencher: Bencher<'_, '_>, record: usize) {
    let runtime = runtime();
    bencher.counter(BytesCount::new(BULK)).bench_local(|| {
        let (mut client, mut target) = (Scripted::saying(0, record), Scripted::saying(BULK, record));
        client.waits = true;
        let outcome = runtime.block_on(relay::run(&mut client, &mut target, TERMS, &Progress::new()));
        assert_eq!((outcome.down, client.taken, client.ended), (BULK as u64, BULK, Some(Ending::CloseNotify)));
    });
}

#[divan::bench]
fn whole_connection_of_600_bytes_up_and_4_kib_down(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    bencher.bench_local(|| {
        let (mut client, mut target) = (Scripted::saying(600, 600), Scripted::saying(4096, 4096));
        target.waits = true;
        let outcome = runtime.block_on(relay::run(&mut client, &mut target, TERMS, &Progress::new()));
        assert_eq!((outcome.up, target.taken, outcome.down, client.taken), (600, 600, 4096, 4096));
    });
}

/// Says so many bytes record by record, then ends; takes all that it is given.
struct Scripted {
    left: usize,
    record: usize,
    /// Whether it says nothing before it was told the end.
    waits: bool,
    waiting: Option<Waker>,
    taken: usize,
    ended: Option<Ending>,
}

impl Scripted {
    fn saying(left: usize, record: usize) -> Self {
        Self { left, record, waits: false, waiting: None, taken: 0, ended: None }
    }
}

static BYTES: [u8; 16 << 10] = [0x5a; 16 << 10];

impl Leg for Scripted {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Fill>> {
        if self.waits && self.ended.is_none() {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = self.left.min(self.record).min(buffer.len());
        if count == 0 {
            return Poll::Ready(Ok(Fill::Ended(Ending::CloseNotify)));
        }
        buffer[..count].copy_from_slice(&BYTES[..count]);
        self.left -= count;
        Poll::Ready(Ok(Fill::Bytes(count)))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        assert!(divan::black_box(bytes).last() == Some(&0x5a), "only what was said");
        self.taken += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, _: &mut Context<'_>, how: Ending) -> Poll<io::Result<()>> {
        self.ended = Some(how);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn is_gone(&self) -> bool {
        false
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn poll_linger(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Writes all of it, and hands it to the kernel.
pub(crate) async fn give(leg: &mut impl Leg, bytes: &[u8]) {
    let mut given = 0;
    while given < bytes.len() {
        given += poll_fn(|cx| leg.poll_write(cx, &bytes[given..])).await.expect("write");
    }
    poll_fn(|cx| leg.poll_flush(cx)).await.expect("flush");
}

/// Reads exactly so much.
pub(crate) async fn take(leg: &mut impl Leg, buffer: &mut [u8]) {
    let mut taken = 0;
    while taken < buffer.len() {
        match poll_fn(|cx| leg.poll_fill(cx, &mut buffer[taken..])).await.expect("read") {
            Fill::Bytes(count) => taken += count,
            Fill::Ended(how) => panic!("{how:?} after {taken} bytes"),
        }
    }
}
