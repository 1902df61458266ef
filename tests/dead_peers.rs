//! A peer that vanishes without a word is found in time, one that only reads slowly never.
//!
//! Scaled: `dead_peer_timeout` is 9 s, the least there is. With `EWSBRIDGE_LONG=1` the
//! readers stand still for 5 minutes, with the default of 90 s, instead of 20 s.

#![allow(clippy::unwrap_used)]

mod common;
mod network;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{Bridge, Client, Connection, Pki, Stream, TIMEOUT, TlsTarget, eventually, sha256};
use network::{Machine, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The least `dead_peer_timeout`.
const LIMIT: Duration = Duration::from_secs(9);

/// Late in the limit: keepalive has begun to ask by then.
const LATER: Duration = Duration::from_secs(5);

/// More than all buffers on the way hold: 1 MiB each.
const MUCH: usize = 16 << 20;
const PIECE: usize = 1 << 16;

/// A client, the bridge and a target, on a machine each.
struct Path {
    network: Network,
    bridge: Bridge,
    /// Sockets that the bridge holds without any connection.
    sockets: usize,
    _target: TlsTarget,
    _visit: network::Visit,
}

impl Path {
    /// `serve` is the target's part. The calling thread is on the client's machine then.
    fn new(limit: &str, serve: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        Self::with(&[&format!("dead_peer_timeout={limit}")], serve)
    }

    /// The same with any settings.
    fn with(settings: &[&str], serve: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        let network = Network::new();
        let certificate = Pki::new().server();
        let target = TlsTarget::serve_on(network.listen(Machine::Target), &certificate, serve);
        let bridge = Bridge::to(&target)
            .pin(&certificate)
            .listen(&format!("{}:0", Machine::Bridge.address()))
            .in_network_of(network.pid(Machine::Bridge))
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .start();
        let visit = network.visit(Machine::Client);
        let sockets = sockets(&bridge);
        Self { network, bridge, sockets, _target: target, _visit: visit }
    }

    /// Waits until the bridge holds no connection; it must have taken a good part of the limit, no more.
    fn expect_freed_in_time(&self, cut: Instant, gone: &str, connections: usize) {
        eventually("the bridge to close both legs", || sockets(&self.bridge) == self.sockets);
        let took = cut.elapsed();
        assert!(took < LIMIT && took > LIMIT / 3, "{gone} was given up after {took:?}\n{}", self.bridge.log());
        for nth in 0..connections {
            let session = self.bridge.nth_session(nth);
            eprintln!("after {took:?}: {}", session.line);
            assert_eq!(&session["ended_by"], gone, "{}", session.line);
            assert!(session["end"].starts_with(&format!("no answer from the {gone} for ")), "{}", session.line);
        }
    }
}

/// Sockets that the bridge has open.
fn sockets(bridge: &Bridge) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", bridge.pid())).unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// How a target's connection ended. It answers the first byte with another, and has more to say to
/// whoever began with `l`, after [`LATER`].
fn telling_the_end() -> (impl Fn(Connection) + Send + Sync + 'static, Receiver<&'static str>) {
    let (tell, told) = channel();
    let serve = move |mut connection: Connection| {
        let mut first = [0];
        connection.read_exact(&mut first).unwrap();
        connection.write_all(b"!").unwrap();
        if first == *b"l" {
            std::thread::sleep(LATER);
            connection.write_all(b"an event").unwrap();
        }
        tell.send(connection.end()).unwrap();
    };
    (serve, told)
}

/// A target that answers the first byte with another and reads on for as long as something comes.
fn answering_once(mut connection: Connection) {
    let mut buffer = vec![0; PIECE];
    connection.read_exact(&mut buffer[..1]).unwrap();
    connection.write_all(b"!").unwrap();
    while matches!(connection.read(&mut buffer), Ok(1..)) {}
}

/// A target that sends for as long as anybody takes it, and tells how that ended.
fn sending_for_ever() -> (impl Fn(Connection) + Send + Sync + 'static, Receiver<io::Error>) {
    let (tell, told) = channel();
    let serve = move |mut connection: Connection| {
        connection.read_exact(&mut [0]).unwrap();
        let error = loop {
            if let Err(error) = connection.write_all(&[7; PIECE]) {
                break error;
            }
        };
        tell.send(error).unwrap();
    };
    (serve, told)
}

/// Whether a write met a reset, in the words of either TLS library.
fn is_torn_down(error: &io::Error) -> bool {
    let by_openssl = error.get_ref().and_then(|inner| inner.downcast_ref::<openssl::ssl::Error>());
    let codes = by_openssl.and_then(|error| error.ssl_error()).map(|stack| stack.errors()).unwrap_or_default();
    // OpenSSL keeps errno in the code of its own error (ERR_GET_REASON).
    let is_reset = |code: u64| [libc::ECONNRESET, libc::EPIPE].iter().any(|errno| code & 0x7fff_ffff == *errno as u64);
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        || codes.iter().any(|error| is_reset(error.code()))
}

#[tokio::test]
async fn needs_root_idle_client_that_vanishes_frees_the_target_in_time() {
    let (serve, told) = telling_the_end();
    let path = Path::new("9s", serve);
    let mut idle = path.bridge.client().await;
    idle.send(b"?").await;
    assert_eq!(idle.receive(1).await, b"!");
    // For the other something is sent that late that the retransmissions alone would not do.
    let mut late = path.bridge.client().await;
    late.send(b"l").await;
    assert_eq!(late.receive(1).await, b"!");
    let cut = Instant::now();
    path.network.cut(Machine::Client);
    assert_eq!([told.recv_timeout(TIMEOUT).unwrap(), told.recv_timeout(TIMEOUT).unwrap()], ["reset"; 2]);
    path.expect_freed_in_time(cut, "client", 2);
}

#[tokio::test]
async fn needs_root_idle_target_that_vanishes_frees_the_client_in_time() {
    let path = Path::new("9s", answering_once);
    let mut client = path.bridge.client().await;
    client.send(b"?").await;
    assert_eq!(client.receive(1).await, b"!");
    let cut = Instant::now();
    path.network.cut(Machine::Target);
    assert_eq!(client.receive_all().await, (Vec::new(), "reset"));
    path.expect_freed_in_time(cut, "target", 1);
}

#[tokio::test]
async fn needs_root_keepalive_may_be_quicker_and_is_told_alike() {
    let settings = ["keepalive_time=1s", "keepalive_interval=1s", "keepalive_probes=2"];
    let path = Path::with(&settings, answering_once);
    let mut client = path.bridge.client().await;
    client.send(b"?").await;
    assert_eq!(client.receive(1).await, b"!");
    path.network.cut(Machine::Target);
    assert_eq!(client.receive_all().await, (Vec::new(), "reset"));
    let session = path.bridge.session();
    assert_eq!((&session["ended_by"], &session["end"]), ("target", "no answer from the target for 3s"));
}

#[tokio::test]
async fn needs_root_client_that_vanishes_in_a_download_frees_the_target_in_time() {
    let (serve, told) = sending_for_ever();
    let path = Path::new("9s", serve);
    let mut client = path.bridge.client().await;
    client.send(b"?").await;
    client.receive(1 << 20).await;
    let (mut from, _to) = tokio::io::split(client);
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; PIECE];
        while matches!(from.read(&mut buffer).await, Ok(1..)) {}
    });
    tokio::task::yield_now().await;
    let cut = Instant::now();
    path.network.cut(Machine::Client);
    // The client goes on to read meanwhile: its window stays open.
    let error = tokio::task::spawn_blocking(move || told.recv_timeout(TIMEOUT).unwrap()).await.unwrap();
    assert!(is_torn_down(&error), "{error:?}");
    path.expect_freed_in_time(cut, "client", 1);
    reader.abort();
}

