//! The questions, in the order of their worth: what the connections do not suffice for comes last.

use std::net::SocketAddr;
use std::time::Duration;

use super::budget::Budget;
use super::report::{Accepted, Behaviour, Named, Needs, Preference, Request};
use crate::bridge::auto::{Found, PAGE};
use crate::config::Settings;
use crate::config::values::Version;
use crate::tls::certificate::Facts;
use crate::tls::reference::Http;
use crate::tls::scan::suites::{self, Suite};
use crate::tls::scan::{Answer, Flight, Hello, Visit, Visitor};

/// A server under scan, and what is known of it.
pub(super) struct Scan<'a> {
    pub(super) budget: Budget<'a>,
    address: SocketAddr,
    /// As a forwarder would speak to it.
    settings: Settings,
    /// How long one answer may take.
    limit: Duration,
    /// The newest version that a hello may name without being refused, as far as that is known.
    cap: Version,
    /// The version that the search has met.
    searched: Option<Version>,
    /// The suite that is known to work.
    pub(super) working: Option<u16>,
    /// The first flights of the versions that it speaks, the newest first.
    pub(super) flights: Vec<(Version, Flight)>,
    /// Whether it has answered a TLS hello in SSL 3.
    ssl3: bool,
    visited_chain: Vec<Vec<u8>>,
    pub(super) versions: Vec<(Version, Option<bool>)>,
    pub(super) suites: Vec<Accepted>,
    pub(super) complete: Vec<Version>,
    pub(super) preference: Option<Preference>,
    pub(super) behaviour: Behaviour,
    pub(super) http: Option<Http>,
    pub(super) is_http_asked: bool,
    pub(super) skipped: Vec<&'static str>,
}

/// Newest first.
const VERSIONS: [Version; 4] = [Version::Tls1_3, Version::Tls1_2, Version::Tls1_1, Version::Tls1_0];
/// How long an answer may take: a multiple of what a handshake took, within these bounds. Slow servers are
/// known to take 6 s.
const LIMITS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(10));
/// The same while no handshake has come to its end.
const UNKNOWN: Duration = Duration::from_secs(4);
/// A name that no server can have (RFC 6761 §6.4).
const NOBODY: &str = "nobody.invalid";
/// Lengths of hellos that some servers dislike.
const MEDIUM: usize = 400;
const LONG: usize = 600;

impl<'a> Scan<'a> {
    pub(super) fn new(budget: Budget<'a>, address: SocketAddr, settings: &Settings, found: Option<&Found>) -> Self {
        let settings = found.map_or_else(|| settings.clone(), |found| found.switches.over(settings));
        let limit = found.map_or(UNKNOWN, |found| (found.reached.tls * 3).clamp(LIMITS.0, LIMITS.1));
        let cap = match settings.newest() {
            Version::Tls1_2 => Version::Tls1_3,
            older => older,
        };
        let working = found.and_then(|found| Suite::named(found.reached.suite));
        Self {
            budget,
            address,
            limit,
            cap,
            searched: found.and_then(|found| found.reached.version.parse().ok()),
            working: working.map(|suite| suite.number),
            flights: Vec::new(),
            ssl3: false,
            visited_chain: Vec::new(),
            versions: VERSIONS.map(|version| (version, None)).to_vec(),
            suites: Vec::new(),
            complete: Vec::new(),
            preference: None,
            behaviour: Behaviour::default(),
            http: None,
            is_http_asked: false,
            skipped: Vec::new(),
            settings,
        }
    }

    /// Whether the server speaks a version.
    pub(super) fn speaks(&self, version: Version) -> Option<bool> {
        self.versions.iter().find(|(known, _)| *known == version).and_then(|(_, speaks)| *speaks)
    }

    /// The newest version that a forwarder could use, and what the server said to it.
    pub(super) fn newest(&self) -> Option<(Version, &Flight)> {
        self.flights.iter().find(|(version, _)| *version < Version::Tls1_3).map(|(version, flight)| (*version, flight))
    }

    /// The certificates that the server sends, in DER, its own first.
    pub(super) fn chain(&self) -> Vec<Vec<u8>> {
        let sent = self.newest().map(|(_, flight)| flight.chain.clone()).filter(|chain| !chain.is_empty());
        sent.unwrap_or_else(|| self.visited_chain.clone())
    }

    /// What a forwarder to this server needs.
    pub(super) fn needs(&self, found: Option<&Found>) -> Option<Needs> {
        found.map(|found| Needs {
            switches: found.switches.clone(),
            is_least: found.is_least,
            version: found.reached.version,
            suite: found.reached.suite,
        })
    }

