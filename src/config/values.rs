//! The values a setting can hold, each read from text or refused with one sentence.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// Why a text is not the value it should be: one sentence, without the key's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub String);

fn bad<T>(text: impl Into<String>) -> Result<T, BadValue> {
    Err(BadValue(text.into()))
}

/// Where a forwarder listens: a port on every address of the machine, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Every IPv6 and IPv4 address; IPv4 alone where IPv6 is off.
    Everywhere(u16),
    /// This address alone.
    At(SocketAddr),
}

impl Listen {
    /// The port; 0 lets the system choose.
    pub fn port(self) -> u16 {
        match self {
            Self::Everywhere(port) => port,
            Self::At(address) => address.port(),
        }
    }

    /// The addresses to try, best first: the second only where the machine lacks the first's family.
    pub fn candidates(self) -> Vec<SocketAddr> {
        match self {
            Self::Everywhere(port) => {
                vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))]
            }
            Self::At(address) => vec![address],
        }
    }

    /// An address by which this machine itself reaches the listener.
    pub fn from_here(self) -> SocketAddr {
        match self {
            Self::Everywhere(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Self::At(address) if address.ip().is_unspecified() => match address.ip() {
                IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
                IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
            },
            Self::At(address) => address,
        }
    }
}

impl FromStr for Listen {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let text = text.trim();
        let port = text.strip_prefix("*:").unwrap_or(text);
        if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
            return port_number(port).map(Self::Everywhere);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(if address.ip() == Ipv6Addr::UNSPECIFIED {
                Self::Everywhere(address.port())
            } else {
                Self::At(address)
            });
        }
        match text.rsplit_once(':') {
            None => bad(format!("'{text}' is not [ADDRESS:]PORT; an example: 9443, or 10.20.0.7:9443")),
            Some((_, port)) if port_number(port).is_err() => {
                bad(format!("'{text}' has no port; an example: {}:9443", text.trim_end_matches(':')))
            }
            Some(("localhost", port)) => bad(format!("'{text}': write an IP address, 127.0.0.1:{port}")),
            Some((host, _)) => bad(format!("'{host}' is not an IP address of this machine; IPv6 stands in [brackets]")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere(port) => f.pad(&format!("[::]:{port}")),
            Self::At(address) => f.pad(&address.to_string()),
        }
    }
}

fn port_number(text: &str) -> Result<u16, BadValue> {
    text.parse().map_err(|_| BadValue(format!("'{text}' is not a port (1 to 65535)")))
}

/// A host: an address, or a name to be looked up for each connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP address as written.
    Address(IpAddr),
    /// A DNS name in lower case, without a final dot.
    Name(String),
}

impl FromStr for Host {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if !name.is_ascii() {
            return bad(format!("'{text}' has letters outside ASCII; write the name's xn-- form"));
        }
        let label_fits = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let looks_like_address = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if name.len() > 253 || !name.split('.').all(label_fits) || looks_like_address {
            return bad(format!("'{}' is neither a host name nor an IP address", text.escape_default()));
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.pad(name),
        }
    }
}

/// The legacy server: a host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host to connect to.
    pub host: Host,
    /// Its TCP port, never 0.
    pub port: u16,
}

impl FromStr for Target {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let text = text.trim();
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split('/').next().unwrap_or(rest);
            let port = if host.contains(':') { "" } else { ":443" };
            return bad(format!("'{text}' is a URL; give HOST:PORT, here {host}{port}"));
        }
        let colons = text.matches(':').count();
        let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
            return bad(format!("'{text}' has no port; an example: {text}:443"));
        };
        if colons > 1 && !host.starts_with('[') {
            return bad(format!("'{text}': an IPv6 address stands in brackets, [{host}]:{port}"));
        }
        match port_number(port)? {
            0 => bad("port 0 can't be connected to"),
            port => Ok(Self { host: host.parse()?, port }),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.host, self.port))
    }
}

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
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => match text.parse()? {
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

/// A network in CIDR notation, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(ipnet::IpNet);

impl Network {
    /// Whether the address lies within; an IPv4 address in IPv6 clothes is the IPv4 address.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let text = text.trim();
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().into()));
        }
        let Ok(network) = text.parse::<ipnet::IpNet>() else {
            return bad(format!(
                "'{}' is not a network; examples: 10.0.0.0/8, 10.20.0.15, fd00::/8",
                text.escape_default()
            ));
        };
        if network.trunc() != network {
            return bad(format!("'{text}' is an address within a network; the network is {}", network.trunc()));
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
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
    fn a_port_alone_listens_everywhere() {
        assert_eq!("9443".parse(), Ok(Listen::Everywhere(9443)));
        assert_eq!("[::]:9443".parse(), Ok(Listen::Everywhere(9443)));
        assert_eq!("0.0.0.0:9443".parse::<Listen>().unwrap().to_string(), "0.0.0.0:9443");
        for wrong in ["", "70000", "10.0.0.1", "host:9443", "::1:9443x", ":", "10.0.0.1:", "-1"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_target_needs_host_and_port() {
        assert_eq!("EWS.corp.:443".parse::<Target>().unwrap().to_string(), "ews.corp:443");
        assert_eq!("[::1]:443".parse::<Target>().unwrap().to_string(), "[::1]:443");
        let message = |text: &str| text.parse::<Target>().unwrap_err().to_string();
        assert_eq!(message("ews.corp"), "'ews.corp' has no port; an example: ews.corp:443");
        assert_eq!(
            message("https://ews.corp/EWS"),
            "'https://ews.corp/EWS' is a URL; give HOST:PORT, here ews.corp:443"
        );
        assert!(message("fe80::1:443").contains("[fe80::1]:443"));
        for wrong in [":443", "a b:443", "ews..corp:443", "ews.corp:0", "ews.corp:x", "10.0.0.256:443", "почта.рф:443"]
        {
            assert!(wrong.parse::<Target>().is_err(), "{wrong:?}");
        }
    }

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