#[tokio::test]
async fn needs_root_target_that_vanishes_in_an_upload_frees_the_client_in_time() {
    let path = Path::new("9s", answering_once);
    let (mut from, mut to) = tokio::io::split(path.bridge.client().await);
    let upload = tokio::spawn(async move {
        loop {
            if let Err(error) = to.write_all(&[7; PIECE]).await {
                return error;
            }
        }
    });
    from.read_exact(&mut [0]).await.unwrap();
    let cut = Instant::now();
    path.network.cut(Machine::Target);
    let read = tokio::time::timeout(TIMEOUT, from.read(&mut [0])).await.unwrap().unwrap_err();
    let write = upload.await.unwrap();
    // The kernel hands a reset to whichever of the two asks first, once. The other then reads an
    // end, or meets a pipe that is broken. Behind a FIN it would have been EPIPE to begin with.
    let told = (read.kind(), write.kind());
    let once =
        [(ErrorKind::ConnectionReset, ErrorKind::BrokenPipe), (ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset)];
    assert!(once.contains(&told), "{read:?} and {write:?}");
    path.expect_freed_in_time(cut, "target", 1);
}

#[tokio::test]
async fn needs_root_client_that_vanishes_behind_a_closed_window_frees_the_target_in_time() {
    let (serve, told) = sending_for_ever();
    let path = Path::new("9s", serve);
    let mut client = path.bridge.client().await;
    client.send(b"?").await;
    // It reads nothing.
    eventually("its window to close", || path.network.timers().contains("(persist,"));
    let cut = Instant::now();
    path.network.cut(Machine::Client);
    let error = told.recv_timeout(TIMEOUT).unwrap();
    assert!(is_torn_down(&error), "{error:?}");
    path.expect_freed_in_time(cut, "client", 1);
}

