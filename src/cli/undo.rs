//! What a command has done so far, to be taken back if it does not come to its end.

use std::fs;
use std::path::{Path, PathBuf};

use super::failed::Failed;
use crate::config::store;

/// Takes back, newest first, whatever was noted, unless it is told to keep it.
///
/// Also when the command is interrupted: dropping is enough.
#[derive(Default)]
pub(super) struct Undo {
    steps: Vec<Box<dyn FnOnce() + Send>>,
    /// Second names of files that may be replaced.
    spares: Vec<PathBuf>,
}

impl Undo {
    /// Notes how to take back what comes next.
    pub(super) fn note(&mut self, step: impl FnOnce() + Send + 'static) {
        self.steps.push(Box::new(step));
    }

    /// Everything is done: nothing will be taken back.
    pub(super) fn keep(mut self) {
        self.steps.clear();
        self.spares.drain(..).for_each(|spare| _ = fs::remove_file(spare));
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

    /// Notes that a file may be replaced or made: what is there now will be there again.
    ///
    /// By a second name in its folder, which takes no room on a full disk.
    ///
    /// # Errors
    /// The system's, naming the file.
    pub(super) fn note_replaced(&mut self, path: &Path) -> Result<(), Failed> {
        if !path.exists() {
            self.note_absent(path.to_owned());
            return Ok(());
        }
        let spare = path.with_file_name(format!(".old-{}", path.file_name().unwrap_or_default().display()));
        // One that a killed command has left.
        let _ = fs::remove_file(&spare);
        fs::hard_link(path, &spare).map_err(store::Error::io(path, "keep the old one"))?;
        let (from, to) = (spare.clone(), path.to_owned());
        self.spares.push(spare);
        // Two names of one file: then rename(2) does nothing, and the spare one has to go.
        self.note(move || _ = fs::rename(&from, &to).and_then(|()| fs::remove_file(&from)));
        Ok(())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some(step) = self.steps.pop() {
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

        for keep in [false, true] {
            fs::write(deep.join("file"), "old").unwrap();
            fs::write(deep.join("same"), "same").unwrap();
            let mut undo = Undo::default();
            for name in ["file", "same", "new"] {
                undo.note_replaced(&deep.join(name)).unwrap();
            }
            store::write(&deep.join("file"), b"new", 0o640, None).unwrap();
            store::write(&deep.join("new"), b"new", 0o640, None).unwrap();
            if keep {
                undo.keep()
            } else {
                drop(undo)
            }
            let expected = if keep { "new" } else { "old" };
            assert_eq!(fs::read_to_string(deep.join("file")).unwrap(), expected);
            assert_eq!(fs::read_dir(&deep).unwrap().count(), if keep { 3 } else { 2 });
        }
    }
}
