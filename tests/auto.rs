//! `run --outbound auto`: without any file, too, a server gets what it needs. What servers need is told
//! by tests/compatibility.rs.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Dislike, Manner, NodeServer, Pki, before};

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

#[test]
fn device_that_hangs_at_whatever_is_new_is_not_taken_for_one_that_never_answers() {
    let certificate = Pki::new().server();
    let bare = "security_level = 0, extensions = false";
    let rows = [
        ("TLSv1", "AES128-SHA", Dislike::Extensions, bare.to_owned()),
        ("TLSv1_1", "AES128-SHA", Dislike::Extensions, bare.to_owned()),
        ("TLSv1", "RC4-SHA", Dislike::Extensions, format!("{bare}, allow_weak = [\"rc4\"]")),
        ("TLSv1", "AES128-SHA", Dislike::VersionAbove(1), "max_tls = \"1.0\", security_level = 0".to_owned()),
    ];
    // Each spends deadlines, so all at once.
    std::thread::scope(|scope| {
        for (protocol, ciphers, dislike, needs) in &rows {
            let certificate = &certificate;
            scope.spawn(move || {
                let server = NodeServer::start("4.9.1", certificate, protocol, ciphers);
                let device = before(&server, *dislike, Manner::Hangs);
                let bridge = Bridge::to(&device).pin(certificate).args(["--outbound", "auto", "--allow-weak"]);
                let bridge = bridge.start_within(SEARCH);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let answer = runtime.block_on(async { bridge.client().await.request("POST /echo", b"word").await });
                assert_eq!(answer.text(), "word");
                bridge.wait_for_log(&[&format!(" with {needs}; ")]);
            });
        }
    });
}

/// A search whose offers are met with silence, one after another.
const SEARCH: std::time::Duration = std::time::Duration::from_secs(100);
