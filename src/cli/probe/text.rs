//! A report for people: a label and what belongs to it, at most 80 columns, fingerprints apart.

use time::OffsetDateTime;

use crate::bridge::auto::{PAGE, Switches};
use crate::config::values::{Sni, Version};
use crate::probe::report::{Accepted, Grade, Named, Needs, Preference, Report, Request, Setting};
use crate::probe::verdict::Verdict;
use crate::tls::certificate::Facts;
use crate::tls::scan::Key;
use crate::tls::scan::suites::Agreement;

/// Columns that a line may have.
const WIDTH: usize = 80;
/// Where what belongs to a label begins.
const INDENT: usize = 13;

/// Certificates shown beside the server's own; a hostile server sends hundreds.
const CHAIN: usize = 6;

/// The whole report.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let mut page = Page(vec![head(report)]);
    if report.addresses.len() > 1 {
        page.put("Addresses", &addresses(report));
    }
    let versions = report.versions.iter().map(|(version, speaks)| format!("TLS {version} {}", yes_no(*speaks)));
    page.put("Protocols", &versions.collect::<Vec<_>>().join(", "));
    ciphers(report, &mut page);
    certificate(report, &mut page);
    page.put("Behaviour", &behaviour(report));
    page.put("", &names(report));
    page.put("Dislikes", &dislikes(report));
    if let Some(needs) = &report.needs {
        page.put("Settings", &settings(needs));
    }
    if report.is_http_asked {
        page.put("EWS", &ews(report));
    }
    if !report.skipped.is_empty() {
        let want = if report.is_late { "time" } else { "connections" };
        let hint = if report.most > crate::probe::MOST { "" } else { "; --full has more" };
        page.put("Not seen", &format!("{}, for want of {want}{hint}", report.skipped.join(", ")));
    }
    let verdict = Verdict::of(report);
    page.put("Verdict", &verdict.text);
    page.commands("Next", &verdict.next.folded(WIDTH - INDENT));
    for (why, command) in &verdict.others {
        page.put("", &format!("{why}:"));
        page.commands("", &command.folded(WIDTH - INDENT));
    }
    page.0
}

fn head(report: &Report) -> String {
    let plural = if report.connections == 1 { "" } else { "s" };
    let time = report.time.as_secs_f64();
    let sni = match &report.sni {
        Sni::Auto => String::new(),
        Sni::Off => ", no server name".to_owned(),
        Sni::Name(name) => format!(", as {name}"),
    };
    let (target, ip, count) = (&report.target, report.address.ip(), report.connections);
    format!("{target} ({ip}{sni}): {count} connection{plural} in {time:.1} s, nothing was changed")
}

