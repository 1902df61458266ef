//! Reloads under load: each changes the certificate, trust or the target; connections that begin after
//! it are served by what it changed, and no connection is dropped, none refused.
//!
//! `EWSBRIDGE_RELOADS=1000` does more than an ordinary run's 60.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod storm;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cli_support::{Certificate, Sandbox};
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use storm::bridge::Bridge;
use storm::client::Clients;
use storm::ledger::{Fate, Ledger};
use storm::target::Target;
use tokio::task::{JoinSet, block_in_place, spawn_blocking};

/// Clients that come and go all the time, and those that stay from the first reload to the last.
const CLIENTS: usize = 24;
const STAYING: u32 = 8;

fn reloads() -> usize {
    std::env::var("EWSBRIDGE_RELOADS").map_or(60, |count| count.parse().expect("EWSBRIDGE_RELOADS is a number"))
}

/// What a new connection meets: the forwarder's certificate, or none if it is not served.
async fn presented(bridge: SocketAddr) -> Option<X509> {
    let connected = spawn_blocking(move || {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        // It is compared with the very file; whether clients trust it the others have to find.
        connector.set_verify(SslVerifyMode::NONE);
        let tcp = std::net::TcpStream::connect(bridge).unwrap();
        let connector = connector.build().configure().unwrap().verify_hostname(false).use_server_name_indication(false);
        let stream = connector.connect("127.0.0.1", tcp).ok()?;
        stream.ssl().peer_certificate()
    });
    connected.await.unwrap()
}

/// A connection that stays: says a word and gets it back, now and then, until it is told to stop.
async fn staying(clients: Arc<Clients>, number: u32, stop: Arc<AtomicBool>) -> u64 {
    let mut talk = clients.talk(number).await;
    let mut words = 0;
    while !stop.load(Ordering::SeqCst) {
        talk.word().await;
        words += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    talk.end().await;
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_drop_nobody_and_new_connections_use_what_they_changed() {
    let sandbox = Sandbox::new();
    let ledger = Arc::new(Ledger::new(1));
    let certificates = ["EXCH1", "EXCH2"].map(|name| Certificate::self_signed(sandbox.material.path(), name));
    let targets = [Target::start(&certificates[0], &ledger).await, Target::start(&certificates[1], &ledger).await];
    let stranger = Certificate::self_signed(sandbox.material.path(), "OTHER");
    let pins = [&certificates[0], &certificates[1], &stranger].map(Certificate::pin);
    let bridge = Bridge::start(sandbox, targets[0].address, &[format!("pin={}", pins[0])]);
    let clients = Arc::new(Clients::new(bridge.address, &bridge.ca, &ledger));

    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for _ in 0..CLIENTS {
        let (these, stop) = (Arc::clone(&clients), Arc::clone(&stop));
        load.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                these.one().await;
            }
        });
    }
    let mut stays = JoinSet::new();
    (0..STAYING).for_each(|number| _ = stays.spawn(staying(Arc::clone(&clients), number, Arc::clone(&stop))));

    let began = Instant::now();
    let (mut at, mut changed) = (0, [0; 3]);
    for number in 0..reloads() {
        let other = 1 - at;
        match number % 4 {
            0 => {
                changed[0] += 1;
                block_in_place(|| (bridge.renew(), bridge.reload()));
                let leaf = X509::from_pem(&bridge.leaf()).unwrap();
                let served = presented(bridge.address).await.expect("served");
                assert!(served.to_der().unwrap() == leaf.to_der().unwrap(), "reload {number}: the old certificate");
            }
            1 => {
                changed[1] += 1;
                block_in_place(|| (bridge.set(&format!("pin={},{}", pins[at], pins[other])), bridge.reload()));
                presented(bridge.address).await.expect("served");
            }
            2 => {
                // Nobody is served from there unless the trust of the reload before is in force.
                changed[2] += 1;
                at = other;
                block_in_place(|| (bridge.set(&format!("target={}", targets[at].address)), bridge.reload()));
                let before = targets[at].accepted.load(Ordering::SeqCst);
                presented(bridge.address).await.unwrap_or_else(|| panic!("not served:\n{}", bridge.log()));
                assert!(targets[at].accepted.load(Ordering::SeqCst) > before, "reload {number}: not the new target");
            }
            _ => {
                changed[1] += 1;
                block_in_place(|| (bridge.set(&format!("pin={}", pins[at])), bridge.reload()));
                presented(bridge.address).await.expect("served");
            }
        }
        if number % 100 == 99 {
            println!("{} reloads, {} connections, {:?}", number + 1, ledger.known(), bridge.vitals());
        }
    }
    let took = began.elapsed();
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    let mut words = 0;
    while let Some(ended) = stays.join_next().await {
        words += ended.expect("a connection that stays is dropped by none");
    }
    // Trust that was taken away is gone for whoever comes now.
    block_in_place(|| (bridge.set(&format!("pin={}", pins[2])), bridge.reload()));
    assert!(presented(bridge.address).await.is_none(), "a target that is trusted no more is reached");
    println!("{}", ledger.table());
    println!(
        "{} reloads in {:.0} s: {} with a new certificate, {} with other trust, {} with another target; {words} words on {STAYING} connections that stayed",
        reloads(),
        took.as_secs_f64(),
        changed[0],
        changed[1],
        changed[2]
    );
    let defects = ledger.defects.lock().unwrap();
    assert!(defects.is_empty(), "{} defects:\n{}", defects.len(), defects.join("\n"));
    assert!(ledger.total(Fate::Whole) > 0 && words > 0);
    for fate in [Fate::Hurt, Fate::Refused] {
        assert_eq!(ledger.total(fate), 0, "{fate:?} although no target was ever down");
    }
}
