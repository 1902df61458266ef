//! A running forwarder takes over what its files say, without a restart and without a lost connection.

mod cli_support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use cli_support::{Certificate, Live, Sandbox, free_port, fresh_key, s_client, tls_target};

/// A forwarder `exch1` to one old server, and a second server that it may go to.
struct World {
    sandbox: Sandbox,
    port: u16,
    ca: PathBuf,
    first: (Certificate, String),
    second: (Certificate, String),
}

impl World {
    fn new() -> Self {
        let (sandbox, port) = (Sandbox::new(), free_port());
        let server = |name| {
            let certificate = Certificate::self_signed(sandbox.material.path(), name);
            let address = tls_target(&certificate).to_string();
            (certificate, address)
        };
        let (first, second) = (server("FIRST"), server("SECOND"));
        let listen = format!("127.0.0.1:{port}");
        let words = ["add", "exch1", &listen, &first.1, "--offline", "--pin", &first.0.pin()];
        sandbox.run(words).succeeded();
        let ca = sandbox.ca("exch1");
        Self { sandbox, port, ca, first, second }
    }

    fn control(&self) -> PathBuf {
        self.sandbox.var().join("control/exch1")
    }

    /// Changes the file by hand, as an editor does.
    fn edit(&self, from: &str, to: &str) {
        let text = self.sandbox.text("exch1");
        assert!(text.contains(from), "{text}");
        fs::write(self.sandbox.settings("exch1"), text.replacen(from, to, 1)).expect("written");
    }

    /// A client that has shaken hands, and has asked nothing yet.
    fn open(&self) -> Live {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port), "-verify_return_error", "-CAfile"]);
        client.arg(&self.ca).env_remove("OPENSSL_CONF");
        let client = Live::spawn_with_input(&mut client);
        client.wait_for("Verify return code: 0 (ok)");
        client
    }

    /// Whether a new connection gets through to a server.
    fn is_served(&self) -> bool {
        let said = s_client(self.port, &self.ca);
        said.code == 0 && said.stdout.contains("Verify return code: 0 (ok)")
    }
}

/// A connection that was open before is served by the one that it had.
#[track_caller]
fn goes_on(mut client: Live) {
    client.input("GET / HTTP/1.0\r\n\r\n");
    client.wait_for("HTTP/1.0 200 ok");
    client.finish().succeeded();
}

#[test]
fn new_connections_go_to_the_new_target_and_open_ones_stay_with_the_old() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    let client = world.open();
    world.edit(&world.first.1, &world.second.1);
    world.edit(&world.first.0.pin(), &world.second.0.pin());
    world.sandbox.run(["reload", "exch1"]).succeeded().says("exch1: reloaded; 1 open connection goes on as it was\n");
    assert!(world.is_served());
    server.wait_for(&format!("target={} ", world.second.1));
    goes_on(client);
    server.wait_for("session closed forwarder=exch1 client=127.0.0.1:");
    let sessions = server.said();
    let old = sessions.lines().rfind(|line| line.contains("session closed")).expect("a session");
    assert!(old.contains(&format!("target={}", world.first.1)), "{old}");
}

#[test]
fn set_is_in_force_for_new_connections_and_cuts_no_open_one() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    let client = world.open();
    let changes = [format!("target={}", world.second.1), format!("pin={}", world.second.0.pin())];
    let said = world.sandbox.run(["set", "exch1"].into_iter().chain(changes.iter().map(String::as_str))).succeeded();
    said.says("exch1: in force for new connections; open ones go on as they were\n");
    assert!(world.is_served());
    server.wait_for(&format!("reloaded forwarder=exch1 target={} open=1", world.second.1));
    goes_on(client);
}

#[test]
fn trust_that_changed_is_asked_of_new_connections_also_where_a_session_could_be_resumed() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    assert!(world.is_served());
    world.edit(&world.first.0.pin(), &world.second.0.pin());
    world.sandbox.run(["reload", "exch1"]).succeeded();
    assert!(!world.is_served(), "a server that is no longer trusted was reached");
    server.wait_for("certificate: is not the pinned one");
    world.edit(&world.second.0.pin(), &world.first.0.pin());
    world.sandbox.run(["reload", "exch1"]).succeeded();
    assert!(world.is_served());
}

