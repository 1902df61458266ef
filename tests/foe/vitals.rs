//! What a process takes of the machine, read from /proc.

use std::fs;
use std::time::Duration;

/// A process's descriptors, threads, memory and processor time at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    pub descriptors: usize,
    pub threads: usize,
    /// Resident memory, in bytes, and the most that it ever was.
    pub memory: usize,
    pub most_memory: usize,
    /// Processor time so far, in user and kernel mode together.
    pub busy: Duration,
}

impl Vitals {
    /// Of a process that lives.
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("a living process");
        let status = read("status");
        let field = |name: &str| -> usize {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of the status");
            line.split_whitespace().next().expect("a value").parse().expect("a number")
        };
        let stat = read("stat");
        // The name in parentheses may hold anything; utime and stime are fields 14 and 15 (proc(5)).
        let (_, after) = stat.rsplit_once(')').expect("a name in parentheses");
        let ticks = |index: usize| -> u64 {
            after.split_whitespace().nth(index - 3).expect("a field").parse().expect("a number")
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("a living process").count();
        // USER_HZ is 100 on every Linux that the bridge is for.
        let busy = Duration::from_millis(10 * (ticks(14) + ticks(15)));
        let kibibytes = 1 << 10;
        Self {
            descriptors,
            threads: field("Threads:"),
            memory: field("VmRSS:") * kibibytes,
            most_memory: field("VmHWM:") * kibibytes,
            busy,
        }
    }
}
