//! The events of the log: each has a name, by which JSON and the journal call it, and the journal's message
//! ID, by which `journalctl -x` finds its explanation in `deploy/catalog`.
//!
//! Neither ever changes. A line without a name is for debugging.

/// Names and message IDs (128 random bits, sd-id128(3)), by name.
pub const EVENTS: &[(&str, &str)] = &[
    ("accept_failed", "5be127924123dce179d9ed617a5ebf89"),
    ("bridge_failed", "f44807d6c64a1ca3ba31ea85ac5eb752"),
    ("certificate_loaded", "a1bf78c1ff316dc8ddecb1d04d06f737"),
    ("certificate_unusable", "86be4c6dff874a50e7625fb242189949"),
    ("client_failed", "73db370051a6a1dc41128e2b15e3727b"),
    ("client_refused", "e9b6a5260f349b9d3a296328f2dcd25e"),
    ("control_failed", "51defdfa0391a9ffd60d40a607f76355"),
    ("descriptors_unknown", "7d5140740d303d27d72be5c355951285"),
    ("drain_socket_unit", "9cc535b57a11a22b7e3606fe411d2a19"),
    ("drained", "71923d3506e5dd965605a41416a18b51"),
    ("draining", "c18a502397ae0108b27ae73b0c5521fb"),
    ("limits_short", "64773f23e1b359c306c3363c5a53257c"),
    ("listening", "dbbb29729cb6e88f31e506b4ba7aa35b"),
    ("metrics_failed", "1cb7bd7782ef55495a9a2c7990ad59ca"),
    ("metrics_on", "f073bd54d4e53aee9aa93a74e0db2f8d"),
    ("name_answers", "3aa0e1ec6f6eaa3c5e62c8905d233b6f"),
    ("name_last_good", "5e2a839dbfd41262b5f561f17515312b"),
    ("reload_failed", "ec568d364add387f1d0f929b9e0528f6"),
    ("reloaded", "e971b468399863620247fdb80636c324"),
    ("search_done", "237e9e29e17ed7ba9f6d4b15e947f07e"),
    ("search_failed", "6eeada9ffe03b97fac322a51fc184a4a"),
    ("session_closed", "d5eb1b975e00b9ae83d71641256e70fd"),
    ("setting_weak", "8f4217cfb95ecbd05550c0b60ad140e8"),
    ("stopped", "218fa4b86b3281cd1120502a83dc9d01"),
    ("stopped_cut", "91478d0b026cc9eeaa70568171eb3517"),
    ("stopping", "697bada6b50436e326b71743ba329f86"),
    ("target_answers", "d3cf4094d7961634df2add4fcc653357"),
    ("target_failed", "8c05ff17ce47aafae5eafcaf27d45c4a"),
    ("target_hangs", "9eb5044dea7d820c460ca64e1b220a57"),
    ("target_passed_over", "ac0c9ac28ee63ae16130dd33783caac3"),
    ("target_untrusted", "ff43927c58c2d3730e0813e4fefbbce0"),
    ("watchdog_failed", "9df6d7fdb97ae458357dc78abd18e7f6"),
    ("watchdog_ok", "8c660545d5c12de41e6fbcf5a9bffb32"),
];

/// The message ID of an event; none for what has no name.
pub fn id(name: &str) -> Option<&'static str> {
    let found = EVENTS.binary_search_by_key(&name, |(known, _)| known).ok()?;
    Some(EVENTS[found].1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The source files below a folder.
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                sources(&entry, found);
            } else {
                found.push(std::fs::read_to_string(&entry).unwrap());
            }
        }
    }

    #[test]
    fn names_are_in_order_and_ids_are_each_its_own() {
        assert!(EVENTS.is_sorted_by(|one, other| one.0 < other.0));
        let ids: BTreeSet<_> = EVENTS.iter().map(|(_, id)| id).collect();
        assert_eq!(ids.len(), EVENTS.len());
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
        assert_eq!((id("session_closed").is_some(), id("no such event")), (true, None));
    }

    #[test]
    fn every_line_that_an_admin_sees_has_a_name_and_every_name_a_line() {
        let (mut files, mut named, mut nameless) = (Vec::new(), BTreeSet::new(), Vec::new());
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        for file in files {
            // What tests log is nobody's event.
            let code = file.split("#[cfg(test)]").next().unwrap_or_default();
            for level in ["info", "warn", "error"] {
                for call in code.split(&format!("tracing::{level}!(")).skip(1) {
                    match call.trim_start().strip_prefix("name: \"").and_then(|rest| rest.split('"').next()) {
                        Some(name) => _ = named.insert(name.to_owned()),
                        None => nameless.push(call.lines().take(3).collect::<String>()),
                    }
                }
            }
        }
        assert_eq!(nameless, [""; 0]);
        let known: BTreeSet<_> = EVENTS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(named, known);
    }

    #[test]
    fn every_event_is_explained_in_both_catalogs_and_nothing_else_is() {
        for file in ["ewsbridge.catalog", "ewsbridge.ru.catalog"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/catalog").join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            let explained: BTreeSet<_> =
                text.lines().filter_map(|line| line.strip_prefix("-- ")).map(|line| line.to_owned()).collect();
            let known: BTreeSet<_> = EVENTS.iter().map(|(_, id)| (*id).to_owned()).collect();
            assert_eq!(explained, known, "{file}");
            for entry in text.split("\n-- ").skip(1) {
                let lines: Vec<&str> = entry.lines().collect();
                assert!(lines[1].starts_with("Subject: ") && lines[2] == "Defined-By: ewsbridge", "{file}: {entry}");
                assert!(lines[4..].iter().all(|line| line.chars().count() <= 78), "{file}: a long line in {entry}");
            }
        }
    }
}
