//! What a server answers to a hello, read passively: its first flight is not encrypted before TLS 1.3.
//!
//! Computes nothing and believes nothing. The server may be hostile, so every length is checked, and
//! no more is kept than 64 KiB.
//! Formats: RFC 5246 §7.4, RFC 8422 §5.4, RFC 8446 §4.1.3.

use super::suites::{Agreement, Suite};

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A ServerHello, perhaps with what follows it.
    Flight(Box<Flight>),
    /// A fatal alert with this number.
    Alert(u8),
    /// The end of the connection without a word.
    Closed,
    /// A reset.
    Reset,
    /// Nothing within the time.
    Silent,
    /// Something that is not TLS.
    Foreign,
    /// No TCP connection, for this reason.
    Unreachable(String),
}

/// A server's first flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    /// The version chosen, as on the wire: 0x0300 is SSL 3.
    pub version: u16,
    /// The suite chosen.
    pub suite: u16,
    /// Whether the session has an ID, so that the server may resume it by that.
    pub has_session_id: bool,
    /// The numbers of its extensions.
    pub extensions: Vec<u16>,
    /// The certificates in DER, the server's own first.
    pub chain: Vec<Vec<u8>>,
    /// The server's part in agreeing on keys.
    pub key: Option<Key>,
    /// Whether it asks for a client certificate.
    pub asks: bool,
    /// Whether it came to its end.
    pub is_complete: bool,
}

/// What the server brings to the agreement on keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A group by its number in the list of IANA.
    Curve(u16),
    /// A Diffie-Hellman group of so many bits.
    Dhe(usize),
}

impl Flight {
    /// Whether the server knows RFC 5746.
    pub fn renegotiates_securely(&self) -> bool {
        self.extensions.contains(&0xff01)
    }

    /// Whether the server binds sessions to their handshake (RFC 7627).
    pub fn has_extended_master_secret(&self) -> bool {
        self.extensions.contains(&23)
    }

    /// Whether the server will hand out a ticket (RFC 5077).
    pub fn gives_tickets(&self) -> bool {
        self.extensions.contains(&35)
    }
}

/// The most that is read of one answer; a chain of a dozen certificates fits.
pub(super) const MOST: usize = 64 << 10;
/// TLS 1.3: what follows its hello is encrypted.
const TLS1_3: u16 = 0x0304;

/// Takes an answer apart while it arrives.
#[derive(Default)]
pub(super) struct Reader {
    /// What is not yet a whole record.
    bytes: Vec<u8>,
    /// What is not yet a whole message.
    messages: Vec<u8>,
    flight: Option<Flight>,
    taken: usize,
}

