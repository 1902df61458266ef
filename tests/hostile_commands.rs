//! A command that talks to a target ends in time whatever that one does, says what is wrong, and leaves
//! nothing behind.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod common;
mod foe;

use cli_support::{Certificate, Live, Outcome, Sandbox, free_port, tls_target};
use foe::{Script, Step, endless, junk, message, record};
use std::thread;
use std::time::{Duration, Instant};

/// How long a command may take: `add` gives a server that hangs 10 s, and then three times 4 s.
const LIMIT: Duration = Duration::from_secs(60);

/// The commands, as they are typed for a target at this address.
fn commands(target: &str) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let port = free_port().to_string();
    vec![
        words(&["add", "x", &port, target, "--no-input"]),
        words(&["probe", target]),
        words(&["probe", target, "--json"]),
    ]
}

/// The one that only begins when there is something to say about the target.
const STORM: &str = "a storm in place of an answer";

/// What a target does on each connection, by name.
fn scripts() -> Vec<(&'static str, Script)> {
    let hello_requests = endless(1, record::HANDSHAKE, &[message::HELLO_REQUEST, 0, 0, 0]);
    let storm = Step::Flood(record::HANDSHAKE, vec![message::HELLO_REQUEST, 0, 0, 0]);
    let alert = Step::Record(record::ALERT, vec![2, 80]);
    vec![
        ("silence", Script::then(1, 1, &[Step::Hold])),
        ("garbage", Script::then(1, 1, &[Step::Wire(junk(1, 5000)), Step::Fin])),
        ("HelloRequests", Script::then(1, 1, std::slice::from_ref(&hello_requests))),
        ("HelloRequests after the ServerHello", Script::then(3, 2, &[hello_requests])),
        ("warnings", Script::then(1, 1, &[endless(1, record::ALERT, &[1, 90])])),
        ("resets", Script::then(1, 2, &[Step::Reset])),
        ("alert 80 in place of ChangeCipherSpec", Script::with(1, 5, &[alert])),
        ("silence in place of ChangeCipherSpec", Script::then(3, 5, &[Step::Hold])),
        (STORM, Script::then(1, 7, &[storm])),
    ]
}

#[test]
fn names_in_a_certificate_write_no_line_and_move_no_cursor() {
    let sandbox = Sandbox::new();
    let name = "eve\n  ok    verified\u{1b}[2J\u{202e}";
    let certificate = Certificate::self_signed(sandbox.material.path(), name);
    let target = tls_target(&certificate).to_string();
    for words in commands(&target) {
        let said = sandbox.run(&words).all();
        assert!(said.contains("CN=eve"), "{words:?}: {said}");
        assert!(!said.lines().any(|line| line.trim_start().starts_with("ok    verified")), "{words:?}: {said}");
        assert!(!said.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{words:?}: {said:?}");
    }
}

#[test]
fn commands_end_in_time_whatever_the_target_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut running = Vec::new();
    for (name, script) in scripts() {
        let target = runtime.block_on(foe::always(script)).to_string();
        for words in commands(&target) {
            running.push((name, thread::spawn(move || meets(&words))));
        }
    }
    for (name, command) in running {
        let outcome = command.join().unwrap_or_else(|_| panic!("{name}"));
        let least = if name == STORM { 0 } else { 1 };
        assert!((least..100).contains(&outcome.code), "{name}: {outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{name}: {outcome:?}");
        assert!(outcome.all().contains("127.0.0.1:"), "{name}: {outcome:?}");
    }
}

fn meets(words: &[String]) -> Outcome {
    let sandbox = Sandbox::new();
    let before = sandbox.tree();
    let began = Instant::now();
    let mut live = Live::spawn(&mut sandbox.command(words));
    while live.is_alive() {
        assert!(began.elapsed() < LIMIT, "{words:?}: no end; it said:\n{}", live.said());
        thread::sleep(Duration::from_millis(20));
    }
    let outcome = live.finish();
    assert_eq!(sandbox.tree(), before, "{words:?}: something is left");
    outcome
}
