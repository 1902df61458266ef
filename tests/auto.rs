//! `run --outbound auto`: without any file, too, a server gets what it needs. What servers need is told
//! by tests/compatibility.rs.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, NodeServer, Pki};

#[tokio::test]
async fn a_modern_server_gets_modern_settings_after_one_connection() {
    let certificate = Pki::new().server();
    let server = NodeServer::start("4.9.1", &certificate, "TLSv1_2", "ECDHE-RSA-AES128-GCM-SHA256");
    let bridge = Bridge::to(&server).pin(&certificate).args(["--outbound", "auto"]).start();
    let answer = bridge.client().await.request("POST /echo", b"word").await;
    assert_eq!(answer.text(), "word");
    bridge.wait_for_log(&["auto: TLS 1.2 ECDHE-RSA-AES128-GCM-SHA256 with security_level = 2; 1 connection "]);
}

#[tokio::test]
async fn an_old_server_gets_what_it_needs() {
    let certificate = Pki::new().server();
    let server = NodeServer::start("0.12.18", &certificate, "TLSv1", "RC4-SHA");
    let bridge = Bridge::to(&server).pin(&certificate).args(["--outbound", "auto", "--allow-weak"]).start();
    let answer = bridge.client().await.request("POST /echo", b"word").await;
    assert_eq!(answer.text(), "word");
    bridge.wait_for_log(&["auto: TLS 1.0 RC4-SHA with security_level = 0, allow_weak = [\"rc4\"]; "]);
}

#[tokio::test]
async fn weak_thing_that_nobody_allowed_is_named_with_the_flag_that_allows_it() {
    let certificate = Pki::new().server();
    let server = NodeServer::start("4.9.1", &certificate, "TLSv1", "RC4-SHA");
    let (code, text) = Bridge::to(&server).pin(&certificate).args(["--outbound", "auto"]).start_in_vain();
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("can't do without what is weak: RC4") && text.contains("--allow-weak=rc4"), "{text}");
}
