//! The authorities that this system trusts: found where each distribution keeps them, and missed
//! loudly where there are none.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Bridge, Builder, Pki, TlsTarget};
use tempfile::TempDir;

/// The folders under which systems keep their authorities.
const FOLDERS: [&str; 3] = ["/etc/ssl", "/usr/share/ca-certificates", "/var/lib"];

fn with_empty_folders(bridge: Builder, empty: &TempDir) -> Builder {
    FOLDERS
        .iter()
        .filter(|folder| fs::exists(folder).unwrap())
        .fold(bridge, |bridge, folder| bridge.cover(folder, empty.path()))
}

#[test]
fn needs_root_system_without_authorities_is_an_error_at_start() {
    let empty = TempDir::new().unwrap();
    let target = TlsTarget::echo(&Pki::new().server());
    let (code, text) = with_empty_folders(Bridge::to(&target), &empty).start_in_vain();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("system authorities: none found in /etc/ssl/certs/ca-certificates.crt, "), "{text}");
    assert!(
        text.contains("hint: install the package ca-certificates, or give --ca FILE or --pin sha256:HEX"),
        "{text}"
    );
}

#[tokio::test]
async fn needs_root_authorities_are_found_where_distributions_keep_them() {
    let pki = Pki::new();
    let target = TlsTarget::echo(&pki.server());
    for (folder, file) in
        [("/etc/ssl", "certs/ca-certificates.crt"), ("/etc/ssl", "ca-bundle.pem"), ("/etc/ssl", "cert.pem")]
    {
        let place = TempDir::new().unwrap();
        let path = place.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(pki.ca_file(), path).unwrap();
        let bridge = Bridge::to(&target).cover(folder, place.path()).start();
        let mut client = bridge.client().await;
        client.send(b"word").await;
        assert_eq!(client.receive(4).await, b"word", "{folder}/{file}");
    }
}

#[tokio::test]
async fn system_authorities_do_not_vouch_for_a_private_one() {
    let target = TlsTarget::echo(&Pki::new().server());
    let bridge = Bridge::to(&target).start();
    bridge.try_client().await.unwrap_err();
    bridge.wait_for_log(&["WARN", "certificate: issued by ", "which nothing here trusts", "--ca FILE"]);
}
