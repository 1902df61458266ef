//! Why a connection did not come about: whose fault, at which stage, the cause, the cure.

use std::fmt;

use crate::tls::certificate::Facts;

/// Whose fault it is; it decides the log's level and the client's alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client: scanners, wrong versions, distrust of our certificate.
    Client,
    /// The target, or the way to it, or its certificate.
    Target,
    /// This machine.
    Bridge,
}

/// What kind of failure, where somebody goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whatever the cause says.
    Plain,
    /// Another protocol is spoken there.
    Foreign,
    /// The deadline passed.
    Silent,
}

/// A failed connection: `<side>: <stage>: <cause>`, and a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose fault.
    pub blame: Blame,
    /// `target ews.corp:443` or `client 10.0.0.1:51812`.
    pub side: String,
    /// `look-up`, `connect`, `TLS handshake`, `certificate` …
    pub stage: &'static str,
    /// What kind of failure.
    pub kind: Kind,
    /// One cause, in plain words, with the library's code where there is one.
    pub cause: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The certificate that was refused.
    pub presented: Option<Box<Facts>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.side, self.stage, self.cause)
    }
}

impl std::error::Error for Failure {}
