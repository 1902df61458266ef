//! A ClientHello written by hand, for questions that no TLS library would ask.
//!
//! Only the first message of a handshake (RFC 5246 §7.4.1.2, RFC 8446 §4.1.2); none of these handshakes
//! is ever finished.

use openssl::error::ErrorStack;

use crate::config::values::Version;

/// What a hello says.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The newest version that it names; `None` is SSL 3.
    pub newest: Option<Version>,
    /// The suites, best first.
    pub suites: Vec<u16>,
    /// The server's name, if there are extensions.
    pub name: Option<String>,
    /// Whether it has extensions at all; TLS 1.3 can't be offered without.
    pub extensions: bool,
    /// Bytes that the message is filled up to. Without it the lengths at which some servers hang are left out.
    pub length: Option<usize>,
}

/// Lengths at which some servers hang (RFC 7685 §1).
const HANGING: std::ops::RangeInclusive<usize> = 256..=511;
/// The suites of TLS 1.3: every server has one of them.
const SUITES_1_3: [u16; 3] = [0x1301, 0x1302, 0x1303];
/// Says that the client knows RFC 5746, where an extension might be too much.
const SCSV: u16 = 0x00ff;

/// Numbers of extensions.
mod extension {
    pub(super) const SERVER_NAME: u16 = 0;
    pub(super) const GROUPS: u16 = 10;
    pub(super) const POINT_FORMATS: u16 = 11;
    pub(super) const SIGNATURES: u16 = 13;
    pub(super) const PADDING: u16 = 21;
    pub(super) const EXTENDED_MASTER_SECRET: u16 = 23;
    pub(super) const SESSION_TICKET: u16 = 35;
    pub(super) const VERSIONS: u16 = 43;
    pub(super) const PSK_MODES: u16 = 45;
    pub(super) const KEY_SHARE: u16 = 51;
}

/// P-256, P-384, P-521, X25519, as forwarders offer them.
const GROUPS: [u16; 4] = [23, 24, 25, X25519];
/// The one group for which a key is sent, since any 32 bytes are one.
const X25519: u16 = 29;
/// RSA and ECDSA with SHA-256, 384, 512, RSA-PSS with the same, SHA-1, and DSA for DHE.
const SIGNATURES: [u16; 13] =
    [0x0401, 0x0403, 0x0501, 0x0503, 0x0601, 0x0603, 0x0804, 0x0805, 0x0806, 0x0201, 0x0203, 0x0402, 0x0202];

impl Hello {
    /// The message in its record.
    ///
    /// # Errors
    /// This machine has no random numbers.
    pub fn bytes(&self) -> Result<Vec<u8>, ErrorStack> {
        let (mut random, mut key) = ([0; 32], [0; 32]);
        openssl::rand::rand_bytes(&mut random)?;
        openssl::rand::rand_bytes(&mut key)?;
        Ok(self.record(&random, &key))
    }

    fn record(&self, random: &[u8; 32], key: &[u8; 32]) -> Vec<u8> {
        let mut body = wire(self.newest.map(|newest| newest.min(Version::Tls1_2))).to_vec();
        body.extend(random);
        body.push(0);
        let first: &[u16] = if self.offers_1_3() { &SUITES_1_3 } else { &[] };
        let suites: Vec<u8> = first.iter().chain(&self.suites).chain(&[SCSV]).flat_map(|s| s.to_be_bytes()).collect();
        body.extend(counted(&suites));
        body.extend([1, 0]);
        if self.extensions {
            let mut extensions = self.extension_bytes(key);
            let length = HEADER + body.len() + 2 + extensions.len();
            let wanted = self.length.or(HANGING.contains(&length).then_some(HANGING.end() + 1));
            if let Some(room) = wanted.and_then(|wanted| wanted.checked_sub(length + 4)) {
                extensions.extend(one(extension::PADDING, &vec![0; room]));
            }
            body.extend(counted(&extensions));
        }
        let mut message = vec![1, 0];
        message.extend(counted(&body));
        let mut record = vec![22];
        record.extend(wire(self.newest.map(|_| Version::Tls1_0)));
        record.extend(counted(&message));
        record
    }

    fn offers_1_3(&self) -> bool {
        self.newest == Some(Version::Tls1_3)
    }

    fn extension_bytes(&self, key: &[u8; 32]) -> Vec<u8> {
        let mut all = Vec::new();
        if let Some(name) = &self.name {
            // A list of one name, of the kind "host name".
            let entry = [&[0][..], &counted(name.as_bytes())].concat();
            all.extend(one(extension::SERVER_NAME, &counted(&entry)));
        }
        all.extend(one(extension::POINT_FORMATS, &[1, 0]));
        all.extend(one(extension::GROUPS, &list(&GROUPS)));
        all.extend(one(extension::SESSION_TICKET, &[]));
        all.extend(one(extension::EXTENDED_MASTER_SECRET, &[]));
        if self.newest >= Some(Version::Tls1_2) {
            all.extend(one(extension::SIGNATURES, &list(&SIGNATURES)));
        }
        if self.offers_1_3() {
            all.extend(one(extension::VERSIONS, &[8, 3, 4, 3, 3, 3, 2, 3, 1]));
            all.extend(one(extension::PSK_MODES, &[1, 1]));
            let share = [&X25519.to_be_bytes()[..], &counted(key)].concat();
            all.extend(one(extension::KEY_SHARE, &counted(&share)));
        }
        all
    }
}

