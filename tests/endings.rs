//! How connections end: what was sent arrives, and each side learns what the other did.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Certificate, Connection, Pki, Stream, TIMEOUT, TlsTarget, read_response, within};
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const REQUEST: &[u8] = b"request";

/// More than all buffers on the way hold.
const MUCH: usize = 10 << 20;

/// A target that runs this after it got the request, and a bridge to it.
fn after_request(serve: impl Fn(Connection) + Send + Sync + 'static, flags: &[&str]) -> (TlsTarget, Bridge) {
    let certificate = Pki::new().server();
    let target = TlsTarget::serve(&certificate, move |mut connection| {
        let mut request = [0; REQUEST.len()];
        connection.read_exact(&mut request).unwrap();
        assert_eq!(request, REQUEST);
        serve(connection);
    });
    let bridge = Bridge::to(&target).pin(&certificate).args(flags).start();
    (target, bridge)
}

/// A target that answers the first byte with another and tells so, then how its client ended, and when.
fn telling_the_end(certificate: &Certificate) -> (TlsTarget, Receiver<(&'static str, Instant)>) {
    let (sender, receiver) = channel();
    let target = TlsTarget::serve(certificate, move |mut connection| {
        if connection.read_exact(&mut [0]).is_ok() {
            connection.write_all(b"!").unwrap();
            sender.send(("begun", Instant::now())).unwrap();
        }
        let end = connection.end();
        sender.send((end, Instant::now())).unwrap();
    });
    (target, receiver)
}

#[tokio::test]
async fn reply_to_a_half_closed_client_arrives_whole() {
    for with_fin in [false, true] {
        let (_target, bridge) = after_request(
            |mut connection| {
                // The end arrives before the answer is begun.
                assert_eq!(connection.end(), "close_notify");
                std::thread::sleep(Duration::from_secs(1));
                connection.write_all(&Stream::bytes("reply", MUCH)).unwrap();
                connection.close_notify();
            },
            &[],
        );
        let mut client = bridge.client().await;
        client.send(REQUEST).await;
        if with_fin {
            client.shut_down().await;
        } else {
            client.close_notify().await;
        }
        let (reply, end) = client.receive_all().await;
        assert!(reply == Stream::bytes("reply", MUCH), "{} of {MUCH} bytes, with_fin={with_fin}", reply.len());
        assert_eq!(end, "close_notify");
        drop(client);
        let session = bridge.session();
        assert_eq!((session.number("up"), session.number("down")), (REQUEST.len() as u64, MUCH as u64));
        assert_eq!((&session["ended_by"], &session["end"]), ("client", "close_notify"));
    }
}

#[tokio::test]
async fn close_notify_of_the_target_reaches_the_client() {
    let (_target, bridge) = after_request(
        |mut connection| {
            connection.write_all(b"answer").unwrap();
            connection.close_notify();
            // And then waits for the client's.
            assert_eq!(connection.end(), "close_notify");
        },
        &[],
    );
    let mut client = bridge.client().await;
    client.send(REQUEST).await;
    assert_eq!(client.receive_all().await, (b"answer".to_vec(), "close_notify"));
    client.shut_down().await;
    drop(client);
    let session = bridge.session();
    assert_eq!((&session["ended_by"], &session["end"]), ("target", "close_notify"));
}

#[tokio::test]
async fn fin_without_close_notify_is_passed_on_as_such() {
    let (_target, bridge) = after_request(
        |mut connection| {
            connection.write_all(&Stream::bytes("answer", MUCH)).unwrap();
            connection.fin();
        },
        &[],
    );
    let mut client = bridge.client().await;
    client.send(REQUEST).await;
    let (answer, end) = client.receive_all().await;
    assert!(answer == Stream::bytes("answer", MUCH), "{} of {MUCH} bytes", answer.len());
    assert_eq!(end, "fin", "a truncated answer would look whole");
    drop(client);
    let session = bridge.session();
    assert_eq!((&session["ended_by"], &session["end"]), ("target", "fin"));
}

#[tokio::test]
async fn reset_of_the_target_is_no_clean_end_for_the_client() {
    let (go, gone) = channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let (_target, bridge) = after_request(
        move |mut connection| {
            connection.write_all(b"half an ans").unwrap();
            gone.lock().unwrap().recv_timeout(TIMEOUT).unwrap();
            connection.reset();
        },
        &[],
    );
    let mut client = bridge.client().await;
    client.send(REQUEST).await;
    assert_eq!(client.receive(11).await, b"half an ans");
    go.send(()).unwrap();
    let (rest, end) = client.receive_all().await;
    assert_eq!(rest, b"");
    assert_ne!(end, "close_notify");
    drop(client);
    let session = bridge.session();
    assert_eq!((&session["ended_by"], &session["end"]), ("target", "reset"));
}

#[tokio::test]
async fn vanished_client_frees_the_target_within_a_second() {
    // Exchange has three places for hanging requests of one account.
    let certificate = Pki::new().server();
    let (target, ended) = telling_the_end(&certificate);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut client = bridge.client().await;
    client.send(b"GET /streaming").await;
    assert_eq!(ended.recv_timeout(TIMEOUT).unwrap().0, "begun");
    assert_eq!(client.receive(1).await, b"!");
    let start = Instant::now();
    client.reset();
    let (end, when) = ended.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(end, "reset");
    assert!(when - start < Duration::from_secs(1), "{:?}", when - start);
    let session = bridge.session();
    assert_eq!((&session["ended_by"], &session["end"]), ("client", "reset"));
}

#[tokio::test]
async fn killed_client_frees_the_target_within_a_second() {
    let certificate = Pki::new().server();
    let (target, ended) = telling_the_end(&certificate);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut command = std::process::Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &bridge.address().to_string()]);
    let mut client = common::Child::spawn(&mut command);
    client.say(b"GET /streaming\n");
    assert_eq!(ended.recv_timeout(TIMEOUT).unwrap().0, "begun");
    assert_eq!(target.handshakes(), 1);
    let start = Instant::now();
    client.kill();
    let (_, when) = ended.recv_timeout(TIMEOUT).unwrap();
    assert!(when - start < Duration::from_secs(1), "{:?}", when - start);
}

