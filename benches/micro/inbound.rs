//! The client's leg: from the first byte of a ClientHello to the first byte down, and a record each way.

use std::sync::Arc;

use divan::Bencher;
use divan::counter::BytesCount;
use ewsbridge::config::Settings;
use ewsbridge::leg::socket::Socket;
use ewsbridge::tls::identity::{self, ForThisRun};
use ewsbridge::tls::inbound::{Inbound, Listener};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::peers::{Wire, runtime, settings};
use crate::relay::{give, take};

const RECORD: usize = 16 << 10;

#[divan::bench(args = [HandshakeKind::Full, HandshakeKind::Resumed])]
fn handshake(bencher: Bencher<'_, '_>, kind: HandshakeKind) {
    let stage = Stage::new(kind);
    bencher.with_inputs(|| stage.pair()).bench_local_values(|pair| {
        let (leg, _) = stage.runtime.block_on(stage.shake(pair));
        assert_eq!(leg.resumed(), kind == HandshakeKind::Resumed);
        leg
    });
}

#[divan::bench(args = [HandshakeKind::Full, HandshakeKind::Resumed])]
fn handshake_of_rustls_alone(bencher: Bencher<'_, '_>, kind: HandshakeKind) {
    let stage = Stage::new(kind);
    let acceptor = stage.bare_acceptor();
    let shake = |pair| stage.runtime.block_on(stage.shake_bare(&acceptor, pair));
    shake(stage.pair());
    bencher.with_inputs(|| stage.pair()).bench_local_values(|pair| {
        let stream = shake(pair);
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
        stream
    });
}

#[divan::bench]
fn one_full_record_up(bencher: Bencher<'_, '_>) {
    let stage = Stage::new(HandshakeKind::Full);
    let (mut leg, mut client) = stage.runtime.block_on(stage.shake(stage.pair()));
    let (bytes, mut buffer) = (vec![7; RECORD], vec![0; RECORD]);
    bencher.counter(BytesCount::new(RECORD)).bench_local(|| {
        stage.runtime.block_on(async {
            client.write_all(&bytes).await.expect("write");
            client.flush().await.expect("flush");
            take(&mut leg, &mut buffer).await;
        });
        assert!(buffer[RECORD - 1] == 7);
    });
}

#[divan::bench]
fn one_full_record_down(bencher: Bencher<'_, '_>) {
    let stage = Stage::new(HandshakeKind::Full);
    let (mut leg, mut client) = stage.runtime.block_on(stage.shake(stage.pair()));
    let (bytes, mut buffer) = (vec![7; RECORD], vec![0; RECORD]);
    bencher.counter(BytesCount::new(RECORD)).bench_local(|| {
        stage.runtime.block_on(async {
            let receive = client.read_exact(&mut buffer);
            let (received, ()) = tokio::join!(receive, give(&mut leg, &bytes));
            received.expect("read");
        });
        assert!(buffer[RECORD - 1] == 7);
    });
}

/// A listener with the default settings, and a client of it.
struct Stage {
    runtime: Runtime,
    wire: Wire,
    settings: Arc<Settings>,
    listener: Listener,
    client: TlsConnector,
    identity: ForThisRun,
}

impl Stage {
    /// With a client that has a ticket already where it is to resume.
    fn new(kind: HandshakeKind) -> Self {
        let runtime = runtime();
        let settings = settings(&[]);
        let made = || identity::for_this_run(&["localhost".to_owned()], time::OffsetDateTime::now_utc());
        let served = made().expect("identity");
        let identity = made().expect("identity");
        let mut roots = RootCertStore::empty();
        for pem in [&served.authority_pem, &identity.authority_pem] {
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut client = builder.expect("TLS 1.3").with_root_certificates(roots).with_no_client_auth();
        if kind == HandshakeKind::Full {
            client.resumption = rustls::client::Resumption::disabled();
        }
        let listener = Listener::new(served.pair, &settings).expect("listener");
        let wire = runtime.block_on(Wire::new());
        let stage = Self { runtime, wire, settings, listener, client: Arc::new(client).into(), identity };
        stage.runtime.block_on(stage.shake(stage.pair()));
        stage
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        self.runtime.block_on(self.wire.pair())
    }

    /// The handshake and a byte down, behind which the client has its next ticket.
    async fn shake(&self, (client, bridge): (TcpStream, TcpStream)) -> (Inbound, TlsStream<TcpStream>) {
        tokio::join!(
            async {
                let socket = Socket::new(bridge, &self.settings.keepalive).expect("socket");
                let answered = self.listener.hello(socket).await.expect("hello").answer().await.expect("answer");
                let mut leg = answered.finish().await.expect("handshake");
                give(&mut leg, b"!").await;
                leg
            },
            self.shake_client(client)
        )
    }

    async fn shake_client(&self, tcp: TcpStream) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = self.client.connect(name, tcp).await.expect("connect");
        stream.read_exact(&mut [0]).await.expect("a byte");
        stream
    }

    /// rustls with the same choices as the listener's.
    fn bare_acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let pair = &self.identity.pair;
        let builder = builder.expect("versions").with_no_client_auth();
        let mut config = builder.with_single_cert(pair.chain.clone(), pair.key.clone_key()).expect("pair");
        config.ignore_client_order = true;
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("ticketer");
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Arc::new(config).into()
    }

    async fn shake_bare(
        &self,
        acceptor: &TlsAcceptor,
        (client, server): (TcpStream, TcpStream),
    ) -> TlsStream<TcpStream> {
        let serve = async {
            let mut stream = acceptor.accept(server).await.expect("accept");
            stream.write_all(b"!").await.expect("write");
            stream.flush().await.expect("flush");
            stream
        };
        let (_server, client) = tokio::join!(serve, self.shake_client(client));
        client
    }
}
