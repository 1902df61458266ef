//! Several targets: tried in order, passed over while they fail, used again once they answer.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{
    Act, Bridge, Builder, Certificate, End, Failure, Flaw, Listening, Pki, SServer, TcpTarget, TlsTarget, client_hello,
    eventually, full_backlog, gate,
};
use rustls::AlertDescription;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A server before which a switch stands: while it is off, each ClientHello is met with a FIN.
struct Plug {
    tcp: TcpTarget,
    is_on: Arc<AtomicBool>,
}

impl Plug {
    fn before(server: &impl Listening) -> Self {
        let is_on = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&is_on);
        let act = move |on| if on { Act::Pass } else { Act::AtHello(End::Closes) };
        Self { tcp: gate(server, move |_| act(asked.load(Ordering::SeqCst))), is_on }
    }

    fn turn(&self, on: bool) {
        self.is_on.store(on, Ordering::SeqCst);
    }
}

impl Listening for Plug {
    fn address(&self) -> SocketAddr {
        self.tcp.address()
    }
}

/// A bridge to these, in this order.
fn to(targets: &[SocketAddr]) -> Builder {
    let targets: Vec<String> = targets.iter().map(SocketAddr::to_string).collect();
    Bridge::to_name(&targets.join(","))
}

/// One connection there and back; the target that served it and whether it resumed a session.
async fn visit(bridge: &Bridge, nth: usize) -> (SocketAddr, bool) {
    let mut client = bridge.client().await;
    client.send(b"word").await;
    assert_eq!(client.receive(4).await, b"word");
    client.shut_down().await;
    drop(client);
    let line = bridge.nth_session(nth);
    (line["target"].parse().unwrap(), &line["resumed"] == "true")
}

/// A port that nothing listens on.
fn closed_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn two() -> (Certificate, TlsTarget, TlsTarget) {
    let certificate = Pki::new().server();
    let (first, second) = (TlsTarget::echo(&certificate), TlsTarget::echo(&certificate));
    (certificate, first, second)
}

#[tokio::test]
async fn first_is_used_as_long_as_it_answers() {
    let (certificate, first, second) = two();
    let bridge = to(&[first.address(), second.address()]).pin(&certificate).start();
    for nth in 0..3 {
        assert_eq!(visit(&bridge, nth).await.0, first.address());
    }
    assert_eq!(second.accepted(), 0);
    assert!(!bridge.log().contains("WARN"), "{}", bridge.log());
}

/// What the first target may do, what the log says of it, and what is bound to it for the test.
async fn second_is_used(first: &str, told: &str, certificate: &Certificate, configure: impl Fn(Builder) -> Builder) {
    let second = TlsTarget::echo(certificate);
    let bridge = configure(Bridge::to_name(&format!("{first},{}", second.address()))).start();
    let began = Instant::now();
    assert_eq!(visit(&bridge, 0).await.0, second.address(), "{first}");
    assert!(began.elapsed() < Duration::from_secs(5), "{first}: {:?}", began.elapsed());
    let told = format!("target {first}: {told}");
    let then = format!("; {} is used; tried again in 1s ", second.address());
    bridge.wait_for_log(&[&told, &then, "forwarder=run"]);
    assert_eq!(bridge.log().matches(&told).count(), 1, "{}", bridge.log());
}

#[tokio::test]
async fn next_is_used_by_the_same_connection_whatever_the_first_does() {
    let pki = Pki::new();
    let certificate = pki.server();
    let pin = |bridge: Builder| bridge.pin(&certificate);
    let refused = closed_port().to_string();
    second_is_used(&refused, "connect: connection refused", &certificate, pin).await;
    // .invalid never resolves (RFC 6761).
    second_is_used("no-such-host.invalid:443", "look-up: ", &certificate, pin).await;
    let closing = TcpTarget::answering(b"");
    second_is_used(&closing.address().to_string(), "TLS handshake: ", &certificate, pin).await;
    let silent = TcpTarget::silent();
    second_is_used(&silent.address().to_string(), "TLS handshake: not finished within 1s", &certificate, |bridge| {
        pin(bridge).args(["--handshake-timeout", "1s"])
    })
    .await;
    // Half of connect_timeout is left for the second.
    let (hole, _queue) = full_backlog();
    second_is_used(&hole.to_string(), "connect: no answer within 1s", &certificate, |bridge| {
        pin(bridge).args(["--connect-timeout", "2s"])
    })
    .await;
}

