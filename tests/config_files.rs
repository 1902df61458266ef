//! Forwarders' files by example: each of `tests/config/valid` is in order, each of
//! `tests/config/invalid` is refused with what its first line expects.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A place with one forwarder, whose file can be replaced.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let made = place.run(&["add", "f", &free, "127.0.0.1:9", "--offline", "--insecure"]);
        assert!(made.status.success(), "{made:?}");
        place
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("etc/forwarders/f.toml")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ewsbridge"));
        command.arg("--config-dir").arg(self.0.path().join("etc")).arg("--state-dir").arg(self.0.path().join("var"));
        command.args(arguments).output().unwrap()
    }
}

fn examples(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5);
    files
}

#[test]
fn every_valid_example_is_in_order() {
    let place = Place::new();
    for example in examples("valid") {
        fs::copy(&example, place.file()).unwrap();
        let checked = place.run(&["run", "--check", "f"]);
        assert_eq!(checked.status.code(), Some(0), "{}: {checked:?}", example.display());
        assert_eq!(String::from_utf8_lossy(&checked.stdout), "f: the settings are in order\n");
    }
}

#[test]
fn every_invalid_example_is_refused_with_file_line_and_reason() {
    let place = Place::new();
    for example in examples("invalid") {
        let text = fs::read_to_string(&example).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap().to_owned();
        fs::copy(&example, place.file()).unwrap();
        for command in [&["run", "f"][..], &["run", "--check", "f"], &["show", "f"], &["check", "f"]] {
            let refused = place.run(command);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(78), "{}: {command:?}: {said}", example.display());
            assert!(said.starts_with(&place.file().display().to_string()), "{}: {said}", example.display());
            assert!(said.contains(&expected), "{}: {said}", example.display());
        }
        assert_eq!(fs::read_to_string(place.file()).unwrap(), text, "the file was left as it was");
        let listed = place.run(&["list"]);
        let said = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.status.success() && said.contains("invalid"), "{}: {said}", example.display());
    }
}

#[test]
fn file_that_add_writes_is_in_order() {
    let place = Place::new();
    assert_eq!(place.run(&["run", "--check", "f"]).status.code(), Some(0));
}
