//! TLS on both sides: rustls towards clients, OpenSSL towards the target, and who trusts whom.
//!
//! The only place that names a TLS library. Knows no settings file and no command line.

pub mod certificate;
pub mod client_auth;
pub mod credential;
pub mod explain;
pub mod faults;
pub mod identity;
pub mod inbound;
pub mod library;
pub mod offer;
pub mod outbound;
mod overtime;
pub mod pfx;
pub mod reference;
mod refusal;
pub mod scan;
mod sessions;
pub mod trust;
