//! The clients: each connection goes as its plan says, and is judged when it has ended.

use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::SockRef;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::flow::{self, Heard, Pace};
use super::ledger::{Fate, Ledger, Weather, Word};
use super::pattern::{Pattern, Way};
use super::plan::{Kind, Plan, STAYING, WORD, next};
use super::target::STUCK;

/// Numbers of connections that may begin while one lasts, so that their bytes are known too.
pub const LATER: u32 = 10_000;

/// How clients reach the bridge.
pub struct Clients {
    bridge: SocketAddr,
    /// For TLS 1.2 and 1.3.
    configs: [Arc<ClientConfig>; 2],
    pub ledger: Arc<Ledger>,
}

impl Clients {
    pub fn new(bridge: SocketAddr, ca: &str, ledger: &Arc<Ledger>) -> Self {
        let configs = [&rustls::version::TLS12, &rustls::version::TLS13].map(|version| {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
                roots.add(certificate.expect("PEM")).expect("a certificate");
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider);
            let builder = builder.with_protocol_versions(&[version]).expect("a version");
            Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
        });
        Self { bridge, configs, ledger: Arc::clone(ledger) }
    }

    /// Makes the next connection.
    pub async fn one(&self) {
        let ledger = &self.ledger;
        let id = ledger.number();
        let plan = Plan::of(ledger.seed, id);
        ledger.open.fetch_add(1, Ordering::SeqCst);
        let led = tokio::time::timeout(STUCK, self.lead(id, &plan)).await;
        if led.is_err() {
            ledger.defect(format!("stuck: connection {id} for {STUCK:?}: {plan:?}; target {:?}", ledger.word(id)));
        }
        ledger.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Opens a connection that stays.
    pub async fn talk(&self, number: u32) -> Talk {
        let tcp = TcpStream::connect(self.bridge).await.expect("accepted");
        let config = Arc::clone(&self.configs[usize::from(number.is_multiple_of(2))]);
        let stream = TlsConnector::from(config).connect(ServerName::from(self.bridge.ip()), tcp).await.expect("served");
        Talk { stream, id: STAYING + number, seed: self.ledger.seed, offset: 0 }
    }

    async fn lead(&self, id: u32, plan: &Plan) {
        let ledger = &self.ledger;
        let before = ledger.weather();
        let tcp = match TcpStream::connect(self.bridge).await {
            Ok(tcp) => tcp,
            Err(error) => return ledger.defect(format!("connection {id}: not accepted: {error}")),
        };
        match plan.kind {
            Kind::Abandoned => return self.abandon(tcp, plan).await,
            Kind::Garbage => return self.talk_nonsense(tcp, id, plan).await,
            _ => {}
        }
        tcp.set_nodelay(true).expect("a socket option");
        let reset = plan.kind == Kind::ClientReset;
        let name = ServerName::from(self.bridge.ip());
        let config = Arc::clone(&self.configs[usize::from(plan.tls13)]);
        let stream = match TlsConnector::from(config).connect(name, tcp).await {
            Ok(stream) => stream,
            Err(_) if ledger.stormy_since(before) => {
                ledger.fate(plan.kind, Fate::Refused);
                // A client that finds nobody waits before it comes again.
                return tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return ledger.defect(format!("connection {id}: refused though its target was up: {error}")),
        };
        if reset {
            SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)).expect("a socket option");
        }
        let (heard, wrote) = self.exchange(stream, id, plan).await;
        let word = self.target_s_word(id, before).await;
        ledger.judge(id, plan, &heard, wrote, word, ledger.stormy_since(before));
    }

    /// Its target's last word, which may come a little after our end.
    async fn target_s_word(&self, id: u32, before: Weather) -> Option<Word> {
        let began = Instant::now();
        loop {
            let word = self.ledger.word(id);
            // One that was killed before it knew whom it serves says nothing.
            let patience = match word {
                Some(Word::Done(_) | Word::Hurt(_)) => return word,
                Some(Word::Serving) => STUCK / 2,
                None if self.ledger.stormy_since(before) => Duration::from_secs(2),
                None => Duration::from_secs(10),
            };
            if began.elapsed() > patience {
                return word;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn exchange(&self, stream: TlsStream<TcpStream>, id: u32, plan: &Plan) -> (Heard, bool) {
        let seed = self.ledger.seed;
        let (up, down) = (Pattern::new(seed, id, Way::Up), Pattern::new(seed, id, Way::Down));
        let known = self.ledger.known() + LATER;
        let mut heard = Heard::nothing();
        let mut stream = Quiet { stream, with_fin: plan.kind != Kind::HalfClose };
        if plan.kind == Kind::Quiet {
            tokio::time::sleep(plan.pause).await;
        }
        let length = plan.up.length;
        let wrote = match plan.kind {
            Kind::ClientReset | Kind::ClientGone => {
                let wrote = flow::write(&mut stream, up, plan.up, Plan::part(plan.up)).await;
                tokio::time::sleep(plan.pause).await;
                return (heard, wrote);
            }
            Kind::Duplex => {
                let (mut from, mut into) = io::split(&mut stream);
                let reading = heard.read(&mut from, down, u64::MAX, Pace::FAST, known);
                let writing = async {
                    let wrote = flow::write(&mut into, up, plan.up, length).await;
                    let _ = into.shutdown().await;
                    wrote
                };
                tokio::join!(reading, writing).1
            }
            _ => {
                let wrote = flow::write(&mut stream, up, plan.up, length).await;
                if plan.waits_for_end() {
                    let _ = stream.shutdown().await;
                }
                let pace = if plan.kind == Kind::SlowClient { Pace::SLOW } else { Pace::FAST };
                heard.read(&mut stream, down, u64::MAX, pace, known).await;
                wrote
            }
        };
        stream.with_fin = true;
        let _ = stream.shutdown().await;
        (heard, wrote)
    }

    /// Sends part of a ClientHello and goes.
    async fn abandon(&self, mut tcp: TcpStream, plan: &Plan) {
        let name = ServerName::from(self.bridge.ip());
        let config = Arc::clone(&self.configs[usize::from(plan.tls13)]);
        let mut connection = ClientConnection::new(config, name).expect("a client");
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).expect("a Vec takes everything");
        // Sometimes all of it, so that the target is dialled.
        let count = usize::try_from(plan.spice).unwrap_or(usize::MAX) % hello.len() + 1;
        let _ = tcp.write_all(&hello[..count]).await;
        tokio::time::sleep(plan.pause).await;
        if plan.spice.is_multiple_of(2) {
            SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).expect("a socket option");
        }
        self.ledger.fate(plan.kind, Fate::Whole);
    }

    /// Sends what is no TLS; has to be let go at once.
    async fn talk_nonsense(&self, mut tcp: TcpStream, id: u32, plan: &Plan) {
        let mut state = plan.spice;
        let mut bytes: Vec<u8> = (0..8 + plan.spice % 200).flat_map(|_| next(&mut state).to_le_bytes()).collect();
        match plan.spice % 3 {
            0 => write!(&mut bytes[..], "GET /EWS/Exchange.asmx HTTP/1.1\r\n").expect("room"),
            // The type of a handshake record is not for nonsense.
            _ if bytes[0] == 0x16 => bytes[0] = 0x17,
            _ => {}
        }
        let _ = tcp.write_all(&bytes).await;
        match tokio::time::timeout(Duration::from_secs(30), tcp.read_to_end(&mut Vec::new())).await {
            Ok(_) => self.ledger.fate(plan.kind, Fate::Whole),
            Err(_) => self.ledger.defect(format!("connection {id}: nonsense is listened to for 30 s: {plan:?}")),
        }
    }
}

