//! A second connection to the target resumes the first one's session, but never outlives its trust.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant, SystemTime};

use openssl::ssl::SslVersion;

use common::{
    Bridge, Certificate, Failure, GnutlsServer, NodeServer, Pki, Resumption, SServer, Switch, TlsTarget, eventually,
};

const OLD: &str = "ALL:@SECLEVEL=0";

/// One connection there and back; whether its session with the target was resumed.
async fn visit(bridge: &Bridge, nth: usize) -> bool {
    let mut client = bridge.client().await;
    client.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    client.shut_down().await;
    drop(client);
    &bridge.nth_session(nth)["resumed"] == "true"
}

/// What `count` connections did.
async fn visits(bridge: &Bridge, count: usize) -> Vec<bool> {
    let mut resumed = Vec::new();
    for nth in 0..count {
        resumed.push(visit(bridge, nth).await);
    }
    resumed
}

fn s_server(certificate: &Certificate, flags: &[&str]) -> SServer {
    SServer::start(certificate, &[&["-www", "-cipher", OLD], flags].concat())
}

#[tokio::test]
async fn by_ticket_and_by_id_in_every_version() {
    let certificate = Pki::new().server();
    for version in ["-tls1", "-tls1_1", "-tls1_2"] {
        for flags in [&[version][..], &[version, "-no_ticket"]] {
            let server = s_server(&certificate, flags);
            let bridge = Bridge::to(&server).pin(&certificate).start();
            assert_eq!(visits(&bridge, 3).await, [false, true, true], "{flags:?}");
        }
    }
}

#[tokio::test]
async fn with_servers_of_their_time() {
    let certificate = Pki::new().server();
    for (version, protocol) in [("4.9.1", "TLSv1"), ("4.9.1", "TLSv1_2"), ("0.12.18", "TLSv1")] {
        let server = NodeServer::start(version, &certificate, protocol, "AES128-SHA");
        let bridge = Bridge::to(&server).pin(&certificate).start();
        assert_eq!(visits(&bridge, 3).await, [false, true, true], "{version} {protocol}");
    }
    let server = GnutlsServer::echo(&certificate, "-VERS-ALL:+VERS-TLS1.2");
    let bridge = Bridge::to(&server).pin(&certificate).start();
    assert_eq!(visits(&bridge, 3).await, [false, true, true], "GnuTLS");
}

#[tokio::test]
async fn refusal_is_silent() {
    let certificate = Pki::new().server();
    for flags in [&["-tls1_2"][..], &["-tls1", "-no_ticket"]] {
        let (one, other) = (s_server(&certificate, flags), s_server(&certificate, flags));
        let switch = Switch::to(&one);
        let bridge = Bridge::to(&switch).pin(&certificate).start();
        assert_eq!(visits(&bridge, 2).await, [false, true]);
        switch.turn_to(&other);
        assert!(!visit(&bridge, 2).await, "another server knows nothing of the session");
        assert!(visit(&bridge, 3).await, "but gives one of its own");
        assert_eq!(switch.accepted(), 4, "one connection for each client");
        assert!(!bridge.log().contains("WARN"), "{}", bridge.log());
    }
}

#[tokio::test]
async fn server_that_chokes_on_a_resumption_is_asked_once_and_every_client_is_served() {
    let certificate = Pki::new().server();
    let server = s_server(&certificate, &["-tls1_2"]);
    for manner in [Resumption::Closes, Resumption::Hangs] {
        let switch = Switch::with(&server, manner);
        let bridge = Bridge::to(&switch).pin(&certificate).args(["--handshake-timeout", "4s"]).start();
        assert_eq!(visits(&bridge, 4).await, [false; 4], "{manner:?}");
        assert_eq!(switch.accepted(), 5, "{manner:?}: one of four was tried twice");
    }
}

#[tokio::test]
async fn no_resumption_where_it_is_off_or_nobody_vouches_or_without_extensions() {
    let certificate = Pki::new().server();
    let server = s_server(&certificate, &["-tls1_1"]);
    let pin = certificate.pin();
    for flags in [&["--pin", &pin, "--no-resumption"][..], &["--insecure"], &["--pin", &pin, "--no-extensions"]] {
        let bridge = Bridge::to(&server).args(flags).start();
        assert_eq!(visits(&bridge, 3).await, [false; 3], "{flags:?}");
    }
}

