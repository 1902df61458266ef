//! `auto` against real old servers: it finds what each needs, and nothing that it doesn't.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{
    Bridge, Certificate, Dislike, GnutlsServer, Listening, Manner, NodeServer, Pki, Stream, before, read_response,
};

/// What a server does with the bytes it gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// Answers `POST /echo`.
    Http,
    /// Sends them back.
    Echo,
}

/// What `run --outbound auto --allow-weak` has found, as the flags that say the same.
async fn found(target: &str, certificate: &Certificate, speaks: Speaks) -> Vec<String> {
    let bridge = Bridge::to_name(target).pin(certificate).args(["--outbound", "auto", "--allow-weak"]).start();
    carries_a_mebibyte(&bridge, speaks).await;
    let line = bridge.wait_for_log(&["auto: TLS "]).line;
    let switches = line.split(" with ").nth(1).unwrap().split("; ").next().unwrap();
    // Lists have commas too.
    let mut flags = Vec::new();
    for (key, value) in switches.replace("\", \"", ",").split(", ").map(|part| part.split_once(" = ").unwrap()) {
        let value = value.trim_matches(['[', ']', '"']);
        flags.push(match key {
            "extensions" | "empty_fragments" => format!("--no-{}", key.replace('_', "-")),
            _ => format!("--{}={value}", key.replace('_', "-")),
        });
    }
    flags
}

