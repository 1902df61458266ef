//! What a forwarder counts while it serves, for whoever asks: `status`, metrics, systemd.
//!
//! It lives as long as the forwarder does, over every reload. A connection comes here three times:
//! when both its handshakes are done, when it has ended, or when it failed before. One lock holds the
//! numbers together, so that a connection is either open or done in whatever is asked, and its bytes
//! are counted once.

mod counts;
mod histogram;
pub mod target;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::progress::Progress;
use super::snapshot::{Connection, Count, Rates, Sessions, Snapshot};
use counts::Counts;
pub use histogram::Histogram;
use target::Target;

/// What one forwarder counts.
#[derive(Debug)]
pub struct Tally {
    since: OffsetDateTime,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    open: BTreeMap<u64, Arc<Open>>,
    /// Bytes of connections that have ended.
    up: u64,
    down: u64,
    ends: Counts<Ended>,
    handshakes: Counts<(&'static str, Agreed)>,
    /// When each version was last spoken with the target.
    last_spoken: BTreeMap<&'static str, OffsetDateTime>,
    failures: Counts<Failed>,
    connect: Histogram,
    outbound: Histogram,
    inbound: Histogram,
    sessions: Histogram,
    targets: Vec<Arc<Target>>,
    loaded: OffsetDateTime,
    samples: VecDeque<Sample>,
}

/// The numbers of a moment, for rates.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    begun: u64,
    up: u64,
    down: u64,
}

/// What one handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// `1.0` to `1.3`.
    pub version: &'static str,
    /// The cipher suite.
    pub suite: String,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
}

/// A connection whose handshakes are both done.
#[derive(Debug)]
pub struct Open {
    /// The client.
    pub client: SocketAddr,
    /// The load balancer between, if there is one.
    pub via: Option<SocketAddr>,
    /// The target's address.
    pub target: Option<SocketAddr>,
    /// The subject of the client's certificate.
    pub client_certificate: Option<String>,
    /// Agreed on with the client.
    pub inbound: Agreed,
    /// Agreed on with the target.
    pub outbound: Agreed,
    /// When it was accepted.
    pub since: OffsetDateTime,
    /// How far it has come.
    pub progress: Progress,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    version: &'static str,
    by: &'static str,
    end: &'static str,
}

/// What kept a connection from coming about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// `client`, `target` or `bridge`.
    pub side: &'static str,
    /// The stage, as in the log.
    pub stage: &'static str,
    /// What kind of cause, of a fixed few.
    pub reason: &'static str,
}

/// An open connection's place in the tally; to be given back with how it ended.
#[derive(Debug)]
pub struct Place<'a> {
    tally: &'a Tally,
    id: u64,
    /// What others see of it.
    pub open: Arc<Open>,
    is_over: bool,
}

/// Rates are over the last minute.
const SAMPLES: usize = 13;
/// How often [`Tally::sample`] is to be called.
pub const SAMPLE: Duration = Duration::from_secs(5);

