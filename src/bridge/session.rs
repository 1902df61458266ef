//! One connection's life, from the accepted socket to its line in the log.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::admission::{Admission, Refused, Visit};
use super::failure::{Blame, Failure, Kind};
use super::forwarder::Serving;
use super::origin::Origin;
use super::relay::{self, End, Outcome, Patience, Side, Terms};
use super::watch::Watch;
use crate::config::Settings;
use crate::config::values::{HalfClose, TargetEof, duration_text};
use crate::leg::Ending;
use crate::leg::socket::Socket;
use crate::observe::progress::Progress;
use crate::observe::tally::{Agreed, Open};
use crate::tls::explain::{self, Explained};
use crate::tls::inbound::{self, Alert, Answered, Inbound};
use crate::tls::outbound::Outbound;

/// Serves one client until both sides have ended, and logs how it went.
pub async fn serve(forwarder: Arc<Serving>, admission: Arc<Admission>, tcp: TcpStream, peer: SocketAddr) {
    let began = Instant::now();
    let mut origin = Origin::of(&tcp, peer);
    let visit = match enter(&forwarder, &admission, &origin).await {
        Ok(visit) => visit,
        Err(refused) => {
            if let Ok(socket) = Socket::new(tcp, &forwarder.settings.keepalive) {
                refused.tell(socket).await;
            }
            return;
        }
    };
    if let Err(failure) = lead(&forwarder, visit, tcp, &mut origin, began).await {
        forwarder.tally.failed(failure.counted());
        log_failure(&forwarder, origin.client, &failure);
    }
}

/// Judges the peer's address where it is the client's: behind a PROXY header another one is.
async fn enter<'a>(forwarder: &Serving, admission: &'a Admission, origin: &Origin) -> Result<Visit<'a>, Refused> {
    let settings = &forwarder.settings;
    if !settings.expects_proxy_header(origin.peer.ip()) {
        admission.allows(&settings.allow_clients, origin.client)?;
    }
    admission.enter(origin.client).await
}

async fn lead(
    forwarder: &Serving,
    mut visit: Visit<'_>,
    tcp: TcpStream,
    origin: &mut Origin,
    began: Instant,
) -> Result<(), Failure> {
    let Some(answered) = hello(forwarder, &visit, tcp, origin).await? else { return Ok(()) };
    let client = origin.client;
    // The log tells of a failed target first: a client may take its time to read its end.
    let (inbound, target) = if answered.asks_for_certificate() {
        let inbound = finish(forwarder, answered, client).await?;
        match dial(forwarder, &mut visit, origin, inbound.client_left()).await? {
            Ok(target) => (inbound, target),
            Err(_) => {
                inbound.abandon().await;
                return Ok(());
            }
        }
    } else {
        match dial(forwarder, &mut visit, origin, answered.client_left()).await? {
            Ok(target) => (finish(forwarder, answered, client).await?, target),
            Err(alert) => {
                answered.refuse(alert).await;
                return Ok(());
            }
        }
    };
    visit.connected();
    relay(forwarder, inbound, target, *origin, began).await;
    Ok(())
}

/// From the first byte to an acceptable ClientHello, behind the PROXY header that says who `origin` is,
/// where one must come. `None`: it names a client that may not come, who has been told.
async fn hello(
    forwarder: &Serving,
    visit: &Visit<'_>,
    tcp: TcpStream,
    origin: &mut Origin,
) -> Result<Option<Answered>, Failure> {
    let settings = &forwarder.settings;
    let limit = settings.deadlines.hello;
    let hello = async {
        let mut socket = Socket::new(tcp, &settings.keepalive).map_err(inbound::Error::Io)?;
        if settings.expects_proxy_header(origin.peer.ip()) {
            origin.take(inbound::proxy_header(&mut socket).await?);
            if let Err(refused) = visit.allows(&settings.allow_clients, origin.client) {
                refused.tell(socket).await;
                return Ok(None);
            }
        }
        forwarder.listener.hello(socket).await?.answer().await.map(Some)
    };
    let led = timeout(limit, hello).await;
    let client = origin.client;
    match led {
        Ok(Ok(answered)) => Ok(answered),
        Ok(Err(inbound::Error::StrayProxyHeader)) => {
            let why = explain::client::stray_proxy_header(origin.peer.ip(), settings);
            Err(client_failure(forwarder, client, "PROXY header", why))
        }
        Ok(Err(error)) => Err(inbound_failure(forwarder, client, "ClientHello", &error)),
        Err(_) => {
            Err(client_failure(forwarder, client, "ClientHello", explain::client::silence(&duration_text(limit))))
        }
    }
}

