//! How one target stands, by the last that was seen of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::observe::snapshot::Certificate;

/// What was last seen of one target; of the settings in force, so that a reload begins anew.
#[derive(Debug)]
pub struct Target {
    name: String,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    answered: Option<(OffsetDateTime, Answered)>,
    /// Since when nothing but failures, and the last of them.
    down: Option<(OffsetDateTime, Cause)>,
    certificate: Option<(Instant, Certificate)>,
}

/// A connection that came about.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The address, with its port.
    pub address: Option<String>,
    /// `1.0`, `1.1` or `1.2`.
    pub version: &'static str,
    /// The cipher suite.
    pub suite: &'static str,
    /// How long the TLS handshake took.
    pub handshake: Duration,
}

/// Why a connection did not.
#[derive(Clone, Debug)]
pub struct Cause {
    /// Stage and cause in words.
    pub text: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How it stands, in a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// `HOST:PORT` as the settings have it.
    pub target: String,
    /// `ok`, `down`, or `unknown` before the first connection.
    pub state: String,
    /// The address of the last handshake.
    pub address: Option<String>,
    /// Its TLS version.
    pub tls: Option<String>,
    /// Its cipher suite.
    pub suite: Option<String>,
    /// How long it took.
    pub handshake_seconds: Option<f64>,
    /// When it was.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_ok: Option<OffsetDateTime>,
    /// When the first of the failures since then was.
    #[serde(with = "time::serde::rfc3339::option")]
    pub down_since: Option<OffsetDateTime>,
    /// The last failure, while it is down.
    pub cause: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How often a certificate is looked at again: taking it apart for every connection would cost.
const LOOK: Duration = Duration::from_secs(60);

impl Target {
    /// Nothing is known yet of the target by this name.
    pub fn new(name: String) -> Self {
        Self { name, seen: Mutex::default() }
    }

    /// A connection came about. Its certificate is asked for where none was seen lately; it must be one
    /// that was shown on this connection, or in the one whose session it resumes.
    pub fn answered(&self, how: Answered, at: OffsetDateTime, certificate: impl FnOnce() -> Option<Certificate>) {
        let now = Instant::now();
        let mut seen = self.seen();
        if seen.certificate.as_ref().is_none_or(|(looked, _)| now.duration_since(*looked) >= LOOK)
            && let Some(certificate) = certificate()
        {
            seen.certificate = Some((now, certificate));
        }
        seen.down = None;
        seen.answered = Some((at, how));
    }

    /// A connection did not come about.
    pub fn failed(&self, cause: Cause, at: OffsetDateTime) {
        let mut seen = self.seen();
        let since = seen.down.take().map_or(at, |(since, _)| since);
        seen.down = Some((since, cause));
    }

    /// The certificate that it showed last.
    pub fn certificate(&self) -> Option<Certificate> {
        self.seen().certificate.as_ref().map(|(_, certificate)| certificate.clone())
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let seen = self.seen();
        let answered = seen.answered.as_ref().map(|(_, answered)| answered);
        let down = seen.down.as_ref();
        Standing {
            target: self.name.clone(),
            state: match (answered, down) {
                (_, Some(_)) => "down",
                (Some(_), None) => "ok",
                (None, None) => "unknown",
            }
            .to_owned(),
            address: answered.and_then(|answered| answered.address.clone()),
            tls: answered.map(|answered| answered.version.to_owned()),
            suite: answered.map(|answered| answered.suite.to_owned()),
            handshake_seconds: answered.map(|answered| answered.handshake.as_secs_f64()),
            last_ok: seen.answered.as_ref().map(|(at, _)| *at),
            down_since: down.map(|(since, _)| *since),
            cause: down.map(|(_, cause)| cause.text.clone()),
            hint: down.and_then(|(_, cause)| cause.hint.clone()),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn answered(target: &Target, seconds: i64) {
        let how = Answered {
            address: Some("10.0.0.1:443".to_owned()),
            version: "1.1",
            suite: "AES128-SHA",
            handshake: Duration::from_millis(31),
        };
        target.answered(how, T + time::Duration::seconds(seconds), || None);
    }

    #[test]
    fn it_is_down_from_the_first_failure_to_the_next_answer() {
        let target = Target::new("a:443".to_owned());
        assert_eq!(target.standing().state, "unknown");
        answered(&target, 1);
        for (second, text) in [(5, "connect: refused"), (9, "connect: timed out")] {
            target.failed(Cause { text: text.to_owned(), hint: None }, T + time::Duration::seconds(second));
        }
        let down = target.standing();
        assert_eq!((down.state.as_str(), down.cause.as_deref()), ("down", Some("connect: timed out")));
        assert_eq!(down.down_since, Some(T + time::Duration::seconds(5)));
        assert_eq!(down.last_ok, Some(T + time::Duration::seconds(1)));
        answered(&target, 12);
        let up = target.standing();
        assert_eq!((up.state.as_str(), up.cause, up.down_since), ("ok", None, None));
        assert_eq!(up.last_ok, Some(T + time::Duration::seconds(12)));
    }
}
