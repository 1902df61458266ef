//! A server that asks for new handshakes while bytes flow both ways.

use super::{Certificate, Listening, Stream, TcpTarget, sha256};
use openssl::ssl::{ErrorCode, Ssl, SslContext, SslMethod, SslRef, SslStream, SslVerifyMode, SslVersion};
use openssl::x509::store::X509StoreBuilder;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;

// What the crate has no names for.
#[allow(unsafe_code)]
mod raw {
    use std::ffi::{c_int, c_void};
    unsafe extern "C" {
        pub fn SSL_renegotiate(ssl: *mut c_void) -> c_int;
        pub fn SSL_in_init(ssl: *const c_void) -> c_int;
        pub fn SSL_renegotiate_pending(ssl: *const c_void) -> c_int;
    }
}

/// What such a server does in one connection.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub version: SslVersion,
    /// Whether it wants a certificate in the new handshakes.
    pub asks: bool,
    /// Bytes that it sends, of the stream `down`.
    pub down: usize,
    /// Bytes that it expects; their SHA-256 is told.
    pub up: usize,
    /// Bytes of either direction between two handshakes.
    pub every: usize,
}

/// The server, for one connection after another.
pub struct Renegotiator {
    tcp: TcpTarget,
    told: mpsc::Receiver<Told>,
}

/// How a connection went.
#[derive(Debug)]
pub struct Told {
    /// SHA-256 of what came up.
    pub up: String,
    /// New handshakes that were finished.
    pub handshakes: usize,
    /// Whether the last showed a certificate.
    pub certificate: bool,
}

impl Renegotiator {
    pub fn start(certificate: &Certificate, plan: Plan) -> Self {
        let context = context(certificate, plan.version);
        let (tell, told) = mpsc::channel();
        let tcp = TcpTarget::serve(move |tcp| {
            let stream = Ssl::new(&context).expect("connection").accept(tcp).expect("the first handshake");
            let told = Serving::new(stream, plan).run();
            let _ = tell.send(told);
        });
        Self { tcp, told }
    }

    /// One that sends `before`, asks for a new handshake, and does no more than wait for the end of TCP.
    pub fn stalling(certificate: &Certificate, version: SslVersion) -> Self {
        let context = context(certificate, version);
        let (tell, told) = mpsc::channel();
        let plan = Plan { version, asks: false, down: 0, up: 0, every: 0 };
        let tcp = TcpTarget::serve(move |tcp| {
            let mut stream = Ssl::new(&context).expect("connection").accept(tcp).expect("the first handshake");
            stream.write_all(b"before").expect("room for 6 bytes");
            let mut serving = Serving::new(stream, plan);
            serving.ask();
            let tcp = serving.stream.get_mut();
            tcp.set_nonblocking(false).expect("socket option");
            while matches!(tcp.read(&mut [0; 4096]), Ok(1..)) {}
            let _ = tell.send(Told { up: String::new(), handshakes: 0, certificate: false });
        });
        Self { tcp, told }
    }

    /// One that asks for a new handshake and, before it reads anything, sends all that it has to send.
    pub fn deaf_while_it_sends(certificate: &Certificate, plan: Plan) -> Self {
        let context = context(certificate, plan.version);
        let (tell, told) = mpsc::channel();
        let tcp = TcpTarget::serve(move |tcp| {
            let stream = Ssl::new(&context).expect("connection").accept(tcp).expect("the first handshake");
            let mut serving = Serving::new(stream, plan);
            // Until the client has sent what it sends, without a way to see that.
            std::thread::sleep(std::time::Duration::from_millis(30));
            serving.ask();
            serving.send_all();
            let _ = tell.send(serving.run());
        });
        Self { tcp, told }
    }

    /// Waits for the end of a connection.
    pub fn told(&self) -> Told {
        self.told.recv_timeout(super::TIMEOUT).expect("a connection that came to its end")
    }
}

impl Listening for Renegotiator {
    fn address(&self) -> SocketAddr {
        self.tcp.address()
    }
}

fn context(certificate: &Certificate, version: SslVersion) -> SslContext {
    let mut builder = SslContext::builder(SslMethod::tls_server()).expect("context");
    builder.set_security_level(0);
    builder.set_cipher_list("AES128-SHA:@SECLEVEL=0").expect("ciphers");
    builder.set_min_proto_version(Some(version)).expect("version");
    builder.set_max_proto_version(Some(version)).expect("version");
    builder.set_certificate(&certificate.chain[0]).expect("certificate");
    builder.set_private_key(&certificate.key).expect("key");
    builder.set_cert_store(X509StoreBuilder::new().expect("store").build());
    builder.set_session_id_context(b"renegotiator").expect("context");
    // As IIS does it: a new handshake is one in full.
    builder.set_options(openssl::ssl::SslOptions::NO_SESSION_RESUMPTION_ON_RENEGOTIATION);
    builder.build()
}

struct Serving {
    stream: SslStream<TcpStream>,
    plan: Plan,
    down: Vec<u8>,
    sent: usize,
    up: Vec<u8>,
    /// At how many bytes the next handshake is asked for.
    next: usize,
    asked: usize,
    is_writing: bool,
}

