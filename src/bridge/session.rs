//! One connection's life, from the accepted socket to its line in the log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::admission::{Admission, Refused, Visit};
use super::failure::{Blame, Failure, Kind};
use super::forwarder::Serving;
use super::relay::{self, End, Outcome, Patience, Side};
use crate::config::values::duration_text;
use crate::leg::socket::Socket;
use crate::tls::explain::{self, Explained};
use crate::tls::inbound::{self, Answered, Inbound};
use crate::tls::outbound::Outbound;

/// Serves one client until both sides have ended, and logs how it went.
pub async fn serve(forwarder: Arc<Serving>, admission: Arc<Admission>, tcp: TcpStream, client: SocketAddr) {
    let began = Instant::now();
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let visit = match enter(&forwarder, &admission, client).await {
        Ok(visit) => visit,
        Err(refused) => {
            if let Ok(socket) = Socket::new(tcp, &forwarder.settings.keepalive) {
                refused.tell(socket).await;
            }
            return;
        }
    };
    if let Err(failure) = lead(&forwarder, visit, tcp, client, began).await {
        log_failure(&forwarder, client, &failure);
    }
}

async fn enter<'a>(forwarder: &Serving, admission: &'a Admission, client: SocketAddr) -> Result<Visit<'a>, Refused> {
    admission.allows(&forwarder.settings.allow_clients, client)?;
    admission.enter(client).await
}

async fn lead(
    forwarder: &Serving,
    mut visit: Visit<'_>,
    tcp: TcpStream,
    client: SocketAddr,
    began: Instant,
) -> Result<(), Failure> {
    let answered = hello(forwarder, tcp, client).await?;
    let left = |when| client_failure(forwarder, client, "TLS handshake", explain::client::left(when));
    let admitted = tokio::select! {
        biased;
        admitted = visit.connect() => admitted,
        () = answered.client_left() => return Err(left("while it waited for its turn")),
    };
    if let Err(alert) = admitted {
        answered.refuse(alert).await;
        return Ok(());
    }
    let reached = tokio::select! {
        reached = forwarder.dialer.dial() => reached,
        () = answered.client_left() => return Err(left("while the target was dialled")),
    };
    let target = match reached {
        Ok(dialed) => dialed.leg,
        Err(failure) => {
            // The log tells first: a client may take its time to read the alert.
            log_failure(forwarder, client, &failure);
            answered.refuse(failure.alert()).await;
            return Ok(());
        }
    };
    let inbound = finish(forwarder, answered, client).await?;
    visit.connected();
    relay(forwarder, inbound, target, client, began).await;
    Ok(())
}

/// From the first byte to an acceptable ClientHello.
async fn hello(forwarder: &Serving, tcp: TcpStream, client: SocketAddr) -> Result<Answered, Failure> {
    let limit = forwarder.settings.deadlines.hello;
    let hello = async { forwarder.listener.hello(tcp, &forwarder.settings.keepalive).await?.answer().await };
    match timeout(limit, hello).await {
        Ok(Ok(answered)) => Ok(answered),
        Ok(Err(error)) => Err(inbound_failure(forwarder, client, "ClientHello", &error)),
        Err(_) => {
            Err(client_failure(forwarder, client, "ClientHello", explain::client::silence(&duration_text(limit))))
        }
    }
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

async fn relay(forwarder: &Serving, mut inbound: Inbound, mut target: Outbound, client: SocketAddr, began: Instant) {
    let deadlines = &forwarder.settings.deadlines;
    let patience = Patience { open: deadlines.idle, half_closed: deadlines.half_close, linger: deadlines.linger };
    let parameters = Parameters {
        tls_in: inbound.version(),
        suite_in: inbound.suite(),
        tls_out: target.version(),
        suite_out: target.suite(),
        resumed: target.resumed(),
    };
    let address = target.address();
    let outcome = relay::run(&mut inbound, &mut target, patience).await;
    log_outcome(forwarder, client, address, &parameters, &outcome, began.elapsed());
}

/// What the two handshakes agreed on.
struct Parameters {
    tls_in: &'static str,
    suite_in: String,
    tls_out: &'static str,
    suite_out: &'static str,
    resumed: bool,
}

fn log_outcome(
    forwarder: &Serving,
    client: SocketAddr,
    target: Option<SocketAddr>,
    with: &Parameters,
    outcome: &Outcome,
    time: Duration,
) {
    let end = match &outcome.end {
        End::Peer(how) => how.word().to_owned(),
        End::Failed(error) => format!("\"{}\"", crate::words::of(error)),
        End::Silent(limit) => format!("\"silent for {}\"", duration_text(*limit)),
    };
    let by = match outcome.by {
        Side::Client => "client",
        Side::Target => "target",
        Side::Bridge => "bridge",
    };
    let target = target.map_or_else(|| forwarder.settings.target.to_string(), |address| address.to_string());
    tracing::info!(
        forwarder = %forwarder.name,
        %client,
        %target,
        tls_in = %with.tls_in,
        suite_in = %with.suite_in,
        tls_out = %with.tls_out,
        suite_out = %with.suite_out,
        resumed = with.resumed,
        up = outcome.up,
        down = outcome.down,
        seconds = %format_args!("{:.3}", time.as_secs_f64()),
        ended_by = %by,
        end = %end,
        "session closed"
    );
}

fn client_failure(forwarder: &Serving, client: SocketAddr, stage: &'static str, why: Explained) -> Failure {
    let name = forwarder.is_on_disk().then(|| forwarder.name.clone());
    Failure { forwarder: name, ..Failure::of(why, Blame::Client, format!("client {client}"), stage) }
}

fn inbound_failure(forwarder: &Serving, client: SocketAddr, stage: &'static str, error: &inbound::Error) -> Failure {
    client_failure(forwarder, client, stage, explain::client::explain(error, &forwarder.settings))
}

/// The target's faults are warnings and ours errors. A client's are for the curious, scanners being
/// what they are, unless it is one that an admin can help: then there is a hint.
fn log_failure(forwarder: &Serving, client: SocketAddr, failure: &Failure) {
    let name = &forwarder.name;
    let hint = failure.hint();
    let hint = hint.as_deref();
    match (failure.blame, failure.kind) {
        (Blame::Bridge, _) => tracing::error!(forwarder = %name, %client, hint, "{failure}"),
        (Blame::Client, Kind::Foreign) => tracing::debug!(forwarder = %name, hint, "{failure}"),
        (Blame::Client, _) if hint.is_none() => tracing::debug!(forwarder = %name, "{failure}"),
        (Blame::Target | Blame::Client, _) => tracing::warn!(forwarder = %name, %client, hint, "{failure}"),
    }
}
