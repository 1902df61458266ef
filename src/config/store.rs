//! Forwarders' files on disk: listed, read, written whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::file::{self, Invalid};
use super::{Name, Places, Settings};
use crate::words;

/// What can go wrong with a forwarder's file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such forwarder.
    #[error("{name}: no such forwarder: {path} does not exist")]
    Missing {
        /// Its name.
        name: Name,
        /// The file looked for.
        path: String,
    },
    /// The file is not what it must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The system refuses.
    #[error("{}: {action}: {}", .path.display(), words::of(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Names the file and what was tried with it.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}

/// The names of all forwarders, sorted; none where the folder does not exist.
///
/// # Errors
/// [`Error::Io`] if the folder can't be read. Files that can't name a forwarder are passed over.
pub fn names(places: &Places) -> Result<Vec<Name>, Error> {
    let folder = places.forwarders();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(&folder, "read")(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(Error::io(&folder, "read"))?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".toml")).and_then(|stem| stem.parse().ok());
        names.extend(name);
    }
    names.sort();
    Ok(names)
}

/// The text of a forwarder's file.
///
/// # Errors
/// [`Error::Missing`], or [`Error::Io`] with the reason.
pub fn read_text(places: &Places, name: &Name) -> Result<String, Error> {
    let path = places.forwarder(name);
    fs::read_to_string(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing { name: name.clone(), path: path.display().to_string() },
        _ => Error::io(&path, "read")(error),
    })
}

/// A forwarder's settings.
///
/// # Errors
/// As [`read_text`], and [`Error::Invalid`] with everything that is wrong in the file.
pub fn load(places: &Places, name: &Name) -> Result<Settings, Error> {
    let text = read_text(places, name)?;
    Ok(file::parse(&text, Some(&places.forwarder(name)))?)
}

/// Writes a file so that a reader sees the old one or the new one, even after a power cut.
///
/// The group is the service's where `group` says so; it may read, nobody else may.
///
/// # Errors
/// [`Error::Io`]; the old file is then untouched and no other file is left.
pub fn write(path: &Path, text: &[u8], mode: u32, group: Option<nix::unistd::Gid>) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(Error::io(path, "write"))?;
    new.write_all(text).map_err(Error::io(path, "write"))?;
    let permissions = fs::Permissions::from_mode(mode);
    new.as_file().set_permissions(permissions).map_err(Error::io(path, "set mode"))?;
    if group.is_some() {
        let chown = nix::unistd::fchown(&new, None, group).map_err(io::Error::from);
        chown.map_err(Error::io(path, "set group"))?;
    }
    new.as_file().sync_all().map_err(Error::io(path, "write"))?;
    new.persist(path).map_err(|error| Error::io(path, "write")(error.error))?;
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(Error::io(folder, "write"))
}