#[tokio::test]
async fn session_ends_with_the_certificate_that_began_it() {
    let pki = Pki::new();
    let until = SystemTime::now() + Duration::from_secs(6);
    let certificate = pki.server_until(until);
    let server = s_server(&certificate, &["-tls1_2"]);
    let bridge = Bridge::to(&server).arg("--ca").arg(pki.ca_file()).start();
    assert_eq!(visits(&bridge, 2).await, [false, true]);
    eventually("the certificate to expire", || SystemTime::now() > until + Duration::from_secs(1));
    assert!(matches!(bridge.try_client().await, Err(Failure::Alert(_))));
    bridge.wait_for_log(&["certificate", "expired"]);

    // Where that is accepted, the session goes on.
    let bridge = Bridge::to(&server).arg("--ca").arg(pki.ca_file()).args(["--accept", "expired"]).start();
    assert_eq!(visits(&bridge, 2).await, [false, true]);
}

#[tokio::test]
async fn changed_certificate_behind_a_refused_resumption_is_judged() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (one, impostor) = (pki.server(), other.server());
    let (server, theirs) = (s_server(&one, &["-tls1_2"]), s_server(&impostor, &["-tls1_2"]));
    for trust in [["--pin".to_owned(), one.pin()], ["--ca".to_owned(), pki.ca_file().display().to_string()]] {
        let switch = Switch::to(&server);
        let bridge = Bridge::to(&switch).args(&trust).start();
        assert_eq!(visits(&bridge, 2).await, [false, true]);
        switch.turn_to(&theirs);
        assert!(matches!(bridge.try_client().await, Err(Failure::Alert(_))), "{trust:?}");
        bridge.wait_for_log(&["certificate"]);
    }
}

#[tokio::test]
async fn no_two_forwarders_share_a_session() {
    let certificate = Pki::new().server();
    let server = s_server(&certificate, &["-tls1_2"]);
    let one = Bridge::to(&server).pin(&certificate).start();
    assert_eq!(visits(&one, 2).await, [false, true]);
    let other = Bridge::to(&server).pin(&certificate).start();
    assert!(!visit(&other, 0).await);
}

#[tokio::test]
async fn hundred_connections_at_once_resume_and_mix_nothing() {
    let certificate = Pki::new().server();
    let server = NodeServer::start("4.9.1", &certificate, "TLSv1_2", "AES128-SHA");
    let bridge = Bridge::to(&server).pin(&certificate).start();
    visit(&bridge, 0).await;
    let began = Instant::now();
    let clients = (0..100).map(|number: u32| {
        let bridge = &bridge;
        async move {
            let mut client = bridge.client().await;
            let body = number.to_string().repeat(1000);
            let answer = client.request("POST /echo", body.as_bytes()).await;
            assert!(answer.text() == body);
            client.shut_down().await;
        }
    });
    futures_all(clients).await;
    eventually("all sessions to end", || bridge.sessions() == 101);
    let resumed = (1..101).filter(|nth| &bridge.nth_session(*nth)["resumed"] == "true").count();
    assert_eq!(resumed, 100, "in {:?}", began.elapsed());
}

async fn futures_all(all: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|one| one.as_mut().poll(cx).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn server_that_ends_without_close_notify_is_resumed_all_the_same() {
    let certificate = Pki::new().server();
    for version in [SslVersion::TLS1, SslVersion::TLS1_2] {
        let server = TlsTarget::serve_version(version, &certificate, |mut connection| {
            connection.read_exact(&mut [0; 4]).unwrap();
            connection.write_all(b"word").unwrap();
            connection.delivered();
            connection.fin();
        });
        let bridge = Bridge::to(&server).pin(&certificate).start();
        for nth in 0..3 {
            let mut client = bridge.client().await;
            client.send(b"word").await;
            assert_eq!(client.receive_all().await, (b"word".to_vec(), "fin"));
            drop(client);
            let session = bridge.nth_session(nth);
            assert_eq!((&session["end"], &session["resumed"]), ("fin", if nth == 0 { "false" } else { "true" }));
        }
    }
}
