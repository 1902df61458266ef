//! The legacy servers of one forwarder, in the order in which they are tried.

use std::fmt;
use std::str::FromStr;

use super::values::{BadValue, Target};

/// One target or several, the preferred first; no two are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    first: Target,
    others: Vec<Target>,
}

/// More than one server room has, and few enough for a client to wait for.
const MOST: usize = 8;

impl Targets {
    /// The preferred one.
    pub fn first(&self) -> &Target {
        &self.first
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// How many there are, at least 1.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }
}

impl From<Target> for Targets {
    fn from(first: Target) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl FromStr for Targets {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        if text.contains(',') && text.split(',').any(|part| part.trim().is_empty()) {
            let text = text.escape_default();
            return Err(BadValue(format!(
                "'{text}' has nothing beside a comma; an example: ews1.corp:443,ews2.corp:443"
            )));
        }
        let mut parts = text.split(',').map(str::parse::<Target>);
        let mut targets = match parts.next() {
            Some(first) => Self::from(first?),
            None => return Err(BadValue("names no target".to_owned())),
        };
        for target in parts {
            let target = target?;
            if targets.iter().any(|known| *known == target) {
                return Err(BadValue(format!("'{target}' stands there twice")));
            }
            targets.others.push(target);
        }
        if targets.count() > MOST {
            return Err(BadValue(format!("{} targets are too many; at most {MOST}", targets.count())));
        }
        Ok(targets)
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.iter().map(Target::to_string).collect();
        f.pad(&all.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        text.parse::<Targets>().map(|targets| targets.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn targets_keep_their_order() {
        assert_eq!(read("B:443, [::1]:8443 ,a:443").unwrap(), "b:443,[::1]:8443,a:443");
        assert_eq!("b:443,a:443".parse::<Targets>().unwrap().first().to_string(), "b:443");
    }

    #[test]
    fn a_gap_a_double_a_bad_part_and_a_crowd_are_refused() {
        for gap in ["a:443,", ",a:443", "a:443,,b:443", ","] {
            assert!(read(gap).unwrap_err().contains("nothing beside a comma"), "{gap}");
        }
        assert_eq!(read("a:443,A.:443").unwrap_err(), "'a:443' stands there twice");
        assert_eq!(read("a:443,b").unwrap_err(), "'b' has no port; an example: b:443");
        let crowd: Vec<String> = (1..=9).map(|port| format!("a:{port}")).collect();
        assert_eq!(read(&crowd.join(",")).unwrap_err(), "9 targets are too many; at most 8");
        assert_eq!(read(&crowd[..8].join(",")).unwrap(), crowd[..8].join(","));
    }
}
