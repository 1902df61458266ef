//! A handshake in full, as a forwarder would lead it: what is resumed, how the server ends, one page.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext, SslOptions, SslRef, SslSession, SslSessionRef, SslVerifyMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_openssl::SslStream;

use crate::config::Settings;
use crate::tls::reference::{self, Http};
use crate::tls::{credential, explain, offer};

/// Visits one server again and again, with or without tickets.
///
/// Verifies nothing, and keeps no session beyond itself: nothing of this serves a forwarder.
pub struct Visitor {
    context: SslContext,
    name: Option<String>,
    address: SocketAddr,
}

/// What a visit showed.
pub struct Visit {
    session: Option<SslSession>,
    /// The certificates that were sent, in DER, the server's own first; none when a session was resumed.
    pub chain: Vec<Vec<u8>>,
    /// Whether the offered session was resumed.
    pub is_resumed: bool,
    /// The answer to the request, if there was one.
    pub http: Option<Http>,
    /// Whether the server ended with `close_notify`; `None` if it did not end.
    pub close_notify: Option<bool>,
    /// Whether it asked for a client certificate, be it after the request.
    pub asked: bool,
}

impl Visit {
    /// Whether there is a session that might be resumed.
    pub fn has_session(&self) -> bool {
        self.session.is_some()
    }
}

/// How long the server may take to end once it has answered.
const END: Duration = Duration::from_secs(2);
/// The most of a page that is read.
const PAGE: usize = 256 << 10;

impl Visitor {
    /// Speaks as these settings say; with or without session tickets.
    ///
    /// # Errors
    /// Settings that OpenSSL refuses.
    pub fn new(settings: &Settings, address: SocketAddr, tickets: bool) -> Result<Self, offer::Error> {
        let mut context = offer::context(settings)?;
        context.set_verify(SslVerifyMode::NONE);
        if !tickets {
            context.set_options(SslOptions::NO_TICKET);
        }
        Ok(Self { context: context.build(), name: settings.sni_name().map(str::to_owned), address })
    }

    /// One connection: handshake, resuming an earlier visit of this very visitor if that is given, one request for a page of a
    /// host if that is given, the end.
    ///
    /// # Errors
    /// Why there was no handshake, in a few words.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn visit(
        &self,
        resuming: Option<&Visit>,
        page: Option<(&str, &str)>,
        limit: Duration,
    ) -> Result<Visit, String> {
        let ssl = self.prepared(resuming.and_then(|visit| visit.session.as_deref()))?;
        let shaken = timeout(limit, async {
            let tcp = TcpStream::connect(self.address).await.map_err(|error| crate::words::of(&error))?;
            let mut stream = SslStream::new(ssl, tcp).map_err(|error| error.to_string())?;
            Pin::new(&mut stream).connect().await.map_err(|error| explain::openssl_text(&error))?;
            Ok::<_, String>(stream)
        });
        let mut stream = shaken.await.map_err(|_| format!("not finished within {} s", limit.as_secs()))??;
        let http = match page {
            Some((host, path)) => timeout(limit, reference::ask(&mut stream, host, path)).await.unwrap_or(None),
            None => None,
        };
        if page.is_none() {
            let _ = timeout(END, stream.shutdown()).await;
        }
        let close_notify = timeout(END, end(&mut stream)).await.unwrap_or(None);
        let ssl = stream.ssl();
        let visit = Visit {
            session: ssl.session().filter(|session| !session.id().is_empty()).map(SslSessionRef::to_owned),
            chain: ssl.peer_cert_chain().into_iter().flatten().filter_map(|sent| sent.to_der().ok()).collect(),
            is_resumed: ssl.session_reused(),
            http,
            close_notify,
            asked: credential::was_asked_for(ssl),
        };
        // A session whose connection was cut is not resumed by many servers.
        let _ = timeout(END, stream.shutdown()).await;
        Ok(visit)
    }

    #[allow(unsafe_code)]
    fn prepared(&self, resuming: Option<&SslSessionRef>) -> Result<Ssl, String> {
        let mut ssl = Ssl::new(&self.context).map_err(|error| error.to_string())?;
        if let Some(name) = &self.name {
            ssl.set_hostname(name).map_err(|error| error.to_string())?;
        }
        if let Some(session) = resuming {
            // SAFETY: the session comes from a visit by this visitor, so from this very context.
            unsafe { ssl.set_session(session) }.map_err(|error| error.to_string())?;
        }
        Ok(ssl)
    }
}

/// Reads to the end; whether it was said in due form. `None` if there is too much to read.
async fn end(stream: &mut SslStream<TcpStream>) -> Option<bool> {
    let (mut buffer, mut left) = ([0; 4096], PAGE);
    while left > 0 {
        match stream.read(&mut buffer).await {
            // TCP's end alone looks the same.
            Ok(0) => return Some(has_said_goodbye(stream.ssl())),
            Ok(count) => left = left.saturating_sub(count),
            Err(_) => return Some(false),
        }
    }
    None
}

#[allow(unsafe_code)]
fn has_said_goodbye(ssl: &SslRef) -> bool {
    use foreign_types::ForeignTypeRef;
    // SAFETY: the connection is alive, and the call only reads.
    let shutdown = unsafe { openssl_sys::SSL_get_shutdown(ssl.as_ptr()) };
    shutdown & openssl_sys::SSL_RECEIVED_SHUTDOWN != 0
}
