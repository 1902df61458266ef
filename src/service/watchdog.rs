//! The watchdog: systemd hears that the process lives only while it is proved to.
//!
//! Before each beat every thread that serves must do a piece of work in time, and that work is an
//! inbound handshake in memory. The target has no part in it: Exchange being down is no reason to
//! restart. A proof that fails is told in the log, so that the reason stands there before systemd
//! acts; as long as it fails there is no beat, and systemd ends the process after `WatchdogSec=`.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::notify;

/// What systemd wants to hear, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// Without a beat for so long the process is ended.
    patience: Duration,
}

/// A thread or a forwarder that could not be proved to serve.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// It does not get to its work.
    #[error("thread serve-{0} has not come to its work within {1:?}")]
    Silent(usize, Duration),
    /// The handshake in memory.
    #[error("forwarder {0}: an inbound handshake in memory: {1}")]
    Handshake(String, String),
}

impl Watchdog {
    /// What the unit asks of this very process; `None`: nothing, or no systemd.
    pub fn of_this_process() -> Option<Self> {
        let patience = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())?;
        Some(Self { patience })
    }

    /// Beats three times within the patience, as long as the proof holds; it has a third of it, too.
    pub async fn keep<Proof: Future<Output = Result<(), Failed>>>(self, prove: impl Fn(Duration) -> Proof) {
        let mut beats = interval((self.patience / 3).max(Duration::from_millis(1)));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            beats.tick().await;
            match prove(self.patience / 3).await {
                Ok(()) => {
                    if is_failing {
                        tracing::warn!(name: "watchdog_ok", "watchdog: all threads serve again");
                    }
                    is_failing = false;
                    notify::alive();
                }
                // Once: until it ends there is nothing new to tell.
                Err(failed) if !is_failing => {
                    is_failing = true;
                    tracing::error!(
                        name: "watchdog_failed",
                        hint =
                            "if it happens again, report it with the log; an overloaded machine also looks like this",
                        "watchdog: {failed}; systemd restarts the service unless that ends"
                    );
                }
                Err(_) => {}
            }
        }
    }
}

/// Has each thread do its piece of work, all at once.
///
/// # Errors
/// [`Failed`] for the first thread that does not come to it within `limit`, or whose work fails.
///
/// # Cancel safety
/// Dropping the future leaves the work to end by itself.
pub async fn each<Work>(threads: &[Handle], limit: Duration, work: impl Fn(usize) -> Work) -> Result<(), Failed>
where
    Work: FnOnce() -> Result<(), Failed> + Send + 'static,
{
    let under_way: Vec<_> = threads
        .iter()
        .enumerate()
        .map(|(index, thread)| {
            let work = work(index);
            thread.spawn(async move { work() })
        })
        .collect();
    for (index, task) in under_way.into_iter().enumerate() {
        match timeout(limit, task).await {
            Ok(Ok(done)) => done?,
            // A runtime that has ended runs nothing, either.
            Ok(Err(_)) | Err(_) => return Err(Failed::Silent(index, limit)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::Threads;

    const SHORT: Duration = Duration::from_millis(200);
    const NOTHING: fn() -> Result<(), Failed> = || Ok(());

    #[test]
    fn a_thread_that_does_not_come_to_its_work_is_named() {
        let started = Threads::start().unwrap();
        let threads = started.threads.all();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(each(&threads, SHORT * 20, |_| NOTHING)).unwrap();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let last = threads.len() - 1;
        threads[last].spawn(async move {
            begun.send(()).unwrap();
            let _ = held.recv();
        });
        has_begun.recv().unwrap();
        let failed = runtime.block_on(each(&threads, SHORT, |_| NOTHING)).unwrap_err();
        assert_eq!(failed, Failed::Silent(last, SHORT));
        release.send(()).unwrap();
        runtime.block_on(each(&threads, SHORT * 20, |_| NOTHING)).unwrap();
        started.end(Duration::from_secs(5));
    }

    #[test]
    fn work_that_fails_is_told_in_its_words() {
        let started = Threads::start().unwrap();
        let threads = started.threads.all();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let broken = || Failed::Handshake("exch1".to_owned(), "no key".to_owned());
        let failed = runtime.block_on(each(&threads, SHORT * 20, |_| move || Err(broken())));
        assert_eq!(failed, Err(broken()));
        started.end(Duration::from_secs(5));
    }
}