    /// Each version by itself, from the newest: a server answers with the newest that it has, so what lies
    /// between the one asked for and the one answered it does not speak.
    pub(super) async fn versions(&mut self) {
        let mut refused = Vec::new();
        for (version, speaks) in &mut self.versions {
            if *version > self.cap {
                *speaks = Some(false);
                if self.settings.extensions && *version <= Version::Tls1_2 {
                    refused.push(*version);
                }
            }
        }
        let mut asked = Some(self.cap);
        while let Some(version) = asked {
            let hello = self.hello(version, self.wide(version));
            let Some(answer) = self.ask(&format!("TLS {version}"), &hello).await else {
                self.skip("TLS versions");
                break;
            };
            let spoken = match &answer {
                Answer::Flight(flight) => numbered(flight.version).filter(|spoken| *spoken <= version),
                _ => None,
            };
            match (answer, spoken) {
                // Some servers answer an offer of TLS 1.3 with a version that they would else not speak.
                (Answer::Flight(_), Some(spoken)) if version == Version::Tls1_3 && self.is_doubtful(spoken) => {
                    self.note(|known| known == version, false);
                    asked = before(version);
                }
                (Answer::Flight(flight), Some(spoken)) => {
                    self.note(|known| known > spoken && known <= version, false);
                    self.note(|known| known == spoken, true);
                    self.flights.push((spoken, *flight));
                    asked = before(spoken);
                }
                (Answer::Flight(flight), None) => {
                    // SSL 3, or a version that nobody has asked for: it has none of ours.
                    self.ssl3 = flight.version == 0x0300;
                    self.note(|known| known <= version, false);
                    break;
                }
                _ => {
                    self.note(|known| known == version, false);
                    refused.push(version);
                    asked = before(version);
                }
            }
        }
        // A server that lacks a version answers with an older one.
        let oldest = self.flights.last().map(|(version, _)| *version);
        refused.retain(|version| oldest.is_some_and(|oldest| oldest < *version));
        self.behaviour.version_intolerance = refused;
    }

    /// Whether the search has met another version than this one of TLS 1.0 to 1.2.
    fn is_doubtful(&self, spoken: Version) -> bool {
        spoken < Version::Tls1_3 && self.searched.is_some_and(|searched| searched != spoken)
    }

    /// Whether it speaks SSL 3, if that is still open.
    pub(super) async fn is_ssl3(&mut self) -> bool {
        if self.ssl3 {
            return true;
        }
        let suites = suites::offered(Version::Tls1_0);
        let hello = Hello { newest: None, suites, name: None, extensions: false, length: None };
        matches!(self.ask("SSL 3", &hello).await, Some(Answer::Flight(flight)) if flight.version == 0x0300)
    }

    /// All that is to be known beyond the versions.
    pub(super) async fn everything_else(&mut self, found: Option<&Found>) {
        self.flight_facts();
        if let Some(found) = found {
            self.page_seen(found);
            self.resumption().await;
        }
        let asks = self.newest().is_some_and(|(_, flight)| flight.asks);
        self.behaviour.client_certificate = match (asks, found) {
            (true, None) => Some(Request::Required),
            (true, Some(_)) => Some(Request::Optional),
            (false, _) => self.behaviour.client_certificate.or(Some(Request::No)),
        };
        self.behaviour.extension_intolerance = Some(!self.settings.extensions);
        if self.settings.extensions {
            self.names().await;
            self.lengths().await;
        }
        self.preference().await;
        self.list_suites().await;
        self.mark_used(found);
    }

    fn flight_facts(&mut self) {
        let Some((_, flight)) = self.newest() else { return };
        let renegotiation = flight.renegotiates_securely();
        let master_secret = flight.has_extended_master_secret();
        self.behaviour.secure_renegotiation = Some(renegotiation);
        // An extension that was not offered tells nothing.
        self.behaviour.extended_master_secret = self.settings.extensions.then_some(master_secret);
    }

    /// The search has asked for the page already: it is not asked for again.
    fn page_seen(&mut self, found: &Found) {
        if let Some(answer) = &found.answer {
            self.is_http_asked = true;
            self.http = Http::parse(&answer.bytes, answer.time);
        }
    }

    async fn resumption(&mut self) {
        self.behaviour.resumes_by_id = self.resumes("session by ID", false).await;
        let gives = self.newest().map(|(_, flight)| flight.gives_tickets());
        self.behaviour.resumes_by_ticket = match gives {
            Some(true) => self.resumes("session by ticket", true).await,
            _ if !self.settings.extensions => Some(false),
            other => other,
        };
    }

    /// Two handshakes, the second with the session of the first; `None` if they did not come about.
    async fn resumes(&mut self, about: &'static str, tickets: bool) -> Option<bool> {
        let visitor = Visitor::new(&self.settings, self.address, tickets).ok()?;
        let host = self.settings.verified_name().to_string();
        let page = (!self.is_http_asked).then_some((host.as_str(), PAGE));
        self.is_http_asked = true;
        let first = self.visit(about, &visitor, None, page).await?;
        self.behaviour.close_notify = self.behaviour.close_notify.or(first.close_notify);
        if first.asked {
            self.behaviour.client_certificate = Some(Request::Optional);
        }
        if first.http.is_some() {
            self.http.clone_from(&first.http);
        }
        if self.visited_chain.is_empty() {
            self.visited_chain.clone_from(&first.chain);
        }
        if !first.has_session() {
            return Some(false);
        }
        let second = self.visit(about, &visitor, Some(&first), None).await?;
        Some(second.is_resumed)
    }

