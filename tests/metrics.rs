//! Metrics as Prometheus reads them: by HTTP where the settings say, or as a file.

mod cli_support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cli_support::{Certificate, Sandbox, free_port, s_client, tls_target};

/// A forwarder `exch1`, and where its metrics are.
struct World {
    sandbox: Sandbox,
    port: u16,
    metrics: u16,
}

impl World {
    fn new() -> Self {
        let (sandbox, port, metrics) = (Sandbox::new(), free_port(), free_port());
        let certificate = Certificate::self_signed(sandbox.root(), "EXCH1");
        let target = tls_target(&certificate).to_string();
        let listen = format!("127.0.0.1:{port}");
        sandbox.run(["add", "exch1", &listen, &target, "--offline", "--pin", &certificate.pin()]).succeeded();
        sandbox.run(["set", "exch1", &format!("metrics={metrics}")]).succeeded();
        Self { sandbox, port, metrics }
    }

    fn get(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics)).unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }
}

/// Samples by their names and labels.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Prometheus' own judge, on the path or where `tests/servers/fetch` has put it.
fn promtool() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    let cache = folder("EWSBRIDGE_SERVERS").or_else(|| Some(caches()?.join("ewsbridge-servers"))).expect("HOME is set");
    let found = cache.join("promtool/promtool");
    assert!(found.exists(), "{} is missing; fetch it with: tests/servers/fetch", found.display());
    found
}

#[test]
fn prometheus_own_judge_finds_nothing_to_say() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    for _ in 0..3 {
        s_client(world.port, &world.sandbox.ca("exch1"));
    }
    server.wait_for("session closed");
    let (head, page) = world.get("GET /metrics");
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let mut judge = Command::new(promtool());
    let mut judge = judge.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    judge.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = judge.wait_with_output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{}\n{page}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn the_numbers_are_those_of_what_happened() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    for nth in 1..=3 {
        s_client(world.port, &world.sandbox.ca("exch1"));
        while server.said().matches("session closed").count() < nth {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
    let page = world.get("GET /metrics").1;
    let seen = samples(&page);
    let sum = |name: &str| seen.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| value).sum::<f64>();
    assert!((sum("ewsbridge_sessions_total{") - 3.0).abs() < 0.1, "{page}");
    assert!((sum("ewsbridge_handshakes_total{") - 6.0).abs() < 0.1, "three on each side: {page}");
    for (key, value) in [
        ("ewsbridge_up{forwarder=\"exch1\"}", 1.0),
        ("ewsbridge_sessions_open{forwarder=\"exch1\",tls_out=\"1.0\"}", 0.0),
        ("ewsbridge_session_duration_seconds_count{forwarder=\"exch1\"}", 3.0),
        ("ewsbridge_handshake_duration_seconds_count{forwarder=\"exch1\",side=\"outbound\"}", 3.0),
        ("ewsbridge_clients_refused_total{forwarder=\"exch1\",setting=\"max_connections\"}", 0.0),
    ] {
        assert_eq!(seen.get(key), Some(&value), "{key} in\n{page}");
    }
    assert!(page.contains("ewsbridge_certificate_expiry_timestamp_seconds{forwarder=\"exch1\",certificate=\"own\"} "));
    assert!(page.contains("ewsbridge_tls_last_handshake_timestamp_seconds{forwarder=\"exch1\",version=\"1.0\"} "));
    assert!(!page.contains("127.0.0.1:") || !page.contains("client="), "no client's address: {page}");
}

#[test]
fn nothing_but_metrics_is_served_and_nobody_listens_by_default() {
    let world = World::new();
    let server = world.sandbox.serve("exch1");
    assert!(world.get("GET /").0.starts_with("http/1.1 404 "));
    assert!(world.get("POST /metrics").0.starts_with("http/1.1 405 "));
    let (head, body) = world.get("HEAD /metrics");
    assert!(head.starts_with("http/1.1 200 ") && body.is_empty(), "{head}{body}");
    // What is no HTTP, and what never ends its head, hurts nobody.
    let mut odd = TcpStream::connect(("127.0.0.1", world.metrics)).unwrap();
    odd.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    let _silent = TcpStream::connect(("127.0.0.1", world.metrics)).unwrap();
    assert!(world.get("GET /metrics").0.starts_with("http/1.1 200 "));
    // Off by a reload, and on again elsewhere.
    world.sandbox.run(["set", "exch1", "metrics="]).succeeded();
    assert!(TcpStream::connect(("127.0.0.1", world.metrics)).is_err(), "it still listens");
    assert_eq!(server.said().matches("metrics at http://").count(), 1);
}

#[test]
fn a_port_that_is_taken_costs_the_metrics_and_not_the_forwarder() {
    let world = World::new();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", world.metrics)).unwrap();
    let server = world.sandbox.serve("exch1");
    server.wait_for(&format!("metrics on 127.0.0.1:{}: address already in use; there are none", world.metrics));
    s_client(world.port, &world.sandbox.ca("exch1")).succeeded();
}

#[test]
fn a_file_for_the_textfile_collector_is_replaced_as_a_whole() {
    let world = World::new();
    let file = world.sandbox.root().join("ewsbridge.prom");
    let path = file.to_str().unwrap();
    let words = ["status", "--format", "prometheus", "--output", path];
    world.sandbox.run(words).exited(3);
    assert!(fs::read_to_string(&file).unwrap().ends_with("ewsbridge_up{forwarder=\"exch1\"} 0\n"));
    let _server = world.sandbox.serve("exch1");
    let said = world.sandbox.run(words).succeeded();
    assert_eq!(said.stdout, "");
    let page = fs::read_to_string(&file).unwrap();
    assert!(page.contains("ewsbridge_up{forwarder=\"exch1\"} 1\n") && page.ends_with('\n'), "{page}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let failed = world.sandbox.run(["status", "--output", "/nonexistent/x"]).exited(1);
    assert!(failed.stderr.starts_with("/nonexistent/x: create: no such file or directory"), "{}", failed.stderr);
}
