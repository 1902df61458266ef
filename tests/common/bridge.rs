//! The bridge: the built binary, run as an admin runs it with no file at all.

use super::{Child, Client, Failure, Listening, connect};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A running `ewsbridge run --listen …`.
pub struct Bridge {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

/// A bridge not yet started.
pub struct Builder {
    listen: String,
    target: String,
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    /// Files and folders of the system that only this bridge sees otherwise: what, and in its place.
    covered: Vec<(String, PathBuf)>,
    /// Its soft and hard limit of descriptors.
    descriptors: Option<(u32, u32)>,
    /// The process in whose network it runs.
    network: Option<u32>,
}

/// The `key=value` parts of a log line.
#[derive(Debug)]
pub struct Fields {
    pub line: String,
    values: BTreeMap<String, String>,
}

impl Bridge {
    /// To this target, with no opinion about its certificate yet.
    pub fn to(target: &impl Listening) -> Builder {
        Self::to_name(&target.address().to_string())
    }

    /// To a target given as it's typed.
    pub fn to_name(target: &str) -> Builder {
        Builder {
            listen: "127.0.0.1:0".to_owned(),
            target: target.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            covered: Vec::new(),
            descriptors: None,
            network: None,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The CA it prints for its clients.
    pub fn ca(&self) -> String {
        self.child.stdout.wait_for(&["-----END CERTIFICATE-----"]);
        self.child.stdout.text() + "\n"
    }

    /// The same as a file.
    pub fn ca_file(&self) -> PathBuf {
        let file = self.dir.path().join("ca.pem");
        std::fs::write(&file, self.ca()).expect("CA file");
        file
    }

    /// A connected TLS 1.3 client that trusts the printed CA.
    pub async fn client(&self) -> Client {
        self.try_client().await.unwrap_or_else(|failure| panic!("client: {failure:?}\n{}", self.log()))
    }

    /// A client that may fail.
    pub async fn try_client(&self) -> Result<Client, Failure> {
        connect(self.address, &self.ca(), "localhost").await
    }

    pub fn log(&self) -> String {
        self.child.stderr.text()
    }

    /// Waits for a log line with all these texts.
    pub fn wait_for_log(&self, texts: &[&str]) -> Fields {
        Fields::of(self.child.stderr.wait_for(texts))
    }

    /// Waits for the log line that is the `nth` (from 0) with all these texts.
    pub fn nth_log(&self, texts: &[&str], nth: usize) -> String {
        self.child.stderr.wait_for_nth(texts, nth)
    }

    /// Waits for the line about the first finished connection.
    pub fn session(&self) -> Fields {
        self.nth_session(0)
    }

    /// Waits for the line about the `nth` finished connection (from 0).
    pub fn nth_session(&self, nth: usize) -> Fields {
        Fields::of(self.child.stderr.wait_for_nth(&["session closed"], nth))
    }

    /// How many connections have finished by now.
    pub fn sessions(&self) -> usize {
        self.child.stderr.count("session closed")
    }

    /// Asks it to end as systemd does, without waiting.
    pub fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.pid()).expect("a process id"));
        kill(pid, Signal::SIGTERM).expect("own child");
    }

    /// Asks it to end and expects exit status 0.
    pub fn stop(mut self) {
        self.terminate();
        self.expect_clean_end();
    }

    /// Waits for its end and expects exit status 0.
    pub fn expect_clean_end(&mut self) {
        let status = self.child.wait();
        assert_eq!(status.code(), Some(0), "the bridge ended with {status}\n{}", self.child.all());
    }
}

