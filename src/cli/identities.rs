//! What a forwarder serves, by its settings: our own certificate, a foreign pair, or a PFX file's.

use nix::unistd::Gid;
use time::OffsetDateTime;

use super::failed::Failed;
use super::flags::Pfx;
use crate::bridge::forwarder;
use crate::config::{Name, Places, Settings, store};
use crate::tls::certificate::Facts;
use crate::tls::{identity, pfx};

/// A certificate put in place.
pub struct Made {
    /// Its facts.
    pub facts: Facts,
    /// Where it is from and how long it holds, in words.
    pub origin: String,
}

/// Puts in place what the forwarder serves.
///
/// # Errors
/// A pair that can't be read or doesn't match, a CA that is damaged, a full disk.
pub fn make(
    places: &Places,
    name: &Name,
    settings: &Settings,
    from: Option<Pfx>,
    group: Option<Gid>,
) -> Result<Made, Failed> {
    let origin = match (&settings.foreign, from) {
        (Some((cert, key)), _) => {
            identity::adopt(places, name, cert, key, group).map_err(own)?;
            format!("copied from {}, and again whenever it changes", cert.display())
        }
        (None, Some(file)) => {
            let bytes = std::fs::read(&file.file).map_err(store::Error::io(&file.file, "read"))?;
            let contents = pfx::read(&bytes, &file.password)
                .map_err(|error| Failed::new(format!("{}: {error}", file.file.display())))?;
            identity::install(places, name, &contents.chain_pem, &contents.key_pem, group).map_err(own)?;
            format!("taken from {}", file.file.display())
        }
        (None, None) => {
            let (authority, _) = identity::Authority::load_or_create(places).map_err(own)?;
            let issued = authority.issue(&names(settings)).map_err(own)?;
            identity::install(places, name, &issued.chain_pem, &issued.key_pem, group).map_err(own)?;
            "renewed by itself".to_owned()
        }
    };
    let facts = identity::read(&places.identity(name)).map_err(own)?.facts;
    let origin = format!("to {}, {origin}", facts.not_after.date());
    Ok(Made { facts, origin })
}

/// Renews what is due; says what was done.
///
/// # Errors
/// As [`make`]; what was served goes on being served.
pub fn renew(
    places: &Places,
    name: &Name,
    settings: &Settings,
    force: bool,
    group: Option<Gid>,
) -> Result<String, Failed> {
    if let Some((cert, key)) = &settings.foreign {
        let taken = identity::adopt(places, name, cert, key, group).map_err(own)?;
        return Ok(match taken {
            identity::Renewal::Unchanged => format!("{} has not changed", cert.display()),
            identity::Renewal::Renewed { facts } => format!("{} taken over, to {}", cert.display(), facts.not_after.date()),
        });
    }
    let served = identity::read(&places.identity(name)).map_err(own)?.facts;
    let ours = identity::Authority::certificate(places).is_ok_and(|(authority, _)| authority.subject == served.issuer);
    if !ours {
        return Ok(format!("imported, to {}; bring a new one by 'ewsbridge set {name} cert=FILE key=FILE'", served.not_after.date()));
    }
    let renewed = identity::renew(places, name, &names(settings), force, OffsetDateTime::now_utc(), group).map_err(own)?;
    Ok(match renewed {
        identity::Renewal::Unchanged => format!("valid to {}, not due", served.not_after.date()),
        identity::Renewal::Renewed { facts } => format!("renewed, to {}", facts.not_after.date()),
    })
}

/// This machine's names, and the settings' own.
fn names(settings: &Settings) -> Vec<String> {
    let mut names = identity::machine_names();
    for name in &settings.san {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn own(error: identity::Error) -> Failed {
    Failed::from(forwarder::Error::from(error))
}
