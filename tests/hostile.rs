//! Hostile targets: whatever they say and whenever they say it, the client is told in time and told no
//! lies, and the bridge goes on as if nothing had been ([`foe::Siege`] says what that means).

#![allow(clippy::unwrap_used)]

mod common;
mod foe;
mod fuzz;

use foe::{AES128_SHA, Cut, DEADLINE, Met, Script, Siege, Step, WORDS, endless, junk, message, owner, record};
use std::time::{Duration, Instant};

/// The versions that differ: TLS 1.0 chains its records and hashes twice, TLS 1.2 does neither.
const VERSIONS: [u8; 2] = [1, 3];

/// Steps of [`Script::good`]: so many are played when ...
mod after {
    pub(super) const HELLO: usize = 1;
    pub(super) const SERVER_HELLO: usize = 2;
    pub(super) const KEYS: usize = 5;
    pub(super) const CCS: usize = 6;
    pub(super) const FINISHED: usize = 7;
    pub(super) const REQUEST: usize = 8;
    pub(super) const ALL: usize = 11;
}

fn served() -> Met {
    Met::Words(WORDS.to_vec(), "close_notify")
}

/// Lets clients meet these, none of whom may be served.
async fn all_refused(siege: &mut Siege, what: &str, scripts: impl IntoIterator<Item = Script>) {
    let scripts: Vec<Script> = scripts.into_iter().collect();
    let met = siege.withstands(scripts.iter().cloned()).await;
    for (met, script) in met.iter().zip(&scripts) {
        assert_eq!(*met, Met::Refused, "{what}, from {script:.1000?}");
    }
}

