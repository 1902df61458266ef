//! Targets: `openssl s_server` of this system, and ports that behave badly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use openssl::ssl::{Ssl, SslContext, SslMethod, SslVersion};
use socket2::{Domain, Socket, Type};

use super::{Certificate, Live, TIMEOUT};

/// A running `openssl s_server`; it answers HTTP with a page about the connection.
pub struct SServer {
    pub live: Live,
    pub port: u16,
}

impl SServer {
    /// TLS 1.0 and nothing newer.
    pub fn tls1(certificate: &Certificate) -> Self {
        Self::start(certificate, &["-tls1", "-cipher", "ALL:@SECLEVEL=0"])
    }

    pub fn start(certificate: &Certificate, arguments: &[&str]) -> Self {
        Self::start_at(certificate, 0, arguments)
    }

    /// On this port, where an earlier one has gone.
    pub fn start_at(certificate: &Certificate, port: u16, arguments: &[&str]) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-www"]);
        command.arg("-cert").arg(&certificate.cert).arg("-key").arg(&certificate.key);
        command.args(arguments).env_remove("OPENSSL_CONF");
        let live = Live::spawn(&mut command);
        // It names the port only if it was not told which.
        let port = if port == 0 {
            let line = live.wait_for("ACCEPT 127.0.0.1:");
            line.rsplit(':').next().and_then(|port| port.trim().parse().ok()).expect("a port after ACCEPT")
        } else {
            live.wait_for("ACCEPT");
            port
        };
        Self { live, port }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// A TCP server that says `answer` to what it reads first, and then falls silent until the client
/// ends; says where it is. With an empty answer it never says a word.
pub fn tcp_target(greeting: &'static [u8], answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, greeting, answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, greeting: &[u8], answer: &[u8]) {
    stream.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
    let _ = stream.write_all(greeting);
    let mut buffer = [0; 4096];
    if let Ok(1..) = stream.read(&mut buffer) {
        let _ = stream.write_all(answer);
        if !answer.is_empty() || !greeting.is_empty() {
            return;
        }
    }
    while let Ok(1..) = stream.read(&mut buffer) {}
}

/// A TLS 1.0 server that holds many connections at once, which `s_server` can't: it answers the first
/// piece of each request with a line of HTTP; says where it is.
pub fn tls_target(certificate: &Certificate) -> SocketAddr {
    let mut context = SslContext::builder(SslMethod::tls_server()).expect("a context");
    context.set_security_level(0);
    context.set_max_proto_version(Some(SslVersion::TLS1)).expect("a version");
    context.set_certificate(&certificate.x509).expect("a certificate");
    context.set_private_key(&certificate.pkey).expect("a key");
    let context = context.build();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let ssl = Ssl::new(&context).expect("a connection");
            thread::spawn(move || {
                stream.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
                let Ok(mut stream) = ssl.accept(stream) else { return };
                if let Ok(1..) = stream.read(&mut [0; 4096]) {
                    let _ = stream.write_all(b"HTTP/1.0 200 ok\r\n\r\n");
                }
                let _ = stream.shutdown();
            });
        }
    });
    address
}

/// A port on which nobody listens, and which nobody else can take as long as the socket lives.
pub fn deaf_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let port = socket.local_addr().expect("bound").as_socket().expect("IPv4").port();
    (socket, port)
}
