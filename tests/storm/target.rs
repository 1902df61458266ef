//! Two targets of the oldest TLS versions, killed and started again while they serve.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foreign_types::ForeignTypeRef;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslMode, SslRef, SslVersion};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_openssl::SslStream;
use tokio_util::sync::CancellationToken;

use super::flow::{self, End, Heard, Pace};
use super::ledger::{Ledger, Word};
use super::pattern::{Pattern, Way};
use super::plan::{Kind, Plan, STAYING, WORD};
use crate::cli_support::{Certificate, TIMEOUT, free_port};

/// A target with a fixed address.
pub struct Target {
    pub address: SocketAddr,
    contexts: [SslContext; 3],
    ledger: Arc<Ledger>,
    life: CancellationToken,
    lives: usize,
}

/// Nothing that a peer does may take longer, outages and a busy machine included.
pub const STUCK: Duration = Duration::from_secs(90);

impl Target {
    /// Begins to serve on any free port.
    pub async fn start(certificate: &Certificate, ledger: &Arc<Ledger>) -> Self {
        let contexts =
            [SslVersion::TLS1, SslVersion::TLS1_2, SslVersion::TLS1_1].map(|version| context(version, certificate));
        // Below the ports of outgoing connections, which could take it while it is down.
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], free_port()))).await;
        let address = listener.local_addr().expect("bound");
        let mut target =
            Self { address, contexts, ledger: Arc::clone(ledger), life: CancellationToken::new(), lives: 0 };
        target.serve(listener);
        target
    }

    /// Kills it with all its connections, and starts it again later, with another version.
    pub async fn restart(&mut self, after: Duration) {
        self.ledger.outage_begins();
        self.life.cancel();
        tokio::time::sleep(after).await;
        self.life = CancellationToken::new();
        self.lives += 1;
        let listener = listen(self.address).await;
        self.serve(listener);
        self.ledger.outage_ends();
    }

    fn serve(&mut self, listener: TcpListener) {
        let context = self.contexts[self.lives % 3].clone();
        let (life, ledger) = (self.life.clone(), Arc::clone(&self.ledger));
        tokio::spawn(async move {
            loop {
                let tcp = tokio::select! {
                    () = life.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((tcp, _)) = tcp else { continue };
                let ssl = Ssl::new(&context).expect("a connection");
                tokio::spawn(connection(ssl, tcp, life.clone(), Arc::clone(&ledger)));
            }
        });
    }
}

async fn connection(ssl: Ssl, tcp: TcpStream, life: CancellationToken, ledger: Arc<Ledger>) {
    // However it ends without a word of its own, it ends as a killed process ends: by a reset.
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).expect("a socket option");
    let mut stream = SslStream::new(ssl, tcp).expect("a stream");
    let opened = async {
        Pin::new(&mut stream).accept().await.ok()?;
        let mut first = [0; 8];
        stream.read_exact(&mut first).await.ok()?;
        Some(first)
    };
    let first = tokio::select! {
        () = life.cancelled() => return,
        () = tokio::time::sleep(STUCK) => return,
        opened = opened => opened,
    };
    // A client that has sent less than its number has broken off.
    let Some(first) = first else { return };
    let beginning = Pattern::beginning(ledger.seed, first);
    let Some(up) = beginning
        .filter(|beginning| beginning.way == Way::Up && (beginning.id < ledger.known() || beginning.id >= STAYING))
    else {
        ledger.defect(format!("a request begins with bytes that are no connection's: {first:x?}"));
        return;
    };
    ledger.say(up.id, Word::Serving);
    let mut heard = Heard { length: 8, ..Heard::nothing() };
    let known = ledger.known() + super::client::LATER;
    let word = tokio::select! {
        done = exchange(&mut stream, up, &mut heard, known, ledger.seed) => done,
        () = life.cancelled() => false,
    };
    if heard.end == End::Clean && !has_close_notify(stream.ssl()) {
        heard.end = End::Fin;
    }
    ledger.say(up.id, if word { Word::Done(heard) } else { Word::Hurt(heard) });
}

/// Goes as planned to its end; always true.
async fn exchange(stream: &mut SslStream<TcpStream>, up: Pattern, heard: &mut Heard, known: u32, seed: u64) -> bool {
    let plan = Plan::of(seed, up.id);
    let down = Pattern::new(seed, up.id, Way::Down);
    let pace = if plan.kind == Kind::SlowTarget { Pace::SLOW } else { Pace::FAST };
    let length = plan.down.length;
    if plan.kind == Kind::Stay {
        let mut offset = 0;
        while heard.end == End::Unread {
            heard.read(stream, up, offset + WORD as u64, pace, known).await;
            if heard.length == offset + WORD as u64 {
                let mut word = [0; WORD];
                down.fill(offset, &mut word);
                let _ = stream.write_all(&word).await;
                offset = heard.length;
            }
        }
    } else if plan.kind == Kind::Duplex {
        let (mut from, mut into) = tokio::io::split(&mut *stream);
        tokio::join!(heard.read(&mut from, up, plan.up.length, pace, known), async {
            flow::write(&mut into, down, plan.down, length).await
        });
    } else {
        let until = if plan.waits_for_end() { u64::MAX } else { plan.up.length };
        heard.read(stream, up, until, pace, known).await;
        tokio::time::sleep(plan.pause).await;
        let part = if plan.kind == Kind::TargetReset { Plan::part(plan.down) } else { length };
        let asked = heard.length >= plan.up.length;
        if asked {
            flow::write(stream, down, plan.down, part).await;
        }
    }
    if plan.kind == Kind::TargetReset {
        return true;
    }
    // From now on an ordinary close.
    SockRef::from(stream.get_ref()).set_linger(None).expect("a socket option");
    if plan.kind == Kind::TargetFin {
        let _ = stream.get_mut().shutdown().await;
    } else {
        let _ = stream.shutdown().await;
    }
    if heard.end == End::Unread {
        heard.read(stream, up, u64::MAX, Pace::FAST, known).await;
    }
    true
}

/// Whether the peer has sent a close_notify; without it a stream of `tokio-openssl` ends all the same.
#[allow(unsafe_code)]
fn has_close_notify(ssl: &SslRef) -> bool {
    // SAFETY: the pointer is the live connection's, and the call only reads two bits of it.
    unsafe { openssl_sys::SSL_get_shutdown(ssl.as_ptr()) & openssl_sys::SSL_RECEIVED_SHUTDOWN != 0 }
}

/// Listens as soon as whoever listened before is gone.
async fn listen(address: SocketAddr) -> TcpListener {
    let began = Instant::now();
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a socket option");
        match socket.bind(address).and_then(|()| socket.listen(1024)) {
            Ok(listener) => return listener,
            Err(error) => assert!(began.elapsed() < TIMEOUT, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn context(version: SslVersion, certificate: &Certificate) -> SslContext {
    let mut builder = SslContext::builder(SslMethod::tls_server()).expect("a context");
    builder.set_security_level(0);
    builder.set_cipher_list("ALL:@SECLEVEL=0").expect("ciphers");
    builder.set_min_proto_version(Some(version)).expect("a version");
    builder.set_max_proto_version(Some(version)).expect("a version");
    builder.set_mode(SslMode::ENABLE_PARTIAL_WRITE | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
    builder.set_session_id_context(b"storm").expect("short");
    builder.set_certificate(&certificate.x509).expect("a certificate");
    builder.set_private_key(&certificate.pkey).expect("a key");
    builder.build()
}
