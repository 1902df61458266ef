//! `reload` and `drain`: what a running forwarder is asked through its control socket.

use std::time::Duration;

use clap::Args;

use super::failed::{Failed, code};
use super::talk::{Word, say, step};
use super::{Done, identities, require_rights};
use crate::config::{Name, Places, Settings, store};
use crate::service::control::{self, Answer, Error, Order};
use crate::service::{self, units};

/// Have a running forwarder take over changed settings and certificates; nothing is interrupted.
#[derive(Args)]
pub(super) struct Reload {
    /// The forwarder
    name: String,
}

/// Have a running forwarder accept no more connections, and wait for the open ones to end.
#[derive(Args)]
#[command(after_help = "It runs on without connections until it is restarted or stopped.")]
pub(super) struct Drain {
    /// The forwarder
    name: String,
}

/// Reading certificates may wait for a writer for seconds.
const RELOAD: Duration = Duration::from_secs(60);

/// How long a drain is waited for where nobody can say what its limit is.
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 60 * 60);

impl Reload {
    /// Returns when the new settings serve, or were refused.
    pub(super) fn run(self, places: &Places) -> Done {
        let name: Name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        let settings = store::load(places, &name).map_err(|error| {
            let serves = matches!(error, store::Error::Invalid(_)) && places.control(&name).exists();
            Failed::from(error).maybe_hint(serves.then_some("the old settings are in force"))
        })?;
        take_over(places, &name, &settings)?;
        let answer = ask(places, &name, Order::Reload, RELOAD)?;
        told(places, &name, answer)
    }
}

/// A certificate that another tool keeps is copied first if it has changed: the service can't read it.
fn take_over(places: &Places, name: &Name, settings: &Settings) -> Result<(), Failed> {
    // Inside the unit, whose ExecReload= is this command, there is no right to.
    if settings.foreign.is_none() || (places.are_system() && !service::is_root()) {
        return Ok(());
    }
    require_rights(places)?;
    let _lock = super::lock(places)?;
    let group = service::group_of_service().filter(|_| places.are_system());
    let done = identities::renew(places, name, settings, false, group)?;
    step(Word::Ok, format!("certificate: {done}"));
    Ok(())
}

impl Drain {
    /// Returns when no connection is open, or the time for it is over.
    pub(super) fn run(self, places: &Places) -> Done {
        let name: Name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        // The process counts its own drain_timeout. A broken file is no reason not to drain.
        let limit = match store::load(places, &name) {
            Ok(settings) => settings.deadlines.drain + RELOAD,
            Err(store::Error::Invalid(_)) => LONGEST_DRAIN,
            Err(error) => return Err(error.into()),
        };
        let answer = ask(places, &name, Order::Drain, limit)?;
        told(places, &name, answer)
    }
}

fn told(places: &Places, name: &Name, answer: Answer) -> Done {
    if !answer.ok {
        let restart = places.are_system().then(|| format!("systemctl restart {}", units::unit_of(name)));
        let hint = answer.hint.or(restart.filter(|_| answer.needs_restart));
        return Err(Failed::new(format!("{name}: {}", answer.text)).maybe_hint(hint));
    }
    say!("{name}: {}", answer.text);
    Ok(0)
}

fn ask(places: &Places, name: &Name, order: Order, limit: Duration) -> Result<Answer, Failed> {
    control::ask(&places.control(name), order, limit).map_err(|error| {
        let text = format!("{name}: {error}");
        match error {
            Error::NotRunning if places.are_system() => {
                Failed::with(code::NOT_RUNNING, text).hint(format!("systemctl start {}", units::unit_of(name)))
            }
            Error::NotRunning => Failed::with(code::NOT_RUNNING, text).hint(format!("ewsbridge run {name}")),
            Error::Denied(_) => Failed::with(code::NO_PERMISSION, text).hint("run it as root: sudo ewsbridge ..."),
            Error::Broken(..) => Failed::new(text),
        }
    })
}

/// How a change of settings came into force.
pub(super) enum InForce {
    /// By a reload; open connections go on.
    Reloaded,
    /// Only a restart can do it.
    NeedsRestart,
    /// It does not run, or can't be reached.
    Unreachable,
}

/// Has a running forwarder take over what was just written for it.
///
/// # Errors
/// Why it refuses; it then goes on with what it had.
pub(super) fn reload(places: &Places, name: &Name) -> Result<InForce, Failed> {
    match control::ask(&places.control(name), Order::Reload, RELOAD) {
        Ok(answer) if answer.ok => Ok(InForce::Reloaded),
        Ok(answer) if answer.needs_restart => Ok(InForce::NeedsRestart),
        Ok(answer) => Err(Failed::new(format!("{name}: {}", answer.text)).maybe_hint(answer.hint)),
        Err(_) => Ok(InForce::Unreachable),
    }
}
