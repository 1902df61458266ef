//! The cipher suites that a server takes, in whose order, and which a forwarder would use.

use super::plan::{Scan, numbered};
use super::report::{Accepted, Grade, Preference};
use crate::bridge::auto::Found;
use crate::config::values::{Version, Weak};
use crate::tls::scan::suites::{self, Suite};
use crate::tls::scan::{Answer, Flight, Key};

impl Scan<'_> {
    /// The same suites the other way round: a server with an order of its own chooses the same.
    pub(super) async fn preference(&mut self) {
        let Some((version, flight)) = self.newest() else { return };
        let chosen = flight.suite;
        let mut suites = suites::offered(version);
        suites.reverse();
        let hello = self.hello(version, suites);
        match self.ask("order of suites", &hello).await {
            None => self.skip("whose order of suites decides"),
            Some(Answer::Flight(flight)) if flight.suite == chosen => self.preference = Some(Preference::Server),
            Some(Answer::Flight(_)) => self.preference = Some(Preference::Client),
            Some(_) => {}
        }
    }

    /// Suites one after another: each hello leaves out what was chosen before.
    pub(super) async fn list_suites(&mut self) {
        let flights = self.flights.clone();
        for (version, first) in &flights {
            self.suites.push(accepted(*version, first));
            if *version == Version::Tls1_3 {
                continue;
            }
            let mut left = suites::offered(*version);
            left.retain(|suite| *suite != first.suite);
            loop {
                let hello = self.hello(*version, left.clone());
                match self.ask(&format!("TLS {version} cipher suites"), &hello).await {
                    None => {
                        self.skip("further cipher suites");
                        break;
                    }
                    // One that was not offered would be chosen for ever.
                    Some(Answer::Flight(flight))
                        if numbered(flight.version) == Some(*version) && left.contains(&flight.suite) =>
                    {
                        left.retain(|suite| *suite != flight.suite);
                        self.suites.push(accepted(*version, &flight));
                    }
                    Some(_) => {
                        self.complete.push(*version);
                        break;
                    }
                }
            }
        }
        let newest = self.newest().map(|(version, _)| version);
        let is_alone = self.suites.iter().filter(|entry| Some(entry.version) == newest).count() == 1;
        if is_alone && newest.is_some_and(|newest| self.complete.contains(&newest)) {
            self.preference = None;
        }
    }

    /// Marks what a forwarder would use.
    pub(super) fn mark_used(&mut self, found: Option<&Found>) {
        let Some(found) = found else { return };
        let is_it =
            |entry: &Accepted| entry.version.to_string() == found.reached.version && entry.suite == found.reached.suite;
        if let Some(entry) = self.suites.iter_mut().find(|entry| is_it(entry)) {
            entry.is_used = true;
            return;
        }
        let (Ok(version), Some(number)) = (found.reached.version.parse::<Version>(), self.working) else { return };
        let flight = Flight { suite: number, ..Flight::default() };
        let at = self.suites.iter().rposition(|entry| entry.version >= version).map_or(0, |last| last + 1);
        self.suites.insert(at, Accepted { is_used: true, ..accepted(version, &flight) });
    }
}

fn accepted(version: Version, flight: &Flight) -> Accepted {
    let suite = Suite::numbered(flight.suite);
    let weak = suite.and_then(Suite::weak_cipher);
    let grade = match (weak, flight.key) {
        (Some(Weak::Rc4), _) => Grade::Broken,
        (Some(_), _) => Grade::Weak,
        (None, Some(Key::Dhe(bits))) if bits < STRONG_GROUP => Grade::Weak,
        _ => Grade::Good,
    };
    Accepted {
        version,
        suite: suite.map_or_else(|| name_1_3(flight.suite), |suite| suite.name.to_owned()),
        agreement: suite.map(Suite::agreement),
        key: flight.key,
        grade,
        is_used: false,
    }
}

/// Bits of a Diffie-Hellman group that is good enough (RFC 9325 §4.1).
const STRONG_GROUP: usize = 2048;

fn name_1_3(number: u16) -> String {
    match number {
        0x1301 => "TLS_AES_128_GCM_SHA256".to_owned(),
        0x1302 => "TLS_AES_256_GCM_SHA384".to_owned(),
        0x1303 => "TLS_CHACHA20_POLY1305_SHA256".to_owned(),
        other => format!("0x{other:04X}"),
    }
}
