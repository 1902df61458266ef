//! The process that serves: its sockets, the orders that reach it, reload, drain, signals, the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::unusable;
use super::view::View;
use crate::bridge::Threads;
use crate::bridge::descriptors::{self, Room};
use crate::bridge::forwarder::{Forwarder, Refused};
use crate::bridge::served::{NotReloaded, Served};
use crate::cli::failed::Failed;
use crate::cli::{Done, ports};
use crate::config::settings::Settings;
use crate::config::values::duration_text;
use crate::config::{Name, Places};
use crate::service::control::{Answer, Control, Order};
use crate::service::sockets::{self, Found, Inherited, Keeper};
use crate::service::watchdog::{self, Watchdog};
use crate::service::{self, notify};
use crate::tls::inbound::Unproved;

/// Binds what is not inherited, tells systemd, serves.
pub(super) fn serve(forwarders: Vec<Forwarder>, inherited: Inherited, places: &Places) -> Done {
    fit(&forwarders);
    let listen = |forwarder: &Forwarder| forwarder.serving().settings.listen;
    let wanted: Vec<_> = forwarders.iter().map(|forwarder| (forwarder.name.as_str(), listen(forwarder))).collect();
    let shares = inherited.share(&wanted).map_err(unusable)?;
    let mut bound = Vec::new();
    for (forwarder, mut found) in forwarders.into_iter().zip(shares) {
        if found.sockets.is_empty() {
            found.sockets.push(ports::bind(&forwarder.name, listen(&forwarder))?);
            sockets::keep(&forwarder.name, &found.sockets);
        }
        bound.push((forwarder, found));
    }
    // For orders and signals; connections have threads of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new(format!("runtime: {error}")))?;
    let serving = Threads::start().map_err(|error| Failed::new(format!("threads: {error}")))?;
    let done = runtime.block_on(serve_bound(bound, &serving.threads, places));
    // No byte is moved any more once connections are said to be cut.
    serving.end(END);
    runtime.shutdown_background();
    done
}

/// How long the threads that serve may take to drop what was cut.
const END: Duration = Duration::from_secs(1);

/// Has the forwarders share the descriptors that this process may have.
fn fit(forwarders: &[Forwarder]) {
    let limit = match descriptors::raise() {
        Ok(limit) => limit,
        Err(error) => {
            let cause = crate::words::of(&error);
            tracing::warn!(name: "descriptors_unknown", "limit of descriptors: {cause}; max_connections is not checked against it");
            return;
        }
    };
    let limits: Vec<_> = forwarders.iter().map(|forwarder| forwarder.serving().settings.limits).collect();
    for (forwarder, room) in forwarders.iter().zip(Room::shared(limit, &limits)) {
        forwarder.fit(room);
    }
}

async fn serve_bound(bound: Vec<(Forwarder, Found)>, threads: &Threads, places: &Places) -> Done {
    let failed = |error: std::io::Error| Failed::new(format!("start: {error}"));
    let mut end = EndSignals::new().map_err(failed)?;
    // Without a file there is nothing to load anew, and SIGHUP ends the run as it ends any program.
    let has_files = bound.iter().any(|(forwarder, _)| forwarder.is_on_disk());
    let hangup = has_files.then(|| signal(SignalKind::hangup())).transpose().map_err(failed)?;
    let mut all = Vec::new();
    let mut keepers = Vec::new();
    let mut addresses = Vec::new();
    let mut tasks = JoinSet::new();
    for (forwarder, Found { sockets, keeper }) in bound {
        let mut own = Vec::new();
        for socket in sockets {
            addresses.push((all.len(), socket.local_addr().map_err(failed)?));
            own.push(socket);
        }
        all.push(Arc::new(Served::start(forwarder, own, threads).map_err(failed)?));
        keepers.push(keeper);
    }
    let view = Arc::new(View::of(all.clone()));
    let all = Arc::new(Service { served: all, keepers, view, reloading: Mutex::new(()) });
    for (index, served) in all.served.iter().enumerate().filter(|(_, served)| served.forwarder.is_on_disk()) {
        let followed = Arc::clone(&served.forwarder);
        tasks.spawn(async move { followed.follow_identity().await });
        all.control(index, places, &mut tasks);
    }
    if let Some(hangup) = hangup {
        tasks.spawn(Arc::clone(&all).reload_on(hangup));
    }
    // Whoever waits for this line may ask for a reload.
    for (index, address) in addresses {
        announce(&all.served[index].forwarder, address);
    }
    for served in &all.served {
        warn_of(&served.forwarder.name, &served.forwarder.serving().settings);
    }
    all.view.export();
    notify::ready(&all.view.sentence());
    tasks.spawn(Arc::clone(&all.view).keep());
    if let Some(watchdog) = Watchdog::of_this_process() {
        let (all, threads) = (Arc::clone(&all), threads.all());
        tasks.spawn(watchdog.keep(move |limit| Arc::clone(&all).prove(threads.clone(), limit)));
    }
    end.next().await;
    notify::stopping(all.drain_limit());
    all.finish(&mut end).await;
    // The control sockets go before the process does.
    tasks.shutdown().await;
    Ok(0)
}