#[test]
fn a_certificate_that_changed_is_served_at_once() {
    let world = World::new();
    let _server = world.sandbox.serve("exch1");
    let client = world.open();
    world.sandbox.run(["cert", "renew", "exch1", "--force"]).succeeded();
    let new = fs::read_to_string(world.sandbox.identity("exch1").join("cert.pem")).expect("PEM");
    let leaf = new.split_inclusive("-----END CERTIFICATE-----\n").next().expect("a leaf");
    assert!(!s_client(world.port, &world.ca).stdout.contains(leaf));
    world.sandbox.run(["reload", "exch1"]).succeeded();
    s_client(world.port, &world.ca).succeeded().says(leaf);
    goes_on(client);
}

#[test]
fn a_foreign_certificate_that_changed_is_copied_by_reload() {
    let world = World::new();
    let own = Certificate::self_signed(world.sandbox.material.path(), "own");
    let (cert, key) = (format!("cert={}", own.cert.display()), format!("key={}", own.key.display()));
    world.sandbox.run(["set", "exch1", &cert, &key]).succeeded();
    let _server = world.sandbox.serve("exch1");
    let next = Certificate::self_signed(world.sandbox.material.path(), "next");
    fs::copy(&next.cert, &own.cert).expect("replaced");
    fs::copy(&next.key, &own.key).expect("replaced");
    world.sandbox.run(["reload", "exch1"]).succeeded();
    s_client(world.port, &next.cert).succeeded().says(&next.pem());

    // Half of a new pair: neither half is taken.
    fs::write(&own.key, fresh_key(2048).private_key_to_pem_pkcs8().expect("PEM")).expect("replaced");
    world.sandbox.run(["reload", "exch1"]).exited(1).error();
    s_client(world.port, &next.cert).succeeded().says(&next.pem());
}

#[test]
fn a_broken_file_is_refused_and_the_old_settings_serve() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    let client = world.open();
    let good = world.sandbox.text("exch1");
    let path = world.sandbox.settings("exch1");
    fs::write(&path, format!("{good}tagret = \"x:1\"\nhello_timeout = 3\n")).expect("written");

    let refused = world.sandbox.run(["reload", "exch1"]).exited(78);
    assert!(refused.stderr.contains("tagret: unknown key"), "{}", refused.stderr);
    assert!(refused.stderr.ends_with("hint: the old settings are in force\n"), "{}", refused.stderr);
    assert!(world.is_served());

    server.signal(Signal::SIGHUP);
    let line = server.wait_for("the old settings are in force");
    assert!(line.contains(" ERROR reload: "), "{line}");
    assert!(line.contains("tagret: unknown key") && line.contains("hello_timeout: "), "not in one line: {line}");
    assert!(world.is_served());

    fs::remove_file(&path).expect("removed");
    server.signal(Signal::SIGHUP);
    server.wait_for("does not exist; the old settings are in force");
    assert!(world.is_served());

    fs::write(&path, good).expect("written");
    server.signal(Signal::SIGHUP);
    server.wait_for("reloaded forwarder=exch1");
    goes_on(client);
}

#[test]
fn a_pair_that_does_not_match_is_refused_as_a_whole() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    world.edit(&world.first.1, &world.second.1);
    let other = fresh_key(2048).private_key_to_pem_pkcs8().expect("PEM");
    fs::write(world.sandbox.identity("exch1").join("key.pem"), other).expect("replaced");
    server.signal(Signal::SIGHUP);
    let line = server.wait_for("the old settings are in force");
    assert!(line.contains("its key is not the one in "), "{line}");
    // Neither the certificate nor the target has changed.
    s_client(world.port, &world.ca).succeeded().says("Verify return code: 0 (ok)");
    server.wait_for(&format!("target={} tls_in", world.first.1));
}

