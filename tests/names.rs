//! The target's name: looked up for each connection, every address tried, and a dead name server
//! costs neither threads nor patience.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Bridge, Builder, Certificate, Failure, Listening, Pki, TlsTarget, client_hello, is_served, within};
use rustls::AlertDescription;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Files of the system's resolver, made for one bridge.
struct Names(TempDir);

impl Names {
    fn new() -> Self {
        let names = Self(TempDir::new().unwrap());
        names.hosts("");
        // glibc alone: what else this machine asks for names is not under test.
        fs::write(names.file("nsswitch"), "hosts: files dns\n").unwrap();
        names
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn hosts(&self, lines: &str) {
        fs::write(self.file("hosts"), format!("127.0.0.1 localhost\n{lines}")).unwrap();
    }

    fn bridge(&self, port: u16, certificate: &Certificate) -> Builder {
        self.any(port).pin(certificate)
    }

    /// With no opinion about the certificate yet.
    fn any(&self, port: u16) -> Builder {
        Bridge::to_name(&format!("ews.test:{port}"))
            .cover("/etc/hosts", &self.file("hosts"))
            .cover("/etc/nsswitch.conf", &self.file("nsswitch"))
    }
}

#[tokio::test]
async fn needs_root_every_address_of_a_name_is_tried() {
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    let names = Names::new();
    names.hosts("127.0.0.2 ews.test\n127.0.0.3 ews.test\n127.0.0.1 ews.test\n");
    is_served(&names.bridge(target.address().port(), &certificate).start()).await;
}

#[tokio::test]
async fn needs_root_silent_address_costs_a_moment_only() {
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    let port = target.address().port();
    // An address that swallows what is sent to it, at the target's port.
    let (_silent, _queue) = full_backlog_at(SocketAddr::from(([127, 0, 0, 2], port)));
    let names = Names::new();
    names.hosts("127.0.0.2 ews.test\n127.0.0.1 ews.test\n");
    let bridge = names.bridge(port, &certificate).start();
    let began = Instant::now();
    is_served(&bridge).await;
    let time = began.elapsed();
    assert!(time < Duration::from_secs(3), "the deadline is 10 s, it took {time:?}");
}

#[tokio::test]
async fn needs_root_name_is_looked_up_for_each_connection() {
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    let names = Names::new();
    names.hosts("127.0.0.2 ews.test\n");
    let bridge = names.bridge(target.address().port(), &certificate).start();
    bridge.try_client().await.unwrap_err();
    names.hosts("127.0.0.1 ews.test\n");
    is_served(&bridge).await;
}

#[tokio::test]
async fn needs_root_dead_name_server_holds_a_deadline_and_is_asked_once_for_all() {
    const CLIENTS: usize = 40;
    let certificate = Pki::new().server();
    let names = Names::new();
    let server = UdpSocket::bind("127.0.0.53:53").or_else(|_| UdpSocket::bind("127.0.0.99:53")).unwrap();
    fs::write(names.file("resolv"), format!("nameserver {}\n", server.local_addr().unwrap().ip())).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while server.recv_from(&mut question).is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let resolv = fs::canonicalize("/etc/resolv.conf").unwrap();
    let bridge = names
        .bridge(443, &certificate)
        .cover(resolv.to_str().unwrap(), &names.file("resolv"))
        .args(["--connect-timeout", "1s"])
        .start();
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut tcp = tokio::net::TcpStream::connect(bridge.address()).await.unwrap();
        tcp.write_all(&client_hello()).await.unwrap();
        clients.push(tcp);
    }
    for mut tcp in clients {
        let mut answer = Vec::new();
        within("the alert", tcp.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 40], "{}", bridge.log());
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    bridge.wait_for_log(&["WARN", "target ews.test:443: look-up: no answer within 1s", "hint=", "client=127.0.0.1:"]);
    // One look-up asks for A and AAAA, and may repeat both; forty would ask for eighty at least.
    let asked = asked.load(Ordering::SeqCst);
    assert!((1..=8).contains(&asked), "{asked} questions");
}

