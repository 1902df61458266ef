//! Every way in which either side can end, in every pair of TLS versions: all bytes come first, then
//! what the other side sees, and what the log says.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Certificate, Client, Connection, Pki, Stream, TIMEOUT, TlsTarget, connect_by};
use openssl::ssl::SslVersion;
use rustls::SupportedProtocolVersion;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};

const BYTES: usize = 300_000;

/// The target's versions.
const OUT: [(SslVersion, &str); 2] = [(SslVersion::TLS1, "1.0"), (SslVersion::TLS1_2, "1.2")];

/// The client's versions.
static IN: [(&SupportedProtocolVersion, &str); 2] =
    [(&rustls::version::TLS12, "1.2"), (&rustls::version::TLS13, "1.3")];

/// A way to end, what the other side may see of it, and the log's word.
struct Row {
    letter: u8,
    seen: &'static [&'static str],
    logged: &'static str,
}

const fn row(letter: u8, seen: &'static [&'static str], logged: &'static str) -> Row {
    Row { letter, seen, logged }
}

/// A reset leaves as one only where nothing is queued any more, else as a FIN.
const LOST: &[&str] = &["reset", "fin"];

const CLOSE_NOTIFY: u8 = b'c';
const FIN: u8 = b'f';
const RESET: u8 = b'r';
const TRUNCATED: u8 = b't';
const TRUNCATED_HEADER: u8 = b'h';
const BROKEN: u8 = b'b';
/// The target is to wait for the client's end.
const LISTEN: u8 = b'l';

/// What clients see of a target.
const OF_THE_TARGET: &[Row] = &[
    row(CLOSE_NOTIFY, &["close_notify"], "close_notify"),
    row(FIN, &["fin"], "fin"),
    row(RESET, LOST, "reset"),
    row(TRUNCATED, &["fin"], "truncated"),
    row(TRUNCATED_HEADER, &["fin"], "truncated"),
    row(BROKEN, LOST, "decrypt"),
];

/// What targets see of a client.
const OF_THE_CLIENT: &[Row] = &[
    row(CLOSE_NOTIFY, &["close_notify"], "close_notify"),
    row(FIN, &["fin"], "fin"),
    row(RESET, LOST, "reset"),
    // rustls does not tell one from the other.
    row(TRUNCATED, &["fin"], "fin"),
    row(BROKEN, LOST, "decrypt"),
];

/// A record that nobody has encrypted.
fn forged(version: SslVersion) -> Vec<u8> {
    let minor = if version == SslVersion::TLS1 { 1 } else { 3 };
    [&[23, 3, minor, 0, 64][..], &[7; 64]].concat()
}

type Heard = (Vec<u8>, &'static str);

/// A target that does as the first byte says.
fn target(version: SslVersion, certificate: &Certificate) -> (TlsTarget, Receiver<Heard>) {
    let (tell, told) = channel();
    let target = TlsTarget::serve_version(version, certificate, move |mut connection: Connection| {
        let mut letter = [0];
        connection.read_exact(&mut letter).unwrap();
        if letter != [LISTEN] {
            connection.write_all(&Stream::bytes("down", BYTES)).unwrap();
        }
        match letter[0] {
            LISTEN => tell.send(connection.receive_all()).unwrap(),
            CLOSE_NOTIFY => connection.close_notify(),
            FIN => connection.fin(),
            RESET => {
                connection.delivered();
                connection.reset();
            }
            TRUNCATED => connection.write_raw(&forged(version)[..8]),
            TRUNCATED_HEADER => connection.write_raw(&forged(version)[..3]),
            _ => {
                connection.write_raw(&forged(version));
                // Until the bridge has ended: an alert that lies unread would make this a reset.
                connection.skip_raw();
            }
        }
    });
    (target, told)
}

fn bridge(target: &TlsTarget, certificate: &Certificate, target_eof: &str) -> Bridge {
    Bridge::to(target).pin(certificate).arg("--set").arg(format!("target_eof={target_eof}")).start()
}

async fn client(bridge: &Bridge, version: &'static SupportedProtocolVersion) -> Client {
    connect_by(bridge.address(), &bridge.ca(), "localhost", version).await.unwrap()
}

#[tokio::test]
async fn every_end_of_the_target_reaches_the_client_as_it_came_after_all_bytes() {
    let certificate = Pki::new().server();
    for (out, out_name) in OUT {
        let (target, _) = target(out, &certificate);
        for target_eof in ["mirror", "clean"] {
            let bridge = bridge(&target, &certificate, target_eof);
            let mut sessions = 0;
            for (version, in_name) in IN {
                for row in OF_THE_TARGET {
                    let what = format!("{} from TLS {out_name} to {in_name}, {target_eof}", row.logged);
                    let mut client = client(&bridge, version).await;
                    client.send(&[row.letter]).await;
                    let (bytes, end) = client.receive_all().await;
                    assert!(bytes == Stream::bytes("down", BYTES), "{what}: {} bytes", bytes.len());
                    // Only a FIN, and only between records, is made clean.
                    let seen = if target_eof == "clean" && row.letter == FIN { &["close_notify"] } else { row.seen };
                    assert!(seen.contains(&end), "{what}: {end}");
                    drop(client);
                    let session = bridge.nth_session(sessions);
                    sessions += 1;
                    assert!(session["end"].contains(row.logged), "{what}: {}", session.line);
                    assert_eq!(&session["ended_by"], "target", "{what}: {}", session.line);
                    assert_eq!((&session["tls_out"], &session["tls_in"]), (out_name, in_name));
                    assert_eq!((session.number("up"), session.number("down")), (1, BYTES as u64), "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn every_end_of_the_client_reaches_the_target_as_it_came_after_all_bytes() {
    let certificate = Pki::new().server();
    for (out, out_name) in OUT {
        let (target, told) = target(out, &certificate);
        // A client's FIN is never made clean.
        let bridge = bridge(&target, &certificate, "clean");
        let mut sessions = 0;
        for (version, in_name) in IN {
            for row in OF_THE_CLIENT {
                let what = format!("{} from TLS {in_name} to {out_name}", row.logged);
                let mut client = client(&bridge, version).await;
                client.send(&[LISTEN]).await;
                client.send(&Stream::bytes("up", BYTES)).await;
                match row.letter {
                    CLOSE_NOTIFY => client.shut_down().await,
                    FIN => client.fin(),
                    RESET => client.delivered(),
                    TRUNCATED => {
                        client.send_raw(&forged(SslVersion::TLS1_2)[..8]).await;
                        client.fin();
                    }
                    _ => client.send_raw(&forged(SslVersion::TLS1_2)).await,
                }
                // With the others the bridge waits for a client that has more to say, or to hear.
                let mut client = Some(client);
                if row.letter == RESET {
                    client.take().unwrap().reset();
                }
                let (bytes, end) = told.recv_timeout(TIMEOUT).unwrap();
                drop(client);
                assert!(bytes == Stream::bytes("up", BYTES), "{what}: {} bytes", bytes.len());
                assert!(row.seen.contains(&end), "{what}: {end}");
                let session = bridge.nth_session(sessions);
                sessions += 1;
                assert!(session["end"].contains(row.logged), "{what}: {}", session.line);
                assert_eq!(&session["ended_by"], "client", "{what}: {}", session.line);
                assert_eq!((session.number("up"), session.number("down")), (1 + BYTES as u64, 0), "{what}");
            }
        }
    }
}
