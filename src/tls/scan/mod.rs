//! Questions to a server that no forwarder asks: hellos of any version, and who resumes what.
//!
//! One question is one connection. [`ask`] sends a ClientHello written by hand and reads the server's
//! first flight; nothing is computed, so it works whatever the cipher. [`Visitor`] leads a handshake to
//! its end by OpenSSL and may ask for one page. TLS 1.3 is spoken here alone, and only its first message.
//!
//! Judges no certificate: [`super::faults`] does.

pub mod flight;
pub mod hello;
pub mod suites;
mod visit;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use flight::{Answer, Flight, Key};
pub use hello::Hello;
pub use visit::{Visit, Visitor};

/// How long TCP may take; the address has answered before.
const CONNECT: Duration = Duration::from_secs(5);
/// The last word: a warning that says `close_notify`, so that a server's log shows no broken connection.
const GOODBYE: [u8; 7] = [21, 3, 1, 0, 2, 1, 0];

/// Sends one hello and reads what comes back within `limit`.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn ask(address: SocketAddr, hello: &Hello, limit: Duration) -> Answer {
    let bytes = match hello.bytes() {
        Ok(bytes) => bytes,
        Err(error) => return Answer::Unreachable(format!("openssl: {error}")),
    };
    let mut tcp = match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => return Answer::Unreachable(crate::words::of(&error)),
        Err(_) => return Answer::Unreachable(format!("no answer within {} s", CONNECT.as_secs())),
    };
    let mut reader = flight::Reader::default();
    let answer = timeout(limit, exchange(&mut tcp, &bytes, &mut reader)).await;
    let answer = answer.unwrap_or_else(|_| reader.so_far(Answer::Silent));
    // Who has gone hears it no more.
    let _ = tcp.try_write(&GOODBYE);
    answer
}

async fn exchange(tcp: &mut TcpStream, hello: &[u8], reader: &mut flight::Reader) -> Answer {
    // A server that speaks first, or refuses at once, may be gone before all is written.
    let written = tcp.write_all(hello).await;
    let mut buffer = [0; 4096];
    loop {
        let end = match tcp.read(&mut buffer).await {
            Ok(0) => Answer::Closed,
            Ok(count) => match reader.take(&buffer[..count]) {
                Some(answer) => return answer,
                None => continue,
            },
            Err(error) => ended(&error),
        };
        return reader.so_far(written.as_ref().err().map_or(end, ended));
    }
}

fn ended(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionReset => Answer::Reset,
        _ => Answer::Closed,
    }
}