/// Each ends in these three ways.
fn ends(minor: u8, count: usize, steps: &[Step]) -> [Script; 3] {
    [Step::Fin, Step::Reset, Step::Hold].map(|end| Script::then(minor, count, &[steps, &[end]].concat()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hostile_server_is_a_good_one_unless_it_is_told_otherwise() {
    let mut siege = Siege::start(&[]).await;
    for minor in 1..=3 {
        assert_eq!(siege.withstands([Script::good(minor)]).await, [served()], "{}", siege.bridge.log());
        let again = [
            Step::Message(message::HELLO_REQUEST, Vec::new()),
            Step::Hello,
            Step::ServerHello(AES128_SHA),
            Step::Certificate(Vec::new()),
            Step::Message(message::HELLO_DONE, Vec::new()),
            Step::Keys,
            Step::ChangeCipherSpec,
            Step::Finished,
        ];
        let renegotiating = Script::with(minor, after::REQUEST, &vec![again; 50].concat());
        assert_eq!(siege.withstands([renegotiating]).await, [served()], "{}", siege.bridge.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_an_alert() {
    let mut siege = Siege::start(&[]).await;
    let mut first: Vec<Vec<u8>> = vec![
        vec![0; 100_000],
        vec![0xff; 100_000],
        b"HTTP/1.1 200 OK\r\n\r\n".repeat(5000),
        b"SSH-2.0-x\r\n".to_vec(),
        vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 16],
    ];
    first.extend((0..60).map(|seed| junk(seed, 1 + seed * 97)));
    // Every kind of record, each version, with little, much and impossibly much in it.
    for kind in 0..=255 {
        first.push([&[kind, 3, 1, 0, 32][..], &junk(1, 32)].concat());
    }
    for kind in [20, 21, 22, 23, 24] {
        for (version, length) in
            [(0x0300, 4), (0x0304, 4), (0xffff, 4), (0x0301, 0), (0x0303, 16_385), (0x0301, 65_535)]
        {
            let version: u16 = version;
            let length: u16 = length;
            let head = [&[kind][..], &version.to_be_bytes(), &length.to_be_bytes()].concat();
            first.push([head, junk(2, usize::from(length))].concat());
        }
    }
    let scripts = first.into_iter().enumerate().flat_map(|(number, bytes)| {
        let [fin, reset, hold] = ends(1, after::HELLO, &[Step::Wire(bytes)]);
        // To wait for the deadline takes a second.
        if number % 10 == 0 { vec![fin, reset, hold] } else { vec![fin, reset] }
    });
    all_refused(&mut siege, "garbage", scripts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_any_later_state_is_an_alert() {
    let mut siege = Siege::start(&[]).await;
    let mut scripts = Vec::new();
    for (minor, count) in
        VERSIONS.into_iter().flat_map(|minor| (after::SERVER_HELLO..after::FINISHED).map(move |c| (minor, c)))
    {
        for seed in 0..12 {
            let bytes = junk(seed, 1 + 300 * seed);
            let wire = Step::Wire(bytes.clone());
            // In whole records too, in the clear or encrypted, as one handshake message too.
            let record = Step::Record([20, 21, 22, 23][seed % 4], bytes.clone());
            let message = Step::Message(u8::try_from(seed * 2).unwrap(), bytes);
            for step in [wire, record, message] {
                scripts.push(Script::then(minor, count, &[step, Step::Fin]));
            }
        }
    }
    all_refused(&mut siege, "garbage", scripts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_handshake_is_cut_at_its_deadline_and_delays_nobody_else() {
    let mut siege = Siege::start(&[]).await;
    for minor in VERSIONS {
        let records: [(u8, &[u8]); 9] = [
            (record::HANDSHAKE, &[0, 0, 0, 0]),
            (record::HANDSHAKE, &[]),
            (record::HANDSHAKE, &[11]),
            (record::HANDSHAKE, &[4, 0, 0, 0]),
            (record::ALERT, &[1, 90]),
            (record::ALERT, &[1]),
            (record::ALERT, &[]),
            (record::CHANGE_CIPHER_SPEC, &[1]),
            (record::DATA, &[]),
        ];
        for (kind, payload) in records {
            let scripts: Vec<Script> = (after::HELLO..=after::KEYS)
                .map(|count| Script::then(minor, count, &[endless(minor, kind, payload)]))
                .chain([Script::then(minor, after::CCS, &[Step::Flood(kind, payload.to_vec())])])
                .collect();
            let began = Instant::now();
            let met = siege.meets_beside_another(scripts).await;
            assert!(met.iter().all(|met| *met == Met::Refused), "{kind} {payload:?}: {met:?}");
            assert!(began.elapsed() < Duration::from_secs(15), "{kind} {payload:?}: {:?}", began.elapsed());
        }
        siege.recovers().await;
    }
    let log = siege.bridge.log();
    let cut = format!("TLS handshake: not finished within {DEADLINE}");
    assert!(log.contains(&cut), "none of them was endless:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_drips_is_cut_at_its_deadline() {
    let mut siege = Siege::start(&[]).await;
    let mut scripts = Vec::new();
    for minor in VERSIONS {
        // A byte a record, and then silence, in each state.
        for count in after::HELLO..after::FINISHED {
            let drops: Vec<Step> = (0..200).map(|_| Step::Record(record::HANDSHAKE, vec![11])).collect();
            scripts.push(Script::then(minor, count, &[&drops[..], &[Step::Hold]].concat()));
            scripts.push(Script::then(minor, count, &[Step::Hold]));
        }
    }
    all_refused(&mut siege, "drops", scripts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_and_records_of_any_declared_length_are_bounded() {
    let mut siege = Siege::start(&[]).await;
    let mut scripts = Vec::new();
    for minor in VERSIONS {
        for count in after::HELLO..after::FINISHED {
            for kind in [0, 2, 4, 11, 12, 13, 14, 20, 22] {
                for length in [0xff_ffff_u32, 0x10_0000, 0x8001, 0x4001] {
                    // The head says much; then come a few records, or as much as it says and more.
                    let head = [&[kind], &length.to_be_bytes()[1..]].concat();
                    let few = [
                        Step::Record(record::HANDSHAKE, head.clone()),
                        Step::Record(record::HANDSHAKE, vec![0; 16_384]),
                    ];
                    scripts.push(Script::then(minor, count, &[&few[..], &[Step::Fin]].concat()));
                    if length == 0xff_ffff {
                        let flood =
                            [Step::Record(record::HANDSHAKE, head), Step::Flood(record::HANDSHAKE, vec![0; 16_384])];
                        scripts.push(Script::then(minor, count, &flood));
                    }
                }
            }
            for length in [16_384 + 1, 16_384 + 2048, 16_384 + 2049, 65_000] {
                scripts.push(Script::then(
                    minor,
                    count,
                    &[Step::Record(record::HANDSHAKE, vec![0; length]), Step::Fin],
                ));
            }
        }
    }
    let before = siege.vitals().most_memory;
    all_refused(&mut siege, "lengths", scripts).await;
    let grown = siege.vitals().most_memory.saturating_sub(before);
    assert!(grown < 48 << 20, "the most memory grew by {} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_alert_in_every_state_ends_the_connection_or_nothing() {
    let mut siege = Siege::start(&[]).await;
    for minor in VERSIONS {
        let mut scripts = Vec::new();
        for count in 0..=after::ALL {
            for number in (0..=120).chain([255]) {
                for level in [1, 2] {
                    scripts.push(Script::with(minor, count, &[Step::Record(record::ALERT, vec![level, number])]));
                }
            }
            for odd in [&[][..], &[2], &[0, 0], &[3, 40], &[255, 255], &[2, 40, 2, 40], &[1, 0, 2]] {
                scripts.push(Script::with(minor, count, &[Step::Record(record::ALERT, odd.to_vec())]));
            }
            // So many warnings that nobody means them, few enough to be sent at once.
            let warnings = vec![Step::Record(record::ALERT, vec![1, 112]); 20];
            scripts.push(Script::with(minor, count, &warnings));
        }
        siege.withstands(scripts).await;
        // A fatal one before the Finished is the end of it.
        let fatal =
            (0..after::FINISHED).map(|count| Script::with(minor, count, &[Step::Record(record::ALERT, vec![2, 80])]));
        all_refused(&mut siege, "fatal alerts", fatal).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_out_of_turn_is_an_alert() {
    let mut siege = Siege::start(&[]).await;
    let waits = |step: &Step| matches!(step, Step::Hello | Step::Keys | Step::Listen);
    for minor in VERSIONS {
        let good = Script::good(minor).steps;
        let mut scripts = Vec::new();
        for at in after::HELLO..after::FINISHED {
            // Another one too many, of every kind, empty or not.
            for kind in (1..=25).chain([67, 254, 255]) {
                for body in [&[][..], &[0; 4], &[3, 1, 0, 0, 0, 0, 0]] {
                    scripts.push(Script::with(minor, at, &[Step::Message(kind, body.to_vec())]));
                }
            }
            scripts.push(Script::with(minor, at, &[Step::Record(record::DATA, b"too early".to_vec())]));
            scripts.push(Script::with(minor, at, &[Step::ChangeCipherSpec]));
            scripts.push(Script::with(minor, at, &[Step::Record(record::CHANGE_CIPHER_SPEC, vec![2])]));
            scripts.push(Script::with(minor, at, &[Step::Record(record::CHANGE_CIPHER_SPEC, vec![1, 1])]));
            if at < after::CCS {
                scripts.push(Script::with(minor, at, &[Step::Finished]));
            }
            if waits(&good[at]) {
                continue;
            }
            // One missing, one twice, two in the wrong order.
            let mut script = Script::good(minor);
            script.steps.remove(at);
            scripts.push(script);
            if good[at] != Step::Finished {
                scripts.push(Script::with(minor, at, &[good[at].clone()]));
            }
            for other in (at + 1..after::FINISHED).filter(|other| !waits(&good[*other])) {
                let mut script = Script::good(minor);
                script.steps.swap(at, other);
                scripts.push(script);
            }
        }
        all_refused(&mut siege, "out of turn", scripts).await;
        // The handshake is over by the time of a second Finished: too late for an alert.
        let twice = Script::with(minor, after::FINISHED, &[Step::Finished]);
        assert_eq!(siege.withstands([twice]).await, [Met::Words(Vec::new(), "cut")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_that_is_not_right_is_an_alert() {
    let mut siege = Siege::start(&[]).await;
    for minor in VERSIONS {
        let wrong = [vec![0; 12], vec![], vec![0; 11], vec![0; 13], vec![0; 36], junk(1, 12), vec![0; 16_000]];
        let scripts = wrong.into_iter().map(|said| {
            let mut script = Script::good(minor);
            script.steps[after::CCS] = Step::Message(message::FINISHED, said);
            script
        });
        all_refused(&mut siege, "wrong Finished", scripts).await;
        // And one without encryption, as if there were no ChangeCipherSpec.
        let plain = Step::Wire([&[22, 3, minor, 0, 16, 20, 0, 0, 12][..], &[0; 12]].concat());
        all_refused(&mut siege, "in the clear", ends(minor, after::KEYS, std::slice::from_ref(&plain))).await;
        all_refused(&mut siege, "in the clear", ends(minor, after::CCS, &[plain])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_at_any_byte_is_an_alert_or_an_honest_end() {
    let mut siege = Siege::start(&[]).await;
    for minor in VERSIONS {
        let mut before = 0;
        for how in [Cut::Fin, Cut::Reset] {
            let met = siege.withstands((0..1000).map(|count| Script::good(minor).cut(count, how))).await;
            before = met.iter().take_while(|met| **met == Met::Refused).count();
            assert!(met[before..].iter().all(|met| *met != Met::Refused), "{met:?}");
            assert_eq!(met.last(), Some(&served()), "the connection is longer than was tried");
            // An answer that was cut short never looks whole.
            let whole =
                met.iter().filter(|met| matches!(met, Met::Words(words, "close_notify") if words.len() < WORDS.len()));
            assert_eq!(whole.count(), 0, "{met:?}");
        }
        let silent = (0..before).step_by(9).map(|count| Script::good(minor).cut(count, Cut::Silence));
        all_refused(&mut siege, "silence", silent).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_after_the_handshake_delays_nobody_and_ends_with_the_client() {
    let mut siege = Siege::start(&[]).await;
    for minor in VERSIONS {
        // Before the client has said anything, and after.
        let storms = |records: &[(u8, &[u8])]| -> Vec<Script> {
            let storm = |(kind, payload): &(u8, &[u8])| Step::Flood(*kind, payload.to_vec());
            let both = |storm: Step| {
                [after::FINISHED, after::REQUEST].map(|count| Script::then(minor, count, std::slice::from_ref(&storm)))
            };
            records.iter().map(storm).flat_map(both).collect()
        };
        // A server may ask again and again; it is the client who loses its patience.
        let requests: [(u8, &[u8]); 2] = [(record::HANDSHAKE, &[0, 0, 0, 0]), (record::HANDSHAKE, &[0])];
        for met in siege.meets_beside_another(storms(&requests)).await {
            assert_eq!(met, Met::Words(Vec::new(), "nothing"));
        }
        // And of what breaks TLS the client hears at once, though the storm goes on.
        let broken: [(u8, &[u8]); 5] = [
            (record::HANDSHAKE, &[]),
            (record::ALERT, &[1, 100]),
            (record::ALERT, &[1, 90]),
            (record::CHANGE_CIPHER_SPEC, &[1]),
            (record::DATA, &[]),
        ];
        for met in siege.meets_beside_another(storms(&broken)).await {
            assert_eq!(met, Met::Words(Vec::new(), "cut"));
        }
        siege.recovers().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renegotiation_that_goes_wrong_brings_no_more_words() {
    let mut siege = Siege::start(&[]).await;
    let other = owner(1024).certificate;
    for minor in VERSIONS {
        let again = |steps: &[Step]| {
            let begun = [Step::Message(message::HELLO_REQUEST, Vec::new()), Step::Hello];
            Script::with(minor, after::REQUEST, &[&begun[..], steps].concat())
        };
        let rest = [Step::Message(message::HELLO_DONE, Vec::new()), Step::Keys, Step::ChangeCipherSpec, Step::Finished];
        let hello = Step::ServerHello(AES128_SHA);
        let mut scripts = vec![
            again(&[&[hello.clone(), Step::Certificate(other.clone())], &rest[..]].concat()),
            again(&[hello.clone(), Step::Record(record::ALERT, vec![2, 40])]),
            again(&[hello.clone(), Step::Certificate(Vec::new()), Step::Finished]),
            again(&[hello.clone(), Step::ChangeCipherSpec, Step::Finished]),
            again(&[Step::Message(message::SERVER_HELLO, vec![3, minor, 1, 2])]),
            // A server that forgets what the renegotiation belongs to (RFC 5746 §3.5).
            again(&[Step::Message(message::SERVER_HELLO, unbound(minor))]),
        ];
        scripts.extend([&rest[..1], &rest[2..3], &rest[3..]].map(again));
        for met in siege.withstands(scripts).await {
            assert!(matches!(&met, Met::Words(words, "cut") if words.is_empty()), "{met:?}");
        }
    }
}

/// A ServerHello without any extension.
fn unbound(minor: u8) -> Vec<u8> {
    [&[3, minor], &[7; 32][..], &[0], &AES128_SHA.to_be_bytes(), &[0]].concat()
}
