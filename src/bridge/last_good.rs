//! The last addresses of each name, for when no name server answers, and for clients that come faster
//! than names change.
//!
//! A name is looked up 20 times a second at most, each time for one client; who comes beyond that gets the
//! last answer, if it is less than a second old.
//!
//! Without an answer addresses are used for up to a day after they were looked up, the least that RFC 8767
//! §5 suggests: a server that moves is missed for no longer, and a name server is repaired within. A name
//! that is said not to exist has no last addresses either.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::values::duration_text;
use crate::tls::explain::Explained;

/// For how long addresses are used without a name server's word.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// For how long an answer may be shared, and so the time of which all look-ups may be taken at once.
const FRESH: Duration = Duration::from_secs(1);
/// Look-ups of a name come at this distance where there are many clients.
const DISTANCE: Duration = Duration::from_millis(50);
/// How often the log hears that no name server answers.
const TOLD_AGAIN: Duration = Duration::from_secs(600);

/// What names were last known to mean.
#[derive(Default)]
pub(super) struct LastGood(Mutex<HashMap<String, Known>>);

struct Known {
    addresses: Arc<[IpAddr]>,
    since: Instant,
    /// When the next look-up would be if all of them kept their distance.
    due: Instant,
    /// When the log heard last that they are used without a fresh answer.
    told: Option<Instant>,
    /// Whether it has not heard since that there is one.
    is_told: bool,
}

impl LastGood {
    /// The addresses of a name, unless they are too old.
    pub(super) fn get(&self, name: &str, now: Instant) -> Option<Arc<[IpAddr]>> {
        let known = self.known();
        let known = known.get(name).filter(|known| known.is_fresh(now))?;
        Some(Arc::clone(&known.addresses))
    }

    /// The same for a client that needs no look-up of its own: there have been enough of late, and an answer.
    pub(super) fn shared(&self, name: &str, now: Instant) -> Option<Arc<[IpAddr]>> {
        let mut known = self.known();
        let known = known.get_mut(name).filter(|known| now.saturating_duration_since(known.since) < FRESH)?;
        let due = known.due.max(now) + DISTANCE;
        if due > now + FRESH {
            return Some(Arc::clone(&known.addresses));
        }
        known.due = due;
        None
    }

    /// The same in place of an answer that did not come; the log hears of it now and then.
    pub(super) fn instead(&self, name: &str, why: &Explained, now: Instant) -> Option<Arc<[IpAddr]>> {
        let mut known = self.known();
        let known = known.get_mut(name).filter(|known| known.is_fresh(now))?;
        if known.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_AGAIN) {
            (known.told, known.is_told) = (Some(now), true);
            let addresses = known.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
            let age = Duration::from_secs(now.saturating_duration_since(known.since).as_secs());
            let (cause, age) = (&why.cause, duration_text(age));
            let hint = why.cure.as_ref().map(|cure| cure.text(None));
            tracing::warn!(name: "name_last_good", hint, "name {name}: look-up: {cause}; its addresses of {age} ago are used: {addresses}");
        }
        Some(Arc::clone(&known.addresses))
    }

    /// Takes a fresh answer.
    pub(super) fn keep(&self, name: &str, addresses: &Arc<[IpAddr]>, now: Instant) {
        let mut known = self.known();
        // Names of settings that are no longer in force.
        known.retain(|_, known| known.is_fresh(now));
        let before = known.get(name);
        if before.is_some_and(|before| before.is_told) {
            tracing::info!(name: "name_answers", "name {name}: look-ups are answered again");
        }
        let told = before.and_then(|before| before.told);
        let due = before.map_or(now, |before| before.due);
        let fresh = Known { addresses: Arc::clone(addresses), since: now, due, told, is_told: false };
        known.insert(name.to_owned(), fresh);
    }

    /// The name is said to have none.
    pub(super) fn forget(&self, name: &str) {
        self.known().remove(name);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_used_for_a_day_and_no_longer() {
        let (last_good, now) = (LastGood::default(), Instant::now());
        let addresses: Arc<[IpAddr]> = Arc::from([IpAddr::from([10, 0, 0, 1])]);
        last_good.keep("ews.corp", &addresses, now);
        let silent = Explained::ours("no answer");
        assert_eq!(last_good.instead("ews.corp", &silent, now + LIFETIME - TOLD_AGAIN), Some(addresses));
        assert_eq!(last_good.get("ews.corp", now + LIFETIME), None);
        assert_eq!(last_good.instead("ews.corp", &silent, now + LIFETIME), None);
    }

    #[test]
    fn many_clients_share_an_answer_that_is_less_than_a_second_old() {
        let (last_good, now) = (LastGood::default(), Instant::now());
        assert_eq!(last_good.shared("ews.corp", now), None, "nothing is known");
        let addresses: Arc<[IpAddr]> = Arc::from([IpAddr::from([10, 0, 0, 1])]);
        last_good.keep("ews.corp", &addresses, now);
        let own = |now| (0..1000).take_while(|_| last_good.shared("ews.corp", now).is_none()).count();
        assert_eq!(own(now), 20, "as many look-ups as a second has");
        assert_eq!(last_good.shared("ews.corp", now), Some(Arc::clone(&addresses)));
        assert_eq!(own(now + DISTANCE), 1, "then one at a time");
        assert_eq!(last_good.shared("ews.corp", now + FRESH), None, "the answer is too old");
        last_good.keep("ews.corp", &addresses, now + FRESH);
        assert_eq!(own(now + FRESH), 19, "a fresh answer brings no more look-ups");
        last_good.forget("ews.corp");
        assert_eq!(last_good.shared("ews.corp", now + FRESH), None);
    }

    #[test]
    fn a_name_that_is_gone_has_no_last_addresses() {
        let (last_good, now) = (LastGood::default(), Instant::now());
        last_good.keep("ews.corp", &Arc::from([IpAddr::from([10, 0, 0, 1])]), now);
        last_good.forget("ews.corp");
        assert_eq!(last_good.get("ews.corp", now), None);
    }
}
