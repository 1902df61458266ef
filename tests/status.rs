//! How a running forwarder stands, as `status` and `list` show it.

mod cli_support;

use std::fs;
use std::process::Command;

use cli_support::{Certificate, Live, Sandbox, free_port, s_client, tcp_target, tls_target};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A forwarder `exch1` to one server.
struct World {
    sandbox: Sandbox,
    port: u16,
    target: String,
}

impl World {
    fn to(target: String, trust: &[&str]) -> Self {
        let (sandbox, port) = (Sandbox::new(), free_port());
        let words = ["add", "exch1", &format!("127.0.0.1:{port}"), &target, "--offline"];
        sandbox.run(words.iter().chain(trust)).succeeded();
        Self { sandbox, port, target }
    }

    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::self_signed(folder.path(), "EXCH1");
        Self::to(tls_target(&certificate).to_string(), &["--pin", &certificate.pin()])
    }

    /// A client that has shaken hands, and has asked nothing yet.
    fn open(&self) -> Live {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port), "-CAfile"]);
        client.arg(self.sandbox.ca("exch1")).env_remove("OPENSSL_CONF");
        let client = Live::spawn_with_input(&mut client);
        client.wait_for("Verify return code: 0 (ok)");
        client
    }

    fn json(&self) -> Value {
        let said = self.sandbox.run(["status", "exch1", "--json"]).succeeded();
        serde_json::from_str(&said.stdout).unwrap()
    }

    /// Waits until something can be seen.
    #[track_caller]
    fn see(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..200 {
            let seen = self.json();
            if holds(&seen) {
                return seen;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{what} is never seen: {:#}", self.json());
    }
}

#[test]
fn an_open_connection_is_shown_with_both_legs_its_bytes_and_its_silence_and_then_as_done() {
    let world = World::new();
    let _server = world.sandbox.serve("exch1");
    let fresh = world.json();
    assert_eq!((&fresh["schema"], &fresh["ok"], &fresh["state"]), (&1.into(), &true.into(), &"running".into()));
    assert_eq!(fresh["targets"][0]["state"], "unknown");
    let mut client = world.open();
    let seen = world.see("the connection", |seen| seen["sessions"]["open"] == 1);
    let connection = &seen["connections"][0];
    assert!(connection["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{connection}");
    assert_eq!((&connection["tls_in"], &connection["tls_out"]), (&"1.3".into(), &"1.0".into()));
    assert_eq!(connection["target"], world.target.as_str());
    assert_eq!((&connection["up_bytes"], &connection["resumed"]), (&0.into(), &false.into()));
    assert!(connection["idle_seconds"].as_f64().unwrap() >= 0.0);
    let target = &seen["targets"][0];
    assert_eq!((&target["state"], &target["address"]), (&"ok".into(), &world.target.as_str().into()));
    assert!(target["handshake_seconds"].as_f64().unwrap() > 0.0);
    let roles: Vec<_> =
        seen["certificates"].as_array().unwrap().iter().map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["own", "target"]);
    assert_eq!(seen["certificates"][1]["vouched_by"], "pin");

    client.input("GET / HTTP/1.0\r\n\r\n");
    client.wait_for("HTTP/1.0 200 ok");
    client.finish().succeeded();
    let seen = world.see("the end", |seen| seen["sessions"]["done"] == 1);
    assert_eq!((&seen["sessions"]["open"], &seen["connections"]), (&0.into(), &Value::Array(vec![])));
    assert_eq!(seen["sessions"]["up_bytes"], 18);
    assert_eq!(seen["ends"][0]["count"], 1);
    assert_eq!(seen["durations"]["session"]["count"], 1);
}

#[test]
fn the_page_names_target_trust_identity_traffic_and_the_open_connection() {
    let world = World::new();
    let _server = world.sandbox.serve("exch1");
    let _client = world.open();
    world.see("the connection", |seen| seen["sessions"]["open"] == 1);
    let page = world.sandbox.run(["status", "exch1"]).succeeded().stdout;
    let begins = format!("exch1: clients -> 127.0.0.1:{} -> {}\n   Service: running since ", world.port, world.target);
    assert!(page.starts_with(&begins), "{page}");
    for part in [
        &format!("    Target: ok, {}, TLS 1.0 ", world.target),
        "     Trust: CN=EXCH1, by pin; to ",
        "  Identity: ",
        "   Traffic: 1 open, 0 done; up 0 B, down 0 B; memory ",
        "   Inbound: TLS 1.3 TLS_AES_256_GCM_SHA384 1\n",
        "Open connections, the oldest first\n  CLIENT ",
        "1.3 > 1.0",
    ] {
        assert!(page.contains(part), "'{part}' is missing in\n{page}");
    }
    assert!(!page.contains('\x1b'), "a pipe has no colours");
    let list = world.sandbox.run(["list"]).succeeded().stdout;
    let row = list.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(row.starts_with("exch1 running ") && row.contains(" 1.3 > 1.0 1"), "{list}");
}

#[test]
fn a_target_that_is_down_is_told_with_its_cause_and_its_cure() {
    let port = free_port();
    let world = World::to(format!("127.0.0.1:{port}"), &["--insecure"]);
    let _server = world.sandbox.serve("exch1");
    s_client(world.port, &world.sandbox.ca("exch1"));
    let seen = world.see("the failure", |seen| seen["targets"][0]["state"] == "down");
    assert_eq!(seen["targets"][0]["cause"], "connect: connection refused");
    let failure = &seen["failures"][0];
    assert_eq!(
        (&failure["side"], &failure["stage"], &failure["reason"], &failure["count"]),
        (&"target".into(), &"connect".into(), &"refused".into(), &1.into())
    );
    let problem = &seen["problems"][0];
    assert!(problem["text"].as_str().unwrap().contains("connect: connection refused"), "{problem}");
    assert!(problem["hint"].as_str().unwrap().starts_with("nothing listens there on port "), "{problem}");
    assert!(!seen["warnings"].as_array().unwrap().is_empty(), "insecure is weak");
    let page = world.sandbox.run(["status"]).succeeded().stdout;
    for part in [
        "    Target: DOWN for ",
        ": connect: connection refused\n            hint: nothing listens there",
        "      Weak: ",
        "Last problems\n",
        "    hint: nothing listens",
    ] {
        assert!(page.contains(part), "'{part}' is missing in\n{page}");
    }
    let list = world.sandbox.run(["list"]).succeeded().stdout;
    assert!(list.contains("target down: connect: connection refused"), "{list}");
}

#[test]
fn a_client_that_is_turned_away_is_counted_by_the_setting() {
    let world = World::new();
    world.sandbox.run(["set", "exch1", "allow_clients=192.0.2.0/24"]).succeeded();
    let _server = world.sandbox.serve("exch1");
    s_client(world.port, &world.sandbox.ca("exch1"));
    let seen = world.see("the refusal", |seen| seen["refused"]["allow_clients"] == 1);
    assert_eq!(seen["refused"]["max_connections"], 0);
    let page = world.sandbox.run(["status", "exch1"]).succeeded().stdout;
    assert!(page.contains("   Refused: 1 allow_clients\n"), "{page}");
}

#[test]
fn one_that_does_not_run_exits_with_3_and_one_that_is_not_there_with_4() {
    let world = World::new();
    let stopped = world.sandbox.run(["status", "exch1"]).exited(3);
    assert!(stopped.stdout.contains("   Service: stopped\n"), "{}", stopped.stdout);
    assert!(stopped.stdout.contains("      Next: ewsbridge run exch1\n"), "{}", stopped.stdout);
    let json = world.sandbox.run(["status", "--json"]).exited(3);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["ok"], &json["forwarders"][0]["state"]), (&false.into(), &"stopped".into()));
    world.sandbox.run(["status", "exch9"]).exited(4);
    world.sandbox.run(["status", "Not a name"]).exited(2);
    world.sandbox.run(["status", "--watch=0"]).exited(2);
}

