//! IIS asks for a new handshake inside the connection, with or without a wish for a certificate.
//! Nothing of what is under way is lost.

#![allow(clippy::unwrap_used)]

mod common;

use openssl::ssl::SslVersion;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use common::{Bridge, Certificate, NodeServer, Pki, Plan, Renegotiator, SServer, Stream, sha256};

#[tokio::test]
async fn quiet_connection_goes_on_after_it() {
    let certificate = Pki::new().server();
    for version in ["-tls1", "-tls1_1", "-tls1_2"] {
        // `r` asks for a handshake, `R` for a certificate too.
        for command in ["r", "R"] {
            let flags = [version, "-cipher", "AES128-SHA:@SECLEVEL=0", "-state"];
            let mut target = SServer::start(&certificate, &flags);
            let bridge = Bridge::to(&target).pin(&certificate).start();
            let mut client = bridge.client().await;
            client.send(b"before\n").await;
            target.child.stdout.wait_for(&["before"]);

            target.child.say(format!("{command}\n").as_bytes());
            target.child.stderr.wait_for_nth(&["SSL_accept:SSLv3/TLS write finished"], 1);

            client.send(b"after\n").await;
            target.child.stdout.wait_for(&["after"]);
            target.child.say(b"answer\n");
            assert_eq!(client.receive(7).await, b"answer\n", "{version} {command}");
        }
    }
}

#[tokio::test]
async fn upload_under_way_arrives_whole() {
    const MUCH: usize = 10 << 20;
    let certificate = Pki::new().server();
    for (version, protocol) in [("4.9.1", "TLSv1"), ("4.9.1", "TLSv1_2"), ("0.12.18", "TLSv1")] {
        let target = NodeServer::start(version, &certificate, protocol, "AES128-SHA");
        let bridge = Bridge::to(&target).pin(&certificate).start();
        let mut client = bridge.client().await;
        let body = Stream::bytes("body", MUCH);
        let answer = client.request("POST /ask", &body).await;
        assert_eq!(answer.text(), format!("true {MUCH} {}", sha256(&body)), "{version} {protocol}");
        // And again on the same connection, which is as good as new.
        let answer = client.request("POST /hash", &body).await;
        assert_eq!(answer.text(), format!("{MUCH} {}", sha256(&body)));
    }
}

/// What happens while the server asks for a new handshake again and again.
async fn everything_arrives(plan: Plan, credential: Option<&Certificate>, delay: bool) {
    let certificate = Pki::new().server();
    let target = Renegotiator::start(&certificate, plan);
    let mut bridge = Bridge::to(&target).pin(&certificate);
    if let Some(shown) = credential {
        bridge = bridge.arg("--auth-cert").arg(&shown.cert_file).arg("--auth-key").arg(&shown.key_file);
    }
    let bridge = bridge.start();
    let client = bridge.client().await;
    let (mut from, mut to) = tokio::io::split(client);
    let (up, down) = (Stream::bytes("up", plan.up), Stream::bytes("down", plan.down));
    let (sent, have_sent) = tokio::sync::oneshot::channel();
    let upload = async {
        for piece in up.chunks(4000) {
            to.write_all(piece).await.unwrap();
        }
        to.flush().await.unwrap();
        let _ = sent.send(());
        to
    };
    let download = async {
        if delay {
            // A client that reads nothing until it has sent all it has.
            have_sent.await.unwrap();
        }
        let mut received = vec![0; plan.down];
        from.read_exact(&mut received).await.unwrap_or_else(|error| panic!("{plan:?}: {error}\n{}", bridge.log()));
        (received, from)
    };
    let moved =
        tokio::time::timeout(std::time::Duration::from_secs(10), async { tokio::join!(upload, download) }).await;
    let Ok((_to, (received, _from))) = moved else { panic!("{plan:?}: stands still\n{}", bridge.log()) };
    assert!(received == down, "{plan:?}: other bytes came down");
    let told = target.told();
    assert_eq!(told.up, sha256(&up), "{plan:?}: other bytes came up");
    assert!(told.handshakes >= 4, "{plan:?}: {told:?}");
    assert_eq!(told.certificate, credential.is_some() && plan.asks, "{plan:?}: {told:?}");
}

#[tokio::test]
async fn full_load_both_ways_arrives_whole() {
    const MUCH: usize = 8 << 20;
    let credential = Pki::new().client("bridge");
    for version in [SslVersion::TLS1, SslVersion::TLS1_1, SslVersion::TLS1_2] {
        for asks in [false, true] {
            let plan = Plan { version, asks, down: MUCH, up: MUCH, every: 1 << 20 };
            everything_arrives(plan, None, false).await;
            everything_arrives(plan, Some(&credential), false).await;
        }
    }
}

