//! What the figures depend on: the machine and the versions. No date, no name of the host.

use std::fs;

use anyhow::{Context, Result};

use crate::checks::Ability;
use crate::peers::Peer;

/// As a list, Markdown.
///
/// # Errors
/// If the system does not tell them.
pub(crate) fn facts(peers: &[(Peer, Ability)], rounds: usize) -> Result<String> {
    let processor = fs::read_to_string("/proc/cpuinfo")?;
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")).context("model name")?;
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    // Without what its builder added.
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    let mut text = format!("- {model}, {cores} cores, Linux {kernel}; {rounds} rounds\n");
    for (peer, ability) in peers {
        text += &format!("- {}; {}\n", peer.version()?, ability.text());
    }
    Ok(text)
}
