//! The package's life in a real systemd: installed, used, killed, upgraded under load, removed, installed
//! again, purged. Takes the packages that `deploy/package/build` makes.

use std::path::{Path, PathBuf};

use super::restarts::{CLIENTS, Load};
use super::{SETTINGS, UNIT, World, units_are_clean};

/// The package in `target/package`, or in `EWSBRIDGE_PACKAGES`; `later`: the same under a later version.
fn deb(later: bool) -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/package");
    let folder = std::env::var_os("EWSBRIDGE_PACKAGES").map_or_else(here, PathBuf::from);
    let folder = if later { folder.join("later") } else { folder };
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    found.unwrap_or_else(|| panic!("no package in {}: tests/packages makes them", folder.display()))
}

#[test]
fn a_package_lives_and_leaves_nothing_on_debian_12() {
    live("bookworm");
}

#[test]
fn a_package_lives_and_leaves_nothing_on_debian_13() {
    live("trixie");
}

fn live(suite: &str) {
    let world = World::new(suite);
    let host = &world.host;
    let pristine = host.tree();
    host.push(&deb(false), "/root/one.deb");
    host.push(&deb(true), "/root/two.deb");

    let said = host.ok("dpkg -i /root/one.deb");
    assert!(said.contains("ewsbridge is installed. First step: ewsbridge add NAME PORT HOST:PORT"), "{said}");
    units_are_clean(host, "/usr/lib/systemd/system");
    assert_eq!(host.ok("systemctl is-active ewsbridge-renew.timer").trim(), "active");
    host.sh("ewsbridge install").ended_with(1).says("belongs to the package ewsbridge");
    world.add("exch1 9443").succeeded();
    assert_eq!(host.ok(&format!("systemctl is-active {UNIT}")).trim(), "active");
    // The same folder on a machine whose /lib is /usr/lib.
    let unit = host.property(UNIT, "FragmentPath");
    assert!(unit.ends_with("/lib/systemd/system/ewsbridge@.service") && !unit.contains("/local/"), "{unit}");
    world.assert_path(9443);
    let explained = host.ok("journalctl -x --no-pager EWSBRIDGE_EVENT=listening");
    assert!(explained.contains("Subject: Forwarder exch1 is ready"), "{explained}");
    host.ok("ewsbridge status exch1");

    a_crash_a_reload_a_restart_and_an_upgrade_refuse_nobody(&world);
    removed_and_installed_again_it_serves_with_its_old_certificate(&world);

    host.ewsbridge("remove exch1").succeeded();
    world.add("left 9444").succeeded();
    host.ok("dpkg -P ewsbridge");
    // The account stays: files elsewhere may carry its number.
    host.ok("id ewsbridge && userdel ewsbridge");
    for gone in ["/etc/ewsbridge", "/var/lib/ewsbridge", "/usr/share/doc/ewsbridge", "/usr/bin/ewsbridge"] {
        host.ok(&format!("! [ -e {gone} ]"));
    }
    host.ok("! ls /etc/systemd/system/multi-user.target.wants/ewsbridge@* /etc/systemd/system/ewsbridge@* 2>/dev/null");
    host.ok("! systemctl list-units --all --plain --no-legend 'ewsbridge@*' | grep -q active");
    host.ok("rm -rf /root/one.deb /root/two.deb");
    // dpkg's own lists, and what it keeps of them.
    let changes = host.tree().changes_since(&pristine);
    let left: Vec<_> = changes.iter().filter(|change| !change.starts_with("/var/lib/dpkg/")).collect();
    assert!(left.is_empty(), "{left:#?}");
}

fn a_crash_a_reload_a_restart_and_an_upgrade_refuse_nobody(world: &World) {
    let host = &world.host;
    host.ok(&format!("sed -i 's/^#drain_timeout .*/drain_timeout = \"7s\"   # of the admin/' {SETTINGS}"));
    assert!(host.ok(&format!("cat {SETTINGS}")).contains("# of the admin"));
    let load = Load::start(world);
    let pid = host.property(UNIT, "MainPID");
    host.ok(&format!("kill -KILL {pid}"));
    host.wait_until(&format!(
        "systemctl is-active --quiet {UNIT} && [ $(systemctl show --property MainPID --value {UNIT}) != {pid} ]"
    ));
    load.goes_on();
    host.ok(&format!("systemctl reload {UNIT}"));
    load.goes_on();
    host.ok(&format!("systemctl restart {UNIT}"));
    load.goes_on();
    let pid = host.property(UNIT, "MainPID");
    host.ok("dpkg -i /root/two.deb");
    assert_ne!(host.property(UNIT, "MainPID"), pid, "the upgrade left the old version running");
    assert_eq!(
        host.ok(&format!("readlink /proc/$(systemctl show --property MainPID --value {UNIT})/exe")).trim(),
        "/usr/bin/ewsbridge"
    );
    load.goes_on();
    let (served, failures) = load.end();
    println!("{served} connections served beside a crash, a reload, a restart and an upgrade; cut: {failures:?}");
    assert!(!failures.iter().any(|failure| failure.contains("refused")), "{failures:?}");
    // What was open goes with a process that is killed: at most one connection a client.
    assert!(failures.len() <= CLIENTS, "{failures:?}");
    assert!(host.ok(&format!("cat {SETTINGS}")).contains("drain_timeout = \"7s\"   # of the admin"));
    world.assert_path(9443);
}

fn removed_and_installed_again_it_serves_with_its_old_certificate(world: &World) {
    let host = &world.host;
    let shown = host.ok("ewsbridge cert show exch1");
    host.ok("dpkg -r ewsbridge");
    host.ok(&format!("! systemctl is-active --quiet {UNIT}"));
    host.ok(&format!("[ -e {SETTINGS} ] && [ -e /var/lib/ewsbridge/ca/ca.key ] && ! [ -e /usr/bin/ewsbridge ]"));
    host.ok("dpkg -i /root/two.deb");
    host.wait_until(&format!("systemctl is-active --quiet {UNIT}"));
    assert_eq!(host.ok("ewsbridge cert show exch1"), shown);
    world.assert_path(9443);
}
