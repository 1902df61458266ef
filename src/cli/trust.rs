//! `trust`: the certificate that a target shows beside the pinned one, and a new pin.

use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use toml_edit::{Array, Value};

use super::failed::{Failed, code};
use super::talk::{self, say};
use super::undo::Undo;
use super::{Done, add, proof, set};
use crate::bridge::dialer::Dialer;
use crate::bridge::forwarder;
use crate::bridge::resolver::Resolver;
use crate::config::draft::edited;
use crate::config::settings::Trust;
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
    presented: String,
    presented_subject: String,
    presented_not_after: String,
}

impl TrustCommand {
    /// Shows, asks, pins.
    pub(super) fn run(self, places: &Places) -> Done {
        let name: Name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        let settings = store::load(places, &name)?;
        let pinned = pins_of(&settings);
        let shown = super::block_on(presented(&name, &settings))?;
        if self.json {
            super::print_json(&Document {
                schema: 1,
                ok: pinned.contains(&shown.fingerprint),
                name: name.to_string(),
                pinned: pinned.iter().map(Fingerprint::to_string).collect(),
                presented: shown.fingerprint.to_string(),
                presented_subject: shown.subject.clone(),
                presented_not_after: super::rfc3339(shown.not_after),
            });
            return Ok(0);
        }
        print_side_by_side(&settings, &pinned, &shown);
        if pinned.contains(&shown.fingerprint) {
            say!("{name}: the target shows the pinned certificate; nothing to do");
            return Ok(0);
        }
        self.decide(&name, shown.fingerprint)?;
        pin(places, &name, shown.fingerprint, self.add)?;
        say!("{name}: pinned; the path: ewsbridge check {name}");
        Ok(0)
    }

    fn decide(&self, name: &Name, wanted: Fingerprint) -> Result<(), Failed> {
        match self.pin {
            Some(given) if given == wanted => Ok(()),
            Some(given) => {
                let text = format!("{name}: {given} is not what the target shows, {wanted}");
                Err(Failed::new(text).hint("nothing was changed; compare on the server itself"))
            }
            None if talk::can_ask(self.no_input) => {
                eprintln!("Compare before you trust. In the Exchange Management Shell:");
                eprintln!("  Get-ExchangeCertificate | Format-List Subject,NotAfter,Thumbprint");
                proof::ask_pin(if self.add { "Pin it as well?" } else { "Pin it instead?" }, wanted)
            }
            None => {
                let failed = Failed::with(code::UNDECIDED, format!("{name}: the target's certificate is not pinned"));
                let add = if self.add { " --add" } else { "" };
                Err(failed.hint(format!("compare it, then: ewsbridge trust {name}{add} --pin {wanted}")))
            }
        }
    }
}

/// The certificate that the target shows, whatever is trusted: nothing is sent to it but a handshake.
async fn presented(name: &Name, settings: &Settings) -> Result<Facts, Failed> {
    let open = Settings { trust: Trust::Insecure, ..settings.clone() };
    let dialer =
        Dialer::new(Some(name.to_string()), Arc::new(open), Resolver::default()).map_err(forwarder::Error::from)?;
    let dialed = dialer.dial().await;
    let dialed = dialed.map_err(|failure| Failed::new(format!("{name}: {failure}")).maybe_hint(failure.hint()))?;
    let leaf =
        dialed.leg.certificate().ok_or_else(|| Failed::new(format!("{name}: the target shows no certificate")))?;
    Facts::of(&leaf).map_err(Failed::new)
}

fn print_side_by_side(settings: &Settings, pinned: &[Fingerprint], shown: &Facts) {
    say!("trusted so far");
    match &settings.trust {
        Trust::Pin(_) => pinned.iter().for_each(|pin| say!("  SHA-256     {pin}")),
        Trust::System(_) => say!("  whatever this system's authorities vouch for"),
        Trust::Ca(file, _) => say!("  whatever {} vouches for", file.display()),
        Trust::Insecure => say!("  anything (insecure = true)"),
    }
    say!("the target shows");
    proof::facts_lines(shown).iter().for_each(|line| say!("  {line}"));
}

fn pins_of(settings: &Settings) -> Vec<Fingerprint> {
    match &settings.trust {
        Trust::Pin(pins) => pins.clone(),
        _ => Vec::new(),
    }
}

/// Pins a certificate instead of, or beside, what is trusted by now.
fn pin(places: &Places, name: &Name, wanted: Fingerprint, beside: bool) -> Result<(), Failed> {
    add::require_rights(places)?;
    let _lock = super::lock(places)?;
    // Read again: somebody may have changed it while the question stood.
    let old = store::read_text(places, name)?;
    let mut pins = if beside { pins_of(&store::load(places, name)?) } else { Vec::new() };
    pins.push(wanted);
    let list = pins.iter().map(Fingerprint::to_string).collect::<Array>();
    let others = ["ca", "insecure", "accept"].map(|key| (key, None));
    let changes = others.into_iter().chain([("pin", Some(Value::Array(list)))]);
    let new = edited(&old, &places.forwarder(name), changes)?;
    set::put_in_force(places, name, &new, Undo::default(), true)
}
