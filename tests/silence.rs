//! A stream that says nothing for a long time, as a subscription to Exchange's notifications may for
//! half an hour, still delivers in both directions.
//!
//! `EWSBRIDGE_LONG=1` keeps 35 minutes of silence with the default settings.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{Bridge, Certificate, Pki, Stream, TlsTarget};
use openssl::ssl::SslVersion;

/// Silence that is longer than any deadline of the set-up before the relay, and than many keepalives.
const SHORT: Duration = Duration::from_secs(15);

/// What every keepalive, NAT entry and default deadline of half an hour lies below.
const LONG: Duration = Duration::from_secs(35 * 60);

/// What the scaled run shortens, so that its silence is long by each of these.
const TUNED: [&str; 5] =
    ["keepalive_time=1s", "keepalive_interval=1s", "hello_timeout=2s", "handshake_timeout=2s", "half_close_timeout=2s"];

const PIECE: usize = 100_000;

/// A target that answers the first request, is silent, speaks unasked, and then waits to be spoken to.
fn target(version: SslVersion, certificate: &Certificate, silence: Duration) -> TlsTarget {
    TlsTarget::serve_version(version, certificate, move |mut connection| {
        let mut request = vec![0; PIECE];
        connection.read_exact(&mut request).expect("the request");
        assert!(request == Stream::bytes("request", PIECE));
        connection.write_all(&Stream::bytes("answer", PIECE)).expect("sent");
        std::thread::sleep(silence);
        connection.write_all(&Stream::bytes("event", PIECE)).expect("sent");
        connection.read_exact(&mut request).expect("what the client says after the event");
        assert!(request == Stream::bytes("unsubscribe", PIECE));
        connection.write_all(&Stream::bytes("goodbye", PIECE)).expect("sent");
        connection.close_notify();
        assert_eq!(connection.end(), "close_notify");
    })
}

async fn delivers_after_silence(version: SslVersion) {
    let long = std::env::var_os("EWSBRIDGE_LONG").is_some();
    let silence = if long { LONG } else { SHORT };
    let certificate = Pki::new().server();
    let target = target(version, &certificate, silence);
    let mut bridge = Bridge::to(&target).pin(&certificate);
    if !long {
        bridge = TUNED.iter().fold(bridge, |bridge, setting| bridge.args(["--set", setting]));
    }
    let bridge = bridge.start();
    let mut client = bridge.client().await;
    client.send(&Stream::bytes("request", PIECE)).await;
    assert!(client.receive(PIECE).await == Stream::bytes("answer", PIECE));
    let began = Instant::now();
    let mut first = [0];
    let event = tokio::io::AsyncReadExt::read_exact(&mut client, &mut first);
    let event = tokio::time::timeout(silence + common::TIMEOUT, event).await.expect("the event in time");
    event.unwrap_or_else(|error| panic!("after {:?}: {error}\n{}", began.elapsed(), bridge.log()));
    let waited = began.elapsed();
    assert!(waited > silence - Duration::from_secs(1), "only {waited:?} of silence");
    let rest = client.receive(PIECE - 1).await;
    assert!([&first[..], &rest].concat() == Stream::bytes("event", PIECE));
    client.send(&Stream::bytes("unsubscribe", PIECE)).await;
    let (goodbye, end) = client.receive_all().await;
    assert!(goodbye == Stream::bytes("goodbye", PIECE));
    assert_eq!(end, "close_notify");
    client.shut_down().await;
    let session = bridge.session();
    assert_eq!((session.number("up"), session.number("down")), (2 * PIECE as u64, 3 * PIECE as u64));
    println!("{version:?}: {:.1} s of silence, then delivered: {}", waited.as_secs_f64(), session.line);
}

#[tokio::test]
async fn a_stream_that_is_silent_for_long_still_delivers_from_tls_1_0() {
    delivers_after_silence(SslVersion::TLS1).await;
}

#[tokio::test]
async fn a_stream_that_is_silent_for_long_still_delivers_from_tls_1_2() {
    delivers_after_silence(SslVersion::TLS1_2).await;
}
