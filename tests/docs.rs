//! README tells the defaults that the code has, all of them and no others.

#![allow(clippy::unwrap_used)]

use ewsbridge::config::settings::KEYS;
use ewsbridge::tls::offer::{CIPHERS, GROUPS};

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
fn every_file_that_readme_points_to_exists() {
    let mut links = 0;
    for link in README.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/").to_owned() + link;
        assert!(std::path::Path::new(&path).exists(), "README.md points to {link}");
        links += 1;
    }
    assert!(links > 5, "README.md has lost its links");
}
