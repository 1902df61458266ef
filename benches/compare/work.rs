//! Does a row's work once through one peer, and reads what it cost.
//!
//! Every byte is compared at both ends. Anything that fails, another version or suite, or a session
//! not resumed by a peer that can, is an error: there is no figure then.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{interval_at, sleep, timeout};

use crate::load::{Client, Connection, Delay, Target, TargetKind};
use crate::material::{Certificate, Material};
use crate::measure::{cpu, heap, memory, settled_cpu};
use crate::peers::{Peer, Process};
use crate::rows::{ANSWER, KEPT, PACE, REQUEST, Row, Sizes, Way, Work};

/// A peer between a client and a target, warmed up.
struct Scene {
    process: Process,
    client: Client,
    target: Target,
    /// Lives as long as the scene.
    _delay: Option<Delay>,
    record: usize,
}

/// Connections at a time in the rows of connections.
const AT_ONCE: u64 = 4;
/// No measurement takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// The figures of a row, one for each of its lines.
///
/// # Errors
/// Whatever goes wrong; the figures would mean nothing.
pub(crate) async fn once(row: &Row, peer: &Peer, material: &Material, sizes: &Sizes) -> Result<Vec<f64>> {
    let mut scene = Scene::open(row, peer, material).await?;
    let before = scene.target.seen();
    let work = measured(row, peer, &scene, sizes);
    let figures = timeout(LIMIT, work).await.context("it takes too long")?.map_err(|error| {
        let log = scene.process.log();
        let last: Vec<&str> = log.lines().rev().take(3).collect();
        if last.is_empty() {
            error
        } else {
            error.context(format!("its log, the last line first: {}", last.join(" | ")))
        }
    })?;
    scene.process.check()?;
    let seen = scene.target.seen();
    ensure!(seen.faults.is_empty(), "{}", seen.faults.join("; "));
    ensure!(seen.refused == 0, "{} connections to the target failed", seen.refused);
    if peer.resumes_target() {
        let (all, resumed) = (seen.connections - before.connections, seen.resumed - before.resumed);
        ensure!(resumed == all, "only {resumed} of {all} connections to the target were resumed");
    }
    Ok(figures)
}

async fn measured(row: &Row, peer: &Peer, scene: &Scene, sizes: &Sizes) -> Result<Vec<f64>> {
    let fewer = |count: u64| if *peer == Peer::Socat { count / sizes.socat_divisor } else { count };
    Ok(match row.work {
        Work::Connections => {
            vec![scene.connections(fewer(sizes.connections), row.resumes && *peer != Peer::Relay).await?]
        }
        Work::Bulk(way) => vec![scene.bulk(way, sizes.bulk).await?],
        Work::KeepAlive => vec![scene.kept(sizes.kept, None).await?],
        Work::Paced => vec![scene.kept(sizes.paced, Some(PACE)).await?],
        Work::Idle => vec![scene.idle(fewer(sizes.idle), sizes.settling).await?],
        Work::SlowReader => vec![scene.slow_reader(sizes.slow, sizes.pauses).await?],
        Work::FirstByte { delay } => {
            // On a longer way the waiting overlaps.
            let at_once = if delay.is_some() { AT_ONCE } else { 1 };
            scene.first_bytes(fewer(sizes.first_bytes).max(10), at_once).await?
        }
    })
}

impl Scene {
    async fn open(row: &Row, peer: &Peer, material: &Material) -> Result<Self> {
        let is_plain = *peer == Peer::Relay;
        let kind = if is_plain { TargetKind::Plain } else { row.target };
        let target = Target::start(kind, material, Certificate::Target, row.record).await?;
        let delay = match row.work {
            Work::FirstByte { delay: Some(delay) } => Some(Delay::before(target.address, delay / 2).await?),
            _ => None,
        };
        let process = peer.start(material, delay.as_ref().map_or(target.address, |delay| delay.address))?;
        let client = if is_plain {
            Client::plain(process.address)
        } else {
            Client::new(process.address, material, peer.group(), row.resumes)?
        };
        let scene = Self { process, client, target, _delay: delay, record: row.record };
        scene.warm_up().await.with_context(|| format!("warming up; its log: {}", scene.process.log()))?;
        settled_cpu(scene.process.group()).await?;
        Ok(scene)
    }

    async fn answered(&self) -> Result<Connection> {
        let mut connection = self.client.connect().await?;
        connection.exchange(REQUEST, ANSWER, self.record).await?;
        Ok(connection)
    }

    /// The first one alone, so that there is a session of the target's when the others come; these at
    /// the same time, so that each client of a row finds a ticket.
    async fn warm_up(&self) -> Result<()> {
        self.answered().await?.close().await?;
        let mut open = Vec::new();
        for _ in 0..2 * AT_ONCE {
            open.push(self.client.connect().await?);
        }
        for connection in &mut open {
            connection.exchange(REQUEST, ANSWER, self.record).await?;
        }
        for connection in open {
            connection.close().await?;
        }
        Ok(())
    }

    fn cpu(&self) -> Result<Duration> {
        cpu(self.process.group())
    }

