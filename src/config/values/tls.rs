//! What TLS may and may not be towards the peers: versions, names, what is accepted though it is weak.

use std::fmt;
use std::str::FromStr;

use super::{BadValue, Host, bad};

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Version {
    Tls1_0,
    Tls1_1,
    Tls1_2,
    Tls1_3,
}

impl FromStr for Version {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        match text.trim().to_ascii_lowercase().trim_start_matches("tls").trim_start_matches(['v', ' ']) {
            "1.0" | "1" => Ok(Self::Tls1_0),
            "1.1" => Ok(Self::Tls1_1),
            "1.2" => Ok(Self::Tls1_2),
            "1.3" => Ok(Self::Tls1_3),
            _ => bad(format!("'{text}' is not a TLS version: 1.0, 1.1, 1.2 or 1.3")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tls1_0 => "1.0",
            Self::Tls1_1 => "1.1",
            Self::Tls1_2 => "1.2",
            Self::Tls1_3 => "1.3",
        })
    }
}

/// What server name the ClientHello to the target carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sni {
    /// The name that is verified; none for an IP address (RFC 6066 §3).
    Auto,
    /// None.
    Off,
    /// This one.
    Name(String),
}

impl FromStr for Sni {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        // A name is the same in capitals, so the words are.
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            name => match name.parse()? {
                Host::Name(name) => Ok(Self::Name(name)),
                Host::Address(_) => bad("an IP address can't be sent as server name (RFC 6066 §3); use off"),
            },
        }
    }
}

impl fmt::Display for Sni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Name(name) => name,
        })
    }
}

/// A fault of the target's certificate that an admin accepts, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Signed with SHA-1.
    Sha1,
    /// An RSA key of 1024 to 2047 bits.
    Rsa1024,
    /// Past its end, or a certificate of its chain is.
    Expired,
    /// Made out for other names.
    WrongName,
    /// The target's IP address stands only in the common name.
    IpInCn,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sha1, Self::Rsa1024, Self::Expired, Self::WrongName, Self::IpInCn];

    /// The word that accepts it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Rsa1024 => "rsa1024",
            Self::Expired => "expired",
            Self::WrongName => "wrong-name",
            Self::IpInCn => "ip-in-cn",
        }
    }
}

impl FromStr for Fault {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let words = Self::ALL.map(Self::word).join(", ");
        let found = Self::ALL.into_iter().find(|fault| fault.word() == text);
        found.ok_or_else(|| BadValue(format!("'{text}' can't be accepted; what can: {words}")))
    }
}

/// Something weak towards the target that an admin allows, each on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weak {
    /// A server without secure renegotiation (RFC 5746): a man in the middle could put bytes before ours.
    NoRfc5746,
    /// Diffie-Hellman in a group of the server's own, often 1024 bits; Schannel's fails at random (KB4557473).
    Dhe,
    /// Triple DES, whose blocks of 64 bits leak after some GiB (CVE-2016-2183).
    TripleDes,
    /// RC4, whose bias tells the text (RFC 7465).
    Rc4,
}

impl Weak {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::NoRfc5746, Self::Dhe, Self::TripleDes, Self::Rc4];

    /// The word that allows it.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoRfc5746 => "no-rfc5746",
            Self::Dhe => "dhe",
            Self::TripleDes => "3des",
            Self::Rc4 => "rc4",
        }
    }

    /// What is weak about it, for people.
    pub fn about(self) -> &'static str {
        match self {
            Self::NoRfc5746 => "no secure renegotiation (RFC 5746)",
            Self::Dhe => "DHE in the server's own group",
            Self::TripleDes => "3DES",
            Self::Rc4 => "RC4",
        }
    }
}

impl FromStr for Weak {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let text = text.trim().to_ascii_lowercase();
        let words = || Self::ALL.map(Self::word).join(", ");
        let found = Self::ALL.into_iter().find(|weak| weak.word() == text);
        found.ok_or_else(|| BadValue(format!("'{text}' can't be allowed; what can: {}", words())))
    }
}
