//! The load: clients on one side, the target on the other, both in the harness' own process.
//!
//! The same for every peer, and the same without TLS for the plain relay of the floor.

mod client;
mod delay;
mod pattern;
mod target;

pub(crate) use client::{Client, Connection, Group};
pub(crate) use delay::Delay;
pub(crate) use target::{Target, TargetKind};

/// Bytes in a full TLS record.
pub(crate) const FULL_RECORD: usize = 16 << 10;
/// Bytes in a small one.
pub(crate) const SMALL_RECORD: usize = 2 << 10;
