//! `run`: serve forwarders in the foreground until told to stop.
//!
//! Load, bind, run: whatever can fail at start fails in the first two steps, before READY.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failed::{Failed, code};
use super::flags::TargetFlags;
use super::{Done, outbound, ports};
use crate::bridge::forwarder::{self, Forwarder, Source};
use crate::bridge::listener;
use crate::bridge::resolver::Resolver;
use crate::config::settings::Settings;
use crate::config::values::Listen;
use crate::config::{Draft, Name, Places, store};
use crate::service::notify;
use crate::tls::identity;

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
    #[command(flatten)]
    direct: Direct,
}

/// A forwarder without a file.
#[derive(Args)]
struct Direct {
    /// Where to listen, without a file of settings
    #[arg(long, value_name = "[ADDR:]PORT", requires = "target", help_heading = "Without a file")]
    listen: Option<String>,
    /// Where the bytes go
    #[arg(long, value_name = "HOST:PORT", requires = "listen", help_heading = "Without a file")]
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
}

impl Run {
    /// Serves until SIGTERM or SIGINT.
    pub(super) fn run(self, places: &Places) -> Done {
        if self.direct.listen.is_some() {
            crate::observe::log::start(self.verbose);
            return serve(vec![self.direct.forwarder()?]);
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
        crate::observe::log::start(self.verbose);
        let resolver = Resolver::default();
        let mut forwarders = Vec::new();
        for (name, settings) in loaded {
            forwarders.push(load(places, name, settings, resolver.clone())?);
        }
        serve(forwarders)
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
    fn draft(&self) -> Draft {
        let mut draft = Draft::default();
        draft.set_some("listen", self.listen.clone());
        draft.set_some("target", self.target.clone());
        draft.set_list("san", &self.san);
        self.outbound.write(&mut draft);
        draft.set_some("hello_timeout", self.hello_timeout.clone());
        draft.set_some("half_close_timeout", self.half_close_timeout.clone());
        draft.set_some("idle_timeout", self.idle_timeout.clone());
        draft.set_some("drain_timeout", self.drain_timeout.clone());
        draft
    }

    fn forwarder(&self) -> Result<Forwarder, Failed> {
        let mut draft = self.draft();
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
        let forwarder = Forwarder::new("run".to_owned(), settings, pair, Source::Memory, Resolver::default())
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
    let found = super::block_on(outbound::find(&settings, permission))?;
    tracing::info!(forwarder = "run", "{}", outbound::summary(&found));
    outbound::write(&found, draft);
    Ok(())
}

/// Binds, tells systemd, serves.
fn serve(forwarders: Vec<Forwarder>) -> Done {
    let mut bound = Vec::new();
    for forwarder in forwarders {
        let listener = bind(&forwarder.name, forwarder.settings.listen)?;
        bound.push((Arc::new(forwarder), listener));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new(format!("runtime: {error}")))?;
    let done = runtime.block_on(serve_bound(bound));
    // A look-up that hangs must not hold the end.
    runtime.shutdown_background();
    done
}

/// Binds, or says who has the port.
///
/// # Errors
/// The system's, with the cure.
pub(super) fn bind(name: &str, listen: Listen) -> Result<std::net::TcpListener, Failed> {
    listener::bind(listen).map_err(|(address, error)| {
        let cause = crate::words::of(&error);
        let failed = Failed::new(format!("{name}: listen on {address}: {cause}"));
        match error.kind() {
            std::io::ErrorKind::PermissionDenied if address.port() < 1024 => {
                failed.hint("use a port above 1023, or the packaged unit: 'ewsbridge add' lets it bind low ports")
            }
            std::io::ErrorKind::AddrInUse => failed.maybe_hint(ports::holder(address.port())),
            std::io::ErrorKind::AddrNotAvailable => failed.hint("this machine has no such address; see: ip address"),
            _ => failed,
        }
    })
}

async fn serve_bound(bound: Vec<(Arc<Forwarder>, std::net::TcpListener)>) -> Done {
    let failed = |error: std::io::Error| Failed::new(format!("start: {error}"));
    let mut end = EndSignals::new().map_err(failed)?;
    let (stop, sessions) = (CancellationToken::new(), TaskTracker::new());
    let mut drain = Duration::ZERO;
    for (forwarder, socket) in bound {
        let socket = tokio::net::TcpListener::from_std(socket).map_err(failed)?;
        // Without a file there is nothing to follow, and SIGHUP ends the run as it ends any program.
        let hangup = forwarder.is_on_disk().then(|| signal(SignalKind::hangup())).transpose().map_err(failed)?;
        announce(&forwarder, &socket);
        drain = drain.max(forwarder.settings.deadlines.drain);
        tokio::spawn(listener::run(Arc::clone(&forwarder), socket, sessions.clone(), stop.clone()));
        if let Some(hangup) = hangup {
            tokio::spawn(async move { forwarder.follow_identity(hangup).await });
        }
    }
    notify::ready("listening");
    end.next().await;
    notify::stopping();
    stop.cancel();
    sessions.close();
    finish(&sessions, &mut end, drain).await;
    Ok(0)
}

fn announce(forwarder: &Forwarder, socket: &tokio::net::TcpListener) {
    let Settings { target, .. } = &*forwarder.settings;
    let listen =
        socket.local_addr().map_or_else(|_| forwarder.settings.listen.to_string(), |address| address.to_string());
    tracing::info!(forwarder = %forwarder.name, %listen, %target, version = %env!("CARGO_PKG_VERSION"), openssl = %crate::tls::library::version(), "listening");
    for warning in forwarder.settings.warnings() {
        tracing::warn!(forwarder = %forwarder.name, "{warning}");
    }
}

/// Waits for what still runs, within the limit or until a second signal.
async fn finish(sessions: &TaskTracker, end: &mut EndSignals, limit: Duration) {
    if !sessions.is_empty() {
        tracing::info!(open = sessions.len(), limit = ?limit, "stopping: open connections may finish");
    }
    tokio::select! {
        () = sessions.wait() => tracing::info!("stopped"),
        () = tokio::time::sleep(limit) => tracing::warn!(cut = sessions.len(), "stopped: open connections were cut"),
        () = end.next() => tracing::warn!(cut = sessions.len(), "stopped by a second signal: open connections were cut"),
    }
}

/// SIGTERM and SIGINT.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
