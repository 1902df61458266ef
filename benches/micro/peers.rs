//! What both legs are measured with: a runtime of one thread, TCP over the loopback, settings.

use std::sync::Arc;

use ewsbridge::config::{Draft, Settings};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// One thread: what is measured does not depend on where the scheduler puts it.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("runtime")
}

/// Settings as the defaults have them, but for these.
pub(crate) fn settings(changes: &[(&'static str, &str)]) -> Arc<Settings> {
    let mut draft = Draft::default();
    draft.set("listen", "127.0.0.1:0");
    draft.set("target", "localhost:443");
    for (key, value) in changes {
        match value.parse::<bool>() {
            Ok(value) => draft.set(key, value),
            Err(_) => draft.set(key, *value),
        }
    }
    Arc::new(draft.settings().expect("settings"))
}

/// Where connections are made, always at the same address: sessions are kept by it.
pub(crate) struct Wire(TcpListener);

impl Wire {
    pub(crate) async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("bind"))
    }

    /// Both ends of a fresh connection: who connects, who accepts.
    pub(crate) async fn pair(&self) -> (TcpStream, TcpStream) {
        let address = self.0.local_addr().expect("address");
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), self.0.accept());
        let (connected, (accepted, _)) = (connected.expect("connect"), accepted.expect("accept"));
        connected.set_nodelay(true).expect("option");
        accepted.set_nodelay(true).expect("option");
        (connected, accepted)
    }
}