#[tokio::test]
async fn needs_root_readers_that_stand_still_for_long_lose_nothing_and_cost_nothing() {
    match std::env::var_os("EWSBRIDGE_LONG") {
        Some(_) => readers_stand_still("90s", Duration::from_secs(300)).await,
        None => readers_stand_still("9s", Duration::from_secs(20)).await,
    }
}

/// A client that does not read its download, and a target that does not read its upload, for so long.
async fn readers_stand_still(limit: &str, still: Duration) {
    let (go_on, gone_on) = channel::<()>();
    let (tell, told) = channel();
    let gone_on = Mutex::new(gone_on);
    let patience = still + TIMEOUT * 2;
    let path = Path::new(limit, move |mut connection| {
        let mut what = [0];
        connection.read_exact(&mut what).unwrap();
        if what == *b"d" {
            let mut down = Stream::new("down");
            for _ in 0..MUCH / PIECE {
                connection.write_all(&down.next(PIECE)).unwrap();
            }
            connection.close_notify();
            tell.send(String::new()).unwrap();
            assert_eq!(connection.end(), "close_notify");
        } else {
            gone_on.lock().unwrap().recv_timeout(patience).unwrap();
            let mut up = Vec::new();
            connection.read_to_end(&mut up).unwrap();
            tell.send(sha256(&up)).unwrap();
        }
    });
    let mut download = path.bridge.client().await;
    download.send(b"d").await;
    let mut upload = path.bridge.client().await;
    upload.send(b"u").await;
    let uploading = tokio::spawn(async move {
        let mut up = Stream::new("up");
        for _ in 0..MUCH / PIECE {
            upload.write_all(&up.next(PIECE)).await.unwrap();
        }
        upload.shutdown().await.unwrap();
        upload
    });
    let closed = |timers: &str| timers.matches("(persist,").count() == 2;
    let start = Instant::now();
    while !closed(&path.network.timers()) {
        assert!(start.elapsed() < TIMEOUT, "two windows never close:\n{}", path.network.timers());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let before = Usage::of(&path.bridge);
    tokio::time::sleep(still).await;
    let after = Usage::of(&path.bridge);
    assert!(closed(&path.network.timers()), "a window was open:\n{}", path.network.timers());
    let (grown, share) = (after.memory.saturating_sub(before.memory), after.share_since(&before));
    eprintln!("still for {still:?}: memory {} KiB, +{} KiB, CPU {share:.3} %", after.memory >> 10, grown >> 10);
    assert!(grown <= 2 << 20, "memory grew by {grown} bytes while nothing moved");
    assert!(share < 1.0, "{share} % of a CPU while nothing moved");
    assert_eq!(path.bridge.sessions(), 0, "{}", path.bridge.log());

    go_on.send(()).unwrap();
    let (bytes, end) = receive_all(&mut download).await;
    assert!(bytes == Stream::bytes("down", MUCH), "{} of {MUCH} bytes", bytes.len());
    assert_eq!(end, "close_notify");
    // Kept: closing it with unread session tickets would reset what its kernel still holds.
    let _upload = tokio::time::timeout(TIMEOUT, uploading).await.unwrap().unwrap();
    let told = [told.recv_timeout(TIMEOUT).unwrap(), told.recv_timeout(TIMEOUT).unwrap()];
    assert!(told.contains(&sha256(&Stream::bytes("up", MUCH))), "other bytes came up");
}

/// The same as [`Client::receive_all`] while the upload goes on in this thread.
async fn receive_all(client: &mut Client) -> (Vec<u8>, &'static str) {
    let received = client.receive_all().await;
    client.shut_down().await;
    received
}

/// What a process has used.
struct Usage {
    at: Instant,
    /// Resident, in bytes.
    memory: usize,
    /// In user and kernel mode together.
    cpu: Duration,
}

impl Usage {
    fn of(bridge: &Bridge) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{}/status", bridge.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let memory = line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", bridge.pid())).unwrap();
        // From the third field on; utime and stime are the 14th and 15th, in ticks of 10 ms (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Self { at: Instant::now(), memory, cpu: Duration::from_millis(ticks * 10) }
    }

    /// Per cent of one CPU.
    fn share_since(&self, before: &Self) -> f64 {
        100.0 * (self.cpu - before.cpu).as_secs_f64() / (self.at - before.at).as_secs_f64()
    }
}
