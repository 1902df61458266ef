//! `remove`: stop a forwarder and delete what is its own.

use clap::Args;

use super::failed::{Failed, code};
use super::talk::{Word, step};
use super::{Done, require_rights};
use crate::config::{Name, Places, store};
use crate::service::units;
use crate::tls::identity;

/// Stop and delete a forwarder.
#[derive(Args)]
pub(super) struct Remove {
    /// The forwarder
    name: String,
}

impl Remove {
    /// Removes the forwarder; the local CA stays, for clients have pasted it.
    pub(super) fn run(self, places: &Places) -> Done {
        let name: Name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        require_rights(places)?;
        let _lock = super::lock(places)?;
        store::read_text(places, &name)?;
        if places.are_system() && units::running() {
            units::stop(&name)?;
            step(Word::Ok, format!("{} stopped and disabled", units::unit_of(&name)));
            if units::forget_low_port(&name)? {
                step(Word::Ok, format!("{} removed", units::low_port_file(&name).display()));
            }
        }
        identity::remove(places, &name).map_err(crate::bridge::forwarder::Error::from)?;
        for authorities in [places.authorities(&name), places.client_authorities(&name)] {
            if authorities.exists() {
                std::fs::remove_file(&authorities).map_err(store::Error::io(&authorities, "remove"))?;
            }
        }
        let path = places.forwarder(&name);
        std::fs::remove_file(&path).map_err(store::Error::io(&path, "remove"))?;
        step(Word::Ok, format!("{} and its certificate removed", path.display()));
        println!("{name}: removed");
        if store::names(places)?.is_empty() && places.authority().exists() {
            eprintln!(
                "The local CA stays, so that clients need not paste another; 'ewsbridge uninstall --purge' deletes it."
            );
        }
        Ok(0)
    }
}
