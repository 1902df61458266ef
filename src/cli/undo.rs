//! What a command has done so far, to be taken back if it does not come to its end.

use std::fs;
use std::path::{Path, PathBuf};

use super::failed::Failed;
use crate::config::store;

/// Takes back, newest first, whatever was noted, unless it is told to keep it.
///
/// Also when the command is interrupted: dropping is enough.
#[derive(Default)]
pub(super) struct Undo(Vec<Box<dyn FnOnce() + Send>>);

impl Undo {
    /// Notes how to take back what comes next.
    pub(super) fn note(&mut self, step: impl FnOnce() + Send + 'static) {
        self.0.push(Box::new(step));
    }

    /// Everything is done: nothing will be taken back.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }

    /// Makes a folder, and those above it, as far as they are missing.
    ///
    /// # Errors
    /// The system's, naming the folder.
    pub(super) fn make_folder(
        &mut self,
        path: &Path,
        mode: u32,
        group: Option<nix::unistd::Gid>,
    ) -> Result<(), Failed> {
        use std::os::unix::fs::PermissionsExt;
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.make_folder(parent, 0o755, None)?;
        }
        fs::create_dir(path).map_err(store::Error::io(path, "create"))?;
        let made = path.to_owned();
        self.note(move || _ = fs::remove_dir(made));
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(store::Error::io(path, "set mode"))?;
        if group.is_some() {
            let given = nix::unistd::chown(path, None, group).map_err(std::io::Error::from);
            given.map_err(store::Error::io(path, "set group"))?;
        }
        Ok(())
    }

    /// Notes that a file or folder did not exist: whatever is there later goes.
    pub(super) fn note_absent(&mut self, path: PathBuf) {
        if !path.exists() {
            self.note(move || {
                let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            });
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some(step) = self.0.pop() {
            step();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_taken_back_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        let mut undo = Undo::default();
        undo.make_folder(&deep, 0o750, None).unwrap();
        undo.note_absent(deep.join("file"));
        fs::write(deep.join("file"), "x").unwrap();
        drop(undo);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        let mut undo = Undo::default();
        undo.make_folder(&deep, 0o750, None).unwrap();
        undo.keep();
        assert!(deep.is_dir());
    }
}
