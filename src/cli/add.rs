//! `add`: from three words to a forwarder that is proved to work, or to nothing at all.
//!
//! The steps, each of which can fail and then leaves the machine as it was: is the name free, the
//! port free; what does the target speak and who vouches for it; our own certificate; the file of
//! settings; the service; the proof through the forwarder's own port.

mod conditions;
mod placed;
mod target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::failed::{Failed, code};
use super::flags::{CredentialFlags, IdentityFlags, Pfx, TargetFlags};
use super::talk::{Word, step};
use super::undo::Undo;
use super::{Done, ports, proof, require_rights, summary};
use crate::bridge::dialer::Dialer;
use crate::bridge::resolver::Resolver;
use crate::bridge::{Forwarder, Served, Threads, forwarder};
use crate::config::settings::Trust;
use crate::config::{Draft, Name, Places, Settings};
use crate::service::{self, units};
use conditions::{already_there, refuse_occupied, require_service, typed_settings};
use placed::{adopt_credential, start_service, write_settings};
use target::{Answered, told};

/// Probe the target, make a certificate, start the forwarder, prove the path.
#[derive(Args)]
#[command(after_help = "Example: ewsbridge add exch1 9443 ews.corp:443")]
pub(super) struct Add {
    /// The forwarder's name: also its file's and its service's (ewsbridge@NAME)
    name: String,
    /// Where clients connect
    #[arg(value_name = "[ADDR:]PORT")]
    listen: String,
    /// The legacy server; with several, HOST:PORT,HOST:PORT, the next is used where one fails
    #[arg(value_name = "HOST:PORT")]
    target: String,
    #[command(flatten)]
    outbound: TargetFlags,
    #[command(flatten)]
    identity: IdentityFlags,
    #[command(flatten)]
    credential: CredentialFlags,
    /// Write and start without asking the target
    #[arg(long)]
    offline: bool,
    /// Never ask: what would have to be asked is an error (exit code 5)
    #[arg(long)]
    no_input: bool,
}

/// How long the proof through our own port may take, beyond the target's deadlines.
const PROOF: Duration = Duration::from_secs(10);

impl Add {
    /// Adds the forwarder, or leaves everything as it was.
    pub(super) fn run(self, places: &Places) -> Done {
        // A password is asked for while nothing has been done yet, and Ctrl-C simply ends it.
        let pfx = self.identity.pfx(self.no_input)?;
        let credential = self.credential.pfx(self.no_input)?;
        super::interruptible(async { self.add(places, pfx, credential).await })
    }

    async fn add(self, places: &Places, pfx: Option<Pfx>, credential: Option<Pfx>) -> Done {
        let began = Instant::now();
        let name: Name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        let mut draft = self.draft();
        let settings = typed_settings(&draft)?;
        let warnings = settings.warnings();
        require_rights(places)?;
        let _lock = super::lock(places)?;
        if already_there(places, &name, &draft)? {
            return Ok(0);
        }
        ports::refuse_taken_port(places, &name, settings.listen)?;
        refuse_occupied(&name, &places.identity(&name))?;
        refuse_occupied(&name, &places.authorities(&name)).or_else(|refused| match &settings.trust {
            Trust::Ca(file, _) if *file != places.authorities(&name) => Err(refused),
            _ => Ok(()),
        })?;
        refuse_occupied(&name, &places.credential(&name))?;
        let reserved = ports::bind(name.as_str(), settings.listen)?;
        require_service(places)?;
        step(Word::Ok, format!("name '{name}' and port {} are free", settings.listen.port()));
        let mut undo = Undo::default();
        let group = service::group_of_service().filter(|_| places.are_system());
        // Before the target is asked: it may ask in turn.
        adopt_credential(places, &name, &mut draft, credential, group, &mut undo)?;
        let reached = if self.offline {
            step(Word::Skip, "the target was not asked (--offline)");
            None
        } else {
            Some(self.probe(&name, &mut draft).await?)
        };
        let settings = draft.settings()?;

        let made = Self::make_identity(places, &name, &settings, pfx, group, &mut undo)?;
        write_settings(places, &name, &mut draft, group, &mut undo)?;
        let settings = draft.settings()?;
        warnings.iter().for_each(|warning| step(Word::Warn, warning));
        let systemd = units::running() && places.are_system();
        let foreground = if systemd {
            drop(reserved);
            start_service(&name, &settings, &mut undo)?;
            None
        } else {
            let why = if places.are_system() { "systemd does not run here" } else { "not the system's own folders" };
            step(Word::Skip, format!("{why}; served only for the proof"));
            Some(Foreground::start(places, &name, &settings, reserved)?)
        };
        if !self.offline {
            self.prove(places, &name, &settings, reached.as_ref()).await?;
        }
        undo.keep();
        if let Some(foreground) = foreground {
            foreground.stop().await;
        }
        summary::print(&name, &settings, &made, began.elapsed(), systemd);
        Ok(0)
    }

    fn draft(&self) -> Draft {
        let mut draft = Draft::default();
        draft.set("listen", self.listen.clone());
        draft.set("target", self.target.clone());
        self.outbound.write(&mut draft);
        self.identity.write(&mut draft);
        draft
    }

    /// One request through the forwarder's own port, as a client would.
    async fn prove(
        &self,
        places: &Places,
        name: &Name,
        settings: &Settings,
        answered: Option<&Answered>,
    ) -> Result<(), Failed> {
        let limit = PROOF + settings.reaching();
        let seen = match proof::through(places, name, settings, limit).await {
            Ok(seen) => seen,
            Err(cause) => {
                // A target that has changed its mind meanwhile has the better story.
                let again = Dialer::new(None, Arc::new(settings.clone()), Resolver::default());
                if let Err(failure) = again.map_err(forwarder::Error::from)?.dial().await {
                    return Err(told(name, &failure));
                }
                let port = settings.listen.port();
                let failed = Failed::new(format!("{name}: proof through port {port}: {cause}"));
                return Err(failed.hint("nothing was written, no service was left running"));
            }
        };
        let out = answered.map_or("?", |answered| answered.reached.version);
        let by = answered.filter(|answered| answered.is_one_of_many);
        let by = by.map(|answered| format!(" to {}", answered.target)).unwrap_or_default();
        let page = proof::http_text(seen.http.as_ref());
        step(Word::Ok, format!("proved: {} in, TLS {out} out{by}, {page}", seen.version.replace("TLSv", "TLS ")));
        Ok(())
    }
}

/// The forwarder served by this very process, for the proof where no systemd runs.
struct Foreground(Served);

impl Foreground {
    fn start(places: &Places, name: &Name, settings: &Settings, socket: std::net::TcpListener) -> Result<Self, Failed> {
        let forwarder = Forwarder::load(places, name, settings.clone(), Resolver::default())?;
        let served = Served::start(forwarder, [socket], &Threads::here());
        Ok(Self(served.map_err(|error| Failed::new(format!("listen: {error}")))?))
    }

    async fn stop(self) {
        drop(self.0.stop());
        self.0.ended_within(Duration::from_secs(1)).await;
    }
}
