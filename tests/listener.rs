//! The listening side: who is let through to the target, who is not, and how it begins and ends.

#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Bridge, Failure, Pki, Stream, TIMEOUT, TlsTarget, client_hello, connect, echo, eventually, is_served,
    stalled_hello, within,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Reads until the bridge ends the connection, however it does.
async fn until_dropped(tcp: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = within("the bridge to end the connection", tcp.read_to_end(&mut bytes)).await;
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    bytes
}

/// What port scanners and other guests send.
fn no_hellos() -> Vec<Vec<u8>> {
    let hello = client_hello();
    let with = |place: usize, byte| {
        let mut hello = hello.clone();
        hello[place] = byte;
        hello
    };
    let no_record_type = with(0, 0x17);
    let no_handshake_type = with(5, 2);
    let absurd_length = with(6, 0xff);
    let half = hello[..hello.len() / 2].to_vec();
    let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let ssh = b"SSH-2.0-scanner\r\n".to_vec();
    vec![vec![], b"\n".to_vec(), http, ssh, vec![0; 1000], half, no_record_type, no_handshake_type, absurd_length]
}

/// Each guest comes twice: one leaves at once, one waits for what the bridge does.
async fn visit(bridge: &Bridge) {
    for bytes in no_hellos() {
        let mut leaves = TcpStream::connect(bridge.address()).await.unwrap();
        leaves.write_all(&bytes).await.unwrap();
        drop(leaves);
        let mut waits = TcpStream::connect(bridge.address()).await.unwrap();
        waits.write_all(&bytes).await.unwrap();
        let answer = until_dropped(&mut waits).await;
        assert!(answer.is_empty() || answer[0] == 21, "an alert or nothing: {answer:02x?}");
    }
}

#[tokio::test]
async fn no_client_hello_no_connection_to_the_target() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).args(["--hello-timeout", "500ms"]).start();
    visit(&bridge).await;
    assert_eq!(target.accepted(), 0);
    is_served(&bridge).await;
    assert_eq!(target.accepted(), 1);
}

#[tokio::test]
async fn scanners_do_not_fill_the_log() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).args(["--hello-timeout", "500ms"]).start();
    let before = bridge.log().lines().count();
    visit(&bridge).await;
    is_served(&bridge).await;
    bridge.session();
    assert_eq!(bridge.log().lines().count(), before + 1, "{}", bridge.log());
}

#[tokio::test]
async fn slow_hello_is_dropped_in_time_while_others_are_served() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).args(["--hello-timeout", "1s"]).start();
    let start = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(stalled_hello(bridge.address()).await);
    }
    is_served(&bridge).await;
    let served = start.elapsed();
    for tcp in &mut slow {
        until_dropped(tcp).await;
    }
    assert!(start.elapsed() > Duration::from_secs(1) && start.elapsed() < TIMEOUT / 3, "{:?}", start.elapsed());
    assert!(served < start.elapsed());
    assert_eq!(target.accepted(), 1);
}

