//! Which of a forwarder's targets a connection tries next, by how the connections before it fared.
//!
//! Targets are tried in their order. One that has failed is passed over for a second, then for twice
//! as long, up to a minute, as long as another is left to try. When its time is up, one connection
//! tries it in its old place, the others go on passing it over until that one knows. Nobody is
//! refused untried: where all others have failed, those that were passed over are tried as well.
//!
//! One that answers is good again at once. If it fails within a minute from then, it is passed over
//! for twice as long as the last time: a target that comes and goes is asked less and less.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long a target is passed over that was good before.
const SHORTEST: Duration = Duration::from_secs(1);
/// For how long at most; and how long a target must have been good for its past to be forgotten.
const LONGEST: Duration = Duration::from_secs(60);
/// How often a failure is told that lasts.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);

/// How each of a forwarder's targets fared, shared by all its connections.
pub(super) struct Standing(Mutex<Vec<Target>>);

#[derive(Clone, Debug, Default)]
struct Target {
    state: State,
    /// For how long it was passed over last.
    pause: Duration,
    /// When the log heard that it fails.
    told: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Untried,
    /// It answered; since then.
    Good(Instant),
    /// It is passed over until then.
    Failed(Instant),
}

/// A try of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Which target.
    pub index: usize,
    /// Whether it decides for the others if the target is good again.
    is_trial: bool,
}

impl Standing {
    pub(super) fn of(count: usize) -> Self {
        Self(Mutex::new(vec![Target::default(); count]))
    }

    /// The target to try next, of those that this connection has not tried.
    pub(super) fn next(&self, tried: &[usize], now: Instant) -> Option<Turn> {
        let mut targets = self.targets();
        let left = || (0..).zip(targets.iter()).filter(|(index, _)| !tried.contains(index));
        let ready = left().find(|(_, target)| target.is_ready(now)).map(|(index, _)| index);
        let Some(index) = ready else {
            // Whose time is up first is no likelier to answer than the preferred.
            return left().next().map(|(index, _)| Turn { index, is_trial: false });
        };
        let target = &mut targets[index];
        let is_trial = matches!(target.state, State::Failed(_));
        if is_trial {
            // A trial whose client leaves is over without a word; somebody else's turn comes then.
            target.state = State::Failed(now + target.pause);
        }
        Some(Turn { index, is_trial })
    }

    /// Notes a target that failed; gives back for how long it is passed over from now on.
    pub(super) fn failed(&self, turn: Turn, now: Instant) -> Duration {
        let target = &mut self.targets()[turn.index];
        match target.state {
            // The failure of others is no news, nor is one more after them.
            State::Failed(until) if !turn.is_trial => return until.saturating_duration_since(now),
            State::Good(since) if now.saturating_duration_since(since) > LONGEST => target.pause = SHORTEST,
            _ => target.pause = (target.pause * 2).clamp(SHORTEST, LONGEST),
        }
        target.state = State::Failed(now + target.pause);
        target.pause
    }

    /// Notes a target that answered; says whether the log has heard otherwise.
    pub(super) fn answered(&self, turn: Turn, now: Instant) -> bool {
        let target = &mut self.targets()[turn.index];
        if !matches!(target.state, State::Good(_)) {
            target.state = State::Good(now);
        }
        target.told.take().is_some()
    }

    /// Whether the log should hear that this target fails: once, and each hour that it lasts.
    pub(super) fn is_news(&self, index: usize, now: Instant) -> bool {
        let target = &mut self.targets()[index];
        let is_news = target.told.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_AGAIN);
        // Somebody else's connection may have found it good meanwhile.
        let is_news = is_news && matches!(target.state, State::Failed(_));
        if is_news {
            target.told = Some(now);
        }
        is_news
    }

    fn targets(&self) -> MutexGuard<'_, Vec<Target>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    fn is_ready(&self, now: Instant) -> bool {
        match self.state {
            State::Untried | State::Good(_) => true,
            State::Failed(until) => until <= now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The targets that one connection tries, all of which fail but `good`.
    fn connection(standing: &Standing, good: Option<usize>, now: Instant) -> Vec<usize> {
        let mut tried = Vec::new();
        while let Some(turn) = standing.next(&tried, now) {
            tried.push(turn.index);
            if Some(turn.index) == good {
                standing.answered(turn, now);
                break;
            }
            standing.failed(turn, now);
        }
        tried
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_failed_target_is_passed_over_for_twice_as_long_each_time() {
        let (standing, mut now) = (Standing::of(2), Instant::now());
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(connection(&standing, Some(1), now), [0, 1], "before {pause} s");
            assert_eq!(connection(&standing, Some(1), now + seconds(pause) - Duration::from_millis(1)), [1]);
            now += seconds(pause);
        }
        assert_eq!(connection(&standing, Some(0), now), [0]);
        assert_eq!(connection(&standing, Some(0), now), [0]);
    }

    #[test]
    fn one_connection_tries_it_again_and_the_others_wait_for_its_word() {
        let (standing, now) = (Standing::of(2), Instant::now());
        connection(&standing, Some(1), now);
        let later = now + seconds(1);
        let trial = standing.next(&[], later).unwrap();
        assert_eq!((trial.index, trial.is_trial), (0, true));
        assert_eq!(standing.next(&[], later).unwrap().index, 1);
        standing.answered(trial, later);
        assert_eq!(standing.next(&[], later).unwrap().index, 0);
    }

    #[test]
    fn connections_that_fail_together_count_once() {
        let (standing, now) = (Standing::of(2), Instant::now());
        let turns: Vec<Turn> = (0..10).map(|_| standing.next(&[], now).unwrap()).collect();
        let pauses = turns.iter().map(|turn| standing.failed(*turn, now).as_secs());
        assert!(pauses.eq([1; 10]));
        assert_eq!(standing.next(&[], now + seconds(1)).unwrap().index, 0);
    }

    #[test]
    fn where_all_have_failed_all_are_tried_in_order() {
        let (standing, now) = (Standing::of(3), Instant::now());
        for _ in 0..5 {
            assert_eq!(connection(&standing, None, now), [0, 1, 2]);
        }
        assert_eq!(connection(&standing, Some(2), now), [0, 1, 2]);
        assert_eq!(connection(&standing, Some(2), now), [2]);
    }

    #[test]
    fn a_target_that_comes_and_goes_is_asked_less_and_less_until_a_minute_was_good() {
        let (standing, mut now) = (Standing::of(2), Instant::now());
        let failed = |now| standing.failed(standing.next(&[], now).unwrap(), now).as_secs();
        for pause in [1, 2, 4, 8] {
            assert_eq!(failed(now), pause);
            now += seconds(pause);
            assert_eq!(connection(&standing, Some(0), now), [0]);
        }
        now += seconds(61);
        assert_eq!(failed(now), 1);
    }

    #[test]
    fn a_failure_is_told_once_an_hour_and_its_end_if_it_was_told() {
        let (standing, now) = (Standing::of(2), Instant::now());
        let turn = standing.next(&[], now).unwrap();
        standing.failed(turn, now);
        assert!(standing.is_news(0, now));
        assert!(!standing.is_news(0, now + seconds(3599)));
        assert!(standing.is_news(0, now + seconds(3600)));
        assert!(standing.answered(turn, now + seconds(3601)));
        assert!(!standing.answered(turn, now + seconds(3601)));
        assert!(!standing.is_news(0, now + seconds(3601)), "it is good");
    }
}
