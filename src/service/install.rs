//! Getting onto a machine without a package, under `/usr/local`, and off it again.
//!
//! Invariants: an `install` that fails leaves the machine as it was; one that is repeated changes
//! nothing, or upgrades what is older. Forwarders and their certificates are never touched, except
//! that their files become readable for the service.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::rollback::{Rollback, Undo};
use super::{Call, Error, account, file_error, group_of_service, require_root, units};
use crate::config::Places;
use crate::config::places::{CONFIG_DIR, STATE_DIR};

/// Where `install` puts the binary.
pub const BINARY: &str = "/usr/local/bin/ewsbridge";
/// Where `install` puts the units; systemd looks there before it looks at a package's.
pub const UNITS: &str = "/usr/local/lib/systemd/system";

/// One thing that was done, or that was found done.
#[derive(Clone, Debug)]
pub struct Step {
    /// What, as a sentence without full stop.
    pub text: String,
    /// Whether it changed anything.
    pub changed: bool,
}

/// How an installation went.
#[derive(Clone, Copy, Debug)]
pub struct Installed {
    /// Whether anything was not as it should be before.
    pub changed: bool,
    /// Whether systemd runs here and knows the units. Without it a forwarder is served in the
    /// foreground: `ewsbridge run NAME`.
    pub systemd: bool,
}

/// Who is told of each step as it is done.
pub type Tell<'a> = dyn FnMut(Step) + 'a;

/// Installs this very binary, the service's account, its folders and units, or upgrades them.
///
/// Running forwarders are restarted, after a drain, if the binary or the units changed.
///
/// # Errors
/// [`Error::NotRoot`]; [`Error::Packaged`] if a package brought `/usr/bin/ewsbridge`; otherwise what
/// could not be done, all of which was taken back.
pub fn install(tell: &mut Tell<'_>) -> Result<Installed, Error> {
    require_root("install")?;
    refuse_beside_a_package()?;
    let mut job = Job { rollback: Rollback::default(), changed: false, tell };
    match job.install() {
        Ok(()) => Ok(Installed { changed: job.changed, systemd: units::running() }),
        Err(error) => {
            job.rollback.take_back();
            Err(error)
        }
    }
}

/// Removes what [`install`] put in place; with `purge` settings, certificates and account as well.
///
/// Says whether there was anything to remove.
///
/// # Errors
/// [`Error::NotRoot`]; [`Error::ForwardersExist`] before anything was touched; [`Error::Packaged`] if
/// a package brought the binary and so has to remove it; otherwise what could not be removed, with
/// the rest still there: repeat it.
pub fn uninstall(purge: bool, tell: &mut Tell<'_>) -> Result<bool, Error> {
    require_root("uninstall")?;
    refuse_beside_a_package()?;
    let left = forwarders()?;
    if !left.is_empty() {
        return Err(Error::ForwardersExist(left));
    }
    let mut job = Job { rollback: Rollback::default(), changed: false, tell };
    if units::running() {
        job.stop_services()?;
    }
    job.remove_files()?;
    if purge {
        job.purge()?;
    }
    Ok(job.changed)
}

/// An installation or its opposite under way.
struct Job<'a, 'b> {
    rollback: Rollback,
    changed: bool,
    tell: &'a mut Tell<'b>,
}

impl Job<'_, '_> {
    fn install(&mut self) -> Result<(), Error> {
        self.make_account()?;
        self.make_folders()?;
        let mut newer = self.write_binary()?;
        if units::running() {
            newer |= self.write_units()?;
            self.enable_timer()?;
            if newer {
                self.restart_services()?;
            }
        }
        Ok(())
    }

    fn done(&mut self, changed: bool, text: String) {
        self.changed |= changed;
        (self.tell)(Step { text, changed });
    }

    fn make_account(&mut self) -> Result<(), Error> {
        let made = account::make(&mut self.rollback)?;
        self.done(made, format!("system user and group ewsbridge {}", if made { "created" } else { "exist" }));
        Ok(())
    }

    fn make_folders(&mut self) -> Result<(), Error> {
        let gid = group_of_service().map_or(0, |gid| gid.as_raw());
        let mut changed = false;
        for folder in [Path::new(CONFIG_DIR), &system().forwarders(), Path::new(STATE_DIR)] {
            changed |= self.rollback.make_folder(folder)?;
            changed |= self.rollback.give(folder, gid, Some(0o750))?;
        }
        for path in made_before_the_group()? {
            changed |= self.rollback.give(&path, gid, None)?;
        }
        self.done(changed, format!("{CONFIG_DIR} and {STATE_DIR} readable for root and the service alone"));
        Ok(())
    }

