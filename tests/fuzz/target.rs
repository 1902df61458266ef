//! The target's side of mutation: what a server sends, to the connector that the bridge uses.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ewsbridge::config::file;
use ewsbridge::config::values::Version;
use ewsbridge::leg::{Ending, Fill, Leg};
use ewsbridge::tls::outbound::{Connector, Failed, Outbound};
use ewsbridge::tls::scan::{self, Answer, Hello};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::driver::Subject;
use super::{is_printable, outcome, runtime};
use crate::common::sha256;
use crate::foe::{Owner, Patience, Script, owner, play};

/// What all threads share: the server's certificate, and settings that meet it in different ways.
pub struct Fixture {
    owner: Owner,
    settings: Vec<String>,
    _folder: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        // Small, so that a handshake takes little time.
        let owner = owner(512);
        let folder = TempDir::with_prefix("ewsbridge-fuzz-").expect("a folder");
        let pem = openssl::x509::X509::from_der(&owner.certificate).and_then(|one| one.to_pem()).expect("PEM");
        let ca: PathBuf = folder.path().join("ca.pem");
        std::fs::write(&ca, pem).expect("a file");
        let pin = format!("pin = [\"sha256:{}\"]", sha256(&owner.certificate));
        let weak = "allow_weak = [\"no-rfc5746\", \"dhe\", \"3des\", \"rc4\"]";
        let chain = format!("ca = {ca:?}\naccept = [\"sha1\", \"rsa1024\", \"expired\", \"wrong-name\", \"ip-in-cn\"]");
        let settings = [
            pin.clone(),
            format!("insecure = true\n{weak}"),
            format!("{chain}\n{weak}"),
            format!("{pin}\n{weak}\nextensions = false\nmax_tls = \"1.1\""),
        ];
        let head = "format = 1\nlisten = 1\ntarget = \"127.0.0.1:443\"\n";
        Self { owner, settings: settings.map(|more| format!("{head}{more}\n")).into(), _folder: folder }
    }

    fn connectors(&self) -> Vec<Connector> {
        let connector = |text: &String| Connector::new(Arc::new(file::parse(text, None).expect("settings")));
        self.settings.iter().map(|text| connector(text).expect("a connector")).collect()
    }
}

/// One thread's own connectors and port.
struct Post {
    runtime: Runtime,
    connectors: Vec<Connector>,
    port: TcpListener,
}

impl Post {
    fn new(fixture: &Fixture) -> Self {
        let runtime = runtime();
        let port = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        Self { runtime, connectors: fixture.connectors(), port }
    }

    fn address(&self) -> SocketAddr {
        self.port.local_addr().expect("bound")
    }

    async fn accept(&self) -> TcpStream {
        self.port.accept().await.expect("a connection").0
    }

    /// The server's side: these bytes and the end, whoever asks.
    async fn serve(&self, flight: &[u8]) {
        let mut tcp = self.accept().await;
        let _ = tcp.write_all(flight).await;
        let _ = tcp.shutdown().await;
        let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
    }

    /// The bridge's side: a handshake, a word, and whatever comes back.
    async fn dial(&self, settings: u8) -> (String, Vec<u8>) {
        // A server may be gone before its first word.
        let Ok(tcp) = TcpStream::connect(self.address()).await else { return ("reset".to_owned(), Vec::new()) };
        match self.connectors[usize::from(settings) % self.connectors.len()].connect(tcp).await {
            Ok(leg) => talk(leg).await,
            Err(failed) => (outcome(&told(&failed)), Vec::new()),
        }
    }
}

/// What an admin would be told.
fn told(failed: &Failed) -> String {
    match failed {
        Failed::Handshake(explained) | Failed::Silence(explained) => {
            let hint = explained.cure.as_ref().map_or_else(String::new, |cure| cure.text(None));
            is_printable(&explained.cause);
            is_printable(&hint);
            format!("{} {hint}", explained.cause)
        }
        Failed::Certificate(refusal) => {
            is_printable(&refusal.cause);
            format!("certificate {:?} {}", refusal.faults, refusal.cause)
        }
        Failed::Resumption => "resumption".to_owned(),
        Failed::Ours(cause) => panic!("our own fault: {cause}"),
    }
}