/// 1 MiB there and back, every byte.
async fn carries_a_mebibyte(bridge: &Bridge, speaks: Speaks) {
    let mut client = bridge.client().await;
    if speaks == Speaks::Echo {
        // gnutls-serv sends back lines of text.
        for piece in Stream::bytes("auto", 1 << 20).chunks(1023) {
            let line: Vec<u8> = piece.iter().map(|byte| b'a' + byte % 26).chain([b'\n']).collect();
            client.send(&line).await;
            assert!(client.receive(line.len()).await == line, "other bytes came back");
        }
        return;
    }
    let body = Stream::bytes("auto", 1 << 20);
    client.send(format!("POST /echo HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await;
    let (mut there, mut back) = (&body[..], Vec::new());
    while !there.is_empty() {
        let piece = there.len().min(16 << 10);
        client.send(&there[..piece]).await;
        there = &there[piece..];
    }
    let answer = read_response(&mut client).await;
    back.extend_from_slice(&answer.body);
    assert_eq!(answer.status, 200);
    assert!(back == body, "{} bytes came back of {}", back.len(), body.len());
}

/// The flags with each switch taken away in turn.
fn each_less(flags: &[String]) -> Vec<Vec<String>> {
    let mut less = Vec::new();
    for (index, flag) in flags.iter().enumerate() {
        let mut fewer = flags.to_vec();
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        match (key, value) {
            ("--security-level", "2") => continue,
            // Without TLS 1.2 no other level can be set (tests/config/invalid).
            ("--security-level", _)
                if flags.iter().any(|flag| flag.starts_with("--max-tls") || flag == "--no-extensions") => {}
            ("--security-level", level) => {
                fewer[index] = format!("--security-level={}", level.parse::<u8>().unwrap() + 1);
                less.push(fewer);
            }
            ("--allow-weak", words) => {
                for word in words.split(',') {
                    let rest: Vec<&str> = words.split(',').filter(|other| *other != word).collect();
                    let mut fewer = fewer.clone();
                    match rest[..] {
                        [] => _ = fewer.remove(index),
                        _ => fewer[index] = format!("--allow-weak={}", rest.join(",")),
                    }
                    less.push(fewer);
                }
            }
            _ => {
                fewer.remove(index);
                less.push(fewer);
            }
        }
    }
    less
}

/// Finds exactly `flags`; each is needed.
async fn needs(target: &str, certificate: &Certificate, speaks: Speaks, flags: &[&str]) {
    let found = found(target, certificate, speaks).await;
    assert_eq!(found, flags, "{target}");
    for less in each_less(&found) {
        let bridge = Bridge::to_name(target).pin(certificate).args(&less).start();
        let Ok(mut client) = bridge.try_client().await else { continue };
        // Empty records are stumbled over after the handshake.
        client.send(b"GET /bytes/5/1 HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        let answer = tokio::time::timeout(Duration::from_secs(3), client.receive_all()).await;
        assert!(answer.is_err() || answer.is_ok_and(|(bytes, _)| bytes.is_empty()), "{less:?} would have been enough");
    }
}

#[tokio::test]
async fn node_gets_what_it_needs_and_no_more() {
    let certificate = Pki::new().server();
    for (version, protocol, ciphers, flags) in [
        ("4.9.1", "TLSv1_2", "ECDHE-RSA-AES128-GCM-SHA256", &["--security-level=2"][..]),
        ("0.10.48", "TLSv1_2", "AES256-GCM-SHA384", &["--security-level=2"]),
        ("4.9.1", "TLSv1_1", "ECDHE-RSA-AES128-SHA", &["--security-level=0"]),
        ("4.9.1", "TLSv1", "ECDHE-RSA-AES128-SHA", &["--security-level=0"]),
        ("0.10.48", "TLSv1", "AES128-SHA", &["--security-level=0"]),
        ("0.12.18", "TLSv1", "RC4-SHA", &["--security-level=0", "--allow-weak=rc4"]),
        ("4.9.1", "TLSv1_2", "RC4-MD5", &["--security-level=0", "--allow-weak=rc4"]),
        ("0.10.48", "TLSv1_2", "DES-CBC3-SHA", &["--security-level=2", "--allow-weak=3des"]),
        ("4.9.1", "TLSv1", "DES-CBC3-SHA", &["--security-level=0", "--allow-weak=3des"]),
    ] {
        let server = NodeServer::start(version, &certificate, protocol, ciphers);
        let target = server.address().to_string();
        needs(&target, &certificate, Speaks::Http, flags).await;
    }
}

#[tokio::test]
async fn weak_thing_that_nobody_allowed_is_named_with_the_flag_that_allows_it() {
    let certificate = Pki::new().server();
    let server = NodeServer::start("4.9.1", &certificate, "TLSv1", "RC4-SHA");
    let (code, text) = Bridge::to(&server).pin(&certificate).args(["--outbound", "auto"]).start_in_vain();
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("can't do without what is weak: RC4") && text.contains("--allow-weak=rc4"), "{text}");
}

#[tokio::test]
async fn devices_that_dislike_what_is_new_are_humoured() {
    let certificate = Pki::new().server();
    let (above_1_0, above_1_1) = (Dislike::VersionAbove(1), Dislike::VersionAbove(2));
    for (dislike, manner, protocol, ciphers, flags) in [
        (above_1_0, Manner::Alerts, "TLSv1", "AES128-SHA", &["--max-tls=1.0", "--security-level=0"][..]),
        (above_1_0, Manner::Closes, "TLSv1", "RC4-SHA", &["--max-tls=1.0", "--security-level=0", "--allow-weak=rc4"]),
        (above_1_1, Manner::Closes, "TLSv1_1", "ECDHE-RSA-AES128-SHA", &["--max-tls=1.1", "--security-level=0"]),
        (above_1_1, Manner::Hangs, "TLSv1_1", "AES128-SHA", &["--max-tls=1.1", "--security-level=0"]),
        (Dislike::Extensions, Manner::Closes, "TLSv1", "AES128-SHA", &["--security-level=0", "--no-extensions"]),
        (Dislike::Extensions, Manner::Alerts, "TLSv1_1", "AES256-SHA", &["--security-level=0", "--no-extensions"]),
        (
            Dislike::Extensions,
            Manner::Alerts,
            "TLSv1",
            "DES-CBC3-SHA",
            &["--security-level=0", "--no-extensions", "--allow-weak=3des"],
        ),
        (Dislike::EmptyRecords, Manner::Closes, "TLSv1", "AES128-SHA", &["--security-level=0", "--no-empty-fragments"]),
        (Dislike::EmptyRecords, Manner::Hangs, "TLSv1", "AES256-SHA", &["--security-level=0", "--no-empty-fragments"]),
    ] {
        let server = NodeServer::start("4.9.1", &certificate, protocol, ciphers);
        let device = before(&server, dislike, manner);
        needs(&device.address().to_string(), &certificate, Speaks::Http, flags).await;
    }
}

#[tokio::test]
async fn gnutls_gets_what_it_needs_and_no_more() {
    let certificate = Pki::new().server();
    for (priority, flags) in [
        ("-VERS-ALL:+VERS-TLS1.2", &["--security-level=2"][..]),
        ("-VERS-ALL:+VERS-TLS1.1:-KX-ALL:+RSA", &["--security-level=0"]),
        ("-VERS-ALL:+VERS-TLS1.2:-CURVE-ALL:+CURVE-SECP384R1", &["--security-level=2"]),
        ("-VERS-ALL:+VERS-TLS1.2:-CURVE-ALL:+CURVE-SECP521R1:-KX-ALL:+ECDHE-RSA", &["--security-level=2"]),
        ("-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+DHE-RSA", &["--security-level=2", "--allow-weak=dhe"]),
        ("-VERS-ALL:+VERS-TLS1.0:-KX-ALL:+DHE-RSA", &["--security-level=0", "--allow-weak=dhe"]),
        ("-VERS-ALL:+VERS-TLS1.2:%DISABLE_SAFE_RENEGOTIATION", &["--security-level=2", "--allow-weak=no-rfc5746"]),
        ("-VERS-ALL:+VERS-TLS1.0:%DISABLE_SAFE_RENEGOTIATION", &["--security-level=0", "--allow-weak=no-rfc5746"]),
        (
            "-VERS-ALL:+VERS-TLS1.1:-KX-ALL:+DHE-RSA:%DISABLE_SAFE_RENEGOTIATION",
            &["--security-level=0", "--allow-weak=no-rfc5746,dhe"],
        ),
        ("-VERS-ALL:+VERS-TLS1.0:-CIPHER-ALL:+3DES-CBC", &["--security-level=0", "--allow-weak=3des"]),
        ("-VERS-ALL:+VERS-TLS1.0:-CIPHER-ALL:+ARCFOUR-128", &["--security-level=0", "--allow-weak=rc4"]),
    ] {
        let server = GnutlsServer::echo(&certificate, priority);
        needs(&server.address().to_string(), &certificate, Speaks::Echo, flags).await;
    }
}
