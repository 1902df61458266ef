//! What the kernel knows of a peer's answers: whether one is due, and how long none has come.
//!
//! A peer that stopped reading answers every probe of its closed window, one that has vanished answers
//! nothing; a byte count tells neither from the other, `TCP_INFO` does. `TCP_USER_TIMEOUT` cuts both
//! (tcp_probe_timer of the kernel goes by the age of the closed window alone), so it is not used.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use tokio::net::TcpStream;

use super::socket::dissolve;

/// An eye on one leg's TCP connection; it keeps the descriptor open.
#[derive(Debug)]
pub struct Health(Arc<TcpStream>);

/// A peer's answers, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// What was sent in vain since the last answer: retransmissions of data, probes of a closed
    /// window, keepalive probes. 0 where no answer is overdue.
    pub unanswered: u32,
    /// Since the last segment that told something: an acknowledgement or data.
    pub silence: Duration,
}

impl Health {
    pub(super) fn of(tcp: Arc<TcpStream>) -> Self {
        Self(tcp)
    }

    /// Has the kernel wait no longer than this between two attempts, kept within 1 s to 120 s: without
    /// it the pauses double up to 2 minutes. From Linux 6.15 on; an older one goes on as it did.
    pub fn ask_every(&self, longest: Duration) {
        let longest = longest.clamp(Duration::from_secs(1), Duration::from_secs(120)).as_millis();
        let Ok(longest) = libc::c_int::try_from(longest) else { return };
        // SAFETY: the descriptor is open while `self` is borrowed, and the option is an int.
        #[allow(unsafe_code)]
        let _ = unsafe {
            let length = libc::socklen_t::try_from(size_of_val(&longest)).unwrap_or_default();
            libc::setsockopt(self.0.as_raw_fd(), libc::IPPROTO_TCP, TCP_RTO_MAX_MS, (&raw const longest).cast(), length)
        };
    }

    /// Looks at the peer's answers. Costs one system call; never waits.
    ///
    /// # Errors
    /// The system's. `Unsupported` if the kernel tells too little.
    pub fn signs(&self) -> io::Result<Signs> {
        // SAFETY: the struct is of integers alone, for which zero is a value.
        #[allow(unsafe_code)]
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of_val(&info)).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open while `self` is borrowed; the call writes at most `length` bytes,
        // fewer where the kernel's own struct is shorter, and says how many.
        #[allow(unsafe_code)]
        let answer = unsafe {
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
            libc::getsockopt(self.0.as_raw_fd(), level, name, (&raw mut info).cast(), &raw mut length)
        };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        // All the fields in use are of Linux 2.4 and 2.6; what newer kernels add comes behind them.
        if (length as usize) < offset_of!(libc::tcp_info, tcpi_pmtu) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Signs {
            // Each begins again with the answer to it: tcp_ack() clears the count of probes, and that
            // of retransmissions once something new is acknowledged.
            unanswered: u32::from(info.tcpi_retransmits) + u32::from(info.tcpi_probes),
            silence: Duration::from_millis(info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv).into()),
        })
    }

    /// Gives the connection up, as a reset by the peer would: whoever waits for it learns so at once,
    /// and what is queued for the peer is dropped.
    pub fn give_up(&self) {
        // What fails is gone already.
        let _ = dissolve(&self.0);
    }
}

/// `TCP_RTO_MAX_MS` of linux/tcp.h (Linux 6.15), which the crate does not name yet.
const TCP_RTO_MAX_MS: libc::c_int = 44;
