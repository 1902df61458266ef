//! A peer that doesn't read stops the other one, and costs no memory.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Pki, Stream, TIMEOUT, TlsTarget, sha256, within};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// Far more than the kernel holds for four sockets.
const MUCH: usize = 256 << 20;
const PIECE: usize = 1 << 16;
/// What the kernel may hold, with plenty to spare.
const HELD: usize = 96 << 20;
/// What the bridge may grow by: some buffers, not what was sent.
const GROWTH: usize = 16 << 20;

#[tokio::test]
async fn client_that_does_not_read_stops_the_target() {
    let certificate = Pki::new().server();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let target = TlsTarget::serve(&certificate, move |mut connection| {
        connection.read_exact(&mut [0]).unwrap();
        let piece = [7; PIECE];
        while count.load(Ordering::SeqCst) < MUCH && connection.write_all(&piece).is_ok() {
            count.fetch_add(PIECE, Ordering::SeqCst);
        }
        connection.close_notify();
    });
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut client = bridge.client().await;
    let before = memory(&bridge);
    client.send(b"?").await;
    let stopped_at = when_still(&sent);
    assert!(stopped_at < HELD, "{stopped_at} bytes went into a client that does not read");
    assert!(memory(&bridge) < before + GROWTH, "grew from {before} to {}", memory(&bridge));
    // Others are served meanwhile, and the stream goes on where it stopped.
    assert!(bridge.try_client().await.is_ok());
    let (bytes, end) = client.receive_all().await;
    assert_eq!((bytes.len(), end), (MUCH, "close_notify"));
    assert!(bytes.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn target_that_does_not_read_stops_the_client() {
    const SENT: usize = 64 << 20;
    let certificate = Pki::new().server();
    let (go, gone) = channel::<()>();
    let (tell, told) = channel();
    let gone = std::sync::Mutex::new(gone);
    let target = TlsTarget::serve(&certificate, move |mut connection| {
        gone.lock().unwrap().recv_timeout(TIMEOUT).unwrap();
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).unwrap();
        tell.send(sha256(&bytes)).unwrap();
    });
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut client = bridge.client().await;
    let before = memory(&bridge);
    let bytes = Stream::bytes("up", SENT);
    let written = Arc::new(AtomicUsize::new(0));
    let (count, expected) = (written.clone(), sha256(&bytes));
    let upload = tokio::spawn(async move {
        for piece in bytes.chunks(PIECE) {
            client.write_all(piece).await.unwrap();
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        client.shut_down().await;
        client
    });
    // The upload needs this thread now and then.
    let stopped_at = {
        let written = written.clone();
        tokio::task::spawn_blocking(move || when_still(&written)).await.unwrap()
    };
    assert!(stopped_at < SENT, "all went into a target that does not read");
    assert!(memory(&bridge) < before + GROWTH, "grew from {before} to {}", memory(&bridge));
    go.send(()).unwrap();
    // Kept: closing it with unread session tickets would reset what its kernel still holds.
    let _client = within("the upload", upload).await.unwrap();
    assert_eq!(told.recv_timeout(TIMEOUT).unwrap(), expected);
}

/// Waits until a counter that moves has stood still for a while.
fn when_still(counter: &AtomicUsize) -> usize {
    let start = Instant::now();
    let (mut last, mut since) = (0, Instant::now());
    while last == 0 || since.elapsed() < Duration::from_secs(1) {
        assert!(start.elapsed() < TIMEOUT, "still moving, or never begun: {last}");
        let now = counter.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    last
}

/// The bridge's memory in use, in bytes (proc_pid_status(5), VmRSS).
fn memory(bridge: &Bridge) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bridge.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}
