//! Whatever is wrong with the target, the client sees an alert in place of the ServerHello, in time,
//! and the log says side, stage and cause.

#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Bridge, Builder, Fields, Pki, SServer, TIMEOUT, TcpTarget, TlsTarget, client_hello, curl, full_backlog, python,
    s_client, within,
};
use openssl::ssl::SslVersion;
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A record that tells of a fatal handshake_failure (RFC 8446 §6), in the clear.
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// Deadlines short enough for a test and long enough for a busy machine not to meet them by chance.
const SHORT: &str = "700ms";
const SHORT_TIME: Duration = Duration::from_millis(700);

/// A client's connection: after its hello it gets the alert and the end, and not one byte more. The
/// warning about it.
async fn refused(bridge: &Bridge) -> Fields {
    let mut tcp = TcpStream::connect(bridge.address()).await.unwrap();
    tcp.write_all(&client_hello()).await.unwrap();
    let mut answer = Vec::new();
    within("the alert", tcp.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, HANDSHAKE_FAILURE, "{}", bridge.log());
    bridge.wait_for_log(&["WARN", "target ", "client=127.0.0.1:"])
}

async fn refused_with(bridge: Builder, texts: &[&str]) {
    let bridge = bridge.arg("--insecure").start();
    let line = refused(&bridge).await.line;
    for text in texts {
        assert!(line.contains(text), "no {text:?} in: {line}");
    }
    // The bridge is none the worse for it.
    refused(&bridge).await;
}

/// A port where nothing listens. It stays reserved while the listener lives, which does not accept:
/// it is bound on another address of the loopback.
fn closed_port() -> (SocketAddr, TcpListener) {
    let holder = TcpListener::bind("127.0.0.2:0").unwrap();
    (SocketAddr::from(([127, 0, 0, 1], holder.local_addr().unwrap().port())), holder)
}

#[tokio::test]
async fn closed_port_is_an_alert() {
    let (address, _holder) = closed_port();
    let target = format!("target {address}: connect: ");
    refused_with(Bridge::to(&address), &[&target, "connection refused"]).await;
}

#[tokio::test]
async fn black_hole_is_an_alert_at_the_connect_deadline() {
    let (address, _held) = full_backlog();
    let start = Instant::now();
    let bridge = Bridge::to(&address).args(["--insecure", "--connect-timeout", SHORT]).start();
    let line = refused(&bridge).await.line;
    assert!(line.contains(&format!("target {address}: connect: ")) && line.contains(SHORT), "{line}");
    assert!(start.elapsed() > SHORT_TIME && start.elapsed() < TIMEOUT / 3, "{:?}", start.elapsed());
}

#[tokio::test]
async fn silent_target_is_an_alert_at_the_handshake_deadline() {
    let target = TcpTarget::silent();
    let bridge = Bridge::to(&target).args(["--insecure", "--handshake-timeout", SHORT]).start();
    let start = Instant::now();
    let line = refused(&bridge).await.line;
    assert!(line.contains(": TLS handshake: ") && line.contains(SHORT), "{line}");
    assert!(start.elapsed() > SHORT_TIME && start.elapsed() < TIMEOUT / 3, "{:?}", start.elapsed());
}

