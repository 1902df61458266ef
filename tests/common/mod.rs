//! What the tests are written with: certificates, legacy servers, the bridge itself, clients.
//!
//! Everything is real: the bridge is the built binary, servers and clients are other programs where
//! one exists, and everything listens on a free port of the loopback. Nothing sleeps to be safe:
//! waits end with an event or, after [`TIMEOUT`], with a panic that shows what was seen instead.

// Each file under tests/ is a crate of its own and uses its own part of this.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod bridge;
mod child;
mod client;
mod gate;
mod http;
mod middlebox;
mod pki;
mod renegotiator;
pub mod scan;
mod servers;
mod stream;
mod switch;
mod target;
mod tuned;

pub use bridge::{Bridge, Builder, Fields};
pub use child::Child;
pub use client::{
    Client, Failure, client_hello, connect, connect_by, curl, curl_with, python, python_strict, s_client, stalled_hello,
};
pub use gate::{Act, End, Hello, gate};
pub use http::{Response, read_response};
pub use middlebox::{Dislike, Manner, before, dripping, slow};
pub use pki::{Certificate, Flaw, Pki};
pub use renegotiator::{Plan, Renegotiator};
pub use servers::{GnutlsServer, Library, NodeServer, Program, SServer, SmallServer, cached};
pub use stream::{Stream, sha256};
pub use switch::{Resumption, Switch};
pub use target::{Connection, TcpTarget, TlsTarget, full_backlog};
pub use tuned::{Issued, Spec, Tuned};

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

/// No test waits for one event longer than this. Long, since it's spent only by a failing test and
/// the machines of CI are busy.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Something a bridge can be pointed at.
pub trait Listening {
    /// Where it listens.
    fn address(&self) -> SocketAddr;
}

impl Listening for SocketAddr {
    fn address(&self) -> SocketAddr {
        *self
    }
}

/// Waits for a future, not for ever.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing happened within {TIMEOUT:?}"),
    }
}

/// Checks again and again until it holds. For states that send no event: a peer's counter.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < TIMEOUT, "{what}: not so within {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server that gives back what it gets, and its certificate.
pub fn echo() -> (Certificate, TlsTarget) {
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    (certificate, target)
}

/// One client of the bridge gets its bytes back.
pub async fn is_served(bridge: &Bridge) {
    let mut client = bridge.client().await;
    client.send(b"word").await;
    assert_eq!(client.receive(4).await, b"word");
}