/// A connection that stays, and says a word now and then.
pub struct Talk {
    stream: TlsStream<TcpStream>,
    id: u32,
    seed: u64,
    offset: u64,
}

impl Talk {
    /// Says a word and hears its answer.
    ///
    /// # Panics
    /// If it isn't the right one.
    pub async fn word(&mut self) {
        let mut word = [0; WORD];
        Pattern::new(self.seed, self.id, Way::Up).fill(self.offset, &mut word);
        self.stream.write_all(&word).await.expect("a connection that stays");
        self.stream.flush().await.expect("a connection that stays");
        tokio::time::timeout(STUCK, self.stream.read_exact(&mut word)).await.expect("in time").expect("an answer");
        let down = Pattern::new(self.seed, self.id, Way::Down);
        assert_eq!(down.check(self.offset, &word, LATER), Ok(()), "connection {:x} at {}", self.id, self.offset);
        self.offset += WORD as u64;
    }

    /// Ends it; its target has to end as cleanly.
    pub async fn end(mut self) {
        self.stream.shutdown().await.expect("a connection that stays");
        let rest = tokio::time::timeout(STUCK, self.stream.read_to_end(&mut Vec::new())).await.expect("in time");
        assert_eq!(rest.expect("a clean end"), 0);
    }
}

/// A stream that ends its direction with or without a FIN after the close_notify.
struct Quiet {
    stream: TlsStream<TcpStream>,
    with_fin: bool,
}

impl AsyncRead for Quiet {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Quiet {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.with_fin {
            return Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        self.stream.get_mut().1.send_close_notify();
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}
