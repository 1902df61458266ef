//! A report for programs: the same facts, `null` for what is not known.

use serde::Serialize;

use super::super::rfc3339;
use super::text::curve;
use crate::bridge::failure::Failure;
use crate::config::values::{Sni, Version};
use crate::probe::report::{Accepted, Grade, Named, Preference, Report, Request, Setting};
use crate::probe::verdict::Verdict;
use crate::tls::certificate::Facts;
use crate::tls::scan::Key;
use crate::tls::scan::suites::Agreement;

#[derive(Serialize)]
pub(super) struct Document {
    schema: u8,
    ok: bool,
    target: String,
    sni: Option<String>,
    addresses: Vec<Address>,
    address: String,
    connections: usize,
    connections_allowed: usize,
    elapsed_seconds: f64,
    versions: Vec<Spoken>,
    ciphers: Vec<Cipher>,
    ciphers_complete: Vec<String>,
    preference: Option<&'static str>,
    certificates: Vec<Certificate>,
    trust: Trust,
    secure_renegotiation: Option<bool>,
    extended_master_secret: Option<bool>,
    resumption: Resumption,
    close_notify: Option<bool>,
    client_certificate: Option<&'static str>,
    server_name: Names,
    intolerance: Intolerance,
    ews: Option<Ews>,
    needs: Option<Needs>,
    skipped: Vec<&'static str>,
    verdict: String,
    next: String,
    alternatives: Vec<String>,
}

#[derive(Serialize)]
struct Address {
    address: String,
    connected: Option<bool>,
    connect_seconds: Option<f64>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Spoken {
    version: String,
    supported: Option<bool>,
}

#[derive(Serialize)]
struct Cipher {
    version: String,
    suite: String,
    key_exchange: Option<&'static str>,
    curve: Option<String>,
    dhe_bits: Option<usize>,
    grade: &'static str,
    used: bool,
}

#[derive(Serialize)]
struct Certificate {
    subject: String,
    names: Vec<String>,
    issuer: String,
    self_signed: bool,
    not_before: String,
    not_after: String,
    key: String,
    signature: String,
    sha256: String,
    thumbprint_sha1: String,
}

#[derive(Serialize)]
struct Trust {
    trusted: bool,
    faults: Vec<Fault>,
    setting: &'static str,
    accept: Vec<&'static str>,
}

#[derive(Serialize)]
struct Fault {
    cause: String,
    accept: Option<&'static str>,
}

#[derive(Serialize)]
struct Resumption {
    session_id: Option<bool>,
    ticket: Option<bool>,
}

#[derive(Serialize)]
struct Names {
    without: Option<Name>,
    other: Option<Name>,
}

#[derive(Serialize)]
struct Name {
    answer: &'static str,
    subject: Option<String>,
}

#[derive(Serialize)]
struct Intolerance {
    versions: Vec<String>,
    extensions: Option<bool>,
    hello_256_to_511_bytes: Option<bool>,
    hello_over_512_bytes: Option<bool>,
}

#[derive(Serialize)]
struct Ews {
    status: u16,
    schemes: Vec<String>,
    server: Option<String>,
    answer_seconds: f64,
}

#[derive(Serialize)]
struct Needs {
    tls: &'static str,
    suite: &'static str,
    max_tls: String,
    security_level: u32,
    extensions: bool,
    empty_fragments: bool,
    allow_weak: Vec<&'static str>,
    least: bool,
}

#[derive(Serialize)]
pub(super) struct Failed {
    schema: u8,
    ok: bool,
    error: Error,
}

#[derive(Serialize)]
struct Error {
    side: String,
    stage: &'static str,
    cause: String,
    hint: Option<String>,
}

/// What was found of one target, or why nothing was.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    Found(Box<Document>),
    Failed(Failed),
}

/// The documents of several targets, in their order.
#[derive(Serialize)]
pub(super) struct All {
    schema: u8,
    ok: bool,
    targets: Vec<Outcome>,
}

/// Several targets as one document; `ok`: something was found of one.
pub(super) fn all(found: &[Result<Report, Failure>]) -> All {
    let outcome = |found: &Result<Report, Failure>| match found {
        Ok(report) => Outcome::Found(Box::new(document(report))),
        Err(why) => Outcome::Failed(failure(why)),
    };
    All { schema: 1, ok: found.iter().any(Result::is_ok), targets: found.iter().map(outcome).collect() }
}

/// A failure as a document.
pub(super) fn failure(failure: &Failure) -> Failed {
    let error =
        Error { side: failure.side.clone(), stage: failure.stage, cause: failure.cause.clone(), hint: failure.hint() };
    Failed { schema: 1, ok: false, error }
}

