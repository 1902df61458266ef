//! `set`: change settings, all or none, and put them in force.

use std::path::Path;

use clap::Args;
use toml_edit::{Array, Value};

use super::control::InForce;
use super::failed::{Failed, code};
use super::identities::{self, Credential};
use super::talk::{self, Word, step};
use super::undo::Undo;
use super::{Done, control, outbound, ports, proof, require_rights};
use crate::bridge::dialer::Dialer;
use crate::bridge::resolver::Resolver;
use crate::config::draft::edited;
use crate::config::settings::{KEYS, Key, Trust};
use crate::config::values::Weak;
use crate::config::{Name, Places, Settings, file, store};
use crate::service::{self, units};
use crate::tls::reference::Anchor;

/// Change settings; the service is restarted only where a reload can't do it.
#[derive(Args)]
#[command(
    after_help = "Examples: ewsbridge set exch1 min_tls=1.1     ewsbridge set exch1 accept=sha1,expired\n          ewsbridge set exch1 ciphers=      (back to the default)"
)]
pub(super) struct Set {
    /// The forwarder
    name: String,
    /// What to change; an empty value takes the key out, lists are separated by commas
    #[arg(value_name = "KEY=VALUE", required = true)]
    changes: Vec<String>,
    /// Write, but leave the running service as it is
    #[arg(long)]
    no_restart: bool,
    /// With outbound=auto: allow what is weak, if the server can't do without
    #[arg(long)]
    allow_weak: bool,
}

impl Set {
    /// Changes the file, or leaves everything as it was.
    pub(super) fn run(self, places: &Places) -> Done {
        let name: Name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        require_rights(places)?;
        let _lock = super::lock(places)?;
        let old = store::read_text(places, &name)?;
        let searches = self.changes.iter().any(|change| is_outbound(change));
        let changes: Vec<_> = self
            .changes
            .iter()
            .filter(|change| !is_outbound(change))
            .map(|change| parsed(change))
            .collect::<Result<_, _>>()?;
        let path = places.forwarder(&name);
        let mut new = edited(&old, &path, changes.iter().map(|(key, value)| (key.name, value.clone())))?;
        if searches {
            new = self.find_outbound(&name, &new, &path, &changes)?;
        }
        if new == old {
            println!("{name}: nothing to do");
            return Ok(0);
        }
        // What the admin typed is wrong, not the file: no exit code 78.
        let settings = file::parse(&new, Some(&path)).map_err(|error| {
            let text = error.problems.iter().map(|problem| {
                format!("{name}: {}: {}", problem.key.as_deref().unwrap_or("settings"), problem.message)
            });
            Failed::with(code::USAGE, text.collect::<Vec<_>>().join("\n")).hint("nothing was changed")
        })?;
        ports::refuse_taken_port(places, &name, settings.listen)?;
        Dialer::new(None, settings.clone().into(), Resolver::default())
            .map_err(|error| Failed::from(crate::bridge::forwarder::Error::from(error)).typed())?;
        self.refuse_names_of_an_import(places, &name, &settings)?;
        self.apply(places, &name, &new, &settings)
    }