#[tokio::test]
async fn first_that_hangs_is_passed_over_although_no_client_waits_for_our_deadline() {
    let certificate = Pki::new().server();
    let (silent, second) = (TcpTarget::silent(), TlsTarget::echo(&certificate));
    // Our deadline is 15 s, the clients' patience half a second and 7 s.
    let bridge = to(&[silent.address(), second.address()]).pin(&certificate).start();
    for patience in [500, 7000] {
        let mut tcp = TcpStream::connect(bridge.address()).await.unwrap();
        tcp.write_all(&client_hello()).await.unwrap();
        eventually("the first to be tried", || silent.accepted() > 0);
        tokio::time::sleep(Duration::from_millis(patience)).await;
        drop(tcp);
    }
    let told = format!("target {}: no connection after ", silent.address());
    bridge.wait_for_log(&["WARN", &told, "s, when the client left; tried again in 1s"]);
    let began = Instant::now();
    assert_eq!(visit(&bridge, 0).await.0, second.address());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // A client that left at once said nothing about the target.
    assert_eq!((bridge.log().matches("when the client left").count(), silent.accepted()), (1, 2), "{}", bridge.log());
}

#[tokio::test]
async fn target_whose_certificate_is_refused_is_an_error_and_gets_no_byte_of_a_client() {
    let pki = Pki::new();
    let certificate = pki.server();
    let bytes = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&bytes);
    let expired = TlsTarget::serve(&pki.flawed(Flaw::Expired), move |mut connection| {
        let read = std::io::Read::read(&mut connection, &mut [0; 64]).unwrap_or(0);
        count.fetch_add(read, Ordering::SeqCst);
    });
    let first = expired.address().to_string();
    let ca = pki.ca_file();
    second_is_used(&first, "certificate: ", &certificate, |bridge| bridge.arg("--ca").arg(&ca)).await;
    let bridge = to(&[expired.address()]).arg("--ca").arg(&ca).start();
    assert_eq!(bridge.try_client().await.unwrap_err(), Failure::Alert(AlertDescription::HandshakeFailure));
    assert_eq!(bytes.load(Ordering::SeqCst), 0);

    let second = TlsTarget::echo(&certificate);
    let bridge = to(&[expired.address(), second.address()]).arg("--ca").arg(&ca).start();
    visit(&bridge, 0).await;
    bridge.wait_for_log(&["ERROR", &first, "certificate: ", "hint="]);
    // The pin that is there is the second's, and no cure puts another in its place.
    let bridge = to(&[expired.address(), second.address()]).pin(&certificate).start();
    visit(&bridge, 0).await;
    let line = bridge.wait_for_log(&["ERROR", &first, "certificate: is not the pinned one"]).line;
    assert!(line.contains("compare it, then --pin sha256:") && !line.contains("in place of"), "{line}");
}