/// A report as a document.
pub(super) fn document(report: &Report) -> Document {
    let verdict = Verdict::of(report);
    let behaviour = &report.behaviour;
    let texts = |versions: &[Version]| versions.iter().map(Version::to_string).collect();
    Document {
        schema: 1,
        ok: true,
        target: report.target.to_string(),
        sni: match (&report.sni, &report.target.host) {
            (Sni::Name(name), _) | (Sni::Auto, crate::config::values::Host::Name(name)) => Some(name.clone()),
            _ => None,
        },
        addresses: report.addresses.iter().map(address).collect(),
        address: report.address.to_string(),
        connections: report.connections,
        connections_allowed: report.most,
        elapsed_seconds: seconds(report.time),
        versions: report
            .versions
            .iter()
            .map(|(version, supported)| Spoken { version: version.to_string(), supported: *supported })
            .collect(),
        ciphers: report.suites.iter().map(cipher).collect(),
        ciphers_complete: texts(&report.complete),
        preference: report.preference.map(|preference| match preference {
            Preference::Server => "server",
            Preference::Client => "client",
        }),
        certificates: report.chain.iter().map(certificate).collect(),
        trust: trust(report),
        secure_renegotiation: behaviour.secure_renegotiation,
        extended_master_secret: behaviour.extended_master_secret,
        resumption: Resumption { session_id: behaviour.resumes_by_id, ticket: behaviour.resumes_by_ticket },
        close_notify: behaviour.close_notify,
        client_certificate: behaviour.client_certificate.map(|request| match request {
            Request::No => "no",
            Request::Optional => "optional",
            Request::Required => "required",
        }),
        server_name: Names { without: name(&behaviour.without_name), other: name(&behaviour.other_name) },
        intolerance: Intolerance {
            versions: texts(&behaviour.version_intolerance),
            extensions: behaviour.extension_intolerance,
            hello_256_to_511_bytes: behaviour.medium_hello_intolerance,
            hello_over_512_bytes: behaviour.long_hello_intolerance,
        },
        ews: report.http.as_ref().map(|http| Ews {
            status: http.status,
            schemes: http.schemes.clone(),
            server: http.server.clone(),
            answer_seconds: seconds(http.time),
        }),
        needs: report.needs.as_ref().map(needs),
        skipped: report.skipped.clone(),
        verdict: verdict.text,
        next: verdict.next.to_string(),
        alternatives: verdict.others.iter().map(|(_, command)| command.to_string()).collect(),
    }
}

fn address(address: &crate::probe::report::Address) -> Address {
    let (time, error) = match &address.connected {
        Some(Ok(time)) => (Some(seconds(*time)), None),
        Some(Err(error)) => (None, Some(error.clone())),
        None => (None, None),
    };
    let connected = address.connected.as_ref().map(Result::is_ok);
    Address { address: address.ip.to_string(), connected, connect_seconds: time, error }
}

fn cipher(entry: &Accepted) -> Cipher {
    let (group, bits) = match entry.key {
        Some(Key::Curve(number)) => (Some(curve(number)), None),
        Some(Key::Dhe(bits)) => (None, Some(bits)),
        None => (None, None),
    };
    Cipher {
        version: entry.version.to_string(),
        suite: entry.suite.clone(),
        key_exchange: entry.agreement.map(|agreement| match agreement {
            Agreement::Rsa => "RSA",
            Agreement::Dhe => "DHE",
            Agreement::Ecdhe => "ECDHE",
        }),
        curve: group,
        dhe_bits: bits,
        grade: match entry.grade {
            Grade::Good => "good",
            Grade::Weak => "weak",
            Grade::Broken => "broken",
        },
        used: entry.is_used,
    }
}

fn certificate(facts: &Facts) -> Certificate {
    Certificate {
        subject: facts.subject.clone(),
        names: facts.names.clone(),
        issuer: facts.issuer.clone(),
        self_signed: facts.self_signed,
        not_before: rfc3339(facts.not_before),
        not_after: rfc3339(facts.not_after),
        key: facts.key.clone(),
        signature: facts.signature.clone(),
        sha256: facts.fingerprint.to_string(),
        thumbprint_sha1: facts.thumbprint.clone(),
    }
}

fn trust(report: &Report) -> Trust {
    let faults = report.trust.faults.iter();
    let faults = faults.map(|flaw| Fault { cause: flaw.cause.clone(), accept: flaw.fault.map(|fault| fault.word()) });
    let (setting, accept) = match &report.trust.setting {
        Setting::Nothing => ("none", &[][..]),
        Setting::Accept(faults) => ("accept", &faults[..]),
        Setting::Authority(faults) => ("ca", &faults[..]),
        Setting::Pin => ("pin", &[][..]),
    };
    let accept = accept.iter().map(|fault| fault.word()).collect();
    Trust {
        trusted: report.trust.faults.is_empty() && !report.chain.is_empty(),
        faults: faults.collect(),
        setting,
        accept,
    }
}

fn name(named: &Option<Named>) -> Option<Name> {
    named.as_ref().map(|named| match named {
        Named::Same => Name { answer: "same", subject: None },
        Named::Other(subject) => Name { answer: "other", subject: Some(subject.clone()) },
        Named::Refused => Name { answer: "refused", subject: None },
    })
}

fn needs(needs: &crate::probe::report::Needs) -> Needs {
    let switches = &needs.switches;
    Needs {
        tls: needs.version,
        suite: needs.suite,
        max_tls: switches.max_tls.to_string(),
        security_level: switches.security_level,
        extensions: switches.extensions,
        empty_fragments: switches.empty_fragments,
        allow_weak: switches.allow_weak.iter().map(|weak| weak.word()).collect(),
        least: needs.is_least,
    }
}

/// To the microsecond.
fn seconds(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}