/// More data than this is no server's that was mutated.
const MUCH: usize = 1 << 20;

async fn talk(mut leg: Outbound) -> (String, Vec<u8>) {
    let mut got = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    let said = poll_fn(|cx| leg.poll_write(cx, b"word")).await.is_ok();
    let end = loop {
        match poll_fn(|cx| leg.poll_fill(cx, &mut buffer)).await {
            Ok(Fill::Bytes(count)) => got.extend_from_slice(&buffer[..count]),
            Ok(Fill::Ended(how)) => break how.word().to_owned(),
            Err(error) => break error.to_string(),
        }
        assert!(got.len() < MUCH, "it never ends");
    };
    let _ = tokio::time::timeout(Duration::from_millis(50), poll_fn(|cx| leg.poll_end(cx, Ending::CloseNotify))).await;
    (outcome(&format!("connected {said} {} {end}", got.is_empty())), got)
}

/// A server that sends the same bytes to everybody, and has no keys.
pub struct Flights(Post);

impl Flights {
    pub fn new(fixture: &Fixture) -> Self {
        Self(Post::new(fixture))
    }
}

impl Subject for Flights {
    fn take(&mut self, input: &[u8]) -> String {
        let (settings, flight) = input.split_first().unwrap_or((&0, &[]));
        let both = async { tokio::join!(self.0.dial(*settings), self.0.serve(flight)) };
        let ((said, got), ()) = self.0.runtime.block_on(both);
        assert!(!said.starts_with("connected") && got.is_empty(), "connected to a server without keys: {said} {got:?}");
        said
    }
}

/// A server that has keys, and messages of its own.
pub struct Scripts {
    post: Post,
    owner: Owner,
}

impl Scripts {
    pub fn new(fixture: &Fixture) -> Self {
        Self { post: Post::new(fixture), owner: fixture.owner.clone() }
    }
}

/// Short: a step that waits in vain is a waste of time, not a fault.
const PATIENCE: Patience = Patience { step: Duration::from_millis(10), end: Duration::from_secs(5) };

impl Subject for Scripts {
    fn take(&mut self, input: &[u8]) -> String {
        let script = Script::from_bytes(input);
        let settings = input.first().copied().unwrap_or(0) >> 4;
        let server = async {
            let tcp = self.post.accept().await;
            let steps = [&script.steps[..], &[crate::foe::Step::Fin]].concat();
            play(&Script { steps, ..script.clone() }, &self.owner, tcp, PATIENCE).await
        };
        let ((outcome, got), said) =
            self.post.runtime.block_on(async { tokio::join!(self.post.dial(settings), server) });
        assert!(said.starts_with(&got), "words that nobody said: {got:?} of {said:?}");
        outcome
    }
}

/// The same servers, asked by `probe`.
pub struct Scans(Post);

impl Scans {
    pub fn new(fixture: &Fixture) -> Self {
        Self(Post::new(fixture))
    }
}

impl Subject for Scans {
    fn take(&mut self, input: &[u8]) -> String {
        let flight = input.get(1..).unwrap_or_default();
        let hello = Hello {
            newest: Some(Version::Tls1_2),
            suites: vec![0xc02f, 0xc013, 0x009c, 0x002f, 0x0033],
            name: None,
            extensions: true,
            length: None,
        };
        let ask = scan::ask(self.0.address(), &hello, PATIENCE.end);
        let answer = self.0.runtime.block_on(async { tokio::join!(ask, self.0.serve(flight)) }).0;
        match answer {
            Answer::Flight(flight) => {
                let chain: usize = flight.chain.iter().map(Vec::len).sum();
                assert!(chain <= input.len(), "certificates that nobody sent");
                let (certificates, extensions) = (flight.chain.len().min(4), flight.extensions.len().min(8));
                let key = flight.key.map_or("-", |key| if matches!(key, scan::Key::Dhe(_)) { "dhe" } else { "curve" });
                format!("{certificates} {extensions} {key} {} {}", flight.asks, flight.is_complete)
            }
            Answer::Unreachable(cause) => panic!("unreachable: {cause}"),
            Answer::Silent => panic!("silent, though the server has ended"),
            other => format!("{other:?}"),
        }
    }
}
