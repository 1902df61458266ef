//! `run`: serve forwarders in the foreground until told to stop.
//!
//! Load, bind, run: whatever can fail at start fails in the first two steps, before READY.

mod service;
mod view;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::failed::{Failed, code};
use super::flags::TargetFlags;
use super::{Done, outbound, set};
use crate::bridge::forwarder::{self, Forwarder};
use crate::bridge::resolver::Resolver;
use crate::config::settings::Settings;
use crate::config::{Draft, Name, Places, store};
use crate::observe::log;
use crate::service::sockets::{self, Inherited};
use crate::tls::identity;
use service::serve;

/// Serve in the foreground: forwarders by name, or one given by flags without any file.
#[derive(Args)]
#[command(after_help = "A log line per connection goes to stderr; EWSBRIDGE_LOG=ewsbridge=debug tells more.")]
pub(super) struct Run {
    /// Forwarders to serve
    #[arg(value_name = "NAME", conflicts_with_all = ["all", "listen"])]
    names: Vec<String>,
    /// Serve every forwarder
    #[arg(long, conflicts_with = "listen")]
    all: bool,
    /// Only say whether the settings are in order
    #[arg(long, conflicts_with = "listen")]
    check: bool,
    /// Log more
    #[arg(long, short)]
    verbose: bool,
    /// How log lines are written
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", env = "EWSBRIDGE_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(flatten)]
    direct: Direct,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people; the journal gets fields besides.
    Text,
    /// One object a line.
    Json,
}

impl From<LogFormat> for log::Form {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// A forwarder without a file.
#[derive(Args)]
struct Direct {
    /// Where to listen, without a file of settings
    #[arg(long, value_name = "[ADDR:]PORT", requires = "target", help_heading = "Without a file")]
    listen: Option<String>,
    /// Where the bytes go
    #[arg(long, value_name = "HOST:PORT[,...]", requires = "listen", help_heading = "Without a file")]
    target: Option<String>,
    /// Serve this certificate (PEM) instead of one made for this run
    #[arg(long, value_name = "FILE", requires = "key", requires = "listen", help_heading = "Without a file")]
    cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Without a file")]
    key: Option<PathBuf>,
    /// One more name or address for the certificate made for this run (repeatable)
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        requires = "listen",
        conflicts_with = "cert",
        help_heading = "Without a file"
    )]
    san: Vec<String>,
    #[command(flatten)]
    outbound: TargetFlags,
    /// Time for a whole ClientHello
    #[arg(long, value_name = "TIME", help_heading = "Deadlines")]
    hello_timeout: Option<String>,
    /// Silence after one side has ended
    #[arg(long, value_name = "TIME", help_heading = "Deadlines")]
    half_close_timeout: Option<String>,
    /// Silence of an open connection; 0s: any
    #[arg(long, value_name = "TIME", help_heading = "Deadlines")]
    idle_timeout: Option<String>,
    /// Time for open connections to finish on stop
    #[arg(long, value_name = "TIME", help_heading = "Deadlines")]
    drain_timeout: Option<String>,
    /// Any key of a file of settings (repeatable)
    #[arg(long, value_name = "KEY=VALUE", requires = "listen", help_heading = "Without a file")]
    set: Vec<String>,
}

impl Run {
    /// Serves until SIGTERM or SIGINT.
    pub(super) fn run(self, places: &Places) -> Done {
        // First of all, while there is no other thread.
        let inherited = Inherited::take().map_err(unusable)?;
        if self.direct.listen.is_some() {
            log::start(self.verbose, self.log_format.into());
            return serve(vec![self.direct.forwarder()?], inherited, places);
        }
        let names = self.chosen(places)?;
        let mut loaded = Vec::new();
        for name in &names {
            loaded.push((name, store::load(places, name)?));
        }
        if self.check {
            for (name, settings) in &loaded {
                load(places, name, settings.clone(), Resolver::default())?;
                println!("{name}: the settings are in order");
            }
            return Ok(0);
        }
        log::start(self.verbose, self.log_format.into());
        let resolver = Resolver::default();
        let mut forwarders = Vec::new();
        for (name, settings) in loaded {
            forwarders.push(load(places, name, settings, resolver.clone())?);
        }
        serve(forwarders, inherited, places)
    }

