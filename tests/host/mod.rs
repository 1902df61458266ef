//! Drives `tests/host/host`: a throw-away Debian under its own systemd, and the network outside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// No single command and no single wait takes longer.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The first `up` of a suite builds its root file system from a Debian mirror.
const BUILD_TIMEOUT: Duration = Duration::from_secs(900);

/// One host at a time: each keeps its root file system in memory.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A booted host; gone when dropped.
pub(crate) struct Host {
    name: String,
    _turn: MutexGuard<'static, ()>,
}

/// What a command said and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    what: String,
}

impl Host {
    /// Boots a fresh host, with the binary under test and nothing else of ours in it.
    pub(crate) fn boot(suite: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // The same name in each run of this checkout, so that a run that was killed is cleaned up
        // after by the next, and no other checkout's host is in the way.
        let mut checkout = DefaultHasher::new();
        env!("CARGO_MANIFEST_DIR").hash(&mut checkout);
        let host = Self { name: format!("{suite}-{:016x}", checkout.finish()), _turn: turn };
        let up = run(host.command(&["up", suite], BUILD_TIMEOUT));
        assert!(
            up.code == Some(0),
            "no throw-away host, so nothing was tested. It takes root and these Debian packages: mmdebstrap \
             systemd-container iproute2 procps util-linux, and for its first boot a Debian mirror.\n{}",
            up.err
        );
        host.push(Path::new(env!("CARGO_BIN_EXE_ewsbridge")), "/root/ewsbridge");
        host
    }

    pub(crate) fn push(&self, file: &Path, to: &str) {
        run(self.command(&["push", &file.to_string_lossy(), to], TIMEOUT)).succeeded();
    }

    /// Runs a command line in the host as root.
    pub(crate) fn sh(&self, line: &str) -> Said {
        run(self.command(&["exec", "sh", "-c", line], TIMEOUT))
    }

    /// Runs a command line in the host that has to succeed; its output.
    pub(crate) fn ok(&self, line: &str) -> String {
        self.sh(line).succeeded().out
    }

    /// Runs the installed binary in the host as an admin would, with nobody to answer questions.
    pub(crate) fn ewsbridge(&self, arguments: &str) -> Said {
        self.sh(&format!("ewsbridge {arguments} </dev/null"))
    }

    /// A command of this machine, to be run outside the host and on its only network.
    pub(crate) fn outside(&self, arguments: &[&str]) -> Command {
        self.command(&[&["net"], arguments].concat(), TIMEOUT)
    }

    /// Starts a server outside the host and waits for the line that says it listens.
    pub(crate) fn serve_outside(&self, arguments: &[&str], ready: &str) -> Server {
        // Not under `timeout`: it lives as long as the test. The script ends in exec, so that the
        // child is the server itself.
        let mut command = Command::new(script());
        command.env("EWSBRIDGE_HOST", &self.name).arg("net").args(arguments);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut server = Server(spawned.expect("the server starts"));
        let lines = BufReader::new(server.0.stdout.take().expect("it is piped")).lines();
        let found = lines.map_while(Result::ok).any(|line| line.trim() == ready);
        assert!(found, "{arguments:?} ended before it listened");
        server
    }

    /// The property of a unit as systemd shows it.
    pub(crate) fn property(&self, unit: &str, property: &str) -> String {
        self.ok(&format!("systemctl show --property {property} --value {unit}")).trim().to_owned()
    }

    /// A field of `/proc/PID/status` of a unit's main process.
    pub(crate) fn process(&self, unit: &str, field: &str) -> String {
        let pid = self.property(unit, "MainPID");
        self.ok(&format!("awk '$1 == \"{field}:\" {{ print $2 }}' /proc/{pid}/status")).trim().to_owned()
    }

    /// Waits until a command line in the host succeeds.
    pub(crate) fn wait_until(&self, line: &str) {
        let begun = Instant::now();
        loop {
            let said = self.sh(line);
            if said.code == Some(0) {
                return;
            }
            assert!(begun.elapsed() < TIMEOUT, "not within {TIMEOUT:?}: {line}\n{}{}", said.out, said.err);
        }
    }

