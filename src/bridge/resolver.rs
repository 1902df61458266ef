//! The target's name into addresses, looked up for each connection.
//!
//! `getaddrinfo` blocks a thread and can't be cancelled, so that a dead name server could eat every
//! thread there is. One look-up a name runs at a time, whoever asks meanwhile shares its answer, and
//! each asker has its own deadline.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout_at};

use super::failure::{Blame, Failure, Kind};
use crate::config::values::{Host, Target};
use crate::words;

/// What a look-up brought, once it is over.
type Answer = Option<Result<Arc<[IpAddr]>, Refused>>;

/// Looks names up, one look-up a name at a time. Clones share their look-ups.
#[derive(Clone, Default)]
pub struct Resolver {
    running: Arc<Mutex<HashMap<String, watch::Receiver<Answer>>>>,
}

/// How long one address may stay silent before the next is tried beside it (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

impl Resolver {
    /// The addresses of a host, in the system's order of preference.
    ///
    /// # Errors
    /// The system's words for a name that can't be resolved.
    ///
    /// # Cancel safety
    /// The look-up goes on for whoever else waits for it.
    async fn addresses(&self, host: &Host) -> Result<Arc<[IpAddr]>, Refused> {
        let name = match host {
            Host::Address(address) => return Ok(Arc::from([*address])),
            Host::Name(name) => name,
        };
        let mut answer = self.join_or_start(name);
        let resolved = answer.wait_for(Option::is_some).await;
        let resolved = resolved.map_err(|_| Refused::Ours("the look-up was abandoned".to_owned()))?;
        resolved.clone().unwrap_or_else(|| Err(Refused::Ours("no answer".to_owned())))
    }

    fn join_or_start(&self, name: &str) -> watch::Receiver<Answer> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = running.get(name) {
            return answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        running.insert(name.to_owned(), answer.clone());
        let (resolver, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            let found = look_up(&name).await;
            // Whoever asks from now on wants a fresh answer.
            resolver.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            tell.send_replace(Some(found));
        });
        answer
    }

    /// Opens a TCP connection to the target: every address, the next one beside a silent one.
    ///
    /// # Errors
    /// [`Failure`] at stage `look-up` or `connect`, naming every address that was tried.
    pub async fn connect(&self, target: &Target, limit: Duration) -> Result<TcpStream, Failure> {
        let deadline = Instant::now() + limit;
        let addresses = self.look_up(target, limit).await?;
        let seconds = crate::config::values::duration_text(limit);
        match connect_any(&addresses, matches!(target.host, Host::Address(_)), deadline, &seconds).await {
            Ok(connected) => Ok(connected),
            Err(refused) => Err(refused.at("connect", target, None)),
        }
    }

    /// Every address of the target, in the system's order of preference.
    ///
    /// # Errors
    /// [`Failure`] at stage `look-up`.
    pub async fn look_up(&self, target: &Target, limit: Duration) -> Result<Vec<SocketAddr>, Failure> {
        let found = timeout_at(Instant::now() + limit, self.addresses(&target.host)).await;
        let found = found.map_err(|_| {
            let cause = format!("no answer within {}", crate::config::values::duration_text(limit));
            Refused::Theirs(cause).at("look-up", target, Some("is the name server of this machine up?"))
        })?;
        let found = found.map_err(|refused| refused.at("look-up", target, Some("is the name right?")))?;
        Ok(found.iter().map(|ip| SocketAddr::new(*ip, target.port)).collect())
    }
}

async fn look_up(name: &str) -> Result<Arc<[IpAddr]>, Refused> {
    let mut found = Vec::new();
    for address in tokio::net::lookup_host((name, 0)).await.map_err(|error| look_up_error(&error))? {
        if !found.contains(&address.ip()) {
            found.push(address.ip());
        }
    }
    if found.is_empty() { Err(Refused::Theirs("the name has no address".to_owned())) } else { Ok(found.into()) }
}

/// The resolver's words without the standard library's preface. What has a number of the system's
/// own is a shortage of this machine, out of descriptors say, and no answer about the name.
fn look_up_error(error: &io::Error) -> Refused {
    if error.raw_os_error().is_some() {
        return Refused::Ours(words::of(error));
    }
    let text = error.to_string();
    Refused::Theirs(words::lower(text.strip_prefix("failed to lookup address information: ").unwrap_or(&text)))
}

/// Why there is no address, or none that could be connected to.
#[derive(Clone)]
enum Refused {
    /// The way to the target, or the target.
    Theirs(String),
    /// This machine is short of descriptors, ports or memory.
    Ours(String),
}

impl Refused {
    /// What the caller is told; the hint is for the target's fault alone.
    fn at(self, stage: &'static str, target: &Target, hint: Option<&str>) -> Failure {
        let (blame, cause, hint) = match self {
            Self::Ours(cause) => (Blame::Bridge, cause, None),
            Self::Theirs(cause) => (Blame::Target, cause, hint.map(str::to_owned)),
        };
        Failure { blame, side: format!("target {target}"), stage, kind: Kind::Plain, cause, hint, presented: None }
    }
}

/// Whether this machine is short of something, so that no other address would do better.
fn is_ours(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    error.raw_os_error().is_some_and(|code| [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(&code))
}

/// Connects to whichever address answers first, each given a head start over the next.
///
/// `by_address`: the target was given as an address, which errors then need not name again.
async fn connect_any(
    addresses: &[SocketAddr],
    by_address: bool,
    deadline: Instant,
    limit: &str,
) -> Result<TcpStream, Refused> {
    let mut waiting = addresses.iter();
    let mut attempts = JoinSet::new();
    let mut failures: Vec<(SocketAddr, String)> = Vec::new();
    loop {
        if let Some(address) = waiting.next().copied() {
            attempts.spawn(async move { (address, TcpStream::connect(address).await) });
        }
        let pause = if waiting.len() > 0 { deadline.min(Instant::now() + STAGGER) } else { deadline };
        match timeout_at(pause, attempts.join_next()).await {
            Ok(Some(Ok((_, Ok(connected))))) => return Ok(connected),
            Ok(Some(Ok((_, Err(error))))) if is_ours(&error) => return Err(Refused::Ours(words::of(&error))),
            Ok(Some(Ok((address, Err(error))))) => failures.push((address, words::of(&error))),
            Ok(Some(Err(_))) => {}
            Ok(None) if waiting.len() == 0 => return Err(Refused::Theirs(told(&failures, by_address))),
            Ok(None) => {}
            Err(_) if Instant::now() < deadline => {}
            Err(_) => {
                let silent = addresses.iter().filter(|address| !failures.iter().any(|(failed, _)| failed == *address));
                let silent: Vec<_> = silent.map(|address| (*address, format!("no answer within {limit}"))).collect();
                failures.extend(silent);
                return Err(Refused::Theirs(told(&failures, by_address)));
            }
        }
    }
}

fn told(failures: &[(SocketAddr, String)], by_address: bool) -> String {
    match failures {
        // The target's own words name the address where it was given as one.
        [(_, cause)] if by_address => cause.clone(),
        _ => {
            failures.iter().map(|(address, cause)| format!("{}: {cause}", address.ip())).collect::<Vec<_>>().join("; ")
        }
    }
}
