//! Who can reach a port, and how to open it where a firewall is in the way.

use std::process::{Command, Stdio};

use crate::config::values::Listen;

/// Who reaches the listener, in words.
pub(super) fn who_reaches(listen: Listen) -> String {
    match listen {
        Listen::At(address) if address.ip().is_loopback() => "this machine only, not its containers".to_owned(),
        Listen::At(address) if !address.ip().is_unspecified() => {
            format!("whoever reaches {} through this machine's firewall", address.ip())
        }
        _ => {
            format!("this machine, its containers, and every host that its firewall lets reach port {}", listen.port())
        }
    }
}

/// The command that opens the port, if a firewall that is known here blocks it.
pub(super) fn open_port(listen: Listen) -> Option<String> {
    let port = listen.port();
    if matches!(listen, Listen::At(address) if address.ip().is_loopback()) {
        return None;
    }
    if says("firewall-cmd", &["--state"]).is_some_and(|(running, _)| running) {
        let (open, _) = says("firewall-cmd", &["--query-port", &format!("{port}/tcp")])?;
        let command = format!("firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --reload");
        return (!open).then(|| format!("firewalld blocks {port}: {command}"));
    }
    let (_, rules) = says("ufw", &["status"]).filter(|(_, text)| text.contains("Status: active"))?;
    let open = rules.lines().any(|line| line.starts_with(&format!("{port}/tcp")) && line.contains("ALLOW"));
    (!open).then(|| format!("ufw blocks {port}: ufw allow {port}/tcp"))
}

/// Whether a command succeeds, and what it says; `None` if there is none.
fn says(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).env("LC_ALL", "C").output().ok()?;
    Some((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}