    /// Everything that an installation could leave behind: what is where, whose, how, with what in it.
    ///
    /// Left out, since it changes by itself or by what any admin's command leaves:
    /// * `/var/log`: the journal;
    /// * `/etc/passwd-` and its like: shadow-utils' own copy of what was there before its last change;
    /// * `/var/lib/systemd`: `timesync`, `random-seed`, the stamps of systemd's own timers, and the
    ///   folder of the stamps (not what is in it), which systemd makes for the first timer that needs it.
    pub(crate) fn tree(&self) -> Tree {
        let find = "cd / && find etc usr/local usr/bin usr/lib/systemd var root home opt srv tmp \
                    \\( -path var/log -o -path etc/passwd- -o -path etc/shadow- -o -path etc/group- -o -path etc/gshadow- \
                    -o -path var/lib/systemd/timesync -o -path var/lib/systemd/random-seed \
                    -o -path 'var/lib/systemd/timers/stamp-systemd-*' \\) -prune \
                    -o -path var/lib/systemd/timers -o -printf '%p\\t%y %m %U:%G %l\\n'";
        let hashes = "find etc usr/local var/lib root -path 'etc/*-' -prune -o -type f -exec sha256sum {} +";
        let mut tree = BTreeMap::new();
        for line in self.ok(find).lines() {
            let (path, what) = line.split_once('\t').expect("find prints both");
            tree.insert(path.to_owned(), what.to_owned());
        }
        for line in self.ok(&format!("cd / && {hashes}")).lines() {
            let (hash, path) = line.split_once("  ").expect("sha256sum prints both");
            tree.entry(path.to_owned()).and_modify(|what| *what = format!("{what} {hash}"));
        }
        Tree(tree)
    }

    fn command(&self, arguments: &[&str], timeout: Duration) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", &timeout.as_secs().to_string()]).arg(script()).args(arguments);
        command.env("EWSBRIDGE_HOST", &self.name).stdin(Stdio::null());
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.sh("journalctl --no-pager --output=short-monotonic --lines=60");
            eprintln!("---- the host's journal ----\n{}{}", journal.out, journal.err);
        }
        let _ = self.command(&["down"], TIMEOUT).status();
    }
}

/// A server outside the host; ended when dropped.
pub(crate) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Said {
    /// Goes on with what a command that must succeed said.
    pub(crate) fn succeeded(self) -> Self {
        self.ended_with(0)
    }

    /// Goes on with what a command that must end with this exit code said.
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert!(self.code == Some(code), "{}: {:?}, not {code}\n{}{}", self.what, self.code, self.out, self.err);
        self
    }

    /// Whether a text is in either output.
    pub(crate) fn says(self, text: &str) -> Self {
        let both = format!("{}{}", self.out, self.err);
        assert!(both.contains(text), "{}: no {text:?} in\n{both}", self.what);
        self
    }
}

/// A host's files at some moment.
#[derive(PartialEq)]
pub(crate) struct Tree(BTreeMap<String, String>);

impl Tree {
    /// Whether nothing at all has changed since.
    pub(crate) fn assert_same_as(&self, before: &Tree) {
        let changes = self.changes_since(before);
        assert!(changes.is_empty(), "the tree has changed:\n{}", changes.join("\n"));
    }

    /// The paths that came, went or changed, each with what was and what is.
    pub(crate) fn changes_since(&self, before: &Tree) -> Vec<String> {
        let mut paths: Vec<&String> = self.0.keys().chain(before.0.keys()).collect();
        paths.sort();
        paths.dedup();
        let changed = paths.into_iter().filter(|path| self.0.get(*path) != before.0.get(*path));
        changed.map(|path| format!("/{path}: {:?} -> {:?}", before.0.get(path), self.0.get(path))).collect()
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Said {
    run_with_input(command, b"")
}

/// Runs a command to its end with something on its standard input.
pub(crate) fn run_with_input(mut command: Command, input: &[u8]) -> Said {
    let what = command.get_args().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("timeout (coreutils) starts");
    // One that ends without reading is judged by its exit code.
    let _ = child.stdin.take().expect("it is piped").write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: status.code(), out: text(stdout), err: text(stderr), what }
}

/// Writes a file of this machine that ends with the folder.
pub(crate) fn file_in(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).and_then(|mut file| file.write_all(content.as_bytes())).expect("writes");
    path
}

fn script() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/host")
}
