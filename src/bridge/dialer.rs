//! The way to one forwarder's target: look-up, TCP, TLS, each failure with its cause and cure.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::failure::{Blame, Failure, Kind};
use super::resolver::Resolver;
use crate::config::Settings;
use crate::config::values::SendProxy;
use crate::leg::proxy::{self, Ends};
use crate::leg::{Ending, Leg};
use crate::tls::certificate::Facts;
use crate::tls::explain::{self, Explained};
use crate::tls::outbound::{self, Connector, Failed, Outbound};
use crate::tls::trust::{Refusal, Voucher};

/// Opens connections to a target.
pub struct Dialer {
    /// The forwarder's name if a file of settings stands behind it, so that hints can name commands.
    name: Option<String>,
    settings: Arc<Settings>,
    connector: Connector,
    resolver: Resolver,
}

/// An open connection to the target, and how long it took.
pub struct Dialed {
    /// The connection.
    pub leg: Outbound,
    /// Look-up and TCP.
    pub tcp: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// Who vouches for the target's certificate.
    pub voucher: Voucher,
}

/// What a connection showed, once it is closed again.
pub struct Reached {
    /// The address that answered.
    pub address: String,
    /// `1.0`, `1.1` or `1.2`.
    pub version: &'static str,
    /// The cipher suite.
    pub suite: &'static str,
    /// The certificate, if one came and can be read.
    pub certificate: Option<Facts>,
    /// Who vouches for it.
    pub voucher: Voucher,
    /// Look-up and TCP.
    pub tcp: Duration,
    /// The TLS handshake.
    pub tls: Duration,
}

impl Dialed {
    /// Closes the connection, which some servers serve one at a time, and keeps what it showed.
    pub async fn close(mut self) -> Reached {
        let goodbye = poll_fn(|cx| self.leg.poll_end(cx, Ending::CloseNotify));
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        Reached {
            address: self.leg.address().map_or_else(|| "-".to_owned(), |address| address.ip().to_string()),
            version: self.leg.version(),
            suite: self.leg.suite(),
            certificate: self.leg.certificate().and_then(|leaf| Facts::of(&leaf).ok()),
            voucher: self.voucher,
            tcp: self.tcp,
            tls: self.tls,
        }
    }
}

/// How long it may take to say goodbye: a server may keep us in new handshakes for ever.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why an attempt brought no connection.
enum Missed {
    /// A session could not be resumed; a handshake in full may succeed.
    Resumption,
    /// What the caller is told.
    Failed(Box<Failure>),
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl Dialer {
    /// Makes everything ready that needs no network.
    ///
    /// # Errors
    /// Ciphers or authorities that can't be used.
    pub fn new(name: Option<String>, settings: Arc<Settings>, resolver: Resolver) -> Result<Self, outbound::Error> {
        Ok(Self { name, connector: Connector::new(Arc::clone(&settings))?, settings, resolver })
    }

    /// Opens TCP and TLS to the target.
    ///
    /// # Errors
    /// [`Failure`] with stage, cause and cure.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn dial(&self) -> Result<Dialed, Failure> {
        self.dial_for(None).await
    }

    /// The same on behalf of a client, whose ends a PROXY header tells the target where one is sent.
    ///
    /// # Errors
    /// As [`Dialer::dial`].
    ///
    /// # Cancel safety
    /// As [`Dialer::dial`].
    pub async fn dial_for(&self, client: Option<Ends>) -> Result<Dialed, Failure> {
        let dialed = match self.attempt(client).await {
            // Nothing of a client's has been sent, so another connection does no harm.
            Err(Missed::Resumption) => self.attempt(client).await,
            other => other,
        };
        dialed.map_err(|missed| match missed {
            Missed::Failed(failure) => *failure,
            Missed::Resumption => self.failure("TLS handshake", explain::no_session()),
        })
    }

    /// One TCP connection and its handshake.
    async fn attempt(&self, client: Option<Ends>) -> Result<Dialed, Missed> {
        let began = Instant::now();
        let mut socket = self.resolver.connect(&self.settings.target, self.settings.deadlines.connect).await?;
        let header = match self.settings.send_proxy {
            SendProxy::Off => Vec::new(),
            SendProxy::V1 => proxy::text(client),
            SendProxy::V2 => proxy::binary(client),
        };
        // It fits the empty send queue of a fresh connection.
        let sent = socket.write_all(&header).await;
        sent.map_err(|error| self.failure("PROXY header", explain::io(&error)))?;
        let tcp = began.elapsed();
        let began = Instant::now();
        match self.connector.connect(socket).await {
            Ok(leg) => Ok(Dialed { leg, tcp, tls: began.elapsed(), voucher: self.connector.voucher() }),
            Err(failed) => Err(self.explain(failed)),
        }
    }

    fn explain(&self, failed: Failed) -> Missed {
        let failure = match failed {
            Failed::Resumption => return Missed::Resumption,
            Failed::Handshake(explained) => self.shaken(explained),
            Failed::Silence(explained) => Failure { kind: Kind::Silent, ..self.shaken(explained) },
            Failed::Certificate(refusal) => self.refused(&refusal),
            Failed::Ours(cause) => self.failure("TLS handshake", Explained::ours(cause)),
        };
        failure.into()
    }

    fn shaken(&self, explained: Explained) -> Failure {
        self.failure("TLS handshake", explain::behind_proxy_header(explained, &self.settings))
    }

    fn refused(&self, refusal: &Refusal) -> Failure {
        let presented = refusal.leaf.as_deref().and_then(|leaf| Facts::of(leaf).ok());
        let explained = explain::certificate::explain(refusal, presented.as_ref(), &self.settings);
        Failure { presented: presented.map(Box::new), ..self.failure("certificate", explained) }
    }

    fn failure(&self, stage: &'static str, explained: Explained) -> Failure {
        let side = format!("target {}", self.settings.target);
        Failure { forwarder: self.name.clone(), ..Failure::of(explained, Blame::Target, side, stage) }
    }
}
