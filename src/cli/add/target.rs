//! What the target speaks, and who vouches for it.

use std::sync::Arc;

use super::Add;
use crate::bridge::dialer::{CERTIFICATE, Dialed, Dialer, Reached};
use crate::bridge::failure::Failure;
use crate::bridge::forwarder;
use crate::bridge::resolver::Resolver;
use crate::cli::failed::{Failed, code};
use crate::cli::talk::{self, Word, millis, step};
use crate::cli::{outbound, proof};
use crate::config::settings::Trust;
use crate::config::values::{Host, Target};
use crate::config::{Draft, Name};
use crate::tls::explain::Cure;
use crate::tls::trust::Voucher;

impl Add {
    /// Asks the target what it speaks; settles who vouches for it.
    pub(super) async fn probe(&self, name: &Name, draft: &mut Draft) -> Result<Answered, Failed> {
        self.find_outbound(name, draft).await?;
        let targets = draft.settings()?.target;
        let (mut answered, mut missed) = (Vec::new(), Vec::new());
        for target in targets.iter() {
            let dialed = match dial(draft, target).await? {
                // What can't be trusted would never be used: that is for the admin to settle now.
                Err(failure) if failure.stage == CERTIFICATE || targets.count() == 1 => {
                    self.settle_trust(name, &failure, draft, &answered).await?;
                    dial(draft, target).await?
                }
                dialed => dialed,
            };
            match dialed {
                Ok(dialed) => {
                    let reached = dialed.close().await;
                    let which = if targets.count() == 1 { String::new() } else { format!(" {target}") };
                    tell_reached(&target.host, &which, &reached);
                    let is_one_of_many = targets.count() > 1;
                    answered.push(Answered { target: target.clone(), reached, is_one_of_many });
                }
                Err(failure) => missed.push(failure),
            }
        }
        if answered.is_empty() {
            return Err(Failure::all(missed).map_or_else(|| Failed::new("no target"), |failure| told(name, &failure)));
        }
        missed.iter().for_each(|failure| step(Word::Warn, format!("{failure}; passed over until it answers")));
        Ok(answered.swap_remove(0))
    }

    /// Finds what the target needs, unless the admin has said how to speak to it.
    async fn find_outbound(&self, name: &Name, draft: &mut Draft) -> Result<(), Failed> {
        let by_hand = outbound::is_decided(draft);
        match self.outbound.outbound() {
            Some("auto") | None if !by_hand => {}
            Some("auto") => return Err(outbound::decided_twice(draft)),
            _ => return Ok(()),
        }
        let settings = draft.settings()?;
        // Authorities that can't be used are no question for the target.
        let usable = Dialer::new(None, Arc::new(settings.clone()), Resolver::default());
        usable.map_err(|error| Failed::from(forwarder::Error::from(error)).typed())?;
        let command = |words: &str| {
            let typed = talk::typed_without(&["--allow-weak"]);
            format!("{typed} --allow-weak={words}")
        };
        let permission = outbound::Permission {
            allowed: &settings.allow_weak,
            can_ask: talk::can_ask(self.no_input),
            name: name.as_str(),
            has_file: false,
            command: &command,
        };
        let found = outbound::find(&settings, permission, |_| {}).await?;
        step(Word::Ok, outbound::summary(&found));
        outbound::write(&found, draft);
        Ok(())
    }

