//! Targets inside the test, where each step and each ending has to be exact.

use super::{Certificate, Listening, TIMEOUT};
use openssl::ssl::{ShutdownState, SslContext, SslMethod, SslStream, SslVersion};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A TCP server that does with each connection what the test says, and counts them.
pub struct TcpTarget {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl TcpTarget {
    /// Serves each connection in a thread of its own.
    pub fn serve(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::serve_on(loopback(), serve)
    }

    /// The same on a socket that listens already.
    pub fn serve_on(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("bound");
        let (accepted, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (begun, over, stopped, serve) = (accepted.clone(), ended.clone(), stop.clone(), Arc::new(serve));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                begun.fetch_add(1, Ordering::SeqCst);
                let (serve, over) = (serve.clone(), over.clone());
                thread::spawn(move || {
                    stream.set_read_timeout(Some(TIMEOUT)).expect("socket option");
                    stream.set_nodelay(true).expect("socket option");
                    serve(stream);
                    over.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, accepted, ended, stop }
    }

    /// Accepts, reads, and never says a word.
    pub fn silent() -> Self {
        Self::serve(|mut stream| {
            let _ = io::copy(&mut stream, &mut io::sink());
        })
    }

    /// Reads what comes first, then says this and closes.
    pub fn answering(bytes: &'static [u8]) -> Self {
        Self::serve(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        })
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections served to their end.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for TcpTarget {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Behind a cut path nobody answers.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn loopback() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

impl Listening for TcpTarget {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A TLS server inside the test.
pub struct TlsTarget {
    tcp: TcpTarget,
    handshakes: Arc<AtomicUsize>,
}

impl TlsTarget {
    /// Serves each connection after its handshake in a thread of its own; TLS 1.0 only, like the
    /// oldest server the bridge is for.
    pub fn serve(certificate: &Certificate, serve: impl Fn(Connection) + Send + Sync + 'static) -> Self {
        Self::serve_version(SslVersion::TLS1, certificate, serve)
    }

    /// The same on a socket that listens already.
    pub fn serve_on(
        listener: TcpListener,
        certificate: &Certificate,
        serve: impl Fn(Connection) + Send + Sync + 'static,
    ) -> Self {
        Self::start(listener, |_| {}, SslVersion::TLS1, certificate, serve)
    }

    /// The same with another version.
    pub fn serve_version(
        version: SslVersion,
        certificate: &Certificate,
        serve: impl Fn(Connection) + Send + Sync + 'static,
    ) -> Self {
        Self::start(loopback(), |_| {}, version, certificate, serve)
    }

    /// The same where something comes before TLS.
    pub fn serve_behind(
        before: impl Fn(&mut TcpStream) + Send + Sync + 'static,
        version: SslVersion,
        certificate: &Certificate,
        serve: impl Fn(Connection) + Send + Sync + 'static,
    ) -> Self {
        Self::start(loopback(), before, version, certificate, serve)
    }

    fn start(
        listener: TcpListener,
        before: impl Fn(&mut TcpStream) + Send + Sync + 'static,
        version: SslVersion,
        certificate: &Certificate,
        serve: impl Fn(Connection) + Send + Sync + 'static,
    ) -> Self {
        let context = context(version, certificate);
        let handshakes = Arc::new(AtomicUsize::new(0));
        let count = handshakes.clone();
        let tcp = TcpTarget::serve_on(listener, move |mut stream| {
            before(&mut stream);
            let ssl = openssl::ssl::Ssl::new(&context).expect("connection");
            if let Ok(stream) = ssl.accept(stream) {
                count.fetch_add(1, Ordering::SeqCst);
                serve(Connection(stream));
            }
        });
        Self { tcp, handshakes }
    }

    /// Sends back what comes, ends when the client does.
    pub fn echo(certificate: &Certificate) -> Self {
        Self::serve(certificate, |mut connection| {
            let mut buffer = [0; 16384];
            while let Ok(length @ 1..) = connection.read(&mut buffer) {
                if connection.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            connection.close_notify();
        })
    }

    /// TCP connections so far.
    pub fn accepted(&self) -> usize {
        self.tcp.accepted()
    }

    /// Finished handshakes so far.
    pub fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }
}

impl Listening for TlsTarget {
    fn address(&self) -> SocketAddr {
        self.tcp.address
    }
}

/// The target's end of one connection.
pub struct Connection(SslStream<TcpStream>);

impl Connection {
    /// Ends its direction the TLS way; the other direction stays open.
    pub fn close_notify(&mut self) {
        let _ = self.0.shutdown();
    }

    /// Ends the TCP stream with no close_notify before it, as IIS may.
    pub fn fin(self) {
        // Dropping the stream closes the socket and writes nothing.
        drop(self);
    }

    /// Waits until the bridge's machine has all that was sent.
    pub fn delivered(&self) {
        until_acknowledged(self.0.get_ref());
    }

    /// Sends bytes that TLS knows nothing of.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("send");
    }

    /// Passes over whatever comes until TCP ends.
    pub fn skip_raw(&mut self) {
        let _ = io::copy(self.0.get_mut(), &mut io::sink());
    }

    /// Ends the TCP stream with no close_notify, and reads on.
    pub fn half_fin(&self) {
        self.0.get_ref().shutdown(std::net::Shutdown::Write).expect("shut down");
    }

    /// Whether TCP has ended, by FIN or reset, with nothing to read before.
    pub fn is_at_end(&self) -> bool {
        let tcp = self.0.get_ref();
        tcp.set_nonblocking(true).expect("socket option");
        let peeked = tcp.peek(&mut [0]);
        tcp.set_nonblocking(false).expect("socket option");
        match peeked {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// Whether the client's close_notify comes within this time.
    pub fn hears_close_notify(&mut self, time: Duration) -> bool {
        self.0.get_ref().set_read_timeout(Some(time)).expect("socket option");
        let read = self.0.read(&mut [0]);
        self.0.get_ref().set_read_timeout(Some(TIMEOUT)).expect("socket option");
        match read {
            Ok(0) => self.0.get_shutdown().contains(ShutdownState::RECEIVED),
            Ok(_) => panic!("more bytes in place of the end"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("in place of the end: {error}"),
        }
    }

    /// Cuts the TCP connection.
    pub fn reset(self) {
        SockRef::from(self.0.get_ref()).set_linger(Some(Duration::ZERO)).expect("socket option");
        drop(self);
    }

    /// How the client's direction ended: reads on until then.
    pub fn end(&mut self) -> &'static str {
        self.receive_all().1
    }

    /// All that the client sends, and how its direction ended: `close_notify`, `fin` or `reset`.
    pub fn receive_all(&mut self) -> (Vec<u8>, &'static str) {
        let (mut all, mut buffer) = (Vec::new(), [0; 16 << 10]);
        let end = loop {
            match self.0.read(&mut buffer) {
                Ok(0) if self.0.get_shutdown().contains(ShutdownState::RECEIVED) => break "close_notify",
                Ok(0) => break "fin",
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break "reset",
                Err(error) => panic!("no end of the client's direction: {error}"),
            }
        };
        (all, end)
    }

    pub fn protocol(&self) -> &'static str {
        self.0.ssl().version_str()
    }

    /// The name in the client's hello, if any.
    pub fn server_name(&self) -> Option<String> {
        self.0.ssl().servername(openssl::ssl::NameType::HOST_NAME).map(str::to_owned)
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn context(version: SslVersion, certificate: &Certificate) -> SslContext {
    let mut builder = SslContext::builder(SslMethod::tls_server()).expect("context");
    // First the level: it also decides whether a weak certificate may be loaded.
    builder.set_security_level(0);
    builder.set_cipher_list("ALL:@SECLEVEL=0").expect("ciphers");
    builder.set_min_proto_version(Some(version)).expect("version");
    builder.set_max_proto_version(Some(version)).expect("version");
    builder.set_certificate(&certificate.chain[0]).expect("certificate");
    for authority in &certificate.chain[1..] {
        builder.add_extra_chain_cert(authority.clone()).expect("chain");
    }
    builder.set_private_key(&certificate.key).expect("key");
    builder.build()
}

/// Waits until the peer's machine has all that was sent.
pub(super) fn until_acknowledged(socket: &impl AsRawFd) {
    super::eventually("all bytes to be acknowledged", || {
        let mut unsent: libc::c_int = 0;
        // SAFETY: the descriptor is open, and the call writes one int.
        #[allow(unsafe_code)]
        let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unsent) };
        answer == 0 && unsent == 0
    });
}

/// A listening port whose queue is full: new connections get no answer at all, as behind a firewall
/// that drops. Valid while the returned sockets live.
pub fn full_backlog() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(0).expect("listen");
    let address = listener.local_addr().expect("bound").as_socket().expect("IPv4");
    let mut held = vec![listener];
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        let connected = socket.connect_timeout(&address.into(), Duration::from_millis(300));
        held.push(socket);
        if connected.is_err() {
            return (address, held);
        }
        assert!(held.len() < 100, "the queue never fills");
    }
}
