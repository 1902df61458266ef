//! What is said about each failure, by a server that fails so; then the cure, applied as it is printed.
//!
//! A row is a server, the bridge's flags, the text and the hint word for word, and what becomes of the
//! hint: its flags are given to a new bridge, which must then work, or the server is mended as it says.
//! `docs/errors.md` lists the same texts, which the last test checks.

#![allow(clippy::unwrap_used)]

#[path = "explain/alerts.rs"]
mod alerts;
#[path = "explain/certificates.rs"]
mod certificates;
#[path = "explain/clients.rs"]
mod clients;
mod common;
#[path = "explain/endings.rs"]
mod endings;
#[path = "explain/handshakes.rs"]
mod handshakes;
#[path = "explain/row.rs"]
mod row;
#[path = "explain/servers.rs"]
mod servers;

use row::{Row, Then, run};

#[test]
fn every_failed_handshake_is_explained_and_its_cure_works() {
    run(handshakes::ROWS);
}

#[test]
fn every_handshake_that_ends_in_the_middle_is_explained_and_its_cure_works() {
    run(endings::ROWS);
}

#[test]
fn every_refused_certificate_is_explained_and_its_cure_works() {
    run(certificates::ROWS);
}

#[test]
fn alerts_of_every_number_are_explained_at_every_step() {
    alerts::every_one_is_explained(false);
}

#[test]
fn alerts_of_every_number_are_explained_at_every_step_to_a_server_that_asks_for_a_certificate() {
    alerts::every_one_is_explained(true);
}

#[test]
fn every_client_that_fails_is_explained_and_helped() {
    clients::CLIENTS.iter().for_each(clients::Client::check);
}

/// What stands in a block of `docs/errors.md`: a failure's text, and its hint.
fn documented() -> Vec<(String, String)> {
    let text = include_str!("../docs/errors.md");
    let blocks = text.split("```text\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let parts = |block: &str| {
        let (told, hint) = block.split_once("\nhint: ").unwrap_or((block, ""));
        (told.trim().to_owned(), hint.trim().to_owned())
    };
    blocks.map(parts).collect()
}

/// A row's text with the words of an example.
fn as_documented(text: &str) -> String {
    let examples = [
        ("{pin}", "sha256:34a0...eb5c"),
        ("{port}", "443"),
        ("{from}", "2030-01-01"),
        ("{until}", "2024-04-01"),
        ("{cert}", "/etc/ssl/bridge.pem"),
        ("{wrong}", "/etc/ssl/bridge.pem"),
        ("700ms", "15s"),
        ("300ms", "15s"),
    ];
    examples.iter().fold(text.to_owned(), |text, (word, example)| text.replace(word, example))
}

#[test]
fn what_is_documented_is_what_was_seen_and_nothing_else() {
    let mut seen: Vec<(String, String)> = Vec::new();
    for Row { told, hint, then, .. } in [handshakes::ROWS, endings::ROWS, certificates::ROWS].into_iter().flatten() {
        seen.push(((*told).to_owned(), (*hint).to_owned()));
        if let Then::SearchInVain { told, hint, .. } = then {
            seen.push(((*told).to_owned(), (*hint).to_owned()));
        }
    }
    seen.extend(clients::CLIENTS.iter().map(|client| (client.told.to_owned(), client.hint.to_owned())));
    let seen = seen.into_iter().map(|(told, hint)| (as_documented(&told), as_documented(&hint)));
    let mut seen: Vec<_> = seen.collect();
    seen.sort();
    seen.dedup();
    let documented = documented();
    let missing: Vec<_> = seen.iter().filter(|entry| !documented.contains(entry)).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:#?}");
    let unseen: Vec<_> = documented.iter().filter(|entry| !seen.contains(entry)).collect();
    assert!(unseen.is_empty(), "in docs/errors.md, and no test has seen it: {unseen:#?}");
}
