//! The port that a forwarder listens on: free, bound, or who holds it, as far as this user may see.

use std::fs;
use std::path::Path;

use super::failed::Failed;
use crate::bridge::listener;
use crate::config::values::Listen;
use crate::config::{Name, Places, store};

/// Binds, or says who has the port.
///
/// # Errors
/// The system's, with the cure.
pub(super) fn bind(name: &str, listen: Listen) -> Result<std::net::TcpListener, Failed> {
    listener::bind(listen).map_err(|(address, error)| {
        let cause = crate::words::of(&error);
        let failed = Failed::new(format!("{name}: listen on {address}: {cause}"));
        match error.kind() {
            std::io::ErrorKind::PermissionDenied if address.port() < 1024 => {
                failed.hint("use a port above 1023, or the packaged unit: 'ewsbridge add' lets it bind low ports")
            }
            std::io::ErrorKind::AddrInUse => failed.maybe_hint(holder(address.port())),
            std::io::ErrorKind::AddrNotAvailable => failed.hint("this machine has no such address; see: ip address"),
            _ => failed,
        }
    })
}

/// Two forwarders can't have one port, whether or not the other runs now.
pub(super) fn refuse_taken_port(places: &Places, name: &Name, listen: Listen) -> Result<(), Failed> {
    for other in store::names(places)?.into_iter().filter(|other| other != name) {
        let Ok(settings) = store::load(places, &other) else { continue };
        let overlap = match (settings.listen, listen) {
            (Listen::At(theirs), Listen::At(ours)) if !theirs.ip().is_unspecified() && !ours.ip().is_unspecified() => {
                theirs == ours
            }
            (theirs, ours) => theirs.port() == ours.port(),
        };
        if overlap && listen.port() != 0 {
            let taken = format!("{name}: port {} belongs to forwarder '{other}' ({})", listen.port(), settings.listen);
            return Err(Failed::new(taken).hint("choose another port"));
        }
    }
    Ok(())
}

/// A sentence naming the process that listens on a TCP port; `None` if it can't be seen.
fn holder(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| listener_inode(table, port))?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let holds = |folder: &Path| {
            fs::read_dir(folder.join("fd")).is_ok_and(|fds| {
                fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(&wanted)))
            })
        };
        let path = process.path();
        if process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) && holds(&path) {
            let command = fs::read_to_string(path.join("comm")).unwrap_or_default();
            return Some(format!("port {port} is held by {} (PID {})", command.trim(), process.file_name().display()));
        }
    }
    Some(format!("port {port} is held by a process that this user can't see: ss -ltnp sport = :{port}, as root"))
}

/// The inode of the socket that listens on the port (proc_net_tcp.rst: state 0A is LISTEN).
fn listener_inode(table: &str, port: u16) -> Option<String> {
    let text = fs::read_to_string(table).ok()?;
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(3) == Some(&"0A") && fields.get(1)?.ends_with(&format!(":{port:04X}"));
        listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })
}
