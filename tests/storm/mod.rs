//! What the torture run is made of.

// Each run uses its own part of this.
#![allow(dead_code, unreachable_pub)]

pub mod bridge;
pub mod client;
pub mod flow;
pub mod ledger;
pub mod pattern;
pub mod plan;
pub mod target;
#[path = "../foe/vitals.rs"]
pub mod vitals;
