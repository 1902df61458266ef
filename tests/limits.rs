//! Each limit: what is at it is served; one more waits, is told, and the log names the setting.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::{Bridge, Client, Failure, client_hello, connect, echo, is_served, stalled_hello, within};
use rustls::AlertDescription::{AccessDenied, InternalError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The longest that a client waits for its place.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections that carry bytes, one after the other.
async fn clients(bridge: &Bridge, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(bridge.client().await);
        answers(clients.last_mut().unwrap()).await;
    }
    clients
}

async fn answers(client: &mut Client) {
    client.send(b"word").await;
    assert_eq!(client.receive(4).await, b"word");
}

/// A client that waits as long as one may, and is refused then.
async fn is_refused(bridge: &Bridge) {
    let began = Instant::now();
    assert_eq!(bridge.try_client().await.unwrap_err(), Failure::Alert(InternalError), "{}", bridge.log());
    assert!(began.elapsed() > PATIENCE - Duration::from_millis(50), "{:?}", began.elapsed());
    assert!(began.elapsed() < PATIENCE * 4, "{:?}", began.elapsed());
}

/// Lets the bridge come to those that have connected already: it has as many threads as there are
/// processors, and nothing tells from outside which connection got its place first.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Connections on which nobody says a word.
async fn openers(bridge: &Bridge, count: usize) -> Vec<TcpStream> {
    let mut openers = Vec::new();
    for _ in 0..count {
        openers.push(TcpStream::connect(bridge.address()).await.unwrap());
    }
    settled().await;
    openers
}

/// What a client from this address reads in answer to its ClientHello, to the end or for 6 bytes of a
/// ServerHello.
async fn answer_to(from: &str, bridge: SocketAddr) -> Vec<u8> {
    let from: IpAddr = from.parse().unwrap();
    let socket = if from.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let to = if from.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { "::1".parse().unwrap() };
    let mut tcp = socket.connect(SocketAddr::new(to, bridge.port())).await.unwrap();
    tcp.write_all(&client_hello()).await.unwrap();
    answer(&mut tcp).await
}

async fn answer(tcp: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    within("an answer", async {
        while !(bytes.first() == Some(&22) && bytes.len() >= 6) && tcp.read_buf(&mut bytes).await.unwrap() > 0 {}
    })
    .await;
    bytes
}

fn is_server_hello(answer: &[u8]) -> bool {
    matches!(answer, [22, _, _, _, _, 2, ..])
}

fn alert(number: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, number]
}

fn lines(bridge: &Bridge, text: &str) -> usize {
    bridge.log().lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn one_connection_too_many_is_served_when_one_ends_in_time() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("max_connections=3").start();
    let mut open = clients(&bridge, 3).await;
    let mut first = open.remove(0);
    let began = Instant::now();
    let pause = Duration::from_millis(700);
    let (fourth, ()) = tokio::join!(bridge.try_client(), async {
        tokio::time::sleep(pause).await;
        first.shut_down().await;
        first.receive_all().await;
    });
    assert!(began.elapsed() >= pause, "it was served while three were open");
    answers(&mut fourth.unwrap()).await;
    for client in &mut open {
        answers(client).await;
    }
    assert_eq!(lines(&bridge, "max_connections"), 0, "{}", bridge.log());
}

#[tokio::test]
async fn one_connection_too_many_is_told_after_two_seconds_and_the_log_once() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("max_connections=3").start();
    let mut open = clients(&bridge, 3).await;
    is_refused(&bridge).await;
    let line = bridge.wait_for_log(&["WARN", "max_connections: 3 are open, and none ended within 2s"]);
    assert!(line["client"].starts_with("127.0.0.1:"), "{}", line.line);
    assert_eq!(&line["hint"], "if so many are right: --set max_connections=6");
    is_refused(&bridge).await;
    assert_eq!(lines(&bridge, "max_connections"), 1, "{}", bridge.log());
    assert_eq!(target.accepted(), 3, "the target heard of clients that were refused");
    for client in &mut open {
        answers(client).await;
    }
    open.pop();
    is_served(&bridge).await;
}

