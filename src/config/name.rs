//! A forwarder's name: also a file name and a systemd instance name.

use std::fmt;
use std::str::FromStr;

/// The name of a forwarder: 1 to 64 of `a-z A-Z 0-9 . _ -`, beginning with a letter or digit.
///
/// Nothing that systemd would escape in `ewsbridge@NAME.service`, nothing that leaves its folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Why a text can't name a forwarder.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' can't be a forwarder's name: use 1 to 64 of a-z A-Z 0-9 . _ -, the first a letter or digit")]
pub struct BadName(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let fits = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if starts_well && fits { Ok(Self(text.to_owned())) } else { Err(BadName(text.escape_default().to_string())) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_systemd_takes_unescaped_are_names() {
        for good in ["exch1", "a", "EXCH-2.corp_x", "1", &"x".repeat(64)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "-x", "_x", "a/b", "../x", "a b", "a@b", "é", "a\n", "a%i", "a\\x2d", &"x".repeat(65)]
        {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
