//! A forwarder's whole life under a real systemd: installed, added, used, killed, removed, gone.
//!
//! Takes root, a few Debian packages and for the first run a Debian mirror; see `tests/host/host`.
//! Where those are missing the tests fail: a test that is skipped in silence is believed.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

#[path = "systemd/bad_days.rs"]
mod bad_days;
mod host;
#[path = "systemd/package.rs"]
mod package;
#[path = "systemd/restarts.rs"]
mod restarts;
#[path = "systemd/sandbox.rs"]
mod sandbox;

use host::{Host, Said, Server, Tree, file_in, run, run_with_input};

/// A host, and an old server outside it.
struct World {
    host: Host,
    folder: TempDir,
    /// What `--pin` has to say to trust the old server.
    pin: String,
    _target: Server,
}

const TARGET: &str = "203.0.113.1:443";
const UNIT: &str = "ewsbridge@exch1";
const SETTINGS: &str = "/etc/ewsbridge/forwarders/exch1.toml";
const DROP_IN: &str = "/etc/systemd/system/ewsbridge@low.service.d/low-port.conf";

#[test]
fn a_forwarder_lives_under_systemd_and_leaves_no_trace() {
    let world = World::new("bookworm");
    let pristine = world.host.tree();

    a_failed_install_leaves_the_tree_as_it_was(&world, &pristine);
    without_systemd_install_says_how_to_run_and_is_undone(&world, &pristine);
    install_puts_everything_in_place_and_a_second_one_changes_nothing(&world);
    units_are_clean(&world.host, "/usr/local/lib/systemd/system");
    let installed = world.host.tree();

    add_starts_a_service_and_proves_its_path(&world);
    the_service_is_confined(&world);
    the_journal_has_fields_true_priorities_and_explanations(&world);
    the_environment_of_the_machine_does_not_reach_openssl(&world);
    a_taken_port_fails_and_changes_nothing(&world);
    a_killed_service_comes_back(&world);
    the_service_starts_with_the_machine(&world);
    a_service_is_ready_only_once_it_has_its_port(&world);
    a_reload_waits_for_its_answer_and_ends_with_it(&world);
    a_broken_file_stops_the_service_without_a_loop(&world);
    the_renewal_runs(&world);
    one_command_stops_and_starts_all(&world);
    a_low_port_takes_one_capability_and_add_says_so(&world);
    settings_that_the_service_cannot_start_with_are_taken_back(&world);
    a_machine_without_ipv6_is_served_by_ipv4(&world);
    an_upgrade_restarts_what_runs(&world);
    uninstall_refuses_while_forwarders_exist(&world);

    remove_leaves_nothing_of_a_forwarder(&world, &installed);
    uninstall_gives_the_machine_back(&world, &pristine);
}

#[test]
fn the_path_works_under_the_systemd_of_debian_13() {
    let world = World::new("trixie");
    let pristine = world.host.tree();
    world.install();
    units_are_clean(&world.host, "/usr/local/lib/systemd/system");
    world.add("exch1 9443").succeeded();
    the_service_is_confined(&world);
    world.assert_path(9443);
    world.host.ewsbridge("remove exch1").succeeded();
    uninstall_gives_the_machine_back(&world, &pristine);
}

/// A binary that was built for a newer libc doesn't start in Debian 11, so a stand-in says READY.
#[test]
fn the_units_start_under_the_systemd_of_debian_11() {
    let host = Host::boot("bullseye");
    let folder = tempfile::tempdir().expect("a folder");
    let stand_in = file_in(folder.path(), "ewsbridge", STAND_IN);
    host.push(&stand_in, "/usr/bin/ewsbridge");
    host.ok("chmod 755 /usr/bin/ewsbridge && useradd --system ewsbridge");
    for unit in ["ewsbridge@.service", "ewsbridge.target", "ewsbridge-renew.service", "ewsbridge-renew.timer"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd").join(unit);
        host.push(&file, &format!("/etc/systemd/system/{unit}"));
    }
    units_are_clean(&host, "/etc/systemd/system");
    host.ok("mkdir -p /etc/ewsbridge/forwarders && touch /etc/ewsbridge/forwarders/x && systemctl daemon-reload");
    host.ok("systemctl start ewsbridge@x ewsbridge-renew.service ewsbridge-renew.timer");
    assert_eq!(host.property("ewsbridge@x", "StatusText"), "stand-in");
    assert_eq!(host.process("ewsbridge@x", "Seccomp"), "2");
    assert_eq!(host.property("ewsbridge-renew.service", "Result"), "success");
}

