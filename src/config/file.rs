//! A forwarder's file: TOML text into [`Settings`], with file, line and the nearest right key for
//! everything that is wrong, all of it at once.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, Value};

use super::settings::{FORMAT, KEYS, Settings};
use super::values::BadValue;
use crate::words;

/// Something wrong with a forwarder's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line in the file, from 1; `None` where a key is missing.
    pub line: Option<usize>,
    /// The key concerned.
    pub key: Option<String>,
    /// What is wrong, and what is right.
    pub message: String,
}

/// Everything that is wrong with one file.
#[derive(Debug, thiserror::Error)]
pub struct Invalid {
    /// The file, or `None` for settings given as flags.
    pub path: Option<PathBuf>,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match (&self.path, problem.line) {
                (Some(path), Some(line)) => write!(f, "{}:{line}: ", path.display())?,
                (Some(path), None) => write!(f, "{}: ", path.display())?,
                (None, _) => {}
            }
            let key = problem.key.as_deref().map(words::printable);
            match (key, &self.path) {
                (Some(key), Some(_)) => write!(f, "{key}: ")?,
                (Some(key), None) => write!(f, "--{}: ", key.replace('_', "-"))?,
                (None, _) => {}
            }
            f.write_str(&words::printable(&problem.message))?;
        }
        Ok(())
    }
}

/// Reads settings from TOML text; `path` only names it in errors.
///
/// # Errors
/// [`Invalid`] with every problem found. A file of a newer format is refused for that reason alone.
pub fn parse(text: &str, path: Option<&Path>) -> Result<Settings, Invalid> {
    let invalid = |problems| Invalid { path: path.map(Path::to_owned), problems };
    let document = Document::parse(text).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        let message = error.message().trim().replace('\n', ", ");
        invalid(vec![Problem { line, key: None, message: format!("not TOML: {message}") }])
    })?;
    let mut reader = Reader { text, document: &document, seen: HashSet::new(), problems: Vec::new() };
    reader.check_format();
    if reader.problems.is_empty() {
        let settings = Settings::read(&mut reader);
        reader.check_unknown();
        if let (Some(settings), true) = (settings, reader.problems.is_empty()) {
            return Ok(settings);
        }
    }
    let mut problems = reader.problems;
    problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
    Err(invalid(problems))
}

/// Hands out values by key and gathers what is wrong.
pub(super) struct Reader<'a> {
    text: &'a str,
    document: &'a Document<&'a str>,
    seen: HashSet<&'static str>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Whether the key stands in the file.
    pub(super) fn has(&self, key: &str) -> bool {
        self.document.contains_key(key)
    }

    /// A text that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, BadValue>,
    ) -> Option<T> {
        if !self.has(key) {
            let message = "is missing; is the file whole?".to_owned();
            self.problems.push(Problem { line: None, key: Some(key.to_owned()), message });
        }
        self.text(key, parse)
    }

    /// A text, or a whole number where that is what one would write (a port).
    pub(super) fn text<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, BadValue>) -> Option<T> {
        let text = match self.value(key)? {
            Value::String(text) => text.value().clone(),
            Value::Integer(number) => number.value().to_string(),
            Value::Float(number) => number.display_repr().into_owned(),
            other => return self.wrong_type(key, "a text in quotes", &other),
        };
        self.keep(key, parse(&text))
    }

    /// A list of texts; one text alone is a list of one.
    pub(super) fn list<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, BadValue>) -> Vec<T> {
        let texts = match self.value(key) {
            None => return Vec::new(),
            Some(Value::String(text)) => vec![text.value().clone()],
            Some(Value::Array(array)) if array.iter().all(Value::is_str) => {
                array.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(other) => {
                self.wrong_type::<()>(key, "a list of texts in quotes", &other);
                return Vec::new();
            }
        };
        texts.iter().filter_map(|text| self.keep(key, parse(text))).collect()
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.value(key)? {
            Value::Boolean(boolean) => Some(*boolean.value()),
            other => self.wrong_type(key, "true or false", &other),
        }
    }

    /// A whole number within a range.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let given = match self.value(key)? {
            Value::Integer(number) => *number.value(),
            other => return self.wrong_type(key, "a whole number", &other),
        };
        let within = u32::try_from(given).ok().filter(|number| range.contains(number));
        let message = || BadValue(format!("{given} is not within {} to {}", range.start(), range.end()));
        self.keep(key, within.ok_or_else(message))
    }

    /// Notes a problem with a key.
    pub(super) fn problem(&mut self, key: &str, message: String) {
        let span = self.document.get_key_value(key).and_then(|(key, _)| key.span());
        let line = span.map(|span| line_of(self.text, span.start));
        self.problems.push(Problem { line, key: Some(key.to_owned()), message });
    }

    fn value(&mut self, key: &'static str) -> Option<Value> {
        self.seen.insert(key);
        match self.document.get(key)? {
            Item::Value(value) => Some(value.clone()),
            Item::None => None,
            _ => {
                self.problem(key, "is a table; write  key = value".to_owned());
                None
            }
        }
    }

    fn wrong_type<T>(&mut self, key: &str, wanted: &str, got: &Value) -> Option<T> {
        self.problem(key, format!("must be {wanted}, not {}", got.type_name()));
        None
    }

    fn keep<T>(&mut self, key: &str, result: Result<T, BadValue>) -> Option<T> {
        result.map_err(|error| self.problem(key, error.to_string())).ok()
    }

    fn check_format(&mut self) {
        match self.value("format") {
            Some(Value::Integer(number)) if *number.value() == FORMAT => {}
            Some(Value::Integer(number)) if *number.value() > FORMAT => {
                let message = format!("{} was written by a newer ewsbridge; this one reads {FORMAT}", number.value());
                self.problem("format", message);
            }
            Some(_) => self.problem("format", format!("must be {FORMAT}")),
            None => {
                let message = format!("is missing; is the file whole? It begins with  format = {FORMAT}");
                self.problems.push(Problem { line: None, key: Some("format".to_owned()), message });
            }
        }
    }

    fn check_unknown(&mut self) {
        let unknown: Vec<String> = self
            .document
            .iter()
            .map(|(key, _)| key.to_owned())
            .filter(|key| !self.seen.contains(key.as_str()))
            .collect();
        for key in unknown {
            self.problem(&key, unknown_key(&key));
        }
    }
}

