//! What was seen, as the table of docs/compatibility.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// One server that works.
pub struct Row {
    /// `OpenSSL 1.0.2`.
    pub library: String,
    pub setting: String,
    pub besides: String,
    /// `TLS 1.0 AES128-SHA`.
    pub spoken: String,
    /// Lines of the forwarder's file, as they stand there.
    pub needs: Vec<String>,
}

/// What stands before the table in the document.
const MARK: &str = "<!-- From here on written by tests/compatibility.rs. -->\n";

impl Row {
    /// `security_level = 0` and each word of `allow_weak` count; `security_level = 2` is no need.
    pub fn switches(&self) -> Vec<String> {
        let mut switches = Vec::new();
        for need in &self.needs {
            match need.split_once(" = ") {
                Some(("allow_weak", words)) => {
                    let words = words.trim_matches(['[', ']']).split(", ");
                    switches.extend(words.map(|word| word.trim_matches('"').to_owned()));
                }
                Some((key, _)) => switches.push(key.to_owned()),
                None => panic!("no setting: {need}"),
            }
        }
        switches
    }

    /// The library without its version.
    pub fn library_name(&self) -> &str {
        self.library.split(' ').next().unwrap_or_default()
    }

    pub fn line(&self) -> String {
        let needs: Vec<String> = self.needs.iter().map(|need| format!("`{need}`")).collect();
        let needs = if needs.is_empty() { "nothing".to_owned() } else { needs.join("<br>") };
        format!("| {} | `{}` | {} | {} | {needs} |", self.library, self.setting, self.besides, self.spoken)
    }
}

/// The libraries that need each switch.
pub fn needed_by(rows: &[Row]) -> BTreeMap<String, BTreeSet<&str>> {
    let mut needed: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        for switch in row.switches() {
            needed.entry(switch).or_default().insert(row.library_name());
        }
    }
    needed
}

/// Writes target/compatibility.md; fails where docs/compatibility.md is another.
pub fn compare(rows: &[Row]) {
    let document = in_project("docs/compatibility.md");
    let there = fs::read_to_string(&document).expect("docs/compatibility.md");
    let head = there.split_once(MARK).expect("the mark in docs/compatibility.md").0;
    let text = format!("{head}{MARK}{}", tables(rows));
    let made = in_project("target/compatibility.md");
    fs::write(&made, &text).expect("target/compatibility.md");
    let first = text.lines().zip(there.lines()).find(|(new, old)| new != old);
    assert!(
        text == there,
        "docs/compatibility.md tells something else than was seen, first in:\n  told: {}\n  seen: {}\n\
         to update it: cp target/compatibility.md docs/compatibility.md",
        first.map_or("(its length)", |(_, old)| old),
        first.map_or("(its length)", |(new, _)| new),
    );
}

fn tables(rows: &[Row]) -> String {
    let libraries: BTreeSet<&str> = rows.iter().map(Row::library_name).collect();
    let mut text = format!("\n{} servers over {} TLS libraries.\n\n", rows.len(), libraries.len());
    text.push_str("| server | set to | besides | spoken | needs |\n| --- | --- | --- | --- | --- |\n");
    for row in rows {
        writeln!(text, "{}", row.line()).expect("a String takes everything");
    }
    text.push_str("\n## Who needs what\n\n| switch | needed by |\n| --- | --- |\n");
    for (switch, libraries) in needed_by(rows) {
        let libraries: Vec<&str> = libraries.into_iter().collect();
        writeln!(text, "| `{switch}` | {} |", libraries.join(", ")).expect("a String takes everything");
    }
    text
}

fn in_project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