const STAND_IN: &str = "#!/usr/bin/perl\n\
    use IO::Socket::UNIX;\n\
    exit 0 if $ARGV[0] ne 'run';\n\
    IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET})->send(\"READY=1\\nSTATUS=stand-in\");\n\
    sleep;\n";

fn a_failed_install_leaves_the_tree_as_it_was(world: &World, pristine: &Tree) {
    let obstacles = [
        ("touch /var/lib/ewsbridge", "rm /var/lib/ewsbridge", "/var/lib/ewsbridge: create: "),
        ("mkdir /usr/local/bin/ewsbridge", "rmdir /usr/local/bin/ewsbridge", "/usr/local/bin/ewsbridge: read: "),
        ("mount -t tmpfs -o size=4k full /usr/local/bin", "umount /usr/local/bin", "no space left on device"),
        ("touch /usr/local/lib/systemd", "rm /usr/local/lib/systemd", "/usr/local/lib/systemd: create: "),
        ("systemctl mask ewsbridge-renew.timer", "systemctl unmask ewsbridge-renew.timer", "is masked"),
    ];
    for (put, take, text) in obstacles {
        world.host.ok(put);
        let before = world.host.tree();
        world.host.sh("/root/ewsbridge install").ended_with(1).says(text);
        world.host.tree().assert_same_as(&before);
        world.host.ok(take);
    }
    world.host.tree().assert_same_as(pristine);
    world.host.ok("cp /root/ewsbridge /tmp/ewsbridge");
    world.host.sh("setpriv --reuid=daemon --clear-groups /tmp/ewsbridge install").ended_with(77);
    world.host.ok("rm /tmp/ewsbridge");
    world.host.tree().assert_same_as(pristine);
}

fn without_systemd_install_says_how_to_run_and_is_undone(world: &World, pristine: &Tree) {
    let host = &world.host;
    let run = |line: &str| host.sh(&format!("unshare --mount sh -c 'mount -t tmpfs none /run/systemd && {line}'"));
    // Made while there was no group that it could have been given to.
    host.ok("install -D -m 640 /dev/null /var/lib/ewsbridge/identity/early/key.pem");
    run("/root/ewsbridge install").succeeded().says("ewsbridge run ");
    assert_eq!(host.ok("find /usr/local -type f"), "/usr/local/bin/ewsbridge\n");
    let early = host.ok("cd /var/lib/ewsbridge && stat -c '%a %U:%G' identity/early/key.pem");
    assert_eq!(early, "640 root:ewsbridge\n");
    run("ewsbridge uninstall --purge").succeeded();
    host.tree().assert_same_as(pristine);
}

fn install_puts_everything_in_place_and_a_second_one_changes_nothing(world: &World) {
    world.install();
    let modes = world.host.ok("stat -c '%n %a %U:%G' /etc/ewsbridge /etc/ewsbridge/forwarders /var/lib/ewsbridge");
    for folder in ["/etc/ewsbridge", "/etc/ewsbridge/forwarders", "/var/lib/ewsbridge"] {
        assert!(modes.contains(&format!("{folder} 750 root:ewsbridge\n")), "{modes}");
    }
    assert_eq!(world.host.property("ewsbridge-renew.timer", "ActiveState"), "active");
    assert_eq!(world.host.ok("systemctl is-enabled ewsbridge-renew.timer"), "enabled\n");
    let installed = world.host.tree();
    world.install();
    world.host.tree().assert_same_as(&installed);
}

fn units_are_clean(host: &Host, folder: &str) {
    let verified = host.sh(&format!("systemd-analyze verify {folder}/ewsbridge*")).succeeded();
    assert_eq!(format!("{}{}", verified.out, verified.err), "");
}

fn add_starts_a_service_and_proves_its_path(world: &World) {
    world.add("exch1 9443").succeeded();
    assert_eq!(world.host.ok(&format!("systemctl is-active {UNIT}; systemctl is-enabled {UNIT}")), "active\nenabled\n");
    world.assert_path(9443);
}