/// What to say of a key that does not exist: the nearest one that does.
pub fn unknown_key(key: &str) -> String {
    let distance = |known: &str| strsim::damerau_levenshtein(&key.to_ascii_lowercase().replace('-', "_"), known);
    let nearest = KEYS.iter().map(|known| (distance(known.name), known.name)).min();
    match nearest {
        Some((distance, known)) if distance <= known.len() / 2 => format!("unknown key; did you mean '{known}'?"),
        _ => format!("unknown key; the keys are {}", KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Trust;

    const LEAST: &str = "format = 1\nlisten = 9443\ntarget = 'ews.corp:443'\n";

    fn complaint(more: &str) -> String {
        parse(&format!("{LEAST}{more}"), Some(Path::new("f.toml"))).unwrap_err().to_string()
    }

    #[test]
    fn the_least_file_has_every_default() {
        let settings = parse(LEAST, None).unwrap();
        assert_eq!(settings.trust, Trust::System(vec![]));
        assert_eq!(settings.deadlines.hello.as_secs(), 15);
        assert_eq!(settings.deadlines.idle, None);
        assert_eq!(settings.sni_name(), Some("ews.corp"));
        assert!(settings.warnings().is_empty());
    }

    #[test]
    fn the_table_of_keys_tells_the_true_defaults() {
        let written: String = KEYS
            .iter()
            .filter(|key| !key.default.is_empty())
            .map(|key| format!("{} = {}\n", key.name, key.default))
            .collect();
        assert_eq!(parse(&format!("{LEAST}{written}"), None).unwrap(), parse(LEAST, None).unwrap());
    }

    #[test]
    fn every_key_of_the_table_is_read() {
        for key in KEYS {
            let text = format!("{LEAST}{} = {{}}", key.name);
            let complaint = parse(&text, None).unwrap_err().to_string();
            assert!(!complaint.contains("unknown"), "{}: {complaint}", key.name);
        }
    }

    #[test]
    fn a_mistyped_key_is_named_with_line_and_nearest_key() {
        assert_eq!(
            complaint("handshake_timout = '1s'"),
            "f.toml:4: handshake_timout: unknown key; did you mean 'handshake_timeout'?"
        );
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = complaint("min_tls = '1.3'\nidle_timeout = 5\ncert = '/x'");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("f.toml:5: idle_timeout: '5' has no unit"), "{text}");
        assert!(text.contains("f.toml:6: cert: has no 'key' beside it"), "{text}");
    }

    #[test]
    fn contradictions_are_refused() {
        for (more, expected) in [
            ("ca = '/x'\ninsecure = true", "insecure: contradicts 'ca'"),
            ("pin = []", "pin: names no certificate"),
            ("insecure = true\naccept = ['sha1']", "accept: has no meaning beside 'insecure'"),
            ("min_tls = '1.2'\nmax_tls = '1.1'", "min_tls: 1.2 is above max_tls, 1.1"),
            ("ciphers = 'AES128-SHA:NULL-SHA'", "ciphers: 'NULL-SHA' is never used"),
            ("ciphers = 'ADH-AES128-SHA'", "never used"),
            ("ciphers = 'EXP-RC4-MD5'", "never used"),
            ("ciphers = 'RC4-SHA:@SECLEVEL=2'", "security level"),
        ] {
            let text = complaint(more);
            assert!(text.contains(expected), "{more}: {text}");
        }
    }

    #[test]
    fn a_newer_format_is_the_only_complaint() {
        let text = parse("format = 2\nnovelty = 1\n", None).unwrap_err().to_string();
        assert_eq!(text, "--format: 2 was written by a newer ewsbridge; this one reads 1");
    }

    #[test]
    fn a_file_cut_short_is_refused() {
        let whole = format!("{LEAST}pin = ['sha256:{}']\n", "ab".repeat(32));
        for end in 0..whole.len() - 1 {
            let cut = parse(&whole[..end], None);
            // A cut between two lines leaves TOML; what is missing then must be required or mean stricter trust.
            if let Ok(settings) = cut {
                assert!(matches!(settings.trust, Trust::System(_)), "{:?}", &whole[..end]);
                assert_eq!(settings.target.first().port, 443, "{:?}", &whole[..end]);
            }
        }
    }
}
