//! Headers as they are sent.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Ends, SIGNATURE, TEXT_MOST};

/// A header of version 1; without ends, that of a sender who can't tell.
pub fn text(ends: Option<Ends>) -> Vec<u8> {
    let Some(Ends { source, destination }) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let mut line = String::with_capacity(TEXT_MOST);
    // Nothing fails to write into a String.
    let _ = match common_family(source, destination) {
        Pair::V4(from, to) => write!(line, "PROXY TCP4 {from} {to} {} {}\r\n", source.port(), destination.port()),
        Pair::V6(from, to) => write!(line, "PROXY TCP6 {from} {to} {} {}\r\n", source.port(), destination.port()),
    };
    line.into_bytes()
}

/// A header of version 2; without ends, that of a sender who speaks for itself.
pub fn binary(ends: Option<Ends>) -> Vec<u8> {
    let Some(Ends { source, destination }) = ends else { return [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat() };
    let (ports, head) = ([source.port().to_be_bytes(), destination.port().to_be_bytes()].concat(), &SIGNATURE[..]);
    match common_family(source, destination) {
        Pair::V4(from, to) => [head, &[0x21, 0x11, 0, 12], &from.octets(), &to.octets(), &ports].concat(),
        Pair::V6(from, to) => [head, &[0x21, 0x21, 0, 36], &from.octets(), &to.octets(), &ports].concat(),
    }
}

enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

/// A header has one family; of two, IPv6 can hold both.
fn common_family(source: SocketAddr, destination: SocketAddr) -> Pair {
    let wide = |address| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Pair::V4(from, to),
        (from, to) => Pair::V6(wide(from), wide(to)),
    }
}
