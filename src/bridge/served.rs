//! A forwarder at work: its settings, its listening sockets, its open connections, and what can be
//! asked of them while they run.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forwarder::{Forwarder, Refused, Serving};
use super::listener;
use super::threads::Threads;
use crate::observe::snapshot::Snapshot;

/// A forwarder that serves.
pub struct Served {
    /// The forwarder.
    pub forwarder: Arc<Forwarder>,
    sockets: Mutex<Vec<Arc<TcpListener>>>,
    accepting: TaskTracker,
    sessions: TaskTracker,
    stop: CancellationToken,
}

/// Why a reload was not done.
#[derive(Debug, thiserror::Error)]
pub enum NotReloaded {
    /// It accepts nobody any more, so nobody would see the new settings.
    #[error("it accepts no more connections")]
    Stopping,
    /// The old settings stay in force.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Served {
    /// Begins to accept connections on each of its sockets: one, or a socket unit's several.
    ///
    /// # Errors
    /// A socket can't be waited for.
    pub fn start(
        forwarder: Forwarder,
        sockets: impl IntoIterator<Item = std::net::TcpListener>,
        threads: &Threads,
    ) -> io::Result<Self> {
        let forwarder = Arc::new(forwarder);
        let (accepting, sessions, stop) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        let sockets = {
            // Events of the sockets are for the thread that accepts.
            let _within = threads.first().enter();
            let sockets = sockets.into_iter().map(|socket| TcpListener::from_std(socket).map(Arc::new));
            sockets.collect::<io::Result<Vec<_>>>()?
        };
        for socket in &sockets {
            let (forwarder, socket) = (Arc::clone(&forwarder), Arc::clone(socket));
            let run = listener::run(forwarder, socket, threads.clone(), sessions.clone(), stop.clone());
            accepting.spawn_on(run, threads.first());
        }
        Ok(Self { forwarder, sockets: Mutex::new(sockets), accepting, sessions, stop })
    }

    /// Connections that are open now, those still shaking hands included.
    pub fn open(&self) -> usize {
        self.sessions.len()
    }

    /// How it stands, with each open connection or without.
    pub fn snapshot(&self, with_connections: bool) -> Snapshot {
        let snapshot = self.forwarder.snapshot(with_connections);
        let state = if self.is_stopping() { "stopping" } else { "running" };
        Snapshot { state: state.to_owned(), ..snapshot }
    }

    /// Has connections to come begin with what the files hold now; open ones go on as they were.
    ///
    /// Blocks on files.
    ///
    /// # Errors
    /// [`NotReloaded`]; everything is then as it was.
    pub fn reload(&self) -> Result<Arc<Serving>, NotReloaded> {
        if self.is_stopping() {
            return Err(NotReloaded::Stopping);
        }
        Ok(self.forwarder.reload()?)
    }

    /// Whether it accepts nobody any more.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Closes the listening sockets; open connections go on.
    ///
    /// New clients are refused, unless someone else holds the sockets: then they wait for who accepts next.
    /// Gives the sockets back as long as they are not closed.
    pub fn stop(&self) -> Vec<Arc<TcpListener>> {
        self.stop.cancel();
        self.accepting.close();
        self.sessions.close();
        std::mem::take(&mut self.sockets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// After [`Served::stop`]: waits until no connection is open any more.
    pub async fn ended(&self) {
        // Who was accepted last is counted by then.
        self.accepting.wait().await;
        self.sessions.wait().await;
    }

    /// The same for at most so long; gives back how many are open then.
    pub async fn ended_within(&self, limit: Duration) -> usize {
        let _ = tokio::time::timeout(limit, self.ended()).await;
        self.open()
    }
}
