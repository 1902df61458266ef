//! What an installation has done so far, so that a failure can take it back.
//!
//! Invariant: an entry is added before its change is made, so a change that stopped half-way is
//! taken back too; taking back what never happened does nothing.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use super::install::{RENEW_TIMER, TIMER_STAMP};
use super::{Error, account, file_error, units, write_whole};
use crate::config::Name;

/// How to take one change back.
pub(super) enum Undo {
    /// A file that was not there before.
    RemoveFile(PathBuf),
    /// A folder that was not there before; it stays if something else is in it by then.
    RemoveFolder(PathBuf),
    /// A file that had another content.
    Restore { path: PathBuf, content: Vec<u8>, mode: u32 },
    /// A file or folder with another owner or mode.
    GiveBack { path: PathBuf, uid: u32, gid: u32, mode: u32 },
    /// The system group.
    RemoveGroup,
    /// The system user.
    RemoveUser,
    /// Unit files that systemd has read.
    Reload,
    /// The renewal's timer.
    DisableTimer,
    /// A service that runs the new binary, and is to run the old one again.
    Restart(Name),
}

/// The changes so far, oldest first.
#[derive(Default)]
pub(super) struct Rollback(Vec<Undo>);

impl Rollback {
    /// Remembers how to take back what comes next.
    pub(super) fn on_failure(&mut self, undo: Undo) {
        self.0.push(undo);
    }

    /// Takes everything back, newest first. What fails is skipped: the rest is worth doing, and the
    /// admin has to hear of the failure that began it, not of its consequences.
    pub(super) fn take_back(self) {
        // Services come last, when the old binary and the old units are in place again.
        let (restarts, changes): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|undo| matches!(undo, Undo::Restart(_)));
        for undo in changes.into_iter().rev().chain(restarts) {
            let _ = undo.apply();
        }
    }

    /// Makes a folder and those above it as far as they are missing; says whether it was.
    pub(super) fn make_folder(&mut self, path: &Path) -> Result<bool, Error> {
        if path.is_dir() {
            return Ok(false);
        }
        if let Some(parent) = path.parent() {
            self.make_folder(parent)?;
        }
        // Not added before the change, as everything else: an entry for one that exists and is
        // empty would remove somebody else's.
        fs::create_dir(path).map_err(file_error(path, "create"))?;
        self.on_failure(Undo::RemoveFolder(path.to_path_buf()));
        // Whatever umask the admin has.
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).map_err(file_error(path, "set permissions"))?;
        Ok(true)
    }

    /// Writes a file unless it has that content already; says whether it hadn't.
    pub(super) fn write(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<bool, Error> {
        match fs::read(path) {
            Ok(old) if old == content => return Ok(false),
            Ok(old) => self.on_failure(Undo::Restore { path: path.to_path_buf(), content: old, mode: mode_of(path)? }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                self.on_failure(Undo::RemoveFile(path.to_path_buf()));
            }
            Err(cause) => return Err(file_error(path, "read")(cause)),
        }
        write_whole(path, content, mode)?;
        Ok(true)
    }

    /// Gives a file or folder to root and a group; says whether it was otherwise before.
    ///
    /// `mode`: none keeps the one it has. A symbolic link is given away itself, not what it points to.
    pub(super) fn give(&mut self, path: &Path, gid: u32, mode: Option<u32>) -> Result<bool, Error> {
        let found = fs::symlink_metadata(path).map_err(file_error(path, "look at"))?;
        let (old_mode, mode) = (found.mode() & 0o7777, mode.unwrap_or(found.mode() & 0o7777));
        if (found.uid(), found.gid(), old_mode) == (0, gid, mode) {
            return Ok(false);
        }
        let old = Undo::GiveBack { path: path.to_path_buf(), uid: found.uid(), gid: found.gid(), mode: old_mode };
        self.on_failure(old);
        own(path, 0, gid, mode).map_err(file_error(path, "set owner and permissions"))?;
        Ok(true)
    }
}

impl Undo {
    fn apply(self) -> Result<(), Error> {
        match self {
            Undo::RemoveFile(path) => fs::remove_file(&path).map_err(file_error(&path, "remove")),
            Undo::RemoveFolder(path) => fs::remove_dir(&path).map_err(file_error(&path, "remove")),
            Undo::Restore { path, content, mode } => write_whole(&path, &content, mode),
            Undo::GiveBack { path, uid, gid, mode } => {
                own(&path, uid, gid, mode).map_err(file_error(&path, "set owner and permissions"))
            }
            Undo::RemoveGroup => account::remove_group().map(drop),
            Undo::RemoveUser => account::remove_user().map(drop),
            Undo::Reload => units::daemon_reload(),
            Undo::DisableTimer => {
                units::systemctl(&["disable", "--now", RENEW_TIMER])?;
                fs::remove_file(TIMER_STAMP).map_err(file_error(Path::new(TIMER_STAMP), "remove"))
            }
            Undo::Restart(name) => units::restart(&name),
        }
    }
}

fn own(path: &Path, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    lchown(path, Some(uid), Some(gid))?;
    // After the owner: a change of owner takes bits of the mode away.
    if path.is_symlink() { Ok(()) } else { fs::set_permissions(path, PermissionsExt::from_mode(mode)) }
}

fn mode_of(path: &Path) -> Result<u32, Error> {
    Ok(fs::metadata(path).map_err(file_error(path, "look at"))?.mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_taken_back_and_what_was_there_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("a/b/new"));
        write_whole(&old, b"before", 0o640).expect("writes");
        let mut rollback = Rollback::default();
        assert!(rollback.make_folder(&folder.path().join("a/b")).expect("makes"));
        assert!(rollback.write(&new, b"x", 0o644).expect("writes"));
        assert!(rollback.write(&old, b"after", 0o755).expect("writes"));
        assert_eq!(mode_of(&old).expect("looks"), 0o755);
        rollback.take_back();
        assert_eq!(fs::read(&old).expect("reads"), b"before");
        assert_eq!(mode_of(&old).expect("looks"), 0o640);
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn what_is_as_it_should_be_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        let mut rollback = Rollback::default();
        assert!(rollback.write(&file, b"x", 0o644).expect("writes"));
        let before = fs::metadata(&file).expect("looks").ino();
        assert!(!rollback.write(&file, b"x", 0o644).expect("writes"));
        assert!(!rollback.make_folder(folder.path()).expect("makes"));
        assert_eq!(fs::metadata(&file).expect("looks").ino(), before);
    }
}
