//! One forwarder, ready to serve: its settings and what all its connections share.
//!
//! What it serves with ([`Serving`]) is replaced as a whole: by [`Forwarder::reload`] from its files, or
//! in part where only its certificate has changed. A connection keeps what it began with. Whatever
//! can't be made ready changes nothing.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::admission::Admission;
use super::descriptors::Room;
use super::dialer::Dialer;
use super::resolver::Resolver;
use crate::config::values::Listen;
use crate::config::{Name, Places, Settings, store};
use crate::observe::problems;
use crate::observe::snapshot::{Certificate, Snapshot};
use crate::observe::tally::Tally;
use crate::tls::client_auth;
use crate::tls::identity::{self, Pair};
use crate::tls::inbound::{self, Listener};
use crate::tls::outbound;
use crate::tls::trust;

/// Where a forwarder's settings, certificate and key come from.
#[derive(Clone, Debug)]
enum Source {
    /// Files, which may change.
    Disk { places: Places, name: Name },
    /// Made for this run; never changes.
    Memory,
}

/// What a connection begins with and keeps.
pub struct Serving {
    /// The forwarder's name in the log.
    pub name: String,
    /// Its settings.
    pub settings: Arc<Settings>,
    /// The client's side.
    pub listener: Listener,
    /// The target's side.
    pub dialer: Dialer,
    /// Where it is counted.
    pub tally: Arc<Tally>,
    is_on_disk: bool,
}

impl Serving {
    /// Whether a file of settings stands behind it, so that a hint can name a command.
    pub fn is_on_disk(&self) -> bool {
        self.is_on_disk
    }
}

/// A forwarder, whose settings may change while it serves.
pub struct Forwarder {
    /// Its name in the log.
    pub name: String,
    source: Source,
    resolver: Resolver,
    serving: RwLock<Arc<Serving>>,
    /// Who is let in; the same for all that it ever serves with.
    pub admission: Arc<Admission>,
    tally: Arc<Tally>,
    /// How the certificate's files looked before they were read: what changes from then on is news.
    /// Held while anything is taken over, so that one change follows the other.
    seen: Mutex<Stamp>,
}