fn the_service_is_confined(world: &World) {
    let host = &world.host;
    let uid = host.ok("id -u ewsbridge").trim().to_owned();
    for (field, value) in [("Uid", uid.as_str()), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(host.process(UNIT, field), value, "{field}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(host.process(UNIT, set), "0000000000000000", "{set}");
    }
    let read = |file: &str| host.sh(&format!("setpriv --reuid=ewsbridge --regid=ewsbridge --clear-groups cat {file}"));
    read(SETTINGS).succeeded();
    read("/var/lib/ewsbridge/identity/exch1/key.pem").succeeded();
    read("/var/lib/ewsbridge/ca/ca.key").ended_with(1).says("Permission denied");
    // The file modes again: nobody else reads a key.
    let keys = host.ok("find /var/lib/ewsbridge -name '*.key' -o -name 'key.pem' | xargs stat -c '%a %U:%G %n'");
    assert!(keys.contains("600 root:root /var/lib/ewsbridge/ca/ca.key\n"), "{keys}");
    assert!(keys.contains("640 root:ewsbridge /var/lib/ewsbridge/identity/exch1/key.pem\n"), "{keys}");
    let score = host.ok(&format!("systemd-analyze security --no-pager {UNIT} | tail -n 1"));
    println!("{}", score.trim());
    let exposure: f32 = score.split_whitespace().find_map(|word| word.parse().ok()).expect("a number");
    assert!(exposure <= 1.5, "{score}");
}

fn one_command_stops_and_starts_all(world: &World) {
    let host = &world.host;
    world.add("other 9447").succeeded();
    let both = "ewsbridge@exch1 ewsbridge@other";
    // Never started, it stops what runs all the same.
    assert_eq!(host.property("ewsbridge.target", "ActiveState"), "inactive");
    host.ok("systemctl stop ewsbridge.target");
    assert_eq!(host.sh(&format!("systemctl is-active {both}")).out, "inactive\ninactive\n");
    host.ok("systemctl start ewsbridge.target");
    host.wait_until(&format!("systemctl is-active --quiet {both}"));
    host.ok("systemctl restart ewsbridge.target");
    host.wait_until(&format!("systemctl is-active --quiet {both}"));
    // A single one that is started or stopped is not the others' business.
    host.ok("systemctl stop ewsbridge@other");
    host.ok("systemctl restart ewsbridge@exch1");
    assert_eq!(host.sh(&format!("systemctl is-active {both}")).out, "active\ninactive\n");
    host.ok("systemctl stop ewsbridge.target && systemctl start ewsbridge@exch1");
    assert_eq!(host.sh(&format!("systemctl is-active {both}")).out, "active\ninactive\n");
    host.ewsbridge("remove other").succeeded();
    host.ok("! ls /etc/systemd/system/ewsbridge.target.wants/ewsbridge@other.service 2>/dev/null");
    world.assert_path(9443);
}

fn the_journal_has_fields_true_priorities_and_explanations(world: &World) {
    let host = &world.host;
    for file in ["ewsbridge.catalog", "ewsbridge.ru.catalog"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/catalog").join(file);
        host.push(&path, &format!("/usr/lib/systemd/catalog/{file}"));
    }
    host.ok("journalctl --update-catalog");
    world.assert_path(9443);
    host.ok("journalctl --sync");
    let lines = host.ok("journalctl --output json EWSBRIDGE_FORWARDER=exch1 EWSBRIDGE_EVENT=session_closed");
    let session: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap_or_default())
        .unwrap_or_else(|error| panic!("{error}: {lines}"));
    for (field, value) in [
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "ewsbridge"),
        ("_SYSTEMD_UNIT", "ewsbridge@exch1.service"),
        ("EWSBRIDGE_TLS_IN", "1.3"),
        ("EWSBRIDGE_RESUMED", "false"),
    ] {
        // A later session may resume.
        if field != "EWSBRIDGE_RESUMED" || session[field] != "true" {
            assert_eq!(session[field], value, "{field} in {session:#}");
        }
    }
    assert!(session["EWSBRIDGE_UP_BYTES"].as_str().unwrap_or_default().parse::<u64>().is_ok(), "{session:#}");
    assert!(session["MESSAGE"].as_str().unwrap_or_default().starts_with("session closed forwarder=exch1 client="));
    // Nothing comes twice: not by stderr as well.
    let client = session["EWSBRIDGE_CLIENT"].as_str().unwrap_or_default();
    let twice = host.ok(&format!("journalctl --quiet --unit {UNIT} --output cat --grep 'client={client} '"));
    assert_eq!(twice.lines().count(), 1, "{twice}");
    let explained = host.ok("journalctl -x --no-pager EWSBRIDGE_EVENT=listening");
    assert!(explained.contains("Subject: Forwarder exch1 is ready"), "{explained}");
    host.ok("rm /usr/lib/systemd/catalog/ewsbridge*.catalog && journalctl --update-catalog");
}

