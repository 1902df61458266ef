//! 3DES and RC4 are built in and off; worse is not to be had. Proved by connecting.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Failure, NodeServer, Pki, TcpTarget, read_response};
use rustls::AlertDescription;

/// Each suite of node 4's OpenSSL 1.0.2 that an admin must ask for.
const WEAK: [&str; 3] = ["DES-CBC3-SHA", "RC4-SHA", "RC4-MD5"];

#[tokio::test]
async fn weak_cipher_is_refused_by_default_and_the_log_says_so() {
    let certificate = Pki::new().server();
    for suite in WEAK {
        let target = NodeServer::start("4.9.1", &certificate, "TLSv1", suite);
        let bridge = Bridge::to(&target).pin(&certificate).start();
        let failure = bridge.try_client().await.unwrap_err();
        assert_eq!(failure, Failure::Alert(AlertDescription::HandshakeFailure));
        bridge.wait_for_log(&["WARN", "target 127.0.0.1:", "TLS handshake", "cipher"]);
    }
}

#[tokio::test]
async fn weak_cipher_is_used_when_named() {
    let certificate = Pki::new().server();
    for protocol in ["TLSv1", "TLSv1_2"] {
        for suite in WEAK {
            let target = NodeServer::start("4.9.1", &certificate, protocol, suite);
            let bridge = Bridge::to(&target).pin(&certificate).args(["--ciphers", suite]).start();
            let mut client = bridge.client().await;
            client.send(b"GET /bytes/5/1 HTTP/1.1\r\n\r\n").await;
            assert_eq!(read_response(&mut client).await.status, 200);
            drop(client);
            assert_eq!(&bridge.session()["suite_out"], suite);
        }
    }
}

#[tokio::test]
async fn naming_one_weak_cipher_lets_no_other_in() {
    let certificate = Pki::new().server();
    let target = NodeServer::start("4.9.1", &certificate, "TLSv1", "RC4-SHA");
    let bridge = Bridge::to(&target).pin(&certificate).args(["--ciphers", "AES128-SHA:DES-CBC3-SHA"]).start();
    bridge.try_client().await.unwrap_err();
}

#[tokio::test]
async fn word_for_many_ciphers_lets_no_weak_one_in() {
    let certificate = Pki::new().server();
    let target = NodeServer::start("4.9.1", &certificate, "TLSv1", "DES-CBC3-SHA");
    for word in ["RSA", "kRSA", "SSLv3", "HIGH", "DEFAULT"] {
        let bridge = Bridge::to(&target).pin(&certificate).args(["--ciphers", word]).start();
        assert!(bridge.try_client().await.is_err(), "{word} means 3DES too");
    }
}

#[test]
fn ciphers_that_protect_nothing_are_refused_at_once() {
    let words = [
        "NULL-SHA",
        "NULL",
        "eNULL",
        "ADH-AES128-SHA",
        "aNULL",
        "AECDH-AES256-SHA",
        "EXP-RC4-MD5",
        "EXPORT",
        "DES-CBC-SHA",
        "null-sha",
    ];
    for word in words {
        refused_at_once(&["--ciphers", word]);
        // A sum of good and bad is bad.
        refused_at_once(&["--ciphers", &format!("AES128-SHA:{word}")]);
    }
}

#[test]
fn cipher_list_without_a_cipher_is_refused_at_once() {
    for list in ["", ":", "nonsense", "AES128-SHA:@SECLEVEL=2", "@STRENGTH"] {
        refused_at_once(&["--ciphers", list]);
    }
}

#[test]
fn versions_before_1_0_and_nonsense_are_refused_at_once() {
    for (flag, version) in [
        ("--min-tls", "ssl3"),
        ("--min-tls", "3.0"),
        ("--max-tls", "SSLv3"),
        ("--min-tls", "0.9"),
        ("--max-tls", "1.4"),
        ("--min-tls", ""),
    ] {
        refused_at_once(&[flag, version]);
    }
    refused_at_once(&["--min-tls", "1.2", "--max-tls", "1.0"]);
}

/// The settings are wrong: exit code 2, before anything listens.
fn refused_at_once(arguments: &[&str]) {
    let target = TcpTarget::silent();
    let (code, text) = Bridge::to(&target).arg("--insecure").args(arguments).start_in_vain();
    assert_eq!(code, 2, "{arguments:?}: {text}");
    assert!(text.contains(arguments[0]), "{arguments:?}: the error doesn't name the flag: {text}");
}
