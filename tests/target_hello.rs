//! The ClientHello that a legacy server gets to see: short, old, and with the right name.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;

use common::{Bridge, Listening, TIMEOUT, TcpTarget, client_hello};

/// A ClientHello taken apart (RFC 5246 §7.4.1.2).
struct Hello {
    /// Bytes of the record, its header left out.
    length: usize,
    record_version: [u8; 2],
    version: [u8; 2],
    suites: usize,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    fn parse(record: &[u8]) -> Self {
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        assert_eq!((record[0], record[5], record.len()), (22, 1, length + 5), "one whole ClientHello in one record");
        let mut rest = &record[43..];
        let mut take = |width: usize| {
            let count = rest[..width].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            let (taken, left) = rest[width..].split_at(count);
            rest = left;
            taken.to_vec()
        };
        let (_session, suites, _compression, mut all) = (take(1), take(2), take(1), take(2));
        let mut extensions = Vec::new();
        while !all.is_empty() {
            let count = usize::from(u16::from_be_bytes([all[2], all[3]]));
            extensions.push((u16::from_be_bytes([all[0], all[1]]), all[4..4 + count].to_vec()));
            all.drain(..4 + count);
        }
        let version = [record[9], record[10]];
        Self { length, record_version: [record[1], record[2]], version, suites: suites.len() / 2, extensions }
    }

    fn extension(&self, number: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|(found, _)| *found == number).map(|(_, bytes)| bytes.as_slice())
    }

    fn server_name(&self) -> Option<String> {
        self.extension(SERVER_NAME).map(|bytes| String::from_utf8(bytes[5..].to_vec()).unwrap())
    }
}

const SERVER_NAME: u16 = 0;
const PADDING: u16 = 21;
const EXTENDED_MASTER_SECRET: u16 = 23;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

fn read_record(tcp: &mut TcpStream) -> Vec<u8> {
    let mut record = vec![0; 5];
    tcp.read_exact(&mut record).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes([record[3], record[4]]))];
    tcp.read_exact(&mut body).unwrap();
    record.extend(body);
    record
}

/// What the target hears first when a client comes to a bridge with these arguments.
fn heard(host: &str, arguments: &[&str]) -> Hello {
    let (tell, told) = mpsc::channel();
    let target = TcpTarget::serve(move |mut tcp: TcpStream| _ = tell.send(read_record(&mut tcp)));
    let port = target.address().port();
    let bridge = Bridge::to_name(&format!("{host}:{port}")).arg("--insecure").args(arguments).start();
    let mut client = TcpStream::connect(bridge.address()).unwrap();
    client.write_all(&client_hello()).unwrap();
    Hello::parse(&told.recv_timeout(TIMEOUT).unwrap())
}

#[test]
fn hello_is_short_and_never_of_tls_1_3() {
    for host in ["127.0.0.1", "localhost"] {
        let hello = heard(host, &[]);
        assert!(hello.length < 256, "{host}: {} bytes; 256 to 511 make some servers hang", hello.length);
        assert!(hello.suites <= 64, "old servers look at the first 64 suites: {}", hello.suites);
        assert_eq!((hello.record_version, hello.version), ([3, 1], [3, 3]));
        assert!(hello.extension(SUPPORTED_VERSIONS).is_none() && hello.extension(KEY_SHARE).is_none());
        assert!(hello.extension(EXTENDED_MASTER_SECRET).is_some(), "updated Windows resumes only with it");
    }
}

#[test]
fn hello_carries_the_name_but_never_an_address() {
    assert_eq!(heard("localhost", &[]).server_name().as_deref(), Some("localhost"));
    assert_eq!(heard("127.0.0.1", &[]).server_name(), None);
    assert_eq!(heard("127.0.0.1", &["--server-name", "exch1.corp"]).server_name().as_deref(), Some("exch1.corp"));
    assert_eq!(heard("localhost", &["--sni", "off"]).server_name(), None);
    assert_eq!(heard("localhost", &["--sni", "site.corp"]).server_name().as_deref(), Some("site.corp"));
}

#[test]
fn long_name_pads_the_hello_past_the_lengths_that_hang() {
    let name = format!("{}.{}.corp", "a".repeat(63), "b".repeat(63));
    let hello = heard("127.0.0.1", &["--server-name", &name]);
    assert!(hello.length >= 512, "{}", hello.length);
    assert!(hello.extension(PADDING).is_some());
}

#[test]
fn hello_says_the_version_that_is_asked_for() {
    assert_eq!(heard("127.0.0.1", &["--max-tls", "1.1"]).version, [3, 2]);
    assert_eq!(heard("127.0.0.1", &["--max-tls", "1.0"]).version, [3, 1]);
}

#[test]
fn no_answer_makes_the_bridge_ask_again_or_for_less() {
    // Whoever is on the path can say so in the server's name: handshake_failure, protocol_version,
    // internal_error, or an end.
    let answers: [&[u8]; 4] = [&[21, 3, 1, 0, 2, 2, 40], &[21, 3, 1, 0, 2, 2, 70], &[21, 3, 1, 0, 2, 2, 80], &[]];
    for answer in answers {
        let (tell, told) = mpsc::channel();
        let target = TcpTarget::serve(move |mut tcp: TcpStream| {
            tell.send(read_record(&mut tcp)).unwrap();
            tcp.write_all(answer).unwrap();
        });
        let pki = common::Pki::new();
        let bridge = Bridge::to(&target).pin(&pki.server()).start();
        let mut first = None;
        for nth in 1..=4 {
            let mut client = TcpStream::connect(bridge.address()).unwrap();
            client.write_all(&client_hello()).unwrap();
            let mut said = Vec::new();
            client.read_to_end(&mut said).unwrap();
            assert_eq!((said[0], target.accepted()), (21, nth), "{answer:?}: {said:?}");
            let mut hello = told.recv_timeout(TIMEOUT).unwrap();
            // Its random number.
            hello.drain(11..43);
            assert_eq!(first.get_or_insert_with(|| hello.clone()), &hello, "{answer:?}");
        }
    }
}
