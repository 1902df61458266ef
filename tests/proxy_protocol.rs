//! The PROXY protocol: clients behind a load balancer are known by their own address, nobody can
//! pretend to be another, and the target hears who the client is.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod common;

use cli_support::{Sandbox, free_port};
use common::{Bridge, Builder, Certificate, Client, Failure, Listening, Pki, TcpTarget, TlsTarget, connect, within};
use openssl::ssl::SslVersion;
use rustls::AlertDescription;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.2 51812 443\r\n";

/// Version 2 with this command, family and what follows.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

/// The same as [`V1`], with a field behind it that means nothing here.
fn v2_tcp4() -> Vec<u8> {
    let mut block = vec![203, 0, 113, 7, 198, 51, 100, 2];
    block.extend_from_slice(&51812_u16.to_be_bytes());
    block.extend_from_slice(&443_u16.to_be_bytes());
    block.extend_from_slice(&[2, 0, 4, b'm', b'a', b'i', b'l']);
    v2(0x21, 0x11, &block)
}

/// A load balancer before the bridge: puts a header before what the client sends first, and sends both
/// in the pieces that `cut` makes of them on its nth connection.
fn balancer(
    bridge: &Bridge,
    header: &[u8],
    cut: impl Fn(usize, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> TcpTarget {
    let (bridge, header, count) = (bridge.address(), header.to_vec(), AtomicUsize::new(0));
    TcpTarget::serve(move |mut client| {
        let mut first = vec![0; 16 << 10];
        let length = client.read(&mut first).unwrap();
        first.truncate(length);
        let mut server = TcpStream::connect(bridge).unwrap();
        server.set_nodelay(true).unwrap();
        let mut back = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let down = thread::spawn(move || {
            let _ = std::io::copy(&mut back.0, &mut back.1);
            let _ = back.1.shutdown(Shutdown::Write);
        });
        for piece in cut(count.fetch_add(1, Ordering::SeqCst), [&header[..], &first].concat()) {
            let _ = server.write_all(&piece);
            // Else the kernel may hand two over as one.
            thread::sleep(Duration::from_micros(500));
        }
        let _ = std::io::copy(&mut client, &mut server);
        let _ = server.shutdown(Shutdown::Write);
        let _ = down.join();
    })
}

/// All in one segment.
fn whole(_: usize, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    vec![bytes]
}

fn expecting(target: &impl Listening, certificate: &Certificate) -> Builder {
    Bridge::to(target).pin(certificate).arg("--set").arg("proxy_from=127.0.0.1")
}

async fn exchange(client: &mut Client) {
    client.send(b"word").await;
    assert_eq!(client.receive(4).await, b"word");
}

/// The line of the log about the `nth` connection: client, and whom it came by.
fn client_and_via(bridge: &Bridge, nth: usize) -> (String, bool) {
    let session = bridge.nth_session(nth);
    (session["client"].to_owned(), session.line.contains(" via=127.0.0.1:"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_is_whom_the_header_names_and_no_byte_behind_it_is_lost() {
    let (certificate, target) = common::echo();
    let bridge = expecting(&target, &certificate).start();
    let v6 = b"PROXY TCP6 2001:db8::7 2001:db8::2 51812 443\r\n";
    let mapped = b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:198.51.100.2 51812 443\r\n";
    let headers: [(&[u8], &str); 4] = [
        (V1, "203.0.113.7:51812"),
        (&v2_tcp4(), "203.0.113.7:51812"),
        (v6, "[2001:db8::7]:51812"),
        (mapped, "203.0.113.7:51812"),
    ];
    for (nth, (header, address)) in headers.into_iter().enumerate() {
        let balancer = balancer(&bridge, header, whole);
        let mut client = connect(balancer.address(), &bridge.ca(), "localhost").await.unwrap();
        exchange(&mut client).await;
        client.shut_down().await;
        drop(client);
        assert_eq!(client_and_via(&bridge, nth), (address.to_owned(), true), "{}", bridge.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_is_read_however_it_is_cut() {
    let (certificate, target) = common::echo();
    let bridge = expecting(&target, &certificate).start();
    let mut served = 0;
    for header in [V1.to_vec(), v2_tcp4()] {
        let length = header.len();
        // The first comes byte by byte, ClientHello included; the others are cut in two.
        let balancer = balancer(&bridge, &header, |nth, bytes| match nth {
            0 => bytes.chunks(1).map(<[u8]>::to_vec).collect(),
            at => vec![bytes[..at].to_vec(), bytes[at..].to_vec()],
        });
        for nth in 0..length + 3 {
            let mut client = connect(balancer.address(), &bridge.ca(), "localhost").await;
            let client =
                client.as_mut().unwrap_or_else(|failure| panic!("cut at {nth}: {failure:?}\n{}", bridge.log()));
            exchange(client).await;
            client.shut_down().await;
            assert_eq!(client_and_via(&bridge, served), ("203.0.113.7:51812".to_owned(), true), "cut at {nth}");
            served += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_names_nobody_is_the_client_itself() {
    let (certificate, target) = common::echo();
    let bridge = expecting(&target, &certificate).start();
    let headers = [v2(0x20, 0, &[]), v2(0x20, 0x11, &[9; 12]), v2(0x21, 0, &[]), b"PROXY UNKNOWN\r\n".to_vec()];
    for (nth, header) in headers.into_iter().enumerate() {
        let balancer = balancer(&bridge, &header, whole);
        let mut client = connect(balancer.address(), &bridge.ca(), "localhost").await.unwrap();
        exchange(&mut client).await;
        client.shut_down().await;
        drop(client);
        let (client, via) = client_and_via(&bridge, nth);
        assert!(client.starts_with("127.0.0.1:") && !via, "{client} {header:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_header_a_balancer_gets_an_alert_and_the_target_nothing() {
    let (certificate, target) = common::echo();
    let bridge = expecting(&target, &certificate).start();
    let refused = bridge.try_client().await.unwrap_err();
    assert_eq!(refused, Failure::Alert(AlertDescription::HandshakeFailure));
    let line = bridge.wait_for_log(&["PROXY header: it is missing, and proxy_from demands it of this address"]).line;
    assert!(line.contains("WARN") && line.contains("hint=\"let the load balancer send it"), "{line}");

    let too_long = v2(0x21, 0x11, &[7; 5000]);
    let twice = V1.repeat(2);
    let bad: [(&[u8], &str); 5] = [
        (b"PROXY TCP4 203.0.113.7 198.51.100.2 51812 65536\r\n", "version 1 is not"),
        (&twice, "a second one follows the first"),
        (&too_long, "version 2 is longer than 4096 bytes"),
        (&v2(0x22, 0x11, &[7; 12]), "unknown version, command or family, 0x22 0x11"),
        (&v2(0x21, 0x11, &[7; 11]), "version 2 is too short"),
    ];
    for (header, cause) in bad {
        let balancer = balancer(&bridge, header, whole);
        let refused = connect(balancer.address(), &bridge.ca(), "localhost").await.unwrap_err();
        assert!(matches!(refused, Failure::Alert(_)), "{cause}: {refused:?}");
        let line = bridge.wait_for_log(&["PROXY header: ", cause]).line;
        assert!(line.contains("WARN") && line.contains("hint="), "{line}");
    }
    assert_eq!((target.accepted(), bridge.sessions()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_header_is_dropped_at_the_deadline_of_the_hello() {
    let (certificate, target) = common::echo();
    let bridge = expecting(&target, &certificate).args(["--hello-timeout", "1s", "--verbose"]).start();
    for header in [&V1[..20], &v2_tcp4()[..20], &SIGNATURE[..1]] {
        let began = Instant::now();
        let mut tcp = tokio::net::TcpStream::connect(bridge.address()).await.unwrap();
        tcp.write_all(header).await.unwrap();
        let end = within("the end", tcp.read(&mut [0; 16])).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    }
    // And one that goes away is nobody's trouble.
    drop(tokio::net::TcpStream::connect(bridge.address()).await.unwrap());
    bridge.wait_for_log(&["DEBUG", "the client left before its ClientHello was complete"]);
    assert_eq!(target.accepted(), 0);
    assert!(!bridge.log().contains("WARN"), "{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_can_say_who_the_client_is() {
    let (certificate, target) = common::echo();
    for (set, hint) in [
        ("proxy_from=", "if it is a load balancer of yours: --set proxy_from=127.0.0.1"),
        ("proxy_from=192.0.2.0/24", "if it is a load balancer of yours: --set proxy_from=192.0.2.0/24,127.0.0.1"),
    ] {
        let bridge = Bridge::to(&target).pin(&certificate).arg("--set").arg(set).start();
        for (nth, header) in [V1.to_vec(), v2_tcp4(), V1.to_vec(), v2_tcp4()].into_iter().enumerate() {
            let cut = if nth < 2 { whole } else { |_, bytes: Vec<u8>| bytes.chunks(1).map(<[u8]>::to_vec).collect() };
            let balancer = balancer(&bridge, &header, cut);
            assert!(connect(balancer.address(), &bridge.ca(), "localhost").await.is_err(), "{set} {nth}");
            let line = bridge.nth_log(&["PROXY header: proxy_from does not name this address"], nth);
            assert!(line.contains("WARN") && line.contains(hint) && line.contains("client 127.0.0.1:"), "{line}");
        }
        // Whoever sends none is served as ever.
        common::is_served(&bridge).await;
        assert_eq!(&bridge.session()["ended_by"], "client");
        assert_eq!(bridge.sessions(), 1, "{}", bridge.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn allow_clients_judges_whom_the_header_names_and_not_the_balancer() {
    let (certificate, target) = common::echo();
    let bridge = expecting(&target, &certificate).set("allow_clients=203.0.113.4/30").start();
    for (nth, header) in [V1.to_vec(), v2_tcp4()].into_iter().enumerate() {
        let balancer = balancer(&bridge, &header, whole);
        let mut client = connect(balancer.address(), &bridge.ca(), "localhost").await.unwrap();
        exchange(&mut client).await;
        client.shut_down().await;
        assert_eq!(client_and_via(&bridge, nth), ("203.0.113.7:51812".to_owned(), true));
    }
    assert_eq!(target.accepted(), 2);

    // The first address behind the network, in both versions; the balancer for itself; and one that a
    // balancer with rights of its own speaks for.
    let v2_outside = v2(0x21, 0x11, &[203, 0, 113, 8, 198, 51, 100, 2, 0xca, 0x64, 1, 187]);
    let cases: [(&str, &[u8], &str); 5] = [
        ("203.0.113.4/30", b"PROXY TCP4 203.0.113.8 198.51.100.2 51812 443\r\n", "203.0.113.8"),
        ("203.0.113.4/30", &v2_outside, "203.0.113.8"),
        ("203.0.113.4/30", b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        ("203.0.113.4/30", &v2(0x20, 0, &[]), "127.0.0.1"),
        ("127.0.0.0/8", V1, "203.0.113.7"),
    ];
    for (allowed, header, named) in cases {
        // Another bridge each: the line comes once a minute.
        let bridge = expecting(&target, &certificate).set(&format!("allow_clients={allowed}")).start();
        let balancer = balancer(&bridge, header, whole);
        let refused = connect(balancer.address(), &bridge.ca(), "localhost").await.unwrap_err();
        assert_eq!(refused, Failure::Alert(AlertDescription::AccessDenied), "{named} in {allowed}: {}", bridge.log());
        let line = bridge.wait_for_log(&["WARN", "allow_clients: the address is in none of its networks"]);
        assert!(line["client"].starts_with(&format!("{named}:")), "{}", line.line);
        assert_eq!(line["hint"], format!("if it may come: add {named} to --set allow_clients="));
        assert_eq!(bridge.sessions(), 0);
    }
    assert_eq!(target.accepted(), 2, "the target heard of a client that may not come");
}

/// A target that takes a header of so many bytes, or of one line, tells it, and then echoes.
fn telling(certificate: &Certificate, length: Option<usize>) -> (TlsTarget, Receiver<Vec<u8>>) {
    let (tell, told) = channel();
    let before = move |stream: &mut TcpStream| {
        let mut header = Vec::new();
        let is_whole = |header: &[u8]| length.map_or(header.ends_with(b"\r\n"), |length| header.len() == length);
        while !is_whole(&header) {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            header.push(byte[0]);
        }
        tell.send(header).unwrap();
    };
    let target = TlsTarget::serve_behind(before, SslVersion::TLS1, certificate, |mut connection| {
        let mut word = [0; 4];
        while connection.read_exact(&mut word).is_ok() {
            connection.write_all(&word).unwrap();
        }
        connection.close_notify();
    });
    (target, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_target_is_told_the_client_before_tls() {
    let certificate = Pki::new().server();
    let (target, told) = telling(&certificate, None);
    let bridge = Bridge::to(&target).pin(&certificate).args(["--set", "send_proxy=v1"]).start();
    let mut client = bridge.client().await;
    exchange(&mut client).await;
    let own = client.0.get_ref().0.local_addr().unwrap();
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), bridge.address().port());
    assert_eq!(String::from_utf8(told.recv().unwrap()).unwrap(), line);

    let (target, told) = telling(&certificate, Some(28));
    let bridge = Bridge::to(&target).pin(&certificate).args(["--set", "send_proxy=v2"]).start();
    // The second resumes the first one's session, and tells all the same.
    for _ in 0..2 {
        let mut client = bridge.client().await;
        exchange(&mut client).await;
        let own = client.0.get_ref().0.local_addr().unwrap();
        let ports = [own.port().to_be_bytes(), bridge.address().port().to_be_bytes()].concat();
        let block = [&[127, 0, 0, 1, 127, 0, 0, 1][..], &ports].concat();
        assert_eq!(told.recv().unwrap(), v2(0x21, 0x11, &block));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_balancer_says_is_passed_on_in_one_family() {
    let certificate = Pki::new().server();
    let mixed = "PROXY TCP6 ::ffff:203.0.113.7 2001:db8::2 51812 443\r\n";
    for (header, expected) in [(std::str::from_utf8(V1).unwrap(), std::str::from_utf8(V1).unwrap()), (mixed, mixed)] {
        let (target, told) = telling(&certificate, None);
        let bridge = expecting(&target, &certificate).args(["--set", "send_proxy=v1"]).start();
        let balancer = balancer(&bridge, header.as_bytes(), whole);
        let mut client = connect(balancer.address(), &bridge.ca(), "localhost").await.unwrap();
        exchange(&mut client).await;
        assert_eq!(String::from_utf8(told.recv().unwrap()).unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_expects_no_header_is_named_with_the_cure() {
    let (certificate, target) = common::echo();
    let bridge = Bridge::to(&target).pin(&certificate).args(["--set", "send_proxy=v1"]).start();
    assert_eq!(bridge.try_client().await.unwrap_err(), Failure::Alert(AlertDescription::HandshakeFailure));
    let line = bridge.wait_for_log(&["target ", "TLS handshake"]).line;
    assert!(line.contains("if the server expects no PROXY header: --set send_proxy=off; else: "), "{line}");
}

#[test]
fn the_commands_that_try_a_forwarder_send_the_header_that_it_demands() {
    let (sandbox, port) = (Sandbox::new(), free_port());
    let certificate = cli_support::Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let target: SocketAddr = cli_support::tls_target(&certificate);
    let listen = format!("127.0.0.1:{port}");
    sandbox.run(["add", "exch1", &listen, &target.to_string(), "--pin", &certificate.pin(), "--offline"]).succeeded();
    sandbox.run(["set", "exch1", "proxy_from=127.0.0.0/8,10.20.0.3"]).succeeded();
    assert!(
        sandbox.text("exch1").contains("proxy_from = [\"127.0.0.0/8\", \"10.20.0.3\"]"),
        "{}",
        sandbox.text("exch1")
    );
    let server = sandbox.serve("exch1");
    let checked = sandbox.run(["check", "exch1"]).succeeded();
    assert!(checked.stdout.contains("an ordinary client that pasted the CA accepts it"), "{}", checked.stdout);
    assert!(checked.stdout.contains("answers 200"), "{}", checked.stdout);
    assert!(!server.said().contains("WARN"), "{}", server.said());
}
