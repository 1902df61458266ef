//! Finds out what a legacy server speaks and how it behaves, carefully: one connection after another, at
//! most [`MOST`] of them, a pause after each refusal. Sends handshakes and one request for a page.
//!
//! What a forwarder needs is found by [`auto`], the code that `add` uses, so that both agree; what is left
//! of the connections goes to everything else. Changes nothing on either machine.

mod budget;
mod failed;
mod plan;
pub mod report;
mod suites;
pub mod verdict;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::bridge::auto::{self, Found, Switches};
use crate::bridge::failure::{Blame, Failure};
use crate::bridge::resolver::Resolver;
use crate::config::values::{Sni, Target};
use crate::config::{Draft, Settings};
use crate::tls::certificate::Facts;
use crate::tls::explain::Explained;
use crate::tls::faults;
use budget::Budget;
use plan::Scan;
use report::{Address, Flaw, Report, Setting, Trust};

/// The most TCP connections of an ordinary scan.
pub const MOST: usize = 25;
/// The most of one that lists every suite.
pub const MOST_FULL: usize = 150;
/// No further connection is opened later than this: a slow server answers fewer questions.
const TIME: Duration = Duration::from_secs(60);
/// The same for every suite.
const TIME_FULL: Duration = Duration::from_secs(900);
/// Look-up, and TCP to all addresses together.
const CONNECT: Duration = Duration::from_secs(10);
/// So many addresses are tried, so that enough connections are left for the one that answers.
const ADDRESSES: usize = 8;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server name in the hellos.
    pub sni: Sni,
    /// List every suite.
    pub full: bool,
}

/// One connection is about to be opened.
pub struct Progress<'a> {
    /// Its number, from 1.
    pub connection: usize,
    /// How many there can be.
    pub most: usize,
    /// What it is for.
    pub about: &'a str,
}

