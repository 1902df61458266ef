//! What to do about a failure, as a line that can be pasted.

use crate::config::values::{Fault, Version};
use crate::config::{Fingerprint, Settings};

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cure {
    /// Change settings of the forwarder.
    Set(Vec<(&'static str, String)>),
    /// Accept these faults of the target's certificate, and those that are accepted by now.
    Accept(Vec<Fault>),
    /// Look at the certificate and pin it, or name its authority.
    Trust {
        /// What to pin.
        pin: Option<Fingerprint>,
        /// Whether all that is missing is an authority.
        or_authority: bool,
        /// What a pin makes void, as a flag.
        in_place_of: Option<&'static str>,
    },
    /// Wait longer for a server that is slow; a search waits for less, so none then.
    Patience,
    /// Give the client the authority of our own certificate.
    OwnAuthority,
    /// Let `outbound=auto` find out what the target needs.
    Search {
        /// Settings that were decided by hand, as flags.
        in_place_of: Vec<&'static str>,
        /// What is left to do where that was tried.
        otherwise: Box<Cure>,
    },
    /// One of these, each after what it depends on.
    OneOf(Vec<(String, Cure)>),
    /// Something else.
    Do(String),
}

impl Cure {
    /// One setting to change.
    pub(super) fn set(key: &'static str, value: impl Into<String>) -> Self {
        Self::Set(vec![(key, value.into())])
    }

    /// Something to do that is no setting.
    pub(super) fn to_do(text: impl Into<String>) -> Self {
        Self::Do(text.into())
    }

    /// One of these, each after what it depends on.
    pub(super) fn one_of<const N: usize>(cures: [(&str, Self); N]) -> Self {
        Self::OneOf(cures.into_iter().map(|(when, cure)| (when.to_owned(), cure)).collect())
    }

    /// The part that accepts faults of a certificate.
    pub fn acceptance(&self) -> Option<&Self> {
        match self {
            Self::Accept(_) => Some(self),
            Self::OneOf(cures) => cures.iter().find_map(|(_, cure)| cure.acceptance()),
            _ => None,
        }
    }

    /// To let `outbound=auto` find out; `otherwise` is left where it can't.
    pub(super) fn search(settings: &Settings, otherwise: Self) -> Self {
        let by_hand = [
            ("--min-tls", settings.min_tls != Version::Tls1_0),
            ("--max-tls", settings.max_tls != Version::Tls1_2),
            ("--ciphers", settings.ciphers.is_some()),
            ("--security-level", settings.security_level != 0),
            ("--no-extensions", !settings.extensions),
            ("--no-empty-fragments", !settings.empty_fragments),
        ];
        let in_place_of = by_hand.into_iter().filter(|(_, is)| *is).map(|(flag, _)| flag).collect();
        Self::Search { in_place_of, otherwise: Box::new(otherwise) }
    }

    /// As a line that can be pasted: for a named forwarder, or as flags where there is no file.
    pub fn text(&self, name: Option<&str>) -> String {
        match (self, name) {
            (Self::Set(pairs), Some(name)) => {
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("ewsbridge set {name} {}", pairs.join(" "))
            }
            (Self::Set(pairs), None) => pairs.iter().map(|(key, value)| flag(key, value)).collect::<Vec<_>>().join(" "),
            (Self::Accept(faults), _) => {
                let words: Vec<_> = faults.iter().map(|fault| fault.word()).collect();
                Self::set("accept", words.join(",")).text(name)
            }
            (Self::Trust { or_authority, .. }, Some(name)) => {
                let or = if *or_authority {
                    format!("; or name its authority: ewsbridge set {name} ca=FILE")
                } else {
                    String::new()
                };
                format!("look at it, and pin it if it is right: ewsbridge trust {name}{or}")
            }
            (Self::Trust { pin: Some(pin), or_authority, in_place_of }, None) => {
                let instead = in_place_of.map_or_else(String::new, |flag| format!(" in place of {flag}"));
                let or = if *or_authority { "; or give its authority: --ca FILE" } else { "" };
                format!("compare it, then --pin {pin}{instead}{or}")
            }
            (Self::Trust { pin: None, .. }, None) => "give its authority: --ca FILE".to_owned(),
            (Self::Patience, Some(_)) => Self::set("handshake_timeout", PATIENCE).text(name),
            (Self::Patience, None) => format!("--outbound manual --handshake-timeout {PATIENCE}"),
            (Self::OwnAuthority, Some(name)) => format!("give it the text of: ewsbridge cert show {name}"),
            (Self::OwnAuthority, None) => {
                "give it the authority that was printed at the start, or that of --cert".to_owned()
            }
            (Self::Search { .. }, Some(name)) => format!("ewsbridge set {name} outbound=auto"),
            (Self::Search { in_place_of, .. }, None) => match in_place_of[..] {
                [] => "--outbound auto".to_owned(),
                _ => format!("--outbound auto in place of {}", in_place_of.join(", ")),
            },
            (Self::OneOf(cures), _) => {
                let cures: Vec<_> = cures.iter().map(|(when, cure)| format!("{when}: {}", cure.text(name))).collect();
                cures.join("; ")
            }
            (Self::Do(text), _) => text.clone(),
        }
    }
}

/// Ten times as long as the slowest server that we know of takes.
const PATIENCE: &str = "60s";

/// A setting as a flag.
fn flag(key: &str, value: &str) -> String {
    let flag = key.replace('_', "-");
    match (key, value) {
        // These have no flag of their own.
        ("proxy_from" | "send_proxy", _) => format!("--set {key}={value}"),
        // Its list is optional, so the value needs the sign.
        ("allow_weak", _) => format!("--{flag}={value}"),
        (_, "false") => format!("--no-{flag}"),
        _ => format!("--{flag} {value}"),
    }
}
