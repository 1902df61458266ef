//! Listening sockets that outlive the process.
//!
//! A restart or a crash loses no connection attempt because systemd holds a copy of the listening
//! socket in the unit's descriptor store and hands it to the next process: until that one accepts,
//! connections wait in the kernel's queue. What the settings say still decides: a stored socket at
//! another address is taken out of service. Sockets of a socket unit of the admin's own are used as
//! well, and must agree with the settings.
//!
//! See `FileDescriptorStoreMax=` in systemd.service(5), sd_pid_notify_with_fds(3), sd_listen_fds(3).

use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use socket2::{Protocol, SockRef, Socket, Type};

use super::notify;
use crate::bridge::listener;
use crate::config::values::Listen;

/// Descriptors that this process was started with, each by its name.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(String, OwnedFd)>);

/// Who keeps a forwarder's sockets while no process of ours has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeper {
    /// The service's own descriptor store, if there is one.
    #[default]
    Store,
    /// A socket unit of the admin's own.
    Unit,
}

/// What of the inherited sockets is a forwarder's.
#[derive(Debug, Default)]
pub struct Found {
    /// They listen at its address; none: it has to be bound.
    pub sockets: Vec<TcpListener>,
    /// Who keeps them, or will keep the one to be bound.
    pub keeper: Keeper,
}

/// Why what was passed can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variables contradict the descriptors.
    #[error("LISTEN_FDS: inherited descriptors: {}", crate::words::of(.0))]
    Variables(io::Error),
    /// A file, a socket of another kind, or one that is connected.
    #[error("socket '{0}': not a listening TCP socket")]
    NotListening(String),
    /// It was bound with `SO_REUSEPORT`.
    #[error("socket '{0}': its port may be shared with another process (SO_REUSEPORT)")]
    Shared(String),
    /// No forwarder listens there.
    #[error("socket '{name}': it listens on {address}, but 'listen' says {wanted}")]
    Elsewhere {
        /// The socket's name.
        name: String,
        /// Where it listens.
        address: SocketAddr,
        /// Where the forwarders do.
        wanted: String,
    },
    /// The system's.
    #[error("socket '{}': {}", .0, crate::words::of(.1))]
    System(String, io::Error),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotListening(_) => Some("its unit needs ListenStream=[ADDRESS:]PORT and Accept=no"),
            Self::Shared(_) => Some("take ReusePort= out of its unit: clients would be shared out in silence"),
            Self::Elsewhere { .. } => Some("have ListenStream= of its unit and 'listen' of the forwarder say the same"),
            Self::Variables(_) | Self::System(..) => None,
        }
    }
}

impl Inherited {
    /// Takes what `LISTEN_FDS` promises, closed on exec, and the variables out of the environment.
    ///
    /// To be called while there is only one thread, and once.
    ///
    /// # Errors
    /// [`Error::Variables`]: a descriptor is not open, or there are more or fewer names.
    pub fn take() -> Result<Self, Error> {
        // sd-notify takes names that were meant for another process for a fault.
        let ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
        let named = std::env::var_os("LISTEN_FDNAMES").is_some();
        // SAFETY: no other thread reads the environment, as this function's callers promise.
        #[allow(unsafe_code)]
        let found = unsafe {
            if !ours {
                std::env::remove_var("LISTEN_FDNAMES");
            }
            sd_notify::listen_fds_with_names_and_unset_env()
        };
        let found = found.map_err(Error::Variables)?;
        // SAFETY: they are open, and by the protocol nobody's but this process's; the variables that
        // say so are gone, so that they are taken only once.
        #[allow(unsafe_code)]
        let own = |(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) });
        let own = found.map(own);
        // Old enterprise systems: what was stored can't be told from what a unit passes, so the settings
        // rule over both.
        Ok(Self(own.map(|(name, fd)| (if named { name } else { NAMELESS.to_owned() }, fd)).collect()))
    }

    /// Gives each forwarder, by name and address, the sockets that are its own, ready for a runtime.
    ///
    /// Stored ones that are nobody's stop to listen, wherever else they are held, and leave the store.
    ///
    /// # Errors
    /// [`Error`] for a socket of the admin's that no forwarder can use; then nothing was stopped.
    pub fn share(self, forwarders: &[(&str, Listen)]) -> Result<Vec<Found>, Error> {
        let (stored, passed): (Vec<_>, Vec<_>) = self.0.into_iter().partition(|(name, _)| is_stored(name));
        let mut all: Vec<Found> = forwarders.iter().map(|_| Found::default()).collect();
        let mut seen = BTreeSet::new();
        for (name, fd) in passed {
            let (socket, address) = listening(fd.into()).ok_or_else(|| Error::NotListening(shown(&name)))?;
            if socket.reuse_port().map_err(|error| Error::System(shown(&name), error))? {
                return Err(Error::Shared(shown(&name)));
            }
            let Some(index) = forwarders.iter().position(|(_, listen)| is_at(*listen, address)) else {
                let wanted: Vec<String> = forwarders.iter().map(|(_, listen)| listen.to_string()).collect();
                return Err(Error::Elsewhere { name: shown(&name), address, wanted: wanted.join(", ") });
            };
            all[index].keeper = Keeper::Unit;
            if seen.insert(inode(&socket)) {
                all[index].sockets.push(ready(socket).map_err(|error| Error::System(shown(&name), error))?);
            }
        }
        let mut retired = BTreeSet::new();
        for (name, fd) in stored {
            let socket = Socket::from(fd);
            if seen.contains(&inode(&socket)) {
                continue;
            }
            let owner = listening_at(&socket).and_then(|address| {
                let mut candidates = forwarders.iter().zip(&mut all);
                candidates.find(|((owner, listen), found)| {
                    let by_name = name == NAMELESS || name == name_of(owner);
                    by_name && found.keeper == Keeper::Store && is_choice(*listen, address)
                })
            });
            match owner.map(|(_, found)| found) {
                Some(found) => {
                    seen.insert(inode(&socket));
                    found.sockets.push(ready(socket).map_err(|error| Error::System(shown(&name), error))?);
                }
                None => {
                    retire(&socket);
                    retired.insert(name);
                }
            }
        }
        for name in &retired {
            notify::forget(name);
        }
        // The store forgets by name: what is in use under the same one goes back in.
        for ((name, _), found) in forwarders.iter().zip(&all) {
            if found.keeper == Keeper::Store && retired.contains(&name_of(name)) {
                keep(name, &found.sockets);
            }
        }
        Ok(all)
    }
}

