//! Reloads under load: each changes the certificate, trust or the target; connections that begin after
//! it are served by what it changed, and no connection is dropped, none refused.
//!
//! `EWSBRIDGE_RELOADS=1000` does more than an ordinary run's 60.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod storm;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cli_support::{Certificate, Sandbox, TIMEOUT};
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

/// A new connection: the forwarder's certificate, and the target that it was led to.
struct Met {
    leaf: X509,
    target: String,
}

/// What a new connection meets, or nothing if it is not served.
async fn meet(bridge: &Bridge) -> Option<Met> {
    let (address, logged) = (bridge.address, block_in_place(|| bridge.log().len()));
    let (leaf, port) = spawn_blocking(move || connect(address)).await.unwrap()?;
    let client = format!(" client=127.0.0.1:{port} target=");
    let began = Instant::now();
    loop {
        let log = block_in_place(|| bridge.log());
        if let Some((_, rest)) = log[logged..].split_once(&client) {
            let target = rest.split(' ').next().unwrap().to_owned();
            return Some(Met { leaf, target });
        }
        assert!(began.elapsed() < TIMEOUT, "a session without a line in the log:\n{log}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Shakes hands and ends in due form; the certificate shown, and the port of this end.
fn connect(bridge: SocketAddr) -> Option<(X509, u16)> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    // It is compared with the very file; whether clients trust it the others have to find.
    connector.set_verify(SslVerifyMode::NONE);
    let tcp = std::net::TcpStream::connect(bridge).unwrap();
    tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
    let port = tcp.local_addr().unwrap().port();
    let connector = connector.build().configure().unwrap().verify_hostname(false).use_server_name_indication(false);
    let mut stream = connector.connect("127.0.0.1", tcp).ok()?;
    let leaf = stream.ssl().peer_certificate();
    let _ = stream.shutdown();
    // A close with something unread would be a reset, which may overtake the handshake's last message.
    let _ = stream.read_to_end(&mut Vec::new());
    Some((leaf?, port))
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
    let both = format!("pin={},{}", pins[0], pins[1]);
    let bridge = Bridge::start(sandbox, targets[0].address, std::slice::from_ref(&both));
    let order = |first: usize| format!("target={},{}", targets[first].address, targets[1 - first].address);
    bridge.set(&order(0));
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
    // The two targets change places, and who is trusted of them leads a new connection to one or the other.
    let (mut first, mut changed) = (0, [0; 3]);
    for number in 0..reloads() {
        let (what, expected) = match number % 4 {
            0 => {
                block_in_place(|| (bridge.renew(), bridge.reload()));
                (0, first)
            }
            1 => {
                block_in_place(|| (bridge.set(&format!("pin={}", pins[1 - first])), bridge.reload()));
                (1, 1 - first)
            }
            2 => {
                block_in_place(|| (bridge.set(&both), bridge.reload()));
                (1, first)
            }
            _ => {
                first = 1 - first;
                block_in_place(|| (bridge.set(&order(first)), bridge.reload()));
                (2, first)
            }
        };
        changed[what] += 1;
        let met = meet(&bridge).await.unwrap_or_else(|| panic!("reload {number}: not served:\n{}", bridge.log()));
        let leaf = X509::from_pem(&bridge.leaf()).unwrap();
        assert!(met.leaf.to_der().unwrap() == leaf.to_der().unwrap(), "reload {number}: the old certificate");
        assert_eq!(met.target, targets[expected].address.to_string(), "reload {number}: the old target or trust");
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
    assert!(meet(&bridge).await.is_none(), "a target that is trusted no more is reached");
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
