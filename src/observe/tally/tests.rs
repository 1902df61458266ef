use super::*;
use crate::observe::snapshot::Snapshot;

fn agreed(version: &'static str, suite: &str, resumed: bool) -> Agreed {
    Agreed { version, suite: suite.to_owned(), resumed }
}

fn open(version: &'static str) -> Open {
    Open {
        client: ([10, 0, 0, 7], 5000).into(),
        via: None,
        target: Some(([10, 0, 0, 1], 443).into()),
        client_certificate: None,
        inbound: agreed("1.3", "TLS_AES_128_GCM_SHA256", false),
        outbound: agreed(version, "AES128-SHA", true),
        since: OffsetDateTime::UNIX_EPOCH,
        progress: Progress::new(),
    }
}

fn snapshot(tally: &Tally) -> Snapshot {
    snapshot_at(tally, Instant::now())
}

fn snapshot_at(tally: &Tally, now: Instant) -> Snapshot {
    let mut snapshot = Snapshot::of("exch1");
    tally.fill_at(now, &mut snapshot, true);
    snapshot
}

#[test]
fn a_connection_is_open_and_then_done_and_its_bytes_count_once() {
    let tally = Tally::new();
    let place = tally.opened(open("1.0"), Duration::from_millis(30));
    let now = Instant::now();
    place.open.progress.note(10, 70_000, now);
    let seen = snapshot_at(&tally, now + Duration::from_secs(9));
    assert_eq!((seen.sessions.open, seen.sessions.done), (1, 0));
    assert_eq!((seen.sessions.up_bytes, seen.sessions.down_bytes), (10, 70_000));
    assert_eq!(seen.sessions.open_by_version["1.0"], 1);
    let connection = &seen.connections.unwrap()[0];
    assert_eq!((connection.client.as_str(), connection.down_bytes), ("10.0.0.7:5000", 70_000));
    assert!((connection.idle_seconds - 9.0).abs() < 0.01, "{}", connection.idle_seconds);
    // What it had in its buffers came after the last look.
    place.ended((10, 70_005), "target", "fin", Duration::from_secs(9));
    let seen = snapshot(&tally);
    assert_eq!((seen.sessions.open, seen.sessions.done), (0, 1));
    assert_eq!((seen.sessions.up_bytes, seen.sessions.down_bytes), (10, 70_005));
    assert_eq!(seen.ends.len(), 1);
    assert_eq!(seen.ends[0].labels["ended_by"], "target");
    assert_eq!(seen.durations["session"].count, 1);
    assert!(seen.last_spoken.contains_key("1.0"));
}

#[test]
fn a_connection_that_is_cut_is_not_open_for_ever() {
    let tally = Tally::new();
    let place = tally.opened(open("1.2"), Duration::ZERO);
    place.open.progress.note(1, 2, Instant::now());
    drop(place);
    let seen = snapshot(&tally).sessions;
    assert_eq!((seen.open, seen.done, seen.up_bytes, seen.down_bytes), (0, 0, 1, 2));
}

#[test]
fn handshakes_count_by_side_version_suite_and_resumption() {
    let tally = Tally::new();
    for version in ["1.0", "1.0", "1.2"] {
        tally.opened(open(version), Duration::ZERO).ended((0, 0), "client", "close_notify", Duration::ZERO);
    }
    let counts: Vec<_> =
        snapshot(&tally).handshakes.into_iter().map(|one| (one.labels["version"].clone(), one.count)).collect();
    assert_eq!(counts, [("1.3".to_owned(), 3), ("1.0".to_owned(), 2), ("1.2".to_owned(), 1)]);
}

#[test]
fn rates_are_over_the_last_minute() {
    let tally = Tally::new();
    assert!(snapshot(&tally).rates.is_none(), "nothing to compare with");
    let place = tally.opened(open("1.2"), Duration::ZERO);
    let mut now = Instant::now();
    for tick in 0..20_u64 {
        tally.sample_at(now);
        now += SAMPLE;
        place.open.progress.note(0, (tick + 1) * 5000, now);
    }
    let rates = snapshot_at(&tally, now).rates.unwrap();
    assert!((rates.over_seconds - 65.0).abs() < 0.1, "{rates:?}");
    assert!((rates.down_bytes_per_second - 1000.0).abs() < 1.0, "{rates:?}");
    assert!(rates.sessions_per_second.abs() < 1e-9, "it began before that");
}
