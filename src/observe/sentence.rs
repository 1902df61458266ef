//! How things stand in one sentence of at most 80 characters: the line `Status:` of `systemctl status`.
//!
//! It stays there until the next one is sent, so it has no time that is old a second later: minutes at
//! the finest.

use std::time::Duration;

use time::OffsetDateTime;

use super::snapshot::Snapshot;
use super::tally::target::Standing;

/// The longest sentence, in characters.
const LONGEST: usize = 80;

/// One sentence about all forwarders of a process.
pub fn of(forwarders: &[Snapshot], now: OffsetDateTime) -> String {
    let sentence = match forwarders {
        [one] => of_one(one, now),
        all => of_many(all),
    };
    match sentence.char_indices().nth(LONGEST - 1) {
        Some((end, _)) if sentence.chars().count() > LONGEST => format!("{}…", &sentence[..end]),
        _ => sentence,
    }
}

fn of_one(one: &Snapshot, now: OffsetDateTime) -> String {
    let counts = format!("{} open, {} done", one.sessions.open, one.sessions.done);
    let is = |state: &str| one.targets.iter().filter(|target| target.state == state).collect::<Vec<_>>();
    let (up, down) = (is("ok"), is("down"));
    let last = up.iter().max_by_key(|target| target.last_ok);
    match (last, down.first()) {
        (None, None) => format!("listening; {counts}"),
        (None, Some(down)) => {
            let cause = down.cause.as_deref().unwrap_or("unknown");
            format!("target down for {}: {cause}; {counts}", since(down.down_since, now))
        }
        (Some(last), None) => format!("target ok, {}; {counts}; last handshake {}", tls(last), ago(last.last_ok, now)),
        (Some(last), Some(down)) => {
            let (up, all) = (up.len(), one.targets.len());
            let down = format!("{} down for {}", down.target, since(down.down_since, now));
            format!("{up} of {all} targets ok, {}; {counts}; {down}", tls(last))
        }
    }
}

fn of_many(all: &[Snapshot]) -> String {
    let is_down = |one: &&Snapshot| {
        one.targets.iter().any(|target| target.state == "down") && one.targets.iter().all(|target| target.state != "ok")
    };
    let down: Vec<&str> = all.iter().filter(is_down).map(|one| one.name.as_str()).collect();
    let sum = |number: fn(&Snapshot) -> u64| all.iter().map(number).sum::<u64>();
    let counts = format!("{} open, {} done", sum(|one| one.sessions.open), sum(|one| one.sessions.done));
    let targets = if down.is_empty() { String::new() } else { format!("; target down: {}", down.join(", ")) };
    format!("{} forwarders; {counts}{targets}", all.len())
}

fn tls(target: &Standing) -> String {
    format!("TLS {}", target.tls.as_deref().unwrap_or("?"))
}

fn elapsed(at: Option<OffsetDateTime>, now: OffsetDateTime) -> Duration {
    at.and_then(|at| Duration::try_from(now - at).ok()).unwrap_or_default()
}

fn since(at: Option<OffsetDateTime>, now: OffsetDateTime) -> String {
    coarse(elapsed(at, now)).unwrap_or_else(|| "less than a minute".to_owned())
}

fn ago(at: Option<OffsetDateTime>, now: OffsetDateTime) -> String {
    coarse(elapsed(at, now)).map_or_else(|| "under a minute ago".to_owned(), |time| format!("{time} ago"))
}

/// In the largest unit, from a minute on.
fn coarse(time: Duration) -> Option<String> {
    let minutes = time.as_secs() / 60;
    match minutes {
        0 => None,
        1..120 => Some(format!("{minutes} min")),
        120..2880 => Some(format!("{} h", minutes / 60)),
        _ => Some(format!("{} days", minutes / 1440)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-23 12:00 UTC);

    fn standing(state: &str, minutes: i64) -> Standing {
        let at = Some(NOW - time::Duration::minutes(minutes));
        Standing {
            target: "ews.corp:443".to_owned(),
            state: state.to_owned(),
            address: None,
            tls: Some("1.2".to_owned()),
            suite: None,
            handshake_seconds: None,
            last_ok: at,
            down_since: at,
            cause: Some("connect: connection refused".to_owned()),
            hint: None,
        }
    }

    fn snapshot(targets: Vec<Standing>) -> Snapshot {
        let mut snapshot = Snapshot::of("exch1");
        snapshot.targets = targets;
        (snapshot.sessions.open, snapshot.sessions.done) = (12, 4211);
        snapshot
    }

    #[test]
    fn the_target_comes_first_and_then_the_counts() {
        for (targets, expected) in [
            (vec![standing("unknown", 0)], "listening; 12 open, 4211 done"),
            (vec![standing("ok", 0)], "target ok, TLS 1.2; 12 open, 4211 done; last handshake under a minute ago"),
            (vec![standing("ok", 119)], "target ok, TLS 1.2; 12 open, 4211 done; last handshake 119 min ago"),
            (vec![standing("ok", 3000)], "target ok, TLS 1.2; 12 open, 4211 done; last handshake 2 days ago"),
            (vec![standing("down", 12)], "target down for 12 min: connect: connection refused; 12 open, 4211 done"),
            (
                vec![standing("ok", 0), standing("down", 200)],
                "1 of 2 targets ok, TLS 1.2; 12 open, 4211 done; ews.corp:443 down for 3 h",
            ),
        ] {
            assert_eq!(of(&[snapshot(targets)], NOW), expected);
        }
    }

    #[test]
    fn several_forwarders_are_summed_up() {
        let other = Snapshot { name: "exch2".to_owned(), ..snapshot(vec![standing("down", 1)]) };
        let sentence = of(&[snapshot(vec![standing("ok", 1)]), other], NOW);
        assert_eq!(sentence, "2 forwarders; 24 open, 8422 done; target down: exch2");
    }

    #[test]
    fn it_ends_at_eighty_characters() {
        let mut target = standing("down", 5);
        target.cause = Some("ü".repeat(100));
        let sentence = of(&[snapshot(vec![target])], NOW);
        assert_eq!(sentence.chars().count(), LONGEST);
        assert!(sentence.ends_with("ü…"), "{sentence}");
    }
}
