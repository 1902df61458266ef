//! So many connections, so much time, and a pause after a refusal: who scans a server must not hurt it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Progress;
use crate::tls::scan::{self, Answer, Hello};

/// After a refusal, before the next connection: some servers and firewalls block who comes too fast.
const PAUSE: Duration = Duration::from_millis(200);

/// What is left to spend.
pub(super) struct Budget<'a> {
    /// Connections made.
    pub used: usize,
    /// Connections allowed.
    pub most: usize,
    /// When no further connection is opened.
    until: Instant,
    refused: bool,
    progress: &'a mut (dyn FnMut(&Progress<'_>) + Send),
}

impl<'a> Budget<'a> {
    pub(super) fn new(most: usize, time: Duration, progress: &'a mut (dyn FnMut(&Progress<'_>) + Send)) -> Self {
        Self { used: 0, most, until: Instant::now() + time, refused: false, progress }
    }

    /// How many connections are left.
    pub(super) fn left(&self) -> usize {
        if self.is_late() { 0 } else { self.most.saturating_sub(self.used) }
    }

    /// Whether it was the time that did not suffice.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Counts one connection that is about to be opened.
    pub(super) fn count(&mut self, about: &str) {
        self.used += 1;
        (self.progress)(&Progress { connection: self.used, most: self.most, about });
    }

    /// The same if one is left, after the pause that a refusal asks for; else says that there is none.
    pub(super) async fn spend(&mut self, about: &str) -> bool {
        if self.left() == 0 {
            return false;
        }
        if std::mem::take(&mut self.refused) {
            sleep(PAUSE).await;
        }
        self.count(about);
        true
    }

    /// The next connection has to wait.
    pub(super) fn was_refused(&mut self) {
        self.refused = true;
    }

    /// Asks one question; `None` if there is no connection left for it.
    pub(super) async fn ask(
        &mut self,
        about: &str,
        address: SocketAddr,
        hello: &Hello,
        limit: Duration,
    ) -> Option<Answer> {
        if !self.spend(about).await {
            return None;
        }
        let answer = scan::ask(address, hello, limit).await;
        self.refused = !matches!(answer, Answer::Flight(_));
        Some(answer)
    }
}