/// The target, once the client has the place of a connection; or the alert by which the client is to
/// be told that there is none, or that the target can't be reached, which the log knows then. The
/// error is one of a client that has `left` meanwhile.
async fn dial(
    forwarder: &Serving,
    visit: &mut Visit<'_>,
    origin: &Origin,
    left: impl Future<Output = ()>,
) -> Result<Result<Outbound, Alert>, Failure> {
    let client = origin.client;
    let gone = |when| client_failure(forwarder, client, "TLS handshake", explain::client::left(when));
    let mut left = pin!(left);
    let admitted = tokio::select! {
        biased;
        admitted = visit.connect(client) => admitted,
        () = &mut left => return Err(gone("while it waited for its turn")),
    };
    if let Err(alert) = admitted {
        return Ok(Err(alert));
    }
    let reached = tokio::select! {
        reached = forwarder.dialer.dial_for(origin.ends()) => reached,
        () = left => return Err(gone("while the target was dialled")),
    };
    Ok(reached.map(|dialed| dialed.leg).map_err(|failure| {
        log_failure(forwarder, client, &failure);
        failure.alert()
    }))
}

/// From our ServerHello to the end of the client's handshake.
async fn finish(forwarder: &Serving, answered: Answered, client: SocketAddr) -> Result<Inbound, Failure> {
    let limit = forwarder.settings.deadlines.handshake;
    match timeout(limit, answered.finish()).await {
        Ok(Ok(inbound)) => Ok(inbound),
        Ok(Err(error)) => Err(inbound_failure(forwarder, client, "TLS handshake", &error)),
        Err(_) => {
            Err(client_failure(forwarder, client, "TLS handshake", explain::client::silence(&duration_text(limit))))
        }
    }
}

async fn relay(forwarder: &Serving, mut inbound: Inbound, mut target: Outbound, origin: Origin, began: Instant) {
    let terms = terms(&forwarder.settings);
    let took = began.elapsed();
    let open = Open {
        client: origin.client,
        via: origin.via(),
        target: target.address(),
        client_certificate: inbound.certificate_subject(),
        inbound: Agreed { version: inbound.version(), suite: inbound.suite(), resumed: inbound.resumed() },
        outbound: Agreed { version: target.version(), suite: target.suite().to_owned(), resumed: target.resumed() },
        since: OffsetDateTime::now_utc() - took,
        progress: Progress::new(),
    };
    let place = forwarder.tally.opened(open, took);
    let open = Arc::clone(&place.open);
    let mut watch = Watch::over(inbound.health(), target.health(), forwarder.settings.deadlines.dead_peer);
    let outcome = tokio::select! {
        outcome = relay::run(&mut inbound, &mut target, terms, &open.progress) => outcome,
        never = watch.keep() => match never {},
    };
    let outcome = watch.correct(outcome);
    let took = began.elapsed();
    place.ended((outcome.up, outcome.down), word(outcome.by), kind(&outcome.end), took);
    log_outcome(forwarder, &open, &outcome, took);
}

