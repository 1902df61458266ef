//! The PROXY protocol, versions 1 and 2: who the client behind a load balancer is.
//!
//! By HAProxy's `proxy-protocol.txt` (2020/03/05); sections below are its own. What is read is judged
//! to the letter: a header that could be taken two ways could name another client than was there.

mod write;

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::socket::Socket;

pub use write::{binary, text};

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
            socket.unread(&bytes[header.length..]);
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

#[cfg(test)]
mod tests;