/// Everything that this process serves.
struct Service {
    served: Vec<Arc<Served>>,
    /// Who keeps each one's sockets.
    keepers: Vec<Keeper>,
    view: Arc<View>,
    /// One reload after the other, so that systemd hears of one at a time.
    reloading: Mutex<()>,
}

impl Service {
    /// Has each thread lead an inbound handshake in memory, so that every forwarder has one.
    async fn prove(self: Arc<Self>, threads: Vec<Handle>, limit: Duration) -> Result<(), watchdog::Failed> {
        let count = threads.len();
        let work = |thread: usize| {
            let of_thread = self.served.iter().skip(thread).step_by(count);
            let mut own: Vec<_> = of_thread.map(|served| served.forwarder.serving()).collect();
            if own.is_empty() {
                own.extend(self.served.get(thread % self.served.len().max(1)).map(|served| served.forwarder.serving()));
            }
            move || {
                own.iter().try_for_each(|serving| {
                    let failed = |error: Unproved| watchdog::Failed::Handshake(serving.name.clone(), error.to_string());
                    serving.listener.prove().map_err(failed)
                })
            }
        };
        watchdog::each(&threads, limit, work).await
    }

    /// Opens a forwarder's control socket. Without it the forwarder serves all the same.
    fn control(self: &Arc<Self>, index: usize, places: &Places, tasks: &mut JoinSet<()>) {
        let name = &self.served[index].forwarder.name;
        let Ok(path) = name.parse().map(|name: Name| places.control(&name)) else { return };
        let group = service::group_of_service().filter(|_| places.are_system() && service::is_root());
        match Control::bind(&path, group) {
            Ok(control) => {
                let this = Arc::clone(self);
                tasks.spawn(control.serve(move |order| Arc::clone(&this).obey(index, order)));
            }
            Err(error) => {
                let cause = crate::words::of(&error);
                tracing::warn!(
                    name: "control_failed",
                    forwarder = %name,
                    hint = "SIGHUP reloads it all the same",
                    "control socket {}: {cause}; 'ewsbridge reload' can't reach it", path.display()
                );
            }
        }
    }

    async fn obey(self: Arc<Self>, index: usize, order: Order) -> Answer {
        match order {
            Order::Reload => self.reload(index).await,
            Order::Drain => self.drain(index).await,
            Order::Status => self.view.answer(index, true),
            Order::Summary => self.view.answer(index, false),
        }
    }

    /// Takes a forwarder's files over; says so in the log, to systemd and in the answer.
    async fn reload(&self, index: usize) -> Answer {
        let _turn = self.reloading.lock().await;
        let served = &self.served[index];
        let name = &served.forwarder.name;
        // A stop that systemd knows of is not to be taken for a reload.
        if !served.is_stopping() {
            notify::reloading();
        }
        match tokio::task::block_in_place(|| served.reload()) {
            Ok(serving) => {
                let open = served.open();
                tracing::info!(name: "reloaded", forwarder = %name, target = %serving.settings.target, open, "reloaded");
                warn_of(name, &serving.settings);
                self.view.export();
                self.view.notice(index, None);
                notify::ready(&self.view.sentence());
                let open = match open {
                    0 => "no connection was open".to_owned(),
                    1 => "1 open connection goes on as it was".to_owned(),
                    more => format!("{more} open connections go on as they were"),
                };
                Answer::done(format!("reloaded; {open}"))
            }
            Err(error) => {
                let needs_restart = matches!(error, NotReloaded::Refused(Refused::Listen { .. }));
                let hint = match &error {
                    NotReloaded::Refused(Refused::Unusable(error)) => error.hint(),
                    _ => None,
                };
                // A file may have several faults, each with a line of its own.
                let error = error.to_string().replace('\n', "; ");
                let text = format!("reload: {error}; the old settings are in force");
                tracing::error!(name: "reload_failed", forwarder = %name, hint, "{text}");
                let notice = format!("{name}: {text}");
                if served.is_stopping() {
                    notify::status(&notice);
                } else {
                    self.view.notice(index, Some(notice));
                    notify::ready(&self.view.sentence());
                }
                let mut answer = Answer::refused(text, hint);
                answer.needs_restart = needs_restart;
                answer
            }
        }
    }

