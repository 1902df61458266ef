//! Finds the peer that has vanished without a word: no power, no path, a firewall that forgot it.
//!
//! An idle connection is probed by TCP keepalive, which is silent once something is on its way to the
//! peer; TCP itself then goes on for a quarter of an hour. So each connection is looked at, whether
//! idle or not: a peer that has answered nothing for most of the limit, although it was asked again
//! and again, is given up, and from there on its leg is one that was reset.
//!
//! A peer that has stopped reading is never given up, however long it does: it answers each probe of
//! its closed window. What counts is a question without an answer, never silence alone.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::relay::{End, Outcome, Side};
use crate::leg::health::{Health, Signs};

/// The eye on both legs of one connection.
#[derive(Debug)]
pub struct Watch {
    peers: [Peer; 2],
    limit: Duration,
    /// Who was given up, and after what silence.
    dead: Option<(Side, Duration)>,
}

#[derive(Debug)]
struct Peer {
    side: Side,
    health: Health,
    /// Looks in a row that found an answer overdue.
    overdue: u32,
    given_up: bool,
}

/// Looks within the limit. All that is done in time is counted in them:
/// a peer is given up at the look between 13/16 and 14/16, before the last probe of a keepalive with
/// default times (8/9), and early enough for both legs to be free by the limit.
const LOOKS: u32 = 16;

/// Looks that the silence must last.
const SILENT: u32 = 13;

/// Looks in a row by which an answer must have been overdue: asked long ago means nothing if the
/// questions only began now.
const OVERDUE: u32 = 4;

/// Questions without an answer: one or two may be lost on a bad path.
const QUESTIONS: u32 = 3;

/// Attempts of TCP within the limit, where the kernel can be told: enough for the questions to be
/// asked before the silence has lasted.
const ATTEMPTS: u32 = 5;

impl Watch {
    /// Watches both legs; a peer that answers nothing is given up within `limit`.
    ///
    /// Linux before 6.15 pauses up to 2 minutes between two probes of a window that was closed for
    /// long. A peer that vanishes behind one is found after three of them.
    pub fn over(client: Health, target: Health, limit: Duration) -> Self {
        let peers = [(Side::Client, client), (Side::Target, target)].map(|(side, health)| {
            health.ask_every(limit / ATTEMPTS);
            Peer { side, health, overdue: 0, given_up: false }
        });
        Self { peers, limit, dead: None }
    }

    /// Looks at both for as long as it is polled, and gives up who is dead.
    ///
    /// # Cancel safety
    /// Dropping the future ends the watch; what it has found stays known.
    pub async fn keep(&mut self) -> Infallible {
        let pause = self.limit / LOOKS;
        let mut looks = interval_at(Instant::now() + pause, pause);
        // After a standstill of this machine the peers must have their time again.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            for peer in self.peers.iter_mut().filter(|peer| !peer.given_up) {
                let Ok(signs) = peer.health.signs() else { continue };
                if is_dead(&mut peer.overdue, signs, self.limit) {
                    peer.given_up = true;
                    peer.health.give_up();
                    self.dead.get_or_insert((peer.side, signs.silence));
                }
            }
        }
    }

    /// Puts into an outcome what only the watch, or TCP's keepalive, knows: that a leg's end was no
    /// peer's doing.
    pub fn correct(&self, outcome: Outcome) -> Outcome {
        let (by, silence) = match (self.dead, &outcome.end) {
            (Some(dead), _) => dead,
            (None, End::Failed(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                let peer = self.peers.iter().find(|peer| peer.side == outcome.by);
                let Some(Ok(signs)) = peer.map(|peer| peer.health.signs()) else { return outcome };
                (outcome.by, signs.silence)
            }
            _ => return outcome,
        };
        Outcome { by, end: End::Unanswered(Duration::from_secs(silence.as_secs())), ..outcome }
    }
}

/// Judges one look; `overdue` counts the looks before it that found an answer overdue.
fn is_dead(overdue: &mut u32, signs: Signs, limit: Duration) -> bool {
    if signs.unanswered == 0 {
        *overdue = 0;
        return false;
    }
    *overdue += 1;
    *overdue >= OVERDUE && signs.unanswered >= QUESTIONS && signs.silence >= limit * SILENT / LOOKS
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(160);

    /// At which of these looks (from 1) the peer is given up.
    fn found(looks: impl IntoIterator<Item = (u32, u64)>) -> Option<usize> {
        let mut overdue = 0;
        let dead = |(unanswered, silence)| {
            is_dead(&mut overdue, Signs { unanswered, silence: Duration::from_secs(silence) }, LIMIT)
        };
        looks.into_iter().map(dead).position(|dead| dead).map(|at| at + 1)
    }

    #[test]
    fn a_peer_that_never_answers_is_given_up_between_13_and_14_sixteenths_of_the_limit() {
        for first in 1..=10 {
            let at = found((0..30).map(|look| (3, first + look * 10))).unwrap() as u64;
            let silence = first + (at - 1) * 10;
            assert!((130..=140).contains(&silence), "{silence} s");
        }
    }

    #[test]
    fn silence_without_a_question_is_no_death() {
        assert_eq!(found((0..1000).map(|look| (0, look * 10))), None);
    }

    #[test]
    fn a_closed_window_whose_probes_are_answered_is_no_death_whatever_the_pause() {
        // One probe may be under way at a look, or lost.
        assert_eq!(found((0..1000).map(|look| (u32::from(look % 12 == 11), 10 * (look % 12) + 200))), None);
        assert_eq!(found((0..1000).map(|look| (2, 10 * (look % 12) + 200))), None);
    }

    #[test]
    fn an_answer_in_between_gives_the_peer_all_its_time_again() {
        let nearly = (0..12).map(|look| (3, look * 10));
        assert_eq!(found(nearly.clone().chain([(0, 1)]).chain(nearly)), None);
    }

    #[test]
    fn a_peer_that_was_silent_for_long_unasked_has_its_time_to_answer() {
        assert_eq!(found([(0, 1000), (3, 1010), (4, 1020), (5, 1030), (5, 1040)]), Some(5));
    }
}