fn the_environment_of_the_machine_does_not_reach_openssl(world: &World) {
    world.host.ok("systemctl set-environment OPENSSL_CONF=/hostile SSL_CERT_FILE=/hostile");
    world.host.ok(&format!("systemctl restart {UNIT}"));
    let pid = world.host.property(UNIT, "MainPID");
    let environment = world.host.ok(&format!("tr '\\0' '\\n' </proc/{pid}/environ"));
    assert!(!environment.contains("hostile"), "{environment}");
    world.assert_path(9443);
    world.host.ok("systemctl unset-environment OPENSSL_CONF SSL_CERT_FILE");
}

fn a_taken_port_fails_and_changes_nothing(world: &World) {
    let before = world.host.tree();
    world.add("exch2 9443").ended_with(1).says("9443");
    world.host.tree().assert_same_as(&before);
    assert_eq!(world.host.ok("systemctl list-units --all --no-legend 'ewsbridge@exch2*'"), "");
    world.assert_path(9443);
}

fn a_killed_service_comes_back(world: &World) {
    for _ in 0..7 {
        let pid = world.host.property(UNIT, "MainPID");
        world.host.ok(&format!("kill -KILL {pid}"));
        world.host.wait_until(&format!(
            "systemctl is-active --quiet {UNIT} && [ $(systemctl show --property MainPID --value {UNIT}) != {pid} ]"
        ));
    }
    assert_eq!(world.host.property(UNIT, "NRestarts"), "7");
    world.assert_path(9443);
}

fn the_service_starts_with_the_machine(world: &World) {
    world.host.ok(&format!("systemctl restart {UNIT}"));
    world.assert_path(9443);
    // What happens at boot: the target of the boot pulls in what is enabled.
    world.host.ok(&format!("systemctl stop {UNIT}"));
    world.host.ok("systemctl start multi-user.target");
    world.host.wait_until(&format!("systemctl is-active --quiet {UNIT}"));
    world.assert_path(9443);
}

fn a_service_is_ready_only_once_it_has_its_port(world: &World) {
    let host = &world.host;
    host.ok(&format!("systemctl stop {UNIT}"));
    host.ok("systemd-run --quiet --unit=squatter openssl s_server -accept 9443 -nocert");
    host.wait_until("ss -Hltn sport = :9443 | grep -q .");
    assert_ne!(host.sh(&format!("systemctl start {UNIT}")).code, Some(0), "it got ready without its port");
    host.ok("journalctl --sync");
    let journal = host.ok(&format!("journalctl --no-pager --output=cat --lines=20 --unit={UNIT}"));
    assert!(journal.contains("9443"), "{journal}");
    // No hand is needed once the port is free.
    host.ok("systemctl stop squatter");
    host.wait_until(&format!("systemctl is-active --quiet {UNIT}"));
    world.assert_path(9443);
}

fn a_reload_waits_for_its_answer_and_ends_with_it(world: &World) {
    let host = &world.host;
    let pid = host.property(UNIT, "MainPID");
    host.ok(&format!("cp -p {SETTINGS} /tmp/good && echo 'drain_timeout = \"20s\"' >>{SETTINGS}"));
    host.ok(&format!("systemctl reload {UNIT}"));
    assert_eq!(host.property(UNIT, "ActiveState"), "active");
    assert!(host.property(UNIT, "StatusText").starts_with("listening; 0 open, "));
    host.ok(&format!("echo 'lisen = 1' >>{SETTINGS}"));
    assert_ne!(host.sh(&format!("systemctl reload {UNIT}")).code, Some(0), "a broken file was taken over");
    host.ok(&format!("kill -HUP {pid}"));
    host.wait_until(&format!("systemctl show --property StatusText {UNIT} | grep -q 'lisen: unknown key'"));
    assert_eq!(host.property(UNIT, "ActiveState"), "active");
    assert_eq!(host.property(UNIT, "MainPID"), pid);
    world.assert_path(9443);
    host.ok(&format!("cp -p /tmp/good {SETTINGS} && rm /tmp/good && ewsbridge reload exch1"));
    assert!(host.property(UNIT, "StatusText").starts_with("listening; 0 open, "));
    // Root and the service's group may ask; nobody else.
    let as_user = |group: &str| {
        let user = format!("setpriv --reuid=nobody --regid={group} --clear-groups");
        host.sh(&format!("{user} perl -MIO::Socket::UNIX -e '{CONNECT}'"))
    };
    as_user("ewsbridge").succeeded();
    as_user("nogroup").ended_with(1);
}

