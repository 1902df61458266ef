//! A forwarder's listening socket: bound once, accepting until told to stop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::threads::{Load, Threads};
use super::{Forwarder, session};
use crate::config::values::Listen;

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: i32 = 1024;

/// Binds a forwarder's address, dual stack where it is the unspecified one.
///
/// Never `SO_REUSEPORT`: two processes would share the clients in silence.
///
/// # Errors
/// The system's, for the last address that could be tried: in use, not permitted, not of this machine.
pub fn bind(listen: Listen) -> Result<std::net::TcpListener, (SocketAddr, io::Error)> {
    let candidates = listen.candidates();
    let mut last = None;
    for address in candidates {
        match bind_one(address) {
            Ok(listener) => return Ok(listener),
            // Only a machine without this address family gets the next one.
            Err(error) if is_family_missing(&error) => last = Some((address, error)),
            Err(error) => return Err((address, error)),
        }
    }
    Err(last.unwrap_or_else(|| (listen.from_here(), io::ErrorKind::AddrNotAvailable.into())))
}

/// The address that [`bind`] would choose here where there are several; none where there is but one.
pub fn choice(listen: Listen) -> Option<IpAddr> {
    let candidates = listen.candidates();
    let mut addresses = candidates.iter().map(SocketAddr::ip).filter(|_| candidates.len() > 1);
    addresses.find(|&ip| bound(SocketAddr::new(ip, 0)).is_ok())
}

fn bind_one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = bound(address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // Only so that connections of an earlier run in TIME_WAIT don't keep the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(code) if code == nix::libc::EAFNOSUPPORT || code == nix::libc::EADDRNOTAVAIL)
}

/// Accepts connections and serves each in a task of its own, on one of the threads, until `stop`.
/// Runs on the first of them.
///
/// A failure to accept concerns one connection, or means that descriptors or memory are short: then
/// it waits, from 5 ms to 1 s, says so once a minute, and goes on.
pub async fn run(
    forwarder: Arc<Forwarder>,
    listener: Arc<TcpListener>,
    threads: Threads,
    sessions: TaskTracker,
    stop: CancellationToken,
) {
    let (mut pause, mut load) = (Pause::default(), Load::of_this_thread());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, client)) => {
                pause.next = SHORTEST_PAUSE;
                let serve = |tcp| session::serve(forwarder.serving(), Arc::clone(&forwarder.admission), tcp, client);
                match threads.other(&mut load) {
                    None => drop(sessions.spawn(serve(tcp))),
                    Some(other) => match moved(tcp, other) {
                        Ok(tcp) => drop(sessions.spawn_on(serve(tcp), other)),
                        Err(error) => pause.after(&forwarder.name, &error).await,
                    },
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => pause.after(&forwarder.name, &error).await,
        }
    }
}

/// Has another thread wait for what happens on a connection.
fn moved(tcp: TcpStream, to: &Handle) -> io::Result<TcpStream> {
    let tcp = tcp.into_std()?;
    let _within = to.enter();
    TcpStream::from_std(tcp)
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The first wait after a failed accept.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// Backs off while the machine is short of something.
struct Pause {
    next: Duration,
    told: Option<tokio::time::Instant>,
}

impl Default for Pause {
    fn default() -> Self {
        Self { next: SHORTEST_PAUSE, told: None }
    }
}

impl Pause {
    async fn after(&mut self, name: &str, error: &io::Error) {
        if self.told.is_none_or(|told| told.elapsed() > Duration::from_secs(60)) {
            self.told = Some(tokio::time::Instant::now());
            let cause = crate::words::of(error);
            tracing::error!(
                name: "accept_failed",
                forwarder = %name,
                hint = "raise LimitNOFILE= of the unit, or find what holds so many connections",
                "accept: {cause}; trying again"
            );
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Duration::from_secs(1));
    }
}
