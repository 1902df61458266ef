//! The values a setting can hold, each read from text or refused with one sentence.

mod address;
mod tls;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::words;

pub use address::{Host, Listen, Network, Target};
pub use tls::{Fault, Sni, Version, Weak};

/// Why a text is not the value it should be: one sentence, without the key's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", words::printable(.0))]
pub struct BadValue(pub String);

fn bad<T>(text: impl Into<String>) -> Result<T, BadValue> {
    Err(BadValue(text.into()))
}

/// One of a few words, each with its meaning.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$what])* $variant,)+
        }

        impl FromStr for $name {
            type Err = BadValue;

            fn from_str(text: &str) -> Result<Self, BadValue> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => bad(format!("'{}' is none of: {}", text.escape_default(), [$($word),+].join(", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self {
                    $(Self::$variant => $word,)+
                })
            }
        }
    };
}

words! {
    /// What becomes of the target's FIN that no close_notify came before.
    TargetEof {
        /// A FIN without close_notify, as it came: a client can tell that something may be missing.
        Mirror = "mirror",
        /// close_notify and FIN, as other bridges do, for clients that take the plain truth for a fault.
        Clean = "clean",
    }
}

words! {
    /// What becomes of a client's end of its direction.
    HalfClose {
        /// close_notify at once, no FIN before the target has ended.
        Forward = "forward",
        /// Nothing, while the target owes an answer or sends one.
        Hold = "hold",
    }
}

words! {
    /// What a connection to the target begins with.
    SendProxy {
        /// TLS.
        Off = "off",
        /// A PROXY header as text.
        V1 = "v1",
        /// A PROXY header in binary.
        V2 = "v2",
    }
}

/// Reads a duration: a whole number and a unit, `500ms`, `15s`, `10m`, `1h`.
///
/// # Errors
/// [`BadValue`] with an example.
pub fn duration(text: &str) -> Result<Duration, BadValue> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else {
        return bad(format!("'{text}' is not a duration; an example: 15s"));
    };
    let millis = match unit.trim() {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" | "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "" => return bad(format!("'{text}' has no unit; write {text}s, or use ms, m, h")),
        other => return bad(format!("'{other}' is not a unit of time: ms, s, m, h")),
    };
    match millis {
        Some(millis) if millis <= 366 * 24 * 3_600_000 => Ok(Duration::from_millis(millis)),
        _ => bad(format!("'{text}' is more than a year")),
    }
}

/// Writes a duration as [`duration`] reads it, in the largest unit that stays whole.
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if !millis.is_multiple_of(1000) => format!("{millis}ms"),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ => format!("{}s", millis / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_unit_and_reads_back_as_written() {
        for text in ["500ms", "15s", "10m", "1h", "90s", "0s"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
        assert_eq!(duration("15").unwrap_err().to_string(), "'15' has no unit; write 15s, or use ms, m, h");
        for wrong in ["", "s", "1d", "-1s", "99999999999999999999s", "9999999h"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