/// Ends with 0 if the control socket can be opened.
const CONNECT: &str = "exit !IO::Socket::UNIX->new(Peer => \"/run/ewsbridge-exch1/control\")";

fn a_broken_file_stops_the_service_without_a_loop(world: &World) {
    let host = &world.host;
    host.ok(&format!("cp -p {SETTINGS} /tmp/good && echo 'lisen = 1' >>{SETTINGS}"));
    assert_ne!(host.sh(&format!("systemctl restart {UNIT}")).code, Some(0));
    assert_eq!(host.property(UNIT, "ExecMainStatus"), "78");
    // Not "activating": systemd has no further start in mind.
    assert_eq!(host.property(UNIT, "ActiveState"), "failed");
    host.ok(&format!("cp -p /tmp/good {SETTINGS} && rm /tmp/good && systemctl start {UNIT}"));
    world.assert_path(9443);
}

fn the_renewal_runs(world: &World) {
    let before = world.host.tree();
    world.host.ok("systemctl start ewsbridge-renew.service");
    assert_eq!(world.host.property("ewsbridge-renew.service", "ConditionResult"), "yes");
    assert_eq!(world.host.property("ewsbridge-renew.service", "Result"), "success");
    // Nothing is due on its first day.
    world.host.tree().assert_same_as(&before);
}

fn a_low_port_takes_one_capability_and_add_says_so(world: &World) {
    world.add("low 443").succeeded().says(DROP_IN);
    world.assert_path(443);
    let cap_net_bind_service = "0000000000000400";
    assert_eq!(world.host.process("ewsbridge@low", "CapEff"), cap_net_bind_service);
    assert_eq!(world.host.process("ewsbridge@low", "CapBnd"), cap_net_bind_service);
    assert_eq!(world.host.process(UNIT, "CapBnd"), "0000000000000000");
}

fn settings_that_the_service_cannot_start_with_are_taken_back(world: &World) {
    // Not the whole tree: a restart gives the service new folders under /tmp.
    let files = || world.host.ok("find /etc /var/lib/ewsbridge -type f -print0 | sort -z | xargs -0 sha256sum");
    let before = files();
    // The old port needs a capability that the new one does not; and the new one is taken.
    world.host.ok("systemd-run --quiet --unit=squatter openssl s_server -accept 8443 -nocert");
    world.host.wait_until("ss -Hltn sport = :8443 | grep -q .");
    world.host.ewsbridge("set low listen=8443").ended_with(1).says("the old settings are in force again");
    world.host.ok("systemctl stop squatter");
    assert_eq!(files(), before);
    world.assert_path(443);
    world.host.ewsbridge("set low drain_timeout=20s").succeeded().says("low: in force");
    world.assert_path(443);
}

fn a_machine_without_ipv6_is_served_by_ipv4(world: &World) {
    let host = &world.host;
    let folder = format!("/etc/systemd/system/{UNIT}.service.d");
    let drop_in = "[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_INET AF_UNIX AF_NETLINK\n";
    host.ok(&format!("mkdir {folder} && printf '{drop_in}' >{folder}/no-ipv6.conf && systemctl daemon-reload"));
    host.ok(&format!("systemctl restart {UNIT} && journalctl --sync"));
    assert_eq!(host.ok("ss -Hltn sport = :9443 | tr -s ' ' | cut -d ' ' -f 4"), "0.0.0.0:9443\n");
    world.assert_path(9443);
    host.ok(&format!("rm -r {folder} && systemctl daemon-reload && systemctl restart {UNIT}"));
    assert_eq!(host.ok("ss -Hltn sport = :9443 | tr -s ' ' | cut -d ' ' -f 4"), "*:9443\n");
}

fn an_upgrade_restarts_what_runs(world: &World) {
    let old = world.host.property(UNIT, "MainPID");
    // Bytes after the end of an ELF file are nothing to it: the same program as another version.
    world.host.ok("cp /root/ewsbridge /root/newer && echo >>/root/newer && /root/newer install");
    assert_ne!(world.host.property(UNIT, "MainPID"), old);
    world.assert_path(9443);
    world.host.ok("/root/ewsbridge install && rm /root/newer");
    world.assert_path(443);
}

fn uninstall_refuses_while_forwarders_exist(world: &World) {
    let before = world.host.tree();
    world.host.ewsbridge("uninstall --purge").ended_with(1).says("exch1").says("ewsbridge remove low");
    world.host.tree().assert_same_as(&before);
}