#[tokio::test]
async fn hello_in_drips_is_dropped_in_time_too() {
    // A deadline for each byte would never be met.
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).args(["--hello-timeout", "700ms"]).start();
    let tcp = TcpStream::connect(bridge.address()).await.unwrap();
    let (mut from, mut to) = tcp.into_split();
    let start = Instant::now();
    let drip = async {
        for byte in client_hello() {
            if to.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut answer = Vec::new();
    let _ = within("the end", async {
        tokio::select! { () = drip => Ok(0), end = from.read_to_end(&mut answer) => end }
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(target.accepted(), 0);
}

#[tokio::test]
async fn hello_in_many_small_records_is_served() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let hello = client_hello();
    let mut tcp = TcpStream::connect(bridge.address()).await.unwrap();
    for piece in hello[5..].chunks(20) {
        let length = u8::try_from(piece.len()).unwrap();
        tcp.write_all(&[&[22, 3, 1, 0, length], piece].concat()).await.unwrap();
    }
    let mut first = [0; 6];
    within("a ServerHello", tcp.read_exact(&mut first)).await.unwrap();
    assert_eq!((first[0], first[5]), (22, 2), "{first:02x?}");
}

#[tokio::test]
async fn client_that_does_not_trust_us_is_named_in_the_log() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let stranger = std::fs::read_to_string(Pki::new().ca_file()).unwrap_or_default();
    assert!(matches!(connect(bridge.address(), &stranger, "localhost").await, Err(Failure::Other(_))));
    bridge.wait_for_log(&["client 127.0.0.1:", "TLS handshake", "hint="]);
}

#[tokio::test]
async fn port_alone_listens_on_both_families() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).listen("0").start();
    let port = bridge.address().port();
    let ca = bridge.ca();
    let mut addresses = vec![SocketAddr::from(([127, 0, 0, 1], port))];
    if TcpListener::bind("[::1]:0").is_ok() {
        assert!(bridge.address().is_ipv6(), "{}", bridge.address());
        addresses.push(format!("[::1]:{port}").parse().unwrap());
    }
    for address in addresses {
        let mut client = connect(address, &ca, "localhost").await.unwrap();
        client.send(b"word").await;
        assert_eq!(client.receive(4).await, b"word");
        client.shut_down().await;
    }
    // An IPv4 client is logged as one.
    eventually("a line", || bridge.log().contains("client=127.0.0.1:"));
}