    fn write_binary(&mut self) -> Result<bool, Error> {
        // Not current_exe(): this one is readable even after the file was replaced or removed.
        let own = Path::new("/proc/self/exe");
        let content = fs::read(own).map_err(file_error(own, "read"))?;
        let path = Path::new(BINARY);
        self.make_parent(path)?;
        let changed = self.rollback.write(path, &content, 0o755)?;
        self.done(changed, format!("{BINARY} {}", if changed { "written" } else { "is this version" }));
        Ok(changed)
    }

    fn write_units(&mut self) -> Result<bool, Error> {
        self.rollback.on_failure(Undo::Reload);
        let mut changed = false;
        for (file, text) in UNIT_FILES {
            let path = Path::new(UNITS).join(file);
            self.make_parent(&path)?;
            changed |= self.rollback.write(&path, for_our_binary(text).as_bytes(), 0o644)?;
        }
        if changed {
            units::daemon_reload()?;
        }
        self.done(changed, format!("units in {UNITS} {}", if changed { "written" } else { "are this version's" }));
        Ok(changed)
    }

    fn make_parent(&mut self, path: &Path) -> Result<(), Error> {
        path.parent().map_or(Ok(false), |folder| self.rollback.make_folder(folder)).map(drop)
    }

    fn enable_timer(&mut self) -> Result<(), Error> {
        let enabled = timer_is("is-enabled") && timer_is("is-active");
        if !enabled {
            self.rollback.on_failure(Undo::DisableTimer);
            units::systemctl(&["enable", RENEW_TIMER])?;
            units::systemctl(&["start", RENEW_TIMER])?;
        }
        self.done(!enabled, format!("{RENEW_TIMER} enabled: certificates are renewed in time"));
        Ok(())
    }

    /// Restarts what serves. What doesn't yet, systemd starts again and again, with the new binary.
    fn restart_services(&mut self) -> Result<(), Error> {
        for name in units::running_names()? {
            self.rollback.on_failure(Undo::Restart(name.clone()));
            units::restart(&name)?;
            self.done(true, format!("{} restarted", units::unit_of(&name)));
        }
        Ok(())
    }

    /// Stops what runs: the timer, and services whose settings were deleted by hand.
    fn stop_services(&mut self) -> Result<(), Error> {
        for name in units::known_names()? {
            units::stop(&name)?;
            self.done(true, format!("{} stopped", units::unit_of(&name)));
        }
        if Path::new(UNITS).join(RENEW_TIMER).exists() {
            units::systemctl(&["disable", RENEW_TIMER])?;
            units::systemctl(&["stop", RENEW_TIMER, RENEW_SERVICE])?;
            self.done(true, format!("{RENEW_TIMER} stopped"));
        }
        self.remove(Path::new(TIMER_STAMP)).map(drop)
    }

    fn remove_files(&mut self) -> Result<(), Error> {
        let mut removed = false;
        for (file, _) in UNIT_FILES {
            removed |= self.remove(&Path::new(UNITS).join(file))?;
        }
        if removed {
            // As far as they are empty; a package brings neither.
            let _ = fs::remove_dir(UNITS).and_then(|()| fs::remove_dir("/usr/local/lib/systemd"));
            if units::running() {
                units::daemon_reload()?;
            }
            self.done(true, format!("units in {UNITS} removed"));
        }
        if self.remove(Path::new(BINARY))? {
            self.done(true, format!("{BINARY} removed"));
        }
        Ok(())
    }

    fn purge(&mut self) -> Result<(), Error> {
        for folder in [CONFIG_DIR, STATE_DIR] {
            match fs::remove_dir_all(folder) {
                Ok(()) => self.done(true, format!("{folder} removed")),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(file_error(Path::new(folder), "remove")(cause)),
            }
        }
        if account::remove()? {
            self.done(true, "system user and group ewsbridge removed".into());
        }
        Ok(())
    }

    fn remove(&mut self, file: &Path) -> Result<bool, Error> {
        match fs::remove_file(file) {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(file_error(file, "remove")(cause)),
        }
    }
}

