//! The certificate of a pinned target changes: what the forwarder does, and how the admin goes on.

mod cli_support;

use cli_support::{Certificate, SServer, Sandbox, free_port, s_client};

const TLS1: &[&str] = &["-tls1", "-cipher", "ALL:@SECLEVEL=0"];

/// A forwarder pinned to a certificate, whose target now shows another one.
struct Changed {
    sandbox: Sandbox,
    old: Certificate,
    new: Certificate,
    target: SServer,
    port: u16,
}

impl Changed {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let old = Certificate::self_signed(sandbox.material.path(), "OLD");
        let new = Certificate::self_signed(sandbox.material.path(), "NEW");
        let (target, port) = (SServer::start_at(&old, free_port(), TLS1), free_port());
        let words = ["add", "exch1", &format!("127.0.0.1:{port}"), &target.address(), "--pin", &old.pin()];
        sandbox.run(words).succeeded();
        let at = target.port;
        drop(target);
        let target = SServer::start_at(&new, at, TLS1);
        Self { sandbox, old, new, target, port }
    }

    fn pins(&self) -> String {
        let text = self.sandbox.text("exch1");
        let line = text.lines().find(|line| line.starts_with("pin ")).unwrap_or_default();
        line.split(" #").next().unwrap_or_default().trim_start_matches("pin = ").trim().to_owned()
    }
}

#[test]
fn a_running_forwarder_refuses_the_new_certificate_and_names_the_command() {
    let changed = Changed::new();
    let ca = changed.sandbox.ca("exch1");
    let server = changed.sandbox.serve("exch1");
    let refused = s_client(changed.port, &ca);
    assert_ne!(refused.code, 0, "{}", refused.all());
    refused.says("alert handshake failure");
    let line = server.wait_for(" certificate: ");
    let told = format!(
        "target {}: certificate: is not the pinned one; the server shows {}",
        changed.target.address(),
        changed.new.pin()
    );
    assert!(line.contains(" WARN ") && line.contains(&told) && line.contains("ewsbridge trust exch1"), "{line}");

    let checked = changed.sandbox.run(["check", "exch1"]).exited(1);
    assert!(checked.stdout.contains("ewsbridge trust exch1") && checked.stdout.contains("FAIL"), "{}", checked.stdout);
}

#[test]
fn trust_shows_both_certificates_and_decides_nothing_alone() {
    let changed = Changed::new();
    let before = changed.sandbox.tree();
    for (more, add) in [(&[][..], ""), (&["--add"], " --add")] {
        let shown = changed.sandbox.run([&["trust", "exch1"], more].concat()).exited(5);
        let (left, right) = shown.stdout.split_once("the target shows\n").expect("two sides");
        assert_eq!(left, format!("trusted so far\n  SHA-256     {}\n", changed.old.pin()));
        assert!(right.contains("subject     CN=NEW") && right.contains(&changed.new.pin()), "{right}");
        assert_eq!(
            shown.stderr,
            format!(
                "exch1: the target's certificate is not pinned\n\
                 hint: compare it, then: ewsbridge trust exch1{add} --pin {}\n",
                changed.new.pin()
            )
        );
    }
    assert_eq!(changed.sandbox.tree(), before);
}

#[test]
fn a_wrong_pin_is_refused_and_changes_nothing() {
    let changed = Changed::new();
    let before = changed.sandbox.tree();
    let refused = changed.sandbox.run(["trust", "exch1", "--pin", &changed.old.pin()]).exited(1);
    assert_eq!(
        refused.stderr,
        format!(
            "exch1: {} is not what the target shows, {}\nhint: nothing was changed; compare on the server itself\n",
            changed.old.pin(),
            changed.new.pin()
        )
    );
    changed.sandbox.run(["trust", "exch1", "--pin", "sha256:abcd"]).exited(2);
    assert_eq!(changed.sandbox.tree(), before);
}

#[test]
fn the_right_pin_replaces_the_old_one_and_the_path_works_again() {
    let changed = Changed::new();
    let sandbox = &changed.sandbox;
    sandbox.run(["trust", "exch1", "--pin", &changed.new.pin()]).succeeded().says("exch1: pinned");
    assert_eq!(changed.pins(), format!("[\"{}\"]", changed.new.pin()));
    let _server = sandbox.serve("exch1");
    sandbox.run(["check", "exch1"]).succeeded().says("exch1: the path works");
    sandbox.run(["trust", "exch1"]).succeeded().says("exch1: the target shows the pinned certificate; nothing to do");
}

#[test]
fn add_keeps_both_pins_for_a_roll_over() {
    let changed = Changed::new();
    let sandbox = &changed.sandbox;
    sandbox.run(["trust", "exch1", "--add", "--pin", &changed.new.pin()]).succeeded();
    assert_eq!(changed.pins(), format!("[\"{}\", \"{}\"]", changed.old.pin(), changed.new.pin()));
    let _server = sandbox.serve("exch1");
    sandbox.run(["check", "exch1"]).succeeded();
    // Back to the first one: it still holds.
    let at = changed.target.port;
    drop(changed.target);
    let _target = SServer::start_at(&changed.old, at, TLS1);
    sandbox.run(["check", "exch1"]).succeeded();
}

#[test]
fn on_a_terminal_trust_asks_and_enter_alone_refuses() {
    let changed = Changed::new();
    let before = changed.sandbox.tree();
    let words = ["trust", "exch1"];
    let question = "Pin it instead? [yes/no/fingerprint] ";
    changed.sandbox.run_on_terminal(&words, question, "\n").exited(1).says("not pinned");
    assert_eq!(changed.sandbox.tree(), before);
    changed.sandbox.run_on_terminal(&words, question, "yes\n").succeeded();
    assert_eq!(changed.pins(), format!("[\"{}\"]", changed.new.pin()));
}

#[test]
fn json_tells_both_sides_and_changes_nothing() {
    let changed = Changed::new();
    let before = changed.sandbox.tree();
    let text = changed.sandbox.run(["trust", "exch1", "--json"]).succeeded().stdout;
    let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["schema"], 1);
    assert_eq!(document["ok"], false);
    assert_eq!(document["pinned"], serde_json::json!([changed.old.pin()]));
    assert_eq!(document["presented"], changed.new.pin());
    assert_eq!(changed.sandbox.tree(), before);
}

#[test]
fn trusting_a_pin_takes_the_place_of_an_authority() {
    let changed = Changed::new();
    let sandbox = &changed.sandbox;
    let ca = changed.old.cert.display().to_string();
    sandbox.run(["set", "exch1", "pin=", &format!("ca={ca}"), "accept=expired"]).succeeded();
    sandbox.run(["trust", "exch1", "--pin", &changed.new.pin()]).succeeded();
    let list = sandbox.run(["list"]).succeeded().stdout;
    assert!(list.contains(" pin"), "{list}");
    sandbox.run(["run", "--check", "exch1"]).succeeded();
}