    fn chosen(&self, places: &Places) -> Result<Vec<Name>, Failed> {
        if self.all {
            let names = store::names(places)?;
            let none =
                || Failed::with(code::NO_SUCH, "there are no forwarders").hint("ewsbridge add NAME PORT HOST:PORT");
            return if names.is_empty() { Err(none()) } else { Ok(names) };
        }
        if self.names.is_empty() {
            let text = "nothing to serve: name forwarders, or give --all, or --listen and --target";
            return Err(Failed::with(code::USAGE, text));
        }
        self.names.iter().map(|name| name.parse().map_err(|error| Failed::with(code::USAGE, error))).collect()
    }
}

/// Loads a forwarder; names the file whose settings OpenSSL can't use.
fn load(places: &Places, name: &Name, settings: Settings, resolver: Resolver) -> Result<Forwarder, Failed> {
    let loaded = Forwarder::load(places, name, settings, resolver);
    loaded.map_err(|error| Failed::from(error).read_from(&places.forwarder(name)))
}

impl Direct {
    fn draft(&self) -> Result<Draft, Failed> {
        let mut draft = Draft::default();
        draft.set_some("listen", self.listen.clone());
        draft.set_some("target", self.target.clone());
        draft.set_list("san", &self.san);
        self.outbound.write(&mut draft);
        draft.set_some("hello_timeout", self.hello_timeout.clone());
        draft.set_some("half_close_timeout", self.half_close_timeout.clone());
        draft.set_some("idle_timeout", self.idle_timeout.clone());
        draft.set_some("drain_timeout", self.drain_timeout.clone());
        for change in &self.set {
            let (key, value) = set::parsed(change)?;
            draft.set_some(key.name, value);
        }
        Ok(draft)
    }

    fn forwarder(&self) -> Result<Forwarder, Failed> {
        let mut draft = self.draft()?;
        if self.outbound.outbound() == Some("auto") {
            find_outbound(&mut draft)?;
        }
        let settings = draft.settings()?;
        let (pair, authority) = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => (identity::read_pair(cert, key).map_err(forwarder::Error::from)?, None),
            _ => {
                let names = [identity::machine_names(), settings.san.clone()].concat();
                let made =
                    identity::for_this_run(&names, time::OffsetDateTime::now_utc()).map_err(forwarder::Error::from)?;
                (made.pair, Some(made.authority_pem))
            }
        };
        let forwarder = Forwarder::new("run".to_owned(), settings, pair, Resolver::default())
            .map_err(|error| Failed::from(error).typed())?;
        if let Some(pem) = authority {
            eprintln!("clients must trust this authority, which lives as long as this run:");
            print!("{pem}");
        }
        Ok(forwarder)
    }
}

/// Finds what the target needs, before anything is served.
fn find_outbound(draft: &mut Draft) -> Result<(), Failed> {
    if outbound::is_decided(draft) {
        return Err(outbound::decided_twice(draft));
    }
    let settings = draft.settings()?;
    let command = |words: &str| format!("--allow-weak={words}");
    let permission = outbound::Permission {
        allowed: &settings.allow_weak,
        can_ask: false,
        name: "run",
        has_file: false,
        command: &command,
    };
    let found = super::block_on(outbound::find(&settings, permission, |failure| {
        tracing::warn!(name: "search_failed", forwarder = "run", hint = failure.hint().as_deref(), "{failure}; not asked what it needs");
    }))?;
    tracing::info!(name: "search_done", forwarder = "run", "{}", outbound::summary(&found));
    outbound::write(&found, draft);
    Ok(())
}

/// Sockets that were passed and can't be used are a fault of configuration: to try again is no cure.
fn unusable(error: sockets::Error) -> Failed {
    let hint = error.hint();
    Failed::with(code::CONFIG, error).maybe_hint(hint)
}