/// What a name server says to each question.
#[derive(Clone, Copy)]
enum Says {
    /// This address.
    Address([u8; 4]),
    /// This code (RFC 1035 §4.1.1): 2 can't tell, 3 no such name, 5 won't tell.
    Code(u8),
    Nothing,
}

/// A name server that knows one address of every name and can be told otherwise; and how often it was asked.
fn name_server(at: &str, says: Says) -> (Arc<Mutex<Says>>, Arc<AtomicUsize>) {
    let server = UdpSocket::bind((at, 53)).unwrap();
    let (says, asked) = (Arc::new(Mutex::new(says)), Arc::new(AtomicUsize::new(0)));
    let (now, count) = (Arc::clone(&says), Arc::clone(&asked));
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, client)) = server.recv_from(&mut message) {
            count.fetch_add(1, Ordering::SeqCst);
            let question = &message[..length];
            let _ = match *now.lock().unwrap() {
                Says::Nothing => continue,
                Says::Code(code) => server.send_to(&answered(question, code, None), client),
                Says::Address(address) => server.send_to(&answered(question, 0, Some(address)), client),
            };
        }
    });
    (says, asked)
}

/// The answer to a question, with an address for A, number 1, and none for AAAA.
fn answered(question: &[u8], code: u8, address: Option<[u8; 4]>) -> Vec<u8> {
    // The name ends with a zero; type and class follow. What comes then (EDNS) is left out.
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let address = address.filter(|_| question[end - 4..end - 2] == [0, 1]);
    let mut answer = question[..end].to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | code;
    answer[6..12].copy_from_slice(&[0, u8::from(address.is_some()), 0, 0, 0, 0]);
    if let Some(address) = address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address);
    }
    answer
}

