//! The way to a forwarder's targets: look-up, TCP, TLS, each failure with its cause and cure.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::backoff::{Standing, Turn};
use super::failure::{Blame, Failure, Kind};
use super::resolver::Resolver;
use crate::config::Settings;
use crate::config::settings::Trust;
use crate::config::values::{SendProxy, duration_text};
use crate::leg::proxy::{self, Ends};
use crate::leg::{Ending, Leg};
use crate::observe::snapshot::Certificate;
use crate::observe::tally::target::{Answered, Cause};
use crate::observe::tally::{Tally, target};
use crate::tls::certificate::Facts;
use crate::tls::explain::{self, Cure, Explained};
use crate::tls::outbound::{self, Connector, Failed, Outbound};
use crate::tls::trust::{Refusal, Voucher};

/// Opens connections to a forwarder's targets, to whichever answers first in their order
/// ([`super::backoff`]).
pub struct Dialer {
    /// In the order of the settings; each with trust, server name and sessions of its own.
    lines: Vec<Line>,
    standing: Standing,
    connect: Duration,
    resolver: Resolver,
    /// The forwarder's name in the log; without one nothing is logged.
    log: Option<String>,
    /// Where connections for clients are counted.
    tally: Option<Arc<Tally>>,
}

/// The way to one target.
struct Line {
    /// The forwarder's name if a file of settings stands behind it, so that hints can name commands.
    name: Option<String>,
    /// Of a forwarder with this target alone.
    settings: Arc<Settings>,
    connector: Connector,
    /// Whether there are other targets, which pins hold for as well.
    is_one_of_many: bool,
    /// What is seen of it.
    seen: Arc<target::Target>,
}

/// An open connection to the target, and how long it took.
pub struct Dialed {
    /// The connection.
    pub leg: Outbound,
    /// Look-up and TCP.
    pub tcp: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// Who vouches for the target's certificate.
    pub voucher: Voucher,
}

/// What a connection showed, once it is closed again.
pub struct Reached {
    /// The address that answered.
    pub address: String,
    /// `1.0`, `1.1` or `1.2`.
    pub version: &'static str,
    /// The cipher suite.
    pub suite: &'static str,
    /// The certificate, if one came and can be read.
    pub certificate: Option<Facts>,
    /// Who vouches for it.
    pub voucher: Voucher,
    /// Look-up and TCP.
    pub tcp: Duration,
    /// The TLS handshake.
    pub tls: Duration,
}

impl Dialed {
    /// Closes the connection, which some servers serve one at a time, and keeps what it showed.
    pub async fn close(mut self) -> Reached {
        let goodbye = poll_fn(|cx| self.leg.poll_end(cx, Ending::CloseNotify));
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        Reached {
            address: self.leg.address().map_or_else(|| "-".to_owned(), |address| address.ip().to_string()),
            version: self.leg.version(),
            suite: self.leg.suite(),
            certificate: self.leg.certificate().and_then(|leaf| Facts::of(&leaf).ok()),
            voucher: self.voucher,
            tcp: self.tcp,
            tls: self.tls,
        }
    }
}

