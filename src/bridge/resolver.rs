//! The target's name into addresses, looked up for each connection, unless very many come at once.
//!
//! `getaddrinfo` blocks a thread and can't be cancelled, so that a dead name server could eat every
//! thread there is. One look-up a name runs at a time, whoever asks meanwhile shares its answer, and
//! each asker has its own deadline. Where clients come faster than 20 a second they share what was looked up
//! within the last second.
//!
//! Every answer is followed: new addresses, none, no such name. No answer is another matter: then the
//! last addresses are used ([`super::last_good`]).

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, timeout_at};

use super::failure::{Blame, Failure};
use super::last_good::LastGood;
use crate::config::values::{Host, Target, duration_text};
use crate::tls::explain::{Explained, way};

/// Why a look-up brought no address.
#[derive(Clone)]
struct Missed {
    why: Explained,
    /// Nobody said anything about the name.
    is_no_answer: bool,
}

/// What a look-up brought, once it is over.
type Answer = Option<Result<Arc<[IpAddr]>, Missed>>;

/// A look-up under way.
#[derive(Clone)]
struct Running {
    began: Instant,
    answer: watch::Receiver<Answer>,
}

/// Looks names up, one look-up a name at a time. Clones share their look-ups, and what they brought.
#[derive(Clone, Default)]
pub struct Resolver {
    running: Arc<Mutex<HashMap<String, Running>>>,
    last_good: Arc<LastGood>,
}

/// How long one address may stay silent before the next is tried beside it (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// How long a look-up may take where the last addresses are known (RFC 8767 §5: 1.8 s).
const PATIENCE: Duration = Duration::from_millis(1800);

impl Resolver {
    /// The addresses of a host, in the system's order of preference; within `limit`.
    ///
    /// # Errors
    /// The system's words for a name that can't be resolved.
    ///
    /// # Cancel safety
    /// The look-up goes on for whoever else waits for it.
    async fn addresses(&self, host: &Host, limit: Duration) -> Result<Arc<[IpAddr]>, Explained> {
        let name = match host {
            Host::Address(address) => return Ok(Arc::from([*address])),
            Host::Name(name) => name,
        };
        let now = Instant::now();
        if let Some(addresses) = self.last_good.shared(name, now) {
            return Ok(addresses);
        }
        let deadline = now + limit;
        let mut running = self.join_or_start(name);
        let is_known = self.last_good.get(name, Instant::now()).is_some();
        // A look-up that was silent for others is not waited for anew.
        let patience = if is_known { deadline.min(running.began + PATIENCE) } else { deadline };
        let missed = match timeout_at(patience, running.answer.wait_for(Option::is_some)).await {
            Ok(Err(_)) => return Err(Explained::ours("the look-up was abandoned")),
            Ok(Ok(found)) => match found.clone() {
                Some(Ok(addresses)) => return Ok(addresses),
                Some(Err(missed)) if !missed.is_no_answer => return Err(missed.why),
                Some(Err(missed)) => missed.why,
                None => Explained::ours("no answer"),
            },
            Err(_) if is_known => way::look_up_silence(&duration_text(limit.min(PATIENCE))),
            Err(_) => way::look_up_silence(&duration_text(limit)),
        };
        self.last_good.instead(name, &missed, Instant::now()).ok_or(missed)
    }

    fn join_or_start(&self, name: &str) -> Running {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.get(name) {
            return running.clone();
        }
        let (tell, answer) = watch::channel(None);
        let started = Running { began: Instant::now(), answer };
        running.insert(name.to_owned(), started.clone());
        let (resolver, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            let found = look_up(&name).await;
            match &found {
                Ok(addresses) => resolver.last_good.keep(&name, addresses, Instant::now()),
                Err(missed) if !missed.is_no_answer => resolver.last_good.forget(&name),
                Err(_) => {}
            }
            // Whoever asks from now on wants a fresh answer.
            resolver.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            tell.send_replace(Some(found));
        });
        started
    }

    /// Opens a TCP connection to the target: every address, the next one beside a silent one.
    ///
    /// # Errors
    /// [`Failure`] at stage `look-up` or `connect`, naming every address that was tried.
    pub async fn connect(&self, target: &Target, limit: Duration) -> Result<TcpStream, Failure> {
        let deadline = Instant::now() + limit;
        let addresses = self.look_up(target, limit).await?;
        let seconds = duration_text(limit);
        let connected = connect_any(&addresses, matches!(target.host, Host::Address(_)), deadline, &seconds).await;
        connected.map_err(|why| failed_at("connect", target, why))
    }

    /// Every address of the target, in the system's order of preference.
    ///
    /// # Errors
    /// [`Failure`] at stage `look-up`.
    pub async fn look_up(&self, target: &Target, limit: Duration) -> Result<Vec<SocketAddr>, Failure> {
        let found = self.addresses(&target.host, limit).await;
        let found = found.map_err(|why| failed_at("look-up", target, why))?;
        Ok(found.iter().map(|ip| SocketAddr::new(*ip, target.port)).collect())
    }
}

