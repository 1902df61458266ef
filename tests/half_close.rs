//! One side has ended and the other has not: what each hears of it, and for how long it goes on.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Connection, Pki, Stream, TIMEOUT, TlsTarget, eventually};
use openssl::ssl::SslVersion;
use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

const REQUEST: &[u8] = b"request";
const ANSWER: usize = 1 << 20;

/// A target that does this after it got the request, and a bridge to it with these settings.
fn after_request(settings: &[&str], serve: impl Fn(Connection) + Send + Sync + 'static) -> (TlsTarget, Bridge) {
    after_request_by(SslVersion::TLS1, settings, serve)
}

fn after_request_by(
    version: SslVersion,
    settings: &[&str],
    serve: impl Fn(Connection) + Send + Sync + 'static,
) -> (TlsTarget, Bridge) {
    let certificate = Pki::new().server();
    let target = TlsTarget::serve_version(version, &certificate, move |mut connection| {
        connection.read_exact(&mut [0; REQUEST.len()]).unwrap();
        serve(connection);
    });
    let bridge = Bridge::to(&target).pin(&certificate);
    let bridge = settings.iter().fold(bridge, |bridge, setting| bridge.arg("--set").arg(setting));
    (target, bridge.start())
}

/// What a client gets that sends its request and ends at once, how it ends, and after what time.
async fn answer_to_one_that_ended(bridge: &Bridge) -> (Vec<u8>, &'static str, Duration) {
    let mut client = bridge.client().await;
    client.send(REQUEST).await;
    let start = Instant::now();
    client.close_notify().await;
    let (answer, end) = client.receive_all().await;
    (answer, end, start.elapsed())
}

#[tokio::test]
async fn close_notify_is_forwarded_without_a_fin_until_the_target_has_ended() {
    for version in [SslVersion::TLS1, SslVersion::TLS1_2] {
        let (told, tell) = channel();
        let (_target, bridge) = after_request_by(version, &[], move |mut connection| {
            assert_eq!(connection.end(), "close_notify");
            // As an IIS with an answer to compute: a FIN would make it give up.
            std::thread::sleep(Duration::from_millis(500));
            assert!(!connection.is_at_end(), "a FIN came with it");
            connection.write_all(&Stream::bytes("answer", ANSWER)).unwrap();
            connection.close_notify();
            eventually("a FIN", || connection.is_at_end());
            told.send(()).unwrap();
        });
        // The client's own FIN changes nothing.
        let mut client = bridge.client().await;
        client.send(REQUEST).await;
        client.shut_down().await;
        let (answer, end) = client.receive_all().await;
        assert!(answer == Stream::bytes("answer", ANSWER), "{} bytes", answer.len());
        assert_eq!(end, "close_notify");
        tell.recv_timeout(TIMEOUT).unwrap();
    }
}

#[tokio::test]
async fn target_that_drops_its_answer_at_close_notify_gives_it_only_where_the_end_is_held() {
    // RFC 5246 §7.2.1 to the letter: answer with close_notify, close at once, discard what is pending.
    let obeying = |mut connection: Connection| {
        if !connection.hears_close_notify(Duration::from_secs(1)) {
            connection.write_all(&Stream::bytes("answer", ANSWER)).unwrap();
            assert_eq!(connection.end(), "close_notify");
        }
        connection.close_notify();
    };
    for version in [SslVersion::TLS1, SslVersion::TLS1_2] {
        let (_target, bridge) = after_request_by(version, &["half_close=forward"], obeying);
        let (answer, end, _) = answer_to_one_that_ended(&bridge).await;
        assert_eq!((answer.len(), end), (0, "close_notify"));
        let (_target, bridge) = after_request_by(version, &["half_close=hold"], obeying);
        let (answer, end, time) = answer_to_one_that_ended(&bridge).await;
        assert!(answer == Stream::bytes("answer", ANSWER), "{} bytes", answer.len());
        assert_eq!(end, "close_notify");
        // Five seconds after its last byte it is told, long before the 60 s of half_close_timeout.
        assert!(time > Duration::from_secs(5) && time < Duration::from_secs(20), "{time:?}");
        let session = bridge.session();
        assert_eq!((&session["ended_by"], &session["end"]), ("client", "close_notify"));
        assert_eq!(session.number("down"), ANSWER as u64);
    }
}

#[tokio::test]
async fn target_that_waits_for_the_end_before_it_answers_gets_it_at_once_or_when_it_is_released() {
    let waiting = |mut connection: Connection| {
        assert_eq!(connection.end(), "close_notify");
        // It takes its time, though less than half_close_timeout, which has begun anew.
        std::thread::sleep(Duration::from_millis(1500));
        connection.write_all(&Stream::bytes("answer", ANSWER)).unwrap();
        connection.close_notify();
    };
    for (half_close, released_after) in [("forward", 0), ("hold", 2)] {
        let setting = format!("half_close={half_close}");
        let (_target, bridge) = after_request(&[&setting, "half_close_timeout=2s"], waiting);
        let (answer, end, time) = answer_to_one_that_ended(&bridge).await;
        assert!(answer == Stream::bytes("answer", ANSWER), "{half_close}: {} bytes", answer.len());
        assert_eq!(end, "close_notify", "{half_close}");
        let earliest = Duration::from_millis(1500) + Duration::from_secs(released_after);
        assert!(time >= earliest, "{half_close}: {time:?}");
        // With hold it would not be told before 5 s without that timeout.
        assert!(released_after > 0 || time < earliest + Duration::from_secs(2), "{half_close}: {time:?}");
    }
}

