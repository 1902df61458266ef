//! The SHA-256 of a certificate's DER: what a pin is.

use std::fmt;
use std::str::FromStr;

/// SHA-256 over a certificate's DER, as `openssl x509 -fingerprint -sha256` prints it.
///
/// Written as `sha256:` and 64 lower-case hexadecimal digits; read in any case, with or without
/// colons between the bytes and with or without the prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// Why a text is not a fingerprint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 40 digits: Windows' "Thumbprint", too weak to pin.
    #[error("a SHA-1 thumbprint (40 digits) can't be a pin; give the SHA-256 fingerprint, 64 digits")]
    Thumbprint,
    /// Anything else.
    #[error("a fingerprint is sha256: and 64 hexadecimal digits")]
    Malformed,
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let text = match text.split_at_checked(7) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("sha256:") => rest,
            _ => text,
        };
        let digits: Vec<u8> = text
            .bytes()
            .filter(|byte| *byte != b':')
            .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()
            .ok_or(Error::Malformed)?;
        if digits.len() == 40 {
            return Err(Error::Thumbprint);
        }
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit)).collect();
        if digits.len() != 64 {
            return Err(Error::Malformed);
        }
        bytes.try_into().map(Self).map_err(|_| Error::Malformed)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "34a04005bcaf206eec990bd9637d9fdb6725e0a0c0d4aebf003f17f4c956eb5c";

    #[test]
    fn is_read_as_openssl_prints_it_and_as_we_do() {
        let ours: Fingerprint = format!("sha256:{HEX}").parse().unwrap();
        let pairs: Vec<String> = HEX.as_bytes().chunks(2).map(|p| String::from_utf8_lossy(p).to_uppercase()).collect();
        assert_eq!(pairs.join(":").parse(), Ok(ours));
        assert_eq!(ours.to_string(), format!("sha256:{HEX}"));
    }

    #[test]
    fn a_thumbprint_is_refused_by_name() {
        assert_eq!("0E8A3AD980EC179856012B7EECF4327E99CD44CD".parse::<Fingerprint>(), Err(Error::Thumbprint));
        assert_eq!(format!("sha256:{}", &HEX[1..]).parse::<Fingerprint>(), Err(Error::Malformed));
        assert_eq!("sha256:é".parse::<Fingerprint>(), Err(Error::Malformed));
    }
}