/// Why a forwarder can't be made ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Our own certificate or key.
    #[error("certificate: {0}")]
    Identity(#[from] identity::Error),
    /// The same, by rustls' words.
    #[error("certificate: {0}")]
    Inbound(inbound::Error),
    /// The authorities by whom clients' certificates must be.
    #[error("client_ca: {0}")]
    ClientCa(client_auth::Error),
    /// The target's side.
    #[error(transparent)]
    Outbound(#[from] outbound::Error),
}

impl From<inbound::Error> for Error {
    fn from(error: inbound::Error) -> Self {
        match error {
            inbound::Error::ClientCa(error) => Self::ClientCa(error),
            other => Self::Inbound(other),
        }
    }
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

/// Why a forwarder goes on with the settings that it has.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It was started by flags.
    #[error("there is no file of settings to load")]
    NoFile,
    /// The file is gone, or wrong.
    #[error(transparent)]
    Settings(#[from] store::Error),
    /// What they name can't be used.
    #[error(transparent)]
    Unusable(#[from] Error),
    /// The listening socket can't move.
    #[error("restart needed: it listens on {is}, and the file says {wanted}")]
    Listen {
        /// Where it listens.
        is: Listen,
        /// Where it should.
        wanted: Listen,
    },
}

/// How often a forwarder looks whether its certificate has changed on disk.
const IDENTITY_CHECK: Duration = Duration::from_secs(60);

impl Forwarder {
    /// Makes everything ready that needs no network, for a run without files.
    ///
    /// # Errors
    /// Whatever of certificate, key, ciphers and authorities can't be used.
    pub fn new(name: String, settings: Settings, pair: Pair, resolver: Resolver) -> Result<Self, Error> {
        let serving = prepare(&name, settings, None, |settings| Listener::new(pair, settings), &resolver, tally())?;
        Ok(Self::of(name, Source::Memory, serving, Stamp::default(), resolver))
    }

    /// Makes a forwarder ready whose settings and certificate lie on disk.
    ///
    /// # Errors
    /// As [`Forwarder::new`].
    pub fn load(places: &Places, name: &Name, settings: Settings, resolver: Resolver) -> Result<Self, Error> {
        let seen = stamp(&places.identity(name));
        let pair = identity::read(&places.identity(name))?;
        let text = name.to_string();
        let serving =
            prepare(&text, settings, Some(&text), |settings| Listener::new(pair, settings), &resolver, tally())?;
        let source = Source::Disk { places: places.clone(), name: name.clone() };
        Ok(Self::of(text, source, serving, seen, resolver))
    }

    fn of(name: String, source: Source, serving: Serving, seen: Stamp, resolver: Resolver) -> Self {
        let admission = Arc::new(Admission::new(name.clone(), serving.is_on_disk, &serving.settings));
        let tally = Arc::clone(&serving.tally);
        tally.loaded(serving.dialer.seen());
        let serving = RwLock::new(Arc::new(serving));
        Self { name, source, resolver, serving, admission, tally, seen: Mutex::new(seen) }
    }

    /// What a connection that begins now begins with.
    pub fn serving(&self) -> Arc<Serving> {
        Arc::clone(&self.serving.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the numbers of this moment for rates; to be called every [`crate::observe::tally::SAMPLE`].
    pub fn sample(&self) {
        self.tally.sample();
    }

    /// How it stands, with each open connection or without; nothing of the process. Opens no descriptor,
    /// of which there may be none left.
    pub fn snapshot(&self, with_connections: bool) -> Snapshot {
        let serving = self.serving();
        let mut snapshot = Snapshot::of(&self.name);
        snapshot.certificates.push(Certificate::of(&serving.listener.facts(), "own"));
        self.tally.fill(&mut snapshot, with_connections);
        snapshot.listen = serving.settings.listen.to_string();
        snapshot.target = serving.settings.target.to_string();
        snapshot.refused = self.admission.refused();
        snapshot.warnings = serving.settings.warnings();
        snapshot.problems = problems::of(&self.name);
        snapshot
    }

    /// Has its limits fit into these descriptors, also those of settings to come.
    pub fn fit(&self, room: Room) {
        self.admission.fit(room, &self.serving().settings);
    }

    /// Whether settings and certificate lie on disk, where they may change.
    pub fn is_on_disk(&self) -> bool {
        matches!(self.source, Source::Disk { .. })
    }

    /// Takes settings, certificate, trust and whatever else its files hold for the connections to come.
    /// The target's sessions are forgotten: who is trusted may have changed. So is which target failed:
    /// what is loaded may be the cure. Clients' tickets stay good, unless by another `client_ca`.
    ///
    /// Blocks on files, for seconds where a writer is between two of them.
    ///
    /// # Errors
    /// [`Refused`]; everything is then as it was.
    pub fn reload(&self) -> Result<Arc<Serving>, Refused> {
        let Source::Disk { places, name } = &self.source else { return Err(Refused::NoFile) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.serving();
        let settings = store::load(places, name)?;
        if settings.listen != old.settings.listen {
            return Err(Refused::Listen { is: old.settings.listen, wanted: settings.listen });
        }
        let folder = places.identity(name);
        let now = stamp(&folder);
        let pair = identity::read(&folder).map_err(Error::from)?;
        let successor = |settings: &Settings| old.listener.successor(pair, settings);
        let tally = Arc::clone(&self.tally);
        let new = Arc::new(prepare(&self.name, settings, Some(&self.name), successor, &self.resolver, tally)?);
        self.tally.loaded(new.dialer.seen());
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        self.admission.set(&new.settings);
        *seen = now;
        Ok(new)
    }

    /// Takes a changed certificate over as long as the process lives; a bad one leaves the old in force.
    pub async fn follow_identity(&self) {
        let Source::Disk { places, name } = &self.source else { return };
        let folder = places.identity(name);
        loop {
            tokio::time::sleep(IDENTITY_CHECK).await;
            match tokio::task::block_in_place(|| self.take_identity(&folder)) {
                Ok(None) => {}
                Ok(Some(until)) => {
                    tracing::info!(name: "certificate_loaded", forwarder = self.name, %until, "certificate loaded")
                }
                Err(error) => tracing::error!(
                    name: "certificate_unusable",
                    forwarder = self.name,
                    "certificate changed on disk, but {error}; still using the old one"
                ),
            }
        }
    }

    /// Serves new connections with what the folder holds, if that is news; gives back until when it is
    /// valid. What can't be used is told once.
    fn take_identity(&self, folder: &Path) -> Result<Option<time::Date>, Error> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(folder);
        if std::mem::replace(&mut *seen, now) == now {
            return Ok(None);
        }
        let pair = identity::read(folder)?;
        let until = pair.facts.not_after.date();
        self.serving().listener.replace(pair)?;
        Ok(Some(until))
    }
}

fn tally() -> Arc<Tally> {
    Arc::new(Tally::new())
}

/// Makes ready what connections begin with; `file`: the name by which commands know it.
fn prepare(
    name: &str,
    settings: Settings,
    file: Option<&str>,
    listener: impl FnOnce(&Settings) -> Result<Listener, inbound::Error>,
    resolver: &Resolver,
    tally: Arc<Tally>,
) -> Result<Serving, Error> {
    let settings = Arc::new(settings);
    Ok(Serving {
        name: name.to_owned(),
        listener: listener(&settings)?,
        dialer: Dialer::new(file.map(str::to_owned), Arc::clone(&settings), resolver.clone())?
            .telling(name, Arc::clone(&tally)),
        settings,
        tally,
        is_on_disk: file.is_some(),
    })
}

/// What changes when one of the two files does: their times and lengths.
type Stamp = [Option<(SystemTime, u64)>; 2];

fn stamp(folder: &Path) -> Stamp {
    ["cert.pem", "key.pem"].map(|file| {
        let metadata = std::fs::metadata(folder.join(file)).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}
