//! What must hold before `add` begins: what was typed, what is free, what is installed.

use std::path::Path;

use crate::cli::failed::{Failed, code};
use crate::config::{Draft, Name, Places, Settings, store};
use crate::service::units;

/// What was typed as settings; the two that are no flags are named as the usage names them.
pub(super) fn typed_settings(draft: &Draft) -> Result<Settings, Failed> {
    let settings = draft.settings().map_err(|error| {
        let text = error.to_string().replace("--listen: ", "[ADDR:]PORT: ").replace("--target: ", "HOST:PORT: ");
        Failed::with(code::USAGE, text)
    })?;
    match settings.listen.port() {
        0 => Err(Failed::with(code::USAGE, "[ADDR:]PORT: 0 can't be added: clients must know the port (1 to 65535)")),
        _ => Ok(settings),
    }
}

/// What no forwarder is known to own is not overwritten: it may be somebody's only key.
pub(super) fn refuse_occupied(name: &Name, path: &Path) -> Result<(), Failed> {
    if !path.exists() {
        return Ok(());
    }
    let failed = Failed::new(format!("{name}: {}: is there already, without a forwarder", path.display()));
    Err(failed.hint(format!("left by an 'add' that was killed? look at it, then: rm -r {}", path.display())))
}

/// Under systemd the units must be there before anything is written.
pub(super) fn require_service(places: &Places) -> Result<(), Failed> {
    if places.are_system() && units::running() && !units::installed() {
        return Err(Failed::new("ewsbridge@.service: not installed on this machine").hint("ewsbridge install"));
    }
    Ok(())
}

/// The same forwarder again is nothing to do; another one by that name is refused.
pub(super) fn already_there(places: &Places, name: &Name, draft: &Draft) -> Result<bool, Failed> {
    let text = match store::read_text(places, name) {
        Err(store::Error::Missing { .. }) => return Ok(false),
        other => other?,
    };
    let path = places.forwarder(name);
    let there = crate::config::file::parse(&text, Some(&path))?;
    if draft.over(&text, &path)? == there {
        println!("{name}: nothing to do, it is there: {} -> {}", there.listen, there.target);
        return Ok(true);
    }
    let is = format!("{name}: the name is taken: {} -> {} in {}", there.listen, there.target, path.display());
    Err(Failed::new(is).hint(format!("choose another name, or change it: ewsbridge set {name} KEY=VALUE")))
}
