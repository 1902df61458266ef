//! Clients: rustls inside the test, and the programs people have.

use super::{Bridge, Child, TIMEOUT, within};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use socket2::SockRef;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A TLS 1.3 client, connected.
#[derive(Debug)]
pub struct Client(pub TlsStream<TcpStream>);

/// Why a client isn't connected.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The bridge said why.
    Alert(AlertDescription),
    /// TCP or the local half of TLS failed.
    Other(String),
}

/// Connects as an ordinary client does that was given this CA.
pub async fn connect(address: SocketAddr, ca: &str, name: &str) -> Result<Client, Failure> {
    connect_by(address, ca, name, &rustls::version::TLS13).await
}

/// The same with a client of this TLS version.
pub async fn connect_by(
    address: SocketAddr,
    ca: &str,
    name: &str,
    version: &'static SupportedProtocolVersion,
) -> Result<Client, Failure> {
    let config = Arc::new(config(ca, version));
    let name = ServerName::try_from(name.to_owned()).expect("a server name");
    let connected = within("connecting", async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, tcp).await
    });
    match connected.await {
        Ok(stream) => Ok(Client(stream)),
        Err(error) => Err(Failure::of(&error)),
    }
}

/// The first bytes a TLS 1.3 client sends: one record with a whole ClientHello.
pub fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a server name");
    let config = config_with(RootCertStore::empty(), &rustls::version::TLS13);
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("client");
    let mut hello = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut hello).expect("a Vec takes everything");
    }
    hello
}

/// A connection on which all but the end of a ClientHello was sent.
pub async fn stalled_hello(address: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(address).await.expect("connect");
    let hello = client_hello();
    tcp.write_all(&hello[..hello.len() - 1]).await.expect("write");
    tcp
}

fn config(ca: &str, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.expect("the CA is PEM")).expect("the CA is a certificate");
    }
    config_with(roots, version)
}

fn config_with(roots: RootCertStore, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version]).expect("a version of the provider's");
    builder.with_root_certificates(roots).with_no_client_auth()
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(*alert),
            _ => Self::Other(error.to_string()),
        }
    }
}

impl Client {
    /// Sends a request and reads its answer.
    pub async fn request(&mut self, head: &str, body: &[u8]) -> super::Response {
        self.send_request(head, body).await;
        within("an answer", super::read_response(self)).await
    }

    /// Sends a request.
    pub async fn send_request(&mut self, head: &str, body: &[u8]) {
        let head = format!("{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send(head.as_bytes()).await;
        self.send(body).await;
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        within("sending", async {
            self.write_all(bytes).await?;
            self.flush().await
        })
        .await
        .expect("send");
    }

    /// Receives exactly this many bytes.
    pub async fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        within("receiving", self.read_exact(&mut bytes)).await.expect("receive");
        bytes
    }

    /// Receives all there is, and how it ended: `close_notify`, `fin` or `reset`.
    pub async fn receive_all(&mut self) -> (Vec<u8>, &'static str) {
        let mut bytes = Vec::new();
        let end = match within("the end", self.read_to_end(&mut bytes)).await {
            Ok(_) => "close_notify",
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => "fin",
            Err(error) if error.kind() == ErrorKind::ConnectionReset => "reset",
            Err(error) => panic!("no end but {error} after {} bytes", bytes.len()),
        };
        (bytes, end)
    }

    /// Ends its direction with close_notify; TCP stays open both ways, and so does TLS the other way.
    pub async fn close_notify(&mut self) {
        self.0.get_mut().1.send_close_notify();
        within("flushing", self.0.flush()).await.expect("flush");
    }

    /// Ends its direction with close_notify and FIN.
    pub async fn shut_down(&mut self) {
        within("shutting down", self.0.shutdown()).await.expect("shut down");
    }

    /// Ends TCP's stream with no close_notify before it.
    pub fn fin(&self) {
        SockRef::from(self.0.get_ref().0).shutdown(std::net::Shutdown::Write).expect("shut down");
    }

    /// Sends bytes that TLS knows nothing of.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        within("sending", self.0.get_mut().0.write_all(bytes)).await.expect("send");
    }

    /// Waits until the bridge's machine has all that was sent.
    pub fn delivered(&self) {
        super::target::until_acknowledged(self.0.get_ref().0);
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.0.get_ref().0.local_addr().expect("connected").port()
    }

    /// Vanishes: the bridge gets a RST.
    pub fn reset(self) {
        SockRef::from(self.0.get_ref().0).set_linger(Some(Duration::ZERO)).expect("socket option");
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Runs `openssl s_client` to an address with this input until the server ends; gives its exit code
/// and all it wrote.
pub fn s_client(address: SocketAddr, arguments: &[&str], input: &str) -> (i32, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-ign_eof"]).args(arguments);
    run(&mut command, input.as_bytes())
}

/// Runs curl on a bridge; gives its exit code and all it wrote.
pub fn curl(bridge: &Bridge, ca: Option<&Path>, url_host: &str) -> (i32, String) {
    curl_with(bridge, ca, url_host, &[])
}

/// The same with more arguments.
pub fn curl_with(bridge: &Bridge, ca: Option<&Path>, url_host: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--noproxy", "*"]);
    command.arg("--max-time").arg(TIMEOUT.as_secs().to_string()).args(arguments);
    if let Some(ca) = ca {
        command.arg("--cacert").arg(ca);
    }
    command.arg(format!("https://{url_host}:{}/", bridge.address().port()));
    run(&mut command, b"")
}

/// Runs a Python client on a bridge with the library's own defaults; gives its exit code and all it
/// wrote. Without a CA it trusts what the system does.
pub fn python(bridge: &Bridge, ca: Option<&Path>, host: &str) -> (i32, String) {
    run_python(bridge, ca, host, "")
}

/// The same with the strict RFC 5280 checks, Python's default from 3.13 on.
pub fn python_strict(bridge: &Bridge, ca: Option<&Path>, host: &str) -> (i32, String) {
    run_python(bridge, ca, host, "strict")
}

fn run_python(bridge: &Bridge, ca: Option<&Path>, host: &str, strict: &str) -> (i32, String) {
    const CLIENT: &str = "
import http.client, ssl, sys
host, port, ca, strict = sys.argv[1:]
context = ssl.create_default_context(cafile=ca or None)
if strict:
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=30)
connection.request('GET', '/')
response = connection.getresponse()
print(response.status, connection.sock.version() if connection.sock else '')
print(response.read().decode('latin-1'))
";
    let mut command = Command::new("python3");
    command.args(["-c", CLIENT, host, &bridge.address().port().to_string()]);
    command.arg(ca.unwrap_or(Path::new(""))).arg(strict);
    run(&mut command, b"")
}

fn run(command: &mut Command, input: &[u8]) -> (i32, String) {
    for name in ["OPENSSL_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "HTTPS_PROXY", "https_proxy"] {
        command.env_remove(name);
    }
    let mut child = Child::spawn(command);
    child.say(input);
    let status = child.wait();
    (status.code().unwrap_or(-1), child.all_at_end())
}
