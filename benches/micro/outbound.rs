//! The target's leg: TLS 1.2 with an RSA-2048 certificate that is verified, and a record each way.

use std::fmt;
use std::pin::Pin;

use divan::Bencher;
use divan::counter::BytesCount;
use ewsbridge::tls::outbound::{Connector, Outbound};
use openssl::ssl::{
    Ssl, SslAcceptor, SslContext, SslFiletype, SslMethod, SslSession, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_openssl::SslStream;

use crate::common::{Certificate, Pki};
use crate::peers::{Wire, runtime, settings};
use crate::relay::{give, take};

const RECORD: usize = 16 << 10;

/// Whether the target's session is resumed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    Resumed,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if *self == Self::Full { "Full" } else { "Resumed" })
    }
}

#[divan::bench(args = [Kind::Full, Kind::Resumed])]
fn handshake(bencher: Bencher<'_, '_>, kind: Kind) {
    let stage = Stage::new(kind);
    bencher.with_inputs(|| stage.pair()).bench_local_values(|pair| {
        let (leg, target) = stage.runtime.block_on(stage.shake(pair));
        assert_eq!(leg.resumed(), kind == Kind::Resumed);
        (leg, target)
    });
}

#[divan::bench(args = [Kind::Full, Kind::Resumed])]
fn handshake_of_openssl_alone(bencher: Bencher<'_, '_>, kind: Kind) {
    let stage = Stage::new(kind);
    let context = stage.bare_context();
    let first = stage.runtime.block_on(stage.shake_bare(&context, None, stage.pair()));
    // A copy for each connection: OpenSSL spoils the session of one that is dropped without an end.
    let session = first.ssl().session().expect("a session").to_der().expect("DER");
    let copy = || (kind == Kind::Resumed).then(|| SslSession::from_der(&session).expect("a session"));
    bencher.with_inputs(|| (stage.pair(), copy())).bench_local_values(|(pair, session)| {
        let stream = stage.runtime.block_on(stage.shake_bare(&context, session.as_ref(), pair));
        assert_eq!(stream.ssl().session_reused(), kind == Kind::Resumed);
        stream
    });
}

#[divan::bench]
fn one_full_record_up(bencher: Bencher<'_, '_>) {
    let stage = Stage::new(Kind::Full);
    let (mut leg, mut target) = stage.runtime.block_on(stage.shake(stage.pair()));
    let (bytes, mut buffer) = (vec![7; RECORD], vec![0; RECORD]);
    bencher.counter(BytesCount::new(RECORD)).bench_local(|| {
        stage.runtime.block_on(async {
            let (received, ()) = tokio::join!(target.read_exact(&mut buffer), give(&mut leg, &bytes));
            received.expect("read");
        });
        assert!(buffer[RECORD - 1] == 7);
    });
}

#[divan::bench]
fn one_full_record_down(bencher: Bencher<'_, '_>) {
    let stage = Stage::new(Kind::Full);
    let (mut leg, mut target) = stage.runtime.block_on(stage.shake(stage.pair()));
    let (bytes, mut buffer) = (vec![7; RECORD], vec![0; RECORD]);
    bencher.counter(BytesCount::new(RECORD)).bench_local(|| {
        stage.runtime.block_on(async {
            let (sent, ()) = tokio::join!(target.write_all(&bytes), take(&mut leg, &mut buffer));
            sent.expect("write");
        });
        assert!(buffer[RECORD - 1] == 7);
    });
}

/// A connector with the default settings, and the target that it trusts.
struct Stage {
    runtime: Runtime,
    wire: Wire,
    connector: Connector,
    target: SslContext,
    pki: Pki,
}

impl Stage {
    /// With a session kept already where it is to be resumed.
    fn new(kind: Kind) -> Self {
        let runtime = runtime();
        let pki = Pki::new();
        let authority = pki.ca_file().display().to_string();
        let resumption = (kind == Kind::Resumed).to_string();
        let settings = settings(&[("ca", &authority), ("resumption", &resumption)]);
        let connector = Connector::new(settings).expect("connector");
        let target = acceptor(&pki.server());
        let wire = runtime.block_on(Wire::new());
        let stage = Self { runtime, wire, connector, target, pki };
        stage.runtime.block_on(stage.shake(stage.pair()));
        stage
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        self.runtime.block_on(self.wire.pair())
    }

    async fn shake(&self, (bridge, target): (TcpStream, TcpStream)) -> (Outbound, SslStream<TcpStream>) {
        let (leg, target) = tokio::join!(self.connector.connect(bridge), self.accept(target));
        (leg.expect("connect"), target)
    }

    async fn accept(&self, tcp: TcpStream) -> SslStream<TcpStream> {
        let mut stream = SslStream::new(Ssl::new(&self.target).expect("SSL"), tcp).expect("stream");
        Pin::new(&mut stream).accept().await.expect("accept");
        stream
    }

    /// OpenSSL that verifies chain and name.
    fn bare_context(&self) -> SslContext {
        let mut context = SslContext::builder(SslMethod::tls_client()).expect("context");
        context.set_max_proto_version(Some(SslVersion::TLS1_2)).expect("version");
        context.set_ca_file(self.pki.ca_file()).expect("CA");
        context.set_verify(SslVerifyMode::PEER);
        context.set_session_cache_mode(SslSessionCacheMode::CLIENT);
        context.build()
    }

    async fn shake_bare(
        &self,
        context: &SslContext,
        session: Option<&SslSession>,
        (client, target): (TcpStream, TcpStream),
    ) -> SslStream<TcpStream> {
        let mut ssl = Ssl::new(context).expect("SSL");
        ssl.set_hostname("localhost").expect("name");
        ssl.param_mut().set_host("localhost").expect("name");
        if let Some(session) = session {
            // SAFETY: the session comes from a connection of this very context.
            #[allow(unsafe_code)]
            unsafe { ssl.set_session(session) }.expect("session");
        }
        let mut stream = SslStream::new(ssl, client).expect("stream");
        let (connected, _target) = tokio::join!(Pin::new(&mut stream).connect(), self.accept(target));
        connected.expect("connect");
        stream
    }
}

/// A target as Exchange 2013 to 2019 are: TLS 1.2, RSA-2048, its sessions resumed.
fn acceptor(certificate: &Certificate) -> SslContext {
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server()).expect("acceptor");
    acceptor.set_max_proto_version(Some(SslVersion::TLS1_2)).expect("version");
    acceptor.set_cipher_list("ECDHE-RSA-AES128-GCM-SHA256").expect("cipher");
    acceptor.set_certificate_chain_file(&certificate.cert_file).expect("certificate");
    acceptor.set_private_key_file(&certificate.key_file, SslFiletype::PEM).expect("key");
    acceptor.set_session_id_context(b"micro").expect("context");
    acceptor.build().into_context()
}
