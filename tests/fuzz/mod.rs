//! Everything that reads bytes from outside takes mutated ones, in this process and many a second.
//!
//! `EWSBRIDGE_FUZZ_SECONDS` says how long all of it takes (12), `EWSBRIDGE_FUZZ_SEED` which numbers
//! chance brings (those of 1). An input that breaks something is kept in a file, which the failure names; put into
//! its folder of `tests/fuzz/corpus`, it is tried first in every later run.

// As in the other folders.
#![allow(unreachable_pub)]

mod chance;
mod driver;
mod mutate;
mod target;
mod words;

use std::time::Duration;

use ewsbridge::config::Settings;
use ewsbridge::config::file;
use ewsbridge::config::values::Host;
use ewsbridge::leg::proxy::{self, Header};
use ewsbridge::leg::socket::Socket;
use ewsbridge::tls::certificate::Facts;
use ewsbridge::tls::inbound::Listener;
use ewsbridge::tls::pfx;
use ewsbridge::tls::reference::Http;
use ewsbridge::tls::{explain, faults, identity};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::foe::Script;
use driver::{Campaign, Subject};
use mutate::Shape;

#[test]
fn a_flight_of_any_bytes_from_the_target_is_taken() {
    let campaign = Campaign { name: "flights", corpus: "flights", shape: Shape::Records, share: 24, threads: 2 };
    let fixture = target::Fixture::new();
    campaign.run(|| target::Flights::new(&fixture));
}

#[test]
fn a_flight_of_any_bytes_is_taken_apart_by_probe() {
    let campaign = Campaign { name: "scans", corpus: "flights", shape: Shape::Records, share: 8, threads: 2 };
    let fixture = target::Fixture::new();
    campaign.run(|| target::Scans::new(&fixture));
}

#[test]
fn a_handshake_of_any_messages_under_the_right_keys_is_taken() {
    let campaign = Campaign { name: "scripts", corpus: "scripts", shape: Shape::Script, share: 30, threads: 4 };
    let fixture = target::Fixture::new();
    // With no change they lead to the end: to mutate what fails at once would find nothing.
    for minor in 1..=3 {
        let outcome = target::Scripts::new(&fixture).take(&Script::good(minor).to_bytes());
        assert_eq!(outcome, "connected true false closenotify");
    }
    campaign.run(|| target::Scripts::new(&fixture));
}

#[test]
fn any_certificate_is_read() {
    Campaign { name: "certificates", corpus: "certificates", shape: Shape::Der, share: 8, threads: 1 }
        .run(Certificates::default);
}

#[test]
fn the_head_of_any_answer_is_read() {
    Campaign { name: "heads", corpus: "heads", shape: Shape::Bytes, share: 3, threads: 1 }.run(|| Heads);
}

#[test]
fn any_pfx_file_is_read() {
    Campaign { name: "pfx", corpus: "pfx", shape: Shape::Der, share: 9, threads: 1 }.run(|| PfxFiles);
}

#[test]
fn any_bytes_from_a_client_are_taken() {
    let campaign = Campaign { name: "hellos", corpus: "hellos", shape: Shape::Records, share: 8, threads: 2 };
    campaign.run(Hellos::new);
}

#[test]
fn any_proxy_header_is_read() {
    Campaign { name: "proxy", corpus: "proxy", shape: Shape::Bytes, share: 3, threads: 1 }.run(|| ProxyHeaders);
}

#[test]
fn any_file_of_settings_is_read() {
    // The files that must be taken, and those that must be refused, of tests/config_files.rs.
    for corpus in ["../../config/valid", "../../config/invalid"] {
        Campaign { name: "settings", corpus, shape: Shape::Bytes, share: 2, threads: 1 }.run(|| words::Files);
    }
}

#[test]
fn any_value_is_read() {
    Campaign { name: "values", corpus: "values", shape: Shape::Bytes, share: 2, threads: 1 }.run(|| words::Values);
}

#[test]
fn any_request_to_a_control_socket_is_read() {
    Campaign { name: "requests", corpus: "requests", shape: Shape::Bytes, share: 1, threads: 1 }
        .run(|| words::Requests);
}

/// A thread's own runtime: both ends of a connection are tasks of one thread, which wakes nobody else.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What came of an input: the letters of a text, whose numbers and names would make each one new.
fn outcome(text: &str) -> String {
    text.chars().filter(|letter| letter.is_alphabetic() || *letter == ' ').take(48).collect()
}