/// Has systemd hold a copy of a forwarder's sockets, as far as its unit allows.
pub fn keep(forwarder: &str, sockets: &[TcpListener]) {
    for socket in sockets {
        notify::store(&name_of(forwarder), socket.as_fd());
    }
}

/// Has systemd close its copy of a forwarder's sockets.
pub fn forget(forwarder: &str) {
    notify::forget(&name_of(forwarder));
}

/// Has a socket refuse connections from now on, whoever else holds it.
pub fn retire(socket: &impl AsFd) {
    // Linux takes a listening socket out of service for all who hold it. What is no such socket can't
    // be shut down, and needs not be.
    let _ = SockRef::from(socket).shutdown(Shutdown::Both);
}

/// The name in the store of what a forwarder's process stored.
fn name_of(forwarder: &str) -> String {
    format!("{STORED}{forwarder}")
}

/// Whether a descriptor comes from the store.
fn is_stored(name: &str) -> bool {
    name.starts_with(STORED) || name == NAMELESS
}

/// What begins the names in the store.
const STORED: &str = "stored-";
/// What systemd before 233, which knows no FDNAME=, calls all that is in the store; and what is called
/// so here where systemd is older than 227 and passes no names.
const NAMELESS: &str = "stored";

/// A TCP socket that listens, and where; none for anything else.
fn listening(socket: Socket) -> Option<(Socket, SocketAddr)> {
    let address = listening_at(&socket)?;
    Some((socket, address))
}

fn listening_at(socket: &Socket) -> Option<SocketAddr> {
    let is_tcp = socket.r#type().ok()? == Type::STREAM && socket.protocol().ok()? == Some(Protocol::TCP);
    let listens = is_tcp && socket.is_listener().ok()?;
    listens.then(|| socket.local_addr().ok()?.as_socket()).flatten()
}

fn ready(socket: Socket) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What tells one socket from another, however many descriptors it has.
fn inode(socket: &Socket) -> Option<u64> {
    nix::sys::stat::fstat(socket).ok().map(|stat| stat.st_ino)
}

/// Whether an address is one that settings mean.
fn is_at(listen: Listen, address: SocketAddr) -> bool {
    let port = if listen.port() == 0 { address.port() } else { listen.port() };
    listen.candidates().into_iter().any(|mut candidate| {
        candidate.set_port(port);
        candidate == address
    })
}

/// Whether it is the very one that would be bound.
fn is_choice(listen: Listen, address: SocketAddr) -> bool {
    is_at(listen, address) && listener::choice(listen).is_none_or(|choice| choice == address.ip())
}

/// A foreign name on one line.
fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_means_both_wildcards_and_an_address_only_itself() {
        let at = |listen: &str, address: &str| is_at(listen.parse().unwrap(), address.parse().unwrap());
        for (listen, address, expected) in [
            ("9443", "[::]:9443", true),
            ("9443", "0.0.0.0:9443", true),
            ("9443", "[::]:9444", false),
            ("9443", "127.0.0.1:9443", false),
            ("0.0.0.0:9443", "[::]:9443", false),
            ("127.0.0.1:9443", "127.0.0.1:9443", true),
            ("127.0.0.1:9443", "127.0.0.2:9443", false),
            ("127.0.0.1:0", "127.0.0.1:9443", true),
            ("127.0.0.1:0", "127.0.0.2:9443", false),
        ] {
            assert_eq!(at(listen, address), expected, "{listen} {address}");
        }
    }

    #[test]
    fn one_socket_is_given_once_however_often_it_is_inherited() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listen::At(socket.local_addr().unwrap());
        for name in ["stored-exch1", "exch1.socket"] {
            let copies = [1, 2].map(|_| (name.to_owned(), OwnedFd::from(socket.try_clone().unwrap())));
            let found = Inherited(copies.into()).share(&[("exch1", listen)]).unwrap();
            assert_eq!(found[0].sockets.len(), 1, "{name}");
        }
    }

    #[test]
    fn a_stored_socket_goes_to_the_forwarder_that_stored_it_and_to_no_other() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let both = [("exch1", Listen::At(address)), ("exch2", Listen::At(address))];
        let stored = vec![("stored-exch2".to_owned(), OwnedFd::from(socket.try_clone().unwrap()))];
        let found = Inherited(stored).share(&both).unwrap();
        assert_eq!((found[0].sockets.len(), found[1].sockets.len()), (0, 1));
        // Nobody's: it refuses connections, although it is still held here.
        let stored = vec![("stored-exch3".to_owned(), OwnedFd::from(socket.try_clone().unwrap()))];
        let found = Inherited(stored).share(&both).unwrap();
        assert!(found.iter().all(|found| found.sockets.is_empty()));
        let refused = std::net::TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