#[tokio::test]
async fn needs_root_changed_address_is_followed_and_the_last_is_used_while_no_name_server_answers() {
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    let port = target.address().port();
    let names = Names::new();
    let (says, _) = name_server("127.0.0.98", Says::Address([127, 0, 0, 1]));
    let now = |new| *says.lock().unwrap() = new;
    fs::write(names.file("resolv"), "nameserver 127.0.0.98\noptions timeout:5 attempts:1\n").unwrap();
    let resolv = fs::canonicalize("/etc/resolv.conf").unwrap();
    let start = || {
        let bridge = names.bridge(port, &certificate).cover(resolv.to_str().unwrap(), &names.file("resolv"));
        bridge.start()
    };
    let bridge = start();
    is_served(&bridge).await;
    now(Says::Address([127, 0, 0, 2]));
    bridge.try_client().await.unwrap_err();
    bridge.wait_for_log(&["WARN", &format!("target ews.test:{port}: connect: 127.0.0.2: connection refused")]);
    now(Says::Address([127, 0, 0, 1]));
    is_served(&bridge).await;

    for code in [2, 5] {
        now(Says::Code(code));
        is_served(&bridge).await;
        is_served(&bridge).await;
    }
    let line = bridge.wait_for_log(&["WARN", "name ews.test: look-up: temporary failure in name resolution; "]).line;
    assert!(line.contains("s ago are used: 127.0.0.1 hint=\"is the name server of this machine up"), "{line}");
    now(Says::Nothing);
    for longest in [3, 1] {
        // Who comes while the look-up goes on has no patience left.
        let began = Instant::now();
        is_served(&bridge).await;
        assert!(began.elapsed() < Duration::from_secs(longest), "{:?}", began.elapsed());
    }
    assert_eq!(bridge.log().matches("name ews.test: look-up: ").count(), 1, "{}", bridge.log());

    // Fresh answers are followed again once there are any; that there is no such name is one.
    now(Says::Address([127, 0, 0, 1]));
    let began = Instant::now();
    while !bridge.log().contains("name ews.test: look-ups are answered again") {
        assert!(began.elapsed() < common::TIMEOUT, "{}", bridge.log());
        is_served(&bridge).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    now(Says::Code(3));
    bridge.try_client().await.unwrap_err();
    bridge.wait_for_log(&["WARN", &format!("target ews.test:{port}: look-up: name or service not known")]);
    // And with it the last addresses are gone.
    now(Says::Code(2));
    bridge.try_client().await.unwrap_err();
    bridge.wait_for_log(&["WARN", &format!("target ews.test:{port}: look-up: temporary failure in name resolution")]);

    // Without a last address there is nothing to use.
    let bridge = start();
    bridge.try_client().await.unwrap_err();
    bridge.wait_for_log(&["WARN", &format!("target ews.test:{port}: look-up: temporary failure in name resolution")]);
}

#[tokio::test]
async fn needs_root_clients_beyond_20_a_second_share_look_ups_and_follow_a_change_within_a_second() {
    const CLIENTS: usize = 400;
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    let port = target.address().port();
    let names = Names::new();
    let (says, asked) = name_server("127.0.0.97", Says::Address([127, 0, 0, 1]));
    fs::write(names.file("resolv"), "nameserver 127.0.0.97\n").unwrap();
    let resolv = fs::canonicalize("/etc/resolv.conf").unwrap();
    let bridge = names.bridge(port, &certificate).cover(resolv.to_str().unwrap(), &names.file("resolv")).start();
    let began = Instant::now();
    for _ in 0..CLIENTS {
        is_served(&bridge).await;
    }
    // One look-up asks for A and AAAA, and now and then one may repeat both; 20 may be made at once, then
    // one in 50 ms.
    let look_ups = 20.0 + 20.0 * began.elapsed().as_secs_f64() + 1.0;
    let asked = asked.load(Ordering::SeqCst) as f64;
    assert!(asked <= 2.0 * look_ups + 8.0, "{asked} questions for {look_ups} look-ups");
    assert!(asked < 2.0 * CLIENTS as f64, "each client had one of its own");

    *says.lock().unwrap() = Says::Address([127, 0, 0, 2]);
    let began = Instant::now();
    while bridge.try_client().await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(2), "the old address is still used");
    }
}

#[tokio::test]
async fn needs_root_name_server_that_lies_leads_no_client_to_an_impostor() {
    let (pki, other) = (Pki::new(), Pki::new());
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    let port = target.address().port();
    // At another address, the same port: the name is right, its authority isn't.
    let listener = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    let impostor = TlsTarget::serve_on(listener, &other.server(), move |mut connection| {
        count.fetch_add(connection.receive_all().0.len(), Ordering::SeqCst);
    });
    let names = Names::new();
    for trust in [["--pin".to_owned(), certificate.pin()], ["--ca".to_owned(), pki.ca_file().display().to_string()]] {
        names.hosts("127.0.0.1 ews.test\n");
        let bridge = names.any(port).args(trust).args(["--server-name", "localhost"]).start();
        // Two, so that there is a session to be resumed.
        is_served(&bridge).await;
        is_served(&bridge).await;
        names.hosts("127.0.0.2 ews.test\n");
        let before = impostor.accepted();
        assert_eq!(bridge.try_client().await.unwrap_err(), Failure::Alert(AlertDescription::HandshakeFailure));
        bridge.wait_for_log(&["WARN", &format!("target ews.test:{port}: certificate: ")]);
        assert_eq!((impostor.accepted(), heard.load(Ordering::SeqCst)), (before + 1, 0));
        // And the truth is believed again.
        names.hosts("127.0.0.1 ews.test\n");
        is_served(&bridge).await;
    }
}

/// A listener that accepts no more: what comes then gets no answer.
fn full_backlog_at(address: SocketAddr) -> (TcpListener, Vec<std::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let mut queue = Vec::new();
    while let Ok(tcp) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        queue.push(tcp);
    }
    (socket.into(), queue)
}