fn remove_leaves_nothing_of_a_forwarder(world: &World, installed: &Tree) {
    world.host.ewsbridge("remove low").succeeded();
    world.host.ewsbridge("remove exch1").succeeded();
    // The local CA is the host's, not the forwarder's, and so is the folder of the certificates.
    let stays = ["/var/lib/ewsbridge/ca", "/var/lib/ewsbridge/identity:"];
    let changes = world.host.tree().changes_since(installed);
    let left: Vec<&String> =
        changes.iter().filter(|change| !stays.iter().any(|stay| change.starts_with(stay))).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!(world.host.ok("systemctl list-units --all --no-legend 'ewsbridge@*'"), "");
    world.host.sh("ss -Hltn '( sport = :9443 or sport = :443 )' | grep .").ended_with(1);
    // Nobody's process, nobody's enabled link.
    world.host.sh("pgrep -x ewsbridge").ended_with(1);
}

fn uninstall_gives_the_machine_back(world: &World, pristine: &Tree) {
    world.host.ewsbridge("uninstall --purge").succeeded();
    world.host.tree().assert_same_as(pristine);
    assert_eq!(world.host.ok("systemctl list-units --all --no-legend 'ewsbridge*'"), "");
    world.host.sh("getent passwd ewsbridge || getent group ewsbridge").ended_with(2);
}

impl World {
    fn new(suite: &str) -> Self {
        let host = Host::boot(suite);
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = self_signed(&host, folder.path());
        let pin = pin_of(&host, &cert);
        let files = ["-cert", &cert.to_string_lossy(), "-key", &key.to_string_lossy()].map(str::to_owned);
        // TLS 1.0 and nothing else, as Windows 2008 R2 speaks it; answers with a page about the connection.
        let server = ["openssl", "s_server", "-accept", TARGET, "-www", "-tls1", "-cipher", "ALL:@SECLEVEL=0"];
        let arguments: Vec<&str> = server.into_iter().chain(files.iter().map(String::as_str)).collect();
        let target = host.serve_outside(&arguments, "ACCEPT");
        Self { host, folder, pin, _target: target }
    }

    fn install(&self) {
        self.host.sh("/root/ewsbridge install </dev/null").succeeded();
    }

    /// `add NAME PORT` for the old server.
    fn add(&self, name_and_port: &str) -> Said {
        self.host.ewsbridge(&format!("add {name_and_port} {TARGET} --pin {}", self.pin))
    }

    /// A client outside gets an answer of the TLS 1.0 server by TLS 1.3, trusting the local CA alone.
    fn assert_path(&self, port: u16) {
        let name = if port == 443 { "low" } else { "exch1" };
        let ca =
            file_in(self.folder.path(), "ca.pem", &self.host.ewsbridge(&format!("cert show {name}")).succeeded().out);
        let address = format!("203.0.113.2:{port}");
        let client = ["openssl", "s_client", "-connect", &address, "-CAfile", &ca.to_string_lossy(), "-no-CApath"]
            .map(str::to_owned);
        let strict = ["-verify_return_error", "-verify_ip", "203.0.113.2", "-ign_eof"];
        let arguments: Vec<&str> = client.iter().map(String::as_str).chain(strict).collect();
        let said = run_with_input(self.host.outside(&arguments), b"GET / HTTP/1.0\r\n\r\n").succeeded();
        let said = said.says("New, TLSv1.3, Cipher is").says("Verify return code: 0 (ok)").says("HTTP/1.0 200 ok");
        assert!(said.out.lines().any(|line| line.trim() == "Protocol  : TLSv1"), "{}", said.out);
    }
}

/// A self-signed certificate and its key, as `New-ExchangeCertificate` makes one.
fn self_signed(host: &Host, folder: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (folder.join("target.pem"), folder.join("target.key"));
    let (cert_path, key_path) = (cert.to_string_lossy(), key.to_string_lossy());
    let request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=EXCH1"];
    run(host.outside(&[&request[..], &["-keyout", &key_path, "-out", &cert_path]].concat())).succeeded();
    (cert, key)
}

fn pin_of(host: &Host, cert: &Path) -> String {
    let arguments = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", &cert.to_string_lossy()];
    let said = run(host.outside(&arguments)).succeeded();
    let (_, hex) = said.out.trim().split_once('=').expect("the fingerprint after a =");
    format!("sha256:{}", hex.replace(':', "").to_lowercase())
}