#[tokio::test]
async fn those_who_wait_are_served_in_the_order_of_their_coming() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("max_connections=1").start();
    let mut open = clients(&bridge, 1).await;
    let gap = Duration::from_millis(300);
    let wait = |number: u32| {
        let bridge = &bridge;
        async move {
            tokio::time::sleep(gap * number).await;
            let mut client = bridge.client().await;
            let served = Instant::now();
            // The next one is waiting already.
            tokio::time::sleep(gap).await;
            client.shut_down().await;
            client.receive_all().await;
            served
        }
    };
    let (first, second, ()) = tokio::join!(wait(0), wait(1), async {
        tokio::time::sleep(gap * 2).await;
        open.clear();
    });
    assert!(first + gap <= second, "the second one was served before the first had gone");
}

#[tokio::test]
async fn idle_openers_take_no_place_of_a_connection() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("max_connections=2").set("max_handshakes=5").start();
    let _idle = openers(&bridge, 4).await;
    // The fifth handshake, twice: it is over when its client is connected.
    let mut open = clients(&bridge, 2).await;
    answers(&mut open[0]).await;
    assert_eq!(lines(&bridge, "max_"), 0, "{}", bridge.log());
}

#[tokio::test]
async fn one_handshake_too_many_is_told_and_the_next_is_served_when_one_has_ended() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("max_handshakes=4").start();
    let mut established = clients(&bridge, 1).await;
    let mut idle = openers(&bridge, 3).await;
    idle.push(stalled_hello(bridge.address()).await);
    settled().await;
    is_refused(&bridge).await;
    let line = bridge.wait_for_log(&["WARN", "max_handshakes: 4 are under way, and none ended within 2s"]);
    assert_eq!(&line["hint"], "if so many are right: --set max_handshakes=8");
    answers(&mut established[0]).await;
    let (served, ()) = tokio::join!(bridge.try_client(), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        idle.pop();
    });
    answers(&mut served.unwrap()).await;
    answers(&mut established[0]).await;
    assert_eq!((target.accepted(), lines(&bridge, "max_handshakes")), (2, 1), "{}", bridge.log());
}

#[tokio::test]
async fn refused_opener_that_says_nothing_is_told_and_closed() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("max_handshakes=1").start();
    let _idle = openers(&bridge, 1).await;
    let mut second = openers(&bridge, 1).await;
    assert_eq!(answer(&mut second[0]).await, alert(80));
}

#[tokio::test]
async fn opener_that_is_dropped_by_its_deadline_leaves_its_place() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).args(["--hello-timeout", "1s"]).set("max_handshakes=1").start();
    let _idle = openers(&bridge, 1).await;
    is_served(&bridge).await;
}

#[tokio::test]
async fn connections_at_the_rate_are_served_at_once_and_one_more_has_to_wait() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("accept_rate=2").start();
    let began = Instant::now();
    let (one, two, three) = tokio::join!(bridge.try_client(), bridge.try_client(), bridge.try_client());
    assert!(one.is_ok() && two.is_ok() && three.is_ok(), "{}", bridge.log());
    assert!(began.elapsed() >= Duration::from_millis(490), "three at once: {:?}", began.elapsed());
    assert_eq!(lines(&bridge, "accept_rate"), 0, "{}", bridge.log());
}

#[tokio::test]
async fn who_has_no_turn_within_two_seconds_is_told_so() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("accept_rate=2").start();
    let began = Instant::now();
    let mut crowd = tokio::task::JoinSet::new();
    let ca = bridge.ca();
    for _ in 0..20 {
        let (address, ca) = (bridge.address(), ca.clone());
        crowd.spawn(async move { connect(address, &ca, "localhost").await.map(|_| Instant::now()) });
    }
    let (mut served, mut told) = (Vec::new(), 0);
    while let Some(one) = crowd.join_next().await {
        match one.unwrap() {
            Ok(when) => served.push(when),
            Err(Failure::Alert(InternalError)) => told += 1,
            Err(other) => panic!("{other:?}\n{}", bridge.log()),
        }
    }
    // Two at once, two seconds' worth after them, and what the crowd's coming took.
    let most = 6 + 2 * usize::try_from(began.elapsed().as_secs() + 1).unwrap();
    assert!((6..=most).contains(&served.len()), "{} served", served.len());
    assert_eq!(served.len() + told, 20);
    let line = bridge.wait_for_log(&["WARN", "accept_rate: more than 2 a second, for over 2s"]);
    assert_eq!(&line["hint"], "if so many are right: --set accept_rate=4");
    assert_eq!(lines(&bridge, "accept_rate: "), 1, "{}", bridge.log());
}