/// How long it may take to say goodbye: a server may keep us in new handshakes for ever.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why an attempt brought no connection.
enum Missed {
    /// A session could not be resumed; a handshake in full may succeed.
    Resumption,
    /// What the caller is told.
    Failed(Box<Failure>),
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl Dialer {
    /// Makes everything ready that needs no network.
    ///
    /// # Errors
    /// Ciphers or authorities that can't be used.
    pub fn new(name: Option<String>, settings: Arc<Settings>, resolver: Resolver) -> Result<Self, outbound::Error> {
        let many = settings.target.count() > 1;
        let lines = settings.target.iter().map(|target| Line::new(name.clone(), settings.to(target), many));
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            standing: Standing::of(lines.len()),
            lines,
            connect: settings.deadlines.connect,
            resolver,
            log: None,
            tally: None,
        })
    }

    /// Has the log hear, under this name, when another target is used than the one before, and the
    /// tally count.
    #[must_use]
    pub fn telling(self, name: &str, tally: Arc<Tally>) -> Self {
        Self { log: Some(name.to_owned()), tally: Some(tally), ..self }
    }

    /// What is seen of each target, in the order of the settings.
    pub fn seen(&self) -> Vec<Arc<target::Target>> {
        self.lines.iter().map(|line| Arc::clone(&line.seen)).collect()
    }

    /// Opens TCP and TLS to the first target that answers.
    ///
    /// Look-ups and TCP of all targets share `connect_timeout`: each gets an equal part of what is
    /// left. Each handshake has a whole `handshake_timeout`; whoever comes later passes over a target
    /// that hung.
    ///
    /// # Errors
    /// [`Failure`] with stage, cause and cure; if several have failed, the first's, with every cause.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened. A target that has not answered for `HANGS` by
    /// then is one that failed, or clients with less patience than ours would never reach the next.
    pub async fn dial(&self) -> Result<Dialed, Failure> {
        self.dial_for(None).await
    }

    /// The same on behalf of a client, whose ends a PROXY header tells the target where one is sent.
    ///
    /// # Errors
    /// As [`Dialer::dial`].
    ///
    /// # Cancel safety
    /// As [`Dialer::dial`].
    pub async fn dial_for(&self, client: Option<Ends>) -> Result<Dialed, Failure> {
        let mut left = self.connect;
        let (mut tried, mut failures) = (Vec::new(), Vec::new());
        while let Some(turn) = self.standing.next(&tried, Instant::now()) {
            let share = part(left, self.lines.len() - tried.len());
            let line = &self.lines[turn.index];
            let mut waited = Duration::ZERO;
            let mut unanswered = Unanswered { dialer: self, turn, began: Instant::now(), is_over: false };
            let outcome = line.dial(&self.resolver, client, share, &mut waited).await;
            unanswered.is_over = true;
            match outcome {
                Ok(dialed) => {
                    let was_told = self.standing.answered(turn, Instant::now());
                    if let Some(tally) = &self.tally {
                        tally.dialed(dialed.tcp, dialed.tls);
                    }
                    line.note_answer(&dialed);
                    self.tell(line, was_told, &failures);
                    return Ok(dialed);
                }
                // Nothing that another target could do better.
                Err(failure) if failure.blame == Blame::Bridge => {
                    self.count(&failure);
                    return Err(failure);
                }
                Err(failure) => {
                    let pause = self.standing.failed(turn, Instant::now());
                    self.count(&failure);
                    line.note_failure(&failure);
                    failures.push((turn.index, failure, pause));
                }
            }
            left = left.saturating_sub(waited);
            tried.push(turn.index);
        }
        let none = || Failure::of(Explained::ours("none was tried"), Blame::Bridge, "target".to_owned(), "connect");
        Err(Failure::all(failures.into_iter().map(|(_, failure, _)| failure)).unwrap_or_else(none))
    }

    fn count(&self, failure: &Failure) {
        if let Some(tally) = &self.tally {
            tally.failed(failure.counted());
        }
    }

    /// Says in the log which targets were passed over for this one, and that one answers again.
    fn tell(&self, used: &Line, was_told: bool, failures: &[(usize, Failure, Duration)]) {
        let Some(name) = &self.log else { return };
        let used = used.settings.target.first();
        if was_told {
            tracing::info!(name: "target_answers", forwarder = %name, "target {used}: answers again");
        }
        for (index, failure, pause) in failures {
            if !self.standing.is_news(*index, Instant::now()) {
                continue;
            }
            let (hint, pause) = (failure.hint(), duration_text(whole(*pause)));
            let hint = hint.as_deref();
            let then = format!("{used} is used; tried again in {pause}");
            // What was there is not what is trusted now: somebody else's server, or a change to be told of.
            if failure.stage == CERTIFICATE {
                tracing::error!(name: "target_untrusted", forwarder = %name, hint, "{failure}; {then}");
            } else {
                tracing::warn!(name: "target_passed_over", forwarder = %name, hint, "{failure}; {then}");
            }
        }
    }
}

/// A try that is under way; dropped before it is over it was given up.
struct Unanswered<'a> {
    dialer: &'a Dialer,
    turn: Turn,
    began: Instant,
    is_over: bool,
}

/// How long a target may go without an answer, for a client that leaves then to count against it. No
/// more than the least patient clients have, and a slow server that is passed over for a second
/// is no harm.
const HANGS: Duration = Duration::from_secs(5);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let (dialer, now) = (self.dialer, Instant::now());
        let waited = now.saturating_duration_since(self.began);
        if self.is_over || dialer.lines.len() == 1 || waited < HANGS {
            return;
        }
        let pause = duration_text(whole(dialer.standing.failed(self.turn, now)));
        let Some(name) = dialer.log.as_ref().filter(|_| dialer.standing.is_news(self.turn.index, now)) else { return };
        let target = dialer.lines[self.turn.index].settings.target.first();
        let waited = waited.as_secs();
        tracing::warn!(name: "target_hangs", forwarder = %name, "target {target}: no connection after {waited}s, when the client left; tried again in {pause}");
    }
}

/// An equal part of a time for each of so many, in milliseconds, of which there is at least one.
fn part(time: Duration, of: usize) -> Duration {
    let parts = u32::try_from(of).unwrap_or(u32::MAX).max(1);
    Duration::from_millis(u64::try_from((time / parts).as_millis()).unwrap_or(u64::MAX).max(1))
}

