//! Instructions that our binary spends on a unit of work, counted by callgrind: a figure that a noisy
//! machine leaves alone.
//!
//! `cargo bench --profile profiling --bench compare -- --instructions`. Each piece of work is done once
//! and then twice as often, by a process of its own each; the difference is that of the work, without
//! start and end. The kernel's share is not in it. One worker thread, so that none is counted that
//! wakes in vain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::load::{Client, FULL_RECORD, Group, Target, TargetKind};
use crate::material::{Certificate, Material};
use crate::rows::{ANSWER, REQUEST, Way};
use crate::started::Home;

/// How often each pair is run: the spread of what they give is told.
const TIMES: usize = 3;
/// The greatest spread, in percent of the median, at which figures can be compared.
const SPREAD: f64 = 1.0;

/// What is counted.
#[derive(Clone, Copy)]
enum Work {
    /// Connections, one after the other, with a request each; whether the client resumes its session.
    Connections { resumes: bool },
    /// Requests over one connection.
    Requests,
    /// MiB over one connection.
    Bulk(Way),
}

/// A line of the table.
struct Counted {
    name: &'static str,
    unit: &'static str,
    target: TargetKind,
    work: Work,
    /// Units of the smaller run.
    units: u64,
}

const ALL: [Counted; 7] = [
    counted("connection", "connection, target resumed", Work::Connections { resumes: false }, 60),
    counted("resumed", "connection, both resumed", Work::Connections { resumes: true }, 60),
    counted("request", "request of 600 B, answer of 4 KiB", Work::Requests, 600),
    counted("down", "MiB down, AES-128-GCM on both legs", Work::Bulk(Way::Down), 16),
    counted("up", "MiB up, AES-128-GCM on both legs", Work::Bulk(Way::Up), 16),
    Counted {
        target: TargetKind::Tls11,
        ..counted("old-down", "MiB down, TLS 1.1 AES128-SHA to the target", Work::Bulk(Way::Down), 8)
    },
    Counted {
        target: TargetKind::Tls11,
        ..counted("old-up", "MiB up, TLS 1.1 AES128-SHA to the target", Work::Bulk(Way::Up), 8)
    },
];

const fn counted(name: &'static str, unit: &'static str, work: Work, units: u64) -> Counted {
    Counted { name, unit, target: TargetKind::Tls12, work, units }
}

/// Counts those that are named, or all, and prints a table.
///
/// # Errors
/// If valgrind is missing, anything fails, or figures differ by more than [`SPREAD`].
pub(crate) fn run(program: &Path, names: &[String]) -> Result<()> {
    let unknown = names.iter().find(|name| ALL.iter().all(|row| row.name != *name));
    if let Some(unknown) = unknown {
        bail!("nothing is counted by the name {unknown}; there are {:?}", ALL.map(|row| row.name));
    }
    let folder = folder()?;
    let material = Material::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("{:>12}  {:>6}  per", "instructions", "spread");
    let mut unsteady = Vec::new();
    for row in ALL.iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.name)) {
        let mut figures = Vec::new();
        for _ in 0..TIMES {
            let once = runtime.block_on(row.count(1, program, &material, &folder))?;
            let twice = runtime.block_on(row.count(2, program, &material, &folder))?;
            figures.push((twice as f64 - once as f64) / row.units as f64);
        }
        figures.sort_by(f64::total_cmp);
        let median = figures[TIMES / 2];
        let spread = (figures[TIMES - 1] - figures[0]) / median * 100.0;
        println!("{median:>12.0}  {spread:>5.2}%  {}", row.unit);
        if spread > SPREAD {
            unsteady.push(row.name);
        }
    }
    println!("by function and line: callgrind_annotate {}/NAME-2.callgrind", folder.display());
    ensure!(unsteady.is_empty(), "not repeatable within {SPREAD} %: {}", unsteady.join(", "));
    Ok(())
}

/// Where callgrind's files stay.
fn folder() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("instructions");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A core that may be used.
fn one_core() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = allowed.and_then(|list| list.trim().split(['-', ',']).next()).filter(|first| !first.is_empty());
    Ok(first.context("no Cpus_allowed_list in /proc/self/status")?.to_owned())
}

impl Counted {
    /// All instructions of a process that did the work so often.
    async fn count(&self, times: u64, program: &Path, material: &Material, folder: &Path) -> Result<u64> {
        let target = Target::start(self.target, material, Certificate::Target, FULL_RECORD).await?;
        let home = Home::new()?;
        let file = folder.join(format!("{}-{times}.callgrind", self.name));
        // On one core it serves with one thread.
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &one_core()?, "valgrind"]);
        command.args(["--quiet", "--tool=callgrind", &format!("--callgrind-out-file={}", file.display())]);
        command.arg(program).args(["run", "--listen", "127.0.0.1:0"]);
        command.args(["--target", &format!("localhost:{}", target.address.port())]);
        command.arg("--cert").arg(material.certificate(Certificate::Front));
        command.arg("--key").arg(material.key(Certificate::Front));
        command.arg("--ca").arg(material.certificate(Certificate::TargetAuthority));
        let mut bridge = home.start(command)?;
        self.work(times, &Client::new(bridge.address()?, material, Group::X25519, self.resumes())?).await?;
        bridge.check()?;
        ensure!(bridge.end()?.success(), "it ended badly");
        let seen = target.seen();
        ensure!(seen.faults.is_empty() && seen.refused == 0, "{} refused, {:?}", seen.refused, seen.faults);
        instructions(&file)
    }

    fn resumes(&self) -> bool {
        matches!(self.work, Work::Connections { resumes: true })
    }

    async fn work(&self, times: u64, client: &Client) -> Result<()> {
        // The first connection has no session to resume yet, on either side.
        one(client, false).await?;
        match self.work {
            Work::Connections { resumes } => {
                for _ in 0..self.units * times {
                    one(client, resumes).await?;
                }
            }
            Work::Requests => {
                let mut connection = client.connect().await?;
                for _ in 0..self.units * times {
                    connection.exchange(REQUEST, ANSWER, FULL_RECORD).await?;
                }
                connection.close().await?;
            }
            Work::Bulk(way) => {
                let bytes = (self.units * times) << 20;
                let (up, down) = if way == Way::Up { (bytes, 1) } else { (16, bytes) };
                let mut connection = client.connect().await?;
                connection.exchange(up, down, FULL_RECORD).await?;
                connection.close().await?;
            }
        }
        Ok(())
    }
}

async fn one(client: &Client, must_resume: bool) -> Result<()> {
    let mut connection = client.connect().await?;
    connection.exchange(REQUEST, ANSWER, FULL_RECORD).await?;
    ensure!(connection.was_resumed() == must_resume, "resumed: {}", connection.was_resumed());
    connection.close().await
}

/// The total of a file of callgrind's.
fn instructions(file: &Path) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    total.context("callgrind wrote no total")?.trim().parse().context("a total of callgrind's")
}
