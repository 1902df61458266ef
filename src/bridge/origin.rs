//! Who a connection comes from: the other end of its TCP connection, and the client that this may
//! stand for.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::leg::proxy::{Ends, Header};

/// The client's side of one connection, as addresses. IPv4 addresses in IPv6 clothes are IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The other end of the TCP connection: the client, or a load balancer.
    pub peer: SocketAddr,
    /// The client: the peer, unless a PROXY header names another.
    pub client: SocketAddr,
    /// Where the client connected to.
    destination: Option<SocketAddr>,
}

impl Origin {
    /// What the socket alone tells.
    pub fn of(tcp: &TcpStream, peer: SocketAddr) -> Self {
        let peer = canonical(peer);
        Self { peer, client: peer, destination: tcp.local_addr().ok().map(canonical) }
    }

    /// Takes over what a header says, if it names anybody.
    pub fn take(&mut self, header: Header) {
        if let Some(ends) = header.ends {
            (self.client, self.destination) = (ends.source, Some(ends.destination));
        }
    }

    /// The load balancer, if there is one between.
    pub fn via(&self) -> Option<SocketAddr> {
        (self.peer != self.client).then_some(self.peer)
    }

    /// What the target may be told.
    pub fn ends(&self) -> Option<Ends> {
        self.destination.map(|destination| Ends { source: self.client, destination })
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
