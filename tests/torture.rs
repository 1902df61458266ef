//! The torture run: hundreds of clients of all manners, while certificates, trust and targets change
//! and targets die, with every byte checked both ways; then nothing may be left of them.
//!
//! `EWSBRIDGE_TORTURE=30m` lasts longer than the minute of an ordinary run, `EWSBRIDGE_SEED=NUMBER`
//! gives each connection the same plan again.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod storm;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cli_support::{Certificate, Sandbox};
use storm::bridge::Bridge;
use storm::client::Clients;
use storm::ledger::Ledger;
use storm::pattern;
use storm::plan::next;
use storm::target::Target;
use storm::vitals::Vitals;
use tokio::task::{JoinSet, block_in_place};

/// Clients at a time.
const CLIENTS: usize = 200;

/// Before the base line is taken.
const WARM_UP: Duration = Duration::from_secs(8);

/// More of them say nothing new.
const ENOUGH: usize = 20;

fn seed() -> u64 {
    match std::env::var("EWSBRIDGE_SEED") {
        Ok(seed) => seed.parse().expect("EWSBRIDGE_SEED is a number"),
        Err(_) => u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()),
    }
}

fn length() -> Duration {
    let Ok(text) = std::env::var("EWSBRIDGE_TORTURE") else { return Duration::from_secs(60) };
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().expect("EWSBRIDGE_TORTURE is like 90s or 30m");
    match unit {
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number * 60),
        _ => panic!("EWSBRIDGE_TORTURE is like 90s or 30m"),
    }
}

/// The bridge, its targets and its clients.
struct Run {
    bridge: Bridge,
    targets: [Target; 2],
    /// How each target may be trusted: by its certificate as an authority, by pins in either order.
    trusts: [String; 3],
    clients: Arc<Clients>,
    ledger: Arc<Ledger>,
    dice: u64,
}

impl Run {
    async fn start(seed: u64) -> Self {
        let sandbox = Sandbox::new();
        let certificates = ["EXCH1", "EXCH2"].map(|name| Certificate::self_signed(sandbox.material.path(), name));
        let ledger = Arc::new(Ledger::new(seed));
        let targets = [Target::start(&certificates[0], &ledger).await, Target::start(&certificates[1], &ledger).await];
        let [one, two] = [certificates[0].pin(), certificates[1].pin()];
        let trusts = [format!("pin={one},{two}"), format!("pin={two},{one}"), format!("pin={one},{two},{one}")];
        let bridge = Bridge::start(sandbox, targets[0].address, &trusts[..1]);
        let clients = Arc::new(Clients::new(bridge.address, &bridge.ca, &ledger));
        Self { bridge, targets, trusts, clients, ledger, dice: seed }
    }

    /// Lets all clients loose for so long, disturbed or not; returns when the last is gone.
    async fn storm(&mut self, length: Duration, disturbed: bool) {
        let until = Instant::now() + length;
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let these = Arc::clone(&self.clients);
            clients.spawn(async move {
                while Instant::now() < until && these.ledger.defects.lock().unwrap().len() < ENOUGH {
                    these.one().await;
                }
            });
        }
        let mut told = Instant::now();
        while Instant::now() < until && self.ledger.defects.lock().unwrap().len() < ENOUGH {
            if disturbed {
                self.disturb().await;
            }
            tokio::time::sleep(Duration::from_millis(200 + next(&mut self.dice) % 1500)).await;
            if told.elapsed() > Duration::from_secs(60) {
                told = Instant::now();
                println!("{} connections, {:?}", self.ledger.known(), self.bridge.vitals());
            }
        }
        while let Some(ended) = clients.join_next().await {
            ended.expect("a client that panics is a fault of this test");
        }
    }

    /// Changes one thing under the clients' feet.
    async fn disturb(&mut self) {
        let choice = next(&mut self.dice);
        let one = usize::try_from(choice >> 8 & 1).unwrap();
        let what = match choice % 4 {
            0 => {
                block_in_place(|| self.bridge.renew());
                "reloads with a new certificate"
            }
            1 => {
                let trust = &self.trusts[usize::try_from((choice >> 8) % 3).unwrap()];
                block_in_place(|| self.bridge.set(trust));
                "reloads with other trust"
            }
            2 => {
                block_in_place(|| self.bridge.set(&format!("target={}", self.targets[one].address)));
                "reloads with another target"
            }
            _ => {
                self.targets[one].restart(Duration::from_millis((choice >> 16) % 700)).await;
                return self.ledger.count("target restarts");
            }
        };
        block_in_place(|| self.bridge.reload());
        self.ledger.count(what);
    }

    /// Waits until no connection is open and as few descriptors and threads are in use as they may be.
    async fn rest(&self, within: Option<&Vitals>) -> Vitals {
        let began = Instant::now();
        loop {
            let answer = block_in_place(|| self.bridge.reload());
            let vitals = self.bridge.vitals();
            let fits = within.is_none_or(|most| {
                let memory = most.memory + most.memory / 5 + (16 << 20);
                vitals.descriptors <= most.descriptors && vitals.threads <= most.threads && vitals.memory <= memory
            });
            if answer.contains("no connection was open") && fits {
                return vitals;
            }
            assert!(
                began.elapsed() < Duration::from_secs(90),
                "leaked: 90 s after the last client: {answer} {vitals:?}, at the base line {within:?}"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

#[test]
fn the_pattern_tells_lost_repeated_mixed_and_invented_bytes_apart() {
    pattern::tells_wrong_bytes_apart();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torture_loses_mixes_and_leaks_nothing() {
    let (seed, length) = (seed(), length());
    println!("EWSBRIDGE_SEED={seed}, {} s, {CLIENTS} clients at a time", length.as_secs());
    let mut run = Run::start(seed).await;
    run.storm(WARM_UP, true).await;
    let base = run.rest(None).await;
    println!("base line: {base:?}");
    run.storm(length, true).await;
    println!("{}", run.ledger.table());
    let end = run.rest(Some(&base)).await;
    println!("at the end: {end:?}");
    assert_eq!(run.ledger.open.load(Ordering::SeqCst), 0);
    let log = run.bridge.stop();
    let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked")).collect();
    assert!(panics.is_empty(), "{panics:?}");
    let defects = run.ledger.defects.lock().unwrap();
    assert!(defects.is_empty(), "EWSBRIDGE_SEED={seed}: {} defects:\n{}", defects.len(), defects.join("\n"));
}
