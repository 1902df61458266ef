//! Text from outside: files of settings, single values, and what is asked of a control socket.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use ewsbridge::config::values::{Host, Listen, Network, Sni, Target, Version, duration, duration_text};
use ewsbridge::config::{Fingerprint, Name, Targets, file};
use ewsbridge::service::control;

use super::driver::Subject;
use super::{is_printable, outcome};

/// A file of settings, as an editor may leave it.
pub struct Files;

impl Subject for Files {
    fn take(&mut self, input: &[u8]) -> String {
        // Others are refused before they are read as settings.
        let Ok(text) = std::str::from_utf8(input) else { return "no text".to_owned() };
        match file::parse(text, None) {
            Ok(settings) => {
                assert_eq!(settings.target.to_string().parse().as_ref(), Ok(&settings.target));
                settings.warnings().iter().for_each(|warning| is_printable(warning));
                format!("{} {:?} {:?}", settings.target.count(), settings.max_tls, settings.half_close)
            }
            Err(invalid) => {
                let told = invalid.to_string();
                assert!(!told.is_empty(), "no word of what is wrong");
                told.lines().for_each(is_printable);
                outcome(told.lines().next().unwrap_or_default())
            }
        }
    }
}

/// One value; the first byte says of which kind.
pub struct Values;

impl Subject for Values {
    fn take(&mut self, input: &[u8]) -> String {
        let (kind, text) = input.split_first().unwrap_or((&0, &[]));
        let Ok(text) = std::str::from_utf8(text) else { return "no text".to_owned() };
        match kind % 10 {
            0 => again::<Listen>(text),
            1 => again::<Target>(text),
            2 => again::<Targets>(text),
            3 => again::<Host>(text),
            4 => again::<Network>(text),
            5 => again::<Sni>(text),
            6 => again::<Version>(text),
            7 => again::<Fingerprint>(text),
            8 => again::<Name>(text),
            _ => match duration(text) {
                Ok(time) => {
                    assert_eq!(duration(&duration_text(time)).as_ref(), Ok(&time));
                    "a duration".to_owned()
                }
                Err(error) => refused(&error),
            },
        }
    }
}

/// A value that is taken is the same once it was shown and read again.
fn again<Value: FromStr + Display + Debug + PartialEq>(text: &str) -> String
where
    Value::Err: Display + Debug + PartialEq,
{
    match text.parse::<Value>() {
        Ok(value) => {
            let shown = value.to_string();
            is_printable(&shown);
            assert_eq!(shown.parse::<Value>().as_ref(), Ok(&value), "{shown:?}");
            outcome(std::any::type_name::<Value>())
        }
        Err(error) => refused(&error),
    }
}

fn refused(error: &impl Display) -> String {
    let told = error.to_string();
    is_printable(&told);
    // Without the text that it quotes, which is new each time.
    outcome(told.rsplit('\'').next().unwrap_or_default())
}

/// A request to a control socket.
pub struct Requests;

impl Subject for Requests {
    fn take(&mut self, input: &[u8]) -> String {
        match control::parse(input) {
            Ok(order) => format!("{order:?}"),
            Err(why) => refused(&why),
        }
    }
}
