//! Failures of this machine's own way to the target, in a network of its own, and of its names.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod common;

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use cli_support::{EWSBRIDGE, Outcome, Sandbox, free_port, run_to_end};
use common::{Bridge, Pki};
use tempfile::TempDir;

/// Runs `add` after these commands of a shell, in a network with nothing but a loopback.
fn added_in_a_network_of_its_own(sandbox: &Sandbox, before: &str, target: &str) -> Outcome {
    assert!(cli_support::is_root(), "needs root; leave it out by: tests/run --rootless");
    let listen = format!("127.0.0.1:{}", free_port());
    let script = format!(
        "ip link set lo up && {before} && {EWSBRIDGE} add x {listen} {target} --insecure; code=$?; kill $! 2>/dev/null; exit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]);
    sandbox.surround(&mut command);
    run_to_end(&mut command)
}

#[test]
fn needs_root_no_way_to_the_target_is_explained() {
    let no_way = "this machine has no way there; see: ip route get ADDRESS";
    let forbidden = "this machine itself forbids it; see: ip route get ADDRESS, nft list ruleset";
    for (before, cause, hint) in [
        ("true", "network is unreachable", no_way),
        ("ip route add unreachable 192.0.2.1", "no route to host", no_way),
        ("ip route add prohibit 192.0.2.1", "permission denied", forbidden),
        (
            "ip addr add 192.0.2.1 dev lo",
            "connection refused",
            "nothing listens there on port 443: is the service started, and is it that port?",
        ),
    ] {
        let sandbox = Sandbox::new();
        let told = added_in_a_network_of_its_own(&sandbox, before, "192.0.2.1:443").exited(1).error();
        let expected = format!("x: target 192.0.2.1:443: connect: {cause}\nhint: {hint}\n");
        assert_eq!(told, expected);
    }
}

#[test]
fn needs_root_target_to_which_there_is_a_way_again_is_reached() {
    let material = tempfile::tempdir().unwrap();
    let certificate = cli_support::Certificate::self_signed(material.path(), "EXCH1");
    let (cert, key) = (certificate.cert.display(), certificate.key.display());
    // It must not outlive its shell, nor hold the shell's pipes.
    let server = format!(
        "ip route add unreachable 192.0.2.1; ip route del unreachable 192.0.2.1 && ip addr add 192.0.2.1 dev lo && \
         {{ openssl s_server -accept 192.0.2.1:443 -www -cert {cert} -key {key} </dev/null >/dev/null 2>&1 & }} && \
         timeout 20 sh -c 'until openssl s_client -connect 192.0.2.1:443 </dev/null >/dev/null 2>&1; do sleep 0.1; done'"
    );
    let sandbox = Sandbox::new();
    added_in_a_network_of_its_own(&sandbox, &server, "192.0.2.1:443").succeeded();
}

/// A name server that answers each question with this code (RFC 1035 §4.1.1): 2 can't tell, 3 no such name.
fn name_server(code: &Arc<AtomicU8>) {
    let server = UdpSocket::bind(("127.0.0.97", 53)).unwrap();
    let code = Arc::clone(code);
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, client)) = server.recv_from(&mut message) {
            message[2] |= 0x80;
            message[3] = message[3] & 0xf0 | code.load(Ordering::SeqCst);
            let _ = server.send_to(&message[..length], client);
        }
    });
}

#[tokio::test]
async fn needs_root_name_that_is_not_found_is_explained_and_found_once_it_is_right() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let resolv = file("resolv", "nameserver 127.0.0.97\noptions attempts:1\n");
    let nsswitch = file("nsswitch", "hosts: files dns\n");
    let hosts = file("hosts", "127.0.0.1 localhost\n");
    let real = fs::canonicalize("/etc/resolv.conf").unwrap();
    let certificate = Pki::new().server();
    let target = common::TlsTarget::echo(&certificate);
    let port = common::Listening::address(&target).port();
    let started = || {
        Bridge::to_name(&format!("ews.test:{port}"))
            .pin(&certificate)
            .cover("/etc/hosts", &hosts)
            .cover("/etc/nsswitch.conf", &nsswitch)
            .cover(real.to_str().unwrap(), &resolv)
            .start()
    };
    let answer = Arc::new(AtomicU8::new(3));
    name_server(&answer);
    let right = "hint=\"is the name right? this machine must find it: getent hosts NAME\"";
    let up = "hint=\"is the name server of this machine up (/etc/resolv.conf)? or give the target's address\"";
    for (code, cause, hint) in
        [(3, "name or service not known", right), (2, "temporary failure in name resolution", up)]
    {
        answer.store(code, Ordering::SeqCst);
        let bridge = started();
        bridge.try_client().await.unwrap_err();
        let line = bridge.wait_for_log(&["WARN", "look-up: "]).line;
        assert!(line.contains(&format!("target ews.test:{port}: look-up: {cause} ")) && line.contains(hint), "{line}");
    }
    fs::write(&hosts, "127.0.0.1 localhost ews.test\n").unwrap();
    common::is_served(&started()).await;
}