/// Fails if the binary where packages put it belongs to one.
fn refuse_beside_a_package() -> Result<(), Error> {
    if !Path::new(PACKAGED).exists() {
        return Ok(());
    }
    let owners = [Call::new("dpkg-query", &["--search", PACKAGED]), Call::new("rpm", &["--query", "--file", PACKAGED])];
    // Either command is missing or fails on a system of the other kind.
    match owners.into_iter().find_map(|call| call.run().ok()) {
        Some(answer) => Err(Error::Packaged { path: PACKAGED.into(), package: package_in(&answer) }),
        None => Ok(()),
    }
}

/// The package in dpkg's `ewsbridge: /usr/bin/ewsbridge` or rpm's `ewsbridge-1.0-1.x86_64`.
fn package_in(answer: &str) -> String {
    let line = answer.lines().next().unwrap_or_default();
    line.split(": ").next().unwrap_or(line).to_owned()
}

/// The names of the forwarders that have settings.
fn forwarders() -> Result<Vec<String>, Error> {
    let files = entries(&system().forwarders())?;
    let settings = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut names: Vec<String> =
        settings.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(names)
}

/// What the service has to read, and can't if it was made while its group did not exist.
fn made_before_the_group() -> Result<Vec<PathBuf>, Error> {
    let mut paths = entries(&system().forwarders())?;
    for kind in ["identity", "credential"].map(|kind| system().state.join(kind)) {
        if !kind.exists() {
            continue;
        }
        for pair in entries(&kind)? {
            paths.extend(if pair.is_dir() { entries(&pair)? } else { Vec::new() });
            paths.push(pair);
        }
        paths.push(kind);
    }
    Ok(paths)
}

/// What is in a folder; nothing if it doesn't exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(folder) {
        Ok(found) => found.map(|entry| Ok(entry.map_err(file_error(folder, "read"))?.path())).collect(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(file_error(folder, "read")(cause)),
    }
}

fn timer_is(question: &str) -> bool {
    units::systemctl(&[question, "--quiet", RENEW_TIMER]).is_ok()
}

/// A unit's text with the place of our binary instead of a package's.
fn for_our_binary(text: &str) -> String {
    text.replace(&format!("={PACKAGED} "), &format!("={BINARY} "))
}

fn system() -> Places {
    Places { config: CONFIG_DIR.into(), state: STATE_DIR.into() }
}

/// Where a package puts the binary, and what the units in `deploy/` name.
const PACKAGED: &str = "/usr/bin/ewsbridge";

const RENEW_SERVICE: &str = "ewsbridge-renew.service";
pub(super) const RENEW_TIMER: &str = "ewsbridge-renew.timer";
/// Where systemd remembers when the timer last went off; nobody else would remove it.
pub(super) const TIMER_STAMP: &str = "/var/lib/systemd/timers/stamp-ewsbridge-renew.timer";

const UNIT_FILES: [(&str, &str); 4] = [
    ("ewsbridge@.service", include_str!("../../deploy/systemd/ewsbridge@.service")),
    ("ewsbridge.target", include_str!("../../deploy/systemd/ewsbridge.target")),
    (RENEW_SERVICE, include_str!("../../deploy/systemd/ewsbridge-renew.service")),
    (RENEW_TIMER, include_str!("../../deploy/systemd/ewsbridge-renew.timer")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_units_start_the_installed_binary() {
        for (file, text) in UNIT_FILES.iter().filter(|(file, _)| file.ends_with(".service")) {
            let ours = for_our_binary(text);
            assert!(ours.contains("\nExecStart=/usr/local/bin/ewsbridge "), "{file}");
            assert!(!ours.contains(PACKAGED), "{file}");
        }
    }

    #[test]
    fn no_unit_needs_an_option_that_systemd_219_lacks_to_keep_the_service_from_root() {
        let text = UNIT_FILES[0].1;
        assert!(text.contains("\nUser=ewsbridge\n") && !text.contains("DynamicUser=yes"));
        // An allow-list with a group that an old systemd doesn't know would deny nearly everything.
        assert!(text.lines().filter(|line| line.starts_with("SystemCallFilter=")).all(|line| line.contains("=~")));
    }

    #[test]
    fn a_package_is_named_as_dpkg_and_as_rpm_say_it() {
        assert_eq!(package_in("ewsbridge: /usr/bin/ewsbridge"), "ewsbridge");
        assert_eq!(package_in("ewsbridge-1.0-1.x86_64"), "ewsbridge-1.0-1.x86_64");
    }
}
