//! One client, one target connection: never a mixed-up byte. NTLM authenticates the connection, so
//! a shared one would hand one user another's mailbox.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Client, NodeServer, Pki, Stream, eventually, within};
use std::sync::Arc;
use tokio::sync::Barrier;

const CLIENTS: usize = 100;
const REQUESTS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_clients_at_once_get_only_what_is_theirs() {
    let certificate = Pki::new().server();
    let target = NodeServer::start("4.9.1", &certificate, "TLSv1", "AES128-SHA");
    let bridge = Arc::new(Bridge::to(&target).pin(&certificate).start());
    let together = Arc::new(Barrier::new(CLIENTS));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (bridge, together) = (bridge.clone(), together.clone());
            tokio::spawn(async move {
                let mut client = bridge.client().await;
                // No one begins before all are connected.
                within("the other clients", together.wait()).await;
                works_under_its_own_marker(&mut client, number).await;
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    eventually("a line for each connection", || bridge.sessions() == CLIENTS);
    assert_eq!(target.connections(), CLIENTS);
}

async fn works_under_its_own_marker(client: &mut Client, number: usize) {
    let marker = format!("marker-{number}");
    let login = client.request(&format!("POST /login/{marker}"), b"").await;
    assert_eq!((login.status, login.text()), (200, marker.clone()), "the connection is someone else's");
    for request in 0..REQUESTS {
        // From nothing to more than a TLS record, other sizes for each client.
        let up = number * request * 7 % 20_000;
        let down = (CLIENTS - number) * request * 11 % 40_000;
        let answer = client.request(&format!("POST /work/{down}"), &Stream::bytes(&marker, up)).await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.head.contains(&format!("{marker}\r\n")), "{}", answer.head);
        assert!(answer.body == Stream::bytes(&marker, down), "{marker}: bytes of another stream");
    }
}

#[tokio::test]
async fn connection_is_never_used_again() {
    let certificate = Pki::new().server();
    let target = NodeServer::start("4.9.1", &certificate, "TLSv1", "AES128-SHA");
    let bridge = Bridge::to(&target).pin(&certificate).start();
    for number in 0..5 {
        let mut client = bridge.client().await;
        // Not logged in, whoever was before.
        assert_eq!(client.request("POST /work/1", b"").await.status, 401);
        assert_eq!(client.request(&format!("POST /login/{number}"), b"").await.status, 200);
        assert_eq!(client.request("POST /work/1", b"").await.status, 200);
    }
    assert_eq!(target.connections(), 5);
}
