//! Files and folders that appear whole or not at all, with owner and mode right from their first moment.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use nix::unistd::Gid;
use tempfile::NamedTempFile;

use super::Error;

/// A file to be written: its name, contents and mode.
pub(super) struct Content<'a>(pub(super) &'static str, pub(super) &'a str, pub(super) u32);

/// Makes a folder and those above it that are missing, or only gives it to the group.
pub(super) fn folder(path: &Path, group: Option<Gid>) -> Result<(), Error> {
    let named = |above: &&Path| !above.as_os_str().is_empty() && !above.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(named).collect();
    for path in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => {
                made.and_then(|()| own(path, FOLDER_MODE, group)).map_err(|error| Error::io(path, "make", error))?
            }
        }
    }
    give(path, group).map_err(|error| Error::io(path, "set the group", error))
}

/// Makes a folder with its files in one step, by renaming. Gives back whether it did: an existing one stays.
pub(super) fn fill(path: &Path, mode: u32, group: Option<Gid>, files: &[Content<'_>]) -> Result<bool, Error> {
    let failed = |error| Error::io(path, "write", error);
    let parent = path.parent().unwrap_or(Path::new("."));
    // Dropped, it removes the draft, which is gone by then if all went well.
    let draft = tempfile::Builder::new().prefix(".new-").tempdir_in(parent).map_err(failed)?;
    replace(draft.path(), group, files).and_then(|()| own(draft.path(), mode, group)).map_err(failed)?;
    match fs::rename(draft.path(), path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
            Ok(false)
        }
        renamed => renamed.and_then(|()| sync(parent)).map(|()| true).map_err(failed),
    }
}

/// Replaces files of a folder, each at once: all are on the disk before the first takes its place.
pub(super) fn replace(folder: &Path, group: Option<Gid>, files: &[Content<'_>]) -> io::Result<()> {
    let mut drafts = Vec::new();
    for Content(name, text, mode) in files {
        let mut draft = NamedTempFile::with_prefix_in(".new-", folder)?;
        draft.write_all(text.as_bytes())?;
        if let Some(group) = group {
            fchown(draft.as_file(), None, Some(group.as_raw()))?;
        }
        draft.as_file().set_permissions(Permissions::from_mode(*mode))?;
        draft.as_file().sync_all()?;
        drafts.push((draft, folder.join(name)));
    }
    for (draft, path) in drafts {
        draft.persist(path).map_err(|error| error.error)?;
    }
    sync(folder)
}

/// The group that owns a file, to be kept when it is replaced.
pub(super) fn group_of(path: &Path) -> Option<Gid> {
    fs::metadata(path).ok().map(|metadata| Gid::from_raw(metadata.gid()))
}

fn own(path: &Path, mode: u32, group: Option<Gid>) -> io::Result<()> {
    give(path, group)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Gives a path to the group unless it has it already, which spares an unprivileged caller.
fn give(path: &Path, group: Option<Gid>) -> io::Result<()> {
    match group {
        Some(group) if group_of(path) != Some(group) => std::os::unix::fs::chown(path, None, Some(group.as_raw())),
        _ => Ok(()),
    }
}

/// Makes a rename last through a power cut.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Folders are for root and the service's group.
pub(super) const FOLDER_MODE: u32 = 0o750;
