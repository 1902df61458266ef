//! `install` and `uninstall`: onto a machine without a package, and off it again.

use clap::Args;

use super::Done;
use super::talk::{Word, step};
use crate::service::install;

/// Put binary, units and service user in place, where no package did.
#[derive(Args)]
pub(super) struct Install {}

/// Take away what 'install' put in place.
#[derive(Args)]
pub(super) struct Uninstall {
    /// Also delete settings, certificates, the local CA and the service user
    #[arg(long)]
    purge: bool,
}

impl Install {
    /// Installs or upgrades.
    pub(super) fn run(self) -> Done {
        let done = install::install(&mut tell)?;
        let state = if done.changed { "is installed" } else { "was installed already" };
        println!("ewsbridge {state}. First step: ewsbridge add NAME PORT HOST:PORT");
        if !done.systemd {
            println!("systemd does not run here; serve a forwarder by: ewsbridge run NAME");
        }
        Ok(0)
    }
}

impl Uninstall {
    /// Uninstalls.
    pub(super) fn run(self) -> Done {
        let changed = install::uninstall(self.purge, &mut tell)?;
        println!("ewsbridge {}", if changed { "is uninstalled" } else { "was not installed; nothing to do" });
        Ok(0)
    }
}

fn tell(done: install::Step) {
    step(if done.changed { Word::Ok } else { Word::Skip }, done.text);
}
