//! A line of the log as one JSON object, with numbers as numbers.

use std::fmt::Write;

use serde_json::{Number, Value as Json};
use time::OffsetDateTime;
use time::macros::format_description;
use tracing::Level;

use super::events;
use super::{Said, Value};

/// The object, on one line: `time`, `level`, `event`, `message`, then the fields in their order.
pub(super) fn line(now: OffsetDateTime, level: Level, name: &str, said: &Said) -> String {
    let milliseconds = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let time = now.format(milliseconds).ok();
    let event = events::id(name).map(|_| name);
    let head = [("time", time.as_deref()), ("level", Some(word(level))), ("event", event)];
    let message = ("message", Json::String(said.message.clone()));
    let head = head.map(|(key, value)| (key, value.map_or(Json::Null, |value| Json::String(value.to_owned()))));
    let fields = said.fields.iter().map(|(key, value)| (with_unit(key), of(key, value)));
    let mut line = String::with_capacity(512);
    for (key, value) in head.into_iter().chain([message]).chain(fields) {
        let _ = write!(line, "{}\"{key}\":{value}", if line.is_empty() { '{' } else { ',' });
    }
    line + "}"
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// A field's name with its unit, as JSON and the journal call it.
pub(super) fn with_unit(key: &str) -> &str {
    match key {
        "up" => "up_bytes",
        "down" => "down_bytes",
        other => other,
    }
}

fn of(key: &str, value: &Value) -> Json {
    match value {
        Value::Number(number) => (*number).into(),
        Value::Truth(truth) => (*truth).into(),
        Value::Text(text) => Json::String(text.clone()),
        // A number of a fixed form, for people.
        Value::Shown(text) if key == "seconds" => {
            text.parse().ok().and_then(Number::from_f64).map_or(Json::Null, Json::Number)
        }
        Value::Shown(text) => Json::String(plain(text).to_owned()),
    }
}

/// A sentence without the quotes that set it off in a line for people.
pub(super) fn plain(text: &str) -> &str {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.filter(|inner| !inner.contains('"')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers_and_a_line_is_a_line() {
        let said = Said {
            message: "session closed".to_owned(),
            fields: vec![
                ("forwarder", Value::Shown("exch1".to_owned())),
                ("up", Value::Number(18)),
                ("resumed", Value::Truth(true)),
                ("seconds", Value::Shown("2.134".to_owned())),
                ("end", Value::Shown("\"silent for 10s\"".to_owned())),
                ("client_cert", Value::Text("CN=\"x\"\ny".to_owned())),
            ],
        };
        let now = time::macros::datetime!(2026-11-23 09:12:06.482_9 UTC);
        let line = line(now, Level::INFO, "session_closed", &said);
        assert_eq!(line.lines().count(), 1);
        let json: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(json["time"], "2026-11-23T09:12:06.482Z");
        assert_eq!((&json["level"], &json["event"]), (&"info".into(), &"session_closed".into()));
        assert_eq!((&json["up_bytes"], &json["resumed"], &json["seconds"]), (&18.into(), &true.into(), &2.134.into()));
        assert_eq!((&json["end"], &json["client_cert"]), (&"silent for 10s".into(), &"CN=\"x\"\ny".into()));
    }

    #[test]
    fn only_the_quotes_around_one_sentence_are_taken_off() {
        assert_eq!(plain("\"silent for 10s\""), "silent for 10s");
        assert_eq!(plain("\"a\" and \"b\""), "\"a\" and \"b\"");
        assert_eq!(plain("close_notify"), "close_notify");
    }

    #[test]
    fn a_line_for_debugging_has_no_event() {
        let line = line(OffsetDateTime::UNIX_EPOCH, Level::DEBUG, "event src/x.rs:1", &Said::default());
        assert_eq!(serde_json::from_str::<Json>(&line).unwrap()["event"], Json::Null);
    }
}
