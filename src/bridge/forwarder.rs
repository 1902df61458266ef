//! One forwarder, ready to serve: its settings and what all its connections share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::failure::{Blame, Failure};
use super::resolver::Resolver;
use crate::config::values::duration_text;
use crate::config::{Name, Places, Settings};
use crate::tls::explain::Cure;
use crate::tls::identity::{self, Pair};
use crate::tls::inbound::{self, Listener};
use crate::tls::outbound::{self, Connector, Failed, Outbound};
use crate::tls::trust;

/// Where the certificate and key that a forwarder serves come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder with `cert.pem` and `key.pem`, looked at again from time to time.
    Folder(PathBuf),
    /// Made for this run; never changes.
    Memory,
}

/// What all connections of a forwarder share.
pub struct Forwarder {
    /// Its name in the log.
    pub name: String,
    /// Whether a file of settings stands behind the name, so that hints can name commands.
    pub has_file: bool,
    /// Its settings.
    pub settings: Arc<Settings>,
    /// The client's side.
    pub listener: Listener,
    /// The target's side.
    pub connector: Connector,
    resolver: Resolver,
    source: Source,
}

/// Why a forwarder can't be made ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our own certificate or key.
    #[error("certificate: {0}")]
    Identity(#[from] identity::Error),
    /// The same, by rustls' words.
    #[error("certificate: {0}")]
    Inbound(#[from] inbound::Error),
    /// The target's side.
    #[error(transparent)]
    Outbound(#[from] outbound::Error),
}

impl Error {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Outbound(outbound::Error::Trust(trust::Error::NoSystemAuthorities)) => {
                Some("install the package ca-certificates, or give --ca FILE or --pin sha256:HEX".to_owned())
            }
            _ => None,
        }
    }
}

/// How often a forwarder looks whether its certificate has changed on disk.
const IDENTITY_CHECK: Duration = Duration::from_secs(60);

impl Forwarder {
    /// Makes everything ready that needs no network.
    ///
    /// # Errors
    /// Whatever of certificate, key, ciphers and authorities can't be used.
    pub fn new(
        name: String,
        has_file: bool,
        settings: Settings,
        pair: Pair,
        source: Source,
        resolver: Resolver,
    ) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        Ok(Self {
            listener: Listener::new(pair, settings.client_min_tls)?,
            connector: Connector::new(Arc::clone(&settings))?,
            name,
            has_file,
            settings,
            resolver,
            source,
        })
    }

    /// Makes a forwarder ready whose settings and certificate lie on disk.
    ///
    /// # Errors
    /// As [`Forwarder::new`].
    pub fn load(places: &Places, name: &Name, settings: Settings, resolver: Resolver) -> Result<Self, Error> {
        let folder = places.identity(name);
        let pair = identity::read(&folder)?;
        Self::new(name.to_string(), true, settings, pair, Source::Folder(folder), resolver)
    }

    /// Opens TCP and TLS to the target.
    ///
    /// # Errors
    /// [`Failure`] with stage, cause and cure.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn reach(&self) -> Result<Outbound, Failure> {
        let deadlines = &self.settings.deadlines;
        let tcp = self.resolver.connect(&self.settings.target, deadlines.connect).await?;
        match tokio::time::timeout(deadlines.handshake, self.connector.connect(tcp)).await {
            Ok(Ok(leg)) => Ok(leg),
            Ok(Err(failed)) => Err(self.explain(failed)),
            Err(_) => Err(self.target_failure(
                "TLS handshake",
                format!("not finished within {}", duration_text(deadlines.handshake)),
                None,
            )),
        }
    }

    fn explain(&self, failed: Failed) -> Failure {
        match failed {
            Failed::Handshake(explained) => self.target_failure("TLS handshake", explained.cause, explained.hint),
            Failed::Certificate(refusal) => {
                let cure = match (refusal.fault, self.has_file) {
                    (Some(fault), _) => Cure::Set("accept", fault.word().to_owned()),
                    (None, true) => Cure::Do(format!("look at it: ewsbridge trust {}", self.name)),
                    (None, false) => match refusal.leaf.as_deref().and_then(trust::fingerprint) {
                        Some(found) => Cure::Do(format!("compare it, then --pin {found}, or give its CA by --ca FILE")),
                        None => Cure::Do("give its CA by --ca FILE".to_owned()),
                    },
                };
                self.target_failure("certificate", refusal.cause, Some(cure))
            }
            Failed::Ours(cause) => {
                Failure { blame: Blame::Bridge, ..self.target_failure("TLS handshake", cause, None) }
            }
        }
    }

    fn target_failure(&self, stage: &'static str, cause: String, cure: Option<Cure>) -> Failure {
        let name = self.has_file.then_some(self.name.as_str());
        Failure {
            blame: Blame::Target,
            side: format!("target {}", self.settings.target),
            stage,
            cause,
            hint: cure.map(|cure| cure.text(name)),
        }
    }

    /// Takes a changed certificate over as long as the process lives; a bad one leaves the old in force.
    pub async fn follow_identity(&self) {
        let Source::Folder(folder) = &self.source else { return };
        let mut seen = stamp(folder);
        loop {
            tokio::time::sleep(IDENTITY_CHECK).await;
            let now = stamp(folder);
            if now == seen {
                continue;
            }
            seen = now;
            match identity::read(folder).map_err(Error::from).and_then(|pair| {
                let until = pair.facts.not_after.date();
                self.listener.replace(pair)?;
                Ok(until)
            }) {
                Ok(until) => tracing::info!(forwarder = self.name, %until, "certificate renewed"),
                Err(error) => tracing::error!(
                    forwarder = self.name,
                    "certificate changed on disk, but {error}; still using the old one"
                ),
            }
        }
    }
}

/// What changes when one of the two files does.
fn stamp(folder: &std::path::Path) -> [Option<(SystemTime, u64)>; 2] {
    ["cert.pem", "key.pem"].map(|file| {
        let metadata = std::fs::metadata(folder.join(file)).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}
