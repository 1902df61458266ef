//! The PROXY protocol, versions 1 and 2: who the client behind a load balancer is.
//!
//! By HAProxy's `proxy-protocol.txt` (2020/03/05); sections below are its own. What is read is judged
//! to the letter: a header that could be taken two ways could name another client than was there.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::socket::Socket;

/// What a header of version 2 begins with (§2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What a header of version 1 begins with (§2.1).
const TEXT: [u8; 6] = *b"PROXY ";

/// The longest header of version 1, its end of line included (§2.1).
const TEXT_MOST: usize = 107;

/// The longest header of version 2 that is taken. Its length could say 65,551, but all that is
/// defined for it, a client certificate's subject included, takes a few hundred.
pub const MOST: usize = 4096;

/// A version 2 header's length without addresses: signature, version, family, length (§2.2).
const HEAD: usize = 16;

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub source: SocketAddr,
    /// The one that it connected to.
    pub destination: SocketAddr,
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `None`: the sender speaks for itself (`LOCAL`), or does not know whom it speaks for (`UNKNOWN`,
    /// or a family that is not TCP's).
    pub ends: Option<Ends>,
    /// Its length in bytes.
    pub length: usize,
}

/// Why bytes are no header, as a part of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They are something else.
    #[error("it is missing")]
    Missing,
    /// Version 1 without an end of line in its time.
    #[error("version 1 does not end within {TEXT_MOST} bytes")]
    Endless,
    /// Version 1, but not as it must be written.
    #[error("version 1 is not 'PROXY TCP4|TCP6|UNKNOWN' with two addresses and two ports")]
    Text,
    /// Another version, command, family or transport than there are.
    #[error("version 2 has an unknown version, command or family, {0:#04x} {1:#04x}")]
    Kind(u8, u8),
    /// More than is taken.
    #[error("version 2 is longer than {MOST} bytes")]
    Long,
    /// The lengths within contradict each other.
    #[error("version 2 is too short for what it holds")]
    Short,
    /// The checksum is another's.
    #[error("version 2 has a wrong CRC32C")]
    Checksum,
}

/// Whether the first bytes of a connection are those of a header, as far as they go.
pub fn begins(first: &[u8]) -> bool {
    let agrees = |wanted: &[u8]| first.iter().zip(wanted).all(|(found, wanted)| found == wanted);
    agrees(&SIGNATURE) || agrees(&TEXT)
}

/// Why no header was received.
#[derive(Debug)]
pub enum Failed {
    /// What came is none.
    Malformed(Malformed),
    /// The peer ended before it was whole.
    Left,
    /// The connection broke.
    Io(io::Error),
}

/// Reads the header that a connection begins with; what came behind it stays to be read.
///
/// # Errors
/// [`Failed`].
///
/// # Cancel safety
/// What was read by then is lost, so that the connection is of no more use.
pub async fn receive(socket: &mut Socket) -> Result<Header, Failed> {
    let mut bytes = Vec::new();
    loop {
        socket.tcp().readable().await.map_err(Failed::Io)?;
        let mut piece = [0; MOST];
        // A header that is not whole is shorter than that.
        match socket.tcp().try_read(&mut piece[..MOST - bytes.len()]) {
            Ok(0) => return Err(Failed::Left),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(Failed::Io(error)),
        }
        if let Some(header) = parse(&bytes).map_err(Failed::Malformed)? {
            socket.unread(bytes.split_off(header.length));
            return Ok(header);
        }
    }
}

/// Reads the header that `bytes` begin with; `None`: so far so good, but more must come.
///
/// # Errors
/// [`Malformed`]: no more bytes would help.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    match bytes {
        _ if !begins(bytes) => Err(Malformed::Missing),
        [b'P', ..] => parse_text(bytes),
        _ => parse_binary(bytes),
    }
}

fn parse_text(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(end) = bytes.iter().take(TEXT_MOST).position(|byte| *byte == b'\n') else {
        return if bytes.len() < TEXT_MOST { Ok(None) } else { Err(Malformed::Endless) };
    };
    let (line, length) = (bytes[..end].strip_suffix(b"\r").ok_or(Malformed::Text)?, end + 1);
    // Whatever else stands there is to be passed over (§2.1).
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Ok(Some(Header { ends: None, length }));
    }
    let words: Vec<&str> = std::str::from_utf8(line).map_err(|_| Malformed::Text)?.split(' ').collect();
    let ends = match words[..] {
        [_, family, source, destination, from, to] => {
            let end = |ip: &str, number: &str| Some(canonical(address(family, ip)?, port(number)?));
            end(source, from).zip(end(destination, to))
        }
        _ => None,
    };
    let (source, destination) = ends.ok_or(Malformed::Text)?;
    Ok(Some(Header { ends: Some(Ends { source, destination }), length }))
}