#[test]
fn ciphers_that_openssl_refuses_are_refused_and_name_the_cause() {
    let world = World::new();
    let _server = world.sandbox.serve("exch1");
    fs::write(
        world.sandbox.settings("exch1"),
        format!("{}ca = \"/nowhere.pem\"\n", world.sandbox.text("exch1").replace("\npin = ", "\n#pin = ")),
    )
    .expect("written");
    let refused = world.sandbox.run(["reload", "exch1"]).exited(1);
    assert!(
        refused.stderr.contains("exch1: reload: ") && refused.stderr.contains("/nowhere.pem"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("; the old settings are in force\n"), "{}", refused.stderr);
    assert!(world.is_served());
}

#[test]
fn a_changed_listen_address_is_refused_and_a_restart_asked_for() {
    let world = World::new();
    let _server = world.sandbox.serve("exch1");
    let elsewhere = free_port();
    world.edit(&format!("127.0.0.1:{}", world.port), &format!("127.0.0.1:{elsewhere}"));
    let refused = world.sandbox.run(["reload", "exch1"]).exited(1);
    let text =
        format!("restart needed: it listens on 127.0.0.1:{}, and the file says 127.0.0.1:{elsewhere}", world.port);
    assert!(refused.stderr.contains(&text), "{}", refused.stderr);
    assert!(world.is_served());
}

#[test]
fn what_does_not_run_is_not_reloaded_and_exits_with_3() {
    let world = World::new();
    for command in ["reload", "drain"] {
        let told = world.sandbox.run([command, "exch1"]).exited(3);
        assert_eq!(told.stderr, "exch1: it does not run\nhint: ewsbridge run exch1\n");
        world.sandbox.run([command, "exch2"]).exited(4);
    }
    // A process that was killed leaves its socket behind; the next one takes its place.
    let mut server = world.sandbox.serve("exch1");
    server.signal(Signal::SIGKILL);
    while server.is_alive() {}
    assert!(world.control().exists());
    world.sandbox.run(["reload", "exch1"]).exited(3);
    let server = world.sandbox.serve("exch1");
    world.sandbox.run(["reload", "exch1"]).succeeded();
    server.signal(Signal::SIGTERM);
    server.finish().succeeded();
    assert!(!world.control().exists(), "the socket outlives its process");
}

#[test]
fn drain_refuses_new_connections_and_waits_for_open_ones() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    let client = world.open();
    world.edit("#drain_timeout = \"30s\"", "drain_timeout = \"1s\"");
    world.sandbox.run(["reload", "exch1"]).succeeded();
    let waited = world.sandbox.run(["drain", "exch1"]).exited(1);
    assert!(waited.stderr.contains("exch1: drain: 1 still open after 1s (drain_timeout)\n"), "{}", waited.stderr);
    assert!(std::net::TcpStream::connect(("127.0.0.1", world.port)).is_err(), "it still accepts");

    // A reload is answered while it drains, and is of no use any more.
    world.sandbox.run(["reload", "exch1"]).exited(1).all().contains("it accepts no more connections");
    server.signal(Signal::SIGHUP);
    server.wait_for("reload: it accepts no more connections; the old settings are in force");

    goes_on(client);
    world.sandbox.run(["drain", "exch1"]).succeeded().says("exch1: drained: no connection is open");
    server.signal(Signal::SIGTERM);
    server.finish().succeeded().says("stopped");
}

#[test]
fn sighup_while_it_stops_cuts_nothing_and_does_not_end_it() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    let client = world.open();
    server.signal(Signal::SIGTERM);
    server.wait_for("stopping: open connections may finish");
    server.signal(Signal::SIGHUP);
    server.wait_for("reload: it accepts no more connections");
    goes_on(client);
    server.finish().succeeded().says("stopped");
}

#[test]
fn the_control_socket_is_for_owner_and_group_and_answers_what_it_cannot_read() {
    let world = World::new();
    let _server = world.sandbox.serve("exch1");
    let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(world.control()), 0o660);
    assert_eq!(mode(world.sandbox.var().join("control")), 0o750);
    let long = "x".repeat(10_000);
    let requests = [
        ("{\"version\":2,\"request\":\"reload\"}", "requests of version 2 are not understood here"),
        ("{\"version\":1,\"request\":\"explode\"}", "unknown request"),
        ("reload", "not a request"),
        (&long, "a request is one line of at most"),
    ];
    for (request, answer) in requests {
        let mut stream = UnixStream::connect(world.control()).expect("a control socket");
        // The longest is refused before its end.
        let _ = writeln!(stream, "{request}");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("an answer");
        assert!(line.starts_with("{\"version\":1,\"ok\":false,") && line.contains(answer), "{line}");
    }
    assert!(world.is_served());
}
