//! The relay and both legs by themselves: `cargo bench --bench micro`.
//!
//! Both ends of each connection run in one thread, so that a figure holds the work of both peers and
//! nothing that a scheduler decides. Beside each handshake stands the same one between the bare
//! libraries: the difference is what the bridge adds. Allocations are Rust's; OpenSSL has its own.

// No part of the program.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod inbound;
mod outbound;
mod peers;
mod relay;

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}
