//! `check`: walk the path of a byte, name each fault and its cure.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;

use super::failed::{Failed, code};
use super::talk::{self, Word, millis, say};
use super::{Done, firewall, proof};
use crate::bridge::dialer::{Dialer, Reached};
use crate::bridge::forwarder;
use crate::bridge::resolver::Resolver;
use crate::config::values::{Host, Target};
use crate::config::{Name, Places, Settings, store};
use crate::tls::certificate::{self, Facts};
use crate::tls::reference::{self, Anchor};
use crate::tls::trust::Voucher;

/// Walk the path through a forwarder: both legs, one line each.
#[derive(Args)]
pub(super) struct Check {
    /// The forwarder
    name: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Step {
    id: &'static str,
    result: Word,
    text: String,
    hint: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u8,
    ok: bool,
    name: &'a str,
    warnings: usize,
    failures: usize,
    steps: &'a [Step],
}

/// Certificates nearer to their end than this are worth a word.
const SOON: i64 = 30;
/// For the listener, which is this machine.
const NEAR: Duration = Duration::from_secs(10);

impl Check {
    /// Prints what it finds; exit code 1 if anything failed.
    pub(super) fn run(self, places: &Places) -> Done {
        let name: Name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        let settings = store::load(places, &name)?;
        let mut walk =
            Walk { name: &name, places, settings: &settings, steps: Vec::new(), first: None, quiet: self.json };
        super::block_on(async {
            walk.targets().await?;
            walk.listener().await;
            walk.through().await;
            Ok(())
        })?;
        let count = |word| walk.steps.iter().filter(|step| step.result == word).count();
        let (warnings, failures) = (count(Word::Warn), count(Word::Fail));
        if self.json {
            let ok = failures == 0;
            super::print_json(&Document { schema: 1, ok, name: name.as_str(), warnings, failures, steps: &walk.steps });
        } else {
            let verdict = if failures == 0 { "the path works" } else { "the path does not work" };
            let plural = |count| if count == 1 { "" } else { "s" };
            let (some, more) = (plural(warnings), plural(failures));
            say!("{name}: {verdict}; {warnings} warning{some}, {failures} failure{more}");
        }
        Ok(if failures == 0 { 0 } else { code::FAILED })
    }
}

struct Walk<'a> {
    name: &'a Name,
    places: &'a Places,
    settings: &'a Settings,
    steps: Vec<Step>,
    /// The preferred of the targets that answer.
    first: Option<Target>,
    quiet: bool,
}

