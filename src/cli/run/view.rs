//! What others see of the process while it serves: systemd's status line, the answers of `status`, metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::bridge::served::Served;
use crate::observe::snapshot::{Process, Snapshot};
use crate::observe::tally::SAMPLE;
use crate::observe::{exporter, metrics, sentence};
use crate::service::control::Answer;
use crate::service::notify;

/// What is seen of everything that this process serves.
pub(super) struct View {
    served: Vec<Arc<Served>>,
    /// By forwarder, what is more important than how things stand, until it is over.
    notices: Mutex<BTreeMap<usize, String>>,
    /// Who listens for metrics, by address.
    exporters: Mutex<BTreeMap<SocketAddr, AbortHandle>>,
}

impl View {
    pub(super) fn of(served: Vec<Arc<Served>>) -> Self {
        Self { served, notices: Mutex::default(), exporters: Mutex::default() }
    }

    /// Keeps rates and systemd's line up to date, for as long as it is polled.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut ticks = interval(SAMPLE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            ticks.tick().await;
            self.served.iter().for_each(|served| served.forwarder.sample());
            if self.served.iter().any(|served| served.is_stopping()) {
                continue;
            }
            let sentence = self.sentence();
            if told.as_ref() != Some(&sentence) {
                notify::status(&sentence);
                told = Some(sentence);
            }
        }
    }

    /// How things stand in a sentence.
    pub(super) fn sentence(&self) -> String {
        let notices = lock(&self.notices);
        if !notices.is_empty() {
            return notices.values().cloned().collect::<Vec<_>>().join("; ");
        }
        drop(notices);
        let snapshots: Vec<Snapshot> = self.served.iter().map(|served| served.snapshot(false)).collect();
        sentence::of(&snapshots, OffsetDateTime::now_utc())
    }

    /// This is what the line says of a forwarder, until it is taken back by `None`.
    pub(super) fn notice(&self, index: usize, text: Option<String>) {
        let mut notices = lock(&self.notices);
        match text {
            Some(text) => notices.insert(index, text),
            None => notices.remove(&index),
        };
    }

    /// Answers `status`.
    pub(super) fn answer(&self, index: usize, with_connections: bool) -> Answer {
        let snapshot = Snapshot { process: Process::this(), ..self.served[index].snapshot(with_connections) };
        match serde_json::to_value(snapshot) {
            Ok(status) => Answer::standing(status),
            Err(error) => Answer::refused(format!("status: {error}"), None),
        }
    }

    /// Listens for metrics where the settings want it, and nowhere else. Where it can't, the forwarders
    /// serve all the same, and the log says so. Needs a runtime.
    pub(super) fn export(&self) {
        let wanted = |served: &Arc<Served>| served.forwarder.serving().settings.metrics;
        let mut exporters = lock(&self.exporters);
        exporters.retain(|address, exporter| {
            let is_wanted = self.served.iter().any(|served| wanted(served) == Some(*address));
            if !is_wanted {
                exporter.abort();
            }
            is_wanted
        });
        for served in &self.served {
            let Some(address) = wanted(served).filter(|address| !exporters.contains_key(address)) else { continue };
            let listener = match exporter::bind(address) {
                Ok(listener) => listener,
                Err(error) => {
                    let (name, cause) = (&served.forwarder.name, crate::words::of(&error));
                    tracing::warn!(
                        name: "metrics_failed",
                        forwarder = %name,
                        hint = "give it a free port of this machine; 'ewsbridge status --format prometheus' needs none",
                        "metrics on {address}: {cause}; there are none"
                    );
                    continue;
                }
            };
            let all = self.served.clone();
            let page = move || {
                let here = all.iter().filter(|served| wanted(served) == Some(address));
                let with_process =
                    |served: &Arc<Served>| Snapshot { process: Process::this(), ..served.snapshot(false) };
                let snapshots: Vec<Snapshot> = here.map(with_process).collect();
                metrics::text(snapshots.iter().map(Ok))
            };
            exporters.insert(address, tokio::spawn(exporter::serve(listener, page)).abort_handle());
            tracing::info!(name: "metrics_on", forwarder = %served.forwarder.name, "metrics at http://{address}/metrics");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
