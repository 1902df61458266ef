//! What a process group costs: CPU time and memory, read from the kernel while it runs.
//!
//! CPU time is that of all processes of the group, threads that have ended and children already
//! reaped included (socat makes a process for each connection). What runs in the harness itself, the
//! clients and the target, is in another group and not counted.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::{SysconfVar, sysconf};

/// A process of a group.
struct Member {
    pid: u32,
    /// CPU time of its children that are reaped, and of theirs; whole ticks of 10 ms.
    reaped: Duration,
}

/// The CPU time that the group has used since it began.
///
/// The kernel counts living processes to the nanosecond, reaped ones to its tick of 10 ms in all.
///
/// # Errors
/// If the group has no process any more.
pub(crate) fn cpu(group: u32) -> Result<Duration> {
    for _ in 0..10 {
        let members = members(group)?;
        let own: Option<Vec<Duration>> = members.iter().map(|member| process_time(member.pid)).collect();
        // One has ended between the two looks: its time is now its parent's, so look again.
        let Some(own) = own else { continue };
        return Ok(own.into_iter().chain(members.iter().map(|member| member.reaped)).sum());
    }
    bail!("the processes of group {group} end faster than they can be read")
}

/// The same once it has stood still for 50 ms: all that the work caused is done. Waits 3 s at most.
///
/// # Errors
/// As [`cpu`].
pub(crate) async fn settled_cpu(group: u32) -> Result<Duration> {
    let began = Instant::now();
    let mut last = (members(group)?.len(), cpu(group)?);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = (members(group)?.len(), cpu(group)?);
        if now.0 == last.0 && now.1 - last.1 < Duration::from_micros(500) || began.elapsed() > Duration::from_secs(3) {
            return Ok(now.1);
        }
        last = now;
    }
}

/// The group's memory in KiB: its pages, those shared between processes counted once (PSS).
///
/// Memory of the kernel, such as socket buffers, is not in it.
///
/// # Errors
/// If the group has no process any more, or its pages may not be read.
pub(crate) fn memory(group: u32) -> Result<u64> {
    pages(group, "Pss:")
}

/// The same without files' pages, whose share changes with whoever else has them mapped.
///
/// # Errors
/// As [`memory`].
pub(crate) fn heap(group: u32) -> Result<u64> {
    pages(group, "Pss_Anon:")
}

fn pages(group: u32, what: &str) -> Result<u64> {
    let mut kib = 0;
    for member in members(group)? {
        let path = format!("/proc/{}/smaps_rollup", member.pid);
        // Gone since, or a zombie: has no pages.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let Some(figure) = text.lines().find_map(|line| line.strip_prefix(what)) else { continue };
        kib += figure.trim().trim_end_matches(" kB").parse::<u64>().with_context(|| format!("{path}: {what}"))?;
    }
    if kib == 0 {
        bail!("the memory of group {group} can't be read");
    }
    Ok(kib)
}

/// CPU time of the calling thread.
pub(crate) fn own_thread_time() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID).expect("a thread has its own clock")
}

fn members(group: u32) -> Result<Vec<Member>> {
    let tick = sysconf(SysconfVar::CLK_TCK)?.context("clock tick")?;
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name before it may hold spaces and parentheses.
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = fields.split(' ').collect();
        if fields[2].parse() != Ok(group) {
            continue;
        }
        let ticks = fields[13].parse::<u64>()? + fields[14].parse::<u64>()?;
        let reaped = Duration::from_nanos(ticks * (1_000_000_000 / u64::try_from(tick)?));
        members.push(Member { pid, reaped });
    }
    if members.is_empty() {
        bail!("group {group} has no process any more");
    }
    Ok(members)
}

/// CPU time of a process and all threads that it had, or nothing if it is no more.
fn process_time(pid: u32) -> Option<Duration> {
    let mut id = 0;
    // SAFETY: `id` outlives the call, which writes nothing else.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::clock_getcpuclockid(libc::pid_t::try_from(pid).ok()?, &raw mut id) };
    if answer == 0 { clock(id) } else { None }
}

fn clock(id: libc::clockid_t) -> Option<Duration> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` outlives the call, which writes nothing else.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::clock_gettime(id, &raw mut now) };
    (answer == 0).then(|| Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0)))
}
