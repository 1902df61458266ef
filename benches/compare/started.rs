//! Our binary with a harness that plays systemd: it holds the socket on which READY arrives.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Where a binary of ours is to keep its files.
pub(crate) struct Home(TempDir);

impl Home {
    /// A folder that goes with it.
    ///
    /// # Errors
    /// If it can't be made.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("ewsbridge-started-").tempdir()?))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    /// Starts the command in a process group of its own and waits until it says READY.
    ///
    /// # Errors
    /// If it ends before, or says nothing for 2 minutes: valgrind is slow.
    pub(crate) fn start(&self, mut command: Command) -> Result<Started<'_>> {
        let socket = self.path().join("notify");
        let _ = fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket)?;
        notified.set_read_timeout(Some(Duration::from_millis(200)))?;
        // What an admin's shell may hold.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EWSBRIDGE_")) {
            command.env_remove(name);
        }
        command.env("NOTIFY_SOCKET", &socket);
        command.env("EWSBRIDGE_CONFIG_DIR", self.path().join("config"));
        command.env("EWSBRIDGE_STATE_DIR", self.path().join("state"));
        let log = File::create(self.log())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let began = Instant::now();
        let child = command.spawn().with_context(|| format!("{command:?} does not start"))?;
        let mut started = Started { child, home: self, ready: Duration::ZERO };
        let mut message = [0; 4096];
        loop {
            match notified.recv(&mut message) {
                Ok(length) if message[..length].starts_with(b"READY=1") => break,
                // Its listening sockets, for the store of descriptors.
                Ok(_) => {}
                Err(_) => {
                    let ended = started.child.try_wait()?;
                    let is_late = began.elapsed() > Duration::from_secs(120);
                    ensure!(ended.is_none() && !is_late, "no READY ({ended:?}): {}", self.read_log());
                }
            }
        }
        started.ready = began.elapsed();
        Ok(started)
    }

    fn read_log(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

/// A running binary of ours; it is ended when dropped.
pub(crate) struct Started<'a> {
    child: Child,
    home: &'a Home,
    /// From before the call that starts the process to the arrival of READY.
    pub(crate) ready: Duration,
}

impl Started<'_> {
    /// The number of its process group.
    pub(crate) fn group(&self) -> u32 {
        self.child.id()
    }

    /// Where its first forwarder listens, as its log says.
    ///
    /// # Errors
    /// If the log does not say so.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let log = self.home.read_log();
        let after = log.split("listen=").nth(1).with_context(|| format!("no address in its log: {log}"))?;
        after.split_whitespace().next().unwrap_or_default().parse().context("an address after listen=")
    }

    /// Whether it still runs, with nothing worse in its log than that descriptors are short: each
    /// forwarder would take 9,280 if it could.
    ///
    /// # Errors
    /// If it has ended, or has warned of something else.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        let log = self.home.read_log();
        let is_shortage =
            |line: &str| line.contains("max_connections = ") && line.contains(" descriptors, and the limit is ");
        let is_bad = |line: &&str| line.contains("ERROR") || line.contains("WARN") && !is_shortage(line);
        let bad = log.lines().find(is_bad);
        ensure!(ended.is_none() && bad.is_none(), "{ended:?}, {}", bad.unwrap_or(&log));
        Ok(())
    }

    /// Asks it to end, as systemd does, and waits for a minute.
    ///
    /// # Errors
    /// If it does not end.
    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        let group = Pid::from_raw(self.child.id().cast_signed());
        let _ = killpg(group, Signal::SIGTERM);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(2));
        }
        bail!("it does not end: {}", self.home.read_log())
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.end().is_err() {
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}