impl Builder {
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Shows it another file or folder in the place of one of the system's. Needs root.
    pub fn cover(mut self, what: &str, with: &std::path::Path) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "needs root; leave it out by: tests/run --rootless");
        self.covered.push((what.to_owned(), with.to_owned()));
        self
    }

    /// Starts it with this soft and hard limit of descriptors.
    pub fn descriptors(mut self, soft: u32, hard: u32) -> Self {
        self.descriptors = Some((soft, hard));
        self
    }

    /// Sets a key of a file of settings.
    pub fn set(self, change: &str) -> Self {
        self.arg("--set").arg(change)
    }

    /// Instead of any free port of 127.0.0.1.
    pub fn listen(mut self, listen: &str) -> Self {
        listen.clone_into(&mut self.listen);
        self
    }

    /// Runs it in the network of this process. Needs root.
    pub fn in_network_of(mut self, pid: u32) -> Self {
        self.network = Some(pid);
        self
    }

    /// Trusts this certificate and no other.
    pub fn pin(self, certificate: &super::Certificate) -> Self {
        self.arg("--pin").arg(certificate.pin())
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> Bridge {
        self.start_within(super::TIMEOUT)
    }

    /// The same where it has to find something out first.
    pub fn start_within(self, limit: std::time::Duration) -> Bridge {
        let (child, dir) = self.spawn();
        let line = Fields::of(child.stderr.wait_long_for(limit, &["listening", "listen="]));
        let address = line["listen"].parse().expect("an address after listen=");
        Bridge { child, address, dir }
    }

    /// Starts it where it can't run: its exit code and its standard error.
    pub fn start_in_vain(self) -> (i32, String) {
        let (mut child, _dir) = self.spawn();
        let status = child.wait_unless(|child| {
            assert_eq!(child.stderr.count("listen="), 0, "it serves\n{}", child.all());
        });
        (status.code().expect("an exit code"), child.stderr.text_at_end())
    }

    fn spawn(self) -> (Child, TempDir) {
        let dir = TempDir::with_prefix("ewsbridge-run-").expect("temporary directory");
        let mut command = self.program();
        command.args(["run", "--listen", &self.listen, "--target", &self.target]).args(&self.arguments);
        // Never the machine's own files, nor the tester's own settings.
        command.env("EWSBRIDGE_CONFIG_DIR", dir.path().join("config"));
        command.env("EWSBRIDGE_STATE_DIR", dir.path().join("state"));
        for name in ["OPENSSL_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_MODULES", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.envs(self.environment);
        (Child::spawn(&mut command), dir)
    }

    /// The binary; in a mount namespace of its own where it is to see other files.
    fn program(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_ewsbridge");
        if let Some((soft, hard)) = self.descriptors {
            assert!(self.covered.is_empty() && self.network.is_none(), "one of the three");
            let mut command = Command::new("prlimit");
            command.arg(format!("--nofile={soft}:{hard}")).arg(binary);
            return command;
        }
        if let Some(pid) = self.network {
            assert!(self.covered.is_empty(), "either other files or another network");
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/proc/{pid}/ns/net")).arg(binary);
            return command;
        }
        if self.covered.is_empty() {
            return Command::new(binary);
        }
        let mounts: Vec<String> =
            self.covered.iter().map(|(what, with)| format!("mount --bind {} {what}", with.display())).collect();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("{} && exec {binary} \"$@\"", mounts.join(" && "))).arg("sh");
        command
    }
}

impl Fields {
    fn of(line: String) -> Self {
        let mut values = BTreeMap::new();
        let mut rest = line.as_str();
        while let Some(position) = rest.find('=') {
            let name = rest[..position].rsplit(|letter: char| !letter.is_alphanumeric() && letter != '_').next();
            let after = &rest[position + 1..];
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => after.split_once(' ').unwrap_or((after, "")),
            };
            values.insert(name.unwrap_or_default().to_owned(), value.to_owned());
            rest = next;
        }
        Self { line, values }
    }

    /// A field as a number.
    pub fn number(&self, name: &str) -> u64 {
        self[name].parse().unwrap_or_else(|_| panic!("{name} isn't a number in {}", self.line))
    }
}

impl std::ops::Index<&str> for Fields {
    type Output = str;

    fn index(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("no field {name} in {}", self.line))
    }
}
