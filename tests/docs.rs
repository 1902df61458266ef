//! README tells the defaults that the code has, all of them and no others; what documents point to
//! exists.

#![allow(clippy::unwrap_used)]

use ewsbridge::config::settings::KEYS;
use ewsbridge::tls::offer::{CIPHERS, GROUPS};
use std::path::{Path, PathBuf};

const README: &str = include_str!("../README.md");

/// A table's rows under the head `| key | default | meaning |`: key, and default without its ticks.
fn defaults() -> Vec<(&'static str, &'static str)> {
    let table = README.split("| key | default | meaning |").nth(1).unwrap().lines().skip(2);
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        (cells[1], cells[2])
    };
    table.take_while(|line| line.starts_with('|')).map(row).collect()
}

#[test]
fn the_table_of_defaults_is_that_of_the_code() {
    let keys: Vec<_> = KEYS.iter().map(|key| (key.name, key.default)).collect();
    assert_eq!(defaults(), keys, "README.md, Defaults, on the left; KEYS on the right");
}

#[test]
fn the_ciphers_offered_to_the_target_are_those_of_the_code() {
    let block = README.split("Ciphers offered to the target").nth(1).unwrap().split("```").nth(1).unwrap();
    let told: Vec<&str> = block.trim_start_matches("text").split_whitespace().collect();
    assert_eq!(told, CIPHERS.split(':').collect::<Vec<_>>());
    assert!(README.contains(&format!("groups `{GROUPS}`")));
}

#[test]
fn the_rows_that_the_document_on_performance_explains_are_those_of_the_benchmark() {
    let code = include_str!("../benches/compare/rows.rs").split("pub(crate) const ROWS").nth(1).unwrap();
    let calls = code.split("small(").flat_map(|rest| rest.split("bulk(")).skip(1);
    let rows: Vec<&str> = calls.map(|rest| rest.split('"').nth(1).unwrap()).collect();
    let text = include_str!("../docs/performance.md");
    let table = text.split("| row | what is done | figure |").nth(1).unwrap().lines().skip(2);
    let cells = table.take_while(|line| line.starts_with('|')).map(|line| line.split('|').nth(1).unwrap());
    let told: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert_eq!(told, rows, "docs/performance.md on the left, benches/compare/rows.rs on the right");
    assert!(rows.len() > 10, "{rows:?}");
}

/// A file of this repository.
fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_file_that_readme_points_to_exists() {
    let mut links = 0;
    for link in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(here(link).exists(), "README.md points to {link}");
        links += 1;
    }
    assert!(links > 5, "README.md has lost its links");
}

/// What is wrong with the files and functions that a text names as `tests/FILE` or
/// `tests/FILE: FUNCTION`; and how many functions it names.
fn wrong_pointers(text: &str) -> (Vec<String>, usize) {
    let (mut wrong, mut functions) = (Vec::new(), 0);
    let quoted = text.split('`').skip(1).step_by(2);
    let places = ["tests/", "src/", "benches/"];
    for pointer in quoted.filter(|quoted| places.iter().any(|place| quoted.starts_with(place))) {
        // Else a command, perhaps with its arguments.
        let (file, function) = pointer.split_once(": ").unwrap_or((pointer.split(' ').next().unwrap(), ""));
        functions += usize::from(!function.is_empty());
        let is_right = match std::fs::read_to_string(here(file)) {
            Ok(code) => function.is_empty() || code.contains(&format!("fn {function}(")),
            Err(_) => function.is_empty() && here(file).is_dir(),
        };
        if !is_right {
            wrong.push(pointer.to_owned());
        }
    }
    (wrong, functions)
}

#[test]
fn every_test_that_a_document_names_exists() {
    let mut named = 0;
    let documents = std::fs::read_dir(here("docs")).unwrap().map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    for path in documents.chain(["README.md", "SECURITY.md"].map(here)) {
        let text = std::fs::read_to_string(&path).unwrap();
        let (wrong, functions) = wrong_pointers(&text);
        assert_eq!(wrong, [""; 0], "{} names what does not exist", path.display());
        named += functions;
        for link in text.split("](../").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
            assert!(here(link).exists(), "{} points to ../{link}", path.display());
        }
    }
    assert!(named > 100, "docs/threat-model.md has lost its tests: {named}");
}

#[test]
fn a_pointer_to_nothing_is_found() {
    let text = "`tests/docs.rs: a_pointer_to_nothing_is_found`, `tests/docs.rs`, `tests/common`, `tests/nowhere.rs`, \
                `tests/docs.rs: a_pointer`, `tests/nowhere.rs: wrong_pointers`, `wrong_pointers`";
    let wrong = ["tests/nowhere.rs", "tests/docs.rs: a_pointer", "tests/nowhere.rs: wrong_pointers"];
    assert_eq!(wrong_pointers(text), (wrong.map(str::to_owned).to_vec(), 3));
}
