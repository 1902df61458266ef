//! Where from and where to: listening addresses, hosts, targets, networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{BadValue, bad};

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
}