/// The header of a handshake message.
const HEADER: usize = 4;

/// A version as it is sent.
fn wire(version: Option<Version>) -> [u8; 2] {
    match version {
        None => [3, 0],
        Some(Version::Tls1_0) => [3, 1],
        Some(Version::Tls1_1) => [3, 2],
        Some(Version::Tls1_2) => [3, 3],
        Some(Version::Tls1_3) => [3, 4],
    }
}

fn one(number: u16, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes()[..], &counted(content)].concat()
}

fn list(numbers: &[u16]) -> Vec<u8> {
    counted(&numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>())
}

/// The bytes behind their count in two; what is longer than two bytes can count is cut.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let count = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&count.to_be_bytes()[..], &bytes[..usize::from(count)]].concat()
}

#[cfg(test)]
mod tests {
    use super::super::suites;
    use super::*;

    fn hello(newest: Option<Version>) -> Hello {
        let suites = suites::offered(newest.unwrap_or(Version::Tls1_0));
        Hello { newest, suites, name: None, extensions: newest.is_some(), length: None }
    }

    fn record(hello: &Hello) -> Vec<u8> {
        hello.record(&[7; 32], &[9; 32])
    }

    /// The length of the message in the record.
    fn length(hello: &Hello) -> usize {
        let record = record(hello);
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        assert_eq!((record.len(), record[5]), (length + 5, 1));
        assert_eq!(usize::from(u16::from_be_bytes([record[7], record[8]])), length - 4);
        length
    }

    #[test]
    fn an_ordinary_hello_is_shorter_than_what_hangs() {
        for version in [Version::Tls1_0, Version::Tls1_1, Version::Tls1_2] {
            let named = Hello { name: Some("autodiscover.example.corp".to_owned()), ..hello(Some(version)) };
            assert!(length(&named) < 256, "{version}: {}", length(&named));
        }
        let strong: Vec<u16> = suites::SUITES[..suites::STRONG].iter().map(|suite| suite.number).collect();
        let newest = Hello {
            name: Some("autodiscover.example.corp".to_owned()),
            suites: strong,
            ..hello(Some(Version::Tls1_3))
        };
        assert!(length(&newest) < 256, "{}", length(&newest));
    }

    #[test]
    fn a_hello_that_would_hang_some_servers_is_filled_up_beyond() {
        let long = Hello { name: Some("x".repeat(120)), ..hello(Some(Version::Tls1_2)) };
        assert_eq!(length(&long), 512);
    }

    #[test]
    fn a_length_that_is_asked_for_is_met() {
        for wanted in [256, 400, 511, 600, 1500] {
            assert_eq!(length(&Hello { length: Some(wanted), ..hello(Some(Version::Tls1_2)) }), wanted);
        }
    }

    #[test]
    fn versions_stand_where_servers_look_for_them() {
        let bare = Hello { extensions: false, ..hello(Some(Version::Tls1_1)) };
        let record_of = record(&bare);
        assert_eq!((&record_of[1..3], &record_of[9..11]), (&[3, 1][..], &[3, 2][..]));
        assert_eq!(record_of.len(), 5 + 4 + 2 + 32 + 1 + 2 + 2 * bare.suites.len() + 2 + 2);
        let old = record(&hello(None));
        assert_eq!((&old[1..3], &old[9..11]), (&[3, 0][..], &[3, 0][..]));
        let new = record(&hello(Some(Version::Tls1_3)));
        assert_eq!(&new[9..11], &[3, 3], "TLS 1.3 is named in an extension alone");
    }

    #[test]
    fn openssl_understands_every_hello() {
        use openssl::ssl::{Ssl, SslContext, SslMethod};
        use std::io::{Read, Write};
        use std::os::unix::net::UnixStream;
        crate::tls::library::init();
        for (hello, answer) in [
            (hello(Some(Version::Tls1_3)), [3, 4]),
            (hello(Some(Version::Tls1_2)), [3, 3]),
            (Hello { length: Some(600), ..hello(Some(Version::Tls1_2)) }, [3, 3]),
        ] {
            let (mut here, there) = UnixStream::pair().unwrap();
            here.write_all(&record(&hello)).unwrap();
            here.shutdown(std::net::Shutdown::Write).unwrap();
            let context = SslContext::builder(SslMethod::tls_server()).unwrap().build();
            let error = openssl::ssl::SslStream::new(Ssl::new(&context).unwrap(), there).unwrap().accept().unwrap_err();
            // Taken apart without complaint: all that is missing is the server's own certificate.
            assert!(
                error.to_string().contains("no suitable signature") || error.to_string().contains("no shared cipher"),
                "{answer:?}: {error}"
            );
            let mut alert = Vec::new();
            let _ = here.read_to_end(&mut alert);
        }
    }
}
