//! The units of forwarders, through systemctl: start, stop, state, and the drop-in for low ports.
//!
//! Each function says for itself whether it needs a running systemd ([`running`]) and root.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Call, Error, complaint, file_error, require_root, write_whole};
use crate::config::Name;

/// Whether systemd runs this machine; it does not in most containers and in a chroot.
pub fn running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The unit of a forwarder.
pub fn unit_of(name: &Name) -> String {
    format!("{TEMPLATE}@{name}.service")
}

/// Whether the template of the units is on this machine, by a package or by `install`.
pub fn installed() -> bool {
    FOLDERS.iter().any(|folder| Path::new(folder).join(format!("{TEMPLATE}@.service")).exists())
}

/// Whether a service runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Ready and serving.
    Running,
    /// Not ready yet, or waiting to be started again after it failed.
    Starting,
    /// Draining its connections.
    Stopping,
    /// Not started, or stopped by the admin.
    Stopped,
    /// Ended by itself, and systemd won't start it again.
    Failed,
}

impl State {
    /// The word that `list` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Starting => "starting",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
            State::Failed => "failed",
        }
    }

    fn of(active_state: &str) -> Self {
        match active_state {
            "active" | "reloading" => State::Running,
            "activating" => State::Starting,
            "deactivating" => State::Stopping,
            "failed" => State::Failed,
            _ => State::Stopped,
        }
    }
}

/// What systemd knows about a forwarder's service.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether it runs.
    pub state: State,
    /// Whether it starts at boot.
    pub enabled: bool,
    /// Its main process, while there is one.
    pub pid: Option<u32>,
    /// Since when it is in this state, as systemd writes it (local time).
    pub since: Option<String>,
    /// What it last said of itself, see [`super::notify::status`].
    pub text: Option<String>,
}

/// What systemd knows about the service of `name`; of an unknown one that it is stopped.
///
/// Needs a running systemd, not root.
///
/// # Errors
/// [`Error::Command`] if systemctl can't be run or systemd doesn't answer.
pub fn status(name: &Name) -> Result<Status, Error> {
    let shown = show(&unit_of(name), "ActiveState,StateChangeTimestamp,UnitFileState,MainPID,StatusText")?;
    Ok(Status {
        state: State::of(shown.get("ActiveState").unwrap_or_default()),
        enabled: shown.get("UnitFileState") == Some("enabled"),
        pid: shown.get("MainPID").and_then(|pid| pid.parse().ok()).filter(|&pid| pid != 0),
        since: shown.get("StateChangeTimestamp").map(str::to_owned),
        text: shown.get("StatusText").map(str::to_owned),
    })
}

/// Starts the service of `name` now and at each boot; returns when it is ready.
///
/// Needs a running systemd and root. The wait is bounded by the unit's `TimeoutStartSec=`.
///
/// # Errors
/// [`Error::Start`] with what the service said, if it doesn't get ready; it is then stopped and
/// doesn't start at boot. [`Error::Command`] if systemctl can't be run, [`Error::NotRoot`].
pub fn start(name: &Name) -> Result<(), Error> {
    require_root("start a service")?;
    let unit = unit_of(name);
    let result = systemctl(&["enable", &unit]).and_then(|()| start_and_wait("start", &unit));
    if result.is_err() {
        // The first failure is what the admin has to know; a second one here says nothing new.
        let _ = stop(name);
    }
    result
}

/// Restarts the service of `name`; returns when it is ready again.
///
/// Needs a running systemd and root. Open connections are drained first.
///
/// # Errors
/// [`Error::Start`] with what the service said, if it doesn't get ready; systemd may go on trying.
/// [`Error::Command`] if systemctl can't be run, [`Error::NotRoot`].
pub fn restart(name: &Name) -> Result<(), Error> {
    require_root("restart a service")?;
    start_and_wait("restart", &unit_of(name))
}

/// Stops the service of `name`, now and for later boots; fine if it never ran.
///
/// Needs a running systemd and root. Open connections are drained first.
///
/// # Errors
/// [`Error::Command`] if systemctl fails, [`Error::NotRoot`].
pub fn stop(name: &Name) -> Result<(), Error> {
    require_root("stop a service")?;
    let unit = unit_of(name);
    systemctl(&["disable", &unit])?;
    systemctl(&["stop", &unit])?;
    // A failed unit would stay in systemd's list. One that it never loaded is an error here; fine.
    let _ = systemctl(&["reset-failed", &unit]);
    Ok(())
}