/// Nothing that could move a cursor or end a line of the log.
fn is_printable(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// How many could be read.
#[derive(Default)]
struct Certificates(usize);

/// Of so many certificates one is judged too, for which all of the system's authorities are read.
const JUDGED: usize = 100;

impl Subject for Certificates {
    fn take(&mut self, input: &[u8]) -> String {
        match Facts::of_der(input) {
            Ok(facts) => {
                let now = OffsetDateTime::now_utc();
                for text in [&facts.subject, &facts.issuer, &facts.key, &facts.signature, &facts.thumbprint] {
                    is_printable(text);
                }
                is_printable(&(facts.lifetime_text(now) + &facts.names_text()));
                facts
                    .names
                    .iter()
                    .chain(&facts.common_name)
                    .chain(&facts.issuer_common_name)
                    .for_each(|name| is_printable(name));
                facts.days_left(now);
                self.0 += 1;
                if self.0.is_multiple_of(JUDGED) {
                    let chain = [input.to_vec(), input.to_vec()];
                    // A key that OpenSSL can't read is an error.
                    let refusals = faults::all(&chain, &Host::Name("exch1.corp".to_owned())).unwrap_or_default();
                    refusals.iter().for_each(|refusal| is_printable(&refusal.cause));
                }
                let kind = if facts.key.is_ascii() { facts.key.as_str() } else { "" };
                format!("{kind} {} {} {}", facts.signature, facts.self_signed, facts.names.len().min(3))
            }
            Err(error) => outcome(&error.to_string()),
        }
    }
}

struct Heads;

impl Subject for Heads {
    fn take(&mut self, input: &[u8]) -> String {
        let Some(http) = Http::parse(input, Duration::ZERO) else { return "none".to_owned() };
        http.schemes.iter().for_each(|scheme| is_printable(scheme));
        format!("{} {}", http.status / 100, http.schemes.len().min(4))
    }
}

struct ProxyHeaders;

impl Subject for ProxyHeaders {
    fn take(&mut self, input: &[u8]) -> String {
        let whole = proxy::parse(input);
        // What comes later never changes what was said before, and nothing is said too early.
        for cut in 0..input.len() {
            let part = proxy::parse(&input[..cut]);
            let may = match whole {
                Ok(Some(Header { length, .. })) if cut < length => part == Ok(None),
                Ok(_) => part == whole,
                Err(_) => part == Ok(None) || part == whole,
            };
            assert!(may, "{part:?} after {cut} bytes, {whole:?} after all");
        }
        match whole {
            Ok(Some(Header { ends, length })) => {
                assert!(length <= input.len() && length <= proxy::MOST, "{length} of {}", input.len());
                for again in [proxy::text(ends), proxy::binary(ends)] {
                    let header = Header { ends, length: again.len() };
                    assert_eq!(proxy::parse(&again), Ok(Some(header)), "it is passed on as it came");
                }
                let family = ends.map(|ends| (ends.source.is_ipv4(), ends.destination.is_ipv4()));
                format!("{family:?} {} {}", input[0], (length / 8).min(16))
            }
            Ok(None) => format!("more {}", input.len().min(20)),
            Err(malformed) => {
                is_printable(&malformed.to_string());
                outcome(&malformed.to_string())
            }
        }
    }
}

struct PfxFiles;

impl Subject for PfxFiles {
    fn take(&mut self, input: &[u8]) -> String {
        match pfx::read(input, "secret") {
            Ok(contents) => {
                assert!(contents.key_pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{}", contents.key_pem);
                format!("{} certificates", contents.chain_pem.matches("BEGIN CERTIFICATE").count())
            }
            Err(error) => {
                is_printable(&error.to_string());
                outcome(&error.to_string())
            }
        }
    }
}

/// What a client sends to the listener: all of it at once, then the end.
struct Hellos {
    runtime: Runtime,
    listener: Listener,
    port: TcpListener,
    settings: Settings,
}

impl Hellos {
    fn new() -> Self {
        let runtime = runtime();
        let identity = identity::for_this_run(&["localhost".to_owned()], OffsetDateTime::now_utc()).expect("a pair");
        let port = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let settings = file::parse("format = 1\nlisten = 1\ntarget = \"127.0.0.1:1\"\n", None).expect("settings");
        let listener = Listener::new(identity.pair, &settings).expect("a listener");
        Self { runtime, listener, port, settings }
    }
}

impl Subject for Hellos {
    fn take(&mut self, input: &[u8]) -> String {
        let address = self.port.local_addr().expect("bound");
        let client = async {
            let mut tcp = TcpStream::connect(address).await.expect("a connection");
            let _ = tcp.write_all(input.get(1..).unwrap_or_default()).await;
            let _ = tcp.shutdown().await;
            let mut answer = Vec::new();
            let _ = tcp.read_to_end(&mut answer).await;
            answer
        };
        let server = async {
            let (tcp, _) = self.port.accept().await.expect("a connection");
            let socket = Socket::new(tcp, &self.settings.keepalive).expect("a socket");
            let hello = self.listener.hello(socket).await?;
            hello.answer().await?.finish().await.map(|_| ())
        };
        let (answer, led) = self.runtime.block_on(async { tokio::join!(client, server) });
        match led {
            // It would have had to know the keys.
            Ok(()) => panic!("a client that says the same to everybody is connected"),
            Err(error) => {
                let explained = explain::client::explain(&error, &self.settings);
                let cure = explained.cure.map(|cure| cure.text(None)).unwrap_or_default();
                is_printable(&(cure + &explained.cause));
                outcome(&format!("{} {}", answer.len().min(8), explained.cause))
            }
        }
    }
}
