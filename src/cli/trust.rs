//! `trust`: the certificate that a target shows beside the pinned one, and a new pin.

use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use toml_edit::{Array, Value};

use super::failed::{Failed, code};
use super::talk::{self, say};
use super::undo::Undo;
use super::{Done, proof, require_rights, set};
use crate::bridge::dialer::Dialer;
use crate::bridge::failure::Failure;
use crate::bridge::forwarder;
use crate::bridge::resolver::Resolver;
use crate::config::draft::edited;
use crate::config::settings::Trust;
use crate::config::values::Target;
use crate::config::{Fingerprint, Name, Places, Settings, store};
use crate::tls::certificate::Facts;

/// Compare the target's certificate with the pinned one; add or replace the pin.
#[derive(Args)]
pub(super) struct TrustCommand {
    /// The forwarder
    name: String,
    /// Pin the certificate with this fingerprint, without being asked
    #[arg(long, value_name = "sha256:HEX")]
    pin: Option<Fingerprint>,
    /// Keep the pins there are: for a certificate that will be changed soon, or a second server
    #[arg(long)]
    add: bool,
    /// Never ask (exit code 5 instead)
    #[arg(long)]
    no_input: bool,
    /// Print one JSON document and change nothing
    #[arg(long, conflicts_with_all = ["pin", "add"])]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    schema: u8,
    ok: bool,
    name: String,
    pinned: Vec<String>,
    /// What the first target shows that is not pinned, or else the first that answers.
    presented: String,
    presented_subject: String,
    presented_not_after: String,
    targets: Vec<Row>,
}

/// What one target shows, or why it shows nothing.
#[derive(Serialize)]
struct Row {
    target: String,
    presented: Option<String>,
    pinned: bool,
    problem: Option<String>,
}

/// The certificate of a target that answers.
struct Shown {
    target: Target,
    facts: Facts,
}

impl TrustCommand {
    /// Shows, asks, pins.
    pub(super) fn run(self, places: &Places) -> Done {
        let name: Name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        let settings = store::load(places, &name)?;
        let pinned = pins_of(&settings);
        let (shown, missed) = super::block_on(presented(&name, &settings))?;
        let mut open: Vec<&Shown> = Vec::new();
        for shown in shown.iter().filter(|shown| !pinned.contains(&shown.facts.fingerprint)) {
            if open.iter().all(|known| known.facts.fingerprint != shown.facts.fingerprint) {
                open.push(shown);
            }
        }
        if self.json {
            let told = open.first().copied().or(shown.first());
            super::print_json(&document(&name, &settings, &shown, &missed, told));
            return Ok(0);
        }
        print_side_by_side(&settings, &pinned, &shown, &missed);
        if open.is_empty() {
            say!("{name}: the target shows the pinned certificate; nothing to do");
            return Ok(0);
        }
        let wanted = match self.pin {
            Some(given) => open.iter().position(|shown| shown.facts.fingerprint == given).unwrap_or(0),
            None => 0,
        };
        let mut chosen = Vec::new();
        // Without a word of the admin each is asked about; with one it is about that certificate.
        let asked = if self.pin.is_some() { vec![open.remove(wanted)] } else { std::mem::take(&mut open) };
        for shown in asked {
            self.decide(&name, &settings, shown)?;
            chosen.push(shown.facts.fingerprint);
        }
        // The pin of a target that can't be asked, or that still shows it, is not this change's to drop.
        let is_kept = |pin: &Fingerprint| {
            let is_shown = shown.iter().any(|shown| shown.facts.fingerprint == *pin);
            self.add || (settings.target.count() > 1 && (is_shown || !missed.is_empty()))
        };
        pin(places, &name, &chosen, is_kept)?;
        say!("{name}: pinned; the path: ewsbridge check {name}");
        for other in open {
            let (target, pin) = (&other.target, other.facts.fingerprint);
            say!(
                "{name}: target {target} shows another, which is not pinned: ewsbridge trust {name} --add --pin {pin}"
            );
        }
        Ok(0)
    }

    fn decide(&self, name: &Name, settings: &Settings, shown: &Shown) -> Result<(), Failed> {
        let wanted = shown.facts.fingerprint;
        let who = who(settings, &shown.target);
        match self.pin {
            Some(given) if given == wanted => Ok(()),
            Some(given) => {
                let text = format!("{name}: {given} is not what {who} shows, {wanted}");
                Err(Failed::new(text).hint("nothing was changed; compare on the server itself"))
            }
            None if talk::can_ask(self.no_input) => {
                eprintln!("Compare before you trust. In the Exchange Management Shell:");
                eprintln!("  Get-ExchangeCertificate | Format-List Subject,NotAfter,Thumbprint");
                let instead = if self.add { "Pin it as well?" } else { "Pin it instead?" };
                match settings.target.count() {
                    1 => proof::ask_pin(instead, wanted),
                    _ => proof::ask_pin(&format!("Pin what {who} shows, {wanted}?"), wanted),
                }
            }
            None => {
                let failed = Failed::with(code::UNDECIDED, format!("{name}: {who}'s certificate is not pinned"));
                let add = if self.add { " --add" } else { "" };
                Err(failed.hint(format!("compare it, then: ewsbridge trust {name}{add} --pin {wanted}")))
            }
        }
    }
}

