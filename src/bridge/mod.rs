//! The data path: a listener accepts, a session leads one connection, a relay moves its bytes.
//!
//! Knows nothing of TLS beyond what [`crate::tls`] offers, and nothing of the command line.

pub mod admission;
pub mod auto;
pub mod backoff;
pub mod descriptors;
pub mod dialer;
pub mod failure;
pub mod forwarder;
mod gate;
pub mod last_good;
pub mod listener;
pub mod origin;
pub mod relay;
pub mod resolver;
pub mod served;
pub mod session;
pub mod threads;
pub mod watch;

pub use forwarder::Forwarder;
pub use served::Served;
pub use threads::Threads;
