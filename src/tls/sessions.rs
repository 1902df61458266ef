//! Sessions with the target, kept so that the next connection need not shake hands in full.
//!
//! A resumed handshake shows no certificate, so a session must not outlive the trust that allowed it.
//! A store belongs to one [`super::outbound::Connector`], which never changes: forwarder, server name,
//! verified name, authorities, pins, client certificate and switches are the same for all that is in
//! it, and whoever changes one of them gets a new connector with an empty store. Within it the key is
//! the target's address. Nothing is kept for a connector that verifies nothing.
//!
//! Invariants: a session is kept only once its certificate was accepted, for at most [`LIFETIME`]
//! after *that* handshake, however often it was resumed; before each use the dates of its certificate
//! are judged again, the one thing in its judgement that time changes; a handshake that fails while resuming takes its session with it, and that address is not
//! asked to resume again for as long: an old server may choke on the longer ClientHello each time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use openssl::ssl::SslSession;

use super::trust::Term;

/// The longest that a session is used after the handshake in which its certificate was verified.
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);
/// So many addresses of a target are remembered; with more the oldest is forgotten.
const ADDRESSES: usize = 64;

/// The sessions of one connector.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<SocketAddr, Entry>>);

/// What is known of an address.
enum Entry {
    /// It can be asked to resume this.
    Session(Kept),
    /// A handshake failed because it was asked; since then it is not.
    Refused(Moment),
}

impl Entry {
    fn since(&self) -> Moment {
        match self {
            Self::Session(kept) => kept.since,
            Self::Refused(since) => *since,
        }
    }
}

/// A session and what its use depends on.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) session: SslSession,
    /// When the certificate is accepted that was verified when the session began.
    pub(super) term: Term,
    /// When that was.
    pub(super) since: Moment,
}

/// A moment by both clocks: one may be set, the other stands still while a machine sleeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether less than `limit` has passed since, by either clock.
    fn is_within(&self, limit: Duration, now: &Self) -> bool {
        let steady = now.steady.saturating_duration_since(self.steady);
        // A clock that was set back tells nothing.
        now.wall.duration_since(self.wall).is_ok_and(|wall| wall < limit) && steady < limit
    }
}

impl Sessions {
    /// A session with that address which may still be used, as far as its age tells.
    pub(super) fn find(&self, address: SocketAddr) -> Option<Kept> {
        self.find_at(address, &Moment::now())
    }

    fn find_at(&self, address: SocketAddr, now: &Moment) -> Option<Kept> {
        let mut entries = self.entries();
        match entries.get(&address)? {
            entry if !entry.since().is_within(LIFETIME, now) => {
                entries.remove(&address);
                None
            }
            Entry::Session(kept) => Some(kept.clone()),
            Entry::Refused(_) => None,
        }
    }

    /// Keeps a session in place of an earlier one, unless the address can't resume.
    pub(super) fn keep(&self, address: SocketAddr, session: Kept) {
        if !matches!(self.entries().get(&address), Some(Entry::Refused(since)) if since.is_within(LIFETIME, &Moment::now()))
        {
            self.put(address, Entry::Session(session));
        }
    }

    /// Forgets the session that is kept for an address.
    pub(super) fn forget(&self, address: SocketAddr) {
        let mut entries = self.entries();
        if matches!(entries.get(&address), Some(Entry::Session(_))) {
            entries.remove(&address);
        }
    }

    fn put(&self, address: SocketAddr, entry: Entry) {
        let mut entries = self.entries();
        if entries.len() >= ADDRESSES && !entries.contains_key(&address) {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.since().steady).map(|(address, _)| *address);
            oldest.map(|address| entries.remove(&address));
        }
        entries.insert(address, entry);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<SocketAddr, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that is being resumed: forgotten unless the handshake comes to its end, also when the
/// future that leads it is dropped.
pub(super) struct Resuming<'a> {
    sessions: &'a Sessions,
    address: SocketAddr,
    is_over: bool,
}

impl<'a> Resuming<'a> {
    pub(super) fn new(sessions: &'a Sessions, address: SocketAddr) -> Self {
        Self { sessions, address, is_over: false }
    }

    /// The handshake is over and all is well.
    pub(super) fn succeeded(mut self) {
        self.is_over = true;
    }

    /// The handshake failed: this address is not asked again.
    pub(super) fn failed(mut self) {
        self.is_over = true;
        self.sessions.put(self.address, Entry::Refused(Moment::now()));
    }
}

