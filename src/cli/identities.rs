//! What a forwarder serves, by its settings: our own certificate, a foreign pair, or a PFX file's.

use std::path::{Path, PathBuf};

use nix::unistd::Gid;
use time::OffsetDateTime;

use super::failed::Failed;
use super::flags::Pfx;
use crate::bridge::forwarder;
use crate::config::{Name, Places, Settings, store};
use crate::tls::certificate::{self, Facts};
use crate::tls::{credential, identity, pfx};

/// A certificate put in place.
pub(super) struct Made {
    /// Its facts.
    pub facts: Facts,
    /// Where it is from and how long it holds, in words.
    pub origin: String,
    /// Whether our CA issued it.
    pub own: bool,
}

/// Puts in place what the forwarder serves.
///
/// # Errors
/// A pair that can't be read or doesn't match, a CA that is damaged, a full disk.
pub(super) fn make(
    places: &Places,
    name: &Name,
    settings: &Settings,
    from: Option<Pfx>,
    group: Option<Gid>,
) -> Result<Made, Failed> {
    let own_issued = settings.foreign.is_none() && from.is_none();
    let origin = match (&settings.foreign, from) {
        (Some((cert, key)), _) => {
            identity::adopt(places, &places.identity(name), cert, key, group).map_err(own)?;
            format!("copied from {}, and again whenever it changes", cert.display())
        }
        (None, Some(file)) => {
            let contents = opened(&file)?;
            let folder = places.identity(name);
            identity::install(places, &folder, &contents.chain_pem, &contents.key_pem, group).map_err(own)?;
            format!("taken from {}", file.file.display())
        }
        (None, None) => {
            let (now, names) = (OffsetDateTime::now_utc(), names(settings));
            let host = names.first().map_or("this host", String::as_str);
            let (authority, _) = identity::Authority::load_or_create(places, host, now).map_err(own)?;
            let issued = authority.issue(&names, now).map_err(own)?;
            let folder = places.identity(name);
            identity::install(places, &folder, &issued.chain_pem, &issued.key_pem, group).map_err(own)?;
            "renewed by itself".to_owned()
        }
    };
    let facts = identity::read(&places.identity(name)).map_err(own)?.facts;
    let origin = format!("to {}, {origin}", facts.not_after.date());
    Ok(Made { facts, origin, own: own_issued })
}

fn opened(file: &Pfx) -> Result<pfx::Contents, Failed> {
    let bytes = std::fs::read(&file.file).map_err(store::Error::io(&file.file, "read"))?;
    pfx::read(&bytes, &file.password).map_err(|error| Failed::new(format!("{}: {error}", file.file.display())))
}

/// Where a credential comes from.
pub(super) enum Credential<'a> {
    /// Certificate and key in PEM.
    Pair(&'a Path, &'a Path),
    /// A PFX file.
    Pfx(Pfx),
}

/// Copies what is shown to a target that asks for a certificate to where the service can read it, and
/// says where that is.
///
/// # Errors
/// A pair that can't be read or does not match, a wrong password, a copy that can't be written.
pub(super) fn adopt_credential(
    places: &Places,
    name: &Name,
    from: Credential<'_>,
    group: Option<Gid>,
) -> Result<[(&'static str, PathBuf); 2], Failed> {
    let folder = places.credential(name);
    match from {
        // What lies there already is its own copy.
        Credential::Pair(cert, key) if cert.starts_with(&folder) && key.starts_with(&folder) => {}
        Credential::Pair(cert, key) => {
            credential::adopt(places, &folder, cert, key, group).map_err(shown)?;
        }
        Credential::Pfx(file) => {
            credential::install(places, &folder, &opened(&file)?, group).map_err(shown)?;
        }
    }
    Ok([("auth_cert", folder.join("cert.pem")), ("auth_key", folder.join("key.pem"))])
}

/// Copies a file of authorities to where the service can read it, and says where that is: its
/// sandbox hides home folders and /tmp.
///
/// # Errors
/// The file can't be read or holds no certificate, the copy can't be written.
pub(super) fn adopt_authorities(
    places: &Places,
    copy: PathBuf,
    file: &Path,
    group: Option<Gid>,
) -> Result<PathBuf, Failed> {
    if file.starts_with(&places.config) {
        return Ok(file.to_owned());
    }
    let bytes = std::fs::read(file).map_err(store::Error::io(file, "read"))?;
    certificate::parse_chain(&bytes, file).map_err(Failed::new)?;
    store::write(&copy, &bytes, 0o640, group)?;
    Ok(copy)
}

/// Renews what is due; says what was done.
///
/// # Errors
/// As [`make`]; what was served goes on being served.
pub(super) fn renew(
    places: &Places,
    name: &Name,
    settings: &Settings,
    force: bool,
    group: Option<Gid>,
) -> Result<String, Failed> {
    if let Some((cert, key)) = &settings.foreign {
        let taken = identity::adopt(places, &places.identity(name), cert, key, group).map_err(own)?;
        return Ok(match taken {
            identity::Renewal::Renewed(facts) => {
                format!("{} taken over, to {}", cert.display(), facts.not_after.date())
            }
            _ => format!("{} has not changed", cert.display()),
        });
    }
    let renewed = identity::renew(places, name, &names(settings), force, OffsetDateTime::now_utc()).map_err(own)?;
    Ok(match renewed {
        identity::Renewal::Unchanged(facts) => format!("valid to {}, not due", facts.not_after.date()),
        identity::Renewal::Renewed(facts) => format!("renewed, to {}", facts.not_after.date()),
        identity::Renewal::Foreign(facts) => {
            let until = facts.not_after.date();
            format!("imported, to {until}; a new one: ewsbridge set {name} cert=FILE key=FILE")
        }
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

/// What is wrong with the certificate for a target that asks for one.
fn shown(error: credential::Error) -> Failed {
    let hint = match &error {
        credential::Error::Pair(error) => error.hint(),
        credential::Error::Refused { .. } => None,
    };
    Failed::new(error).maybe_hint(hint)
}

fn own(error: identity::Error) -> Failed {
    forwarder::Error::from(error).into()
}
