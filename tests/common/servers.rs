//! Targets that are other programs: `openssl s_server` of this system, and HTTPS servers of 2012–2018.

use super::{Certificate, Child, Listening};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A running `openssl s_server`.
pub struct SServer {
    pub child: Child,
    address: SocketAddr,
}

impl SServer {
    /// Starts it on a free port. The arguments say version, ciphers (with `@SECLEVEL=0` for the old
    /// ones) and mode: `-www`, `-WWW`, `-rev`, or none for standard input and output.
    pub fn start(certificate: &Certificate, arguments: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0"]);
        command.arg("-cert").arg(&certificate.cert_file).arg("-key").arg(&certificate.key_file);
        command.arg("-cert_chain").arg(&certificate.cert_file);
        command.args(arguments);
        let child = Child::spawn(clean(&mut command));
        // `ACCEPT 127.0.0.1:39865`; its standard output is a pipe, but this line is flushed.
        let line = child.stdout.wait_for(&["ACCEPT 127.0.0.1:"]);
        let address = line.trim_start_matches("ACCEPT ").parse().expect("an address after ACCEPT");
        Self { child, address }
    }
}

impl Listening for SServer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A running `tests/servers/https.js` on an old node.
pub struct NodeServer {
    pub child: Child,
    address: SocketAddr,
}

impl NodeServer {
    /// `version` as `tests/servers/fetch` has it, `protocol` TLSv1, TLSv1_1 or TLSv1_2.
    pub fn start(version: &str, certificate: &Certificate, protocol: &str, ciphers: &str) -> Self {
        let mut command = Command::new(old_node(version));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/https.js"));
        command.args([&certificate.key_file, &certificate.cert_file]);
        command.args([protocol, ciphers]);
        let child = Child::spawn(clean(&mut command));
        let line = child.stdout.wait_for(&["listening "]);
        let port = line.trim_start_matches("listening ").parse().expect("a port after `listening`");
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// How many TLS connections it has had.
    pub fn connections(&self) -> usize {
        self.child.stdout.count("connection ")
    }
}

impl Listening for NodeServer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The binary that `tests/servers/fetch` has put into the cache.
fn old_node(version: &str) -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("EWSBRIDGE_SERVERS").or_else(|| {
        let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        Some(caches?.join("ewsbridge-servers"))
    });
    let cache = cache.expect("HOME is set");
    let node = cache.join(format!("node-{version}/bin/node"));
    assert!(
        node.exists(),
        "the old server {} is missing; fetch it with: {}",
        node.display(),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/fetch").display()
    );
    node
}

/// Without what the environment of the person testing would change.
fn clean(command: &mut Command) -> &mut Command {
    for name in
        ["OPENSSL_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_MODULES", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS"]
    {
        command.env_remove(name);
    }
    command
}

/// A running `gnutls-serv` that sends back what it gets.
pub struct GnutlsServer {
    _child: Child,
    address: SocketAddr,
}

impl GnutlsServer {
    /// `priority` as GnuTLS has it (gnutls_priority_init(3)), after `NORMAL`.
    pub fn echo(certificate: &Certificate, priority: &str) -> Self {
        Self::with(certificate, priority, &[])
    }

    /// The same with more arguments.
    pub fn with(certificate: &Certificate, priority: &str, arguments: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
        let mut command = Command::new("gnutls-serv");
        command.args(["--echo", "--port", &port.to_string(), "--priority", &format!("NORMAL:{priority}")]);
        command.arg("--x509keyfile").arg(&certificate.key_file).arg("--x509certfile").arg(&certificate.cert_file);
        command.args(arguments);
        let child = Child::spawn(clean(&mut command));
        // What it prints stays in its buffer.
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let until = Instant::now() + super::TIMEOUT;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "gnutls-serv (Debian's gnutls-bin) does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { _child: child, address }
    }
}

impl Listening for GnutlsServer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}