#[tokio::test]
async fn target_that_drips_bytes_for_ever_is_an_alert_at_the_handshake_deadline() {
    // A deadline for each byte would never be met.
    let target = TcpTarget::serve(|mut stream| {
        // One record header that promises much, then a byte at a time.
        let mut bytes = [22, 3, 1, 0x3f, 0xff].into_iter().chain(std::iter::repeat(0));
        while stream.write_all(&[bytes.next().unwrap()]).is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let bridge = Bridge::to(&target).args(["--insecure", "--handshake-timeout", SHORT]).start();
    let start = Instant::now();
    refused(&bridge).await;
    assert!(start.elapsed() < TIMEOUT / 3, "{:?}", start.elapsed());
}

#[tokio::test]
async fn target_that_closes_at_once_is_an_alert() {
    let target = TcpTarget::serve(drop);
    refused_with(Bridge::to(&target), &["TLS handshake: the server"]).await;
}

#[tokio::test]
async fn target_that_closes_at_our_hello_is_an_alert() {
    let target = TcpTarget::answering(b"");
    refused_with(Bridge::to(&target), &["TLS handshake: the server closed the connection"]).await;
}

#[tokio::test]
async fn target_that_resets_is_an_alert() {
    let target = TcpTarget::serve(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    refused_with(Bridge::to(&target), &["TLS handshake: the server reset the connection"]).await;
}

#[tokio::test]
async fn target_that_speaks_plain_http_is_an_alert_and_named() {
    let target = TcpTarget::answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    refused_with(Bridge::to(&target), &["TLS handshake: ", "plain HTTP", "hint="]).await;
}

#[tokio::test]
async fn target_that_speaks_another_protocol_is_an_alert() {
    let ssh = TcpTarget::answering(b"SSH-2.0-OpenSSH_9.2\r\n");
    refused_with(Bridge::to(&ssh), &["TLS handshake: ", "SSH"]).await;
    let garbage = TcpTarget::answering(b"\x00\x01\x02garbage that is no TLS at all\r\n");
    refused_with(Bridge::to(&garbage), &["TLS handshake: ", "not TLS"]).await;
}

/// A ServerHello of this version (3.0 is SSL 3, 3.1 TLS 1.0) with AES128-SHA and no extension.
const fn server_hello(minor: u8) -> [u8; 47] {
    let mut bytes = [0; 47];
    // Record, handshake message, version; then a random number and a session of zeroes.
    let head = [22, 3, minor, 0, 42, 2, 0, 0, 38, 3, minor];
    let mut at = 0;
    while at < head.len() {
        bytes[at] = head[at];
        at += 1;
    }
    bytes[45] = 0x2f;
    bytes
}

#[tokio::test]
async fn server_of_ssl_3_is_an_alert() {
    const HELLO: [u8; 47] = server_hello(0);
    let target = TcpTarget::answering(&HELLO);
    refused_with(Bridge::to(&target), &["TLS handshake: ", "SSL 3"]).await;
}

#[tokio::test]
async fn server_without_secure_renegotiation_is_an_alert() {
    // Its ServerHello lacks the extension of RFC 5746.
    const HELLO: [u8; 47] = server_hello(1);
    let target = TcpTarget::answering(&HELLO);
    refused_with(Bridge::to(&target), &["TLS handshake: ", "RFC 5746", "hint="]).await;
}

#[tokio::test]
async fn target_older_than_allowed_is_an_alert_with_the_cure() {
    let certificate = Pki::new().server();
    let target = TlsTarget::serve(&certificate, drop);
    let bridge = Bridge::to(&target).args(["--min-tls", "1.2"]);
    refused_with(bridge, &["TLS handshake: ", "min_tls is 1.2", "--min-tls 1.0"]).await;
}

#[tokio::test]
async fn target_newer_than_allowed_is_an_alert() {
    let certificate = Pki::new().server();
    let target = TlsTarget::serve_version(SslVersion::TLS1_2, &certificate, drop);
    refused_with(Bridge::to(&target).args(["--max-tls", "1.1"]), &["TLS handshake: ", "TLS 1.0 to 1.1"]).await;
}

#[tokio::test]
async fn target_of_tls_1_3_only_is_an_alert() {
    let certificate = Pki::new().server();
    let target = SServer::start(&certificate, &["-tls1_3"]);
    refused_with(Bridge::to(&target), &["TLS handshake: ", "TLS 1.0 to 1.2"]).await;
}

#[tokio::test]
async fn no_cipher_in_common_is_an_alert() {
    let certificate = Pki::new().server();
    let target = SServer::start(&certificate, &["-tls1_2", "-cipher", "AES128-SHA"]);
    let bridge = Bridge::to(&target).args(["--ciphers", "AES256-SHA"]);
    refused_with(bridge, &["TLS handshake: ", "AES256-SHA"]).await;
}

#[tokio::test]
async fn unresolvable_name_is_an_alert() {
    // .invalid never resolves (RFC 6761).
    let bridge = Bridge::to_name("no-such-host.invalid:443");
    refused_with(bridge, &["target no-such-host.invalid:443: look-up: "]).await;
}

#[tokio::test]
async fn target_that_is_back_is_reached_without_a_restart() {
    let (address, holder) = closed_port();
    let bridge = Bridge::to(&address).arg("--insecure").start();
    refused(&bridge).await;
    let listener = TcpListener::bind(address).unwrap();
    drop(holder);
    let accepted = std::thread::spawn(move || listener.accept().is_ok());
    assert!(bridge.try_client().await.is_err());
    assert!(accepted.join().unwrap());
}

#[tokio::test]
async fn client_that_leaves_meanwhile_frees_the_target() {
    let target = TcpTarget::serve(|mut stream| {
        // Until the bridge closes, which happens long before its deadline.
        let start = Instant::now();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        assert!(start.elapsed() < Duration::from_secs(10));
    });
    let bridge = Bridge::to(&target).arg("--insecure").start();
    let mut tcp = TcpStream::connect(bridge.address()).await.unwrap();
    tcp.write_all(&client_hello()).await.unwrap();
    common::eventually("the target is dialled", || target.accepted() == 1);
    drop(tcp);
    common::eventually("the target is let go", || target.ended() == 1);
}

/// What ordinary clients make of it stands in the documentation.
#[test]
fn clients_name_the_alert() {
    let (address, _holder) = closed_port();
    let bridge = Bridge::to(&address).arg("--insecure").start();
    let ca = bridge.ca_file();

    let (code, text) = s_client(bridge.address(), &[], "");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("alert handshake failure") && text.contains("SSL alert number 40"), "{text}");

    let (code, text) = curl(&bridge, Some(&ca), "localhost");
    assert_eq!(code, 35, "{text}");
    assert!(text.contains("alert handshake failure"), "{text}");

    let (code, text) = python(&bridge, Some(&ca), "localhost");
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("ALERT_HANDSHAKE_FAILURE"), "{text}");
}
