//! The man pages in `docs/man` are what the program prints, and well formed.

mod cli_support;

use std::path::Path;
use std::process::Command;

use cli_support::{Sandbox, run_to_end};

const PAGES: [(&str, &str); 2] = [("8", "ewsbridge.8"), ("5", "ewsbridge.toml.5")];

#[test]
fn the_pages_are_those_of_this_program() {
    for (section, file) in PAGES {
        let made = Sandbox::new().run(["manual", section]).succeeded().stdout;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man").join(file);
        if std::env::var_os("EWSBRIDGE_BLESS").is_some() {
            std::fs::write(&path, &made).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == made,
            "docs/man/{file} is not what 'ewsbridge manual {section}' prints; to renew it: EWSBRIDGE_BLESS=1 cargo test --test manual"
        );
    }
}

#[test]
fn the_pages_are_well_formed_for_mandoc_and_for_groff() {
    for (_, file) in PAGES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man").join(file);
        let mut lint = Command::new("mandoc");
        let said = run_to_end(lint.args(["-T", "lint", "-W", "warning"]).arg(&path)).succeeded();
        assert_eq!(said.all(), "", "{file}");
        let mut man = Command::new("man");
        man.args(["--warnings", "-l"]).arg(&path).env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80").env("MANPAGER", "cat");
        let said = run_to_end(&mut man).succeeded();
        assert_eq!(said.stderr, "", "{file}");
        assert!(said.stdout.contains("SEE ALSO"), "{}", said.stdout);
    }
}

#[test]
fn every_command_flag_and_key_is_there() {
    let page = |section| Sandbox::new().run(["manual", section]).succeeded().stdout;
    let (commands, keys) = (page("8"), page("5"));
    for command in ["add", "set", "cert renew", "status", "drain", "manual"] {
        assert!(commands.contains(&format!(".SS \\fB{command}\\fR")), "{command}");
    }
    for flag in ["\\-\\-log\\-format", "\\-\\-watch", "\\-\\-auth\\-pfx", "\\-\\-config\\-dir"] {
        assert!(commands.contains(flag), "{flag}");
    }
    let shown = Sandbox::with_another();
    let shown = shown.run(["show", "old"]).succeeded().stdout;
    let known: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.split(" = ").next())
        .map(|key| key.trim_start_matches('#').trim())
        .collect();
    assert!(known.len() > 30, "{shown}");
    for key in known
        .iter()
        .filter(|key| !key.is_empty() && key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'))
    {
        assert!(keys.contains(&format!("\\fB{key}\\fR")), "{key}");
    }
}
