//! TLS: everything that touches a certificate, a key or a handshake.

pub mod certificate;
pub mod identity;
pub mod library;
pub mod pfx;
