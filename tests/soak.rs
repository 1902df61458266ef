//! Thousands of connections, one after the other and many at a time, leave no memory behind.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod storm;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cli_support::{Certificate, Sandbox};
use storm::bridge::Bridge;
use storm::client::Clients;
use storm::ledger::Ledger;
use storm::target::Target;
use storm::vitals::Vitals;
use tokio::task::{JoinSet, block_in_place};

/// Clients at a time.
const CLIENTS: u32 = 120;

/// Connections between two looks.
const WINDOW: u32 = 400;

/// What each of them may leave behind, in bytes: no more than noise.
const LEFT: u64 = 1 << 10;

/// Makes so many connections, and looks at the bridge when all are gone.
async fn after(count: u32, clients: &Arc<Clients>, bridge: &Bridge) -> Vitals {
    let left = Arc::new(AtomicU32::new(count));
    let mut running = JoinSet::new();
    for _ in 0..CLIENTS {
        let (these, left) = (Arc::clone(clients), Arc::clone(&left));
        running.spawn(async move {
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                these.one().await;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    let began = Instant::now();
    while !block_in_place(|| bridge.reload()).contains("no connection was open") {
        assert!(began.elapsed() < Duration::from_secs(60), "connections are left open:\n{}", bridge.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bridge.vitals()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_over_thousands_of_connections() {
    let sandbox = Sandbox::new();
    let ledger = Arc::new(Ledger::new(1));
    let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let target = Target::start(&certificate, &ledger).await;
    let bridge = Bridge::start(sandbox, target.address, &[format!("pin={}", certificate.pin())]);
    let clients = Arc::new(Clients::new(bridge.address, &bridge.ca, &ledger));
    let mut last = after(WINDOW, &clients, &bridge).await;
    let descriptors = last.descriptors;
    let mut growth = Vec::new();
    for _ in 0..4 {
        let now = after(WINDOW, &clients, &bridge).await;
        growth.push(now.memory.saturating_sub(last.memory) as u64);
        println!("{now:?}");
        last = now;
    }
    println!("{}", ledger.table());
    // A leak grows in each window; the heap of another thread, some MiB, comes once.
    let least = growth.iter().min().unwrap();
    assert!(*least < LEFT * u64::from(WINDOW), "{growth:?} bytes more");
    assert!(last.descriptors <= descriptors, "{} descriptors more", last.descriptors - descriptors);
    let defects = ledger.defects.lock().unwrap();
    assert!(defects.is_empty(), "{}", defects.join("\n"));
}