#[tokio::test]
async fn answer_under_way_arrives_whole() {
    for version in [SslVersion::TLS1, SslVersion::TLS1_2] {
        let plan = Plan { version, asks: true, down: 4 << 20, up: 0, every: 300_000 };
        everything_arrives(plan, None, false).await;
    }
}

#[tokio::test]
async fn client_that_reads_only_after_its_upload_is_no_deadlock() {
    for version in [SslVersion::TLS1, SslVersion::TLS1_2] {
        // The answer, 200 KiB, fits into no buffer of the bridge's.
        let plan = Plan { version, asks: false, down: 200 << 10, up: 8 << 20, every: 100_000 };
        everything_arrives(plan, None, true).await;
    }
}

#[tokio::test]
async fn one_that_the_target_does_not_finish_ends_the_connection_and_is_named() {
    let certificate = Pki::new().server();
    for version in [SslVersion::TLS1, SslVersion::TLS1_2] {
        for uploads in [false, true] {
            let target = Renegotiator::stalling(&certificate, version);
            let bridge = Bridge::to(&target).pin(&certificate).args(["--set", "handshake_timeout=2s"]).start();
            let mut client = bridge.client().await;
            let began = std::time::Instant::now();
            if uploads {
                client.send(b"a request").await;
            }
            let (bytes, end) = client.receive_all().await;
            assert_eq!(bytes, b"before");
            assert_ne!(end, "close_notify");
            assert!(began.elapsed().as_secs() >= 1, "given up after {:?}", began.elapsed());
            let session = bridge.session();
            assert_eq!(&session["ended_by"], "target", "{}", session.line);
            assert_eq!(&session["end"], "renegotiation: not finished within 2s (handshake_timeout)");
            // The target is let go as well.
            target.told();
        }
    }
}

#[test]
fn needs_root_small_socket_buffers_are_no_deadlock() {
    own_network();
    // What this thread starts from here on lives in its network.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for buffers in [4 << 10, 16 << 10, 64 << 10] {
            hold(buffers);
            for version in [SslVersion::TLS1, SslVersion::TLS1_2] {
                let plan = Plan { version, asks: false, down: 200 << 10, up: 4 << 20, every: 100_000 };
                everything_arrives(plan, None, false).await;
            }
        }
        // A client that reads nothing before it has sent everything, and a server that reads nothing while
        // a record of its answer is half sent, wait for each other whoever is between, unless the answer
        // fits into the sockets' buffers.
        for version in [SslVersion::TLS1, SslVersion::TLS1_2] {
            let plan = Plan { version, asks: false, down: 200 << 10, up: 4 << 20, every: 100_000 };
            everything_arrives(plan, None, true).await;
        }
    });
}

#[test]
fn needs_root_new_handshake_that_finds_no_room_for_its_hello_is_no_deadlock() {
    own_network();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        hold(16 << 10);
        // At some of these lengths the last record of the upload fits into the buffers and nothing does behind it.
        for up in (28_000..36_000).step_by(125) {
            let plan = Plan { version: SslVersion::TLS1_2, asks: false, down: 100 << 10, up, every: 1 << 40 };
            let certificate = Pki::new().server();
            let target = Renegotiator::deaf_while_it_sends(&certificate, plan);
            let bridge = Bridge::to(&target).pin(&certificate).start();
            let (mut from, mut to) = tokio::io::split(bridge.client().await);
            let (sent, expected) = (Stream::bytes("up", up), Stream::bytes("down", plan.down));
            let mut received = vec![0; plan.down];
            let upload = async {
                to.write_all(&sent).await?;
                to.flush().await
            };
            let moved = async { tokio::join!(upload, from.read_exact(&mut received)) };
            let moved = tokio::time::timeout(std::time::Duration::from_secs(10), moved).await;
            let Ok((Ok(()), Ok(_))) = moved else { panic!("{plan:?}: {moved:?}\n{}", bridge.log()) };
            assert!(received == expected, "{plan:?}: other bytes came down");
            let told = target.told();
            assert_eq!((told.up, told.handshakes), (sha256(&sent), 1), "{plan:?}");
        }
    });
}

/// Moves this thread into a network of its own.
fn own_network() {
    assert!(nix::unistd::geteuid().is_root(), "needs root; leave it out by: tests/run --rootless");
    // SAFETY: concerns this thread alone.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    shell("ip link set lo up mtu 1500");
}

/// Has the sockets made from now on hold so many bytes and never more (tcp(7)).
fn hold(bytes: usize) {
    shell(&format!(
        "cd /proc/sys/net/ipv4 && echo {bytes} {bytes} {bytes} >tcp_rmem && echo {bytes} {bytes} {bytes} >tcp_wmem"
    ));
}

fn shell(script: &str) {
    let status = std::process::Command::new("sh").args(["-c", script]).status().unwrap();
    assert!(status.success(), "{status}: {script}");
}
