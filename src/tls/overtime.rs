//! The deadline of a handshake in mid-stream: only time spent waiting for the peer counts.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A clock that runs while a peer owes its part of a handshake.
pub(super) struct Overtime {
    limit: Duration,
    left: Option<Pin<Box<Sleep>>>,
    stopped: Option<Instant>,
}

impl Overtime {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, left: None, stopped: None }
    }

    /// How much there is of it.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// The peer is waited for: lets the clock run on, from 0 at first. `Ready` once the limit has
    /// passed, from then on at every call; before that the task is woken then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let left = self.left.get_or_insert_with(|| Box::pin(sleep(limit)));
        if let Some(since) = self.stopped.take() {
            let later = left.deadline() + since.elapsed();
            left.as_mut().reset(later);
        }
        left.as_mut().poll(cx)
    }

    /// Stops the clock until the next [`Overtime::poll`]: the peer has sent something, and is perhaps
    /// not read for as long as nobody takes that.
    pub(super) fn stop(&mut self) {
        if self.left.is_some() {
            self.stopped.get_or_insert_with(Instant::now);
        }
    }

    /// The handshake is over; the next one has its own time.
    pub(super) fn clear(&mut self) {
        (self.left, self.stopped) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    async fn is_over(overtime: &mut Overtime) -> bool {
        poll_fn(|cx| Poll::Ready(overtime.poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn it_ends_after_its_limit_and_stays_ended() {
        let began = Instant::now();
        let mut overtime = Overtime::new(LIMIT);
        poll_fn(|cx| overtime.poll(cx)).await;
        assert!(began.elapsed() >= LIMIT);
        assert!(is_over(&mut overtime).await);
    }

    #[tokio::test]
    async fn the_time_while_it_is_stopped_does_not_count() {
        let mut overtime = Overtime::new(LIMIT);
        assert!(!is_over(&mut overtime).await);
        overtime.stop();
        sleep(LIMIT * 2).await;
        overtime.stop();
        assert!(!is_over(&mut overtime).await);
        let began = Instant::now();
        poll_fn(|cx| overtime.poll(cx)).await;
        assert!(began.elapsed() > LIMIT / 2, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn each_handshake_has_its_own_time() {
        let mut overtime = Overtime::new(LIMIT);
        poll_fn(|cx| overtime.poll(cx)).await;
        overtime.clear();
        assert!(!is_over(&mut overtime).await);
    }
}
