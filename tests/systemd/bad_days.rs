//! Bad days: what an admin, a disk or a removed file can do to forwarders that run. Each is told in a clear
//! message, and costs nothing that worked before.

use super::{SETTINGS, TARGET, UNIT, World};

#[test]
fn a_bad_day_is_told_and_costs_nothing_that_worked() {
    let world = World::new("bookworm");
    world.install();
    world.add("exch1 9443").succeeded();
    let before = world.host.property(UNIT, "MainPID");
    a_certificate_that_is_gone_is_told_and_the_old_one_serves(&world);
    a_full_disk_leaves_nothing_half_done(&world);
    settings_that_nobody_can_write_stay_in_force(&world);
    a_file_that_the_sandbox_hides_is_refused_by_name(&world);
    a_port_that_another_forwarder_has_is_refused(&world);
    assert_eq!(world.host.property(UNIT, "MainPID"), before, "it was restarted");
    assert_eq!(world.host.property(UNIT, "NRestarts"), "0");
    world.assert_path(9443);
}

fn a_certificate_that_is_gone_is_told_and_the_old_one_serves(world: &World) {
    let host = &world.host;
    let folder = "/var/lib/ewsbridge/identity/exch1";
    host.ok(&format!("mv {folder} /root/away"));
    let said = host.ewsbridge("reload exch1").ended_with(1);
    let said = said.says(&format!("{folder}/cert.pem: read: no such file or directory"));
    said.says("the old settings are in force");
    host.ok("echo | openssl s_client -connect 127.0.0.1:9443 2>/dev/null | grep -q 'New, TLSv1.3'");
    host.ok(&format!("mv /root/away {folder}"));
    host.ewsbridge("reload exch1").succeeded();
}

fn a_full_disk_leaves_nothing_half_done(world: &World) {
    let host = &world.host;
    host.ok("mkdir -p /var/lib/ewsbridge/identity && cp -a /var/lib/ewsbridge /root/state");
    host.ok("mount -t tmpfs -o size=40k,mode=750,gid=$(id -g ewsbridge) full /var/lib/ewsbridge");
    host.ok("cp -a /root/state/. /var/lib/ewsbridge/");
    // What room is left.
    host.ok("dd if=/dev/zero of=/var/lib/ewsbridge/ballast bs=1k 2>/dev/null; [ -e /var/lib/ewsbridge/ballast ]");
    let before = host.tree();
    world.add("exch2 9444").ended_with(1).says("no space left on device");
    host.tree().assert_same_as(&before);
    world.assert_path(9443);
    host.ok("umount /var/lib/ewsbridge && rm -r /root/state");
}

fn settings_that_nobody_can_write_stay_in_force(world: &World) {
    let host = &world.host;
    host.ok("mount --bind /etc/ewsbridge /etc/ewsbridge && mount -o remount,ro,bind /etc/ewsbridge");
    let before = host.ok(&format!("cat {SETTINGS}"));
    host.ewsbridge("set exch1 drain_timeout=5s").ended_with(1).says("read-only file system");
    world.add("exch2 9444").ended_with(1).says("read-only file system");
    assert_eq!(host.ok(&format!("cat {SETTINGS}")), before);
    host.ok("! [ -e /var/lib/ewsbridge/identity/exch2 ]");
    world.assert_path(9443);
    host.ok("umount /etc/ewsbridge");
}

fn a_file_that_the_sandbox_hides_is_refused_by_name(world: &World) {
    let host = &world.host;
    host.ok(&format!("cp -p {SETTINGS} /root/good && cp /var/lib/ewsbridge/ca/ca.pem /root/corp.pem"));
    // By hand: "set" would have copied it to where the service can read it.
    host.ok(&format!("sed -i -e 's/^pin = .*/ca = \"\\/root\\/corp.pem\"/' {SETTINGS} && grep -q corp.pem {SETTINGS}"));
    let said = host.ewsbridge("reload exch1").ended_with(1);
    said.says("/root/corp.pem").says("the old settings are in force");
    world.assert_path(9443);
    host.ok(&format!("cp -p /root/good {SETTINGS} && rm /root/good /root/corp.pem"));
    host.ewsbridge("reload exch1").succeeded();
}

fn a_port_that_another_forwarder_has_is_refused(world: &World) {
    let host = &world.host;
    let before = host.tree();
    world.add("exch2 9443").ended_with(1).says("9443");
    host.tree().assert_same_as(&before);
    // By hand, past the check of "add": the second unit fails, the first serves.
    host.ewsbridge(&format!("add exch2 9444 {TARGET} --pin {} --offline", world.pin)).succeeded();
    host.ok("systemctl stop ewsbridge@exch2");
    host.ok("sed -i 's/^listen = .*/listen = 9443/' /etc/ewsbridge/forwarders/exch2.toml");
    assert_ne!(host.sh("timeout 20 systemctl start ewsbridge@exch2").code, Some(0));
    host.ok("journalctl --sync");
    let told = host.ok("journalctl --quiet --unit ewsbridge@exch2 --output cat");
    assert!(told.contains("9443: address already in use"), "{told}");
    host.ok("systemctl stop ewsbridge@exch2; systemctl reset-failed ewsbridge@exch2 || true");
    host.ewsbridge("remove exch2").succeeded();
}
