//! Who is compared: our binary, four proxies of Debian, and the plain relay of the floor.
//!
//! Each runs in a process group of its own. The configurations are the files of `peers/`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::floor;
use crate::load::Group;
use crate::material::{Certificate, Material};

/// One of those compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    /// This binary of ours.
    Ours(PathBuf),
    Nginx,
    Haproxy,
    Stunnel,
    Socat,
    /// Our own relay without any TLS.
    Relay,
}

impl Peer {
    /// The proxies that we are measured against.
    pub(crate) const OTHERS: [Self; 4] = [Self::Nginx, Self::Haproxy, Self::Stunnel, Self::Socat];

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "ewsbridge",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Stunnel => "stunnel",
            Self::Socat => "socat",
            Self::Relay => "relay",
        }
    }

    /// Whether it can resume sessions with the target. What is said here is checked.
    pub(crate) fn resumes_target(&self) -> bool {
        !matches!(self, Self::Socat | Self::Relay)
    }

    /// The group that its clients use.
    pub(crate) fn group(&self) -> Group {
        if *self == Self::Socat { Group::P256 } else { Group::X25519 }
    }

    /// Its name and version, as it tells them.
    ///
    /// # Errors
    /// If it is not installed.
    pub(crate) fn version(&self) -> Result<String> {
        let (program, argument, sign) = match self {
            Self::Ours(path) => (path.to_string_lossy().into_owned(), "--version", ""),
            Self::Nginx => ("nginx".to_owned(), "-v", "nginx"),
            Self::Haproxy => ("haproxy".to_owned(), "-v", "HAProxy"),
            Self::Stunnel => ("stunnel".to_owned(), "-version", "stunnel"),
            Self::Socat => ("socat".to_owned(), "-V", "socat version"),
            Self::Relay => return Ok("our own TCP relay".to_owned()),
        };
        let output = Command::new(&program)
            .env("PATH", path())
            .arg(argument)
            .output()
            .with_context(|| format!("{program} does not run; deploy/setup bench installs the peers"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().map(str::trim).filter(|line| line.contains(sign) && !line.is_empty());
        let line = lines.next().with_context(|| format!("{program} tells no version"))?;
        let words = line.trim_start_matches("nginx version: ").replace("nginx/", "nginx ").replace(" version ", " ");
        // Without build dates and addresses.
        let short: Vec<&str> = words.split_whitespace().take(2).collect();
        let library = if matches!(self, Self::Ours(_)) { lines.next() } else { None };
        Ok(short.join(" ") + &library.map_or(String::new(), |line| format!(" with {line}")))
    }

    /// Starts it before this target and waits until it listens.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn start(&self, material: &Material, target: SocketAddr) -> Result<Process> {
        let folder = tempfile::Builder::new().prefix("ewsbridge-peer-").tempdir()?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let between = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let place = Place { folder: folder.path(), material, listen, between, target };
        let mut command = self.command(&place)?;
        let log = folder.path().join("log");
        let file = File::create(&log)?;
        command.env("PATH", path()).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("{} does not start", self.name()))?;
        let mut process = Process { child, address: listen, folder };
        let began = Instant::now();
        while TcpStream::connect(listen).is_err() {
            let ended = process.child.try_wait()?;
            if ended.is_some() || began.elapsed() > Duration::from_secs(10) {
                bail!("{} does not listen: {}", self.name(), process.log());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let Place { folder, material, listen, target, .. } = *place;
        Ok(match self {
            Self::Ours(path) => {
                let mut command = Command::new(path);
                command.args(["run", "--listen", &listen.to_string(), "--target"]);
                command.arg(format!("localhost:{}", target.port()));
                command.arg("--cert").arg(material.certificate(Certificate::Front));
                command.arg("--key").arg(material.key(Certificate::Front));
                command.arg("--ca").arg(material.certificate(Certificate::TargetAuthority));
                // What an admin's shell may hold.
                for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EWSBRIDGE_")) {
                    command.env_remove(name);
                }
                command
            }
            Self::Nginx => {
                let mut command = Command::new("nginx");
                command.arg("-c").arg(place.fill("nginx.conf", include_str!("peers/nginx.conf"))?);
                command.arg("-e").arg(folder.join("nginx.log"));
                command
            }
            Self::Haproxy => {
                let mut command = Command::new("haproxy");
                command.args(["-db", "-f"]).arg(place.fill("haproxy.conf", include_str!("peers/haproxy.conf"))?);
                command
            }
            Self::Stunnel => {
                let mut command = Command::new("stunnel");
                command.arg(place.fill("stunnel.conf", include_str!("peers/stunnel.conf"))?);
                command
            }
            Self::Socat => {
                let text = place.filled(include_str!("peers/socat.conf"));
                let mut command = Command::new("socat");
                command.args(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')));
                command
            }
            Self::Relay => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([floor::RELAY, &listen.to_string(), &target.to_string()]);
                command
            }
        })
    }
}

/// What the placeholders of a configuration stand for.
struct Place<'a> {
    folder: &'a Path,
    material: &'a Material,
    listen: SocketAddr,
    /// Where the second of two services in a chain listens.
    between: SocketAddr,
    target: SocketAddr,
}

impl Place<'_> {
    fn filled(&self, template: &str) -> String {
        // Its workers are those of whoever starts it; without root nginx ignores the line.
        let user = if nix::unistd::geteuid().is_root() { "root" } else { "nobody" };
        template
            .replace("{listen}", &self.listen.to_string())
            .replace("{port}", &self.listen.port().to_string())
            .replace("{between}", &self.between.to_string())
            .replace("{target}", &self.target.to_string())
            .replace("{folder}", &self.folder.display().to_string())
            .replace("{material}", &self.material.path().display().to_string())
            .replace("{user}", user)
    }

    fn fill(&self, name: &str, template: &str) -> Result<PathBuf> {
        let file = self.folder.join(name);
        fs::write(&file, self.filled(template))?;
        Ok(file)
    }
}

/// A running peer; its whole group is ended when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    folder: TempDir,
}

impl Process {
    /// The number of its process group.
    pub(crate) fn group(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard output and error.
    pub(crate) fn log(&self) -> String {
        let logs = ["log", "nginx.log", "stunnel.log"].map(|name| self.folder.path().join(name));
        logs.iter().filter_map(|log| fs::read_to_string(log).ok()).collect()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "it ended by itself ({ended:?}): {}", self.log());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        let _ = killpg(group, Signal::SIGTERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(3) {
            sleep(Duration::from_millis(5));
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Debian keeps nginx and HAProxy where only root's shell looks.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/bin"
}

/// A free port that no connection gets by chance as its own.
fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 9000)?;
    for _ in 0..5000 {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 20000 and 32000")
}
