//! How our CPU and memory grow with connections and with forwarders; start-up, and the binary's size.
//!
//! `cargo bench --bench compare -- --scale`; with `--write` the picture and the tables go into `docs`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::load::{Client, Connection, FULL_RECORD, Group, Target, TargetKind};
use crate::material::{Certificate, Material};
use crate::measure::{cpu, memory, settled_cpu};
use crate::plot::{Panel, number, picture};
use crate::report;
use crate::rows::{ANSWER, REQUEST};
use crate::started::{Home, Started};

/// Connections at each step.
const CONNECTIONS: [usize; 7] = [1, 10, 100, 1000, 3000, 6000, 9000];
/// Forwarders of one process at each step.
const FORWARDERS: [usize; 6] = [1, 10, 20, 30, 40, 50];
/// Requests at each step, or one of each connection where these are more.
const REQUESTS: usize = 6000;
/// Of them at a time.
const AT_ONCE: usize = 64;
/// How long the process is watched while nothing happens.
const QUIET: Duration = Duration::from_secs(5);
/// Starts at each step; the median counts.
const STARTS: usize = 11;
/// What the table's settings differ in from the defaults: the default of 4,000 is for less, and the fewer
/// handshakes leave a process with 20,000 descriptors enough for 9,000 connections.
const LIMITS: [&str; 2] = ["max_connections=9000", "max_handshakes=500"];
/// Milliseconds to READY that are wanted at most.
const READY: f64 = 50.0;

/// Measures this binary and prints what came of it; `quick`: its smaller steps; `writes`: the picture, and
/// the tables into their place in `docs/performance.md`.
///
/// # Errors
/// If anything fails, or there are too few descriptors; nothing is written then.
pub(crate) fn run(program: &Path, quick: bool, writes: bool) -> Result<()> {
    let steps = |all: &[usize], most| all.iter().copied().filter(|step| !quick || *step <= most).collect::<Vec<_>>();
    let (many, few) = (steps(&CONNECTIONS, 100), steps(&FORWARDERS, 10));
    // Two of each connection are here, client and target, and as many in the process measured.
    let needed = u64::try_from(many[many.len() - 1] * 2 + 500)?;
    let limit = ewsbridge::bridge::descriptors::raise()?;
    ensure!(limit >= needed, "{needed} descriptors are needed, the hard limit is {limit}: ulimit -Hn");
    let material = Material::new()?;
    let forwarders = forwarders(program, &few, &material)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let connections = runtime.block_on(connections(program, &many, &material))?;
    let section = section(&connections, &forwarders, fs::metadata(program)?.len());
    println!("\n{section}");
    if writes {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        report::write(&docs.join("performance.md"), "scale", &section)?;
        fs::write(docs.join("performance.svg"), picture(&panels(&connections, &forwarders)))?;
    }
    Ok(())
}

/// What so many connections cost.
struct Loaded {
    connections: usize,
    /// Of the process, all connections idle.
    kib: u64,
    /// Of a request.
    micros: f64,
    /// Milliseconds a second, nothing happening.
    idle: f64,
}

async fn connections(program: &Path, counts: &[usize], material: &Material) -> Result<Vec<Loaded>> {
    let target = Target::start(TargetKind::Tls12, material, Certificate::Target, FULL_RECORD).await?;
    let home = Home::new()?;
    let mut command = Command::new(program);
    command.args(["run", "--listen", "127.0.0.1:0", "--target", &format!("localhost:{}", target.address.port())]);
    command.arg("--cert").arg(material.certificate(Certificate::Front));
    command.arg("--key").arg(material.key(Certificate::Front));
    command.arg("--ca").arg(material.certificate(Certificate::TargetAuthority));
    LIMITS.iter().for_each(|limit| _ = command.args(["--set", limit]));
    let mut bridge = home.start(command)?;
    let client = Client::new(bridge.address()?, material, Group::X25519, false)?;
    let mut open = Vec::new();
    let mut steps = Vec::new();
    for &count in counts {
        open_until(count, &mut open, &client).await?;
        let step = loaded(&bridge, &mut open).await?;
        println!("{count} connections: {} KiB, {:.1} µs a request, {:.3} ms/s idle", step.kib, step.micros, step.idle);
        steps.push(step);
    }
    bridge.check()?;
    let seen = target.seen();
    ensure!(seen.faults.is_empty() && seen.refused == 0, "{} refused, {:?}", seen.refused, seen.faults);
    Ok(steps)
}

