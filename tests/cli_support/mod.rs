//! What the tests of the commands are written with: a sandbox for settings and keys, the built
//! binary in it, certificates, and legacy targets.
//!
//! Nothing sleeps to be safe: waits end with an event or, after [`TIMEOUT`], with a panic that shows
//! what was seen instead.

// Each file under tests/ is a crate of its own and uses its own part of this.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod certificates;
mod process;
mod target;
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

pub use certificates::{Authority, Certificate, Leaf, fresh_key};
pub use process::{Live, Outcome, run_to_end};
pub use target::{SServer, deaf_port, tcp_target, tls_target, tls_target_for};
pub use tree::Tree;

/// No test waits for one event longer than this. Only a failing test spends it.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The binary under test.
pub const EWSBRIDGE: &str = env!("CARGO_BIN_EXE_ewsbridge");

/// A folder of its own with the settings' folder `etc`, the state's folder `var`, and whatever a
/// test puts beside them. The two don't exist until a command makes them.
pub struct Sandbox {
    folder: tempfile::TempDir,
    /// Where test material lies, outside of what is compared.
    pub material: tempfile::TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ewsbridge-cli-").tempdir().expect("a temporary folder");
        Self { folder, material: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A sandbox in which the forwarder `old` already exists.
    pub fn with_another() -> Self {
        let sandbox = Self::new();
        let port = free_port();
        sandbox.run(["add", "old", &format!("127.0.0.1:{port}"), "192.0.2.1:443", "--offline"]).succeeded();
        sandbox
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn etc(&self) -> PathBuf {
        self.root().join("etc")
    }

    pub fn var(&self) -> PathBuf {
        self.root().join("var")
    }

    pub fn settings(&self, name: &str) -> PathBuf {
        self.etc().join("forwarders").join(format!("{name}.toml"))
    }

    pub fn identity(&self, name: &str) -> PathBuf {
        self.var().join("identity").join(name)
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.settings(name)).expect("the forwarder's file")
    }

    /// Puts a file beside the sandbox and says where it is.
    pub fn put(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.material.path().join(name);
        fs::write(&path, contents).expect("test material");
        path
    }

    /// The binary, told where the sandbox is, without what the tester's environment would change.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(EWSBRIDGE);
        command.args(arguments);
        self.surround(&mut command);
        command
    }

    /// Gives a command the sandbox's environment.
    pub fn surround(&self, command: &mut Command) {
        for name in ["OPENSSL_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR", "EWSBRIDGE_LOG", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1");
        command.env("EWSBRIDGE_CONFIG_DIR", self.etc()).env("EWSBRIDGE_STATE_DIR", self.var());
    }

    /// Runs the binary to its end, with nobody to ask.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        run_to_end(&mut self.command(arguments))
    }

    /// Runs the binary on a terminal of its own, types `answer` once `prompt` stands there.
    #[track_caller]
    pub fn run_on_terminal(&self, arguments: &[&str], prompt: &str, answer: &str) -> Outcome {
        let words: Vec<String> = std::iter::once(&EWSBRIDGE).chain(arguments).map(|word| format!("'{word}'")).collect();
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
        self.surround(&mut command);
        let mut live = Live::spawn_with_input(&mut command);
        live.wait_for(prompt);
        live.input(answer);
        live.finish()
    }

    /// Everything that commands may change, to be compared.
    pub fn tree(&self) -> Tree {
        Tree::of(self.root())
    }

    /// The forwarder's server, once it listens.
    #[track_caller]
    pub fn serve(&self, name: &str) -> Live {
        let live = Live::spawn(&mut self.command(["run", name]));
        live.wait_for(" listening");
        live
    }

    /// The certificate that clients of a forwarder must trust, as a file.
    #[track_caller]
    pub fn ca(&self, name: &str) -> PathBuf {
        let shown = self.run(["cert", "show", name]).succeeded();
        self.put(&format!("{name}.shown.pem"), shown.stdout)
    }
}

/// What `openssl s_client` says of a handshake with 127.0.0.1, verified by `ca` as an ordinary client would.
#[track_caller]
pub fn s_client(port: u16, ca: &Path) -> Outcome {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-verify_return_error"]);
    command.args(["-verify_ip", "127.0.0.1", "-CAfile"]).arg(ca).env_remove("OPENSSL_CONF");
    run_to_end(&mut command)
}

/// A port that nothing uses, below those that the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 9000).expect("below 9000");
    for _ in 0..5000 {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::SeqCst)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000");
}

/// Whether this test may do what only root may.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
