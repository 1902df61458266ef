//! The log as JSON: one object a line, of each kind of event, with types as documented.

mod cli_support;

use std::process::Command;

use cli_support::{Certificate, Live, Sandbox, free_port, s_client, tcp_target, tls_target};
use serde_json::Value;

/// A forwarder `exch1` to one server.
struct World {
    sandbox: Sandbox,
    port: u16,
}

impl World {
    fn to(target: &str, trust: &[&str]) -> Self {
        let (sandbox, port) = (Sandbox::new(), free_port());
        let words = ["add", "exch1", &format!("127.0.0.1:{port}"), target, "--offline"];
        sandbox.run(words.iter().chain(trust)).succeeded();
        Self { sandbox, port }
    }

    fn connect(&self) {
        s_client(self.port, &self.sandbox.ca("exch1"));
    }
}

fn serve(command: &mut Command) -> Live {
    let live = Live::spawn(command);
    live.wait_for("\"event\":\"listening\"");
    live
}

/// Every line is an object; the first of this event.
fn event(server: &Live, name: &str) -> Value {
    server.wait_for(&format!("\"event\":\"{name}\""));
    let said = server.said();
    let parsed = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines: Vec<Value> = said.lines().map(parsed).collect();
    lines.into_iter().find(|line| line["event"] == name).unwrap()
}

#[test]
fn a_session_is_an_object_with_numbers_as_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = Certificate::self_signed(folder.path(), "EXCH1");
    let world = World::to(&tls_target(&certificate).to_string(), &["--pin", &certificate.pin()]);
    let server = serve(&mut world.sandbox.command(["run", "exch1", "--log-format", "json"]));
    world.connect();
    let listening = event(&server, "listening");
    assert_eq!((&listening["level"], &listening["forwarder"]), (&"info".into(), &"exch1".into()));
    let session = event(&server, "session_closed");
    for key in ["time", "client", "target", "tls_in", "suite_in", "tls_out", "suite_out", "ended_by", "end"] {
        assert!(session[key].is_string(), "{key} in {session}");
    }
    assert!(session["up_bytes"].is_u64() && session["down_bytes"].is_u64(), "{session}");
    assert!(session["seconds"].is_f64() && session["resumed"].is_boolean(), "{session}");
    assert_eq!(session["message"], "session closed");
    let time = session["time"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let line = server.said().lines().last().unwrap_or_default().to_owned();
    assert!(
        line.starts_with("{\"time\":\"") && line.contains("\"message\":\"session closed\",\"forwarder\":"),
        "{line}"
    );
}

#[test]
fn a_failure_is_an_object_with_its_cure() {
    let world = World::to(&tcp_target(b"220 mail ESMTP\r\n", b"").to_string(), &["--insecure"]);
    let mut command = world.sandbox.command(["run", "exch1"]);
    let server = serve(command.env("EWSBRIDGE_LOG_FORMAT", "json"));
    world.connect();
    let failure = event(&server, "target_failed");
    assert_eq!(failure["level"], "warning");
    assert!(failure["message"].as_str().unwrap().starts_with("target 127.0.0.1:"), "{failure}");
    assert!(failure["client"].is_string(), "{failure}");
    assert_eq!(event(&server, "setting_weak")["level"], "warning");
}

#[test]
fn a_form_that_does_not_exist_is_refused() {
    let world = World::to("192.0.2.1:443", &[]);
    let said = world.sandbox.run(["run", "exch1", "--log-format", "xml"]).exited(2);
    assert!(said.stderr.contains("possible values: text, json"), "{}", said.stderr);
}
