//! The threads that serve: one for each core, the first of them alone while connections are few.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Bridge, Pki, TlsTarget, eventually};

/// Connections that the first thread serves in any case.
const FEW: usize = 256;
/// Some for each of seven others.
const MORE: usize = 80;

/// How often each thread that serves has gone to sleep, by its name.
fn sleeps(pid: u32) -> BTreeMap<String, u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let threads = threads.map(|thread| {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        (field("Name:"), field("voluntary_ctxt_switches:").parse().unwrap())
    });
    threads.filter(|(name, _)| name.starts_with("serve-")).collect()
}

#[tokio::test]
async fn connections_beyond_256_are_shared_among_one_thread_for_each_core() {
    let cores = std::thread::available_parallelism().unwrap().get().min(8);
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let names: Vec<_> = (0..cores).map(|index| format!("serve-{index}")).collect();
    eventually("each thread to have begun", || sleeps(bridge.pid()).keys().eq(&names));

    let mut clients = Vec::new();
    for _ in 0..FEW {
        clients.push(bridge.client().await);
    }
    let before = sleeps(bridge.pid());
    for _ in 0..MORE {
        clients.push(bridge.client().await);
    }
    let after = sleeps(bridge.pid());
    for (name, count) in &after {
        let more = count - before[name];
        assert!(more >= 10, "{name} slept {more} times, so it served nobody: {before:?} {after:?}");
    }
    // Whoever serves them: each has an answer of its own.
    for (index, client) in clients.iter_mut().enumerate() {
        let word = format!("{index:04}");
        client.send(word.as_bytes()).await;
        assert_eq!(client.receive(4).await, word.as_bytes());
    }
}
