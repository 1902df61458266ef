//! What the outside sees of a running bridge: its log.

pub mod log;
