//! Why a connection did not come about: whose fault, at which stage, the cause, the cure.

use std::fmt;

use crate::observe::tally;
use crate::tls::certificate::Facts;
use crate::tls::explain::{Cure, Explained, Reason};
use crate::tls::inbound::Alert;

/// Whose fault it is; it decides the log's level and the client's alert ([`Failure::alert`]).
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
    /// What kind of cause, for counting.
    pub reason: Reason,
    /// One cause, in plain words, with the library's code where there is one.
    pub cause: String,
    /// What to do about it; [`Failure::hint`] says it in words.
    pub cure: Option<Cure>,
    /// The forwarder that commands can name, if a file of settings stands behind it.
    pub forwarder: Option<String>,
    /// The certificate that was refused.
    pub presented: Option<Box<Facts>>,
}

impl Failure {
    /// A failure at this stage of the way to the target, or of its handshake.
    pub fn of(explained: Explained, blame: Blame, side: String, stage: &'static str) -> Self {
        Self {
            blame: if explained.is_ours { Blame::Bridge } else { blame },
            side,
            stage,
            kind: if explained.is_foreign { Kind::Foreign } else { Kind::Plain },
            reason: explained.reason,
            cause: explained.cause,
            cure: explained.cure,
            forwarder: None,
            presented: None,
        }
    }

    /// The failures of several targets as one: the first, with the others' words in its cause.
    pub fn all(failures: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut failures = failures.into_iter();
        let mut told = failures.next()?;
        for other in failures {
            told.cause = format!("{}; {other}", told.cause);
            told.cure = told.cure.or(other.cure);
        }
        Some(told)
    }

    /// What it is counted as.
    pub fn counted(&self) -> tally::Failed {
        let side = match self.blame {
            Blame::Client => "client",
            Blame::Target => "target",
            Blame::Bridge => "bridge",
        };
        tally::Failed { side, stage: self.stage, reason: self.reason.word() }
    }

    /// What to do about it, as a line that can be pasted.
    pub fn hint(&self) -> Option<String> {
        self.cure.as_ref().map(|cure| cure.text(self.forwarder.as_deref()))
    }

    /// The same for somebody who has let `outbound=auto` search already.
    pub fn hint_after_search(&self) -> Option<String> {
        match &self.cure {
            Some(Cure::Search { otherwise, .. }) => Some(otherwise.text(self.forwarder.as_deref())),
            _ => self.hint(),
        }
    }

    /// What a client is told in place of a ServerHello.
    ///
    /// | at fault | alert | because |
    /// |---|---|---|
    /// | target, way to it, its certificate | 40, handshake_failure | no more concerns a client; 70 would let it try older versions, 42 to 49 look for a fault in its own certificates |
    /// | this machine | 80, internal_error | "an internal error unrelated to the peer" (RFC 8446 §6.2) |
    /// | client | what rustls says; 70 if it is too old | sent where its ClientHello is judged, before there is a failure |
    pub fn alert(&self) -> Alert {
        match self.blame {
            Blame::Bridge => Alert::InternalError,
            Blame::Target | Blame::Client => Alert::HandshakeFailure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.side, self.stage, self.cause)
    }
}

impl std::error::Error for Failure {}