/// Scans a server; `progress` hears of each connection before it is opened.
///
/// # Errors
/// [`Failure`] for a server that can't be reached, or with which no forwarder could speak.
///
/// # Cancel safety
/// Dropping the future closes the open connection.
pub async fn run(
    target: &Target,
    options: &Options,
    progress: &mut (dyn FnMut(&Progress<'_>) + Send),
) -> Result<Report, Failure> {
    let began = Instant::now();
    let named = |failure: Failure| Failure { side: format!("target {target}"), ..failure };
    let (most, time) = if options.full { (MOST_FULL, TIME_FULL) } else { (MOST, TIME) };
    let mut budget = Budget::new(most, time, progress);
    let resolver = Resolver::default();
    let (mut addresses, address) = reach(target, &resolver, &mut budget).await?;
    let settings = settings(target, address, options).map_err(|cause| ours(target, cause))?;

    let searched = search(&settings, &resolver, &mut budget).await;
    let (found, failure) = match searched {
        Ok(found) => (Some(found), None),
        Err(auto::Error::Settings(error)) => return Err(ours(target, error.to_string())),
        Err(auto::Error::Target(failure)) if failed::is_final(&failure) => return Err(named(failed::told(*failure))),
        Err(auto::Error::Target(failure)) => (None, Some(*failure)),
    };
    if let ([only], Some(found)) = (&mut addresses[..], &found) {
        only.connected = Some(Ok(found.reached.tcp));
    }
    let mut scan = Scan::new(budget, address, &settings, found.as_ref());
    scan.versions().await;
    if let Some(failure) = failure {
        failed::explained(failure, &mut scan).await.map_err(named)?;
    }
    scan.everything_else(found.as_ref()).await;
    let chain = scan.chain();
    let report = Report {
        target: target.clone(),
        sni: options.sni.clone(),
        addresses,
        address,
        connections: scan.budget.used,
        most,
        time: began.elapsed(),
        versions: scan.versions.clone(),
        suites: std::mem::take(&mut scan.suites),
        complete: std::mem::take(&mut scan.complete),
        preference: scan.preference,
        trust: judged(&chain, &settings),
        chain: chain.iter().filter_map(|der| Facts::of_der(der).ok()).collect(),
        needs: scan.needs(found.as_ref()),
        is_http_asked: scan.is_http_asked,
        http: scan.http.take(),
        is_late: scan.budget.is_late(),
        skipped: std::mem::take(&mut scan.skipped),
        behaviour: std::mem::take(&mut scan.behaviour),
    };
    Ok(report)
}

/// Every address of the target, and the first that answers. One alone is not tried by itself.
async fn reach(
    target: &Target,
    resolver: &Resolver,
    budget: &mut Budget<'_>,
) -> Result<(Vec<Address>, SocketAddr), Failure> {
    let found = resolver.look_up(target, CONNECT).await?;
    let mut addresses: Vec<Address> =
        found.iter().map(|address| Address { ip: address.ip(), connected: None }).collect();
    if let [only] = found[..] {
        return Ok((addresses, only));
    }
    let tried = found.len().min(ADDRESSES);
    let each = CONNECT / u32::try_from(tried).unwrap_or(1);
    let mut first = None;
    for (address, entry) in found.iter().zip(&mut addresses).take(tried) {
        budget.count(&format!("address {}", address.ip()));
        let began = Instant::now();
        entry.connected = Some(match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(began.elapsed()),
            Ok(Err(error)) => Err(crate::words::of(&error)),
            Err(_) => Err(format!("no answer within {}", crate::config::values::duration_text(each))),
        });
        if first.is_none() && matches!(entry.connected, Some(Ok(_))) {
            first = Some(*address);
        }
    }
    if let Some(first) = first {
        return Ok((addresses, first));
    }
    let each = addresses.iter().filter_map(|address| match &address.connected {
        Some(Err(cause)) => Some(format!("{}: {cause}", address.ip)),
        _ => None,
    });
    let cause = each.collect::<Vec<_>>().join("; ");
    Err(failed::told(Failure { blame: Blame::Target, stage: "connect", ..ours(target, cause) }))
}

/// The settings of a forwarder to one address of the target, which listens nowhere.
fn settings(target: &Target, address: SocketAddr, options: &Options) -> Result<Settings, String> {
    let mut draft = Draft::default();
    draft.set("listen", "127.0.0.1:1");
    draft.set("target", address.to_string());
    draft.set("server_name", target.host.to_string());
    draft.set("sni", options.sni.to_string());
    draft.settings().map_err(|error| error.to_string())
}

fn ours(target: &Target, cause: String) -> Failure {
    Failure::of(Explained::ours(cause), Blame::Bridge, format!("target {target}"), "probe")
}

/// What a forwarder needs, by the code that `add` uses.
async fn search(settings: &Settings, resolver: &Resolver, budget: &mut Budget<'_>) -> Result<Found, auto::Error> {
    let most = budget.left();
    let mut follow = |switches: &Switches| {
        let bare = if switches.extensions { "" } else { ", no extensions" };
        budget.count(&format!("TLS {} and older at level {}{bare}", switches.max_tls, switches.security_level));
    };
    let found = auto::search_within(settings, resolver, most, &mut follow).await;
    if found.as_ref().map_or(true, |found| found.connections > 1) {
        budget.was_refused();
    }
    found
}

/// Who would trust the chain, and which setting would make a forwarder trust it.
fn judged(chain: &[Vec<u8>], settings: &Settings) -> Trust {
    let refusals = match faults::all(chain, settings.verified_name()) {
        _ if chain.is_empty() => return Trust { faults: Vec::new(), setting: Setting::Pin },
        Ok(refusals) => refusals,
        Err(error) => {
            let flaw = Flaw { cause: error.to_string(), fault: None, is_unvouched: true };
            return Trust { faults: vec![flaw], setting: Setting::Pin };
        }
    };
    let is_alone = chain.first().and_then(|leaf| Facts::of_der(leaf).ok()).is_some_and(|facts| facts.self_signed);
    let faults: Vec<Flaw> = refusals
        .into_iter()
        .map(|refusal| Flaw {
            fault: refusal.faults.first().copied(),
            is_unvouched: refusal.unvouched,
            cause: refusal.cause,
        })
        .collect();
    Trust { setting: setting(&faults, is_alone), faults }
}

/// The setting that lets all these pass and nothing more.
fn setting(faults: &[Flaw], is_alone: bool) -> Setting {
    let is_beyond = faults.iter().any(|flaw| flaw.fault.is_none() && !flaw.is_unvouched);
    let mut accept: Vec<_> = faults.iter().filter_map(|flaw| flaw.fault).collect();
    accept.sort();
    accept.dedup();
    match faults.iter().any(|flaw| flaw.is_unvouched) {
        _ if faults.is_empty() => Setting::Nothing,
        true if is_alone || is_beyond => Setting::Pin,
        true => Setting::Authority(accept),
        false if is_beyond => Setting::Pin,
        false => Setting::Accept(accept),
    }
}