fn failed_at(stage: &'static str, target: &Target, why: Explained) -> Failure {
    Failure::of(why, Blame::Target, format!("target {target}"), stage)
}

async fn look_up(name: &str) -> Result<Arc<[IpAddr]>, Missed> {
    let mut found = Vec::new();
    let looked_up = tokio::net::lookup_host((name, 0)).await;
    let missed = |error| Missed { why: way::look_up(&error), is_no_answer: way::is_no_answer(&error) };
    for address in looked_up.map_err(missed)? {
        if !found.contains(&address.ip()) {
            found.push(address.ip());
        }
    }
    if found.is_empty() { Err(Missed { why: way::no_address(), is_no_answer: false }) } else { Ok(found.into()) }
}

/// Connects to whichever address answers first, each given a head start over the next.
///
/// `by_address`: the target was given as an address, which errors then need not name again.
async fn connect_any(
    addresses: &[SocketAddr],
    by_address: bool,
    deadline: Instant,
    limit: &str,
) -> Result<TcpStream, Explained> {
    let mut waiting = addresses.iter();
    let mut attempts = Attempts(Vec::new());
    let mut failures: Vec<(SocketAddr, Explained)> = Vec::new();
    loop {
        if let Some(address) = waiting.next().copied() {
            attempts.0.push(Box::pin(async move { (address, connect_one(address, deadline).await) }));
        }
        let pause = if waiting.len() > 0 { deadline.min(Instant::now() + STAGGER) } else { deadline };
        match timeout_at(pause, attempts.next()).await {
            Ok(Some((_, Ok(connected)))) => return Ok(connected),
            Ok(Some((address, Err(error)))) => {
                let why = way::connect(&error, address.port());
                // This machine is short of something: no other address would do better.
                if why.is_ours {
                    return Err(why);
                }
                failures.push((address, why));
            }
            Ok(None) if waiting.len() == 0 => return Err(told(failures, by_address)),
            Ok(None) => {}
            Err(_) if Instant::now() < deadline => {}
            Err(_) => {
                let silent = addresses.iter().filter(|address| !failures.iter().any(|(failed, _)| failed == *address));
                let silent: Vec<_> = silent.map(|address| (*address, way::connect_silence(limit))).collect();
                failures.extend(silent);
                return Err(told(failures, by_address));
            }
        }
    }
}

/// Connections being opened side by side, in the caller's task: one of their own would cost each
/// client two more turns of the scheduler.
struct Attempts<F>(Vec<Pin<Box<F>>>);

impl<T, F: Future<Output = T>> Attempts<F> {
    /// Which is over first; none if there are none.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| {
            for index in 0..self.0.len() {
                if let Poll::Ready(done) = self.0[index].as_mut().poll(cx) {
                    drop(self.0.swap_remove(index));
                    return Poll::Ready(Some(done));
                }
            }
            if self.0.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

/// How long a connection waits for a free descriptor, and how often it looks for one.
const SHORTAGE: Duration = Duration::from_secs(2);
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// Connects to one address. Where descriptors are used up it waits up to `SHORTAGE`, not beyond the
/// deadline: the client in whose name it is done got the last one, and others are about to end.
async fn connect_one(address: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let patience = deadline.min(Instant::now() + SHORTAGE);
    loop {
        match TcpStream::connect(address).await {
            Err(error) if way::is_out_of_descriptors(&error) && Instant::now() < patience => {
                tokio::time::sleep(SHORTAGE_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// All that was tried, as one failure.
fn told(mut failures: Vec<(SocketAddr, Explained)>, by_address: bool) -> Explained {
    // The target's own words name the address where it was given as one.
    if by_address && failures.len() == 1 {
        return failures.swap_remove(0).1;
    }
    let causes = failures.iter().map(|(address, why)| format!("{}: {}", address.ip(), why.cause));
    let cause = causes.collect::<Vec<_>>().join("; ");
    // The first is the one that failed first, and most often the one that the system prefers.
    match failures.into_iter().next() {
        Some((_, first)) => Explained { cause, ..first },
        None => Explained::ours("no address was tried"),
    }
}