#[tokio::test]
async fn close_notify_of_the_client_reaches_the_target() {
    let certificate = Pki::new().server();
    let (target, ended) = telling_the_end(&certificate);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut client = bridge.client().await;
    client.send(&Stream::bytes("up", MUCH)).await;
    client.shut_down().await;
    assert_eq!(ended.recv_timeout(TIMEOUT).unwrap().0, "begun");
    assert_eq!(ended.recv_timeout(TIMEOUT).unwrap().0, "close_notify");
    drop(client);
    assert_eq!(bridge.session().number("up"), MUCH as u64);
}

#[tokio::test]
async fn early_answer_arrives_while_the_client_still_uploads() {
    // IIS answers 401 before it reads the body. Reading one way at a time would stand still here.
    let (answered, go_on) = channel::<()>();
    let go_on = std::sync::Mutex::new(go_on);
    let (_target, bridge) = after_request(
        move |mut connection| {
            connection.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").unwrap();
            go_on.lock().unwrap().recv_timeout(TIMEOUT).unwrap();
            let mut body = vec![0; MUCH];
            connection.read_exact(&mut body).unwrap();
            assert!(body == Stream::bytes("body", MUCH), "the upload was changed");
            connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        },
        &[],
    );
    let mut client = bridge.client().await;
    client.send(REQUEST).await;
    let (mut from, mut to) = tokio::io::split(&mut client);
    let upload = async {
        to.write_all(&Stream::bytes("body", MUCH)).await.unwrap();
        to.flush().await.unwrap();
    };
    let download = async {
        assert_eq!(read_response(&mut from).await.status, 401);
        // Only now does the target read on: the upload can't have ended before.
        answered.send(()).unwrap();
        assert_eq!(read_response(&mut from).await.status, 200);
    };
    within("both directions", async { tokio::join!(upload, download) }).await;
}

#[tokio::test]
async fn answer_arrives_though_the_target_reads_no_more() {
    let (answered, done) = channel::<()>();
    let done = std::sync::Mutex::new(done);
    let (_target, bridge) = after_request(
        move |mut connection| {
            connection.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").unwrap();
            connection.close_notify();
            done.lock().unwrap().recv_timeout(TIMEOUT).unwrap();
        },
        &[],
    );
    let mut client = bridge.client().await;
    client.send(REQUEST).await;
    let (mut from, mut to) = tokio::io::split(&mut client);
    let body = Stream::bytes("body", MUCH);
    tokio::select! {
        // It may stand still or fail, as it would without a bridge.
        never = async { let _ = to.write_all(&body).await; std::future::pending::<()>().await } => never,
        answer = within("the answer", read_response(&mut from)) => assert_eq!(answer.status, 413),
    }
    answered.send(()).unwrap();
}

