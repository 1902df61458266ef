//! The target: TLS 1.2 or 1.1 by OpenSSL with an RSA-2048 certificate, or no TLS at all.
//!
//! It answers each request of a connection in turn until the client ends, and compares every byte.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslOptions, SslVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_openssl::SslStream;

use super::pattern::{self, Head};
use crate::material::{Certificate, Material};

/// What the target speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TargetKind {
    /// TLS 1.2, ECDHE-RSA-AES128-GCM-SHA256.
    Tls12,
    /// TLS 1.1, AES128-SHA; like Schannel it has no encrypt-then-MAC (RFC 7366).
    Tls11,
    /// No TLS.
    Plain,
}

impl TargetKind {
    /// Version and suite that a connection must have.
    pub(crate) fn negotiated(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256",
            Self::Tls11 => "TLSv1.1 AES128-SHA",
            Self::Plain => "none",
        }
    }
}

/// What the target saw.
#[derive(Default, Clone, Debug)]
pub(crate) struct Seen {
    /// Connections that finished the handshake.
    pub(crate) connections: u64,
    /// Those of them that resumed a session.
    pub(crate) resumed: u64,
    /// Requests answered whole.
    pub(crate) answered: u64,
    /// Connections that failed in the handshake.
    pub(crate) refused: u64,
    /// What went wrong otherwise: a wrong byte, an early end, another version or suite.
    pub(crate) faults: Vec<String>,
}

/// A running target; it ends when dropped.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Target {
    /// Serves on a free port of 127.0.0.1 and answers in records of `record` bytes.
    ///
    /// # Errors
    /// If it can't listen or the certificate does not load.
    pub(crate) async fn start(
        kind: TargetKind,
        material: &Material,
        certificate: Certificate,
        record: usize,
    ) -> Result<Self> {
        let context = (kind != TargetKind::Plain).then(|| context(kind, material, certificate)).transpose()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let served = Served { kind, context, record, seen: Arc::clone(&seen) };
        Ok(Self { address, seen, task: tokio::spawn(serve(listener, served)) })
    }

    /// What it has seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().expect("no panic under the lock").clone()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What each of its connections needs.
#[derive(Clone)]
struct Served {
    kind: TargetKind,
    context: Option<SslContext>,
    record: usize,
    seen: Arc<Mutex<Seen>>,
}

impl Served {
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().expect("no panic under the lock"));
    }
}

/// `SSL_OP_NO_ENCRYPT_THEN_MAC`, which the crate has no name for.
const NO_ENCRYPT_THEN_MAC: SslOptions = SslOptions::from_bits_retain(1 << 19);

fn context(kind: TargetKind, material: &Material, certificate: Certificate) -> Result<SslContext> {
    let mut builder = SslContextBuilder::new(SslMethod::tls_server())?;
    // TLS 1.1 signs with SHA-1.
    builder.set_security_level(0);
    let (version, ciphers) = match kind {
        TargetKind::Tls11 => (SslVersion::TLS1_1, "AES128-SHA:@SECLEVEL=0"),
        _ => (SslVersion::TLS1_2, "ECDHE-RSA-AES128-GCM-SHA256"),
    };
    builder.set_min_proto_version(Some(version))?;
    builder.set_max_proto_version(Some(version))?;
    builder.set_cipher_list(ciphers)?;
    builder.set_options(NO_ENCRYPT_THEN_MAC);
    builder.set_session_id_context(b"compare")?;
    builder.set_certificate_file(material.certificate(certificate), SslFiletype::PEM)?;
    builder.set_private_key_file(material.key(certificate), SslFiletype::PEM)?;
    Ok(builder.build())
}

async fn serve(listener: TcpListener, served: Served) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let served = served.clone();
        tokio::spawn(async move {
            if let Err(fault) = connection(tcp, &served).await {
                served.note(|seen| seen.faults.push(format!("target: {fault:#}")));
            }
        });
    }
}

async fn connection(tcp: TcpStream, served: &Served) -> Result<()> {
    tcp.set_nodelay(true)?;
    let Some(context) = &served.context else {
        served.note(|seen| seen.connections += 1);
        return answer(tcp, served).await;
    };
    let mut stream = SslStream::new(Ssl::new(context)?, tcp)?;
    if Pin::new(&mut stream).accept().await.is_err() {
        served.note(|seen| seen.refused += 1);
        return Ok(());
    }
    let ssl = stream.ssl();
    let negotiated = format!("{} {}", ssl.version_str(), ssl.current_cipher().map_or("none", |suite| suite.name()));
    let resumed = ssl.session_reused();
    served.note(|seen| {
        seen.connections += 1;
        seen.resumed += u64::from(resumed);
        if negotiated != served.kind.negotiated() {
            seen.faults.push(format!("target: {negotiated} was negotiated"));
        }
    });
    answer(stream, served).await
}

/// Answers requests until the client ends between two of them.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, served: &Served) -> Result<()> {
    loop {
        let mut head = [0; Head::LENGTH];
        match stream.read(&mut head).await {
            // How it ends is another subject: every answer before it arrived whole, which the client checks.
            Ok(0) | Err(_) => break,
            Ok(length) => stream.read_exact(&mut head[length..]).await.context("head of a request")?,
        };
        let head = Head::of(head);
        pattern::check(&mut stream, 0, head.up).await.context("request")?;
        pattern::send(&mut stream, head.down, served.record).await.context("answer")?;
        served.note(|seen| seen.answered += 1);
    }
    let _ = stream.shutdown().await;
    Ok(())
}
