//! How far an open connection has come, for others to see while it goes on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Written by the task that moves the bytes, read by whoever asks. Each number is right by itself;
/// two of them may be a moment apart.
#[derive(Debug)]
pub struct Progress {
    began: Instant,
    up: AtomicU64,
    down: AtomicU64,
    /// Milliseconds from `began` to the last byte.
    last: AtomicU64,
}

impl Progress {
    /// Of a connection that begins now.
    pub fn new() -> Self {
        Self { began: Instant::now(), up: AtomicU64::new(0), down: AtomicU64::new(0), last: AtomicU64::new(0) }
    }

    /// Bytes have moved: so many in all since it began, the last of them at `now`.
    pub fn note(&self, up: u64, down: u64, now: Instant) {
        self.up.store(up, Relaxed);
        self.down.store(down, Relaxed);
        let last = now.saturating_duration_since(self.began).as_millis();
        self.last.store(u64::try_from(last).unwrap_or(u64::MAX), Relaxed);
    }

    /// Bytes up and down so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.up.load(Relaxed), self.down.load(Relaxed))
    }

    /// How long no byte has moved.
    pub fn idle(&self, now: Instant) -> Duration {
        let open = now.saturating_duration_since(self.began);
        open.saturating_sub(Duration::from_millis(self.last.load(Relaxed)))
    }

    /// How long it has been open.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_byte() {
        let progress = Progress::new();
        let after = |seconds| progress.began + Duration::from_secs(seconds);
        assert_eq!(progress.idle(after(5)), Duration::from_secs(5), "no byte yet");
        progress.note(3, 70_000, after(5));
        assert_eq!(progress.idle(after(7)), Duration::from_secs(2));
        assert_eq!(progress.age(after(7)), Duration::from_secs(7));
        assert_eq!(progress.bytes(), (3, 70_000));
    }
}