#[tokio::test]
async fn held_end_is_cut_after_two_silences() {
    let (told, tell) = channel();
    let (_target, bridge) = after_request(&["half_close=hold", "half_close_timeout=1s"], move |mut connection| {
        told.send(connection.end()).unwrap();
        eventually("the end of TCP", || connection.is_at_end());
    });
    let (answer, end, time) = answer_to_one_that_ended(&bridge).await;
    assert!(answer.is_empty() && end != "close_notify", "{end}");
    assert!(time > Duration::from_secs(2) && time < Duration::from_secs(10), "{time:?}");
    assert_eq!(tell.recv_timeout(TIMEOUT).unwrap(), "close_notify");
    assert_eq!(&bridge.session()["ended_by"], "bridge");
}

#[tokio::test]
async fn client_may_go_on_sending_after_the_target_has_ended() {
    for half_close in ["half_close=forward", "half_close=hold"] {
        for with_fin in [false, true] {
            let (told, tell) = channel();
            let (_target, bridge) = after_request(&[half_close], move |mut connection| {
                connection.write_all(b"answer").unwrap();
                if with_fin {
                    connection.half_fin();
                } else {
                    connection.close_notify();
                }
                told.send(connection.receive_all()).unwrap();
            });
            let mut client = bridge.client().await;
            client.send(REQUEST).await;
            let (answer, end) = client.receive_all().await;
            assert_eq!((answer.as_slice(), end), (&b"answer"[..], if with_fin { "fin" } else { "close_notify" }));
            client.send(&Stream::bytes("more", ANSWER)).await;
            client.shut_down().await;
            let (more, end) = tell.recv_timeout(TIMEOUT).unwrap();
            assert!(more == Stream::bytes("more", ANSWER), "{half_close} {with_fin}: {} bytes", more.len());
            assert_eq!(end, "close_notify");
            let session = bridge.session();
            assert_eq!(session.number("up"), (REQUEST.len() + ANSWER) as u64);
            assert_eq!(&session["ended_by"], "target");
        }
    }
}

#[tokio::test]
async fn client_that_resets_after_its_half_close_frees_the_target() {
    for half_close in ["half_close=forward", "half_close=hold"] {
        let (told, tell) = channel();
        let (_target, bridge) = after_request(&[half_close], move |mut connection| {
            let end = connection.end();
            // What follows a close_notify is seen below TLS.
            eventually("the end of TCP", || end != "close_notify" || connection.is_at_end());
            told.send(()).unwrap();
        });
        let mut client = bridge.client().await;
        client.send(REQUEST).await;
        client.close_notify().await;
        client.delivered();
        client.reset();
        let start = Instant::now();
        tell.recv_timeout(TIMEOUT).unwrap();
        let session = bridge.session();
        assert_eq!((&session["ended_by"], &session["end"]), ("client", "reset"), "{half_close}");
        assert!(start.elapsed() < Duration::from_secs(10), "{half_close}: {:?}", start.elapsed());
    }
}

#[tokio::test]
async fn end_behind_an_upload_that_the_target_does_not_take_counts() {
    // Until the end of the test.
    let (_go, gone) = channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let (_target, bridge) = after_request(&["half_close_timeout=1s"], move |connection| {
        let _ = gone.lock().unwrap().recv();
        drop(connection);
    });
    let mut client = bridge.client().await;
    client.send(REQUEST).await;
    // Until the bridge lets bytes lie. More would close its window, and no FIN passes that.
    let mut looks = 0;
    while looks < 20 {
        client.write_all(&[7; 32 << 10]).await.unwrap();
        client.delivered();
        looks = 0;
        while looks < 20 && unread(&bridge, client.port()) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            looks += 1;
        }
    }
    assert_eq!(bridge.sessions(), 0, "it is not cut as long as it has not ended\n{}", bridge.log());
    client.fin();
    let start = Instant::now();
    let session = bridge.session();
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((&session["ended_by"], &session["end"]), ("bridge", "silent for 1s"), "{}", session.line);
}

/// What lies unread in the bridge's socket to the client with this port (proc_net_tcp(5)).
fn unread(bridge: &Bridge, port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, remote) = (format!(":{:04X}", bridge.address().port()), format!(":{port:04X}"));
    let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut line = line.filter(|fields| fields[1].ends_with(&local) && fields[2].ends_with(&remote));
    let queues = line.next().expect("the connection")[4];
    u64::from_str_radix(queues.split_once(':').unwrap().1, 16).unwrap()
}