    /// Reloads every forwarder on each SIGHUP.
    async fn reload_on(self: Arc<Self>, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            for index in 0..self.served.len() {
                self.reload(index).await;
            }
        }
    }

    /// Has a forwarder accept nobody any more; answers when its connections have ended or its time is up.
    async fn drain(&self, index: usize) -> Answer {
        let served = &self.served[index];
        let name = &served.forwarder.name;
        let limit = served.forwarder.serving().settings.deadlines.drain;
        let closing = served.stop();
        match self.keepers[index] {
            Keeper::Store => {
                // The kernel would go on taking connections for the copy in the store.
                closing.iter().for_each(sockets::retire);
                sockets::forget(name);
            }
            Keeper::Unit => tracing::warn!(
                name: "drain_socket_unit",
                forwarder = %name,
                hint = "stop its socket unit, and clients are refused",
                "draining: its socket unit goes on taking connections, which wait until it is restarted"
            ),
        }
        drop(closing);
        tracing::info!(name: "draining", forwarder = %name, open = served.open(), ?limit, "draining: no more connections are accepted");
        let notice = |text: &str| {
            self.view.notice(index, Some(format!("{name}: {text}")));
            notify::status(&self.view.sentence());
        };
        notice("draining, no more connections are accepted");
        match served.ended_within(limit).await {
            0 => {
                tracing::info!(name: "drained", forwarder = %name, "drained");
                notice("drained, until it is restarted");
                Answer::done("drained: no connection is open, and none is accepted until it is restarted")
            }
            open => {
                let limit = duration_text(limit);
                let hint = Some(format!("to cut them, restart or stop it; to wait on: ewsbridge drain {name}"));
                Answer::refused(format!("drain: {open} still open after {limit} (drain_timeout)"), hint)
            }
        }
    }

    /// How long a stop may take at most.
    fn drain_limit(&self) -> Duration {
        let drains = self.served.iter().map(|served| served.forwarder.serving().settings.deadlines.drain);
        drains.max().unwrap_or_default()
    }

    /// Accepts nobody any more and waits for what still runs, within the limit or until a second signal.
    async fn finish(&self, end: &mut EndSignals) {
        // What the store keeps of them is for the next process, which accepts whoever waits by then.
        self.served.iter().for_each(|served| drop(served.stop()));
        let limit = self.drain_limit();
        let open = || self.served.iter().map(|served| served.open()).sum::<usize>();
        if open() > 0 {
            tracing::info!(name: "stopping", open = open(), limit = ?limit, "stopping: open connections may finish");
        }
        let ended = async {
            for served in &self.served {
                served.ended().await;
            }
        };
        tokio::select! {
            () = ended => tracing::info!(name: "stopped", "stopped"),
            () = tokio::time::sleep(limit) => tracing::warn!(name: "stopped_cut", cut = open(), "stopped: open connections were cut"),
            () = end.next() => tracing::warn!(name: "stopped_cut", cut = open(), "stopped by a second signal: open connections were cut"),
        }
    }
}

fn announce(forwarder: &Forwarder, listen: std::net::SocketAddr) {
    let serving = forwarder.serving();
    let Settings { target, .. } = &*serving.settings;
    tracing::info!(name: "listening", forwarder = %forwarder.name, %listen, %target, version = %env!("CARGO_PKG_VERSION"), openssl = %crate::tls::library::version(), "listening");
}

fn warn_of(name: &str, settings: &Settings) {
    for warning in settings.warnings() {
        tracing::warn!(name: "setting_weak", forwarder = %name, "{warning}");
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
