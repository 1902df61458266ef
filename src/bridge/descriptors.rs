//! How many descriptors this process may have, and how a forwarder's limits fit into them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::settings::Limits;

/// Descriptors beyond those of clients and targets: sockets that listen, the log, files being read,
/// further addresses of a target that are tried beside a silent one.
const SPARE: u64 = 64;

/// Clients that wait for a place in a handshake, or for their turn by the rate.
const WAITING: u32 = 1024;

/// Clients that are being refused, each for a second at most.
const REFUSED: u32 = 256;

/// Raises the soft limit of descriptors to the hard one where it may; gives back the one then in force.
///
/// # Errors
/// The limit can't be read.
pub fn raise() -> std::io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        return Ok(soft);
    }
    Ok(hard)
}

/// The part of the descriptors that one forwarder may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The process' limit.
    limit: u64,
    /// What the forwarder may use of it.
    own: u64,
    /// What everything else would use if nothing were short.
    elsewhere: u64,
}

impl Room {
    /// As much as anyone can want.
    pub const ENDLESS: Self = Self { limit: u64::MAX, own: u64::MAX, elsewhere: 0 };

    /// Shares the descriptors among forwarders with these limits, to each after its need.
    pub fn shared(limit: u64, all: &[Limits]) -> Vec<Self> {
        let total: u64 = all.iter().map(needed).sum();
        let free = limit.saturating_sub(SPARE);
        let part = |need: u64| u64::try_from(u128::from(free) * u128::from(need) / u128::from(total.max(1)));
        let room = |limits| {
            let need = needed(limits);
            Self { limit, own: part(need).unwrap_or(u64::MAX), elsewhere: SPARE + total - need }
        };
        all.iter().map(room).collect()
    }

    /// How many places there are with these limits.
    pub(super) fn places(&self, limits: &Limits) -> Places {
        let own = u32::try_from(self.own).unwrap_or(u32::MAX);
        let (mut handshakes, mut waiting, mut refused) = (limits.handshakes, WAITING, REFUSED);
        let mut connections = limits.connections;
        let is_short = needed(limits) > self.own;
        if is_short {
            handshakes = handshakes.min(own / 4).max(1);
            waiting = waiting.min(own / 8).max(1);
            refused = refused.min(own / 16).max(1);
            let left = own.saturating_sub(handshakes + waiting + refused);
            connections = connections.min(left / 2).max(1);
        }
        let shortage = is_short.then(|| Shortage { limit: self.limit, needed: self.elsewhere + needed(limits) });
        let [connections, handshakes, waiting, refused] =
            [connections, handshakes, waiting, refused].map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        Places { connections, handshakes, waiting, refused, shortage }
    }
}

/// Two a connection, and one for whoever has none yet.
fn needed(limits: &Limits) -> u64 {
    u64::from(limits.connections) * 2 + u64::from(limits.handshakes) + u64::from(WAITING) + u64::from(REFUSED)
}

/// How many of each kind there can be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) connections: usize,
    pub(super) handshakes: usize,
    pub(super) waiting: usize,
    pub(super) refused: usize,
    /// Why they are fewer than the settings say.
    pub(super) shortage: Option<Shortage>,
}

/// A limit of descriptors that is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) limit: u64,
    pub(super) needed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Limits = Limits { connections: 4000, handshakes: 1000, accept_rate: None };

    fn alone(limit: u64, limits: Limits) -> Places {
        Room::shared(limit, &[limits])[0].places(&limits)
    }

    fn used(places: &Places) -> usize {
        places.connections * 2 + places.handshakes + places.waiting + places.refused
    }

    #[test]
    fn limits_hold_as_they_are_at_the_number_needed_and_not_with_one_less() {
        let needed = needed(&DEFAULTS) + SPARE;
        assert_eq!(needed, 10_344);
        let enough = alone(needed, DEFAULTS);
        assert_eq!((enough.connections, enough.handshakes, enough.shortage), (4000, 1000, None));
        let short = alone(needed - 1, DEFAULTS);
        assert_eq!(short.shortage, Some(Shortage { limit: needed - 1, needed }));
        assert!(short.connections < 4000, "{short:?}");
    }

    #[test]
    fn whatever_the_limit_what_can_be_used_fits_and_somebody_is_served() {
        for limit in (128..10_344).step_by(7) {
            let places = alone(limit, DEFAULTS);
            assert!(used(&places) <= usize::try_from(limit - SPARE).unwrap(), "{limit}: {places:?}");
            assert!(places.connections >= 1 && places.handshakes >= 1, "{limit}: {places:?}");
        }
        assert_eq!(alone(0, DEFAULTS).connections, 1);
    }

    #[test]
    fn several_forwarders_share_by_their_need() {
        let small = Limits { connections: 10, handshakes: 10, accept_rate: None };
        let rooms = Room::shared(5_000, &[DEFAULTS, small]);
        let places = [rooms[0].places(&DEFAULTS), rooms[1].places(&small)];
        assert!(places.iter().map(used).sum::<usize>() <= 5_000);
        let all = needed(&DEFAULTS) + needed(&small) + SPARE;
        assert!(places.iter().all(|places| places.shortage.is_some_and(|short| short.needed == all)), "{places:?}");
    }

    #[test]
    fn shipped_unit_allows_for_the_defaults() {
        let unit = include_str!("../../deploy/systemd/ewsbridge@.service");
        let limit = unit.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).expect("a limit");
        assert_eq!(alone(limit.parse().expect("a number"), DEFAULTS).shortage, None);
    }
}
