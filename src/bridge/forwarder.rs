//! One forwarder, ready to serve: its settings and what all its connections share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::Signal;

use super::dialer::Dialer;
use super::resolver::Resolver;
use crate::config::{Name, Places, Settings};
use crate::tls::identity::{self, Pair};
use crate::tls::inbound::{self, Listener};
use crate::tls::outbound;
use crate::tls::trust;

/// Where the certificate and key that a forwarder serves come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder with `cert.pem` and `key.pem`, looked at again from time to time; the forwarder has
    /// a file of settings.
    Folder {
        /// The folder.
        path: PathBuf,
        /// How the files looked before they were read: what changes from then on is news.
        seen: Stamp,
    },
    /// Made for this run; never changes.
    Memory,
}

/// What all connections of a forwarder share.
pub struct Forwarder {
    /// Its name in the log.
    pub name: String,
    /// Its settings.
    pub settings: Arc<Settings>,
    /// The client's side.
    pub listener: Listener,
    /// The target's side.
    pub dialer: Dialer,
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
            Self::Identity(error) => error.hint(),
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
        settings: Settings,
        pair: Pair,
        source: Source,
        resolver: Resolver,
    ) -> Result<Self, Error> {
        let settings = Arc::new(settings);
        let file = matches!(source, Source::Folder { .. });
        Ok(Self {
            listener: Listener::new(pair, settings.client_min_tls)?,
            dialer: Dialer::new(file.then(|| name.clone()), Arc::clone(&settings), resolver)?,
            name,
            settings,
            source,
        })
    }

    /// Makes a forwarder ready whose settings and certificate lie on disk.
    ///
    /// # Errors
    /// As [`Forwarder::new`].
    pub fn load(places: &Places, name: &Name, settings: Settings, resolver: Resolver) -> Result<Self, Error> {
        let path = places.identity(name);
        let source = Source::Folder { seen: stamp(&path), path };
        let pair = identity::read(&places.identity(name))?;
        Self::new(name.to_string(), settings, pair, source, resolver)
    }

    /// Whether its certificate lies on disk, where it may change.
    pub fn is_on_disk(&self) -> bool {
        matches!(self.source, Source::Folder { .. })
    }

    /// Takes a changed certificate over as long as the process lives, at once on SIGHUP; a bad one
    /// leaves the old in force.
    ///
    /// `hangup` is the caller's: until it is registered SIGHUP ends the process, so it must be before
    /// anybody is told that the forwarder runs.
    pub async fn follow_identity(&self, mut hangup: Signal) {
        let Source::Folder { path: folder, seen } = &self.source else { return };
        let mut seen = *seen;
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(IDENTITY_CHECK) => false,
            };
            let now = stamp(folder);
            if now == seen && !asked {
                continue;
            }
            seen = now;
            match self.load_identity(folder) {
                Ok(until) => tracing::info!(forwarder = self.name, %until, "certificate loaded"),
                Err(error) => tracing::error!(
                    forwarder = self.name,
                    "certificate changed on disk, but {error}; still using the old one"
                ),
            }
        }
    }

    /// Serves new connections with what the folder holds; gives back until when it is valid.
    fn load_identity(&self, folder: &Path) -> Result<time::Date, Error> {
        // Reading may wait for a writer that is between its two files.
        let pair = tokio::task::block_in_place(|| identity::read(folder))?;
        let until = pair.facts.not_after.date();
        self.listener.replace(pair)?;
        Ok(until)
    }
}

/// What changes when one of the two files does: their times and lengths.
pub type Stamp = [Option<(SystemTime, u64)>; 2];

fn stamp(folder: &Path) -> Stamp {
    ["cert.pem", "key.pem"].map(|file| {
        let metadata = std::fs::metadata(folder.join(file)).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}
