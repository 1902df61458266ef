//! A client like those that will come: proves a listener from outside, through its own port.
//!
//! Two of them: [`visit`] is what `openssl s_client` would be and can tell what was negotiated;
//! [`ordinary_client`] is the plain yes or no of a client that knows nothing but a pasted certificate.

use std::net::SocketAddr;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::certificate::{Facts, printable};
use super::library;
use super::trust::fingerprint;
use crate::config::Fingerprint;
use crate::config::values::Host;

/// What the reference client trusts.
#[derive(Clone, Debug)]
pub enum Anchor {
    /// An authority, in PEM; the certificate must bear the name.
    Authority(String),
    /// This very certificate, by whatever name.
    Exactly(Fingerprint),
}

/// What a visit showed.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `TLSv1.3`.
    pub version: String,
    /// The cipher suite.
    pub suite: String,
    /// The certificate served.
    pub facts: Facts,
    /// Until the handshake was over.
    pub handshake: Duration,
    /// The answer to an HTTP request, if there was one.
    pub http: Option<Http>,
}

/// An HTTP server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// 401, 200 …
    pub status: u16,
    /// The ways to sign in that `WWW-Authenticate` offers.
    pub schemes: Vec<String>,
    /// The `Server` header, safe to print.
    pub server: Option<String>,
    /// From the request to the head of the answer.
    pub time: Duration,
}

/// Connects as a modern client, verifies, and asks for a page of `host` if a path is given. What is to
/// come before TLS is `greeting`.
///
/// # Errors
/// What failed, in one sentence.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn visit(
    address: SocketAddr,
    greeting: &[u8],
    anchor: &Anchor,
    name: &Host,
    page: Option<(&str, &str)>,
    limit: Duration,
) -> Result<Seen, String> {
    let visit = async {
        let began = Instant::now();
        let mut tcp = TcpStream::connect(address).await.map_err(|error| crate::words::of(&error))?;
        tcp.write_all(greeting).await.map_err(|error| crate::words::of(&error))?;
        let ssl = prepared(anchor, name).map_err(|error| error.to_string())?;
        let mut stream = tokio_openssl::SslStream::new(ssl, tcp).map_err(|error| error.to_string())?;
        let shaken = std::pin::Pin::new(&mut stream).connect().await;
        shaken.map_err(|error| verdict(stream.ssl().verify_result(), &error))?;
        let handshake = began.elapsed();
        let leaf = stream.ssl().peer_certificate().ok_or("no certificate came")?;
        if let Anchor::Exactly(wanted) = anchor
            && fingerprint(&leaf) != Some(*wanted)
        {
            return Err("another certificate was served".to_owned());
        }
        let facts = Facts::of(&leaf).map_err(|error| error.to_string())?;
        let version = stream.ssl().version_str().to_owned();
        let suite = stream.ssl().current_cipher().map_or("-", |cipher| cipher.name()).to_owned();
        let http = match page {
            Some((host, path)) => ask(&mut stream, host, path).await,
            None => None,
        };
        // A client that just drops its socket looks like one that was killed.
        let _ = stream.shutdown().await;
        Ok(Seen { version, suite, facts, handshake, http })
    };
    timeout(limit, visit).await.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
}

fn prepared(anchor: &Anchor, name: &Host) -> Result<openssl::ssl::Ssl, openssl::error::ErrorStack> {
    library::init();
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    let mut store = X509StoreBuilder::new()?;
    match anchor {
        Anchor::Authority(pem) => {
            for authority in X509::stack_from_pem(pem.as_bytes())? {
                store.add_cert(authority)?;
            }
        }
        Anchor::Exactly(_) => builder.set_verify(SslVerifyMode::NONE),
    }
    builder.set_cert_store(store.build());
    let mut configuration = builder.build().configure()?;
    let is_exact = matches!(anchor, Anchor::Exactly(_));
    configuration.set_verify_hostname(!is_exact);
    match name {
        Host::Name(name) => configuration.into_ssl(name),
        Host::Address(address) => configuration.into_ssl(&address.to_string()),
    }
}

