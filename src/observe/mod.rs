//! What the outside sees of a running bridge: its log, and how it stands.
//!
//! [`tally`] counts what the data path tells it, [`problems`] keeps the log's last warnings; a
//! [`snapshot`] is both at one moment, from which [`sentence`] makes systemd's status line and [`metrics`]
//! what Prometheus reads, by [`exporter`] where one listens.

pub mod exporter;
pub mod log;
pub mod metrics;
pub mod problems;
pub mod progress;
pub mod sentence;
pub mod snapshot;
pub mod tally;
