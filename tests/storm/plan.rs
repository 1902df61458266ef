//! What a connection does, given by the run's seed and its number alone.

use std::time::Duration;

use super::pattern::scramble;

/// How a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A request, then its answer, then close_notify from both.
    Exchange,
    /// Both directions at once.
    Duplex,
    /// The client ends its direction with close_notify; the answer begins later.
    HalfClose,
    /// The same, with a FIN after the close_notify.
    HalfCloseFin,
    /// The client reads in small pieces with pauses.
    SlowClient,
    /// So does the target.
    SlowTarget,
    /// Nothing is said for seconds before the request and before the answer.
    Quiet,
    /// The client resets in mid-request.
    ClientReset,
    /// The client goes in mid-request with no word but a FIN.
    ClientGone,
    /// The target resets in mid-answer.
    TargetReset,
    /// The target ends with a FIN and no close_notify, as IIS does.
    TargetFin,
    /// Part of a ClientHello, then nothing more: closed or reset.
    Abandoned,
    /// No TLS at all.
    Garbage,
    /// A word and its answer, again and again, for as long as the client likes.
    Stay,
}

/// Connections from this number on are of the kind [`Kind::Stay`], which no other is.
pub const STAYING: u32 = 0xffff_0000;

/// The length of their words, in bytes.
pub const WORD: usize = 64;

/// In the proportion in which they come.
const KINDS: [Kind; 20] = [
    Kind::Exchange,
    Kind::Exchange,
    Kind::Exchange,
    Kind::Exchange,
    Kind::Exchange,
    Kind::Duplex,
    Kind::Duplex,
    Kind::Duplex,
    Kind::HalfClose,
    Kind::HalfClose,
    Kind::HalfCloseFin,
    Kind::SlowClient,
    Kind::SlowTarget,
    Kind::Quiet,
    Kind::ClientReset,
    Kind::ClientGone,
    Kind::TargetReset,
    Kind::TargetFin,
    Kind::Abandoned,
    Kind::Garbage,
];

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub kind: Kind,
    /// The client speaks TLS 1.3, or 1.2.
    pub tls13: bool,
    pub up: Flow,
    pub down: Flow,
    /// Before the answer, and in other places where someone takes his time.
    pub pause: Duration,
    /// A number for whatever else is to vary.
    pub spice: u64,
}

/// One direction: how much, and in which pieces it is written.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub length: u64,
    pub piece: usize,
    /// After every so many pieces there is a short pause; 0: never.
    pub rest: u64,
}

/// The next number of a stream of numbers.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    scramble(*state)
}

/// From 1 to 2^`bits`, each magnitude as often as any other.
fn size(state: &mut u64, bits: u64) -> u64 {
    let magnitude = next(state) % bits;
    (1 << magnitude) + next(state) % (1 << magnitude)
}

impl Plan {
    pub fn of(seed: u64, id: u32) -> Self {
        let mut state = scramble(seed ^ 0x706c_616e) ^ u64::from(id);
        let kind = match usize::try_from(next(&mut state) % 20) {
            Ok(index) if id < STAYING => KINDS[index],
            _ => Kind::Stay,
        };
        let mut flow = || {
            // Up to 1 MiB in pieces of up to 1 MiB, but never more than 2,000 pieces.
            let piece = size(&mut state, 20);
            let length = (8 + size(&mut state, 20)).min(piece * 2000);
            Flow { length, piece: usize::try_from(piece).expect("small"), rest: next(&mut state) % 200 }
        };
        let (mut up, mut down) = (flow(), flow());
        match kind {
            Kind::SlowClient => down.length = 50_000 + down.length % 400_000,
            Kind::SlowTarget => up.length = 50_000 + up.length % 400_000,
            // Long enough to have a middle.
            Kind::ClientReset | Kind::ClientGone => up.length += 64,
            Kind::TargetReset => down.length += 64,
            _ => {}
        }
        for flow in [&mut up, &mut down] {
            // As well after a length was changed; and rests of a second in all.
            flow.piece = flow.piece.max(usize::try_from(flow.length / 2000).expect("small"));
            let pieces = flow.length / flow.piece as u64;
            flow.rest = if flow.rest == 0 { 0 } else { flow.rest.max(pieces / 200 + 1) };
        }
        let pause = match kind {
            Kind::Quiet => Duration::from_millis(1000 + next(&mut state) % 4000),
            Kind::HalfClose | Kind::HalfCloseFin => Duration::from_millis(next(&mut state) % 1500),
            _ => Duration::from_millis(next(&mut state) % 30),
        };
        let tls13 = !next(&mut state).is_multiple_of(3);
        Self { kind, tls13, up, down, pause, spice: next(&mut state) }
    }

    /// How much of its direction a peer sends that breaks off.
    pub fn part(flow: Flow) -> u64 {
        8 + (flow.length - 8) / 2
    }

    /// Whether the answer waits for the request's end rather than for its last byte.
    pub fn waits_for_end(&self) -> bool {
        matches!(self.kind, Kind::HalfClose | Kind::HalfCloseFin)
    }
}