async fn open_until(count: usize, open: &mut Vec<Connection>, client: &Client) -> Result<()> {
    let mut opening = JoinSet::new();
    while open.len() < count {
        while opening.len() < AT_ONCE.min(count - open.len()) {
            let client = client.clone();
            opening.spawn(async move {
                let mut connection = client.connect().await?;
                connection.exchange(REQUEST, ANSWER, FULL_RECORD).await?;
                anyhow::Ok(connection)
            });
        }
        open.push(opening.join_next().await.context("one is opening")???);
    }
    Ok(())
}

/// Requests over all connections, then silence.
async fn loaded(bridge: &Started<'_>, open: &mut Vec<Connection>) -> Result<Loaded> {
    let (connections, group) = (open.len(), bridge.group());
    let each = REQUESTS.div_ceil(connections);
    let before = settled_cpu(group).await?;
    let mut idle = std::mem::take(open);
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(mut connection) = idle.pop()
        {
            running.spawn(async move {
                for _ in 0..each {
                    connection.exchange(REQUEST, ANSWER, FULL_RECORD).await?;
                }
                anyhow::Ok(connection)
            });
        }
        let Some(ended) = running.join_next().await else { break };
        open.push(ended??);
    }
    let spent = settled_cpu(group).await? - before;
    sleep(Duration::from_secs(2)).await;
    let kib = memory(group)?;
    let idle = quiet(group).await?;
    let micros = spent.as_secs_f64() * 1e6 / (each * connections) as f64;
    Ok(Loaded { connections, kib, micros, idle })
}

/// Milliseconds of CPU a second while nothing happens.
async fn quiet(group: u32) -> Result<f64> {
    let before = cpu(group)?;
    sleep(QUIET).await;
    Ok((cpu(group)? - before).as_secs_f64() * 1e3 / QUIET.as_secs_f64())
}

/// What so many forwarders cost.
struct Forwarding {
    forwarders: usize,
    kib: u64,
    /// Milliseconds to READY: fastest, median, slowest.
    ready: [f64; 3],
    /// Milliseconds of CPU until then, median.
    spent: f64,
    idle: f64,
}

fn forwarders(program: &Path, counts: &[usize], material: &Material) -> Result<Vec<Forwarding>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut steps = Vec::new();
    for &count in counts {
        let home = Home::new()?;
        (0..count).try_for_each(|number| add(&home, number, material))?;
        let command = || {
            let mut command = Command::new(program);
            command.args(["run", "--all"]);
            command
        };
        // The first start reads the binary from disk.
        home.start(command())?.end()?;
        let (mut times, mut spent) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            let mut started = home.start(command())?;
            spent.push(cpu(started.group())?.as_secs_f64() * 1e3);
            started.check()?;
            times.push(started.ready.as_secs_f64() * 1e3);
            started.end()?;
        }
        times.sort_by(f64::total_cmp);
        spent.sort_by(f64::total_cmp);
        let mut started = home.start(command())?;
        let (kib, idle) = runtime.block_on(async {
            sleep(Duration::from_secs(1)).await;
            anyhow::Ok((memory(started.group())?, quiet(started.group()).await?))
        })?;
        started.check()?;
        let (ready, spent) = ([times[0], times[STARTS / 2], times[STARTS - 1]], spent[STARTS / 2]);
        println!("{count} forwarders: {kib} KiB, READY after {ready:.1?} ms, {spent:.1} of CPU, {idle:.3} ms/s idle");
        steps.push(Forwarding { forwarders: count, kib, ready, spent, idle });
    }
    Ok(steps)
}

/// Writes what `ewsbridge add` leaves of a forwarder.
fn add(home: &Home, number: usize, material: &Material) -> Result<()> {
    let (config, name) = (home.path().join("config/forwarders"), format!("exchange{number}"));
    let identity = home.path().join("state/identity").join(&name);
    fs::create_dir_all(&config)?;
    fs::create_dir_all(&identity)?;
    fs::copy(material.certificate(Certificate::Front), identity.join("cert.pem"))?;
    fs::copy(material.key(Certificate::Front), identity.join("key.pem"))?;
    let authority = config.join(format!("{name}.ca.pem"));
    fs::copy(material.certificate(Certificate::TargetAuthority), &authority)?;
    let ca = authority.display();
    let text = format!("format = 1\nlisten = \"127.0.0.1:0\"\ntarget = \"localhost:443\"\nca = \"{ca}\"\n");
    Ok(fs::write(config.join(format!("{name}.toml")), text)?)
}

