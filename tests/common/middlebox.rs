//! A device between bridge and server: one that dislikes what is newer than itself, as old inspecting
//! firewalls and load balancers do, or one that is slow.

use super::switch::record;
use super::{Listening, TcpTarget};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

/// What the device can't stand.
#[derive(Clone, Copy, Debug)]
pub enum Dislike {
    /// A ClientHello that names a version above `3.N`.
    VersionAbove(u8),
    /// A ClientHello of 256 to 511 bytes, as F5's devices did (RFC 7685).
    MiddlingHello,
    /// A ClientHello with extensions.
    Extensions,
    /// A record of data too short to hold any, as TLS 1.0's empty one is with AES and SHA-1.
    EmptyRecords,
}

/// What it does then.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Ends the connection without a word.
    Closes,
    /// Says `protocol_version`.
    Alerts,
    /// Says nothing more, ever.
    Hangs,
}

/// The device before a server: reads the records that the client sends, and passes on what it likes.
pub fn before(server: &impl Listening, dislike: Dislike, manner: Manner) -> TcpTarget {
    let server = server.address();
    TcpTarget::serve(move |mut client: TcpStream| {
        let mut server = TcpStream::connect(server).expect("the server");
        let mut back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
        let down = thread::spawn(move || {
            let _ = std::io::copy(&mut back.0, &mut back.1);
            let _ = back.1.shutdown(Shutdown::Write);
        });
        let mut is_first = true;
        while let Some(record) = record(&mut client) {
            if dislikes(dislike, &record, std::mem::take(&mut is_first) && record[0] == 22) {
                match manner {
                    Manner::Closes => {}
                    Manner::Alerts => client.write_all(&[21, 3, 1, 0, 2, 2, 70]).unwrap_or_default(),
                    Manner::Hangs => _ = std::io::copy(&mut client, &mut std::io::sink()),
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
                return;
            }
            if server.write_all(&record).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Write);
        let _ = down.join();
    })
}

/// The server's first word takes this long, as on a machine that swaps.
pub fn slow(server: &impl Listening, wait: Duration) -> TcpTarget {
    down_by(server, move |from, to| {
        let mut first = [0; 4096];
        let count = from.read(&mut first)?;
        thread::sleep(wait);
        to.write_all(&first[..count])?;
        std::io::copy(from, to).map(drop)
    })
}

/// What the server says until the handshake is over comes byte by byte.
pub fn dripping(server: &impl Listening) -> TcpTarget {
    down_by(server, |from, to| {
        while let Some(record) = record(from) {
            if record[0] == 23 {
                to.write_all(&record)?;
                return std::io::copy(from, to).map(drop);
            }
            for byte in record {
                to.write_all(&[byte])?;
                thread::sleep(DRIP);
            }
        }
        Ok(())
    })
}

/// Between two bytes of [`dripping`].
const DRIP: Duration = Duration::from_micros(200);

/// Passes on what the client says as it is, and what the server says in this way.
fn down_by(
    server: &impl Listening,
    down: impl Fn(&mut TcpStream, &mut TcpStream) -> std::io::Result<()> + Clone + Send + Sync + 'static,
) -> TcpTarget {
    let server = server.address();
    TcpTarget::serve(move |mut client: TcpStream| {
        let mut server = TcpStream::connect(server).expect("the server");
        let mut back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
        let down = down.clone();
        let down = thread::spawn(move || {
            let _ = down(&mut back.0, &mut back.1);
            let _ = back.1.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut client, &mut server);
        let _ = server.shutdown(Shutdown::Write);
        let _ = down.join();
    })
}

fn dislikes(dislike: Dislike, record: &[u8], is_hello: bool) -> bool {
    match dislike {
        Dislike::VersionAbove(minor) => is_hello && record[10] > minor,
        Dislike::MiddlingHello => is_hello && (256..512).contains(&(record.len() - 5)),
        Dislike::Extensions => is_hello && has_extensions(&record[43..]),
        Dislike::EmptyRecords => record[0] == 23 && record.len() <= 5 + 32,
    }
}

/// Whether anything follows session, suites and compressions (RFC 5246 §7.4.1.2).
fn has_extensions(hello: &[u8]) -> bool {
    let suites = 1 + usize::from(hello[0]);
    let compressions = suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    hello.len() > compressions + 1 + usize::from(hello[compressions])
}
