//! What the kernel says of a TCP connection, and does with it, that no crate has a call for.

use std::io;
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

/// `AF_UNSPEC` as an address has it.
const UNSPECIFIED: nix::libc::sa_family_t = 0;

/// Ends a connection with a reset, as a close does after a linger of no time, but keeps the descriptor
/// (connect(2), on dissolving an association).
pub(crate) fn dissolve(tcp: &TcpStream) -> io::Result<()> {
    let nowhere = nix::libc::sockaddr { sa_family: UNSPECIFIED, sa_data: [0; 14] };
    let length = nix::libc::socklen_t::try_from(size_of_val(&nowhere)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open while `tcp` is borrowed, and the address is as long as it says.
    #[allow(unsafe_code)]
    let answer = unsafe { nix::libc::connect(tcp.as_raw_fd(), &raw const nowhere, length) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `TCP_CLOSE` of tcp_states.h: reset, or given up by the kernel.
const CLOSED: u8 = 7;

/// The states of tcp_states.h that follow a peer's FIN: `TCP_TIME_WAIT`, `TCP_CLOSE`, `TCP_CLOSE_WAIT`,
/// `TCP_LAST_ACK`, `TCP_CLOSING`.
const ENDED: [u8; 5] = [6, CLOSED, 8, 9, 11];

/// Whether TCP was torn down.
pub(super) fn is_closed(tcp: &TcpStream) -> bool {
    state(tcp).is_ok_and(|state| state == CLOSED)
}

/// Whether the peer's FIN, or the end of the connection, has come.
pub(super) fn has_ended(tcp: &TcpStream) -> bool {
    state(tcp).is_ok_and(|state| ENDED.contains(&state))
}

/// The state of the connection (`TCP_INFO`, tcp(7)), whose first byte it is.
fn state(tcp: &TcpStream) -> io::Result<u8> {
    let mut state = 0_u8;
    let mut length: nix::libc::socklen_t = 1;
    // SAFETY: the descriptor is open while `tcp` is borrowed, and the call writes at most `length` bytes.
    #[allow(unsafe_code)]
    let answer = unsafe {
        let (level, name) = (nix::libc::IPPROTO_TCP, nix::libc::TCP_INFO);
        nix::libc::getsockopt(tcp.as_raw_fd(), level, name, (&raw mut state).cast(), &raw mut length)
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(state) }
}

/// Bytes that the peer has not acknowledged (SIOCOUTQ, tcp(7)).
pub(super) fn unsent(tcp: &TcpStream) -> io::Result<usize> {
    let mut count = 0;
    // SAFETY: the descriptor is open while `tcp` is borrowed, and the call writes one int.
    #[allow(unsafe_code)]
    let answer = unsafe { nix::libc::ioctl(tcp.as_raw_fd(), nix::libc::TIOCOUTQ, &raw mut count) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(count).unwrap_or(0)) }
}