/// A target in a sentence; by its address where there are several.
fn who(settings: &Settings, target: &Target) -> String {
    if settings.target.count() == 1 { "the target".to_owned() } else { format!("target {target}") }
}

fn document(name: &Name, settings: &Settings, shown: &[Shown], missed: &[Failure], told: Option<&Shown>) -> Document {
    let pinned = pins_of(settings);
    let rows = settings.target.iter().map(|target| {
        let facts = shown.iter().find(|shown| shown.target == *target).map(|shown| &shown.facts);
        let side = format!("target {target}");
        Row {
            target: target.to_string(),
            presented: facts.map(|facts| facts.fingerprint.to_string()),
            pinned: facts.is_some_and(|facts| pinned.contains(&facts.fingerprint)),
            problem: missed.iter().find(|failure| failure.side == side).map(Failure::to_string),
        }
    });
    let facts = told.map(|shown| &shown.facts);
    Document {
        schema: 1,
        ok: shown.iter().all(|shown| pinned.contains(&shown.facts.fingerprint)),
        name: name.to_string(),
        pinned: pinned.iter().map(Fingerprint::to_string).collect(),
        presented: facts.map(|facts| facts.fingerprint.to_string()).unwrap_or_default(),
        presented_subject: facts.map(|facts| facts.subject.clone()).unwrap_or_default(),
        presented_not_after: facts.map(|facts| super::rfc3339(facts.not_after)).unwrap_or_default(),
        targets: rows.collect(),
    }
}

/// The certificates that the targets show, whatever is trusted: nothing is sent to them but a handshake.
///
/// # Errors
/// No target shows one.
async fn presented(name: &Name, settings: &Settings) -> Result<(Vec<Shown>, Vec<Failure>), Failed> {
    let (mut shown, mut missed) = (Vec::new(), Vec::new());
    for target in settings.target.iter() {
        let open = Settings { trust: Trust::Insecure, ..settings.to(target) };
        let dialer =
            Dialer::new(Some(name.to_string()), Arc::new(open), Resolver::default()).map_err(forwarder::Error::from)?;
        match dialer.dial().await {
            Ok(dialed) => {
                let leaf = dialed.leg.certificate();
                let leaf =
                    leaf.ok_or_else(|| Failed::new(format!("{name}: {} shows no certificate", who(settings, target))))?;
                shown.push(Shown { target: target.clone(), facts: Facts::of(&leaf).map_err(Failed::new)? });
            }
            Err(failure) => missed.push(failure),
        }
    }
    match Failure::all(missed.clone()).filter(|_| shown.is_empty()) {
        Some(failure) => Err(Failed::new(format!("{name}: {failure}")).maybe_hint(failure.hint())),
        None => Ok((shown, missed)),
    }
}

fn print_side_by_side(settings: &Settings, pinned: &[Fingerprint], shown: &[Shown], missed: &[Failure]) {
    say!("trusted so far");
    match &settings.trust {
        Trust::Pin(_) => pinned.iter().for_each(|pin| say!("  SHA-256     {pin}")),
        Trust::System(_) => say!("  whatever this system's authorities vouch for"),
        Trust::Ca(file, _) => say!("  whatever {} vouches for", file.display()),
        Trust::Insecure => say!("  anything (insecure = true)"),
    }
    for shown in shown {
        say!("{} shows", who(settings, &shown.target));
        proof::facts_lines(&shown.facts).iter().for_each(|line| say!("  {line}"));
    }
    missed.iter().for_each(|failure| say!("{failure}"));
}

fn pins_of(settings: &Settings) -> Vec<Fingerprint> {
    match &settings.trust {
        Trust::Pin(pins) => pins.clone(),
        _ => Vec::new(),
    }
}

/// Pins certificates in place of what is trusted by now, but for the pins that are kept.
fn pin(
    places: &Places,
    name: &Name,
    chosen: &[Fingerprint],
    is_kept: impl Fn(&Fingerprint) -> bool,
) -> Result<(), Failed> {
    require_rights(places)?;
    let _lock = super::lock(places)?;
    // Read again: somebody may have changed it while the question stood.
    let old = store::read_text(places, name)?;
    let mut pins = pins_of(&store::load(places, name)?);
    pins.retain(|pin| is_kept(pin) && !chosen.contains(pin));
    pins.extend(chosen);
    let list = pins.iter().map(Fingerprint::to_string).collect::<Array>();
    let others = ["ca", "insecure", "accept"].map(|key| (key, None));
    let changes = others.into_iter().chain([("pin", Some(Value::Array(list)))]);
    let new = edited(&old, &places.forwarder(name), changes)?;
    set::put_in_force(places, name, &new, Undo::default(), true)
}