impl Drop for Resuming<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.sessions.forget(self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ssl::SslSessionRef;
    use openssl::x509::X509;

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], number))
    }

    /// A session as it is after a handshake, made by one.
    fn kept(since: Moment) -> Kept {
        Kept { session: handshake(), term: Term::unlimited(), since }
    }

    fn handshake() -> SslSession {
        use openssl::ssl::{Ssl, SslContext, SslFiletype, SslMethod, SslStream, SslVersion};
        use std::os::unix::net::UnixStream;
        let folder = tempfile::tempdir().unwrap();
        let made =
            crate::tls::identity::for_this_run(&["localhost".to_owned()], time::OffsetDateTime::now_utc()).unwrap();
        let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
        std::fs::write(&cert, X509::from_der(&made.pair.chain[0]).unwrap().to_pem().unwrap()).unwrap();
        std::fs::write(&key, made.pair.key.secret_der()).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let mut context = SslContext::builder(SslMethod::tls_server()).unwrap();
            context.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
            context.set_certificate_chain_file(&cert).unwrap();
            context.set_private_key_file(&key, SslFiletype::ASN1).unwrap();
            SslStream::new(Ssl::new(&context.build()).unwrap(), there).unwrap().accept().unwrap();
        });
        let context = SslContext::builder(SslMethod::tls_client()).unwrap().build();
        let mut stream = SslStream::new(Ssl::new(&context).unwrap(), here).unwrap();
        stream.connect().unwrap();
        server.join().unwrap();
        stream.ssl().session().map(SslSessionRef::to_owned).unwrap()
    }

    #[test]
    fn a_session_is_found_for_an_hour_by_either_clock_and_not_a_moment_longer() {
        let sessions = Sessions::default();
        let since = Moment::now();
        let later =
            |steady: Duration, wall: Duration| Moment { steady: since.steady + steady, wall: since.wall + wall };
        let (short, long) = (LIFETIME - Duration::from_millis(1), LIFETIME);
        for (moment, is_found) in [
            (later(short, short), true),
            (later(long, short), false),
            (later(short, long), false),
            (Moment { wall: since.wall - Duration::from_secs(1), ..since }, false),
        ] {
            sessions.keep(address(1), kept(since));
            assert_eq!(sessions.find_at(address(1), &moment).is_some(), is_found, "{moment:?}");
            assert_eq!(sessions.entries().len(), usize::from(is_found), "what is too old is gone");
        }
        assert!(sessions.find_at(address(2), &since).is_none(), "another address has another session");
    }

    #[test]
    fn a_handshake_that_does_not_come_to_its_end_takes_the_session_with_it() {
        let sessions = Sessions::default();
        sessions.keep(address(1), kept(Moment::now()));
        Resuming::new(&sessions, address(1)).succeeded();
        assert!(sessions.find(address(1)).is_some());
        drop(Resuming::new(&sessions, address(1)));
        assert!(sessions.find(address(1)).is_none());
        sessions.keep(address(1), kept(Moment::now()));
        assert!(sessions.find(address(1)).is_some(), "who left in between is no reason");
    }

    #[test]
    fn an_address_where_resuming_failed_is_asked_again_only_after_an_hour() {
        let (sessions, one) = (Sessions::default(), kept(Moment::now()));
        Resuming::new(&sessions, address(1)).failed();
        sessions.keep(address(1), one.clone());
        sessions.forget(address(1));
        sessions.keep(address(1), one.clone());
        assert!(sessions.find(address(1)).is_none());
        let now = Moment::now();
        let later = Moment { steady: now.steady + LIFETIME, wall: now.wall + LIFETIME };
        assert!(sessions.find_at(address(1), &later).is_none());
        sessions.keep(address(1), one);
        assert!(sessions.find(address(1)).is_some());
    }

    #[test]
    fn more_addresses_than_the_limit_push_the_oldest_out() {
        let (sessions, one) = (Sessions::default(), kept(Moment::now()));
        for number in 0..=ADDRESSES {
            let since = Moment::now();
            sessions.keep(address(u16::try_from(number).unwrap()), Kept { since, ..one.clone() });
        }
        assert_eq!(sessions.entries().len(), ADDRESSES);
        assert!(sessions.find(address(0)).is_none() && sessions.find(address(1)).is_some());
    }
}
