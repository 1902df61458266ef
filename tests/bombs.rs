//! Certificates and keys made to be expensive take little of the bridge's memory and time, whether the
//! target's certificate is pinned, vouched for by a CA, or not looked at.

#![allow(clippy::unwrap_used)]

mod common;
mod foe;

use foe::{Siege, bombs, owner};
use std::time::{Duration, Instant};

/// TLS 1.0 and TLS 1.2.
const VERSIONS: [u8; 2] = [1, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_bombs_take_little_memory_and_little_time() {
    let authority = bombs::Authority::new();
    let ca = authority.file.to_str().unwrap();
    for (trust, mut siege) in [
        ("pin", Siege::start(&["--allow-weak=dhe"]).await),
        ("ca", Siege::start_trusting(authority.owner(), &["--ca", ca, "--accept", "wrong-name"]).await),
        ("insecure", Siege::start_trusting(owner(1024), &["--insecure", "--allow-weak=dhe"]).await),
    ] {
        for (name, messages) in bombs::all(&authority) {
            let before = siege.vitals();
            let began = Instant::now();
            let scripts = VERSIONS.into_iter().flat_map(|minor| {
                let messages = &messages;
                std::iter::repeat_with(move || messages.script(minor)).take(4)
            });
            siege.meets(scripts.collect::<Vec<_>>()).await;
            let now = siege.vitals();
            let (grown, busy) = (now.most_memory - before.most_memory.min(now.most_memory), now.busy - before.busy);
            eprintln!("{trust} {name}: {} MiB, busy {busy:?}, {:?}", grown >> 20, began.elapsed());
            assert!(grown < 64 << 20, "{name}: the most memory grew by {} MiB", grown >> 20);
            // Only a Diffie-Hellman group of 10000 bits, OpenSSL's limit, takes as much as a second each.
            assert!(busy < Duration::from_secs(16), "{name}: busy for {busy:?}");
        }
        siege.recovers().await;
    }
}