/// The forwarders whose services run.
///
/// Needs a running systemd, not root.
///
/// # Errors
/// [`Error::Command`] if systemctl fails.
pub fn running_names() -> Result<Vec<Name>, Error> {
    list_units(&["--state=active,reloading"])
}

/// The forwarders whose services systemd knows: they run, have failed, or would start at boot.
///
/// Needs a running systemd, not root.
///
/// # Errors
/// [`Error::Command`] if systemctl fails.
pub fn known_names() -> Result<Vec<Name>, Error> {
    let mut names = list_units(&["--all"])?;
    let links = fs::read_dir(Path::new(ADMIN_UNITS).join("multi-user.target.wants")).into_iter().flatten().flatten();
    let enabled: Vec<String> = links.map(|link| link.file_name().to_string_lossy().into_owned()).collect();
    names.extend(names_in(&enabled.join("\n")));
    names.sort();
    names.dedup();
    Ok(names)
}

/// Makes systemd read its unit files again.
///
/// Needs a running systemd and root.
///
/// # Errors
/// [`Error::Command`] if systemctl fails.
pub fn daemon_reload() -> Result<(), Error> {
    systemctl(&["daemon-reload"])
}

/// Whether a port takes a capability that services don't have by default.
pub fn is_low_port(port: u16) -> bool {
    (1..1024).contains(&port)
}

/// Where the drop-in lies that lets the service of `name` bind a port below 1024.
pub fn low_port_file(name: &Name) -> PathBuf {
    drop_ins(name).join("low-port.conf")
}

/// Lets the service of `name` bind a port below 1024, and nothing else: one capability, in a drop-in.
///
/// Needs root. Takes effect at the service's next start.
///
/// # Errors
/// [`Error::File`] if the drop-in can't be written, [`Error::Command`] if systemd can't be told,
/// [`Error::NotRoot`].
pub fn allow_low_port(name: &Name) -> Result<(), Error> {
    require_root("write a unit's drop-in")?;
    let folder = drop_ins(name);
    let existed = folder.exists();
    fs::create_dir_all(&folder).map_err(file_error(&folder, "create"))?;
    let text = LOW_PORT.replace("NAME", name.as_str());
    let written = write_whole(&low_port_file(name), text.as_bytes(), 0o644);
    if written.is_err() && !existed {
        let _ = fs::remove_dir(&folder);
    }
    written?;
    reload_if_running()
}

/// Takes [`allow_low_port`] back; says whether there was anything to take back.
///
/// # Errors
/// As there.
pub fn forget_low_port(name: &Name) -> Result<bool, Error> {
    let file = low_port_file(name);
    if !file.exists() {
        return Ok(false);
    }
    require_root("remove a unit's drop-in")?;
    fs::remove_file(&file).map_err(file_error(&file, "remove"))?;
    // The admin's own drop-ins stay, and so does the folder then.
    let _ = fs::remove_dir(drop_ins(name));
    reload_if_running()?;
    Ok(true)
}

fn drop_ins(name: &Name) -> PathBuf {
    Path::new(ADMIN_UNITS).join(format!("{}.d", unit_of(name)))
}

fn reload_if_running() -> Result<(), Error> {
    if running() { daemon_reload() } else { Ok(()) }
}

fn list_units(which: &[&str]) -> Result<Vec<Name>, Error> {
    let pattern = format!("{TEMPLATE}@*.service");
    let arguments = [&["list-units", "--plain", "--no-legend", "--full"], which, &[&pattern]].concat();
    Ok(names_in(&Call::new("systemctl", &arguments).run()?))
}

/// Calls systemctl for what it does rather than says.
pub(super) fn systemctl(arguments: &[&str]) -> Result<(), Error> {
    Call::new("systemctl", arguments).run().map(drop)
}

