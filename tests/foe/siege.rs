//! A bridge before a target that means harm now and then, and what must hold whatever that one does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::AlertDescription;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Owner, Patience, Script, Vitals, WORDS, owner, play};
use crate::common::{Bridge, Failure, Listening, TIMEOUT, connect, eventually, sha256, within};

/// The bridge's own deadlines in these tests: short, but long enough for the clients of a busy machine.
pub const DEADLINE: &str = "2s";
/// Until a hostile connection must have ended, on a machine that is busy with other tests too.
const IN_TIME: Duration = Duration::from_secs(20);
/// How long a client listens to a target that neither speaks nor ends, before it goes.
const CLIENT_WAITS: Duration = Duration::from_millis(1500);
/// Connections under way at once.
const AT_ONCE: usize = 48;
/// What memory may grow by for good: allocators keep some of what was freed.
const KEPT: usize = 24 << 20;

/// What a client met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    /// A fatal handshake_failure in place of the ServerHello.
    Refused,
    /// A connection: what it brought, and how it ended.
    Words(Vec<u8>, &'static str),
}

/// A bridge and its target.
pub struct Siege {
    pub bridge: Bridge,
    pub owner: Owner,
    ca: String,
    target: Target,
    at_rest: Vitals,
}

/// A server that plays the scripts it is given, one a connection.
struct Target {
    address: SocketAddr,
    next: mpsc::Sender<(Script, oneshot::Sender<()>)>,
    open: Arc<AtomicUsize>,
}

impl Target {
    async fn start(owner: Owner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (next, mut scripts) = mpsc::channel::<(Script, oneshot::Sender<()>)>(1);
        let open = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&open);
        tokio::spawn(async move {
            while let Some((script, is_met)) = scripts.recv().await {
                let (tcp, _) = listener.accept().await.expect("a connection");
                let _ = is_met.send(());
                let (owner, count) = (owner.clone(), Arc::clone(&count));
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    play(&script, &owner, tcp, PATIENCE).await;
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, next, open }
    }
}

/// Longer than the bridge's, so that it is the bridge that ends.
const PATIENCE: Patience = Patience { step: Duration::from_secs(5), end: TIMEOUT };

impl Listening for Target {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Siege {
    /// A bridge with short deadlines, which pins the target's certificate, and these arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        let owner = owner(1024);
        let pin = format!("sha256:{}", sha256(&owner.certificate));
        Self::start_trusting(owner, &[&["--pin", &pin], arguments].concat()).await
    }

    /// The same with another judgement of the target's certificate.
    pub async fn start_trusting(owner: Owner, arguments: &[&str]) -> Self {
        let target = Target::start(owner.clone()).await;
        let bridge = Bridge::to(&target)
            .args(["--handshake-timeout", DEADLINE, "--connect-timeout", DEADLINE, "--half-close-timeout", "1s"])
            .args(arguments)
            .start();
        let (ca, at_rest) = (bridge.ca(), Vitals::of(bridge.pid()));
        let mut siege = Self { bridge, owner, ca, target, at_rest };
        // What it takes once for all, it takes now.
        siege.good(AT_ONCE).await;
        eventually("the bridge at rest", || siege.is_at_rest());
        siege.at_rest = Vitals::of(siege.bridge.pid());
        siege
    }

    /// Lets clients meet these scripts, many at a time, and looks at what is left of the bridge.
    pub async fn withstands(&mut self, scripts: impl IntoIterator<Item = Script>) -> Vec<Met> {
        let met = self.meets(scripts).await;
        self.recovers().await;
        met
    }

    /// Lets clients meet these scripts, each in its turn: it ends in time and brings nothing but the
    /// target's words.
    pub async fn meets(&self, scripts: impl IntoIterator<Item = Script>) -> Vec<Met> {
        let mut visits = Vec::new();
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        for script in scripts {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("an open semaphore");
            let visit = self.visit(script).await;
            visits.push(tokio::spawn(async move {
                let met = visit.await;
                drop(permit);
                met.expect("no panic")
            }));
        }
        let mut all = Vec::new();
        for visit in visits {
            all.push(visit.await.expect("no panic"));
        }
        all
    }

