//! Settings in the making: what flags say, as the file that would say the same.
//!
//! Flags and files go through one parser, so that both mean the same and are refused alike.

use std::fmt::Write;
use std::path::Path;

use toml_edit::{DocumentMut, Item, Value};

use super::file::{self, Invalid};
use super::settings::{FORMAT, KEYS};
use super::{Name, Settings};

/// Keys and values that were chosen, in any order.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    chosen: Vec<(&'static str, Value)>,
}

/// The value with its reason behind it, as a comment.
#[must_use]
pub fn because(value: impl Into<Value>, reason: &str) -> Value {
    let mut value = value.into();
    value.decor_mut().set_suffix(format!(" # {reason}"));
    value
}

fn has_reason(value: &Value) -> bool {
    value.decor().suffix().and_then(|suffix| suffix.as_str()).is_some_and(|suffix| suffix.contains('#'))
}

impl Draft {
    /// Chooses a value; an earlier one for the same key is replaced.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.forget(key);
        self.chosen.push((key, value.into()));
    }

    /// Takes a choice back.
    pub fn forget(&mut self, key: &str) {
        self.chosen.retain(|(chosen, _)| *chosen != key);
    }

    /// Chooses a value if there is one.
    pub fn set_some(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// Chooses a list unless it is empty.
    pub fn set_list(&mut self, key: &'static str, values: &[String]) {
        if !values.is_empty() {
            self.set(key, values.iter().map(String::as_str).collect::<Value>());
        }
    }

    /// Whether a value was chosen for the key.
    pub fn has(&self, key: &str) -> bool {
        self.chosen.iter().any(|(chosen, _)| *chosen == key)
    }

    /// The settings that a file would have with what was chosen put over it.
    ///
    /// # Errors
    /// [`Invalid`] with every problem of the outcome.
    pub fn over(&self, text: &str, path: &Path) -> Result<Settings, Invalid> {
        file::parse(
            &edited(text, path, self.chosen.iter().map(|(key, value)| (*key, Some(value.clone()))))?,
            Some(path),
        )
    }

    /// The settings that the draft means.
    ///
    /// # Errors
    /// [`Invalid`] as for a file, with flags in place of lines.
    pub fn settings(&self) -> Result<Settings, Invalid> {
        let mut text = format!("format = {FORMAT}\n");
        for (key, value) in &self.chosen {
            let _ = writeln!(text, "{key} = {value}");
        }
        file::parse(&text, None)
    }

    /// The file of a new forwarder: chosen values live, the rest as commented defaults.
    pub fn render(&self, name: &Name, path: &Path, date: &str) -> String {
        let mut text = format!(
            "# {}, written by \"ewsbridge add\" on {date}. Change with: ewsbridge set {name} KEY=VALUE\n\
             # or edit {} and run: systemctl reload ewsbridge@{name}\n",
            name,
            path.display()
        );
        for key in KEYS {
            let chosen = self.chosen.iter().find(|(chosen, _)| *chosen == key.name);
            let line = match chosen {
                _ if key.name == "format" => format!("format = {FORMAT}"),
                Some((_, value)) if has_reason(value) => {
                    let _ = writeln!(text, "{} = {}", key.name, value.to_string().trim());
                    continue;
                }
                Some((_, value)) => format!("{} = {}", key.name, value.to_string().trim()),
                None if key.default.is_empty() => format!("#{} = {}", key.name, example(key.name)),
                None => format!("#{} = {}", key.name, key.default),
            };
            let _ = writeln!(text, "{line:<35} # {}", key.about);
        }
        text
    }
}

/// A file's text with some keys set or, by `None`, taken out; comments and layout stay.
///
/// # Errors
/// [`Invalid`] if the text is not TOML. The outcome is not checked.
pub fn edited<'a>(
    text: &str,
    path: &Path,
    changes: impl IntoIterator<Item = (&'a str, Option<Value>)>,
) -> Result<String, Invalid> {
    let mut document: DocumentMut = match text.parse() {
        Ok(document) => document,
        // The parser's own complaint names the line.
        Err(_) => return file::parse(text, Some(path)).map(|_| text.to_owned()),
    };
    for (key, value) in changes {
        match (document.get_mut(key), value) {
            (_, None) => _ = document.remove(key),
            (Some(Item::Value(old)), Some(mut new)) => {
                if !has_reason(&new) {
                    *new.decor_mut() = old.decor().clone();
                }
                *old = new;
            }
            (_, Some(new)) => document[key] = Item::Value(new),
        }
    }
    Ok(document.to_string())
}

/// What the comment of a key without a default shows.
fn example(key: &str) -> &'static str {
    match key {
        "server_name" => "\"EXCH1.corp.local\"",
        "ciphers" => "\"DES-CBC3-SHA\"",
        "ca" => "\"/etc/ewsbridge/corp-ca.pem\"",
        "pin" => "[\"sha256:...\"]",
        "cert" => "\"/etc/ssl/exchange.pem\"",
        "key" => "\"/etc/ssl/exchange.key\"",
        "auth_cert" => "\"/etc/ssl/bridge.pem\"",
        "auth_key" => "\"/etc/ssl/bridge.key\"",
        "metrics" => "9101",
        _ => "\"\"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendered_draft_reads_back_as_the_same_settings() {
        let mut draft = Draft::default();
        draft.set("listen", "9443");
        draft.set("target", "ews.corp:443");
        draft.set_list("accept", &["sha1".to_owned(), "expired".to_owned()]);
        draft.set_some("min_tls", Some("1.1"));
        let path = Path::new("/etc/ewsbridge/forwarders/exch1.toml");
        let text = draft.render(&"exch1".parse().unwrap(), path, "2026-11-23");
        assert_eq!(file::parse(&text, Some(path)).unwrap(), draft.settings().unwrap(), "{text}");
    }

    #[test]
    fn every_commented_line_is_a_valid_setting_once_uncommented() {
        let mut draft = Draft::default();
        draft.set("listen", "9443");
        draft.set("target", "ews.corp:443");
        let text = draft.render(&"x".parse().unwrap(), Path::new("/x"), "2026-11-23");
        for line in text.lines().filter(|line| line.starts_with('#') && !line.starts_with("# ")) {
            let key = line[1..].split(' ').next().unwrap();
            assert!(KEYS.iter().any(|known| known.name == key), "{line}");
        }
    }
}
