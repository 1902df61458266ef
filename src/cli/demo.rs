//! `demo`: the whole bridge on one machine, without any Exchange.
//!
//! A real HTTPS server limited to TLS 1.1, a forwarder to it, and one request through both.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use clap::Args;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslVersion};
use openssl::x509::{X509, X509NameBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Done;
use super::failed::Failed;
use super::talk::{Word, step};
use crate::bridge::Served;
use crate::bridge::Threads;
use crate::bridge::forwarder::{self, Forwarder};
use crate::bridge::resolver::Resolver;
use crate::config::Draft;
use crate::config::values::Host;
use crate::tls::identity;
use crate::tls::reference::{self, Anchor};
use crate::tls::trust::fingerprint;

/// Show the bridge at work: a TLS 1.1 server, a forwarder to it, one request through both.
#[derive(Args)]
pub(super) struct Demo {
    /// Port of the forwarder on 127.0.0.1; 0: any
    #[arg(default_value_t = 9443)]
    port: u16,
    /// End after the one request
    #[arg(long)]
    once: bool,
}

impl Demo {
    /// Shows the bridge, and stays up until SIGINT or SIGTERM unless told otherwise.
    pub(super) fn run(self) -> Done {
        super::interruptible(self.show())
    }

    async fn show(self) -> Done {
        let failed = |what: &'static str| move |error: std::io::Error| Failed::new(format!("demo: {what}: {error}"));
        let (context, leaf) = legacy_server().map_err(|error| Failed::new(format!("demo: legacy server: {error}")))?;
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed("legacy server"))?;
        let legacy = socket.local_addr().map_err(failed("legacy server"))?;
        tokio::spawn(serve_legacy(socket, context));
        step(Word::Ok, format!("legacy HTTPS server on {legacy}, TLS 1.1 and nothing newer"));

        let mut draft = Draft::default();
        draft.set("listen", format!("127.0.0.1:{}", self.port));
        draft.set("target", legacy.to_string());
        draft.set_list("pin", &[fingerprint(&leaf).map(|pin| pin.to_string()).unwrap_or_default()]);
        let settings = draft.settings()?;
        let socket = super::ports::bind("demo", settings.listen)?;
        let address = socket.local_addr().map_err(failed("listen"))?;
        let made = identity::for_this_run(&identity::machine_names(), time::OffsetDateTime::now_utc())
            .map_err(forwarder::Error::from)?;
        let forwarder = Forwarder::new("demo".to_owned(), settings, made.pair, Resolver::default())?;
        let served = Served::start(forwarder, [socket], &Threads::here()).map_err(failed("listen"))?;
        step(Word::Ok, format!("forwarder on {address}, its target the legacy server, pinned"));
        one_request(&served.forwarder, address, &made.authority_pem).await?;
        if !self.once {
            stay(address, &made.authority_pem).await?;
        }
        Ok(0)
    }
}

async fn one_request(forwarder: &Forwarder, address: SocketAddr, authority: &str) -> Result<(), Failed> {
    let dialed = forwarder.serving().dialer.dial().await.map_err(|failure| Failed::new(format!("demo: {failure}")))?;
    let outbound = dialed.close().await;
    let anchor = Anchor::Authority(authority.to_owned());
    let host = Host::Address(address.ip());
    let seen =
        reference::visit(address, &[], &anchor, &host, Some(("demo", "/EWS/Exchange.asmx")), Duration::from_secs(20))
            .await;
    let seen = seen.map_err(|cause| Failed::new(format!("demo: request through {address}: {cause}")))?;
    let status = seen.http.map(|http| http.status).ok_or_else(|| Failed::new("demo: the request got no answer"))?;
    println!("client -> bridge   {} {}", seen.version.replace("TLSv", "TLS "), seen.suite);
    println!("bridge -> server   TLS {} {}", outbound.version, outbound.suite);
    println!("one request went through both and was answered {status}");
    Ok(())
}

async fn stay(address: SocketAddr, authority: &str) -> Result<(), Failed> {
    let failed = |error: std::io::Error| Failed::new(format!("demo: {error}"));
    let mut file = tempfile::Builder::new().prefix("ewsbridge-demo-").suffix(".pem").tempfile().map_err(failed)?;
    std::io::Write::write_all(&mut file, authority.as_bytes()).map_err(failed)?;
    println!("It stays up; try it from another terminal, and end it with Ctrl-C:");
    println!("  openssl s_client -connect {address} -CAfile {}", file.path().display());
    println!("  curl --cacert {} https://{address}/", file.path().display());
    println!("For a real server: ewsbridge add exch1 9443 ews.corp:443");
    std::future::pending::<()>().await;
    Ok(())
}

/// A context that speaks TLS 1.1 alone, as a server of its time would.
fn legacy_server() -> Result<(SslContext, X509), openssl::error::ErrorStack> {
    let (key, leaf) = self_signed()?;
    let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
    context.set_security_level(0);
    context.set_min_proto_version(Some(SslVersion::TLS1_1))?;
    context.set_max_proto_version(Some(SslVersion::TLS1_1))?;
    context.set_cipher_list("ECDHE-RSA-AES256-SHA:AES256-SHA:AES128-SHA")?;
    context.set_certificate(&leaf)?;
    context.set_private_key(&key)?;
    Ok((context.build(), leaf))
}

fn self_signed() -> Result<(PKey<Private>, X509), openssl::error::ErrorStack> {
    let key = PKey::from_rsa(Rsa::generate(2048)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", "EXCH1 (demo)")?;
    let name = name.build();
    let mut leaf = X509::builder()?;
    leaf.set_version(2)?;
    let serial = BigNum::from_u32(1)?.to_asn1_integer()?;
    leaf.set_serial_number(&serial)?;
    leaf.set_subject_name(&name)?;
    leaf.set_issuer_name(&name)?;
    leaf.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    leaf.set_not_after(&*Asn1Time::days_from_now(1)?)?;
    leaf.set_pubkey(&key)?;
    leaf.sign(&key, MessageDigest::sha256())?;
    Ok((key, leaf.build()))
}

async fn serve_legacy(socket: TcpListener, context: SslContext) {
    while let Ok((tcp, _)) = socket.accept().await {
        let context = context.clone();
        tokio::spawn(async move {
            // A client that breaks off is its own affair.
            let _ = tokio::time::timeout(Duration::from_secs(60), answer(&context, tcp)).await;
        });
    }
}

/// Reads one request's head and answers it the way Exchange answers a stranger.
async fn answer(context: &SslContext, tcp: TcpStream) -> Option<()> {
    let mut stream = tokio_openssl::SslStream::new(Ssl::new(context).ok()?, tcp).ok()?;
    Pin::new(&mut stream).accept().await.ok()?;
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < 16 << 10 {
        let mut piece = [0; 2048];
        match stream.read(&mut piece).await.ok()? {
            0 => return None,
            count => head.extend_from_slice(&piece[..count]),
        }
    }
    let body = format!("hello over {} {}\n", stream.ssl().version_str(), stream.ssl().current_cipher()?.name());
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}
