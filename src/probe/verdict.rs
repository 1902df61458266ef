//! What a scan means for an admin: a sentence or two, and the command that adds the forwarder.

use std::fmt;

use super::report::{Report, Request, Setting};
use crate::bridge::auto::PAGE;
use crate::config::values::{Fault, Host, Sni, Version, Weak};
use crate::tls::scan::suites::Suite;

/// The meaning of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// In plain words.
    pub text: String,
    /// What to type next.
    pub next: Command,
    /// What would do as well, with the reason to prefer it.
    pub others: Vec<(&'static str, Command)>,
}

/// A command line in pieces that belong together; it is pasted once NAME and PORT are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(Vec<String>);

impl Command {
    /// Lines of at most `width` columns, each but the last with a backslash at its end.
    pub fn folded(&self, width: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for piece in &self.0 {
            match lines.last_mut() {
                // Room for the backslash too.
                Some(line) if line.len() + piece.len() + 3 <= width => *line = format!("{line} {piece}"),
                Some(line) => {
                    line.push_str(" \\");
                    lines.push(format!("  {piece}"));
                }
                None => lines.push(piece.clone()),
            }
        }
        lines
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl Verdict {
    /// Of a report.
    pub fn of(report: &Report) -> Self {
        let mut sentences = vec![way(report)];
        sentences.extend(trust(report));
        sentences.extend(page(report));
        let (next, others) = commands(report);
        Self { text: sentences.join(". "), next, others }
    }
}

/// How a forwarder would speak to the server.
fn way(report: &Report) -> String {
    let Some(needs) = &report.needs else {
        let weak = if weak(report).is_empty() { "" } else { " It seems to need what is weak, too." };
        return format!(
            "asks for a client certificate and refuses whoever has none; with one, add finds the rest{weak}"
        );
    };
    let weak = needs.switches.allow_weak.iter().map(|weak| weak.about()).collect::<Vec<_>>().join(", ");
    let mut text = if weak.is_empty() {
        "works with the defaults".to_owned()
    } else {
        format!(
            "works only with what is weak: {weak}. Better allow more on the server; if it can't be changed, say so to add"
        )
    };
    let mut hidden = Vec::new();
    if needs.switches.max_tls < Version::Tls1_2 && needs.switches.extensions || needs.switches.max_tls < Version::Tls1_1
    {
        hidden.push("newer versions");
    }
    if !needs.switches.extensions {
        hidden.push("extensions");
    }
    if !needs.switches.empty_fragments {
        hidden.push("empty records");
    }
    if !hidden.is_empty() {
        text.push_str(&format!("; it stumbles over {}, which add hides from it by itself", hidden.join(" and ")));
    }
    if needs.version != "1.2" {
        text.push_str(&format!("; TLS {} is old, so keep this leg inside a trusted network", needs.version));
    }
    if report.behaviour.client_certificate == Some(Request::Optional) {
        text.push_str("; it asks for a client certificate but does without");
    }
    if !needs.is_least {
        text.push_str("; the connections did not suffice to find the least that it needs, --full does");
    }
    text
}

fn trust(report: &Report) -> Option<String> {
    Some(match &report.trust.setting {
        Setting::Nothing => return None,
        Setting::Accept(_) => "Its certificate is trusted only if you accept its faults".to_owned(),
        Setting::Authority(_) => {
            "This system does not know who issued its certificate: pin it once you have compared it, or give the authority's file"
                .to_owned()
        }
        Setting::Pin if report.chain.is_empty() => "Its certificate was not seen".to_owned(),
        Setting::Pin => "Nothing can vouch for its certificate but a pin: compare it before you pin it".to_owned(),
    })
}

fn page(report: &Report) -> Option<String> {
    match &report.http {
        None if report.is_http_asked => {
            Some("No HTTP server answers behind TLS: is this the Exchange server?".to_owned())
        }
        Some(http) if http.status == 404 => Some(format!("There is no {PAGE}: is this the Exchange server?")),
        _ => None,
    }
}

fn commands(report: &Report) -> (Command, Vec<(&'static str, Command)>) {
    let mut base = vec![format!("ewsbridge add NAME PORT {}", report.target)];
    if report.sni != Sni::Auto {
        base.push(format!("--sni {}", report.sni));
    }
    let weak = weak(report).iter().map(|weak| weak.word()).collect::<Vec<_>>().join(",");
    if !weak.is_empty() {
        base.push(format!("--allow-weak={weak}"));
    }
    if report.behaviour.client_certificate == Some(Request::Required) {
        base.push("--auth-cert FILE --auth-key FILE".to_owned());
    }
    let with = |pieces: Vec<String>| Command([base.clone(), pieces].concat());
    let pin = || report.chain.first().map(|leaf| format!("--pin {}", leaf.fingerprint)).into_iter().collect::<Vec<_>>();
    match &report.trust.setting {
        Setting::Nothing => (with(Vec::new()), Vec::new()),
        Setting::Accept(faults) => {
            let named = own_name(report, faults).map(|command| {
                let rest: Vec<Fault> = faults.iter().copied().filter(|fault| !is_about_name(*fault)).collect();
                let pieces = [vec![command], accepting(&rest)].concat();
                ("stricter, if that is its name", with(pieces))
            });
            let others = named.into_iter().chain([("or exactly this certificate", with(pin()))]).collect();
            (with(accepting(faults)), others)
        }
        Setting::Authority(faults) => {
            let by_file = [vec!["--ca FILE".to_owned()], accepting(faults)].concat();
            (with(pin()), vec![("or by its authority", with(by_file))])
        }
        Setting::Pin => (with(pin()), Vec::new()),
    }
}

/// What must be allowed: as `auto` has found it, or else as what was seen before the handshake ended.
fn weak(report: &Report) -> Vec<Weak> {
    if let Some(needs) = &report.needs {
        return needs.switches.allow_weak.clone();
    }
    let suites = report.suites.iter().filter_map(|entry| Suite::named(&entry.suite));
    let least = suites.map(Suite::weak).min_by_key(Vec::len).unwrap_or_default();
    let renegotiation = (report.behaviour.secure_renegotiation == Some(false)).then_some(Weak::NoRfc5746);
    renegotiation.into_iter().chain(least).collect()
}

fn accepting(faults: &[Fault]) -> Vec<String> {
    let words = faults.iter().map(|fault| fault.word()).collect::<Vec<_>>().join(",");
    if words.is_empty() { Vec::new() } else { vec![format!("--accept {words}")] }
}

fn is_about_name(fault: Fault) -> bool {
    matches!(fault, Fault::WrongName | Fault::IpInCn)
}

/// The name that the certificate does bear, where that is all that is wrong about names.
fn own_name(report: &Report, faults: &[Fault]) -> Option<String> {
    if !faults.iter().any(|fault| is_about_name(*fault)) {
        return None;
    }
    let names = report.chain.first()?.names.iter();
    let host = names.filter_map(|name| name.parse::<Host>().ok()).find(|host| matches!(host, Host::Name(_)))?;
    // Another verified name would change the server name that was found to work.
    let sni = match (&report.sni, &report.target.host) {
        (Sni::Auto, Host::Address(_)) => " --sni off".to_owned(),
        (Sni::Auto, Host::Name(name)) => format!(" --sni {name}"),
        _ => String::new(),
    };
    Some(format!("--server-name {host}{sni}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_folded_as_a_shell_reads_it() {
        let command = Command(vec!["ewsbridge add NAME PORT h:443".into(), "--sni x".into(), "y".repeat(71)]);
        assert_eq!(command.folded(80), ["ewsbridge add NAME PORT h:443 --sni x \\", &format!("  {}", "y".repeat(71))]);
        assert_eq!(Command(vec!["a".into(), "b".into()]).folded(80), ["a b"]);
    }
}