    /// The same all at once, and beside them an ordinary client, who is served.
    pub async fn meets_beside_another(&self, scripts: Vec<Script>) -> Vec<Met> {
        let mut visits = Vec::new();
        for script in scripts {
            visits.push(self.visit(script).await);
        }
        assert_eq!(self.meets([Script::good(1)]).await, [Met::Words(WORDS.to_vec(), "close_notify")]);
        let mut all = Vec::new();
        for visit in visits {
            all.push(visit.await.expect("no panic"));
        }
        all
    }

    /// A client on its way, who has this server on the other side: the bridge has dialled it.
    async fn visit(&self, script: Script) -> JoinHandle<Met> {
        let (address, ca, shown) = (self.bridge.address(), self.ca.clone(), format!("{script:.1000?}"));
        let (is_met, met) = oneshot::channel();
        self.target.next.send((script, is_met)).await.expect("a living target");
        let visit = tokio::spawn(async move { visit(address, &ca, &shown).await });
        within("the bridge to dial the target", met).await.expect("a living target");
        visit
    }

    /// So many ordinary connections at once.
    async fn good(&self, count: usize) {
        for met in self.meets(vec![Script::good(1); count]).await {
            assert_eq!(met, Met::Words(WORDS.to_vec(), "close_notify"), "{}", self.bridge.log());
        }
    }

    /// It serves as if nothing had been, and has given everything back.
    pub async fn recovers(&mut self) {
        self.good(1).await;
        eventually("the target is let go", || self.target.open.load(Ordering::SeqCst) == 0);
        eventually("the bridge gives everything back", || self.is_at_rest());
        let log = self.bridge.log();
        for word in ["panicked", " ERROR "] {
            assert!(!log.contains(word), "{word} in the log:\n{log}");
        }
        let before = Vitals::of(self.bridge.pid());
        let window = Duration::from_millis(300);
        tokio::time::sleep(window).await;
        let busy = Vitals::of(self.bridge.pid()).busy - before.busy;
        assert!(busy < window / 4, "with nothing to do it was busy for {busy:?} of {window:?}");
    }

    fn is_at_rest(&self) -> bool {
        let now = Vitals::of(self.bridge.pid());
        now.descriptors <= self.at_rest.descriptors
            && now.threads <= self.at_rest.threads
            && now.memory <= self.at_rest.memory + KEPT
    }

    /// What the bridge takes now.
    pub fn vitals(&self) -> Vitals {
        Vitals::of(self.bridge.pid())
    }

    /// A target's connections that are open now.
    pub fn open(&self) -> usize {
        self.target.open.load(Ordering::SeqCst)
    }

    pub fn target(&self) -> SocketAddr {
        self.target.address
    }
}

/// One client. Whatever the target does, the client hears of it in time and is told no lies.
async fn visit(address: SocketAddr, ca: &str, script: &str) -> Met {
    let began = Instant::now();
    let met = match connect(address, ca, "localhost").await {
        Err(Failure::Alert(AlertDescription::HandshakeFailure)) => Met::Refused,
        Err(failure) => panic!("no alert 40 but {failure:?}, from {script}"),
        Ok(mut client) => {
            let mut got = Vec::new();
            let talk = async {
                tokio::io::AsyncWriteExt::write_all(&mut client, b"word").await?;
                client.read_to_end(&mut got).await
            };
            let end = match tokio::time::timeout(CLIENT_WAITS, talk).await {
                Ok(Ok(_)) => "close_notify",
                Ok(Err(_)) => "cut",
                Err(_) => "nothing",
            };
            // It has lost its patience, or got what it came for.
            client.reset();
            Met::Words(got, end)
        }
    };
    assert!(began.elapsed() < IN_TIME, "after {:?}: {met:?}, from {script}", began.elapsed());
    if let Met::Words(got, _) = &met {
        let said = WORDS.repeat(got.len() / WORDS.len() + 1);
        assert!(said.starts_with(got), "words that the target never said: {got:?}, from {script}");
    }
    met
}

/// A target that plays this script on every connection, as long as the runtime lives.
pub async fn always(script: Script) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let owner = owner(1024);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (script, owner) = (script.clone(), owner.clone());
            tokio::spawn(async move { play(&script, &owner, tcp, PATIENCE).await });
        }
    });
    address
}
