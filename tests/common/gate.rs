//! A device before a real server that reads the ClientHello and then does as the test says: lets it
//! through, breaks off at a step of the handshake, falls silent, says an alert.

use super::{Listening, TcpTarget};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

/// A ClientHello with its record's header.
pub struct Hello(Vec<u8>);

impl Hello {
    /// 3 for TLS 1.2, 1 for TLS 1.0.
    pub fn minor(&self) -> u8 {
        self.0[10]
    }

    /// Whether anything follows session, suites and compressions (RFC 5246 §7.4.1.2).
    pub fn has_extensions(&self) -> bool {
        self.extensions() < self.0.len()
    }

    /// Whether one of the extensions is a server name, number 0 (RFC 6066 §3).
    pub fn names_a_site(&self) -> bool {
        let mut at = self.extensions() + 2;
        while let [high, low, long, short, ..] = self.0[at.min(self.0.len())..] {
            if [high, low] == [0, 0] {
                return true;
            }
            at += 4 + usize::from(u16::from_be_bytes([long, short]));
        }
        false
    }

    /// Where the length of the extensions stands.
    fn extensions(&self) -> usize {
        let suites = 44 + usize::from(self.0[43]);
        let compressions = suites + 2 + usize::from(u16::from_be_bytes([self.0[suites], self.0[suites + 1]]));
        compressions + 1 + usize::from(self.0[compressions])
    }
}

/// What the device does with a connection.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Lets it through.
    Pass,
    /// The same after a while, as a slow server does.
    Later(Duration),
    /// Ends it at the ClientHello.
    AtHello(End),
    /// Ends it after the first record of the server's answer, its ServerHello.
    AfterTheirs(End),
    /// Ends it in place of the server's last flight, whose first bytes come after this while.
    AfterOurs(End),
}

/// How it ends a connection.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// With a FIN.
    Closes,
    /// With a RST.
    Resets,
    /// Never.
    Hangs,
    /// With these bytes, then a FIN.
    Says(&'static [u8]),
    /// With a fatal alert of this number, then a FIN.
    Alerts(u8),
}

/// The device before a server.
pub fn gate(server: &impl Listening, judge: impl Fn(&Hello) -> Act + Send + Sync + 'static) -> TcpTarget {
    let address = server.address();
    TcpTarget::serve(move |mut client: TcpStream| {
        let Some(hello) = record(&mut client) else { return };
        let hello = Hello(hello);
        let act = judge(&hello);
        let (minor, hello) = (hello.minor(), hello.0);
        if let Act::AtHello(end) = act {
            return finish(client, end, minor);
        }
        if let Act::Later(time) = act {
            thread::sleep(time);
        }
        let Ok(mut server) = TcpStream::connect(address) else { return };
        server.write_all(&hello).unwrap_or_default();
        if let Act::AfterTheirs(end) = act {
            let first = record(&mut server).unwrap_or_default();
            client.write_all(&first).unwrap_or_default();
            return finish(client, end, minor);
        }
        let mut back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
        let ends = !matches!(act, Act::AfterOurs(_));
        let down = thread::spawn(move || {
            let _ = std::io::copy(&mut back.0, &mut back.1);
            let _ = ends.then(|| back.1.shutdown(Shutdown::Write));
        });
        if let Act::AfterOurs(end) = act {
            // All of the flight comes at once.
            let _ = client.read(&mut [0; 16 << 10]);
            // The other thread holds the connection too, and a reset needs the last one to let go.
            let _ = server.shutdown(Shutdown::Both);
            let _ = down.join();
            return finish(client, end, minor);
        }
        let _ = std::io::copy(&mut client, &mut server);
        let _ = server.shutdown(Shutdown::Write);
        let _ = down.join();
    })
}

/// `minor`: the version of the records, once it is agreed on.
fn finish(mut client: TcpStream, end: End, minor: u8) {
    match end {
        End::Resets => return SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("socket option"),
        End::Says(bytes) => client.write_all(bytes).unwrap_or_default(),
        End::Alerts(number) => client.write_all(&[21, 3, minor, 0, 2, 2, number]).unwrap_or_default(),
        End::Closes | End::Hangs => {}
    }
    if !matches!(end, End::Hangs) {
        let _ = client.shutdown(Shutdown::Write);
    }
    // What lies unread would turn the end into a reset.
    let _ = std::io::copy(&mut client, &mut std::io::sink());
}

/// One record with its header; `None` at the end.
fn record(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut record = vec![0; 5];
    client.read_exact(&mut record).ok()?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    client.read_exact(&mut record[5..]).ok()?;
    Some(record)
}