#[tokio::test]
async fn client_of_an_allowed_network_is_served_and_the_next_address_is_told_access_denied() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("allow_clients=127.0.0.2").start();
    let address = bridge.address();
    assert!(is_server_hello(&answer_to("127.0.0.2", address).await), "{}", bridge.log());
    for outside in ["127.0.0.1", "127.0.0.3"] {
        assert_eq!(answer_to(outside, address).await, alert(49), "{outside}");
    }
    assert_eq!(bridge.try_client().await.unwrap_err(), Failure::Alert(AccessDenied));
    let line = bridge.wait_for_log(&["WARN", "allow_clients: the address is in none of its networks"]);
    assert!(line["client"].starts_with("127.0.0.1:"), "{}", line.line);
    assert_eq!(&line["hint"], "if it may come: add 127.0.0.1 to --set allow_clients=");
    assert_eq!((target.accepted(), lines(&bridge, "allow_clients")), (1, 1), "{}", bridge.log());
}

#[tokio::test]
async fn network_ends_at_its_last_address() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).set("allow_clients=127.0.0.4/30,127.1.0.0/16").start();
    for (from, is_in) in [
        ("127.0.0.3", false),
        ("127.0.0.4", true),
        ("127.0.0.7", true),
        ("127.0.0.8", false),
        ("127.1.255.255", true),
        ("127.2.0.0", false),
    ] {
        let answer = answer_to(from, bridge.address()).await;
        assert!(if is_in { is_server_hello(&answer) } else { answer == alert(49) }, "{from}: {answer:02x?}");
    }
}

#[tokio::test]
async fn families_are_told_apart_on_a_socket_that_has_both() {
    if TcpListener::bind("[::1]:0").is_err() {
        panic!("needs IPv6 on the loopback");
    }
    let (certificate, target) = echo();
    for (network, inside, outside) in [("::1", "::1", "127.0.0.1"), ("127.0.0.0/8", "127.0.0.1", "::1")] {
        let allowed = format!("allow_clients={network}");
        let bridge = Bridge::to(&target).pin(&certificate).listen("0").set(&allowed).start();
        assert!(is_server_hello(&answer_to(inside, bridge.address()).await), "{network}: {}", bridge.log());
        assert_eq!(answer_to(outside, bridge.address()).await, alert(49), "{network}: {}", bridge.log());
    }
}

/// A way to the bridge that keeps all but the client's first bytes back for so long.
async fn hesitant(bridge: SocketAddr, pause: Duration) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let bridge = TcpStream::connect(bridge).await.unwrap();
        let ((mut from, mut back), (mut answer, mut to)) = (client.into_split(), bridge.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut answer, &mut back).await });
        let mut first = vec![0; 4096];
        let count = from.read(&mut first).await.unwrap();
        to.write_all(&first[..count]).await.unwrap();
        tokio::time::sleep(pause).await;
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    address
}

#[tokio::test]
async fn handshake_that_ends_in_time_is_served_and_one_that_does_not_is_dropped() {
    let (certificate, target) = echo();
    let short = ["--handshake-timeout", "1500ms"];
    let bridge = Bridge::to(&target).pin(&certificate).args(short).set("max_handshakes=1").start();
    let in_time = hesitant(bridge.address(), Duration::from_millis(500)).await;
    let mut client = connect(in_time, &bridge.ca(), "localhost").await.unwrap();
    answers(&mut client).await;

    let too_late = hesitant(bridge.address(), Duration::from_secs(20)).await;
    let began = Instant::now();
    // In TLS 1.3 a client is through before the server is.
    let mut client = connect(too_late, &bridge.ca(), "localhost").await.unwrap();
    let end = within("the end", client.read(&mut [0; 1])).await;
    assert!(end.is_err_and(|error| [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind())));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1450) && took < Duration::from_secs(10), "{took:?}");
    // Its place is free.
    is_served(&bridge).await;
}

#[tokio::test]
async fn hello_that_is_whole_in_time_is_served() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).args(["--hello-timeout", "2s"]).start();
    let hello = client_hello();
    let (most, last) = hello.split_at(hello.len() - 1);
    let mut tcp = TcpStream::connect(bridge.address()).await.unwrap();
    tcp.write_all(most).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    tcp.write_all(last).await.unwrap();
    let answer = answer(&mut tcp).await;
    assert!(is_server_hello(&answer), "{answer:02x?}");
}