    async fn visit(
        &mut self,
        about: &'static str,
        visitor: &Visitor,
        resuming: Option<&Visit>,
        page: Option<(&str, &str)>,
    ) -> Option<Visit> {
        if !self.budget.spend(about).await {
            self.skip("resumption of sessions");
            return None;
        }
        let visit = visitor.visit(resuming, page, LIMITS.1).await;
        if visit.is_err() {
            self.budget.was_refused();
        }
        visit.ok()
    }

    /// What the server makes of no name, and of one that is not its own.
    async fn names(&mut self) {
        let Some((version, flight)) = self.newest() else { return };
        let own = flight.chain.first().cloned();
        let usual = self.hello(version, suites::offered(version));
        self.behaviour.without_name = match usual.name {
            None => Some(Named::Same),
            Some(_) => self.named("no server name", &Hello { name: None, ..usual.clone() }, own.as_ref()).await,
        };
        let other = Hello { name: Some(NOBODY.to_owned()), ..usual };
        self.behaviour.other_name = self.named("another server name", &other, own.as_ref()).await;
    }

    async fn named(&mut self, about: &str, hello: &Hello, own: Option<&Vec<u8>>) -> Option<Named> {
        let Some(answer) = self.ask(about, hello).await else {
            self.skip("server names");
            return None;
        };
        Some(match answer {
            Answer::Flight(flight) if flight.chain.first() == own => Named::Same,
            Answer::Flight(flight) => match flight.chain.first().map(|leaf| Facts::of_der(leaf)) {
                Some(Ok(facts)) => Named::Other(facts.subject),
                _ => Named::Other("unreadable".to_owned()),
            },
            _ => Named::Refused,
        })
    }

    async fn lengths(&mut self) {
        let Some((version, _)) = self.newest() else { return };
        let usual = self.hello(version, suites::offered(version));
        self.behaviour.medium_hello_intolerance = self.refuses_length(&usual, MEDIUM).await;
        self.behaviour.long_hello_intolerance = self.refuses_length(&usual, LONG).await;
    }

    async fn refuses_length(&mut self, usual: &Hello, length: usize) -> Option<bool> {
        let hello = Hello { length: Some(length), ..usual.clone() };
        let Some(answer) = self.ask(&format!("a ClientHello of {length} bytes"), &hello).await else {
            self.skip("long ClientHellos");
            return None;
        };
        Some(!matches!(answer, Answer::Flight(_)))
    }

    /// The suites of a hello that asks for a version. That of TLS 1.3 is long enough without the weak ones.
    fn wide(&self, version: Version) -> Vec<u16> {
        let mut suites = suites::offered(version);
        if version == Version::Tls1_3 {
            suites.truncate(suites::STRONG);
            suites.extend(self.working.filter(|working| !suites.contains(working)));
        }
        suites
    }

    pub(super) fn hello(&self, newest: Version, mut suites: Vec<u16>) -> Hello {
        if !self.settings.extensions {
            // Curves are agreed on in an extension.
            let is_ecdhe =
                |number| Suite::numbered(number).is_some_and(|suite| suite.agreement() == suites::Agreement::Ecdhe);
            suites.retain(|number| !is_ecdhe(*number));
        }
        Hello {
            newest: Some(newest),
            suites,
            name: self.settings.sni_name().map(str::to_owned),
            extensions: self.settings.extensions,
            length: None,
        }
    }

    pub(super) async fn ask(&mut self, about: &str, hello: &Hello) -> Option<Answer> {
        self.budget.ask(about, self.address, hello, self.limit).await
    }

    fn note(&mut self, which: impl Fn(Version) -> bool, speaks: bool) {
        self.versions.iter_mut().filter(|(version, _)| which(*version)).for_each(|(_, known)| *known = Some(speaks));
    }

    pub(super) fn skip(&mut self, what: &'static str) {
        if !self.skipped.contains(&what) {
            self.skipped.push(what);
        }
    }
}

/// A version by its number on the wire; `None` for SSL 3 and what nobody knows.
pub(super) fn numbered(version: u16) -> Option<Version> {
    match version {
        0x0301 => Some(Version::Tls1_0),
        0x0302 => Some(Version::Tls1_1),
        0x0303 => Some(Version::Tls1_2),
        0x0304 => Some(Version::Tls1_3),
        _ => None,
    }
}

fn before(version: Version) -> Option<Version> {
    VERSIONS.into_iter().find(|other| *other < version)
}