/// In whole seconds, for people.
fn whole(time: Duration) -> Duration {
    Duration::from_secs(time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
}

/// The stage at which a certificate is judged.
pub const CERTIFICATE: &str = "certificate";

impl Line {
    fn new(name: Option<String>, settings: Settings, is_one_of_many: bool) -> Result<Self, outbound::Error> {
        let settings = Arc::new(settings);
        let seen = Arc::new(target::Target::new(settings.target.to_string()));
        Ok(Self { name, connector: Connector::new(Arc::clone(&settings))?, settings, is_one_of_many, seen })
    }

    fn note_answer(&self, dialed: &Dialed) {
        let leg = &dialed.leg;
        let answered = Answered {
            address: leg.address().map(|address| address.to_string()),
            version: leg.version(),
            suite: leg.suite(),
            handshake: dialed.tls,
        };
        self.seen.answered(answered, OffsetDateTime::now_utc(), || {
            let facts = Facts::of(&*leg.certificate()?).ok()?;
            let vouched_by = match &dialed.voucher {
                Voucher::System => Some("this system".to_owned()),
                Voucher::File(file) => Some(file.display().to_string()),
                Voucher::Pin => Some("pin".to_owned()),
                Voucher::Nobody => None,
            };
            let target = Some(self.settings.target.to_string());
            Some(Certificate { target, vouched_by, ..Certificate::of(&facts, "target") })
        });
    }

    fn note_failure(&self, failure: &Failure) {
        let text = format!("{}: {}", failure.stage, failure.cause);
        self.seen.failed(Cause { text, hint: failure.hint() }, OffsetDateTime::now_utc());
    }

    /// Opens TCP, within `limit`, and TLS; adds to `waited` what the look-up and TCP took.
    async fn dial(
        &self,
        resolver: &Resolver,
        client: Option<Ends>,
        limit: Duration,
        waited: &mut Duration,
    ) -> Result<Dialed, Failure> {
        let dialed = match self.attempt(resolver, client, limit, waited).await {
            // Nothing of a client's has been sent, so another connection does no harm.
            Err(Missed::Resumption) => self.attempt(resolver, client, limit, waited).await,
            other => other,
        };
        dialed.map_err(|missed| match missed {
            Missed::Failed(failure) => *failure,
            Missed::Resumption => self.failure("TLS handshake", explain::no_session()),
        })
    }

    /// One TCP connection and its handshake.
    async fn attempt(
        &self,
        resolver: &Resolver,
        client: Option<Ends>,
        limit: Duration,
        waited: &mut Duration,
    ) -> Result<Dialed, Missed> {
        let began = Instant::now();
        let socket = resolver.connect(self.settings.target.first(), limit).await;
        let tcp = began.elapsed();
        *waited += tcp;
        let mut socket = socket?;
        let header = match self.settings.send_proxy {
            SendProxy::Off => Vec::new(),
            SendProxy::V1 => proxy::text(client),
            SendProxy::V2 => proxy::binary(client),
        };
        // It fits the empty send queue of a fresh connection.
        let sent = socket.write_all(&header).await;
        sent.map_err(|error| self.failure("PROXY header", explain::io(&error)))?;
        let began = Instant::now();
        match self.connector.connect(socket).await {
            Ok(leg) => Ok(Dialed { leg, tcp, tls: began.elapsed(), voucher: self.connector.voucher() }),
            Err(failed) => Err(self.explain(failed)),
        }
    }

    fn explain(&self, failed: Failed) -> Missed {
        let failure = match failed {
            Failed::Resumption => return Missed::Resumption,
            Failed::Handshake(explained) => self.shaken(explained),
            Failed::Silence(explained) => Failure { kind: Kind::Silent, ..self.shaken(explained) },
            Failed::Certificate(refusal) => self.refused(&refusal),
            Failed::Ours(cause) => self.failure("TLS handshake", Explained::ours(cause)),
        };
        failure.into()
    }

    fn shaken(&self, explained: Explained) -> Failure {
        self.failure("TLS handshake", explain::behind_proxy_header(explained, &self.settings))
    }

    fn refused(&self, refusal: &Refusal) -> Failure {
        let presented = refusal.leaf.as_deref().and_then(|leaf| Facts::of(leaf).ok());
        let mut explained = explain::certificate::explain(refusal, presented.as_ref(), &self.settings);
        match (&mut explained.cure, &self.settings.trust) {
            // The pin that is there may be another target's.
            (Some(Cure::Trust { in_place_of, .. }), Trust::Pin(_)) if self.is_one_of_many => *in_place_of = None,
            _ => {}
        }
        Failure { presented: presented.map(Box::new), ..self.failure(CERTIFICATE, explained) }
    }

    fn failure(&self, stage: &'static str, explained: Explained) -> Failure {
        let side = format!("target {}", self.settings.target.first());
        Failure { forwarder: self.name.clone(), ..Failure::of(explained, Blame::Target, side, stage) }
    }
}
