//! What the service may not do, and what is left of that under the oldest systemd that is in use.

use std::path::Path;

use super::{SETTINGS, UNIT, World};

/// Options of the unit that systemd 219 (CentOS 7) does not know, and the version that brought each
/// (systemd's NEWS; systemd.exec(5), systemd.service(5)). It skips them with a warning.
const NEWER: [(&str, u32); 20] = [
    ("AmbientCapabilities", 229),
    ("StartLimitIntervalSec", 230),
    ("InaccessiblePaths", 231),
    ("MemoryDenyWriteExecute", 231),
    ("RestrictRealtime", 231),
    ("ProtectControlGroups", 232),
    ("ProtectKernelModules", 232),
    ("ProtectKernelTunables", 232),
    ("RemoveIPC", 232),
    ("RestrictNamespaces", 233),
    ("KeyringMode", 235),
    ("LockPersonality", 235),
    ("UnsetEnvironment", 235),
    ("ProtectHostname", 242),
    ("RestrictSUIDSGID", 242),
    ("ProtectKernelLogs", 244),
    ("ProtectClock", 245),
    ("ProcSubset", 247),
    ("ProtectProc", 247),
    // The value, not the option.
    ("ProtectSystem=strict", 232),
];

/// Those that it knows.
const KNOWN: [&str; 34] = [
    "After",
    "CapabilityBoundingSet",
    "Description",
    "ExecReload",
    "ExecStart",
    "FileDescriptorStoreMax",
    "Group",
    "LimitCORE",
    "LimitNOFILE",
    "NoNewPrivileges",
    "NotifyAccess",
    "PartOf",
    "PrivateDevices",
    "PrivateTmp",
    "ProtectHome",
    "ProtectSystem",
    "Restart",
    "RestartPreventExitStatus",
    "RestartSec",
    "RestrictAddressFamilies",
    "RuntimeDirectory",
    "RuntimeDirectoryMode",
    "StartLimitInterval",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "Type",
    "UMask",
    "User",
    "WantedBy",
    "Wants",
    "WatchdogSec",
];

#[test]
fn the_service_writes_nowhere_and_is_no_less_confined_under_an_old_systemd() {
    let world = World::new("bookworm");
    world.install();
    world.add("exch1 9443").succeeded();
    it_writes_nowhere_but_in_its_own_places(&world);
    without_every_newer_option_it_is_the_same_user_without_privileges(&world);
}

/// A command line within what the service sees of the file system, as root, who is stopped by nothing else.
fn within(world: &World, line: &str) -> super::Said {
    let pid = world.host.property(UNIT, "MainPID");
    world.host.sh(&format!("nsenter --mount --target {pid} sh -c '{line}'"))
}

/// The same as the service's user.
fn as_service(world: &World, line: &str) -> super::Said {
    within(world, &format!("setpriv --reuid=ewsbridge --regid=ewsbridge --clear-groups sh -c \"{line}\""))
}

fn it_writes_nowhere_but_in_its_own_places(world: &World) {
    let places =
        ["/etc", "/etc/ewsbridge", "/etc/ewsbridge/forwarders", "/var/lib/ewsbridge", "/var/lib/ewsbridge/identity"];
    let others = ["/usr/local/bin", "/var/log", "/root", "/home", "/boot", "/opt", "/srv"];
    for folder in places.into_iter().chain(others) {
        let said = within(world, &format!("touch {folder}/written"));
        assert_ne!(said.code, Some(0), "root could write to {folder} from within the service");
        world.host.ok(&format!("! [ -e {folder}/written ]"));
    }
    for line in [
        &format!("echo x >>{SETTINGS}"),
        "echo x >>/var/lib/ewsbridge/identity/exch1/key.pem",
        "rm /var/lib/ewsbridge/identity/exch1/cert.pem",
        "cat /var/lib/ewsbridge/ca/ca.key",
        // systemd leaves it writable; its modes do not.
        "touch /run/written",
        "touch /run/systemd/written",
    ] {
        assert_ne!(as_service(world, line).code, Some(0), "the service could: {line}");
    }
    // Out of sight, whoever asks.
    assert_ne!(within(world, "cat /var/lib/ewsbridge/ca/ca.key").code, Some(0));
    // The folder of its control socket is its own.
    within(world, "touch /run/ewsbridge-exch1/written && rm /run/ewsbridge-exch1/written").succeeded();
    world.assert_path(9443);
}

fn without_every_newer_option_it_is_the_same_user_without_privileges(world: &World) {
    let host = &world.host;
    let shipped =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/ewsbridge@.service"));
    let shipped = shipped.expect("the unit");
    let (mut old, mut removed) = (Vec::new(), 0);
    for line in shipped.lines() {
        let option = line.split('=').next().unwrap_or_default();
        let is_option = line.contains('=') && !line.starts_with('#');
        let is_newer = NEWER.iter().any(|(newer, _)| *newer == option || *newer == line);
        assert!(!is_option || is_newer || KNOWN.contains(&option), "{option}: since when? NEWER or KNOWN has to say");
        // Groups of system calls came with 231; single ones are older.
        let has_group = option == "SystemCallFilter" && line.contains('@');
        if is_option && (is_newer || has_group) {
            removed += 1;
        } else {
            old.push(line.replace("=/usr/bin/ewsbridge ", "=/usr/local/bin/ewsbridge "));
        }
    }
    assert_eq!(removed, NEWER.len() + 1, "{old:#?}");
    let file = super::file_in(world.folder.path(), "old.service", &old.join("\n"));
    host.push(&file, "/etc/systemd/system/ewsbridge@.service");
    host.ok(&format!("systemctl daemon-reload && systemctl restart {UNIT}"));
    assert_eq!(host.property(UNIT, "FragmentPath"), "/etc/systemd/system/ewsbridge@.service");

    let uid = host.ok("id -u ewsbridge").trim().to_owned();
    for (field, value) in [("Uid", uid.as_str()), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(host.process(UNIT, field), value, "{field}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(host.process(UNIT, set), "0000000000000000", "{set}");
    }
    for folder in ["/etc/ewsbridge/forwarders", "/usr/local/bin", "/boot", "/root"] {
        assert_ne!(within(world, &format!("touch {folder}/written")).code, Some(0), "{folder}");
    }
    for line in
        [&format!("echo x >>{SETTINGS}"), "cat /var/lib/ewsbridge/ca/ca.key", "touch /var/lib/ewsbridge/written"]
    {
        assert_ne!(as_service(world, line).code, Some(0), "the service could: {line}");
    }
    world.assert_path(9443);
    host.ok(&format!("systemctl reload {UNIT}"));
    host.ok(&format!(
        "rm /etc/systemd/system/ewsbridge@.service && systemctl daemon-reload && systemctl restart {UNIT}"
    ));
    world.assert_path(9443);
}