    /// The text with what the target needs, found by asking it.
    fn find_outbound(
        &self,
        name: &Name,
        text: &str,
        path: &Path,
        changes: &[(&'static Key, Option<Value>)],
    ) -> Result<String, Failed> {
        if let Some(change) = self.changes.iter().find(|change| is_outbound(change) && !change.ends_with("=auto")) {
            let text = format!("'{change}': outbound can only be auto, which finds the keys and writes them");
            return Err(Failed::with(code::USAGE, text));
        }
        if let Some((key, _)) = changes.iter().find(|(key, _)| outbound::KEYS.contains(&key.name)) {
            let text = format!("{name}: outbound=auto decides {} by itself; give one of the two", key.name);
            return Err(Failed::with(code::USAGE, text));
        }
        let settings = file::parse(text, Some(path))?;
        let allowed = if self.allow_weak { &Weak::ALL[..] } else { &settings.allow_weak };
        let command = |_: &str| format!("ewsbridge set {name} outbound=auto --allow-weak");
        let permission = outbound::Permission {
            allowed,
            can_ask: talk::can_ask(false),
            name: name.as_str(),
            has_file: true,
            command: &command,
        };
        let found = super::block_on(outbound::find(&settings, permission, |failure| {
            step(Word::Warn, format!("{failure}; not asked what it needs"));
        }))?;
        step(Word::Ok, outbound::summary(&found));
        Ok(edited(text, path, outbound::entries(&found))?)
    }

    fn changes_any(&self, keys: &[&str]) -> bool {
        let starts = |change: &str, key: &str| change.trim_start().replace('-', "_").starts_with(key);
        self.changes.iter().any(|change| keys.iter().any(|key| starts(change, key)))
    }

    /// A certificate of a PFX file has its names, and is not to be replaced by one of ours unasked.
    fn refuse_names_of_an_import(&self, places: &Places, name: &Name, settings: &Settings) -> Result<(), Failed> {
        let only_names = self.changes_any(&["san="]) && !self.changes_any(&["cert=", "key="]);
        if only_names && settings.foreign.is_none() && matches!(proof::anchor(places, name), Ok(Anchor::Exactly(_))) {
            let failed = Failed::new(format!("{name}: san: the certificate was imported, it has names of its own"));
            return Err(failed.hint(format!("back to our own certificate: ewsbridge set {name} cert= key= san=...")));
        }
        Ok(())
    }

    fn apply(&self, places: &Places, name: &Name, new: &str, settings: &Settings) -> Done {
        let group = service::group_of_service().filter(|_| places.are_system());
        let path = places.forwarder(name);
        let mut undo = Undo::default();
        let identity = places.identity(name);
        let (authorities, client_authorities) = (places.authorities(name), places.client_authorities(name));
        for file in [&authorities, &client_authorities, &identity.join("cert.pem"), &identity.join("key.pem")] {
            undo.note_replaced(file)?;
        }
        let new = &self.with_credential(places, name, new, settings, &mut undo)?;
        let new = &match &settings.trust {
            Trust::Ca(file, _) => {
                let copy = identities::adopt_authorities(places, authorities, file, group)?.display().to_string();
                edited(new, &path, [("ca", Some(copy.into()))])?
            }
            _ => new.clone(),
        };
        let new = &match &settings.client_ca {
            Some(file) => {
                let copy = identities::adopt_authorities(places, client_authorities, file, group)?;
                edited(new, &path, [("client_ca", Some(copy.display().to_string().into()))])?
            }
            None => new.clone(),
        };
        if self.changes_any(&["san=", "cert=", "key="]) {
            let made = identities::make(places, name, settings, None, group)?;
            step(Word::Ok, format!("own certificate: {}; {}", made.facts.names_text(), made.origin));
        }
        put_in_force(places, name, new, undo, !self.no_restart)?;
        Ok(0)
    }
}

impl Set {
    /// The text with what is shown to a target that asks for a certificate at the service's own place.
    fn with_credential(
        &self,
        places: &Places,
        name: &Name,
        new: &str,
        settings: &Settings,
        undo: &mut Undo,
    ) -> Result<String, Failed> {
        let Some((cert, key)) = settings.credential.as_ref().filter(|_| self.changes_any(&["auth_cert", "auth_key"]))
        else {
            return Ok(new.to_owned());
        };
        let group = service::group_of_service().filter(|_| places.are_system());
        let folder = places.credential(name);
        undo.make_folder(&places.state.join("credential"), 0o750, group)?;
        if folder.exists() {
            undo.note_replaced(&folder.join("cert.pem"))?;
            undo.note_replaced(&folder.join("key.pem"))?;
        } else {
            undo.note_absent(folder);
        }
        let copies = identities::adopt_credential(places, name, Credential::Pair(cert, key), group)?;
        let copies = copies.map(|(key, copy)| (key, Some(Value::from(copy.display().to_string()))));
        Ok(edited(new, &places.forwarder(name), copies)?)
    }
}

/// Writes a forwarder's file and has its service take it over if it runs, by a restart where nothing
/// less will do; what the service can't live with is
/// taken back, together with all that `undo` has noted.
///
/// # Errors
/// The file can't be written, or the service does not come up with it.
pub(super) fn put_in_force(
    places: &Places,
    name: &Name,
    text: &str,
    mut undo: Undo,
    may_restart: bool,
) -> Result<(), Failed> {
    let path = places.forwarder(name);
    let settings = file::parse(text, Some(&path))?;
    undo.note_replaced(&path)?;
    let group = service::group_of_service().filter(|_| places.are_system());
    store::write(&path, text.as_bytes(), 0o640, group)?;
    step(Word::Ok, format!("{} written", path.display()));
    settings.warnings().iter().for_each(|warning| step(Word::Warn, warning));
    let runs = places.are_system() && units::running() && units::status(name)?.pid.is_some();
    if !may_restart {
        undo.keep();
        println!("{name}: in force at its next start");
        return Ok(());
    }
    let reloaded = match control::reload(places, name) {
        Ok(InForce::Reloaded) => {
            undo.keep();
            println!("{name}: in force for new connections; open ones go on as they were");
            return Ok(());
        }
        Ok(InForce::NeedsRestart | InForce::Unreachable) if runs => restart(name, &settings).map_err(Failed::from),
        Ok(_) => {
            undo.keep();
            println!("{name}: in force at its next start");
            return Ok(());
        }
        // What it had is what it has.
        Err(refused) => {
            drop(undo);
            return Err(refused.hint("the old settings are in force"));
        }
    };
    let Err(error) = reloaded else {
        undo.keep();
        println!("{name}: in force; it was restarted, and open connections had time to finish (drain_timeout)");
        return Ok(());
    };
    drop(undo);
    let old = store::load(places, name)?;
    let hint = match restart(name, &old) {
        Ok(()) => "the old settings are in force again".to_owned(),
        Err(again) => format!("the old settings are in the file again, but: {again}"),
    };
    Err(error.hint(hint))
}

/// Restarts the service, with the capability for a low port if it now has one.
fn restart(name: &Name, settings: &Settings) -> Result<(), service::Error> {
    if units::is_low_port(settings.listen.port()) {
        units::allow_low_port(name)?;
    } else {
        units::forget_low_port(name)?;
    }
    units::restart(name)
}

/// Whether it asks for a search and is no key of the file.
fn is_outbound(change: &str) -> bool {
    change.split_once('=').is_some_and(|(key, _)| key.trim() == "outbound")
}

/// `key=value` as the file would have it; no value takes the key out.
pub(super) fn parsed(change: &str) -> Result<(&'static Key, Option<Value>), Failed> {
    let Some((name, text)) = change.split_once('=') else {
        return Err(Failed::with(code::USAGE, format!("'{change}' is not KEY=VALUE"))
            .hint("ewsbridge show NAME lists the keys"));
    };
    let (name, text) = (name.trim().replace('-', "_"), text.trim());
    if name == "format" {
        return Err(Failed::with(code::USAGE, "format: says how the file is written; it can't be set"));
    }
    let Some(key) = KEYS.iter().find(|key| key.name == name) else {
        return Err(Failed::with(code::USAGE, format!("{name}: {}", file::unknown_key(&name))));
    };
    if text.is_empty() {
        return Ok((key, None));
    }
    let value = match key.name {
        // Whoever reads them later has another working folder.
        "ca" | "client_ca" | "cert" | "key" | "auth_cert" | "auth_key" => {
            std::path::absolute(text).map_err(Failed::new)?.display().to_string().into()
        }
        "pin" | "accept" | "san" | "allow_weak" | "allow_clients" | "proxy_from" => {
            Value::Array(text.split(',').map(str::trim).collect::<Array>())
        }
        _ => text.parse::<bool>().map(Value::from).or_else(|_| whole(text)).unwrap_or_else(|()| Value::from(text)),
    };
    Ok((key, Some(value)))
}

fn whole(text: &str) -> Result<Value, ()> {
    text.parse::<i64>().map(Value::from).map_err(drop)
}
