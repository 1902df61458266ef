//! The fixtures, proved without the bridge: the old servers are old, and do what the other tests assume.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Flaw, Listening, NodeServer, Pki, SServer, Stream, TcpTarget, TlsTarget, full_backlog, s_client, sha256};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Any version, any cipher: what a legacy client would send.
const ANYTHING: [&str; 2] = ["-cipher", "ALL:@SECLEVEL=0"];

#[test]
fn old_servers_speak_exactly_the_version_asked_for() {
    let certificate = Pki::new().server();
    for version in ["0.10.48", "0.12.18", "4.9.1"] {
        for (protocol, shown) in [("TLSv1", "TLSv1"), ("TLSv1_1", "TLSv1.1"), ("TLSv1_2", "TLSv1.2")] {
            let server = NodeServer::start(version, &certificate, protocol, "AES256-SHA");
            let (_, text) = s_client(server.address(), &ANYTHING, "GET /bytes/5/1 HTTP/1.0\r\n\r\n");
            assert!(text.contains(&format!("Protocol  : {shown}\n")), "{version} {protocol}: {text}");
            assert!(text.contains("200 OK"), "{text}");
        }
    }
}

#[test]
fn both_sides_make_the_same_stream() {
    let certificate = Pki::new().server();
    let server = NodeServer::start("0.10.48", &certificate, "TLSv1", "AES256-SHA");
    let expected = Stream::bytes("seed", 100_000);
    let body = legacy_get(&server, "/bytes/100000/seed");
    assert_eq!(sha256(&body), sha256(&expected));
    assert_eq!(server.connections(), 1);
}

#[test]
fn s_server_is_limited_to_the_version_and_suite_asked_for() {
    let certificate = Pki::new().server();
    for (flag, shown) in [("-tls1", "TLSv1"), ("-tls1_1", "TLSv1.1"), ("-tls1_2", "TLSv1.2")] {
        for suite in ["ECDHE-RSA-AES256-SHA", "AES256-SHA"] {
            let server = SServer::start(&certificate, &[flag, "-cipher", &format!("{suite}:@SECLEVEL=0"), "-www"]);
            let (_, text) = s_client(server.address(), &ANYTHING, "GET / HTTP/1.0\r\n\r\n");
            assert!(text.contains(&format!("Protocol  : {shown}\n")), "{text}");
            assert!(text.contains(&format!("Cipher is {suite}")), "{text}");
        }
    }
}

#[test]
fn certificates_have_the_flaw_they_are_named_for() {
    let pki = Pki::new();
    let verify = |flaw, level: &str| {
        let certificate = pki.flawed(flaw);
        let mut command = std::process::Command::new("openssl");
        command.args(["verify", "-verify_ip", "127.0.0.1", "-auth_level", level]).arg("-CAfile").arg(pki.ca_file());
        let output =
            command.arg("-untrusted").arg(&certificate.cert_file).arg(&certificate.cert_file).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    for (flaw, complaint) in [
        (Flaw::Sha1, "CA signature digest algorithm too weak"),
        (Flaw::Sha1Intermediate, "CA signature digest algorithm too weak"),
        (Flaw::Md5, "CA signature digest algorithm too weak"),
        (Flaw::Md5Intermediate, "CA signature digest algorithm too weak"),
        (Flaw::Rsa1024, "EE certificate key too weak"),
        (Flaw::Rsa1024Intermediate, "CA certificate key too weak"),
    ] {
        assert!(verify(flaw, "2").contains(complaint), "{flaw:?}: {}", verify(flaw, "2"));
        assert!(verify(flaw, "0").contains(": OK"), "{flaw:?}: {}", verify(flaw, "0"));
    }
    for (flaw, complaint) in [
        (Flaw::Expired, "certificate has expired"),
        (Flaw::WrongName, "IP address mismatch"),
        (Flaw::IpInCn, "IP address mismatch"),
        (Flaw::SelfSigned, "self-signed certificate"),
    ] {
        assert!(verify(flaw, "0").contains(complaint), "{flaw:?}: {}", verify(flaw, "0"));
    }
}

#[test]
fn inner_targets_speak_tls_1_0_and_count() {
    let certificate = Pki::new().server();
    let target = TlsTarget::serve(&certificate, |mut connection| {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        connection.write_all(b"answer").unwrap();
        connection.close_notify();
    });
    let (code, text) = s_client(target.address(), &ANYTHING, "?");
    assert!(text.contains("Protocol  : TLSv1\n") && text.contains("answer"), "{code} {text}");
    assert_eq!((target.accepted(), target.handshakes()), (1, 1));
}

#[test]
fn full_backlog_answers_nothing() {
    let (address, _held) = full_backlog();
    let error = TcpStream::connect_timeout(&address, Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[test]
fn silent_target_accepts_and_says_nothing() {
    let target = TcpTarget::silent();
    let mut stream = TcpStream::connect(target.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

/// A GET by a client of the server's own age; the body.
fn legacy_get(server: &impl Listening, path: &str) -> Vec<u8> {
    let mut builder = openssl::ssl::SslContext::builder(openssl::ssl::SslMethod::tls_client()).unwrap();
    builder.set_security_level(0);
    builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
    let ssl = openssl::ssl::Ssl::new(&builder.build()).unwrap();
    let mut stream = ssl.connect(TcpStream::connect(server.address()).unwrap()).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    answer.split_off(head + 4)
}