#[tokio::test]
async fn address_given_is_the_only_one() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).listen("127.0.0.1:0").start();
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], bridge.address().port()));
    assert_eq!(TcpStream::connect(elsewhere).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn port_in_use_is_said_with_its_holder() {
    let (certificate, target) = echo();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let (code, text) = Bridge::to(&target).pin(&certificate).listen(&address.to_string()).start_in_vain();
    assert_eq!(code, 1);
    assert!(text.contains(&format!("listen on {address}: address already in use")), "{text}");
    assert!(text.contains(&format!("hint: port {} is held by", address.port())), "{text}");
    assert!(text.contains(&format!("PID {}", std::process::id())), "{text}");
}

#[test]
fn port_is_never_shared_with_another_bridge() {
    let (certificate, target) = echo();
    let first = Bridge::to(&target).pin(&certificate).start();
    let (code, text) = Bridge::to(&target).pin(&certificate).listen(&first.address().to_string()).start_in_vain();
    assert_eq!(code, 1);
    assert!(text.contains(&format!("ewsbridge (PID {})", first.pid())), "{text}");
    // Nor by the wildcard.
    let everywhere = format!("0.0.0.0:{}", first.address().port());
    assert_eq!(Bridge::to(&target).pin(&certificate).listen(&everywhere).start_in_vain().0, 1);
}

#[tokio::test]
async fn restart_on_the_same_port_works_at_once() {
    let (certificate, target) = echo();
    let first = Bridge::to(&target).pin(&certificate).start();
    let address = first.address().to_string();
    is_served(&first).await;
    first.stop();
    let second = Bridge::to(&target).pin(&certificate).listen(&address).start();
    is_served(&second).await;
}

#[tokio::test]
async fn terminated_bridge_ends_with_0() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).start();
    is_served(&bridge).await;
    eventually("the session's end", || bridge.sessions() == 1);
    let start = Instant::now();
    bridge.stop();
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn open_connection_may_finish_after_sigterm_and_new_ones_are_refused() {
    let (certificate, target) = echo();
    let mut bridge = Bridge::to(&target).pin(&certificate).args(["--drain-timeout", "30s"]).start();
    let mut client = bridge.client().await;
    bridge.terminate();
    bridge.wait_for_log(&["stopping"]);
    eventually("new connections are refused", || std::net::TcpStream::connect(bridge.address()).is_err());
    client.send(b"late word").await;
    assert_eq!(client.receive(9).await, b"late word");
    client.shut_down().await;
    drop(client);
    bridge.expect_clean_end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_under_way_to_many_at_sigterm_all_arrive_whole() {
    const CLIENTS: usize = 20;
    const HALF: usize = 1 << 20;
    let certificate = Pki::new().server();
    let is_stopping = Arc::new(AtomicBool::new(false));
    let release = Arc::clone(&is_stopping);
    let target = TlsTarget::serve(&certificate, move |mut connection| {
        let mut seed = [0];
        connection.read_exact(&mut seed).unwrap();
        let answer = Stream::bytes(seed[0], 2 * HALF);
        connection.write_all(&answer[..HALF]).unwrap();
        eventually("the stop", || release.load(Ordering::SeqCst));
        connection.write_all(&answer[HALF..]).unwrap();
        connection.close_notify();
    });
    let mut bridge = Bridge::to(&target).pin(&certificate).start();
    let mut clients = Vec::new();
    for seed in 0..u8::try_from(CLIENTS).unwrap() {
        let mut client = bridge.client().await;
        client.send(&[seed]).await;
        clients.push((seed, client.receive(HALF).await, client));
    }
    bridge.terminate();
    bridge.wait_for_log(&["stopping"]);
    is_stopping.store(true, Ordering::SeqCst);
    for (seed, mut answer, mut client) in clients {
        let (rest, end) = client.receive_all().await;
        answer.extend(rest);
        assert!(answer == Stream::bytes(seed, 2 * HALF), "{seed}: {} bytes", answer.len());
        assert_eq!(end, "close_notify", "{seed}");
    }
    bridge.expect_clean_end();
    assert_eq!(bridge.sessions(), CLIENTS);
    assert!(!bridge.log().contains("WARN"), "{}", bridge.log());
}

#[tokio::test]
async fn open_connection_is_cut_when_the_drain_limit_is_over() {
    let (certificate, target) = echo();
    let mut bridge = Bridge::to(&target).pin(&certificate).args(["--drain-timeout", "500ms"]).start();
    let mut client = bridge.client().await;
    bridge.terminate();
    bridge.expect_clean_end();
    bridge.wait_for_log(&["WARN", "cut=1"]);
    let (_, end) = client.receive_all().await;
    assert_ne!(end, "close_notify", "what was under way would look whole");
}

#[tokio::test]
async fn second_sigterm_ends_at_once() {
    let (certificate, target) = echo();
    let mut bridge = Bridge::to(&target).pin(&certificate).args(["--drain-timeout", "1h"]).start();
    let _client = bridge.client().await;
    bridge.terminate();
    bridge.wait_for_log(&["stopping"]);
    bridge.terminate();
    bridge.expect_clean_end();
}

#[test]
fn client_may_talk_before_it_is_asked() {
    // The hello and much more in one go: nothing of it is lost or takes the wrong way.
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut tcp = std::net::TcpStream::connect(bridge.address()).unwrap();
    tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut bytes = client_hello();
    bytes.extend([20, 3, 3, 0, 1, 1]);
    tcp.write_all(&bytes).unwrap();
    let mut first = [0; 6];
    tcp.read_exact(&mut first).unwrap();
    assert_eq!((first[0], first[5]), (22, 2), "{first:02x?}");
}

/// A timer of kind 2 in /proc/net/tcp is keepalive's (proc_net_tcp.rst); its time is in hundredths of a second.
#[tokio::test]
async fn both_legs_are_watched_by_keepalive() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut client = bridge.client().await;
    client.send(b"word").await;
    assert_eq!(client.receive(4).await, b"word");
    let own = |line: &str, column: usize, port: u16| {
        line.split_whitespace().nth(column).is_some_and(|address| address.ends_with(&format!(":{port:04X}")))
    };
    let timers = |column: usize, port: u16| {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let established = table.lines().filter(|line| line.split_whitespace().nth(3) == Some("01"));
        let timer =
            established.filter(|line| own(line, column, port)).map(|line| line.split_whitespace().nth(5).unwrap());
        timer.map(str::to_owned).collect::<Vec<_>>()
    };
    // The bridge's ends: its own port here, the target's port there.
    for (column, port) in [(1, bridge.address().port()), (2, common::Listening::address(&target).port())] {
        eventually("keepalive alone to be armed", || timers(column, port).iter().all(|timer| timer.starts_with("02:")));
        let found = timers(column, port);
        assert_eq!(found.len(), 1, "{found:?}");
        let hundredths = u64::from_str_radix(&found[0][3..], 16).unwrap();
        assert!((1500..=3100).contains(&hundredths), "30 s and not {hundredths} hundredths");
    }
}