fn terms(settings: &Settings) -> Terms {
    let deadlines = &settings.deadlines;
    Terms {
        patience: Patience { open: deadlines.idle, half_closed: deadlines.half_close, linger: deadlines.linger },
        target_fin: match settings.target_eof {
            TargetEof::Mirror => Ending::Fin,
            TargetEof::Clean => Ending::CloseNotify,
        },
        hold: match settings.half_close {
            HalfClose::Forward => None,
            HalfClose::Hold => Some(FLOWING),
        },
    }
}

/// A client's end that is held leaves when the target has been silent for this long after an answer:
/// longer than the pauses within one, even of a server under load.
const FLOWING: Duration = Duration::from_secs(5);

/// The kind of an end, of a fixed few, where the log has a sentence.
fn kind(end: &End) -> &'static str {
    match end {
        End::Peer(how) => how.word(),
        End::Failed(_) => "broken",
        End::Silent(_) => "silent",
        End::Unanswered(_) => "vanished",
    }
}

fn log_outcome(forwarder: &Serving, open: &Open, outcome: &Outcome, time: Duration) {
    let end = match &outcome.end {
        End::Peer(how) => how.word().to_owned(),
        End::Failed(error) => format!("\"{}\"", crate::words::of(error)),
        End::Silent(limit) => format!("\"silent for {}\"", duration_text(*limit)),
        End::Unanswered(time) => {
            format!("\"no answer from the {} for {}\"", word(outcome.by), duration_text(*time))
        }
    };
    let by = word(outcome.by);
    let target = open.target.map_or_else(|| forwarder.settings.target.to_string(), |address| address.to_string());
    tracing::info!(
        name: "session_closed",
        forwarder = %forwarder.name,
        client = %open.client,
        via = open.via.map(tracing::field::display),
        %target,
        tls_in = %open.inbound.version,
        suite_in = %open.inbound.suite,
        client_cert = open.client_certificate.as_deref(),
        tls_out = %open.outbound.version,
        suite_out = %open.outbound.suite,
        resumed = open.outbound.resumed,
        up = outcome.up,
        down = outcome.down,
        seconds = %format_args!("{:.3}", time.as_secs_f64()),
        ended_by = %by,
        end = %end,
        "session closed"
    );
}

fn word(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Target => "target",
        Side::Bridge => "bridge",
    }
}

fn client_failure(forwarder: &Serving, client: SocketAddr, stage: &'static str, why: Explained) -> Failure {
    let name = forwarder.is_on_disk().then(|| forwarder.name.clone());
    Failure { forwarder: name, ..Failure::of(why, Blame::Client, format!("client {client}"), stage) }
}

fn inbound_failure(forwarder: &Serving, client: SocketAddr, stage: &'static str, error: &inbound::Error) -> Failure {
    let stage = if matches!(error, inbound::Error::ProxyHeader(_)) { "PROXY header" } else { stage };
    client_failure(forwarder, client, stage, explain::client::explain(error, &forwarder.settings))
}

/// The target's faults are warnings and ours errors. A client's are for the curious, scanners being
/// what they are, unless it is one that an admin can help: then there is a hint.
fn log_failure(forwarder: &Serving, client: SocketAddr, failure: &Failure) {
    let name = &forwarder.name;
    let hint = failure.hint();
    let hint = hint.as_deref();
    match (failure.blame, failure.kind) {
        (Blame::Bridge, _) => tracing::error!(name: "bridge_failed", forwarder = %name, %client, hint, "{failure}"),
        (Blame::Client, Kind::Foreign) => tracing::debug!(forwarder = %name, hint, "{failure}"),
        (Blame::Client, _) if hint.is_none() => tracing::debug!(forwarder = %name, "{failure}"),
        (Blame::Client, _) => tracing::warn!(name: "client_failed", forwarder = %name, %client, hint, "{failure}"),
        (Blame::Target, _) => tracing::warn!(name: "target_failed", forwarder = %name, %client, hint, "{failure}"),
    }
}