fn address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => text.parse().ok().map(IpAddr::V4),
        "TCP6" => text.parse().ok().map(IpAddr::V6),
        _ => None,
    }
}

/// A decimal without a sign or a leading zero.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

fn canonical(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

fn parse_binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    // Each as soon as it is there: what can't be one is not waited for.
    let kind = match bytes.get(SIGNATURE.len()..).unwrap_or_default() {
        [version, family, ..] => (*version, *family),
        _ => return Ok(None),
    };
    let unknown = Malformed::Kind(kind.0, kind.1);
    let is_local = match kind.0 {
        0x20 => true,
        0x21 => false,
        _ => return Err(unknown),
    };
    if !is_local && (kind.1 >> 4 > 3 || kind.1 & 0xf > 2) {
        return Err(unknown);
    }
    let Some(length) = bytes.get(HEAD - 2..HEAD) else { return Ok(None) };
    let length = HEAD + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length > MOST {
        return Err(Malformed::Long);
    }
    let Some(whole) = bytes.get(..length) else { return Ok(None) };
    let (ends, addresses) = match kind.1 {
        // What it speaks of itself is to be passed over, whatever it is (§2.2).
        _ if is_local => return Ok(Some(Header { ends: None, length })),
        0x11 => (binary_ends::<4>(&whole[HEAD..]), 12),
        0x21 => (binary_ends::<16>(&whole[HEAD..]), 36),
        // Datagrams, Unix sockets, and what the sender does not know: as if it were local (§2.2).
        _ => return Ok(Some(Header { ends: None, length })),
    };
    let ends = ends.ok_or(Malformed::Short)?;
    check_fields(whole, HEAD + addresses)?;
    Ok(Some(Header { ends: Some(ends), length }))
}

/// Two addresses, then two ports.
fn binary_ends<const N: usize>(block: &[u8]) -> Option<Ends>
where
    IpAddr: From<[u8; N]>,
{
    let address = |at: usize| block.get(at..at + N)?.try_into().ok().map(<IpAddr as From<[u8; N]>>::from);
    let port = |at: usize| block.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes);
    Some(Ends { source: canonical(address(0)?, port(2 * N)?), destination: canonical(address(N)?, port(2 * N + 2)?) })
}

/// The type of the field that holds a checksum (§2.2.3).
const CRC32C: u8 = 3;

/// Walks over the fields behind the addresses, none of which is of use here, but for a checksum.
fn check_fields(header: &[u8], mut at: usize) -> Result<(), Malformed> {
    while at < header.len() {
        let [kind, high, low, ..] = header[at..] else { return Err(Malformed::Short) };
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes([high, low]));
        let Some(found) = header.get(value..end) else { return Err(Malformed::Short) };
        if kind == CRC32C {
            let found: [u8; 4] = found.try_into().map_err(|_| Malformed::Short)?;
            // It was computed with zeros in its own place.
            let parts = [&header[..value], &[0; 4], &header[end..]];
            if crc32c(parts.into_iter().flatten()) != u32::from_be_bytes(found) {
                return Err(Malformed::Checksum);
            }
        }
        at = end;
    }
    Ok(())
}

