//! One address for several servers: a load balancer before servers that know nothing of each other.

use super::{Listening, TcpTarget};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the balancer does with a ClientHello that wants to resume a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// Passes it on like any other.
    Passes,
    /// Ends the connection.
    Closes,
    /// Says nothing more, ever.
    Hangs,
}

/// The balancer.
pub struct Switch {
    tcp: TcpTarget,
    to: Arc<Mutex<SocketAddr>>,
}

impl Switch {
    /// Passes every connection on to this server.
    pub fn to(server: &impl Listening) -> Self {
        Self::with(server, Resumption::Passes)
    }

    /// The same, with a dislike.
    pub fn with(server: &impl Listening, resumption: Resumption) -> Self {
        let to = Arc::new(Mutex::new(server.address()));
        let now = to.clone();
        let tcp = TcpTarget::serve(move |mut client| {
            let Some(hello) = record(&mut client) else { return };
            if resumes(&hello) && resumption != Resumption::Passes {
                if resumption == Resumption::Hangs {
                    let _ = std::io::copy(&mut client, &mut std::io::sink());
                }
                return;
            }
            let mut server = TcpStream::connect(*now.lock().expect("no panic while held")).expect("the server");
            server.write_all(&hello).expect("the server reads");
            let mut back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
            let down = thread::spawn(move || {
                let _ = std::io::copy(&mut back.0, &mut back.1);
                let _ = back.1.shutdown(Shutdown::Write);
            });
            let _ = std::io::copy(&mut client, &mut server);
            let _ = server.shutdown(Shutdown::Write);
            let _ = down.join();
        });
        Self { tcp, to }
    }

    /// From now on passes connections on to this server.
    pub fn turn_to(&self, server: &impl Listening) {
        *self.to.lock().expect("no panic while held") = server.address();
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.tcp.accepted()
    }
}

impl Listening for Switch {
    fn address(&self) -> SocketAddr {
        self.tcp.address()
    }
}

/// One record with its header; `None` at the end.
pub fn record(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut record = vec![0; 5];
    from.read_exact(&mut record).ok()?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    from.read_exact(&mut record[5..]).ok()?;
    Some(record)
}

/// Whether a ClientHello names a session, by ID or by ticket (RFC 5246 §7.4.1.2, RFC 5077 §3.2).
pub fn resumes(hello: &[u8]) -> bool {
    hello[43] > 0 || ticket_length(hello).is_some_and(|length| length > 0)
}

fn ticket_length(hello: &[u8]) -> Option<usize> {
    let number = |at: usize| Some(usize::from(u16::from_be_bytes([*hello.get(at)?, *hello.get(at + 1)?])));
    let suites = 44 + usize::from(*hello.get(43)?);
    let compressions = suites + 2 + number(suites)?;
    let mut at = compressions + 1 + usize::from(*hello.get(compressions)?) + 2;
    while let (Some(kind), Some(length)) = (number(at), number(at + 2)) {
        if kind == 35 {
            return Some(length);
        }
        at += 4 + length;
    }
    None
}
