//! Clients that must show a certificate (`client_ca`): nobody else reaches the target, and who is no
//! longer trusted can't resume what began when he was.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod common;

use cli_support::{Live, Sandbox, free_port};
use common::{
    Bridge, Builder, Certificate, Client, Listening, Pki, SServer, TcpTarget, TlsTarget, client_hello, curl_with,
    s_client, within,
};
use nix::sys::signal::Signal;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, version};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3];

/// A program that keeps its sessions, and a certificate if it has one.
fn program(version: ProtocolVersion, ca: &str, certificate: Option<&Certificate>) -> Arc<ClientConfig> {
    let version = if version == ProtocolVersion::TLSv1_2 { &version::TLS12 } else { &version::TLS13 };
    let mut roots = RootCertStore::empty();
    CertificateDer::pem_slice_iter(ca.as_bytes()).for_each(|ca| roots.add(ca.unwrap()).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match certificate {
        Some(certificate) => {
            let chain = CertificateDer::pem_file_iter(&certificate.cert_file).unwrap();
            let key = PrivateKeyDer::from_pem_file(&certificate.key_file).unwrap();
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

async fn connect(address: SocketAddr, program: &Arc<ClientConfig>) -> io::Result<Client> {
    let name = ServerName::try_from("localhost").unwrap();
    within("connecting", async {
        let tcp = TcpStream::connect(address).await?;
        Ok(Client(TlsConnector::from(Arc::clone(program)).connect(name, tcp).await?))
    })
    .await
}

/// One word there and back; whether the session was resumed. With TLS 1.3 a client hears only then
/// that it is refused.
async fn visit(address: SocketAddr, program: &Arc<ClientConfig>) -> io::Result<bool> {
    let mut client = connect(address, program).await?;
    within("a word and its echo", async {
        client.write_all(b"word").await?;
        client.flush().await?;
        client.read_exact(&mut [0; 4]).await
    })
    .await?;
    let resumed = client.0.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    client.shut_down().await;
    // Tickets of TLS 1.3 come behind the handshake.
    assert_eq!(client.receive_all().await, (Vec::new(), "close_notify"));
    Ok(resumed)
}

fn demanding(target: &impl Listening, certificate: &Certificate, clients: &Pki) -> Builder {
    let client_ca = format!("client_ca={}", clients.ca_file().display());
    Bridge::to(target).pin(certificate).arg("--set").arg(client_ca)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_certificate_is_served_and_named_in_the_log() {
    let (pki, clients) = (Pki::new(), Pki::new());
    let (certificate, alice) = (pki.server(), clients.client("alice \"x\" up=7"));
    let server = SServer::start(&certificate, &["-www", "-tls1_2"]);
    let bridge = demanding(&server, &certificate, &clients).start();
    let ca = bridge.ca_file();
    let (cert, key) = (alice.cert_file.display().to_string(), alice.key_file.display().to_string());
    for (nth, version) in ["-tls1_2", "-tls1_3"].into_iter().enumerate() {
        let (code, said) =
            s_client(bridge.address(), &[version, "-cert", &cert, "-key", &key], "GET / HTTP/1.0\r\n\r\n");
        assert!(code == 0 && said.contains("HTTP/1.0 200 ok"), "{said}");
        let line = bridge.nth_session(nth).line;
        // Its own words end nothing and begin no other field.
        assert!(line.contains(r#" client_cert="CN=alice \"x\" up=7" tls_out="#), "{line}");
    }
    for version in ["--tls-max 1.2", "--tlsv1.3"] {
        let flags = [version.split(' ').collect(), vec!["--cert", &cert, "--key", &key]].concat();
        let (code, said) = curl_with(&bridge, Some(&ca), "localhost", &flags);
        assert!(code == 0 && said.contains("HTTP/1.0 200 ok"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_writes_no_line_of_the_log() {
    let (pki, clients, others) = (Pki::new(), Pki::new(), Pki::new());
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    let bridge = demanding(&target, &certificate, &clients).start();
    let ca = bridge.ca();
    let subject = "eve\nINFO  session closed client=forged \u{1b}[2J\u{202e}";
    let [known, unknown] =
        [&clients, &others].map(|authority| program(ProtocolVersion::TLSv1_3, &ca, Some(&authority.client(subject))));
    let before = bridge.log().lines().count();
    visit(bridge.address(), &known).await.unwrap();
    visit(bridge.address(), &unknown).await.unwrap_err();
    bridge.wait_for_log(&["WARN", "its certificate CN=eve"]);
    assert!(bridge.session().line.contains("client_cert=\"CN=eve"));
    let log = bridge.log();
    assert_eq!(log.lines().count(), before + 2, "{log}");
    assert!(!log.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_shows_no_good_certificate_gets_an_alert_and_the_target_nothing() {
    let (pki, clients, others, again) = (Pki::new(), Pki::new(), Pki::named("Others' root"), Pki::new());
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    let bridge = demanding(&target, &certificate, &clients).start();
    let yesterday = SystemTime::now() - Duration::from_secs(24 * 3600);
    let ca = clients.ca_file().display().to_string();
    let cases = [
        (
            None,
            ["alert number 116"; 2],
            "it shows no certificate, and client_ca demands one",
            "give the client a certificate by an authority in ",
        ),
        (
            Some(again.client("eve")),
            ["alert number 51"; 2],
            "its certificate CN=eve is signed by another key than that of CN=The test's root in client_ca",
            "if the authority has a new certificate, add it to ",
        ),
        (
            Some(others.client("mallory")),
            ["alert number 48"; 2],
            "its certificate CN=mallory is by CN=Others' root, which client_ca does not hold",
            "if it may connect, add its authority to ",
        ),
        (
            Some(clients.client_until("bob", yesterday)),
            ["alert number 45"; 2],
            "its certificate CN=bob expired on ",
            "renew it and give the new one to the client",
        ),
        (
            Some(clients.server()),
            ["alert number 43"; 2],
            "its certificate CN=exchange is not made for clients (extended key usage)",
            "let it be issued for client authentication (clientAuth)",
        ),
    ];
    for (shown, alerts, cause, hint) in &cases {
        for (nth, (version, alert)) in ["-tls1_2", "-tls1_3"].into_iter().zip(alerts).enumerate() {
            let files = shown
                .as_ref()
                .map(|shown| [shown.cert_file.display().to_string(), shown.key_file.display().to_string()]);
            let mut flags = vec![version];
            if let Some([cert, key]) = &files {
                flags.extend(["-cert", cert, "-key", key]);
            }
            let (_, said) = s_client(bridge.address(), &flags, "");
            assert!(said.contains(alert), "{cause} {version}: {said}");
            let line = bridge.nth_log(&["TLS handshake: ", cause], nth);
            let hint = if hint.ends_with(' ') { format!("{hint}{ca}") } else { (*hint).to_owned() };
            assert!(line.contains("WARN") && line.contains(&hint), "{line}");
        }
    }
    assert_eq!((target.accepted(), bridge.sessions()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_keeps_its_certificate_back_is_dropped_and_the_target_never_hears_of_it() {
    let (pki, clients) = (Pki::new(), Pki::new());
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    let bridge = demanding(&target, &certificate, &clients).args(["--handshake-timeout", "1s", "--verbose"]).start();
    let mut tcp = TcpStream::connect(bridge.address()).await.unwrap();
    tcp.write_all(&client_hello()).await.unwrap();
    let mut said = Vec::new();
    let _ = within("the end", tcp.read_to_end(&mut said)).await;
    assert_eq!((said[0], said[5]), (22, 2), "a ServerHello");
    bridge.wait_for_log(&["TLS handshake: not finished within 1s"]);
    assert_eq!(target.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_target_ends_a_connected_client_without_close_notify() {
    let (pki, clients) = (Pki::new(), Pki::new());
    let alice = clients.client("alice");
    let target = TcpTarget::answering(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    for (nth, version) in VERSIONS.into_iter().enumerate() {
        let bridge = demanding(&target, &pki.server(), &clients).start();
        let program = program(version, &bridge.ca(), Some(&alice));
        let mut client = connect(bridge.address(), &program).await.unwrap();
        // Its request may be on its way by then.
        let _ = client.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(client.receive_all().await, (Vec::new(), "fin"), "{version:?}");
        let line = bridge.wait_for_log(&["target ", "TLS handshake: "]).line;
        assert!(line.contains("WARN") && line.contains("client=127.0.0.1:") && line.contains("hint="), "{line}");
        assert_eq!((target.accepted(), bridge.sessions()), (nth + 1, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connected_client_beyond_max_connections_is_ended_without_close_notify_and_the_target_hears_nothing() {
    let (pki, clients) = (Pki::new(), Pki::new());
    let alice = clients.client("alice");
    let certificate = pki.server();
    for version in VERSIONS {
        let target = TlsTarget::echo(&certificate);
        let bridge = demanding(&target, &certificate, &clients).set("max_connections=1").start();
        let program = program(version, &bridge.ca(), Some(&alice));
        let mut first = connect(bridge.address(), &program).await.unwrap();
        first.send(b"word").await;
        assert_eq!(first.receive(4).await, b"word");
        let mut second = connect(bridge.address(), &program).await.unwrap();
        // Its request may be on its way by then.
        let _ = second.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(second.receive_all().await, (Vec::new(), "fin"), "{version:?}");
        let line = bridge.wait_for_log(&["WARN", "max_connections: 1 are open, and none ended within 2s"]);
        assert!(line["client"].starts_with("127.0.0.1:"), "{}", line.line);
        assert_eq!(&line["hint"], "if so many are right: --set max_connections=2");
        assert_eq!((target.accepted(), bridge.sessions()), (1, 0));
        // Who is inside doesn't notice, and its place is the next one's.
        first.send(b"more").await;
        assert_eq!(first.receive(4).await, b"more");
        drop(first);
        bridge.session();
        assert!(visit(bridge.address(), &program).await.is_ok(), "{}", bridge.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_session_is_that_of_the_same_client() {
    let (pki, clients) = (Pki::new(), Pki::new());
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    for version in VERSIONS {
        let bridge = demanding(&target, &certificate, &clients).start();
        let alice = program(version, &bridge.ca(), Some(&clients.client("alice")));
        for (nth, resumed) in [false, true, true].into_iter().enumerate() {
            assert_eq!(visit(bridge.address(), &alice).await.unwrap(), resumed, "{version:?} {nth}");
            assert_eq!(&bridge.nth_session(nth)["client_cert"], "CN=alice");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_the_certificate_that_began_it() {
    let (pki, clients) = (Pki::new(), Pki::new());
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    let bridge = demanding(&target, &certificate, &clients).start();
    let until = SystemTime::now() + Duration::from_secs(4);
    let carol = clients.client_until("carol", until);
    let programs = VERSIONS.map(|version| program(version, &bridge.ca(), Some(&carol)));
    for program in &programs {
        assert!(!visit(bridge.address(), program).await.unwrap());
        assert!(visit(bridge.address(), program).await.unwrap());
    }
    // What is tested is that time passes.
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_secs(1)).await;
    let before = target.accepted();
    for (nth, program) in programs.iter().enumerate() {
        // In place of the ServerHello, so that the session is not tried again (RFC 5246 §7.2).
        let refused = visit(bridge.address(), program).await.unwrap_err().to_string();
        assert!(refused.contains("CertificateExpired"), "{refused}");
        bridge.nth_log(&["its certificate CN=carol expired on"], nth);
    }
    assert_eq!((target.accepted(), bridge.sessions()), (before, 4));
}

/// A forwarder on disk with an echo behind it.
struct OnDisk {
    sandbox: Sandbox,
    port: u16,
    target: TlsTarget,
}

impl OnDisk {
    fn new() -> Self {
        let (sandbox, port) = (Sandbox::new(), free_port());
        let certificate = Pki::new().server();
        let target = TlsTarget::echo(&certificate);
        let (listen, to) = (format!("127.0.0.1:{port}"), target.address().to_string());
        sandbox
            .run(["add", "x", &listen, &to, "--pin", &certificate.pin(), "--offline", "--san", "localhost"])
            .succeeded();
        Self { sandbox, port, target }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn set(&self, change: &str) {
        self.sandbox.run(["set", "x", change]).succeeded();
    }

    fn ca(&self) -> String {
        fs::read_to_string(self.sandbox.ca("x")).unwrap()
    }
}

/// Has the service read its files again, and waits until it has.
fn hang_up(server: &Live) {
    let count = |server: &Live| server.said().matches(" reloaded ").count();
    let before = count(server);
    server.signal(Signal::SIGHUP);
    common::eventually("a reload", || count(server) > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_longer_trusted_can_not_resume() {
    let on_disk = OnDisk::new();
    let (old, new) = (Pki::new(), Pki::new());
    let ca = on_disk.ca();
    let server = on_disk.sandbox.serve("x");
    let strangers = VERSIONS.map(|version| program(version, &ca, None));
    for stranger in &strangers {
        assert!(!visit(on_disk.address(), stranger).await.unwrap());
        assert!(visit(on_disk.address(), stranger).await.unwrap());
    }
    on_disk.set(&format!("client_ca={}", old.ca_file().display()));
    let before = on_disk.target.accepted();
    for stranger in &strangers {
        // Not even its ticket is looked at: a handshake in full would have let in whoever has a certificate.
        let refused = visit(on_disk.address(), stranger).await.unwrap_err().to_string();
        assert!(refused.contains("CertificateRequired"), "{refused}");
    }
    assert_eq!(on_disk.target.accepted(), before);

    let alices = VERSIONS.map(|version| program(version, &ca, Some(&old.client("alice"))));
    for alice in &alices {
        assert!(!visit(on_disk.address(), alice).await.unwrap());
        assert!(visit(on_disk.address(), alice).await.unwrap());
    }
    // What has nothing to do with it leaves her session alone.
    on_disk.set("idle_timeout=1h");
    for alice in &alices {
        assert!(visit(on_disk.address(), alice).await.unwrap(), "{}", server.said());
    }
    // The same file with something else in it.
    let copy = on_disk.sandbox.etc().join("forwarders/x.client-ca.pem");
    fs::copy(new.ca_file(), &copy).unwrap();
    hang_up(&server);
    let before = on_disk.target.accepted();
    for alice in &alices {
        let refused = visit(on_disk.address(), alice).await.unwrap_err().to_string();
        assert!(refused.contains("DecryptError"), "{refused}");
    }
    assert_eq!(on_disk.target.accepted(), before);
    let bob = program(ProtocolVersion::TLSv1_3, &ca, Some(&new.client("bob")));
    assert!(!visit(on_disk.address(), &bob).await.unwrap());
    // A file that can't be used changes nothing.
    fs::write(&copy, "no certificate\n").unwrap();
    server.signal(Signal::SIGHUP);
    let line = server.wait_for("the old settings are in force");
    assert!(line.contains("reload: client_ca: ") && line.contains("none inside"), "{line}");
    assert!(visit(on_disk.address(), &bob).await.unwrap());
    drop(server);
    on_disk.sandbox.run(["remove", "x"]).succeeded();
    assert!(!copy.exists(), "left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_it_can_not_try() {
    let on_disk = OnDisk::new();
    let clients = Pki::new();
    on_disk.set(&format!("client_ca={}", clients.ca_file().display()));
    let _server = on_disk.sandbox.serve("x");
    let checked = on_disk.sandbox.run(["check", "x"]).succeeded();
    for text in [
        "clients must show a certificate by CN=The test's root; ",
        "an ordinary client that pasted the CA accepts it as",
        "clients must show a certificate (client_ca), and this command has none",
        "hint: curl --cert FILE --key FILE --cacert CA.PEM -H 'Host: 127.0.0.1' https://127.0.0.1:",
        "the path works; ",
    ] {
        assert!(checked.stdout.contains(text), "'{text}' is missing in\n{}", checked.stdout);
    }
}