impl Reader {
    /// Takes what came; says what it is once that is known.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Option<Answer> {
        self.taken += bytes.len();
        self.bytes.extend_from_slice(bytes);
        while let Some(&kind) = self.bytes.first() {
            if !(20..=23).contains(&kind) || self.bytes.get(1).is_some_and(|major| *major != 3) {
                return Some(self.so_far(Answer::Foreign));
            }
            let &[_, _, _, high, low, ..] = self.bytes.as_slice() else { break };
            let end = 5 + usize::from(u16::from_be_bytes([high, low]));
            if self.bytes.len() < end {
                break;
            }
            let record: Vec<u8> = self.bytes.drain(..end).skip(5).collect();
            if let Some(answer) = self.record(kind, &record) {
                return Some(answer);
            }
        }
        (self.taken > MOST).then(|| self.so_far(Answer::Foreign))
    }

    /// What has come by now, or else this.
    pub(super) fn so_far(&mut self, otherwise: Answer) -> Answer {
        self.flight.take().map_or(otherwise, |flight| Answer::Flight(Box::new(flight)))
    }

    fn record(&mut self, kind: u8, record: &[u8]) -> Option<Answer> {
        match (kind, record) {
            (22, _) => self.messages.extend_from_slice(record),
            (21, [2, number]) => return Some(self.so_far(Answer::Alert(*number))),
            (21, [_, 0]) => return Some(self.so_far(Answer::Closed)),
            // A warning, such as unrecognized_name: the handshake goes on.
            (21, [1, _]) => {}
            _ => return Some(self.so_far(Answer::Foreign)),
        }
        while let &[kind, a, b, c, ..] = self.messages.as_slice() {
            let end = 4 + u32::from_be_bytes([0, a, b, c]) as usize;
            if self.messages.len() < end {
                break;
            }
            let message: Vec<u8> = self.messages.drain(..end).skip(4).collect();
            match self.message(kind, &message) {
                Some(true) => {}
                // The end of the flight.
                Some(false) => return Some(self.so_far(Answer::Foreign)),
                None => return Some(Answer::Foreign),
            }
        }
        None
    }

    /// Whether more is to come; `None` if the message can't be read.
    fn message(&mut self, kind: u8, message: &[u8]) -> Option<bool> {
        match (kind, &mut self.flight) {
            (2, None) => {
                let flight = server_hello(message)?;
                let goes_on = flight.version < TLS1_3;
                self.flight = Some(Flight { is_complete: !goes_on, ..flight });
                Some(goes_on)
            }
            (11, Some(flight)) => {
                flight.chain = certificates(message)?;
                Some(true)
            }
            (12, Some(flight)) => {
                flight.key = Suite::numbered(flight.suite).and_then(|suite| server_key(suite.agreement(), message));
                Some(true)
            }
            (13, Some(flight)) => {
                flight.asks = true;
                Some(true)
            }
            (14, Some(flight)) => {
                flight.is_complete = true;
                Some(false)
            }
            // HelloRequest, NewSessionTicket, CertificateStatus: nothing to learn.
            (_, Some(_)) | (0, None) => Some(true),
            _ => None,
        }
    }
}

/// Bytes from which fields are taken one after another.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of one to three bytes.
    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// What stands behind its own length.
    fn counted(&mut self, width: usize) -> Option<&'a [u8]> {
        let count = self.number(width)?;
        self.take(count)
    }
}

fn server_hello(message: &[u8]) -> Option<Flight> {
    let mut fields = Fields(message);
    let mut flight = Flight { version: fields.u16()?, ..Flight::default() };
    fields.take(32)?;
    flight.has_session_id = !fields.counted(1)?.is_empty();
    flight.suite = fields.u16()?;
    fields.take(1)?;
    if fields.0.is_empty() {
        return Some(flight);
    }
    let mut extensions = Fields(fields.counted(2)?);
    while !extensions.0.is_empty() {
        let number = extensions.u16()?;
        let content = extensions.counted(2)?;
        match (number, content) {
            // supported_versions: what TLS 1.3 chooses by.
            (43, [high, low]) => flight.version = u16::from_be_bytes([*high, *low]),
            (51, [high, low, ..]) => flight.key = Some(Key::Curve(u16::from_be_bytes([*high, *low]))),
            _ => {}
        }
        flight.extensions.push(number);
    }
    Some(flight)
}

fn certificates(message: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut list = Fields(Fields(message).counted(3)?);
    let mut chain = Vec::new();
    while !list.0.is_empty() {
        chain.push(list.counted(3)?.to_vec());
    }
    Some(chain)
}

