//! The Russian documents are those of the English ones as they are now: each names the text that it
//! translates, by its hash, in its first line.
//!
//! When the English side has changed, mend the Russian one, then let this write the new hash:
//! `EWSBRIDGE_BLESS=1 cargo test --test russian`. What has changed since: `git log -p -- FILE`.

use std::fs;
use std::path::{Path, PathBuf};

use openssl::sha::sha256;

/// Documents for who works on the program, or on its security, and not with it: in English alone.
const FOR_DEVELOPERS: [&str; 3] = ["compatibility.md", "performance.md", "threat-model.md"];

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(here(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document for users, and its Russian side.
fn pairs() -> Vec<(String, String)> {
    let files = |folder: &str| {
        let entries = fs::read_dir(here(folder)).unwrap().map(|entry| entry.unwrap());
        let names = entries.filter(|entry| entry.path().is_file()).map(|entry| entry.file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let is_for_users = |name: &String| name.ends_with(".md") && !FOR_DEVELOPERS.contains(&name.as_str());
    let documents = files("docs").into_iter().filter(is_for_users);
    let documents = documents.map(|name| (format!("docs/{name}"), format!("docs/ru/{name}")));
    let pages = files("docs/man").into_iter().filter(|name| !name.ends_with(".in"));
    let pages = pages.map(|name| (format!("docs/man/{name}"), format!("docs/man/ru/{name}")));
    let readme = ("README.md".to_owned(), "README.ru.md".to_owned());
    [readme].into_iter().chain(documents).chain(pages).collect()
}

fn hash(text: &str) -> String {
    sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the first line of a translation has to be.
fn stamp(english: &str, text: &str) -> String {
    let stamp = format!("{english} sha256:{}", hash(text));
    if english.ends_with(".md") { format!("<!-- {stamp} -->") } else { format!(".\\\" {stamp}") }
}

/// Blocks of code, whole.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        if is_fence && !inside {
            blocks.push(String::new());
        }
        if inside || is_fence {
            let block = blocks.last_mut().unwrap();
            block.push_str(line);
            block.push('\n');
        }
        inside ^= is_fence;
    }
    blocks
}

/// Headings by their depth, and the rows of tables, outside of blocks.
fn shape(text: &str) -> (Vec<usize>, usize) {
    let (mut depths, mut rows, mut inside) = (Vec::new(), 0, false);
    for line in text.lines() {
        inside ^= line.trim_start().starts_with("```");
        if !inside && line.starts_with('#') {
            depths.push(line.chars().take_while(|letter| *letter == '#').count());
        }
        rows += usize::from(!inside && line.starts_with('|'));
    }
    (depths, rows)
}

#[test]
fn every_document_for_users_has_a_russian_side_that_is_up_to_date() {
    let all = pairs();
    assert!(all.len() >= 9, "{all:?}");
    let mut old = Vec::new();
    for (english, russian) in all {
        let stamp = stamp(&english, &read(&english));
        let text =
            fs::read_to_string(here(&russian)).unwrap_or_else(|_| panic!("{english} has no Russian side, {russian}"));
        let (first, rest) = text.split_once('\n').unwrap();
        if first == stamp {
            continue;
        }
        if std::env::var_os("EWSBRIDGE_BLESS").is_some() {
            fs::write(here(&russian), format!("{stamp}\n{rest}")).unwrap();
        } else {
            old.push(format!("{russian}: {english} has changed since; see: git log -p -- {english}"));
        }
    }
    assert!(old.is_empty(), "{old:#?}\nmend them, then: EWSBRIDGE_BLESS=1 cargo test --test russian");
}

#[test]
fn headings_tables_and_examples_are_the_same_on_both_sides() {
    for (english, russian) in pairs().into_iter().filter(|(english, _)| english.ends_with(".md")) {
        let (one, other) = (read(&english), read(&russian));
        assert_eq!(shape(&one), shape(&other), "{english} on the left, {russian} on the right");
        for (nth, (one, other)) in blocks(&one).into_iter().zip(blocks(&other)).enumerate() {
            assert!(one == other, "{russian}: example {} is not that of {english}:\n{one}{other}", nth + 1);
        }
        assert_eq!(blocks(&one).len(), blocks(&other).len(), "{russian}");
    }
}

/// What stands between backquotes in a line outside of blocks, sorted; an ordinary line for each line.
fn quoted(text: &str) -> Vec<Vec<String>> {
    let mut inside = false;
    // The stamp is the Russian side's alone.
    let lines = text.lines().filter(|line| !line.starts_with("<!-- "));
    let quoted = lines.map(|line| {
        inside ^= line.trim_start().starts_with("```");
        let mut spans: Vec<String> = match inside || line.trim_start().starts_with("```") {
            true => Vec::new(),
            false => line.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        };
        spans.sort();
        spans
    });
    quoted.collect()
}

#[test]
fn what_can_be_pasted_is_the_same_line_by_line() {
    for (english, russian) in pairs().into_iter().filter(|(english, _)| english.ends_with(".md")) {
        let (one, other) = (quoted(&read(&english)), quoted(&read(&russian)));
        assert_eq!(one.len(), other.len(), "{english} and {russian} have lines");
        for (number, (one, other)) in one.into_iter().zip(other).enumerate() {
            assert_eq!(one, other, "line {}: {english} on the left, {russian} on the right", number + 1);
        }
    }
}

#[test]
fn commands_and_keys_of_the_man_pages_are_the_same_on_both_sides() {
    for (english, russian) in pairs().into_iter().filter(|(english, _)| english.contains("/man/")) {
        let tags = |path: &str| {
            let text = read(path);
            let lines: Vec<&str> = text.lines().collect();
            let tagged = lines.windows(2).filter(|pair| pair[0] == ".TP" && pair[1].starts_with("\\f"));
            let tags = tagged.map(|pair| pair[1].to_owned());
            tags.chain(lines.iter().filter(|line| line.starts_with(".SS ")).map(|line| (*line).to_owned()))
                .collect::<Vec<_>>()
        };
        assert!(tags(&english).len() > 30, "{english}");
        assert_eq!(tags(&english), tags(&russian), "{english} on the left, {russian} on the right");
    }
}

#[test]
fn every_link_of_a_russian_document_leads_somewhere_and_to_russian_where_there_is_some() {
    let all = pairs();
    for (_, russian) in all.iter().filter(|(english, _)| english.ends_with(".md")) {
        let text = read(russian);
        let folder = here(russian).parent().unwrap().to_owned();
        let links = text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            let path = folder.join(link);
            assert!(path.exists(), "{russian}: {link} leads nowhere");
            let path = path.canonicalize().unwrap();
            let has_russian = |(english, _): &&(String, String)| here(english).canonicalize().unwrap() == path;
            if let Some((english, better)) = all.iter().find(has_russian)
                && english != "README.md"
            {
                panic!("{russian}: {link} is English; the Russian side is {better}");
            }
        }
    }
}

#[test]
fn the_russian_man_pages_are_well_formed() {
    for (_, russian) in pairs().into_iter().filter(|(english, _)| english.contains("/man/")) {
        let said = std::process::Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(here(&russian))
            .output()
            .unwrap();
        assert!(said.status.success() && said.stdout.is_empty(), "{}", String::from_utf8_lossy(&said.stdout));
    }
}