/// CRC-32C (RFC 9260, appendix A): reflected, polynomial 0x1EDC6F41.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    /// A header of version 2 with this command, family and what follows.
    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, block].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb];

    #[test]
    fn what_is_written_is_read_back_however_it_is_cut() {
        let cases = [ends("192.0.2.1:12345", "198.51.100.2:443"), ends("[2001:db8::1]:1", "[2001:db8::2]:65535"), None];
        for ends in cases {
            for header in [text(ends), binary(ends)] {
                let longer = [&header[..], b"\x16\x03\x01 the ClientHello"].concat();
                assert_eq!(parse(&longer), Ok(Some(Header { ends, length: header.len() })), "{header:?}");
                for cut in 0..header.len() {
                    assert_eq!(parse(&header[..cut]), Ok(None), "{cut} of {header:?}");
                }
            }
        }
        assert_eq!(text(cases[0]), b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n");
        assert_eq!(binary(cases[0]), v2(0x21, 0x11, &V4));
    }

    #[test]
    fn two_families_meet_in_the_wider_one() {
        let mixed = ends("192.0.2.1:1", "[2001:db8::2]:2");
        assert_eq!(text(mixed), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
        for header in [text(mixed), binary(mixed)] {
            assert_eq!(parse(&header).unwrap().unwrap().ends, mixed, "an IPv4 client is one again");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_the_ipv4_address() {
        let header = parse(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6402 12345 443\r\n").unwrap().unwrap();
        assert_eq!(header.ends, ends("192.0.2.1:12345", "198.51.100.2:443"));
        assert_eq!(text(header.ends), b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n");
    }

    #[test]
    fn a_sender_that_names_nobody_is_taken_for_itself() {
        let texts: [&[u8]; 3] =
            [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ff:ff \xff\xfe 1 2\r\n", b"PROXY UNKNOWN TCP4 192.0.2.1\r\n"];
        let unix = [0; 216];
        let binaries = [
            v2(0x20, 0x11, &V4),
            v2(0x20, 0xff, b"junk"),
            v2(0x21, 0, &V4),
            v2(0x21, 0x12, &V4),
            v2(0x21, 0x31, &unix),
        ];
        for header in texts.iter().map(|text| text.to_vec()).chain(binaries) {
            assert_eq!(parse(&header), Ok(Some(Header { ends: None, length: header.len() })), "{header:?}");
        }
    }

    #[test]
    fn hostile_text_is_refused() {
        let texts = [
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 \u{661} 2\r\n",
        ];
        for text in texts {
            assert_eq!(parse(text.as_bytes()), Err(Malformed::Text), "{text:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(TEXT_MOST - 16));
        assert!(parse(long.as_bytes()).is_ok_and(|header| header.is_some()), "{} bytes", long.len());
        assert_eq!(parse(&long.as_bytes()[..106]), Ok(None));
        let longer = format!("PROXY UNKNOWN {}\r\n", "x".repeat(TEXT_MOST - 15));
        assert_eq!(parse(longer.as_bytes()), Err(Malformed::Endless));
    }

    #[test]
    fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
        for other in
            [&b"\x16"[..], b"G", b"PROXY\r", b"PROXY\tTCP4", b"PRI * HTTP/2.0", b"\r\n\r\n\0\r\nQUIT\r", b"\0", b"\n"]
        {
            assert_eq!(parse(other), Err(Malformed::Missing), "{other:?}");
            assert!(!begins(other));
        }
    }

    #[test]
    fn hostile_binary_is_refused() {
        let kinds = [(0x11, 0x11), (0x31, 0x11), (0x22, 0x11), (0x2f, 0x11), (0x21, 0x41), (0x21, 0x13), (0x01, 0)];
        for (command, family) in kinds {
            // Before its length is there.
            let header = v2(command, family, &V4);
            assert_eq!(parse(&header[..14]), Err(Malformed::Kind(command, family)), "{command:x} {family:x}");
        }
        for (family, needs) in [(0x11, 12), (0x21, 36)] {
            for length in 0..needs {
                assert_eq!(parse(&v2(0x21, family, &vec![1; length])), Err(Malformed::Short), "{family:x} {length}");
            }
        }
        let fields: [&[u8]; 5] = [&[4], &[4, 0], &[4, 0, 1], &[4, 0xff, 0xff, 0], &[4, 0, 0, 3, 0, 3, 1, 2, 3]];
        for field in fields {
            assert_eq!(parse(&v2(0x21, 0x11, &[&V4, field].concat())), Err(Malformed::Short), "{field:?}");
        }
        // Its length alone decides, before any of it is kept.
        let most = v2(0x20, 0, &vec![0; MOST - HEAD]);
        assert_eq!(parse(&most), Ok(Some(Header { ends: None, length: MOST })));
        assert_eq!(parse(&v2(0x20, 0, &vec![0; MOST - HEAD + 1])[..HEAD]), Err(Malformed::Long));
        assert_eq!(parse(&v2(0x21, 0x11, &[0xff; 65_535])[..HEAD]), Err(Malformed::Long));
    }

    #[test]
    fn a_checksum_that_is_there_must_be_right() {
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283, "the check value of CRC-32C");
        let around: [&[u8]; 2] = [&[4, 0, 3, 1, 2, 3], &[1, 0, 2, b'h', b'2']];
        let with = |sum: u32| {
            let field = [&[CRC32C, 0, 4][..], &sum.to_be_bytes()].concat();
            v2(0x21, 0x11, &[&V4, around[0], &field, around[1]].concat())
        };
        let right = crc32c(with(0).iter());
        let header = parse(&with(right)).unwrap().unwrap();
        assert_eq!(header.ends, ends("192.0.2.1:12345", "198.51.100.2:443"));
        let mut changed = with(right);
        changed[HEAD] ^= 1;
        assert_eq!((parse(&changed), parse(&with(right ^ 1))), (Err(Malformed::Checksum), Err(Malformed::Checksum)));
    }
}
