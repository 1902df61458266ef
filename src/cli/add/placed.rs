//! What `add` puts onto the machine: certificates, the file of settings, the service.

use nix::unistd::Gid;

use super::Add;
use crate::cli::failed::Failed;
use crate::cli::flags::Pfx;
use crate::cli::identities::{self, Credential, Made};
use crate::cli::talk::{Word, step};
use crate::cli::undo::Undo;
use crate::config::settings::Trust;
use crate::config::{Draft, Name, Places, Settings, store};
use crate::service::units;

impl Add {
    pub(super) fn make_identity(
        places: &Places,
        name: &Name,
        settings: &Settings,
        pfx: Option<Pfx>,
        group: Option<Gid>,
        undo: &mut Undo,
    ) -> Result<Made, Failed> {
        undo.make_folder(&places.state, 0o750, group)?;
        undo.note_absent(places.authority());
        undo.make_folder(&places.state.join("identity"), 0o750, group)?;
        undo.note_absent(places.identity(name));
        let made = identities::make(places, name, settings, pfx, group)?;
        step(Word::Ok, format!("own certificate: {}; {}", made.facts.names_text(), made.origin));
        Ok(made)
    }
}

/// Puts what is shown to a target that asks for a certificate where the service can read it.
pub(super) fn adopt_credential(
    places: &Places,
    name: &Name,
    draft: &mut Draft,
    pfx: Option<Pfx>,
    group: Option<Gid>,
    undo: &mut Undo,
) -> Result<(), Failed> {
    let settings = draft.settings()?;
    let from = match (&settings.credential, pfx) {
        (_, Some(file)) => Credential::Pfx(file),
        (Some((cert, key)), None) => Credential::Pair(cert, key),
        (None, None) => return Ok(()),
    };
    undo.make_folder(&places.state, 0o750, group)?;
    undo.make_folder(&places.state.join("credential"), 0o750, group)?;
    undo.note_absent(places.credential(name));
    for (key, copy) in identities::adopt_credential(places, name, from, group)? {
        draft.set(key, copy.display().to_string());
    }
    step(Word::Ok, "certificate for a target that asks for one: in place");
    Ok(())
}

pub(super) fn write_settings(
    places: &Places,
    name: &Name,
    draft: &mut Draft,
    group: Option<Gid>,
    undo: &mut Undo,
) -> Result<(), Failed> {
    undo.make_folder(&places.config, 0o750, group)?;
    undo.make_folder(&places.forwarders(), 0o750, group)?;
    let path = places.forwarder(name);
    undo.note_absent(path.clone());
    if let Trust::Ca(file, _) = draft.settings()?.trust {
        undo.note_absent(places.authorities(name));
        let copy = identities::adopt_authorities(places, places.authorities(name), &file, group)?;
        draft.set("ca", copy.display().to_string());
    }
    let date = time::OffsetDateTime::now_utc().date().to_string();
    store::write(&path, draft.render(name, &path, &date).as_bytes(), 0o640, group)?;
    step(Word::Ok, format!("{} written", path.display()));
    Ok(())
}

pub(super) fn start_service(name: &Name, settings: &Settings, undo: &mut Undo) -> Result<(), Failed> {
    let undone = name.clone();
    undo.note(move || {
        let _ = units::stop(&undone);
        let _ = units::forget_low_port(&undone);
    });
    if units::is_low_port(settings.listen.port()) {
        units::allow_low_port(name)?;
        let file = units::low_port_file(name);
        step(Word::Ok, format!("{} lets it bind port {}", file.display(), settings.listen.port()));
    }
    units::start(name)?;
    step(Word::Ok, format!("{} enabled and started", units::unit_of(name)));
    Ok(())
}
