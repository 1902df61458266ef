//! The log: one line an event, on stderr, as text for people or as JSON; to the journal with its fields.
//!
//! | form | where | how |
//! |---|---|---|
//! | text | stderr | time, level, message, fields |
//! | JSON | stderr | one object a line, by `--log-format json` |
//! | journal | its own socket, where stderr is the journal's stream | message as the text has it, a field each, true priority |
//!
//! Payload, keys and credentials never come here. No line is lost: what the journal's socket does not
//! take goes to stderr, which systemd reads as well.

pub mod events;
mod journal;
mod json;

use std::fmt;
use std::io::Write;
use std::os::linux::fs::MetadataExt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use super::problems;
use journal::Journal;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// One object a line, also where the journal reads.
    Json,
}

/// Begins to log at `info`, or `debug` if verbose; `EWSBRIDGE_LOG` says otherwise if set.
///
/// A second call changes nothing.
pub fn start(verbose: bool, form: Form) {
    let level = if verbose { "ewsbridge=debug" } else { "ewsbridge=info" };
    let filter = EnvFilter::try_from_env("EWSBRIDGE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let to_journal = stderr_is_journal();
    let log = Log { form, to_journal, journal: (to_journal && form == Form::Text).then(Journal::open).flatten() };
    let _ = Registry::default().with(filter).with(problems::Listening).with(log).try_init();
}

/// Whether stderr is the very stream that systemd opened: the variable alone may be inherited
/// (systemd.exec(5), `$JOURNAL_STREAM`).
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(file) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", file.st_dev(), file.st_ino())
}

/// Writes each event.
struct Log {
    form: Form,
    /// Whether what goes to stderr is read by the journal.
    to_journal: bool,
    journal: Option<Journal>,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let level = *event.metadata().level();
        let name = event.metadata().name();
        if let Some(journal) = &self.journal
            && journal.send(priority(level), name, &said).is_ok()
        {
            return;
        }
        let mut line = String::with_capacity(512);
        if self.to_journal {
            line += &format!("<{}>", priority(level));
        }
        match self.form {
            Form::Json => line += &json::line(OffsetDateTime::now_utc(), level, name, &said),
            Form::Text => {
                if !self.to_journal {
                    line += &stamp(level);
                }
                line += &said.text();
            }
        }
        line.push('\n');
        // Nobody is left to be told.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

/// The journal's priorities (syslog(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// What a line begins with where nobody else has the time.
fn stamp(level: Level) -> String {
    let word = match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN ",
        Level::INFO => "INFO ",
        _ => "DEBUG",
    };
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).ok().and_then(|now| now.format(&Rfc3339).ok());
    format!("{} {word} ", now.unwrap_or_default())
}

/// What an event says: its message, and its fields in their order.
#[derive(Debug, Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// Of a type of its own: an address, a duration, a name.
    Shown(String),
    /// Text, which may hold anything; people see it in quotes.
    Text(String),
    Number(u64),
    Truth(bool),
}

impl Said {
    /// For people: the message, then `key=value`. No value begins another line or moves a cursor.
    fn text(&self) -> String {
        let mut text = tame(&self.message);
        for (key, value) in &self.fields {
            text.push(' ');
            text += key;
            text.push('=');
            match value {
                Value::Shown(shown) => text += &tame(shown),
                Value::Text(any) => text += &format!("{any:?}"),
                Value::Number(number) => text += &number.to_string(),
                Value::Truth(truth) => text += &truth.to_string(),
            }
        }
        text
    }

    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Shown(text) | Value::Text(text)) => self.message = text,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

/// Text without characters that steer a terminal or end a line.
fn tame(text: &str) -> String {
    if text.chars().all(|character| !character.is_control()) {
        return text.to_owned();
    }
    let shown = |character: char| -> String {
        if character.is_control() { character.escape_default().collect() } else { character.to_string() }
    };
    text.chars().map(shown).collect()
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, Value::Shown(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Number(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Truth(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What one event says.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<Said>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut said = Said::default();
            event.record(&mut said);
            self.0.lock().unwrap().push(said);
        }
    }

    fn said(log: impl FnOnce()) -> Said {
        let heard = Heard::default();
        tracing::subscriber::with_default(Registry::default().with(heard.clone()), log);
        heard.0.lock().unwrap().pop().unwrap()
    }

    #[test]
    fn a_line_for_people_has_the_message_and_then_its_fields() {
        let none: Option<&str> = None;
        let said = said(|| {
            tracing::info!(forwarder = %"exch1", via = none, hint = "do that", up = 18_u64, open = 2_usize, resumed = true, "session closed");
        });
        assert_eq!(said.text(), "session closed forwarder=exch1 hint=\"do that\" up=18 open=2 resumed=true");
    }

    #[test]
    fn nothing_that_a_peer_says_begins_another_line() {
        let evil = "CN=x\n<0>root forwarder=other\x1b[2J";
        let said = said(|| tracing::warn!(client_cert = evil, end = %evil, "bad {evil}"));
        let text = said.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        assert!(text.contains("client_cert=\"CN=x\\n<0>root"), "{text}");
    }
}
