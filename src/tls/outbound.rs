//! The target's leg: TLS 1.0 to 1.2 by OpenSSL, offering what [`super::offer`] says.
//!
//! tokio-openssl can't be this leg: it hides how the peer ended (`SSL_get_shutdown`) and ties
//! close_notify to TCP's FIN, which a server with an answer still to send would obey by dropping it.
//! So the leg drives `openssl::ssl::SslStream` over a non-blocking socket itself.

mod established;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{self, Ssl, SslContext, SslStream};
use time::OffsetDateTime;
use tokio::net::TcpStream;

use super::explain::{self, Explained, Seen};
pub use super::offer::Error;
use super::overtime::Overtime;
use super::sessions::{Kept, Moment, Resuming, Sessions};
use super::trust::{Judge, Refusal, Voucher};
use super::{credential, offer};
use crate::config::Settings;
use crate::config::settings::{Keepalive, Trust};
use crate::config::values::duration_text;
use crate::leg::socket::Socket;
pub use established::Outbound;

/// Opens TLS to one forwarder's target.
pub struct Connector {
    context: SslContext,
    judge: Judge,
    sni: Option<String>,
    keepalive: Keepalive,
    settings: Arc<Settings>,
    /// `None`: nothing is resumed.
    sessions: Option<Sessions>,
}

impl Connector {
    /// Builds everything that the forwarder's connections share.
    ///
    /// # Errors
    /// Ciphers that OpenSSL doesn't have, authorities or a client certificate that can't be loaded.
    pub fn new(settings: Arc<Settings>) -> Result<Self, Error> {
        let mut context = offer::context(&settings)?;
        if let Some((cert, key)) = &settings.credential {
            credential::load(&mut context, cert, key)?;
        }
        let judge = Judge::new(&settings, &mut context)?;
        // Without extensions a session would be bound to nothing (RFC 7627 §1).
        let resumes = settings.resumption && settings.extensions && settings.trust != Trust::Insecure;
        Ok(Self {
            context: context.build(),
            judge,
            sessions: resumes.then(Sessions::default),
            sni: settings.sni_name().map(str::to_owned),
            keepalive: settings.keepalive.clone(),
            settings,
        })
    }

    /// Who vouches for the certificates that this connector accepts.
    pub fn voucher(&self) -> Voucher {
        self.judge.voucher()
    }

    /// Leads the TLS handshake on a fresh TCP connection to its end, resuming a session if there is
    /// one that may still be trusted.
    ///
    /// # Errors
    /// [`Failed`]: refused certificate, or cause and cure of a failed handshake.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn connect(&self, tcp: TcpStream) -> Result<Outbound, Failed> {
        let socket = Socket::new(tcp, &self.keepalive).map_err(Failed::io)?;
        let mut ssl = Ssl::new(&self.context).map_err(Failed::openssl)?;
        ssl.set_connect_state();
        if let Some(name) = &self.sni {
            ssl.set_hostname(name).map_err(Failed::openssl)?;
        }
        let verdict = self.judge.attach(&mut ssl).map_err(|error| Failed::ours(error.to_string()))?;
        let address = socket.tcp().peer_addr().ok();
        let resuming = address.and_then(|address| self.resume(&mut ssl, address));
        let stream = SslStream::new(ssl, socket).map_err(Failed::openssl)?;
        let overtime = Overtime::new(self.settings.deadlines.handshake);
        let mut leg = Outbound::new(stream, overtime);
        let limit = self.settings.deadlines.handshake;
        let shaken = leg.shake(if resuming.is_some() { RESUMPTION.min(limit / 2) } else { limit }).await;
        if let Some(refusal) = verdict.get().cloned() {
            return Err(Failed::Certificate(Box::new(refusal)));
        }
        let resumed = match (shaken, resuming) {
            (Ok(()), resuming) => resuming,
            (Err(_), Some((resuming, _))) => {
                resuming.failed();
                return Err(Failed::Resumption);
            }
            (Err(error), None) => return Err(self.explain(error, &leg)),
        };
        self.judge.confirm(leg.certificate().as_deref()).map_err(|refusal| Failed::Certificate(Box::new(refusal)))?;
        let resumed = resumed.map(|(resuming, kept)| {
            resuming.succeeded();
            kept
        });
        if let Some(address) = address {
            self.keep(&leg, address, resumed);
        }
        Ok(leg)
    }

    /// `None`: the deadline passed.
    fn explain(&self, error: Option<ssl::Error>, leg: &Outbound) -> Failed {
        let seen = Seen::of(leg.stream.ssl(), leg.stream.get_ref().first_bytes());
        match error {
            Some(error) => Failed::Handshake(explain::outbound(&error, &seen, &self.settings)),
            None => {
                let limit = duration_text(self.settings.deadlines.handshake);
                Failed::Silence(explain::silence(&limit, &seen, &self.settings))
            }
        }
    }

    /// Offers a session that is kept for this address, if its certificate would still be accepted.
    #[allow(unsafe_code)]
    fn resume(&self, ssl: &mut Ssl, address: SocketAddr) -> Option<(Resuming<'_>, Kept)> {
        let sessions = self.sessions.as_ref()?;
        let kept = sessions.find(address)?;
        let resuming = Resuming::new(sessions, address);
        if !kept.term.includes(OffsetDateTime::now_utc()) {
            return None;
        }
        // SAFETY: the session comes from a connection of this very context.
        unsafe { ssl.set_session(&kept.session) }.ok()?;
        Some((resuming, kept))
    }

    /// Keeps the session of a verified connection. One that continues an earlier one, or only renews
    /// its ticket, is as old as that, and its certificate is the one that was judged then.
    fn keep(&self, leg: &Outbound, address: SocketAddr, resumed: Option<Kept>) {
        let Some(sessions) = &self.sessions else { return };
        let session = leg.stream.ssl().session().filter(|session| !session.id().is_empty());
        let kept = session.and_then(|session| {
            let (term, since) = match resumed.filter(|_| leg.resumed()) {
                Some(earlier) => (earlier.term, earlier.since),
                None => (self.judge.term(leg.certificate()?.as_ref())?, Moment::now()),
            };
            Some(Kept { session: session.to_owned(), term, since })
        });
        match kept {
            Some(kept) => sessions.keep(address, kept),
            // The server keeps none, or no longer.
            None => sessions.forget(address),
        }
    }
}

/// How long a handshake may take that resumes a session, or half of the deadline if that is less: some servers hang at a longer ClientHello,
/// and a handshake in full must still have its time.
const RESUMPTION: Duration = Duration::from_secs(5);

/// Why there is no TLS to the target.
#[derive(Debug)]
pub enum Failed {
    /// Its certificate was refused.
    Certificate(Box<Refusal>),
    /// The handshake failed.
    Handshake(Explained),
    /// It did not end within its deadline.
    Silence(Explained),
    /// It failed while a session was to be resumed, which is forgotten now: a handshake in full may
    /// still succeed.
    Resumption,
    /// Our own fault.
    Ours(String),
}

impl Failed {
    fn io(error: io::Error) -> Self {
        Self::Handshake(explain::io(&error))
    }

    fn openssl(error: ErrorStack) -> Self {
        Self::ours(format!("openssl: {error}"))
    }

    fn ours(cause: String) -> Self {
        Self::Ours(cause)
    }
}