#[tokio::test]
async fn first_is_passed_over_while_it_fails_and_used_again_once_it_answers() {
    let (certificate, first, second) = two();
    let plug = Plug::before(&first);
    let bridge = to(&[plug.address(), second.address()]).pin(&certificate).start();
    plug.turn(false);
    let began = Instant::now();
    let mut nth = 0;
    // The first connection asks it, and one each second at most after that.
    while nth < 5 {
        assert_eq!(visit(&bridge, nth).await.0, second.address());
        nth += 1;
    }
    let asked = plug.tcp.accepted();
    let most = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((1..=most).contains(&asked), "{asked} of {nth} in {:?}", began.elapsed());
    plug.turn(true);
    while visit(&bridge, nth).await.0 == second.address() {
        nth += 1;
        assert!(began.elapsed() < common::TIMEOUT, "{}", bridge.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(plug.tcp.accepted(), asked + 1);
    bridge.wait_for_log(&["INFO", &format!("target {}: answers again", plug.address())]);
    assert_eq!(visit(&bridge, nth + 1).await.0, plug.address());
}

#[tokio::test(flavor = "multi_thread")]
async fn flapping_target_loses_no_byte_and_is_asked_less_and_less() {
    let (certificate, first, second) = two();
    let plug = Plug::before(&first);
    let bridge = Arc::new(to(&[plug.address(), second.address()]).pin(&certificate).start());
    let ends = Instant::now() + Duration::from_secs(5);
    let clients: Vec<_> = (0..8_u8)
        .map(|number| {
            let bridge = Arc::clone(&bridge);
            tokio::spawn(async move {
                let bytes: Vec<u8> = (0..60_000_u32).map(|at| (at % 251) as u8 ^ number).collect();
                let mut served = 0;
                while Instant::now() < ends {
                    let mut client = bridge.client().await;
                    client.send(&bytes).await;
                    assert!(client.receive(bytes.len()).await == bytes, "client {number}, connection {served}");
                    client.shut_down().await;
                    served += 1;
                }
                served
            })
        })
        .collect();
    let mut on = true;
    while Instant::now() < ends {
        on = !on;
        plug.turn(on);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let mut served = 0;
    for client in clients {
        served += client.await.unwrap();
    }
    assert!(served > 20 && second.handshakes() > 0, "{served} connections, {} by the second", second.handshakes());
    // It failed at 0 s; then 1, 2 and 4 s without it, if each time it was off.
    let told = bridge.log().matches("tried again in").count();
    assert!((1..=4).contains(&told), "{told}\n{}", bridge.log());
}

#[tokio::test]
async fn failure_of_both_is_one_line_that_names_both() {
    let certificate = Pki::new().server();
    let (first, second) = (closed_port(), TcpTarget::answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let bridge = to(&[first, second.address()]).pin(&certificate).start();
    for nth in 0..2 {
        assert_eq!(bridge.try_client().await.unwrap_err(), Failure::Alert(AlertDescription::HandshakeFailure));
        let cause =
            format!("WARN  target {first}: connect: connection refused; target {}: TLS handshake: ", second.address());
        let line = bridge.nth_log(&[&cause, "hint="], nth);
        assert!(line.contains("client=127.0.0.1:"), "{line}");
    }
    // Nobody is refused untried: both were asked both times.
    assert_eq!(second.accepted(), 2);
    assert_eq!(bridge.log().matches("WARN").count(), 2, "{}", bridge.log());
}

#[tokio::test]
async fn first_of_all_that_failed_serves_at_once_when_it_is_back() {
    let (certificate, first, _) = two();
    let plug = Plug::before(&first);
    let bridge = to(&[plug.address(), closed_port()]).pin(&certificate).start();
    plug.turn(false);
    for _ in 0..5 {
        bridge.try_client().await.unwrap_err();
    }
    plug.turn(true);
    assert_eq!(visit(&bridge, 0).await.0, plug.address());
}

/// A server that notes the names that it is asked for.
fn noting(certificate: &Certificate) -> (TlsTarget, Arc<Mutex<Vec<Option<String>>>>) {
    let names = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&names);
    let target = TlsTarget::serve(certificate, move |mut connection| {
        noted.lock().unwrap().push(connection.server_name());
        let _ = std::io::copy(&mut connection, &mut std::io::sink());
    });
    (target, names)
}

#[tokio::test]
async fn each_target_is_asked_for_and_verified_by_its_own_name_unless_one_is_set() {
    let pki = Pki::new();
    for (flags, first_name, second_name) in [
        (&[][..], Some("localhost"), None),
        (&["--server-name", "localhost"], Some("localhost"), Some("localhost")),
        (&["--sni", "mail.corp"], Some("mail.corp"), Some("mail.corp")),
    ] {
        let ((first, first_names), (second, second_names)) = (noting(&pki.server()), noting(&pki.server()));
        let plug = Plug::before(&first);
        let targets = format!("localhost:{},{}", plug.address().port(), second.address());
        let bridge = Bridge::to_name(&targets).arg("--ca").arg(pki.ca_file()).args(flags.to_vec()).start();
        drop(bridge.client().await);
        plug.turn(false);
        drop(bridge.client().await);
        eventually("both to have noted a name", || second_names.lock().unwrap().len() == 1);
        assert_eq!(*first_names.lock().unwrap(), [first_name.map(str::to_owned)], "{flags:?}");
        assert_eq!(*second_names.lock().unwrap(), [second_name.map(str::to_owned)], "{flags:?}");
    }
    // One that is set is what the second's certificate must carry as well.
    let wrong = TlsTarget::echo(&pki.flawed(Flaw::WrongName));
    let good = TlsTarget::echo(&pki.server());
    for (name, used, refused) in [("other.example", &wrong, &good), ("localhost", &good, &wrong)] {
        let bridge = to(&[refused.address(), used.address()]).arg("--ca").arg(pki.ca_file());
        let bridge = bridge.args(["--server-name", name]).start();
        assert_eq!(visit(&bridge, 0).await.0, used.address(), "{name}");
        bridge.wait_for_log(&["ERROR", &format!("target {}: certificate: ", refused.address())]);
    }
}

#[tokio::test]
async fn sessions_are_resumed_with_the_target_that_gave_them() {
    let certificate = Pki::new().server();
    let flags = ["-tls1", "-www", "-cipher", "ALL:@SECLEVEL=0"];
    let (first, second) = (SServer::start(&certificate, &flags), SServer::start(&certificate, &flags));
    let plug = Plug::before(&first);
    let bridge = to(&[plug.address(), second.address()]).pin(&certificate).start();
    let mut seen = Vec::new();
    for (nth, on) in [true, true, false, false, true].into_iter().enumerate() {
        plug.turn(on);
        if nth == 4 {
            // Its time must be up: what is tested is what it resumes then.
            tokio::time::sleep(Duration::from_millis(2100)).await;
        }
        let mut client = bridge.client().await;
        client.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        client.shut_down().await;
        drop(client);
        let line = bridge.nth_session(nth);
        seen.push((line["target"].parse::<SocketAddr>().unwrap() == plug.address(), &line["resumed"] == "true"));
    }
    // A session that was offered to a server that was off is forgotten, so the last is a full handshake.
    assert_eq!(seen, [(true, false), (true, true), (false, false), (false, true), (true, false)]);
}

#[tokio::test]
async fn client_that_leaves_while_it_tries_the_first_again_costs_the_next_client_nothing() {
    let certificate = Pki::new().server();
    let second = TlsTarget::echo(&certificate);
    // Two connections are closed, the next hangs.
    let count = AtomicUsize::new(0);
    let first = gate(&second, move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Act::AtHello(End::Closes),
        _ => Act::AtHello(End::Hangs),
    });
    let bridge = to(&[first.address(), second.address()]).pin(&certificate).start();
    for (nth, pause) in [1100, 2100].into_iter().enumerate() {
        assert_eq!(visit(&bridge, nth).await.0, second.address());
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    // From now on it is passed over for 2 s a time.
    let mut tcp = TcpStream::connect(bridge.address()).await.unwrap();
    tcp.write_all(&client_hello()).await.unwrap();
    eventually("the trial to begin", || first.accepted() == 3);
    let began = Instant::now();
    assert_eq!(visit(&bridge, 2).await.0, second.address());
    drop(tcp);
    assert_eq!(visit(&bridge, 3).await.0, second.address());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