fn server_key(agreement: Agreement, message: &[u8]) -> Option<Key> {
    let mut fields = Fields(message);
    match agreement {
        // 3: a curve by its name; others are long forgotten.
        Agreement::Ecdhe => (fields.number(1)? == 3).then_some(()).and_then(|()| fields.u16()).map(Key::Curve),
        Agreement::Dhe => {
            let prime = fields.counted(2)?;
            let first = prime.iter().position(|byte| *byte != 0)?;
            let prime = &prime[first..];
            Some(Key::Dhe(prime.len() * 8 - prime[0].leading_zeros() as usize))
        }
        Agreement::Rsa => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message in a record of its own.
    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap();
        let mut record = vec![22, 3, 1];
        record.extend((length + 4).to_be_bytes());
        record.extend([kind, 0]);
        record.extend(length.to_be_bytes());
        record.extend(body);
        record
    }

    fn hello(version: [u8; 2], suite: u16, extensions: &[u8]) -> Vec<u8> {
        let mut body = version.to_vec();
        body.extend([5; 32]);
        body.extend([2, 1, 1]);
        body.extend(suite.to_be_bytes());
        body.push(0);
        if !extensions.is_empty() {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        message(2, &body)
    }

    /// A flight of TLS 1.0 with DHE and a request for a certificate.
    fn flight() -> Vec<u8> {
        let mut all = hello([3, 1], 0x0039, &[0xff, 1, 0, 1, 0, 0, 35, 0, 0]);
        all.extend(message(11, &[0, 0, 10, 0, 0, 3, b'a', b'b', b'c', 0, 0, 1, b'd']));
        let mut prime = vec![0, 129, 0, 0x80];
        prime.extend([1; 127]);
        all.extend(message(12, &prime));
        all.extend(message(13, &[1, 1, 0, 0]));
        all.extend(message(14, &[]));
        all
    }

    fn read(bytes: &[u8]) -> Option<Answer> {
        Reader::default().take(bytes)
    }

    #[test]
    fn a_first_flight_is_read_to_its_end_however_it_is_cut() {
        let expected = Flight {
            version: 0x0301,
            suite: 0x0039,
            has_session_id: true,
            extensions: vec![0xff01, 35],
            chain: vec![b"abc".to_vec(), b"d".to_vec()],
            key: Some(Key::Dhe(1024)),
            asks: true,
            is_complete: true,
        };
        assert!(expected.renegotiates_securely() && expected.gives_tickets() && !expected.has_extended_master_secret());
        for piece in [1, 7, 10_000] {
            let mut reader = Reader::default();
            let answer = flight().chunks(piece).find_map(|bytes| reader.take(bytes));
            assert_eq!(answer, Some(Answer::Flight(Box::new(expected.clone()))), "in pieces of {piece}");
        }
    }

    #[test]
    fn tls_1_3_is_told_by_its_extension_and_ends_with_the_hello() {
        let bytes = hello([3, 3], 0x1301, &[0, 43, 0, 2, 3, 4, 0, 51, 0, 4, 0, 29, 0, 0]);
        let Some(Answer::Flight(flight)) = read(&bytes) else { panic!("no flight") };
        assert_eq!((flight.version, flight.key, flight.is_complete), (0x0304, Some(Key::Curve(29)), true));
    }

    #[test]
    fn refusals_and_other_protocols_are_told_apart() {
        assert_eq!(read(&[21, 3, 1, 0, 2, 2, 70]), Some(Answer::Alert(70)));
        assert_eq!(read(&[21, 3, 1, 0, 2, 1, 0]), Some(Answer::Closed));
        assert_eq!(read(&[21, 3, 1, 0, 2, 1, 112]), None, "a warning");
        assert_eq!(read(b"HTTP/1.1 400 Bad Request"), Some(Answer::Foreign));
        assert_eq!(read(&[22, 9]), Some(Answer::Foreign));
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn an_alert_in_mid_flight_leaves_what_was_read() {
        let bytes = [hello([3, 1], 0x0035, &[]), vec![21, 3, 1, 0, 2, 2, 80]].concat();
        let Some(Answer::Flight(flight)) = read(&bytes) else { panic!("no flight") };
        assert_eq!((flight.suite, flight.is_complete), (0x0035, false));
    }

    #[test]
    fn no_byte_that_is_wrong_and_no_length_that_lies_causes_a_panic() {
        let good = flight();
        for index in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff, good[index] ^ 1] {
                let mut bad = good.clone();
                bad[index] = value;
                let mut reader = Reader::default();
                let _ = reader.take(&bad);
                let _ = reader.so_far(Answer::Silent);
            }
        }
    }

    #[test]
    fn an_answer_without_end_is_not_kept() {
        let mut reader = Reader::default();
        // A message of 16 MiB, in records of nothing but its beginning.
        let mut record = vec![22, 3, 1, 0x40, 0, 2, 0xff, 0xff, 0xff];
        record.resize(5 + 0x4000, 0);
        let answers: Vec<_> = (0..6).map_while(|_| Some(reader.take(&record))).collect();
        assert!(answers.contains(&Some(Answer::Foreign)), "{answers:?}");
    }
}
