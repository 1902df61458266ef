//! `add`: from three words to a forwarder that is proved to work, or to nothing at all.
//!
//! The steps, each of which can fail and then leaves the machine as it was: is the name free, the
//! port free; what does the target speak and who vouches for it; our own certificate; the file of
//! settings; the service; the proof through the forwarder's own port.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use nix::unistd::Gid;

use super::failed::{Failed, code};
use super::flags::{CredentialFlags, IdentityFlags, Pfx, TargetFlags};
use super::identities::{self, Credential, Made};
use super::talk::{self, Word, step};
use super::undo::Undo;
use super::{Done, outbound, ports, proof, summary};
use crate::bridge::dialer::{CERTIFICATE, Dialed, Dialer, Reached};
use crate::bridge::failure::Failure;
use crate::bridge::resolver::Resolver;
use crate::bridge::{Forwarder, Served, forwarder};
use crate::config::settings::Trust;
use crate::config::values::{Host, Listen, Target};
use crate::config::{Draft, Name, Places, Settings, store};
use crate::service::{self, units};
use crate::tls::explain::Cure;
use crate::tls::trust::Voucher;

/// Probe the target, make a certificate, start the forwarder, prove the path.
#[derive(Args)]
#[command(after_help = "Example: ewsbridge add exch1 9443 ews.corp:443")]
pub(super) struct Add {
    /// The forwarder's name: also its file's and its service's (ewsbridge@NAME)
    name: String,
    /// Where clients connect
    #[arg(value_name = "[ADDR:]PORT")]
    listen: String,
    /// The legacy server; with several, HOST:PORT,HOST:PORT, the next is used where one fails
    #[arg(value_name = "HOST:PORT")]
    target: String,
    #[command(flatten)]
    outbound: TargetFlags,
    #[command(flatten)]
    identity: IdentityFlags,
    #[command(flatten)]
    credential: CredentialFlags,
    /// Write and start without asking the target
    #[arg(long)]
    offline: bool,
    /// Never ask: what would have to be asked is an error (exit code 5)
    #[arg(long)]
    no_input: bool,
}

/// How long the proof through our own port may take, beyond the target's deadlines.
const PROOF: Duration = Duration::from_secs(10);

impl Add {
    /// Adds the forwarder, or leaves everything as it was.
    pub(super) fn run(self, places: &Places) -> Done {
        // A password is asked for while nothing has been done yet, and Ctrl-C simply ends it.
        let pfx = self.identity.pfx(self.no_input)?;
        let credential = self.credential.pfx(self.no_input)?;
        super::interruptible(async { self.add(places, pfx, credential).await })
    }

    async fn add(self, places: &Places, pfx: Option<Pfx>, credential: Option<Pfx>) -> Done {
        let began = Instant::now();
        let name: Name = self.name.parse().map_err(|error| Failed::with(code::USAGE, error))?;
        let mut draft = self.draft();
        let settings = typed_settings(&draft)?;
        let warnings = settings.warnings();
        require_rights(places)?;
        let _lock = super::lock(places)?;
        if already_there(places, &name, &draft)? {
            return Ok(0);
        }
        refuse_taken_port(places, &name, settings.listen)?;
        refuse_occupied(&name, &places.identity(&name))?;
        refuse_occupied(&name, &places.authorities(&name)).or_else(|refused| match &settings.trust {
            Trust::Ca(file, _) if *file != places.authorities(&name) => Err(refused),
            _ => Ok(()),
        })?;
        refuse_occupied(&name, &places.credential(&name))?;
        let reserved = ports::bind(name.as_str(), settings.listen)?;
        require_service(places)?;
        step(Word::Ok, format!("name '{name}' and port {} are free", settings.listen.port()));
        let mut undo = Undo::default();
        let group = service::group_of_service().filter(|_| places.are_system());
        // Before the target is asked: it may ask in turn.
        adopt_credential(places, &name, &mut draft, credential, group, &mut undo)?;
        let reached = if self.offline {
            step(Word::Skip, "the target was not asked (--offline)");
            None
        } else {
            Some(self.probe(&name, &mut draft).await?)
        };
        let settings = draft.settings()?;

        let made = Self::make_identity(places, &name, &settings, pfx, group, &mut undo)?;
        write_settings(places, &name, &mut draft, group, &mut undo)?;
        let settings = draft.settings()?;
        warnings.iter().for_each(|warning| step(Word::Warn, warning));
        let systemd = units::running() && places.are_system();
        let foreground = if systemd {
            drop(reserved);
            start_service(&name, &settings, &mut undo)?;
            None
        } else {
            let why = if places.are_system() { "systemd does not run here" } else { "not the system's own folders" };
            step(Word::Skip, format!("{why}; served only for the proof"));
            Some(Foreground::start(places, &name, &settings, reserved)?)
        };
        if !self.offline {
            self.prove(places, &name, &settings, reached.as_ref()).await?;
        }
        undo.keep();
        if let Some(foreground) = foreground {
            foreground.stop().await;
        }
        summary::print(&name, &settings, &made, began.elapsed(), systemd);
        Ok(0)
    }