impl Serving {
    fn new(stream: SslStream<TcpStream>, plan: Plan) -> Self {
        stream.get_ref().set_nonblocking(true).expect("socket option");
        let down = Stream::bytes("down", plan.down);
        Self { stream, plan, down, sent: 0, up: Vec::new(), next: plan.every, asked: 0, is_writing: false }
    }

    fn run(mut self) -> Told {
        let mut buffer = vec![0; 16 << 10];
        while self.sent < self.plan.down || self.up.len() < self.plan.up || is_asking(self.stream.ssl()) {
            let mut moved = false;
            let mut wants = libc::POLLIN;
            // A record that has half left goes first: a handshake in between would spoil it.
            if !self.is_writing {
                match self.stream.ssl_read(&mut buffer) {
                    Ok(count) => {
                        self.up.extend_from_slice(&buffer[..count]);
                        moved = true;
                    }
                    Err(error) if waits(&error) => wants |= events(&error),
                    Err(error) => panic!("after {} up and {} down: {error:?}", self.up.len(), self.sent),
                }
            }
            // A write in mid-handshake would choke on what the peer still sends.
            if !is_shaking(self.stream.ssl()) && self.sent < self.plan.down {
                let piece = &self.down[self.sent..self.plan.down.min(self.sent + 4000)];
                let written = self.stream.ssl_write(piece);
                // A handshake may have begun in its place: then no record is half sent.
                self.is_writing = written.is_err() && !is_shaking(self.stream.ssl());
                match written {
                    Ok(count) => {
                        self.sent += count;
                        moved = true;
                    }
                    Err(error) if waits(&error) => wants |= events(&error),
                    Err(error) => panic!("after {} up and {} down: {error:?}", self.up.len(), self.sent),
                }
            }
            if self.sent + self.up.len() >= self.next && !self.is_writing && !is_asking(self.stream.ssl()) {
                self.ask();
            }
            if !moved {
                self.wait(wants);
            }
        }
        let certificate = self.stream.ssl().peer_certificate().is_some();
        let _ = self.stream.shutdown();
        Told { up: sha256(&self.up), handshakes: self.asked, certificate }
    }

    fn send_all(&mut self) {
        while self.sent < self.plan.down {
            let piece = &self.down[self.sent..self.plan.down.min(self.sent + 4000)];
            match self.stream.ssl_write(piece) {
                Ok(count) => self.sent += count,
                Err(error) if waits(&error) => self.wait(events(&error)),
                Err(error) => panic!("after {} down: {error:?}", self.sent),
            }
        }
    }

    #[allow(unsafe_code)]
    fn ask(&mut self) {
        self.next += self.plan.every;
        self.asked += 1;
        let ssl = self.stream.ssl();
        // SAFETY: the connection is alive.
        let asked = unsafe {
            let pointer: *mut std::ffi::c_void = foreign_types::ForeignTypeRef::as_ptr(ssl).cast();
            openssl_sys::SSL_set_verify(
                pointer.cast(),
                SslVerifyMode::PEER.bits() * i32::from(self.plan.asks),
                Some(any),
            );
            raw::SSL_renegotiate(pointer)
        };
        assert_eq!(asked, 1);
        match self.stream.do_handshake() {
            Ok(()) => {}
            Err(error) => assert!(waits(&error), "HelloRequest: {error:?}"),
        }
    }

    #[allow(unsafe_code)]
    fn wait(&self, wants: libc::c_short) {
        let mut poll = libc::pollfd { fd: self.stream.get_ref().as_raw_fd(), events: wants, revents: 0 };
        // SAFETY: one descriptor that is open.
        unsafe { libc::poll(&raw mut poll, 1, 50) };
    }
}

extern "C" fn any(_: i32, _: *mut openssl_sys::X509_STORE_CTX) -> i32 {
    1
}

fn waits(error: &openssl::ssl::Error) -> bool {
    matches!(error.code(), ErrorCode::WANT_READ | ErrorCode::WANT_WRITE)
}

/// Whether a handshake was asked for and has not come to its end. Until the client's hello is there
/// bytes go on to be sent, as IIS sends them.
#[allow(unsafe_code)]
fn is_asking(ssl: &SslRef) -> bool {
    let pointer: *const std::ffi::c_void = foreign_types::ForeignTypeRef::as_ptr(ssl).cast();
    // SAFETY: the connection is alive.
    is_shaking(ssl) || unsafe { raw::SSL_renegotiate_pending(pointer) != 0 }
}

fn events(error: &openssl::ssl::Error) -> libc::c_short {
    if error.code() == ErrorCode::WANT_WRITE { libc::POLLOUT } else { libc::POLLIN }
}

#[allow(unsafe_code)]
fn is_shaking(ssl: &SslRef) -> bool {
    let pointer: *const std::ffi::c_void = foreign_types::ForeignTypeRef::as_ptr(ssl).cast();
    // SAFETY: the connection is alive.
    unsafe { raw::SSL_in_init(pointer) != 0 }
}
