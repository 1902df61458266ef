//! The client's leg: TLS 1.2 and 1.3 by rustls.
//!
//! A ClientHello is read and answered in memory first ([`Hello::answer`]); what was computed leaves
//! only in [`Answered::finish`], when the target is ready. [`Answered::refuse`] puts a fatal alert in
//! the ServerHello's place, so that a client is never told "connected" before it is true.
//!
//! rustls is driven directly. tokio-rustls' acceptor would answer a TLS 1.1 hello with alert 40
//! before we could say 70, its stream sends the ServerHello at once, and it hides how a peer ended.

mod alert;
mod established;
mod hello;
mod listener;
mod proof;

use std::io;

use super::client_auth::{self, Refused};
use crate::leg::proxy::Malformed;

pub use alert::{Alert, refuse};
pub use established::Inbound;
pub use hello::{Answered, Hello, proxy_header};
pub use listener::Listener;
pub use proof::Unproved;

/// What can be wrong with the listener's side of TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client vanished before its ClientHello was whole.
    #[error("the client left before its ClientHello was complete")]
    Left,
    /// The client speaks nothing newer than TLS 1.1.
    #[error("the client speaks nothing newer than TLS 1.1")]
    TooOld,
    /// The client speaks HTTP without TLS.
    #[error("the client speaks plain HTTP")]
    PlainHttp,
    /// It must begin with a PROXY header, and does not.
    #[error("PROXY header: {0}")]
    ProxyHeader(Malformed),
    /// A PROXY header where none may be.
    #[error("a PROXY header where none may be")]
    StrayProxyHeader,
    /// The certificate that it shows won't do.
    #[error("client certificate: {}", .0.why)]
    Certificate(Refused),
    /// The client's TLS is not acceptable, or it gave up: rustls' words.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// Authorities that can't be used.
    #[error("client_ca: {0}")]
    ClientCa(#[from] client_auth::Error),
    /// The connection broke.
    #[error("{0}")]
    Io(io::Error),
}

/// Whether TCP was torn down by the peer.
pub(super) fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
    )
}
