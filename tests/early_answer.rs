//! A target answers before it has read the request, and the lingering close that lets it arrive.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Pki, Stream, TlsTarget, within};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

const UPLOAD: usize = 10 << 20;
const ANSWER: usize = 2 << 20;

/// How often the early answer is tried: `EWSBRIDGE_ROUNDS`.
fn rounds() -> usize {
    std::env::var("EWSBRIDGE_ROUNDS").map_or(10, |text| text.parse().expect("EWSBRIDGE_ROUNDS: a number"))
}

#[tokio::test]
async fn early_answer_reaches_a_late_reader_whole_every_time() {
    let certificate = Pki::new().server();
    let target = TlsTarget::serve(&certificate, |mut connection| {
        let mut kind = [0];
        connection.read_exact(&mut kind).unwrap();
        connection.write_all(&Stream::bytes("answer", ANSWER)).unwrap();
        if kind == [0] {
            // As IIS does: an end in due form, and what comes is let lie.
            connection.close_notify();
            connection.half_fin();
        }
        // Then a close with unread input, which is a reset.
        connection.delivered();
    });
    let bridge = std::sync::Arc::new(Bridge::to(&target).pin(&certificate).start());
    let rounds = rounds();
    let mut running = JoinSet::new();
    let mut whole = 0;
    for round in 0..rounds {
        // Some at a time: each sleeps for a second.
        if running.len() == 5 {
            whole += usize::from(running.join_next().await.unwrap().unwrap());
        }
        let bridge = bridge.clone();
        running.spawn(async move { is_whole(&bridge, round).await });
    }
    while let Some(is_whole) = running.join_next().await {
        whole += usize::from(is_whole.unwrap());
    }
    assert_eq!(whole, rounds, "{}", bridge.log());
    println!("{whole} of {rounds} early answers arrived whole");
}

/// Uploads, reads one second late, and says whether the answer is there.
async fn is_whole(bridge: &Bridge, round: usize) -> bool {
    let mut client = bridge.client().await;
    client.send(&[u8::from(round % 2 == 1)]).await;
    let (mut from, mut to) = tokio::io::split(client);
    let upload = tokio::spawn(async move {
        // It fails if the bridge takes no more, and that is fine.
        let _ = to.write_all(&vec![7; UPLOAD]).await;
        to
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut answer = vec![0; ANSWER];
    let read = within("the answer", from.read_exact(&mut answer)).await;
    upload.abort();
    if let Err(error) = &read {
        eprintln!("round {round}: {error}");
    }
    read.is_ok() && answer == Stream::bytes("answer", ANSWER)
}

/// A target that ends in due form, and a bridge to it.
fn ending(settings: &[&str]) -> (TlsTarget, Bridge) {
    let certificate = Pki::new().server();
    let target = TlsTarget::serve(&certificate, |mut connection| {
        connection.read_exact(&mut [0]).unwrap();
        connection.write_all(b"answer").unwrap();
        connection.close_notify();
        // It never waits itself.
    });
    let bridge = Bridge::to(&target).pin(&certificate);
    let bridge = settings.iter().fold(bridge, |bridge, setting| bridge.arg("--set").arg(setting)).start();
    (target, bridge)
}

#[tokio::test]
async fn close_waits_for_a_client_that_does_not_end_for_linger_timeout_and_no_longer() {
    let (_target, bridge) = ending(&["linger_timeout=2s", "half_close_timeout=30s"]);
    let mut client = bridge.client().await;
    client.send(b"?").await;
    assert_eq!(client.receive_all().await.0, b"answer");
    let start = Instant::now();
    // No FIN: it keeps TCP open.
    client.close_notify().await;
    bridge.session();
    let time = start.elapsed();
    assert!(time > Duration::from_millis(1500) && time < Duration::from_secs(10), "{time:?}");
    drop(client);
}

#[tokio::test]
async fn close_waits_no_longer_than_the_client_does() {
    let (_target, bridge) = ending(&["linger_timeout=25s", "half_close_timeout=30s"]);
    let mut client = bridge.client().await;
    client.send(b"?").await;
    assert_eq!(client.receive_all().await.0, b"answer");
    let start = Instant::now();
    client.shut_down().await;
    bridge.session();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn close_reads_64_mib_in_vain_and_no_more() {
    const LIMIT: usize = 64 << 20;
    let (_target, bridge) = ending(&["linger_timeout=25s", "half_close_timeout=30s"]);
    let mut client = bridge.client().await;
    client.send(b"?").await;
    assert_eq!(client.receive_all().await, (b"answer".to_vec(), "close_notify"));
    client.close_notify().await;
    // What comes behind an end is nobody's any more.
    let sent = within("the end", async {
        let (mut sent, piece) = (0, vec![7; 1 << 16]);
        while client.0.get_mut().0.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    });
    let sent = sent.await;
    // And what the kernel may hold.
    assert!((LIMIT..LIMIT + (32 << 20)).contains(&sent), "{sent}");
    bridge.session();
}
