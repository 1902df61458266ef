//! The bridge under torture: a forwarder with files, its log in a file, reloaded by its own commands.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::vitals::Vitals;
use crate::cli_support::{Sandbox, free_port};

pub struct Bridge {
    sandbox: Sandbox,
    pub address: SocketAddr,
    /// What clients trust.
    pub ca: String,
    child: Child,
    log: PathBuf,
}

/// Deadlines are for peers that hang, not for a machine with too much to do.
const PATIENT: [&str; 3] = ["hello_timeout=60s", "handshake_timeout=60s", "connect_timeout=60s"];

const NAME: &str = "exch1";

impl Bridge {
    /// Serves these settings.
    pub fn start(sandbox: Sandbox, target: SocketAddr, settings: &[String]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let words = ["add", NAME, &address.to_string(), &target.to_string(), "--offline"];
        sandbox.run(words).succeeded();
        let settings = PATIENT.into_iter().chain(settings.iter().map(String::as_str));
        sandbox.run(["set", NAME].into_iter().chain(settings)).succeeded();
        let ca = fs::read_to_string(sandbox.ca(NAME)).expect("PEM");
        let log = sandbox.material.path().join("bridge.log");
        let mut command = sandbox.command(["run", NAME]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).expect("a log"));
        let child = command.spawn().expect("the bridge");
        let bridge = Self { sandbox, address, ca, child, log };
        let began = Instant::now();
        while !bridge.log().contains(" listening") {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not listen:\n{}", bridge.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        bridge
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    pub fn vitals(&self) -> Vitals {
        Vitals::of(self.child.id())
    }

    /// The forwarder's own certificate on disk, as PEM.
    pub fn leaf(&self) -> Vec<u8> {
        fs::read(self.sandbox.identity(NAME).join("cert.pem")).expect("the certificate")
    }

    /// Gives it a new certificate.
    pub fn renew(&self) {
        self.sandbox.run(["cert", "renew", NAME, "--force"]).succeeded();
    }

    /// Changes settings.
    pub fn set(&self, settings: &str) {
        self.sandbox.run(["set", NAME, settings]).succeeded();
    }

    /// Has it take over what changed; gives back what it said.
    pub fn reload(&self) -> String {
        self.sandbox.run(["reload", NAME]).succeeded().all()
    }

    /// Ends it and gives back its log.
    pub fn stop(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("own child");
        let status = self.child.wait().expect("own child");
        assert!(status.success(), "{status}\n{}", self.log());
        self.log()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
