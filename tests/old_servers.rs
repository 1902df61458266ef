//! Through TLS stacks that *are* old: the bytes, big and small, both ways and at once.
//!
//! Node 0.10 and 0.12 carry OpenSSL 1.0.1, node 4 has 1.0.2: no Extended Master Secret, no
//! encrypt-then-MAC, and on 0.10 no ECDHE.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Client, NodeServer, Pki, Stream, read_response, sha256, within};
use openssl::sha::Sha256;
use std::fmt::Write;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// The size of Exchange's own limit on an EWS message.
const MUCH: usize = 64 << 20;

/// Static RSA, for the one without ECDHE, and what a hardened 2008 R2 may have left.
const RSA: &str = "AES256-SHA";
const ECDHE: &str = "ECDHE-RSA-AES128-SHA";

#[tokio::test]
async fn node_0_10_with_tls_1_0() {
    carries_everything("0.10.48", "TLSv1", RSA, "1.0").await;
}

#[tokio::test]
async fn node_0_10_with_tls_1_1() {
    carries_everything("0.10.48", "TLSv1_1", RSA, "1.1").await;
}

#[tokio::test]
async fn node_0_10_with_tls_1_2() {
    carries_everything("0.10.48", "TLSv1_2", RSA, "1.2").await;
}

#[tokio::test]
async fn node_0_12_with_tls_1_0() {
    carries_everything("0.12.18", "TLSv1", ECDHE, "1.0").await;
}

#[tokio::test]
async fn node_0_12_with_tls_1_1() {
    carries_everything("0.12.18", "TLSv1_1", ECDHE, "1.1").await;
}

#[tokio::test]
async fn node_0_12_with_tls_1_2() {
    carries_everything("0.12.18", "TLSv1_2", ECDHE, "1.2").await;
}

#[tokio::test]
async fn node_4_with_tls_1_0() {
    carries_everything("4.9.1", "TLSv1", ECDHE, "1.0").await;
}

#[tokio::test]
async fn node_4_with_tls_1_1() {
    carries_everything("4.9.1", "TLSv1_1", RSA, "1.1").await;
}

#[tokio::test]
async fn node_4_with_tls_1_2() {
    carries_everything("4.9.1", "TLSv1_2", "ECDHE-RSA-AES128-SHA256", "1.2").await;
}

async fn carries_everything(version: &str, protocol: &str, suite: &str, logged: &str) {
    let certificate = Pki::new().server();
    let target = NodeServer::start(version, &certificate, protocol, suite);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    // All on one connection: EWS clients keep theirs.
    let mut client = bridge.client().await;

    much_arrives_up(&mut client).await;
    much_arrives_down(&mut client).await;
    much_arrives_both_ways_at_once(&mut client).await;
    single_bytes_arrive_up(&mut client).await;
    single_bytes_arrive_down(&mut client).await;
    single_bytes_arrive_both_ways_at_once(&mut client).await;

    client.shut_down().await;
    drop(client);
    let session = bridge.session();
    assert_eq!(&session["tls_out"], logged);
    assert_eq!(&session["suite_out"], suite);
    assert_eq!(target.connections(), 1);
    assert!(session.number("up") > 2 * MUCH as u64 && session.number("down") > 2 * MUCH as u64, "{}", session.line);
}

async fn much_arrives_up(client: &mut Client) {
    client.send(head("POST", "/hash", MUCH).as_bytes()).await;
    let expected = within("the upload", write_stream(client, "up", MUCH)).await;
    let answer = within("the answer", read_response(client)).await;
    assert_eq!(answer.text(), format!("{MUCH} {expected}"));
}

async fn much_arrives_down(client: &mut Client) {
    client.send_request(&format!("GET /bytes/{MUCH}/down"), b"").await;
    let answer = within("the download", read_response(client)).await;
    assert_eq!(answer.body.len(), MUCH);
    assert!(sha256(&answer.body) == sha256(&Stream::bytes("down", MUCH)), "the bytes are not those sent");
}

async fn much_arrives_both_ways_at_once(client: &mut Client) {
    let (mut from, mut to) = tokio::io::split(client);
    let upload = async {
        to.write_all(head("POST", "/echo", MUCH).as_bytes()).await.unwrap();
        write_stream(&mut to, "both", MUCH).await
    };
    let download = async {
        let answer = read_response(&mut from).await;
        assert_eq!(answer.body.len(), MUCH);
        sha256(&answer.body)
    };
    let (sent, received) = within("upload and download", async { tokio::join!(upload, download) }).await;
    assert_eq!(sent, received);
}

const LITTLE: usize = 1000;

async fn single_bytes_arrive_up(client: &mut Client) {
    client.send(head("POST", "/hash", LITTLE).as_bytes()).await;
    let bytes = Stream::bytes("drip", LITTLE);
    write_single_bytes(client, &bytes).await;
    let answer = within("the answer", read_response(client)).await;
    assert_eq!(answer.text(), format!("{LITTLE} {}", sha256(&bytes)));
}

async fn single_bytes_arrive_down(client: &mut Client) {
    let answer = client.request(&format!("GET /drip/{LITTLE}/drip"), b"").await;
    assert_eq!(answer.body, Stream::bytes("drip", LITTLE));
}

async fn single_bytes_arrive_both_ways_at_once(client: &mut Client) {
    let bytes = Stream::bytes("both", LITTLE);
    let (mut from, mut to) = tokio::io::split(client);
    let upload = async {
        to.write_all(head("POST", "/echo", LITTLE).as_bytes()).await.unwrap();
        write_single_bytes(&mut to, &bytes).await;
    };
    let ((), answer) = within("upload and download", async { tokio::join!(upload, read_response(&mut from)) }).await;
    assert_eq!(answer.body, bytes);
}

#[tokio::test]
async fn nothing_is_added_or_lost_when_the_target_ends_the_connection() {
    let certificate = Pki::new().server();
    let target = NodeServer::start("0.12.18", &certificate, "TLSv1", RSA);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut client = bridge.client().await;
    client.send(b"GET /bytes/3000000/x HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    let (answer, end) = client.receive_all().await;
    assert_eq!(end, "close_notify");
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(answer[body..] == Stream::bytes("x", 3_000_000), "the bytes are not those sent");
}

fn head(method: &str, path: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
}

/// Writes that much of a stream; its SHA-256.
async fn write_stream(to: &mut (impl AsyncWrite + Unpin), seed: &str, length: usize) -> String {
    let (mut stream, mut hash, mut left) = (Stream::new(seed), Sha256::new(), length);
    while left > 0 {
        let piece = stream.next(left.min(100_003));
        hash.update(&piece);
        to.write_all(&piece).await.unwrap();
        left -= piece.len();
    }
    to.flush().await.unwrap();
    hash.finish().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Writes each byte as a record of its own.
async fn write_single_bytes(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    for byte in bytes {
        to.write_all(&[*byte]).await.unwrap();
        to.flush().await.unwrap();
    }
}