impl Tally {
    /// Nothing has come yet.
    pub fn new() -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            since: now,
            state: Mutex::new(State {
                next: 0,
                open: BTreeMap::new(),
                up: 0,
                down: 0,
                ends: Counts::default(),
                handshakes: Counts::default(),
                last_spoken: BTreeMap::new(),
                failures: Counts::default(),
                connect: Histogram::new(&histogram::HANDSHAKE),
                outbound: Histogram::new(&histogram::HANDSHAKE),
                inbound: Histogram::new(&histogram::HANDSHAKE),
                sessions: Histogram::new(&histogram::SESSION),
                targets: Vec::new(),
                loaded: now,
                samples: VecDeque::new(),
            }),
        }
    }

    /// These are the targets from now on; what was seen of others is forgotten.
    pub fn loaded(&self, targets: Vec<Arc<Target>>) {
        let mut state = self.state();
        state.targets = targets;
        state.loaded = OffsetDateTime::now_utc();
    }

    /// The way to a target and the handshake with it took so long.
    pub fn dialed(&self, tcp: Duration, tls: Duration) {
        let mut state = self.state();
        state.connect.add(tcp);
        state.outbound.add(tls);
    }

    /// Both handshakes of a connection are done, so long after it was accepted.
    pub fn opened(&self, open: Open, took: Duration) -> Place<'_> {
        let open = Arc::new(open);
        let mut state = self.state();
        for (side, agreed) in [("inbound", &open.inbound), ("outbound", &open.outbound)] {
            state.handshakes.add(|(known, other)| (*known, other) == (side, agreed), || (side, agreed.clone()));
        }
        state.inbound.add(took);
        state.last_spoken.insert(open.outbound.version, OffsetDateTime::now_utc());
        let id = state.next;
        state.next += 1;
        state.open.insert(id, Arc::clone(&open));
        drop(state);
        Place { tally: self, id, open, is_over: false }
    }

    /// Something kept a connection from coming about.
    pub fn failed(&self, failed: Failed) {
        self.state().failures.add(|known| *known == failed, || failed);
    }

    /// Takes the numbers of this moment for the rates; to be called every [`SAMPLE`].
    pub fn sample(&self) {
        self.sample_at(Instant::now());
    }

    fn sample_at(&self, now: Instant) {
        let mut state = self.state();
        let sample = state.at(now);
        state.samples.push_back(sample);
        if state.samples.len() > SAMPLES {
            state.samples.pop_front();
        }
    }

    /// Fills in all that is counted here.
    pub fn fill(&self, snapshot: &mut Snapshot, with_connections: bool) {
        self.fill_at(Instant::now(), snapshot, with_connections);
    }

    fn fill_at(&self, now: Instant, snapshot: &mut Snapshot, with_connections: bool) {
        let state = self.state();
        snapshot.since = self.since;
        snapshot.loaded = state.loaded;
        snapshot.targets = state.targets.iter().map(|target| target.standing()).collect();
        snapshot.certificates.extend(state.targets.iter().filter_map(|target| target.certificate()));
        let total = state.at(now);
        let open = |version: &str| state.open.values().filter(|open| open.outbound.version == version).count() as u64;
        snapshot.sessions = Sessions {
            open: state.open.len() as u64,
            open_by_version: ["1.0", "1.1", "1.2"].map(|version| (version.to_owned(), open(version))).into(),
            done: state.ends.total(),
            up_bytes: total.up,
            down_bytes: total.down,
        };
        let count = |labels: &[(&str, &str)], count| Count {
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            count,
        };
        let ends = state.ends.iter();
        snapshot.ends = ends
            .map(|(ended, n)| count(&[("tls_out", ended.version), ("ended_by", ended.by), ("end", ended.end)], n))
            .collect();
        let handshakes = state.handshakes.iter();
        snapshot.handshakes = handshakes
            .map(|((side, agreed), n)| {
                let resumed = if agreed.resumed { "true" } else { "false" };
                let labels =
                    [("side", *side), ("version", agreed.version), ("suite", &agreed.suite), ("resumed", resumed)];
                count(&labels, n)
            })
            .collect();
        let failures = state.failures.iter();
        snapshot.failures = failures
            .map(|(failed, n)| count(&[("side", failed.side), ("stage", failed.stage), ("reason", failed.reason)], n))
            .collect();
        snapshot.last_spoken = state.last_spoken.iter().map(|(version, at)| ((*version).to_owned(), *at)).collect();
        snapshot.durations = [
            ("connect", &state.connect),
            ("outbound", &state.outbound),
            ("inbound", &state.inbound),
            ("session", &state.sessions),
        ]
        .map(|(name, histogram)| (name.to_owned(), histogram.clone()))
        .into();
        snapshot.rates = state.rates(total);
        if with_connections {
            snapshot.connections = Some(state.open.values().map(|open| open.seen(now)).collect());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The totals, open connections included.
    fn at(&self, now: Instant) -> Sample {
        let bytes = self.open.values().map(|open| open.progress.bytes());
        let (up, down) = bytes.fold((self.up, self.down), |all, one| (all.0 + one.0, all.1 + one.1));
        Sample { at: now, begun: self.next, up, down }
    }

    /// From the oldest sample to now, a minute at most; none before there is one.
    fn rates(&self, now: Sample) -> Option<Rates> {
        let then = self.samples.front()?;
        let seconds = now.at.saturating_duration_since(then.at).as_secs_f64();
        if seconds < 1.0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss)]
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Some(Rates {
            over_seconds: seconds,
            sessions_per_second: rate(now.begun, then.begun),
            up_bytes_per_second: rate(now.up, then.up),
            down_bytes_per_second: rate(now.down, then.down),
        })
    }
}

impl Open {
    fn seen(&self, now: Instant) -> Connection {
        let (up_bytes, down_bytes) = self.progress.bytes();
        Connection {
            client: self.client.to_string(),
            via: self.via.map(|via| via.to_string()),
            target: self.target.map(|target| target.to_string()),
            client_cert: self.client_certificate.clone(),
            since: self.since,
            tls_in: self.inbound.version.to_owned(),
            suite_in: self.inbound.suite.clone(),
            tls_out: self.outbound.version.to_owned(),
            suite_out: self.outbound.suite.clone(),
            resumed: self.outbound.resumed,
            up_bytes,
            down_bytes,
            open_seconds: self.progress.age(now).as_secs_f64(),
            idle_seconds: self.progress.idle(now).as_secs_f64(),
        }
    }
}

impl Place<'_> {
    /// It has ended so, with so many bytes in all, so long after it was accepted.
    pub fn ended(mut self, (up, down): (u64, u64), by: &'static str, end: &'static str, took: Duration) {
        let mut state = self.tally.state();
        state.open.remove(&self.id);
        state.up += up;
        state.down += down;
        let ended = Ended { version: self.open.outbound.version, by, end };
        state.ends.add(|known| *known == ended, || ended);
        state.sessions.add(took);
        self.is_over = true;
    }
}

impl Drop for Place<'_> {
    /// Cut by the end of the process: nobody will ask any more, but nothing is to be open for ever.
    fn drop(&mut self) {
        if !self.is_over {
            let (up, down) = self.open.progress.bytes();
            let mut state = self.tally.state();
            state.open.remove(&self.id);
            (state.up, state.down) = (state.up + up, state.down + down);
        }
    }
}

#[cfg(test)]
mod tests;
