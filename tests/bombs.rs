//! Certificates and keys made to be expensive take little of the bridge's memory and time, whether the
//! target's certificate is pinned, vouched for by a CA, or not looked at.

#![allow(clippy::unwrap_used)]

mod common;
mod foe;

use foe::{Siege, bombs, owner};
use std::time::Duration;

/// TLS 1.0 and TLS 1.2.
const VERSIONS: [u8; 2] = [1, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_take_little_where_the_certificate_is_pinned() {
    let authority = bombs::Authority::new();
    explode(&authority, Siege::start(&["--allow-weak=dhe"]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_take_little_where_a_ca_vouches_for_the_certificate() {
    let authority = bombs::Authority::new();
    let trust = ["--ca", authority.file.to_str().unwrap(), "--accept", "wrong-name"];
    explode(&authority, Siege::start_trusting(authority.owner(), &trust).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_take_little_where_nobody_looks_at_the_certificate() {
    let authority = bombs::Authority::new();
    explode(&authority, Siege::start_trusting(owner(1024), &["--insecure", "--allow-weak=dhe"]).await).await;
}

/// Lets several clients at once meet each bomb.
async fn explode(authority: &bombs::Authority, mut siege: Siege) {
    for (name, messages) in bombs::all(authority) {
        let before = siege.vitals();
        let scripts = VERSIONS.into_iter().cycle().take(messages.clients).map(|minor| messages.script(minor));
        siege.meets(scripts).await;
        let now = siege.vitals();
        let (grown, busy) = (now.most_memory.saturating_sub(before.most_memory), now.busy - before.busy);
        assert!(grown < 64 << 20, "{name}: the most memory grew by {} MiB", grown >> 20);
        // Only a Diffie-Hellman group of 10000 bits, OpenSSL's limit, takes as much as a second each.
        assert!(busy < Duration::from_secs(6), "{name}: busy for {busy:?}");
    }
    siege.recovers().await;
}