#[tokio::test]
async fn half_closed_connection_ends_after_its_silence_and_not_before() {
    let (target, bridge) = after_request(
        |mut connection| {
            connection.end();
            // Five pieces, each in time, altogether longer than the limit.
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(400));
                connection.write_all(b"piece").unwrap();
            }
            // And then nothing more.
            std::thread::sleep(Duration::from_secs(5));
        },
        &["--half-close-timeout", "1s"],
    );
    let mut client = bridge.client().await;
    client.send(REQUEST).await;
    client.close_notify().await;
    let start = Instant::now();
    let (pieces, end) = client.receive_all().await;
    assert_eq!(pieces, b"piece".repeat(5));
    assert_ne!(end, "close_notify", "an answer cut short would look whole");
    assert!(start.elapsed() > Duration::from_secs(3) && start.elapsed() < Duration::from_millis(6500));
    let session = bridge.session();
    assert_eq!(&session["ended_by"], "bridge");
    assert!(session["end"].contains("1s"), "{}", session.line);
    drop(target);
}

#[tokio::test]
async fn idle_connection_ends_after_the_time_set() {
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    let bridge = Bridge::to(&target).pin(&certificate).args(["--idle-timeout", "1s"]).start();
    let mut client = bridge.client().await;
    let start = Instant::now();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        client.send(b"word").await;
        assert_eq!(client.receive(4).await, b"word");
    }
    let (_, end) = client.receive_all().await;
    assert_ne!(end, "close_notify");
    assert!(start.elapsed() > Duration::from_millis(2500), "{:?}", start.elapsed());
    assert_eq!(&bridge.session()["ended_by"], "bridge");
}

#[tokio::test]
async fn small_writes_are_not_held_back() {
    // With Nagle's algorithm on a leg each round would take at least 40 ms.
    const ROUNDS: usize = 100;
    let certificate = Pki::new().server();
    let target = TlsTarget::serve(&certificate, |mut connection| {
        let mut pair = [0; 2];
        for _ in 0..ROUNDS {
            connection.read_exact(&mut pair).unwrap();
            connection.write_all(&pair[..1]).unwrap();
            connection.write_all(&pair[1..]).unwrap();
        }
    });
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut client = bridge.client().await;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        client.send(b"a").await;
        client.send(b"b").await;
        assert_eq!(client.receive(2).await, b"ab");
    }
    assert!(start.elapsed() < Duration::from_millis(40) * 100 / 2, "{:?}", start.elapsed());
}

#[tokio::test]
async fn payload_is_never_logged() {
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    let bridge = Bridge::to(&target).pin(&certificate).env("EWSBRIDGE_LOG", "trace").start();
    let mut client = bridge.client().await;
    client.send(b"Authorization: Basic c2VjcmV0").await;
    client.receive(29).await;
    client.shut_down().await;
    drop(client);
    bridge.session();
    assert!(!bridge.log().contains("Authorization") && !bridge.log().contains("c2VjcmV0"), "{}", bridge.log());
}

/// A target that answers an upload early, in full, and then breaks off, as a `close` with unread
/// input does: what it sent has arrived, and a reset comes behind it.
#[tokio::test]
async fn early_answer_with_a_reset_behind_it_arrives_whole() {
    const ANSWER: usize = 300_000;
    for round in 0..5 {
        let (_target, bridge) = after_request(
            |mut connection| {
                connection.write_all(&Stream::bytes("answer", ANSWER)).unwrap();
                connection.delivered();
                connection.reset();
            },
            &[],
        );
        let mut client = bridge.client().await;
        client.send(REQUEST).await;
        let (mut from, mut to) = tokio::io::split(&mut client);
        let upload = async {
            // Ends with an error once the bridge takes no more.
            while to.write_all(&[7; 16 << 10]).await.is_ok() {}
        };
        let download = async {
            let mut answer = vec![0; ANSWER];
            from.read_exact(&mut answer).await.map(|_| answer)
        };
        // A late reader: when it begins, the reset is long there.
        let late = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            download.await
        };
        let answer = within("the answer", async {
            tokio::select! {
                answer = late => answer,
                () = async { upload.await; std::future::pending::<()>().await } => unreachable!(),
            }
        });
        let answer = answer.await.unwrap_or_else(|error| panic!("round {round}: {error}\n{}", bridge.session().line));
        assert!(answer == Stream::bytes("answer", ANSWER), "round {round}: the answer was changed");
    }
}

#[tokio::test]
async fn client_that_gave_up_behind_its_upload_frees_a_target_that_reads_nothing() {
    let certificate = Pki::new().server();
    let (tell, told) = channel();
    let hold = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let target = TlsTarget::serve(&certificate, move |connection| {
        hold.lock().unwrap().push(connection);
        tell.send(()).unwrap();
    });
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let mut client = bridge.client().await;
    told.recv_timeout(TIMEOUT).unwrap();
    // Until nobody takes any more: the client, the bridge and the target's queue are full.
    let full = async { while client.write_all(&[7; 16 << 10]).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_secs(2), full).await.is_err());
    assert_eq!(bridge.sessions(), 0);
    client.reset();
    let session = bridge.session();
    assert_eq!((&session["ended_by"], &session["end"]), ("client", "reset"));
}