/// `start` or `restart`: both return when the service is ready or has failed to get so.
fn start_and_wait(verb: &str, unit: &str) -> Result<(), Error> {
    let begun = SystemTime::now();
    let _ = systemctl(&["reset-failed", unit]);
    let output = Call::new("systemctl", &[verb, unit]).output()?;
    if output.status.success() {
        return Ok(());
    }
    let cause = last_words(unit, begun).unwrap_or_else(|| complaint(&output));
    Err(Error::Start { unit: unit.to_owned(), cause })
}

/// What a service that failed said before it ended, or else what systemd says about its end.
fn last_words(unit: &str, begun: SystemTime) -> Option<String> {
    let since = begun.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let pid = show(unit, "ExecMainPID").ok().and_then(|shown| shown.get("ExecMainPID").map(str::to_owned));
    // A line may still be on its way into the journal.
    let _ = Call::new("journalctl", &["--sync"]).run();
    let of_the_process =
        pid.and_then(|pid| journal(since, &[&format!("_SYSTEMD_UNIT={unit}"), &format!("_PID={pid}")]));
    of_the_process.or_else(|| journal(since, &[&format!("UNIT={unit}")]))
}

/// The last lines of the journal that match, nothing if there are none.
fn journal(since: u64, matches: &[&str]) -> Option<String> {
    let since = format!("--since=@{since}");
    let mut arguments = vec!["--quiet", "--no-pager", "--output=cat", "--lines=5", &since];
    arguments.extend(matches);
    Call::new("journalctl", &arguments).run().ok().filter(|text| !text.is_empty())
}

/// What `systemctl show` answers, one `Key=value` a line.
struct Shown(String);

fn show(unit: &str, properties: &str) -> Result<Shown, Error> {
    Call::new("systemctl", &["show", "--property", properties, unit]).run().map(Shown)
}

impl Shown {
    /// A property's value; none if it is empty, which is how systemd says "unset".
    fn get(&self, key: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).filter(|value| !value.is_empty())
    }
}

/// The forwarders' names in a list of units, one unit first on each line.
fn names_in(list: &str) -> Vec<Name> {
    let units = list.lines().filter_map(|line| line.split_whitespace().next());
    let names = units.filter_map(|unit| unit.strip_prefix(TEMPLATE)?.strip_prefix('@')?.strip_suffix(".service"));
    names.filter_map(|name| name.parse().ok()).collect()
}

/// The name of the template, without `@` and kind.
const TEMPLATE: &str = "ewsbridge";

/// Where the admin's units and drop-ins lie.
const ADMIN_UNITS: &str = "/etc/systemd/system";

/// Where systemd looks for system units, as far as a template of ours can lie there.
const FOLDERS: [&str; 4] =
    [ADMIN_UNITS, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

const LOW_PORT: &str = "\
# Written by ewsbridge: NAME listens on a port below 1024.
[Service]
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
AmbientCapabilities=CAP_NET_BIND_SERVICE
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_found_by_their_whole_name_and_empty_ones_are_unset() {
        let shown = Shown("MainPID=12\nStatusText=target ok; a=b\nSubState=\nActiveState=active".into());
        assert_eq!(shown.get("MainPID"), Some("12"));
        assert_eq!(shown.get("StatusText"), Some("target ok; a=b"));
        assert_eq!(shown.get("SubState"), None);
        assert_eq!(shown.get("Status"), None);
    }

    #[test]
    fn names_come_from_units_of_the_template_only() {
        let list = "ewsbridge@exch1.service loaded active running ewsbridge forwarder exch1\n\
                    ewsbridge@a-b.c_d.service loaded activating auto-restart x\n\
                    ewsbridge-renew.service loaded active x\n";
        let names: Vec<String> = names_in(list).iter().map(Name::to_string).collect();
        assert_eq!(names, ["exch1", "a-b.c_d"]);
    }

    #[test]
    fn ports_below_1024_are_low_and_any_free_port_is_not() {
        assert!(is_low_port(1) && is_low_port(443) && is_low_port(1023));
        assert!(!is_low_port(0) && !is_low_port(1024));
    }

    #[test]
    fn drop_in_lies_where_systemd_looks_for_it() {
        let name = "exch1".parse().expect("a name");
        let expected = "/etc/systemd/system/ewsbridge@exch1.service.d/low-port.conf";
        assert_eq!(low_port_file(&name), Path::new(expected));
    }
}
