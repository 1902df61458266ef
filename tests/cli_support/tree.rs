//! A folder with everything in it: kinds, modes, owners, contents.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use openssl::sha::sha256;

/// What lies under a folder; two are equal if nobody could tell the folders apart, but for times.
#[derive(Clone, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, String>);

impl Tree {
    pub fn of(folder: &Path) -> Self {
        let mut entries = BTreeMap::new();
        walk(folder, folder, &mut entries);
        Self(entries)
    }

    /// The paths of what is no folder.
    pub fn files(&self) -> Vec<&Path> {
        self.0.iter().filter(|(_, entry)| !entry.starts_with('d')).map(|(path, _)| path.as_path()).collect()
    }
}

fn walk(root: &Path, path: &Path, entries: &mut BTreeMap<PathBuf, String>) {
    let metadata = fs::symlink_metadata(path).expect("what the folder listed");
    let kind = if metadata.is_dir() { 'd' } else { 'f' };
    let mut entry = format!("{kind} {:o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    if metadata.is_dir() {
        for child in fs::read_dir(path).expect("a readable folder") {
            walk(root, &child.expect("an entry").path(), entries);
        }
    } else {
        let bytes = fs::read(path).expect("a readable file");
        let digest: String = sha256(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        entry.push_str(&format!(" {} bytes {digest}", bytes.len()));
    }
    entries.insert(path.strip_prefix(root).expect("below the root").to_owned(), entry);
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(path, entry)| write!(f, "\n  {} {entry}", path.display()))
    }
}