/// A straight line through points: what it begins with, what each step adds, and by how much of the
/// greatest value a point is off at most, in percent.
fn line(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |value: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>();
    let slope = sum(&|point| (point.0 - x) * (point.1 - y)) / sum(&|point| (point.0 - x).powi(2));
    let begin = y - slope * x;
    let off = points.iter().map(|point| (point.1 - begin - slope * point.0).abs()).fold(0.0, f64::max);
    let greatest = points.iter().map(|point| point.1).fold(0.0, f64::max);
    (begin, slope, off / greatest * 100.0)
}

const MIB: f64 = 1024.0;

fn panels(loaded: &[Loaded], forwarding: &[Forwarding]) -> [Panel; 4] {
    let panel = |title: &str, across, up, points: Vec<(f64, f64)>| Panel {
        title: title.to_owned(),
        across,
        up,
        points,
        is_logarithmic: false,
        limit: None,
    };
    let by_connections =
        |value: fn(&Loaded) -> f64| loaded.iter().map(move |step| (step.connections as f64, value(step)));
    let by_forwarders = |value: fn(&Forwarding) -> f64| forwarding.iter().map(move |s| (s.forwarders as f64, value(s)));
    [
        panel(
            "Memory of idle connections",
            "connections",
            "MiB, whole process",
            by_connections(|step| step.kib as f64 / MIB).collect(),
        ),
        Panel {
            is_logarithmic: true,
            ..panel(
                "CPU of a request of 600 B, answer of 4 KiB",
                "connections, 64 of them asking at a time",
                "µs CPU per request",
                by_connections(|step| step.micros).collect(),
            )
        },
        panel(
            "Memory of forwarders without connections",
            "forwarders",
            "MiB, whole process",
            by_forwarders(|step| step.kib as f64 / MIB).collect(),
        ),
        Panel {
            limit: Some((READY, "wanted at most")),
            ..panel(
                "Start-up until READY, median",
                "forwarders",
                "milliseconds",
                by_forwarders(|step| step.ready[1]).collect(),
            )
        },
    ]
}

fn section(loaded: &[Loaded], forwarding: &[Forwarding], size: u64) -> String {
    let kib: Vec<_> = loaded.iter().map(|step| (step.connections as f64, step.kib as f64)).collect();
    let (begin, each, off) = line(&kib);
    let of_forwarders: Vec<_> = forwarding.iter().map(|step| (step.forwarders as f64, step.kib as f64)).collect();
    let (_, each_forwarder, _) = line(&of_forwarders);
    let times: Vec<_> = forwarding.iter().map(|step| (step.forwarders as f64, step.spent)).collect();
    let (_, each_start, _) = line(&times);
    let row = |step: &Loaded| {
        let Loaded { connections, kib, micros, idle } = step;
        format!("| {} | {:.1} | {micros:.0} | {idle:.2} |\n", number(*connections as f64), *kib as f64 / MIB)
    };
    let forwarder = |step: &Forwarding| {
        let Forwarding { forwarders, kib, ready: [least, median, most], spent, idle } = step;
        format!(
            "| {forwarders} | {:.1} | {median:.1} ({least:.1}–{most:.1}) | {spent:.1} | {idle:.2} |\n",
            *kib as f64 / MIB
        )
    };
    format!(
        "![Four diagrams: memory and CPU by connections, memory and start-up by forwarders](performance.svg)\n\n\
         **Connections**, TLS 1.3 in and TLS 1.2 out, with `{}` (the defaults are for 4,000). \
         A straight line through the points adds {each:.1} \
         KiB a connection to {:.1} MiB; no point is off by more than {off:.2} % of the greatest.\n\n\
         | connections | MiB, all idle | µs CPU per request | idle CPU, ms/s |\n|--:|--:|--:|--:|\n{}\n\
         **Forwarders** of one process, each with its files (`run --all`); READY is {STARTS} times waited for. Each adds {:.0} KiB \
         and {each_start:.2} ms of CPU to a start.\n\n\
         | forwarders | MiB, no connection | ms to READY: median (min–max) | of them CPU | idle CPU, ms/s |\n|--:|--:|--:|--:|--:|\n{}\n\
         **The binary** has {:.1} MiB: both TLS libraries are in it.",
        LIMITS.join("`, `"),
        begin / MIB,
        loaded.iter().map(row).collect::<String>(),
        each_forwarder,
        forwarding.iter().map(forwarder).collect::<String>(),
        size as f64 / MIB / MIB,
    )
}