#[test]
fn a_file_that_is_wrong_hides_nothing_of_what_runs() {
    let world = World::new();
    let _server = world.sandbox.serve("exch1");
    fs::write(world.sandbox.settings("exch1"), "format = 1\nlisen = 1\n").unwrap();
    let page = world.sandbox.run(["status", "exch1"]).succeeded().stdout;
    assert!(page.contains("   Service: running since "), "{page}");
    assert!(page.contains("  Settings: INVALID: ") && page.contains("lisen"), "{page}");
}

#[test]
fn watching_looks_again_and_again_until_it_is_ended() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    let watching = Live::spawn(&mut world.sandbox.command(["status", "exch1", "--watch=1", "--json"]));
    watching.wait_for("\"done\":0,");
    s_client(world.port, &world.sandbox.ca("exch1"));
    let said = watching.wait_for("\"done\":1,");
    for line in said.lines().filter(|line| !line.is_empty()) {
        let document: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(document["name"], "exch1");
    }
    // It goes on when the forwarder ends.
    server.signal(Signal::SIGTERM);
    watching.wait_for("\"state\":\"stopped\"");
    // Not SIGINT, which a shell has its background jobs ignore, and so whatever runs in them.
    watching.signal(Signal::SIGTERM);
    assert_ne!(watching.finish().code, 0);
}

#[test]
fn a_terminal_of_eighty_columns_holds_every_line() {
    let world = World::new();
    let _server = world.sandbox.serve("exch1");
    let _client = world.open();
    world.see("the connection", |seen| seen["sessions"]["open"] == 1);
    let shown = format!("stty cols 80; {} status exch1", env!("CARGO_BIN_EXE_ewsbridge"));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &shown, "/dev/null"]);
    world.sandbox.surround(&mut command);
    let page = cli_support::run_to_end(&mut command).succeeded().stdout;
    let long: Vec<_> = page.lines().filter(|line| line.trim_end().chars().count() > 80).collect();
    assert_eq!(long, [""; 0], "{page}");
    assert!(page.contains("  Identity: "), "{page}");
}

#[test]
fn an_older_process_that_can_not_say_is_told_apart_from_none() {
    let world = World::new();
    let folder = world.sandbox.var().join("control");
    fs::create_dir_all(&folder).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.join("exch1")).unwrap();
    std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        let (stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        (&stream)
            .write_all(b"{\"version\":1,\"ok\":false,\"text\":\"unknown request\",\"needs_restart\":false}\n")
            .unwrap();
    });
    let said = world.sandbox.run(["status", "exch1"]).exited(1);
    assert_eq!(
        said.stderr,
        "exch1: it can't say how it stands: unknown request\nhint: an older version runs: systemctl restart ewsbridge@exch1.service\n"
    );
}

#[test]
fn what_is_no_tls_is_counted_as_that() {
    let address = tcp_target(b"220 mail ESMTP\r\n", b"");
    let world = World::to(address.to_string(), &["--insecure"]);
    let _server = world.sandbox.serve("exch1");
    s_client(world.port, &world.sandbox.ca("exch1"));
    let seen = world.see("the failure", |seen| !seen["failures"].as_array().unwrap().is_empty());
    assert_eq!(seen["failures"][0]["reason"], "not_tls", "{seen:#}");
}
