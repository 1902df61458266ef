//! The threads that serve, each with a runtime of its own, and who of them serves a new client.
//!
//! A connection stays with its thread. The first thread accepts, and serves whom it accepts as long as it
//! has time to: the same work costs a fifth less CPU on one thread than on two (docs/performance.md), for
//! one that is at work need not be woken. Others get a new client once the first is at work for most
//! of the time, or has so many connections that they could bury it if all woke up at once.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Handle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// More threads than this are of no use: each one ends some thousand handshakes a second, or carries a
/// gigabyte.
const MOST: usize = 8;

/// The part of the time, in percent, that the first thread may be at work before others get new clients.
const BUSY: u128 = 75;

/// Over so much time at least that part is taken.
const SAMPLE: Duration = Duration::from_millis(50);

/// So many connections the first thread serves in any case, beyond them no more than its share.
const FEW: usize = 256;

/// Threads that serve.
#[derive(Clone, Debug)]
pub struct Threads {
    first: Handle,
    others: Vec<Handle>,
}

/// Threads that were started, to be ended again.
#[derive(Debug)]
pub struct Started {
    /// The threads.
    pub threads: Threads,
    stop: CancellationToken,
    /// Without a sender once they have ended.
    ended: Receiver<Infallible>,
}

impl Started {
    /// Drops what still runs on them, and waits for them to end, at most so long.
    pub fn end(self, limit: Duration) {
        self.stop.cancel();
        let _ = self.ended.recv_timeout(limit);
    }
}

impl Threads {
    /// Starts one for each core that this process may use, eight at most. Not from within a runtime.
    ///
    /// # Errors
    /// The system's, for a thread or the descriptors of its runtime.
    pub fn start() -> io::Result<Started> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST);
        let (stop, (alive, ended)) = (CancellationToken::new(), channel());
        let start = |index| start(index, stop.clone(), alive.clone());
        let first = start(0)?;
        let others = (1..count).map(start).collect::<io::Result<_>>()?;
        Ok(Started { threads: Self { first, others }, stop, ended })
    }

    /// The caller's own runtime alone.
    ///
    /// # Panics
    /// Outside of one.
    pub fn here() -> Self {
        Self { first: Handle::current(), others: Vec::new() }
    }

    /// All of them, the first one first.
    pub fn all(&self) -> Vec<Handle> {
        std::iter::once(&self.first).chain(&self.others).cloned().collect()
    }

    /// The thread that accepts.
    pub(super) fn first(&self) -> &Handle {
        &self.first
    }

    /// Who serves a client that the first thread has accepted; none: the first thread itself, which asks.
    pub(super) fn other(&self, load: &mut Load) -> Option<&Handle> {
        if self.others.is_empty() {
            return None;
        }
        let is_busy = load.is_busy();
        let own = connections(&self.first);
        if own < FEW && !is_busy {
            return None;
        }
        let others: Vec<_> = self.others.iter().map(connections).collect();
        choose(is_busy, own, &others).map(|index| &self.others[index])
    }
}

/// The connections of a thread, and a few tasks more.
fn connections(thread: &Handle) -> usize {
    thread.metrics().num_alive_tasks()
}

/// The other thread, by its index, that gets a new client: the one with the fewest connections.
fn choose(is_busy: bool, own: usize, others: &[usize]) -> Option<usize> {
    let (index, least) = others.iter().copied().enumerate().min_by_key(|(_, count)| *count)?;
    (is_busy || (own >= FEW && own > least)).then_some(index)
}

fn start(index: usize, stop: CancellationToken, alive: Sender<Infallible>) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let thread = std::thread::Builder::new().name(format!("serve-{index}"));
    thread.spawn(move || {
        runtime.block_on(stop.cancelled());
        // A look-up that hangs must not hold the end.
        runtime.shutdown_background();
        drop(alive);
    })?;
    Ok(handle)
}

/// How much of its time the calling thread has been at work since this was last taken: by the client before,
/// or the one before that if it came within a [`SAMPLE`]. The first client after a long pause is judged by all of it.
#[derive(Debug)]
pub(super) struct Load {
    since: Instant,
    worked: Duration,
    is_busy: bool,
}

impl Load {
    /// From now on, of this thread.
    pub(super) fn of_this_thread() -> Self {
        Self { since: Instant::now(), worked: worked(), is_busy: false }
    }

    fn is_busy(&mut self) -> bool {
        let now = Instant::now();
        let time = now.saturating_duration_since(self.since);
        if time >= SAMPLE {
            let worked = worked();
            self.is_busy = is_most(worked.saturating_sub(self.worked), time);
            (self.since, self.worked) = (now, worked);
        }
        self.is_busy
    }
}

fn is_most(worked: Duration, time: Duration) -> bool {
    worked.as_nanos() * 100 >= time.as_nanos() * BUSY
}

/// CPU time of the calling thread.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_serves_alone_while_it_has_time_and_few_connections() {
        assert_eq!(choose(false, FEW - 1, &[0, 0]), None);
        assert_eq!(choose(true, 1, &[3, 2]), Some(1), "it has no time");
        assert_eq!(choose(false, FEW, &[FEW + 1, FEW - 1]), Some(1), "it has too many");
        assert_eq!(choose(false, FEW, &[FEW, FEW]), None, "the others have no fewer");
        assert_eq!(choose(true, 1, &[]), None, "there are no others");
    }

    #[test]
    fn a_thread_that_works_three_quarters_of_its_time_is_busy() {
        let time = Duration::from_millis(100);
        assert!(is_most(time * 3 / 4, time));
        assert!(!is_most(time * 74 / 100, time));
        let mut load = Load::of_this_thread();
        std::thread::sleep(2 * SAMPLE);
        assert!(!load.is_busy(), "it slept");
    }
}
