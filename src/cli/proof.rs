//! What `add`, `check` and `trust` show of certificates, and the visit that proves a path.

use std::time::Duration;

use super::failed::{Failed, code};
use super::talk;
use crate::config::values::Host;
use crate::config::{Fingerprint, Name, Places, Settings};
use crate::leg::proxy;
use crate::tls::certificate::Facts;
use crate::tls::identity;
use crate::tls::reference::{self, Anchor, Http, Seen};

pub(super) use crate::bridge::auto::PAGE;

/// Visits a forwarder through its own port, as a client that was given its certificate.
///
/// # Errors
/// What failed, in one sentence.
pub(super) async fn through(
    places: &Places,
    name: &Name,
    settings: &Settings,
    limit: Duration,
) -> Result<Seen, String> {
    let address = settings.listen.from_here();
    let anchor = anchor(places, name)?;
    let host = settings.verified_name().to_string();
    let name = Host::Address(address.ip());
    reference::visit(address, &greeting(settings), &anchor, &name, Some((&host, PAGE)), limit).await
}

/// What a visit from here must begin with: a PROXY header that speaks for nobody, where one is demanded.
pub(super) fn greeting(settings: &Settings) -> Vec<u8> {
    // A connection to an address of this machine comes from that address.
    if settings.expects_proxy_header(settings.listen.from_here().ip()) { proxy::binary(None) } else { Vec::new() }
}

/// What a client of the forwarder trusts: our CA if it issued the certificate served, else that one itself.
///
/// # Errors
/// The certificate can't be read.
pub(super) fn anchor(places: &Places, name: &Name) -> Result<Anchor, String> {
    let pair = identity::read(&places.identity(name)).map_err(|error| error.to_string())?;
    match identity::Authority::certificate(places) {
        Ok((authority, facts)) if facts.subject == pair.facts.issuer => {
            let pem = authority.to_pem().map_err(|error| error.to_string())?;
            Ok(Anchor::Authority(String::from_utf8_lossy(&pem).into_owned()))
        }
        _ => Ok(Anchor::Exactly(pair.facts.fingerprint)),
    }
}

/// An HTTP answer in words.
pub(super) fn http_text(http: Option<&Http>) -> String {
    let Some(http) = http else { return "the target gave no HTTP answer".to_owned() };
    let schemes = if http.schemes.is_empty() { String::new() } else { format!(" ({})", http.schemes.join(", ")) };
    format!("{PAGE} answers {}{schemes}", http.status)
}

/// A certificate's facts, for eyes that compare them.
pub(super) fn print_facts(facts: &Facts) {
    for line in facts_lines(facts) {
        eprintln!("          {line}");
    }
}

/// A certificate's facts, a line each.
pub(super) fn facts_lines(facts: &Facts) -> [String; 5] {
    let now = time::OffsetDateTime::now_utc();
    [
        format!("subject     {}; names {}", facts.subject, facts.names_text()),
        format!("issuer      {}", if facts.self_signed { "itself (self-signed)" } else { &facts.issuer }),
        format!("valid       {}; {}, signature {}", facts.lifetime_text(now), facts.key, facts.signature),
        format!("SHA-256     {}", facts.fingerprint),
        format!("Thumbprint  {}  (SHA-1, as Windows shows it)", facts.thumbprint),
    ]
}

/// Asks whether to pin; a pasted fingerprint is an answer too.
///
/// # Errors
/// Anything but yes, and a fingerprint that does not match.
pub(super) fn ask_pin(question: &str, wanted: Fingerprint) -> Result<(), Failed> {
    let answer = talk::ask(&format!("{question} [yes/no/fingerprint]")).unwrap_or_default();
    if answer.eq_ignore_ascii_case("yes") || answer.parse() == Ok(wanted) {
        return Ok(());
    }
    let failed = match answer.parse::<Fingerprint>() {
        Ok(_) => Failed::new("the fingerprint does not match: this is not the certificate that you expect"),
        Err(_) if answer.is_empty() || answer.eq_ignore_ascii_case("no") => Failed::new("not pinned"),
        Err(error) => Failed::with(code::FAILED, format!("not pinned: {error}")),
    };
    Err(failed.hint("nothing was changed"))
}