fn addresses(report: &Report) -> String {
    let one = |address: &crate::probe::report::Address| match &address.connected {
        Some(Ok(time)) => format!("{} {:.1} ms", address.ip, time.as_secs_f64() * 1000.0),
        Some(Err(cause)) => format!("{} {cause}", address.ip),
        None => format!("{} not tried", address.ip),
    };
    report.addresses.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn ciphers(report: &Report, page: &mut Page) {
    let widest = |text: fn(&Accepted) -> String| report.suites.iter().map(|entry| text(entry).len()).max().unwrap_or(0);
    let (suites, keys) = (widest(|entry| entry.suite.clone()), widest(key));
    for (index, entry) in report.suites.iter().enumerate() {
        let label = if index == 0 { "Ciphers" } else { "" };
        let mark = if entry.is_used { "*" } else { " " };
        let grade = match entry.grade {
            Grade::Good => "",
            Grade::Weak => "weak",
            Grade::Broken => "broken",
        };
        let (version, suite, key) = (entry.version, &entry.suite, key(entry));
        let line = format!("{label:<11}{mark} TLS {version}  {suite:<suites$}  {key:<keys$}  {grade}");
        page.0.push(line.trim_end().to_owned());
    }
    match report.preference {
        Some(Preference::Server) => page.put("", "in the server's own order, whatever the client prefers"),
        Some(Preference::Client) => page.put("", "the server takes the client's order, so this is ours"),
        None => {}
    }
}

/// What agrees on the keys.
fn key(entry: &Accepted) -> String {
    match (entry.agreement, entry.key) {
        (_, Some(Key::Curve(number))) => curve(number),
        (_, Some(Key::Dhe(bits))) => format!("DHE {bits} bits"),
        (Some(Agreement::Rsa), None) => "RSA".to_owned(),
        (_, None) => String::new(),
    }
}

/// A group's name by its number.
pub(super) fn curve(number: u16) -> String {
    match number {
        23 => "P-256".to_owned(),
        24 => "P-384".to_owned(),
        25 => "P-521".to_owned(),
        29 => "X25519".to_owned(),
        other => format!("group {other}"),
    }
}

fn certificate(report: &Report, page: &mut Page) {
    let Some((leaf, others)) = report.chain.split_first() else {
        return page.put("Certificate", "none was seen");
    };
    let now = OffsetDateTime::now_utc();
    let from = if leaf.self_signed { "itself (self-signed)" } else { &leaf.issuer };
    page.put("Certificate", &format!("{}; names {}; from {from}", leaf.subject, leaf.names_text()));
    page.put("", &validity(leaf, now));
    page.put("", &leaf.fingerprint.to_string());
    page.put("", &format!("Thumbprint {} (SHA-1, as Windows shows it)", leaf.thumbprint));
    for other in others.iter().take(CHAIN) {
        let from = if other.self_signed { "itself" } else { &other.issuer };
        page.put("", &format!("sent with it: {}; from {from}; {}", other.subject, validity(other, now)));
    }
    if others.len() > CHAIN {
        page.put("", &format!("and {} certificates more", others.len() - CHAIN));
    }
    if report.trust.faults.is_empty() {
        return page.put("Trusted", "by this system's authorities, for this name");
    }
    let causes = report.trust.faults.iter().map(|flaw| match flaw.fault {
        // A pin looks at no fault.
        Some(fault) if report.trust.setting != Setting::Pin => format!("{} (--accept {})", flaw.cause, fault.word()),
        _ => flaw.cause.clone(),
    });
    page.put("Trusted", &format!("no: {}", causes.collect::<Vec<_>>().join("; ")));
}

fn validity(facts: &Facts, now: OffsetDateTime) -> String {
    format!("{}, {}, {}", facts.lifetime_text(now), facts.key, facts.signature)
}

fn behaviour(report: &Report) -> String {
    let behaviour = &report.behaviour;
    let mut parts = vec![
        format!("secure renegotiation {}", yes_no(behaviour.secure_renegotiation)),
        format!("extended master secret {}", yes_no(behaviour.extended_master_secret)),
        format!(
            "resumption by session ID {}, by ticket {}",
            yes_no(behaviour.resumes_by_id),
            yes_no(behaviour.resumes_by_ticket)
        ),
    ];
    if let Some(close_notify) = behaviour.close_notify {
        parts.push(format!("close_notify {}", yes_no(Some(close_notify))));
    }
    parts.push(match behaviour.client_certificate {
        Some(Request::No) => "client certificate not asked for".to_owned(),
        Some(Request::Optional) => "client certificate asked for, not required".to_owned(),
        Some(Request::Required) => "client certificate required".to_owned(),
        None => "client certificate unknown".to_owned(),
    });
    parts.join(", ")
}

fn names(report: &Report) -> String {
    let said = |named: &Option<Named>| match named {
        Some(Named::Same) => "the same certificate".to_owned(),
        Some(Named::Other(subject)) => format!("another certificate, {subject}"),
        Some(Named::Refused) => "refused".to_owned(),
        None => "unknown".to_owned(),
    };
    if let (Some(Named::Same), Some(Named::Same)) = (&report.behaviour.without_name, &report.behaviour.other_name) {
        return "one certificate, whatever server name it is asked for".to_owned();
    }
    let (without, other) = (said(&report.behaviour.without_name), said(&report.behaviour.other_name));
    format!("without a server name: {without}; with another one: {other}")
}

fn dislikes(report: &Report) -> String {
    let behaviour = &report.behaviour;
    let mut found = Vec::new();
    if !behaviour.version_intolerance.is_empty() {
        let versions = behaviour.version_intolerance.iter().map(|version| format!("TLS {version}"));
        found.push(format!("a ClientHello that names {}", versions.collect::<Vec<_>>().join(" or ")));
    }
    for (is, what) in [
        (behaviour.extension_intolerance, "a ClientHello with extensions"),
        (behaviour.medium_hello_intolerance, "a ClientHello of 256 to 511 bytes"),
        (behaviour.long_hello_intolerance, "a ClientHello of more than 512 bytes"),
    ] {
        if is == Some(true) {
            found.push(what.to_owned());
        }
    }
    if report.needs.as_ref().is_some_and(|needs| !needs.switches.empty_fragments) {
        found.push("empty records in TLS 1.0".to_owned());
    }
    if found.is_empty() { "nothing that was tried".to_owned() } else { found.join("; ") }
}

/// The least that a forwarder must be set to, as a forwarder's file has it.
fn settings(needs: &Needs) -> String {
    let Switches { max_tls, security_level, extensions, allow_weak, empty_fragments } = &needs.switches;
    let mut parts = Vec::new();
    if *max_tls < Version::Tls1_2 {
        parts.push(format!("max_tls = \"{max_tls}\""));
    }
    parts.push(format!("security_level = {security_level}"));
    if !extensions {
        parts.push("extensions = false".to_owned());
    }
    if !empty_fragments {
        parts.push("empty_fragments = false".to_owned());
    }
    if !allow_weak.is_empty() {
        let words = allow_weak.iter().map(|weak| format!("\"{}\"", weak.word()));
        parts.push(format!("allow_weak = [{}]", words.collect::<Vec<_>>().join(", ")));
    }
    format!("{} (add finds and writes them)", parts.join(", "))
}

fn ews(report: &Report) -> String {
    let Some(http) = &report.http else { return format!("{PAGE}: no HTTP answer") };
    let mut parts = vec![format!("{PAGE} answers {}", http.status)];
    if !http.schemes.is_empty() {
        parts.push(http.schemes.join(", "));
    }
    parts.extend(http.server.clone());
    parts.join("; ")
}

fn yes_no(is: Option<bool>) -> &'static str {
    match is {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
}

/// The lines so far.
struct Page(Vec<String>);

impl Page {
    /// A label and words that are wrapped behind it.
    fn put(&mut self, label: &str, text: &str) {
        let mut line = format!("{label:<INDENT$}");
        let mut is_empty = true;
        for word in text.split_whitespace() {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.0.push(std::mem::replace(&mut line, " ".repeat(INDENT)));
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        self.0.push(line);
    }

    /// A command; what does not fit behind the label goes to the left, so that a fingerprint fits.
    fn commands(&mut self, label: &str, lines: &[String]) {
        for (index, line) in lines.iter().enumerate() {
            self.0.push(if index == 0 { format!("{label:<INDENT$}{line}") } else { line.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped_at_80_columns_and_a_longer_one_stands_alone() {
        let mut page = Page(Vec::new());
        page.put("Verdict", &"word ".repeat(30));
        page.put("", &format!("a {}", "x".repeat(71)));
        assert!(page.0[0].starts_with("Verdict      word word"));
        assert!(page.0.iter().all(|line| !line.ends_with(' ')));
        assert!(page.0[..page.0.len() - 1].iter().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(page.0.last().unwrap().trim(), "x".repeat(71));
    }
}
