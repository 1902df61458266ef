//! The rows: what is done, in which unit it is told, and what is wanted.

use std::time::Duration;

use crate::load::{FULL_RECORD, SMALL_RECORD, TargetKind};

/// A piece of work that every peer does in each round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    /// What the target speaks.
    pub(crate) target: TargetKind,
    /// Bytes in a record of either end.
    pub(crate) record: usize,
    /// Whether clients resume their sessions.
    pub(crate) resumes: bool,
    /// The figures that the work gives.
    pub(crate) lines: &'static [Line],
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) wanted: Wanted,
}

/// What is wanted of a figure of ours; less is better in every line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// At most so many times that of the best peer, or [`FLOOR`] times the floor.
    Ratio(f64),
    /// At most so much, whatever the peers need.
    AtMost(f64),
}

/// A ratio to the floor that meets every row.
pub(crate) const FLOOR: f64 = 1.10;

/// What is done in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Connections, four at a time, one small request each.
    Connections,
    /// One connection that carries so much one way.
    Bulk(Way),
    /// Small requests over 64 connections, each as soon as the last is answered.
    KeepAlive,
    /// The same, so many a second in all.
    Paced,
    /// Connections that have had one answer and stay.
    Idle,
    /// A client that takes a large answer in bits, with pauses.
    SlowReader,
    /// From `connect` to the first byte of the answer, with this much delay to the target and back.
    FirstByte { delay: Option<Duration> },
}

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Up,
    Down,
}

/// Bytes of a small request, its head included, and of its answer.
pub(crate) const REQUEST: u64 = 600;
pub(crate) const ANSWER: u64 = 4 << 10;
/// Connections of the keep-alive rows.
pub(crate) const KEPT: u64 = 64;
/// Requests a second of the paced row, all connections together.
pub(crate) const PACE: u64 = 1000;
/// To the target and back.
pub(crate) const DELAY: Duration = Duration::from_millis(10);

/// How much of each is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) connections: u64,
    pub(crate) bulk: u64,
    /// Requests of each connection.
    pub(crate) kept: u64,
    pub(crate) paced: u64,
    pub(crate) idle: u64,
    /// How long they are idle before their memory is read.
    pub(crate) settling: Duration,
    pub(crate) slow: u64,
    /// How often the slow reader stops.
    pub(crate) pauses: u64,
    pub(crate) first_bytes: u64,
    /// socat needs so many times less work for a steady figure, and would need very long.
    pub(crate) socat_divisor: u64,
}

impl Sizes {
    /// Those of the published table.
    pub(crate) const FULL: Self = Self {
        connections: 1000,
        bulk: 256 << 20,
        kept: 400,
        paced: 48,
        idle: 2000,
        settling: Duration::from_secs(2),
        slow: 1 << 30,
        pauses: 8,
        first_bytes: 400,
        socat_divisor: 8,
    };

    /// Enough to see that everything works.
    pub(crate) const QUICK: Self = Self {
        connections: 16,
        bulk: 4 << 20,
        kept: 4,
        paced: 3,
        idle: 16,
        settling: Duration::from_millis(200),
        slow: 24 << 20,
        pauses: 2,
        first_bytes: 4,
        socat_divisor: 4,
    };
}

const fn bulk(name: &'static str, way: Way, target: TargetKind, record: usize, lines: &'static [Line]) -> Row {
    Row { name, work: Work::Bulk(way), target, record, resumes: false, lines }
}

const fn small(name: &'static str, work: Work, lines: &'static [Line]) -> Row {
    Row { name, work, target: TargetKind::Tls12, record: FULL_RECORD, resumes: false, lines }
}

const fn line(what: &'static str, unit: &'static str, ratio: f64) -> Line {
    Line { what, unit, wanted: Wanted::Ratio(ratio) }
}

const CONNECTION: &str = "ms CPU per connection";
const GIB: &str = "s CPU per GiB";
const PER_REQUEST: &str = "µs CPU per request";

/// All rows, in the table's order.
pub(crate) const ROWS: [Row; 14] = [
    small("new", Work::Connections, &[line("new connection, 600 B request, 4 KiB answer", CONNECTION, 0.55)]),
    Row {
        resumes: true,
        ..small("resume", Work::Connections, &[line("the same, the client resumes its session", CONNECTION, 0.55)])
    },
    bulk("down", Way::Down, TargetKind::Tls12, FULL_RECORD, &[line("bulk down, AES-128-GCM on both legs", GIB, 0.85)]),
    bulk("up", Way::Up, TargetKind::Tls12, FULL_RECORD, &[line("bulk up, AES-128-GCM on both legs", GIB, 0.85)]),
    bulk("down2k", Way::Down, TargetKind::Tls12, SMALL_RECORD, &[line("bulk down in 2 KiB records", GIB, 0.85)]),
    bulk("up2k", Way::Up, TargetKind::Tls12, SMALL_RECORD, &[line("bulk up in 2 KiB records", GIB, 0.85)]),
    bulk(
        "old-down",
        Way::Down,
        TargetKind::Tls11,
        FULL_RECORD,
        &[line("bulk down, TLS 1.1 AES128-SHA to the target", GIB, 1.0)],
    ),
    bulk(
        "old-up",
        Way::Up,
        TargetKind::Tls11,
        FULL_RECORD,
        &[line("bulk up, TLS 1.1 AES128-SHA to the target", GIB, 0.8)],
    ),
    small("keep-alive", Work::KeepAlive, &[line("keep-alive request and answer, 64 connections", PER_REQUEST, 0.75)]),
    small("paced", Work::Paced, &[line("the same at 1,000 requests a second in all", PER_REQUEST, 0.9)]),
    small(
        "idle",
        Work::Idle,
        &[Line { what: "2,000 idle connections", unit: "KiB each", wanted: Wanted::AtMost(24.0) }],
    ),
    small(
        "slow-reader",
        Work::SlowReader,
        // Pages of an allocator come and go; a buffer that grew with the answer would be far above.
        &[Line { what: "slow reader of 1 GiB, growth while it reads", unit: "KiB", wanted: Wanted::AtMost(64.0) }],
    ),
    small(
        "first-byte",
        Work::FirstByte { delay: None },
        &[line("first byte after connect, p50", "ms", 0.7), line("first byte after connect, p99", "ms", 0.7)],
    ),
    small(
        "first-byte-10ms",
        Work::FirstByte { delay: Some(DELAY) },
        &[
            line("first byte with 10 ms to the target and back, p50", "ms", 0.7),
            line("first byte with 10 ms to the target and back, p99", "ms", 0.7),
        ],
    ),
];
