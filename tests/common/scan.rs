//! `ewsbridge probe`, run to its end, and a server before which connections are counted.

use super::{Listening, TcpTarget};
use serde_json::Value;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a scan said and how long it took.
pub struct Scanned {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub time: Duration,
}

impl Scanned {
    /// `ewsbridge probe` with these arguments.
    pub fn with(arguments: &[&str]) -> Self {
        Self::of(command(arguments))
    }

    /// A command, run to its end with nothing to read.
    pub fn of(mut command: Command) -> Self {
        let began = Instant::now();
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("the command runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let code = status.code().expect("an exit code");
        Self { code, stdout: text(stdout), stderr: text(stderr), time: began.elapsed() }
    }

    /// The document of a scan that succeeded.
    pub fn json(&self) -> Value {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{}", self.stdout);
        serde_json::from_str(&self.stdout).expect("JSON")
    }
}

/// `ewsbridge probe` with these arguments, in an environment that changes nothing.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ewsbridge"));
    command.arg("probe").args(arguments);
    clean(&mut command);
    command
}

/// The same where some files of the system are others. Needs root.
pub fn covered(covers: &[(&str, &Path)], arguments: &[&str]) -> Command {
    assert!(nix::unistd::geteuid().is_root(), "needs root; leave it out by: tests/run --rootless");
    let mounts: Vec<String> =
        covers.iter().map(|(what, with)| format!("mount --bind {} {what} && ", with.display())).collect();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("{}exec {} probe \"$@\"", mounts.concat(), env!("CARGO_BIN_EXE_ewsbridge"))).arg("sh");
    command.args(arguments);
    clean(&mut command);
    command
}

fn clean(command: &mut Command) {
    for name in ["OPENSSL_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1");
}

/// What `probe --json` says of a server; it made as many connections as it says, and at most 25.
pub fn scanned(server: &impl Listening, arguments: &[&str]) -> Value {
    let counter = counting(server);
    let target = counter.address().to_string();
    let scanned = Scanned::with(&[&[target.as_str(), "--json"], arguments].concat());
    let found = scanned.json();
    assert_eq!(found["connections"], counter.accepted(), "{found:#}");
    let most = if arguments.contains(&"--full") { 150 } else { 25 };
    assert!(counter.accepted() <= most, "{} connections", counter.accepted());
    found
}

/// A server with a counter before it, which passes everything on.
pub fn counting(server: &impl Listening) -> TcpTarget {
    let server = server.address();
    TcpTarget::serve(move |client| pass(client, TcpStream::connect(server).expect("the server")))
}

/// Passes everything between two connections, until both ways have ended.
pub fn pass(client: TcpStream, server: TcpStream) {
    let way = |from: &TcpStream, to: &TcpStream| {
        let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    let (up, down) = (way(&client, &server), way(&server, &client));
    let _ = (up.join(), down.join());
}