    /// CPU milliseconds of each connection.
    async fn connections(&self, count: u64, must_resume: bool) -> Result<f64> {
        let before = self.cpu()?;
        let each = count.div_ceil(AT_ONCE);
        let mut running = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (client, record) = (self.client.clone(), self.record);
            running.spawn(async move {
                let mut resumed = 0;
                for _ in 0..each {
                    let mut connection = client.connect().await?;
                    connection.exchange(REQUEST, ANSWER, record).await?;
                    resumed += u64::from(connection.was_resumed());
                    connection.close().await?;
                }
                anyhow::Ok(resumed)
            });
        }
        let mut resumed = 0;
        while let Some(ended) = running.join_next().await {
            resumed += ended??;
        }
        let all = each * AT_ONCE;
        ensure!(!must_resume || resumed == all, "only {resumed} of {all} clients resumed");
        let spent = settled_cpu(self.process.group()).await? - before;
        Ok(spent.as_secs_f64() * 1e3 / all as f64)
    }

    /// CPU seconds per GiB.
    async fn bulk(&self, way: Way, bytes: u64) -> Result<f64> {
        let mut connection = self.answered().await?;
        let (up, down) = if way == Way::Up { (bytes, 1) } else { (16, bytes) };
        let before = self.cpu()?;
        connection.exchange(up, down, self.record).await?;
        let spent = self.cpu()? - before;
        connection.close().await?;
        Ok(spent.as_secs_f64() * (1_u64 << 30) as f64 / bytes as f64)
    }

    /// CPU microseconds per request over kept connections, each with `requests` of them; without
    /// `pace` each connection asks as soon as it's answered, with it so many a second in all.
    async fn kept(&self, requests: u64, pace: Option<u64>) -> Result<f64> {
        let mut connections = Vec::new();
        for _ in 0..KEPT {
            connections.push(self.answered().await?);
        }
        settled_cpu(self.process.group()).await?;
        let before = self.cpu()?;
        let mut running = JoinSet::new();
        let record = self.record;
        for (nth, mut connection) in connections.into_iter().enumerate() {
            // Spread evenly, none at the same time as another.
            let step = pace.map(|pace| Duration::from_secs(1) / u32::try_from(pace).unwrap_or(1));
            let ticks = step.map(|step| {
                let first = tokio::time::Instant::now() + step * u32::try_from(nth).unwrap_or(0);
                interval_at(first, step * u32::try_from(KEPT).unwrap_or(1))
            });
            running.spawn(async move {
                let mut ticks = ticks;
                for _ in 0..requests {
                    if let Some(ticks) = &mut ticks {
                        ticks.tick().await;
                    }
                    connection.exchange(REQUEST, ANSWER, record).await?;
                }
                anyhow::Ok(connection)
            });
        }
        let mut kept = Vec::new();
        while let Some(ended) = running.join_next().await {
            kept.push(ended??);
        }
        let spent = self.cpu()? - before;
        Ok(spent.as_secs_f64() * 1e6 / (requests * KEPT) as f64)
    }

    /// KiB of memory of each idle connection.
    async fn idle(&self, count: u64, settling: Duration) -> Result<f64> {
        let group = self.process.group();
        let before = memory(group)?;
        let mut idle = Vec::new();
        for _ in 0..count {
            idle.push(self.answered().await?);
        }
        settled_cpu(group).await?;
        sleep(settling).await;
        let after = memory(group)?;
        // They are all still served.
        for connection in &mut idle {
            connection.exchange(REQUEST, ANSWER, self.record).await.context("after being idle")?;
        }
        Ok(after.saturating_sub(before) as f64 / count as f64)
    }

    /// KiB by which memory has grown since the first pause, when all buffers are full, at most.
    async fn slow_reader(&self, bytes: u64, pauses: u64) -> Result<f64> {
        let group = self.process.group();
        let mut connection = self.answered().await?;
        connection.request(16, bytes, self.record).await?;
        let mut full = None;
        let mut most = 0;
        for nth in 0..pauses {
            sleep(Duration::from_millis(if nth == 0 { 600 } else { 300 })).await;
            let now = heap(group)?;
            most = most.max(now);
            full.get_or_insert(now);
            connection.receive(bytes / pauses * nth, bytes / pauses).await?;
        }
        connection.close().await?;
        Ok((most - full.context("no pause")?) as f64)
    }

    /// Milliseconds from `connect` to the first byte, median and 99th percentile.
    async fn first_bytes(&self, count: u64, at_once: u64) -> Result<Vec<f64>> {
        let mut running = JoinSet::new();
        for _ in 0..at_once {
            let (client, record) = (self.client.clone(), self.record);
            running.spawn(async move {
                let mut times = Vec::new();
                for _ in 0..count.div_ceil(at_once) {
                    let began = Instant::now();
                    let mut connection = client.connect().await?;
                    connection.exchange(REQUEST, 1, record).await?;
                    times.push(began.elapsed().as_secs_f64() * 1e3);
                    connection.close().await?;
                }
                anyhow::Ok(times)
            });
        }
        let mut times = Vec::new();
        while let Some(ended) = running.join_next().await {
            times.extend(ended??);
        }
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        Ok(vec![at(50), at(99)])
    }
}