    /// An untrusted certificate is shown and pinned if an admin says so.
    ///
    /// `answered`: the targets that were reached before, whose certificates must stay trusted.
    async fn settle_trust(
        &self,
        name: &Name,
        failure: &Failure,
        draft: &mut Draft,
        answered: &[Answered],
    ) -> Result<(), Failed> {
        let settings = draft.settings()?;
        let is_open = draft_trusts_nobody(draft) || (settings.target.count() > 1 && draft.has("pin"));
        let Some(facts) = failure.presented.as_deref().filter(|_| is_open) else {
            return Err(told(name, failure));
        };
        let which = if settings.target.count() == 1 { "target" } else { &failure.side };
        step(Word::Warn, format!("{which} certificate: {}", failure.cause));
        // A pin is the whole judgement, of every target.
        let mut pins = match settings.trust {
            Trust::Pin(pins) => pins,
            _ => Vec::new(),
        };
        let others = answered.iter().filter_map(|answered| answered.reached.certificate.as_ref());
        for facts in others.chain([facts]) {
            if !pins.contains(&facts.fingerprint) {
                pins.push(facts.fingerprint);
            }
        }
        proof::print_facts(facts);
        if !talk::can_ask(self.no_input) {
            let mut pinned = talk::typed_without(&["--ca", "--accept", "--pin"]);
            pins.iter().for_each(|pin| pinned.push_str(&format!(" --pin {pin}")));
            if draft.has("pin") {
                let hint = format!("compare it, then: {pinned}");
                return Err(Failed::with(code::UNDECIDED, told(name, failure).message()).hint(hint));
            }
            let mut hint = format!("compare it, then run one of\n  {pinned}");
            let typed = talk::typed_without(&[]);
            if !draft.has("ca") {
                hint.push_str(&format!("\n  {typed} --ca FILE"));
            }
            // A fault that can be accepted is hinted at as the flag that accepts it.
            if let Some(accept) = failure.cure.as_ref().and_then(Cure::acceptance) {
                let without = talk::typed_without(&["--accept"]);
                hint.push_str(&format!("\n  {without} {}", accept.text(None)));
            }
            return Err(Failed::with(code::UNDECIDED, told(name, failure).message()).hint(hint));
        }
        eprintln!("Compare before you trust. In the Exchange Management Shell:");
        eprintln!("  Get-ExchangeCertificate | Format-List Subject,NotAfter,Thumbprint");
        eprintln!("Pinning accepts exactly this certificate, whatever its names and dates, and refuses any other.");
        // On a thread of its own: Ctrl-C must end the command while the question stands.
        let (question, wanted) = (format!("Pin it for {name}?"), facts.fingerprint);
        let answered = tokio::task::spawn_blocking(move || proof::ask_pin(&question, wanted)).await;
        answered.map_err(|error| Failed::new(format!("{name}: question: {error}")))??;
        ["ca", "accept"].iter().for_each(|key| draft.forget(key));
        draft.set_list("pin", &pins.iter().map(ToString::to_string).collect::<Vec<_>>());
        step(Word::Ok, "pinned");
        Ok(())
    }
}

/// A target that was reached.
pub(super) struct Answered {
    pub(super) target: Target,
    pub(super) reached: Reached,
    pub(super) is_one_of_many: bool,
}

async fn dial(draft: &Draft, target: &Target) -> Result<Result<Dialed, Failure>, Failed> {
    let settings = Arc::new(draft.settings()?.to(target));
    let dialer = Dialer::new(None, settings, Resolver::default()).map_err(forwarder::Error::from);
    Ok(dialer.map_err(|error| Failed::from(error).typed())?.dial().await)
}

pub(super) fn told(name: &Name, failure: &Failure) -> Failed {
    Failed::new(format!("{name}: {failure}")).maybe_hint(failure.hint())
}

/// Whether pinning is still open: nothing but this system's authorities was named.
fn draft_trusts_nobody(draft: &Draft) -> bool {
    !draft.has("pin") && !draft.has("insecure")
}

/// What a target showed; `which` names it where there are several.
fn tell_reached(host: &Host, which: &str, reached: &Reached) {
    step(Word::Ok, format!("{host} is {}, TCP connect {}", reached.address, millis(reached.tcp)));
    let (version, suite) = (reached.version, reached.suite);
    step(Word::Ok, format!("target{which} speaks TLS {version} {suite}, handshake {}", millis(reached.tls)));
    tell_certificate(which, reached);
}

fn tell_certificate(which: &str, reached: &Reached) {
    let Some(facts) = &reached.certificate else { return };
    let until = facts.not_after.date();
    let (word, who) = match &reached.voucher {
        Voucher::System => (Word::Ok, "trusted by this system".to_owned()),
        Voucher::File(file) => (Word::Ok, format!("trusted by {}", file.display())),
        Voucher::Pin => (Word::Ok, "pinned".to_owned()),
        Voucher::Nobody => (Word::Warn, "not verified (--insecure)".to_owned()),
    };
    step(word, format!("target{which} certificate: {}, {who}, to {until}", facts.subject));
    if facts.days_left(time::OffsetDateTime::now_utc()) < 0 {
        step(Word::Warn, format!("target{which} certificate: expired on {until}; accepted as the settings say"));
    }
}
