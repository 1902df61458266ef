//! `auto` as commands use it: search, ask about what is weak, write what was found and why.

use super::failed::{Failed, code};
use super::talk::{self, Word, step};
use crate::bridge::auto::{self, Found, Switches};
use crate::bridge::failure::Failure;
use crate::bridge::forwarder;
use crate::bridge::resolver::Resolver;
use crate::config::draft::because;
use crate::config::values::{Version, Weak};
use crate::config::{Draft, Settings};
use toml_edit::Value;

/// The keys that `auto` decides; one of them given by hand means that nothing is searched.
pub(super) const KEYS: [&str; 6] = ["min_tls", "max_tls", "ciphers", "security_level", "extensions", "empty_fragments"];

/// Whether the admin has said by hand how to speak to the target.
pub(super) fn is_decided(draft: &Draft) -> bool {
    KEYS.iter().any(|key| draft.has(key))
}

/// The refusal of flags of which each would decide alone.
pub(super) fn decided_twice(draft: &Draft) -> Failed {
    let given = KEYS.iter().find(|key| draft.has(key)).copied().unwrap_or_default();
    let text = format!("--outbound: auto decides --{} by itself; give one of the two", given.replace('_', "-"));
    Failed::with(code::USAGE, text)
}

/// What may be used without being asked about.
pub(super) struct Permission<'a> {
    /// The weak things that `--allow-weak` names.
    pub allowed: &'a [Weak],
    /// Whether a person is there.
    pub can_ask: bool,
    /// Names the forwarder in messages.
    pub name: &'a str,
    /// Whether it has a file, so that hints can name commands.
    pub has_file: bool,
    /// The command that allows what is named.
    pub command: &'a dyn Fn(&str) -> String,
}

/// Finds what the targets need, together. One that fails is passed over if another answers; it is told
/// of by `missed`.
///
/// # Errors
/// No target can be reached or spoken to; something weak is needed that nobody has allowed.
pub(super) async fn find(
    settings: &Settings,
    permission: Permission<'_>,
    missed: impl Fn(&Failure),
) -> Result<Found, Failed> {
    let (mut found, mut failures): (Option<Found>, _) = (None, Vec::new());
    for target in settings.target.iter() {
        match auto::search(&settings.to(target), &Resolver::default()).await {
            Ok(new) => {
                found = Some(match found {
                    None => new,
                    Some(found) => Found {
                        switches: found.switches.and(&new.switches),
                        connections: found.connections + new.connections,
                        is_least: found.is_least && new.is_least,
                        ..found
                    },
                });
            }
            Err(auto::Error::Settings(error)) => return Err(Failed::from(forwarder::Error::from(error)).typed()),
            Err(auto::Error::Target(failure)) => failures.push(*failure),
        }
    }
    if found.is_some() {
        failures.iter().for_each(missed);
    }
    let found = found.ok_or_else(|| match Failure::all(failures) {
        Some(mut failure) => {
            failure.forwarder = permission.has_file.then(|| permission.name.to_owned());
            let hint = failure.hint_after_search();
            Failed::new(format!("{}: {failure}", permission.name)).maybe_hint(hint)
        }
        None => Failed::new(format!("{}: no target was asked", permission.name)),
    })?;
    let missing: Vec<Weak> =
        found.switches.allow_weak.iter().copied().filter(|weak| !permission.allowed.contains(weak)).collect();
    if missing.is_empty() {
        return Ok(found);
    }
    let about = missing.iter().map(|weak| weak.about()).collect::<Vec<_>>().join(", ");
    let (version, suite) = (found.reached.version, found.reached.suite);
    let cause = format!(
        "{}: target {}: the server can't do without what is weak: {about} (TLS {version} {suite})",
        permission.name, settings.target
    );
    if permission.can_ask {
        step(Word::Warn, &cause);
        let question = format!("Allow it for {}? [yes/no]", permission.name);
        let answer = tokio::task::spawn_blocking(move || talk::ask(&question)).await;
        let answer = answer.map_err(|error| Failed::new(format!("question: {error}")))?.unwrap_or_default();
        return match answer.as_str() {
            "yes" => Ok(found),
            _ => Err(Failed::new("not allowed").hint("nothing was changed")),
        };
    }
    let words = found.switches.allow_weak.iter().map(|weak| weak.word()).collect::<Vec<_>>().join(",");
    let hint = format!("better on the server; if it can't be changed: {}", (permission.command)(&words));
    Err(Failed::with(code::UNDECIDED, cause).hint(hint))
}

/// What was found, as keys and values with their reasons; `None` takes a key out.
pub(super) fn entries(found: &Found) -> Vec<(&'static str, Option<Value>)> {
    let Switches { max_tls, security_level, extensions, allow_weak, empty_fragments } = &found.switches;
    let (version, suite) = (found.reached.version, found.reached.suite);
    let cap = (*max_tls < Version::Tls1_2 && *extensions || *max_tls < Version::Tls1_1)
        .then(|| because(max_tls.to_string(), "auto: a ClientHello that names a newer version is refused"));
    let reason = match security_level {
        2 => format!("auto: modern enough, TLS {version} {suite}"),
        _ => format!("auto: the most that works, TLS {version} {suite}"),
    };
    let weak = (!allow_weak.is_empty()).then(|| {
        let words = allow_weak.iter().map(|weak| weak.word()).collect::<Value>();
        because(words, "auto: refused without; weak, and allowed by the admin")
    });
    vec![
        ("min_tls", None),
        ("max_tls", cap),
        ("ciphers", None),
        ("security_level", Some(because(i64::from(*security_level), &reason))),
        ("extensions", (!extensions).then(|| because(false, "auto: a ClientHello with extensions is refused"))),
        (
            "empty_fragments",
            (!empty_fragments).then(|| because(false, "auto: requests behind an empty record get no answer")),
        ),
        ("allow_weak", weak),
    ]
}

/// Writes what was found into a draft.
pub(super) fn write(found: &Found, draft: &mut Draft) {
    for (key, value) in entries(found) {
        match value {
            Some(value) => draft.set(key, value),
            None => draft.forget(key),
        }
    }
}

/// One line about what was found.
pub(super) fn summary(found: &Found) -> String {
    let (version, suite) = (found.reached.version, found.reached.suite);
    let mut needs = Vec::new();
    for (key, value) in entries(found) {
        let Some(mut value) = value else { continue };
        value.decor_mut().clear();
        needs.push(format!("{key} = {value}"));
    }
    let plural = if found.connections == 1 { "" } else { "s" };
    format!("auto: TLS {version} {suite} with {}; {} connection{plural}", needs.join(", "), found.connections)
}
