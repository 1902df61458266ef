//! A client: TLS 1.3, X25519, AES-128-GCM by rustls, the front's certificate verified; or no TLS.
//!
//! For socat P-256 in place of X25519, the only group that its listening side takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{CipherSuite, ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pattern::{self, Head};
use crate::material::{Certificate, Material};

/// No single step of a client takes longer, or something hangs. Long: the machine may be loaded.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who connects; clones share the sessions.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    /// None: no TLS.
    tls: Option<TlsConnector>,
}

/// The group of the key exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    X25519,
    P256,
}

impl Group {
    fn of_rustls(self) -> &'static dyn SupportedKxGroup {
        match self {
            Self::X25519 => aws_lc_rs::kx_group::X25519,
            Self::P256 => aws_lc_rs::kx_group::SECP256R1,
        }
    }
}

impl Client {
    /// To a peer; `resumes`: with the tickets that it was given.
    ///
    /// # Errors
    /// If the certificate does not load.
    pub(crate) fn new(address: SocketAddr, material: &Material, group: Group, resumes: bool) -> Result<Self> {
        let provider = CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            // The only one, so it is the one that is used.
            kx_groups: vec![group.of_rustls()],
            ..aws_lc_rs::default_provider()
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(material.certificate(Certificate::Authority))?)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !resumes {
            config.resumption = Resumption::disabled();
        }
        Ok(Self { address, tls: Some(TlsConnector::from(Arc::new(config))) })
    }

    /// To a relay without TLS.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// A connection with its handshake done.
    ///
    /// # Errors
    /// If it is refused, or another version or suite was negotiated.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        timeout(PATIENCE, self.connect_now()).await.context("connecting hangs")?
    }

    async fn connect_now(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(self.address).await.context("connect")?;
        tcp.set_nodelay(true)?;
        let Some(connector) = &self.tls else { return Ok(Connection { stream: Stream::Plain(tcp) }) };
        let name = ServerName::try_from("localhost")?;
        let stream = connector.connect(name, tcp).await.context("handshake")?;
        let (_, session) = stream.get_ref();
        let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
        ensure!(
            session.protocol_version() == Some(ProtocolVersion::TLSv1_3)
                && suite == Some(CipherSuite::TLS13_AES_128_GCM_SHA256),
            "client: {:?} {suite:?} was negotiated",
            session.protocol_version()
        );
        Ok(Connection { stream: Stream::Tls(Box::new(stream)) })
    }
}

/// A client's connection.
pub(crate) struct Connection {
    stream: Stream,
}

enum Stream {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

/// Does the same with either kind of stream.
macro_rules! with {
    ($connection:expr, $stream:ident => $work:expr) => {
        match &mut $connection.stream {
            Stream::Tls($stream) => $work,
            Stream::Plain($stream) => $work,
        }
    };
}

impl Connection {
    /// Whether the client's session was resumed.
    pub(crate) fn was_resumed(&self) -> bool {
        matches!(&self.stream, Stream::Tls(tls) if tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// A request of `up` bytes, its head included, and its answer of `down`, each byte compared.
    ///
    /// # Errors
    /// A wrong byte, an early end, or two minutes without an end.
    pub(crate) async fn exchange(&mut self, up: u64, down: u64, record: usize) -> Result<()> {
        self.request(up, down, record).await?;
        self.receive(0, down).await
    }

    /// The request alone. `up` is at least 16.
    ///
    /// # Errors
    /// As [`Connection::exchange`].
    pub(crate) async fn request(&mut self, up: u64, down: u64, record: usize) -> Result<()> {
        let body = up - Head::LENGTH as u64;
        let head = Head { up: body, down }.bytes();
        let work = async {
            // A small request is one record, as a mail client's is.
            if up <= record as u64 {
                let mut whole = head.to_vec();
                whole.extend_from_slice(pattern::at(0, usize::try_from(body)?));
                with!(self, stream => { stream.write_all(&whole).await?; stream.flush().await? });
                return anyhow::Ok(());
            }
            with!(self, stream => { stream.write_all(&head).await?; pattern::send(stream, body, record).await })
        };
        timeout(PATIENCE, work).await.context("a request hangs")?.context("client: request")
    }

    /// So many bytes of an answer, from `offset` in it on.
    ///
    /// # Errors
    /// As [`Connection::exchange`].
    pub(crate) async fn receive(&mut self, offset: u64, bytes: u64) -> Result<()> {
        let work = async { with!(self, stream => pattern::check(stream, offset, bytes).await) };
        timeout(PATIENCE, work).await.context("an answer hangs")?.context("client: answer")
    }

    /// Ends the connection and waits for the other end. How that ends is not judged: peers differ.
    ///
    /// # Errors
    /// If it does not end within 30 s.
    pub(crate) async fn close(mut self) -> Result<()> {
        let work = async {
            with!(self, stream => {
                let _ = stream.shutdown().await;
                while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
            });
        };
        timeout(Duration::from_secs(30), work).await.context("a connection does not end")
    }
}