    fn draft(&self) -> Draft {
        let mut draft = Draft::default();
        draft.set("listen", self.listen.clone());
        draft.set("target", self.target.clone());
        self.outbound.write(&mut draft);
        self.identity.write(&mut draft);
        draft
    }

    /// Asks the target what it speaks; settles who vouches for it.
    async fn probe(&self, name: &Name, draft: &mut Draft) -> Result<Answered, Failed> {
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

    fn make_identity(
        places: &Places,
        name: &Name,
        settings: &Settings,
        pfx: Option<Pfx>,
        group: Option<Gid>,
        undo: &mut Undo,
    ) -> Result<Made, Failed> {
        undo.make_folder(&places.state, 0o750, group)?;
        undo.note_absent(places.authority());
        undo.make_folder(&places.state.join("identity"), 0o750, group)?;
        undo.note_absent(places.identity(name));
        let made = identities::make(places, name, settings, pfx, group)?;
        step(Word::Ok, format!("own certificate: {}; {}", made.facts.names_text(), made.origin));
        Ok(made)
    }

    /// One request through the forwarder's own port, as a client would.
    async fn prove(
        &self,
        places: &Places,
        name: &Name,
        settings: &Settings,
        answered: Option<&Answered>,
    ) -> Result<(), Failed> {
        let limit = PROOF + settings.reaching();
        let seen = match proof::through(places, name, settings, limit).await {
            Ok(seen) => seen,
            Err(cause) => {
                // A target that has changed its mind meanwhile has the better story.
                let again = Dialer::new(None, Arc::new(settings.clone()), Resolver::default());
                if let Err(failure) = again.map_err(forwarder::Error::from)?.dial().await {
                    return Err(told(name, &failure));
                }
                let port = settings.listen.port();
                let failed = Failed::new(format!("{name}: proof through port {port}: {cause}"));
                return Err(failed.hint("nothing was written, no service was left running"));
            }
        };
        let out = answered.map_or("?", |answered| answered.reached.version);
        let by = answered.filter(|answered| answered.is_one_of_many);
        let by = by.map(|answered| format!(" to {}", answered.target)).unwrap_or_default();
        let page = proof::http_text(seen.http.as_ref());
        step(Word::Ok, format!("proved: {} in, TLS {out} out{by}, {page}", seen.version.replace("TLSv", "TLS ")));
        Ok(())
    }
}

/// What was typed as settings; the two that are no flags are named as the usage names them.
fn typed_settings(draft: &Draft) -> Result<Settings, Failed> {
    let settings = draft.settings().map_err(|error| {
        let text = error.to_string().replace("--listen: ", "[ADDR:]PORT: ").replace("--target: ", "HOST:PORT: ");
        Failed::with(code::USAGE, text)
    })?;
    match settings.listen.port() {
        0 => Err(Failed::with(code::USAGE, "[ADDR:]PORT: 0 can't be added: clients must know the port (1 to 65535)")),
        _ => Ok(settings),
    }
}

/// What no forwarder is known to own is not overwritten: it may be somebody's only key.
fn refuse_occupied(name: &Name, path: &Path) -> Result<(), Failed> {
    if !path.exists() {
        return Ok(());
    }
    let failed = Failed::new(format!("{name}: {}: is there already, without a forwarder", path.display()));
    Err(failed.hint(format!("left by an 'add' that was killed? look at it, then: rm -r {}", path.display())))
}

/// Only root may write where the system's forwarders live.
pub(super) fn require_rights(places: &Places) -> Result<(), Failed> {
    if places.are_system() && !service::is_root() {
        let failed = Failed::with(code::NO_PERMISSION, format!("{}: permission denied", places.config.display()));
        return Err(failed.hint("run it as root: sudo ewsbridge ..."));
    }
    Ok(())
}

/// Under systemd the units must be there before anything is written.
fn require_service(places: &Places) -> Result<(), Failed> {
    if places.are_system() && units::running() && !units::installed() {
        return Err(Failed::new("ewsbridge@.service: not installed on this machine").hint("ewsbridge install"));
    }
    Ok(())
}

/// The same forwarder again is nothing to do; another one by that name is refused.
fn already_there(places: &Places, name: &Name, draft: &Draft) -> Result<bool, Failed> {
    let text = match store::read_text(places, name) {
        Err(store::Error::Missing { .. }) => return Ok(false),
        other => other?,
    };
    let path = places.forwarder(name);
    let there = crate::config::file::parse(&text, Some(&path))?;
    if draft.over(&text, &path)? == there {
        println!("{name}: nothing to do, it is there: {} -> {}", there.listen, there.target);
        return Ok(true);
    }
    let is = format!("{name}: the name is taken: {} -> {} in {}", there.listen, there.target, path.display());
    Err(Failed::new(is).hint(format!("choose another name, or change it: ewsbridge set {name} KEY=VALUE")))
}

/// Two forwarders can't have one port, whether or not the other runs now.
pub(super) fn refuse_taken_port(places: &Places, name: &Name, listen: Listen) -> Result<(), Failed> {
    for other in store::names(places)?.into_iter().filter(|other| other != name) {
        let Ok(settings) = store::load(places, &other) else { continue };
        let overlap = match (settings.listen, listen) {
            (Listen::At(theirs), Listen::At(ours)) if !theirs.ip().is_unspecified() && !ours.ip().is_unspecified() => {
                theirs == ours
            }
            (theirs, ours) => theirs.port() == ours.port(),
        };
        if overlap && listen.port() != 0 {
            let taken = format!("{name}: port {} belongs to forwarder '{other}' ({})", listen.port(), settings.listen);
            return Err(Failed::new(taken).hint("choose another port"));
        }
    }
    Ok(())
}

/// A target that was reached.
struct Answered {
    target: Target,
    reached: Reached,
    is_one_of_many: bool,
}

async fn dial(draft: &Draft, target: &Target) -> Result<Result<Dialed, Failure>, Failed> {
    let settings = Arc::new(draft.settings()?.to(target));
    let dialer = Dialer::new(None, settings, Resolver::default()).map_err(forwarder::Error::from);
    Ok(dialer.map_err(|error| Failed::from(error).typed())?.dial().await)
}

fn told(name: &Name, failure: &Failure) -> Failed {
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

/// Puts what is shown to a target that asks for a certificate where the service can read it.
fn adopt_credential(
    places: &Places,
    name: &Name,
    draft: &mut Draft,
    pfx: Option<Pfx>,
    group: Option<Gid>,
    undo: &mut Undo,
) -> Result<(), Failed> {
    let settings = draft.settings()?;
    let from = match (&settings.credential, pfx) {
        (_, Some(file)) => Credential::Pfx(file),
        (Some((cert, key)), None) => Credential::Pair(cert, key),
        (None, None) => return Ok(()),
    };
    undo.make_folder(&places.state, 0o750, group)?;
    undo.make_folder(&places.state.join("credential"), 0o750, group)?;
    undo.note_absent(places.credential(name));
    for (key, copy) in identities::adopt_credential(places, name, from, group)? {
        draft.set(key, copy.display().to_string());
    }
    step(Word::Ok, "certificate for a target that asks for one: in place");
    Ok(())
}

fn write_settings(
    places: &Places,
    name: &Name,
    draft: &mut Draft,
    group: Option<Gid>,
    undo: &mut Undo,
) -> Result<(), Failed> {
    undo.make_folder(&places.config, 0o750, group)?;
    undo.make_folder(&places.forwarders(), 0o750, group)?;
    let path = places.forwarder(name);
    undo.note_absent(path.clone());
    if let Trust::Ca(file, _) = draft.settings()?.trust {
        undo.note_absent(places.authorities(name));
        let copy = identities::adopt_authorities(places, places.authorities(name), &file, group)?;
        draft.set("ca", copy.display().to_string());
    }
    let date = time::OffsetDateTime::now_utc().date().to_string();
    store::write(&path, draft.render(name, &path, &date).as_bytes(), 0o640, group)?;
    step(Word::Ok, format!("{} written", path.display()));
    Ok(())
}

fn start_service(name: &Name, settings: &Settings, undo: &mut Undo) -> Result<(), Failed> {
    let undone = name.clone();
    undo.note(move || {
        let _ = units::stop(&undone);
        let _ = units::forget_low_port(&undone);
    });
    if units::is_low_port(settings.listen.port()) {
        units::allow_low_port(name)?;
        let file = units::low_port_file(name);
        step(Word::Ok, format!("{} lets it bind port {}", file.display(), settings.listen.port()));
    }
    units::start(name)?;
    step(Word::Ok, format!("{} enabled and started", units::unit_of(name)));
    Ok(())
}

/// The forwarder served by this very process, for the proof where no systemd runs.
struct Foreground(Served);

impl Foreground {
    fn start(places: &Places, name: &Name, settings: &Settings, socket: std::net::TcpListener) -> Result<Self, Failed> {
        let forwarder = Forwarder::load(places, name, settings.clone(), Resolver::default())?;
        let socket =
            tokio::net::TcpListener::from_std(socket).map_err(|error| Failed::new(format!("listen: {error}")))?;
        Ok(Self(Served::start(forwarder, [socket])))
    }

    async fn stop(self) {
        drop(self.0.stop());
        self.0.ended_within(Duration::from_secs(1)).await;
    }
}

/// A duration for people: `0.8 ms`.
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

impl From<service::Error> for Failed {
    fn from(error: service::Error) -> Self {
        let exit = if error.is_permission() { code::NO_PERMISSION } else { code::FAILED };
        let hint = error.hint();
        Failed::with(exit, error).maybe_hint(hint)
    }
}