fn verdict(verified: openssl::x509::X509VerifyResult, error: &openssl::ssl::Error) -> String {
    if verified == openssl::x509::X509VerifyResult::OK {
        super::explain::openssl_text(error)
    } else {
        format!("certificate: {}", verified.error_string())
    }
}

/// The most of an answer's head that is read.
const HEAD: usize = 16 << 10;

/// Asks for a page and reads the head of the answer; `None` if none comes that is HTTP.
pub(super) async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), host: &str, path: &str) -> Option<Http> {
    let began = Instant::now();
    stream.write_all(request(host, path).as_bytes()).await.ok()?;
    let mut head = Vec::new();
    while head.len() < HEAD && needs_more(&head) {
        let mut piece = [0; 2048];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(count) => head.extend_from_slice(&piece[..count]),
        }
    }
    Http::parse(&head, began.elapsed())
}

/// The request of a stranger: no cookie, no credentials.
pub fn request(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ewsbridge\r\nConnection: close\r\n\r\n")
}

/// Whether an answer's head is not there to its end; what is no HTTP needs no more.
pub fn needs_more(answer: &[u8]) -> bool {
    let is_http = b"HTTP/".iter().zip(answer).all(|(wanted, found)| wanted == found);
    is_http && !answer.windows(4).any(|end| end == b"\r\n\r\n")
}

impl Http {
    /// Reads the head of an answer; `None` if it is no HTTP.
    pub fn parse(head: &[u8], time: Duration) -> Option<Self> {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.lines();
        let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        let (mut schemes, mut server): (Vec<String>, _) = (Vec::new(), None);
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some((field, value)) = line.split_once(':') else { continue };
            let scheme = value.split_whitespace().next().unwrap_or_default();
            let is_word = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if field.eq_ignore_ascii_case("www-authenticate") && is_word && !schemes.iter().any(|known| known == scheme)
            {
                schemes.push(scheme.to_owned());
            }
            if field.eq_ignore_ascii_case("server") && !value.trim().is_empty() {
                server = Some(printable(value.trim()));
            }
        }
        Some(Self { status, schemes, server, time })
    }
}

/// Whether a client that pasted this authority, and knows nothing else, accepts the listener there.
///
/// # Errors
/// Its reason to refuse.
pub async fn ordinary_client(
    address: SocketAddr,
    greeting: &[u8],
    name: &Host,
    authority_pem: &str,
    limit: Duration,
) -> Result<(), String> {
    let client = async {
        let authority =
            native_tls::Certificate::from_pem(authority_pem.as_bytes()).map_err(|error| error.to_string())?;
        let connector = native_tls::TlsConnector::builder()
            .disable_built_in_roots(true)
            .add_root_certificate(authority)
            .build()
            .map_err(|error| error.to_string())?;
        let mut tcp = TcpStream::connect(address).await.map_err(|error| crate::words::of(&error))?;
        tcp.write_all(greeting).await.map_err(|error| crate::words::of(&error))?;
        let name = match name {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        };
        let connected = tokio_native_tls::TlsConnector::from(connector).connect(&name, tcp).await;
        let mut stream = connected.map_err(|error| error.to_string())?;
        let _ = stream.shutdown().await;
        Ok(())
    };
    timeout(limit, client).await.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_answer_is_read() {
        let head = b"HTTP/1.1 401 Unauthorized\r\nServer: Microsoft-IIS/8.5\r\nWWW-Authenticate: Negotiate\r\nwww-authenticate: NTLM\r\n\r\n";
        let http = Http::parse(head, Duration::ZERO).unwrap();
        assert_eq!((http.status, http.schemes), (401, vec!["Negotiate".to_owned(), "NTLM".to_owned()]));
        assert_eq!(http.server.as_deref(), Some("Microsoft-IIS/8.5"));
        assert_eq!(Http::parse(b"220 mail ESMTP\r\n", Duration::ZERO), None);
        assert_eq!(Http::parse(b"", Duration::ZERO), None);
        let hostile = Http::parse(b"HTTP/1.0 200 ok\r\nServer: \x1b[2Jx\r\n\r\n", Duration::ZERO).unwrap();
        assert_eq!(hostile.server.as_deref(), Some("\\u{1b}[2Jx"));
    }
}