impl Walk<'_> {
    fn head(&self, text: &str) {
        if !self.quiet {
            say!("{text}");
        }
    }

    fn note(&mut self, id: &'static str, result: Word, text: String, hint: Option<String>) {
        if !self.quiet {
            talk::result(result, &text);
            hint.iter().for_each(|hint| say!("        hint: {hint}"));
        }
        self.steps.push(Step { id, result, text, hint });
    }

    /// Each target by itself. While one answers the path works, and another that fails is a warning.
    async fn targets(&mut self) -> Result<(), Failed> {
        let settings = self.settings;
        let mut seen = Vec::new();
        for target in settings.target.iter() {
            let alone = Arc::new(settings.to(target));
            let dialer = Dialer::new(Some(self.name.to_string()), alone, Resolver::default());
            let dialer = dialer.map_err(|error| {
                Failed::from(forwarder::Error::from(error)).read_from(&self.places.forwarder(self.name))
            })?;
            let reached = match dialer.dial().await {
                Ok(dialed) => Ok(dialed.close().await),
                Err(failure) => Err(failure),
            };
            seen.push((target, reached));
        }
        let works = seen.iter().any(|(_, reached)| reached.is_ok());
        self.first = seen.iter().find(|(_, reached)| reached.is_ok()).map(|(target, _)| (*target).clone());
        for (index, (target, reached)) in seen.into_iter().enumerate() {
            self.head(&format!("Target {target}"));
            if index == 0 {
                for warning in settings.warnings() {
                    self.note("target.settings", Word::Warn, warning, None);
                }
            }
            match reached {
                Ok(reached) => self.target_reached(target, &reached),
                Err(failure) => {
                    let word = if works { Word::Warn } else { Word::Fail };
                    self.note("target.tls", word, failure.to_string(), failure.hint());
                }
            }
        }
        Ok(())
    }

    fn target_reached(&mut self, target: &Target, reached: &Reached) {
        let (address, version, suite) = (&reached.address, reached.version, reached.suite);
        let (tcp, tls) = (millis(reached.tcp), millis(reached.tls));
        let which = if self.settings.target.count() == 1 { String::new() } else { format!("{target}: ") };
        let text = format!("{which}{address}, TCP {tcp}, TLS {version} {suite} in {tls}");
        self.note("target.tls", Word::Ok, text, None);
        if let Some(facts) = &reached.certificate {
            self.target_certificate(&which, facts, &reached.voucher);
        }
    }

    fn target_certificate(&mut self, which: &str, facts: &Facts, voucher: &Voucher) {
        let who = match voucher {
            Voucher::System => "trusted by this system".to_owned(),
            Voucher::File(file) => format!("trusted by {}", file.display()),
            Voucher::Pin => "pinned".to_owned(),
            Voucher::Nobody => "not verified (insecure = true)".to_owned(),
        };
        let left = facts.days_left(OffsetDateTime::now_utc());
        let word = if left < SOON || *voucher == Voucher::Nobody { Word::Warn } else { Word::Ok };
        let lifetime = facts.lifetime_text(OffsetDateTime::now_utc());
        let text = format!("{which}certificate {}: {who}; {lifetime}", facts.subject);
        self.note("target.certificate", word, text, None);
    }

    async fn listener(&mut self) {
        self.head(&format!("Listener {}", self.settings.listen));
        let anchor = match proof::anchor(self.places, self.name) {
            Ok(anchor) => anchor,
            Err(cause) => return self.note("listener.certificate", Word::Fail, cause, None),
        };
        let address = self.settings.listen.from_here();
        if let Err(error) = tokio::net::TcpStream::connect(address).await {
            let text = format!("{address}: connect: {}", crate::words::of(&error));
            let hint = format!("systemctl status ewsbridge@{}    or: ewsbridge run {}", self.name, self.name);
            return self.note("listener.tcp", Word::Fail, text, Some(hint));
        }
        let greeting = proof::greeting(self.settings);
        let seen =
            reference::visit(address, &greeting, &anchor, &Host::Address(address.ip()), None, self.limit()).await;
        match seen {
            Ok(seen) => self.listener_seen(&seen, &anchor).await,
            // A target that fails fails the listener's handshake too, and is named above.
            Err(cause) => self.note("listener.tls", Word::Fail, format!("handshake through {address}: {cause}"), None),
        }
        if let Some(file) = &self.settings.client_ca {
            self.client_authorities(file);
        }
        if let Some(hint) = firewall::open_port(self.settings.listen) {
            self.note("listener.firewall", Word::Warn, "the port is closed to other hosts".to_owned(), Some(hint));
        }
    }

    /// By whom clients' certificates must be.
    fn client_authorities(&mut self, file: &Path) {
        let authorities = match certificate::read_pem_chain(file) {
            Ok(authorities) => authorities,
            Err(error) => return self.note("listener.client_ca", Word::Fail, format!("client_ca: {error}"), None),
        };
        let now = OffsetDateTime::now_utc();
        for facts in authorities.iter().filter_map(|authority| Facts::of(authority).ok()) {
            let word = if facts.days_left(now) < SOON { Word::Warn } else { Word::Ok };
            let text = format!("clients must show a certificate by {}; {}", facts.subject, facts.lifetime_text(now));
            self.note("listener.client_ca", word, text, None);
        }
    }

    async fn listener_seen(&mut self, seen: &reference::Seen, anchor: &Anchor) {
        let text = format!("{} {} in {}", seen.version.replace("TLSv", "TLS "), seen.suite, millis(seen.handshake));
        self.note("listener.tls", Word::Ok, text, None);
        let left = seen.facts.days_left(OffsetDateTime::now_utc());
        let word = if left < SOON { Word::Warn } else { Word::Ok };
        let text = format!(
            "own certificate: {}; {}",
            seen.facts.names_text(),
            seen.facts.lifetime_text(OffsetDateTime::now_utc())
        );
        self.note("listener.certificate", word, text, None);
        let Anchor::Authority(pem) = anchor else { return };
        for name in [seen.facts.names.first(), seen.facts.names.last()].into_iter().flatten() {
            let Ok(host) = name.parse::<Host>() else { continue };
            let (address, greeting) = (self.settings.listen.from_here(), proof::greeting(self.settings));
            match reference::ordinary_client(address, &greeting, &host, pem, self.limit()).await {
                Ok(()) => {
                    self.note(
                        "listener.client",
                        Word::Ok,
                        format!("an ordinary client that pasted the CA accepts it as {name}"),
                        None,
                    );
                }
                Err(cause) => {
                    self.note(
                        "listener.client",
                        Word::Fail,
                        format!("an ordinary client refuses it as {name}: {cause}"),
                        None,
                    );
                }
            }
        }
    }

    async fn through(&mut self) {
        self.head("Through the forwarder");
        if self.steps.iter().any(|step| step.result == Word::Fail) {
            return self.note("through.http", Word::Skip, "what failed above comes first".to_owned(), None);
        }
        if self.settings.client_ca.is_some() {
            let text = "clients must show a certificate (client_ca), and this command has none".to_owned();
            let (address, host) = (self.settings.listen.from_here(), self.settings.verified_name());
            let hint = format!(
                "curl --cert FILE --key FILE --cacert CA.PEM -H 'Host: {host}' https://{address}{}",
                proof::PAGE
            );
            return self.note("through.http", Word::Skip, text, Some(hint));
        }
        match proof::through(self.places, self.name, self.settings, self.limit()).await {
            Ok(seen) => {
                let time = seen.http.as_ref().map_or_else(String::new, |http| format!(" in {}", millis(http.time)));
                let word = if seen.http.is_some() { Word::Ok } else { Word::Warn };
                let by = self.first.as_ref().filter(|_| self.settings.target.count() > 1);
                let by = by.map(|target| format!("; {target} is the first that answers")).unwrap_or_default();
                self.note("through.http", word, format!("{}{time}{by}", proof::http_text(seen.http.as_ref())), None);
            }
            Err(cause) => self.note("through.http", Word::Fail, cause, None),
        }
    }

    fn limit(&self) -> Duration {
        NEAR + self.settings.reaching()
    }
}
