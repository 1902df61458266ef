//! Several targets in the commands: each is looked at, one that is down is told of and no obstacle.

mod cli_support;

use std::fs;

use cli_support::{Authority, Certificate, Leaf, Live, SServer, Sandbox, free_port, s_client};

fn here(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Two servers with a certificate each, which nothing here trusts.
fn pair(sandbox: &Sandbox) -> [(Certificate, SServer); 2] {
    ["EXCH1", "EXCH2"].map(|name| {
        let certificate = Certificate::self_signed(sandbox.material.path(), name);
        let server = SServer::tls1(&certificate);
        (certificate, server)
    })
}

fn both(pair: &[(Certificate, SServer); 2]) -> String {
    format!("{},{}", pair[0].1.address(), pair[1].1.address())
}

#[test]
fn add_examines_each_target_and_run_serves_by_the_other_when_one_goes() {
    let sandbox = Sandbox::new();
    let authority = Authority::new(sandbox.material.path());
    let issue = |name| Leaf { name, ..Leaf::default() }.issue(sandbox.material.path(), Some(&authority));
    let servers = [issue("EXCH1"), issue("EXCH2")].map(|certificate| SServer::tls1(&certificate));
    let targets = format!("{},{}", servers[0].address(), servers[1].address());
    let ca = authority.0.cert.display().to_string();
    let port = free_port();
    let added = sandbox.run(["add", "exch1", &here(port), &targets, "--ca", &ca]).succeeded();
    for server in &servers {
        let address = server.address();
        assert!(added.stderr.contains(&format!("  ok    target {address} speaks TLS 1.0 ")), "{}", added.stderr);
        assert!(added.stderr.contains(&format!("  ok    target {address} certificate: CN=EXCH")), "{}", added.stderr);
    }
    let proof = format!("TLS 1.0 out to {}, /EWS/Exchange.asmx answers 200", servers[0].address());
    let added = added.says(&proof);
    assert!(added.stdout.contains(&format!(" -> {targets}\n")), "{}", added.stdout);
    assert!(sandbox.text("exch1").contains(&format!("\ntarget = \"{targets}\"")), "{}", sandbox.text("exch1"));
    let listed = sandbox.run(["list"]).succeeded();
    assert!(listed.stdout.contains(&targets), "{}", listed.stdout);

    let shown = sandbox.ca("exch1");
    let live: Live = sandbox.serve("exch1");
    let checked = sandbox.run(["check", "exch1"]).succeeded();
    let first = format!("; {} is the first that answers", servers[0].address());
    assert!(
        checked.stdout.contains(&first) && checked.stdout.contains("; 0 warnings, 0 failures"),
        "{}",
        checked.stdout
    );
    let [gone, left] = servers;
    let (gone_at, left_at) = (gone.address(), left.address());
    drop(gone);
    s_client(port, &shown).succeeded().says("Verification: OK");
    live.wait_for(&format!("target {gone_at}: connect: connection refused; {left_at} is used; tried again in 1s"));
    let checked = sandbox.run(["check", "exch1"]).succeeded();
    assert!(
        checked.stdout.contains(&format!("  warn  target {gone_at}: connect: connection refused")),
        "{}",
        checked.stdout
    );
    assert!(checked.stdout.contains(&format!("; {left_at} is the first that answers")), "{}", checked.stdout);
    assert!(checked.stdout.contains("exch1: the path works; 1 warning, 0 failures"), "{}", checked.stdout);
    drop(left);
    let checked = sandbox.run(["check", "exch1"]).exited(1);
    assert_eq!(checked.stdout.matches("  FAIL  target ").count(), 2, "{}", checked.stdout);
}

#[test]
fn target_that_is_down_is_a_warning_of_add_and_all_that_are_down_are_its_failure() {
    let sandbox = Sandbox::new();
    let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let server = SServer::tls1(&certificate);
    let (down, up) = (here(free_port()), server.address());
    let warning = format!("  warn  target {down}: connect: connection refused; passed over until it answers\n");
    for (name, targets) in [("first-down", format!("{down},{up}")), ("second-down", format!("{up},{down}"))] {
        let words = ["add", name, &here(free_port()), &targets, "--pin", &certificate.pin()];
        let added = sandbox.run(words).succeeded().says(&format!("out to {up}, "));
        assert_eq!(added.stderr.matches(&warning).count(), 1, "{}", added.stderr);
    }
    let before = sandbox.tree();
    let other = here(free_port());
    let failed =
        sandbox.run(["add", "both-down", &here(free_port()), &format!("{down},{other}"), "--pin", &certificate.pin()]);
    let error = failed.exited(1).error();
    let cause =
        format!("both-down: target {down}: connect: connection refused; target {other}: connect: connection refused\n");
    assert!(error.starts_with(&cause) && error.contains("hint: nothing listens there"), "{error}");
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn add_asks_for_each_certificate_and_keeps_those_that_were_trusted() {
    let sandbox = Sandbox::new();
    let servers = pair(&sandbox);
    let pins = [servers[0].0.pin(), servers[1].0.pin()];
    let port = here(free_port());
    let words = ["add", "exch1", &port, &both(&servers), "--no-input"];
    let first = sandbox.run(words).exited(5);
    assert!(first.error().contains(&format!("--pin {}\n", pins[0])), "{}", first.stderr);
    let second = sandbox.run([&words[..], &["--pin", &pins[0]]].concat()).exited(5);
    assert!(
        second.error().contains(&format!("target {}: certificate: is not the pinned one", servers[1].1.address())),
        "{}",
        second.stderr
    );
    assert!(second.error().contains(&format!(" --pin {} --pin {}", pins[0], pins[1])), "{}", second.stderr);
    sandbox.run([&words[..], &["--pin", &pins[0], "--pin", &pins[1]]].concat()).succeeded();
    let text = sandbox.text("exch1");
    assert!(pins.iter().all(|pin| text.contains(pin)), "{text}");
}

#[test]
fn trust_compares_each_target_and_drops_no_pin_that_another_needs() {
    let sandbox = Sandbox::new();
    let servers = pair(&sandbox);
    let pins = [servers[0].0.pin(), servers[1].0.pin()];
    sandbox.run(["add", "exch1", &here(free_port()), &both(&servers), "--offline", "--pin", &pins[0]]).succeeded();
    let [first, second] = [servers[0].1.address(), servers[1].1.address()];
    let json = sandbox.run(["trust", "exch1", "--json"]).succeeded().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["ok"], false, "{json}");
    assert_eq!(json["presented"], *pins[1], "{json}");
    assert_eq!(json["targets"][0]["target"], *first, "{json}");
    assert_eq!(json["targets"][0]["pinned"], true, "{json}");
    assert_eq!(json["targets"][1]["presented"], *pins[1], "{json}");
    let undecided = sandbox.run(["trust", "exch1", "--no-input"]).exited(5);
    let error = format!("exch1: target {second}'s certificate is not pinned\n");
    assert!(undecided.stderr.starts_with(&error), "{}", undecided.stderr);
    sandbox.run(["trust", "exch1", "--pin", &pins[1]]).succeeded();
    for pin in &pins {
        assert!(sandbox.text("exch1").contains(pin), "{}", sandbox.text("exch1"));
    }
    sandbox.run(["trust", "exch1"]).succeeded().says("nothing to do");

    // A pin that none shows any more goes, unless there is one that can't be asked.
    let stale = format!("sha256:{}", "ab".repeat(32));
    let outdate = || {
        let text = sandbox.text("exch1").replace(&pins[0], &stale);
        fs::write(sandbox.settings("exch1"), text).expect("written");
        sandbox.run(["trust", "exch1", "--pin", &pins[0]]).succeeded();
        [&pins[0], &pins[1], &stale].map(|pin| sandbox.text("exch1").contains(pin))
    };
    assert_eq!(outdate(), [true, true, false]);
    let [_first, (_, server)] = servers;
    drop(server);
    assert_eq!(outdate(), [true, true, true]);
}

#[test]
fn reload_takes_new_targets_over_and_takes_each_for_good() {
    let sandbox = Sandbox::new();
    let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let (first, second) = (free_port(), SServer::tls1(&certificate));
    let port = free_port();
    let targets = format!("{},{}", here(first), second.address());
    sandbox.run(["add", "exch1", &here(port), &targets, "--pin", &certificate.pin()]).succeeded();
    let shown = sandbox.ca("exch1");
    let live = sandbox.serve("exch1");
    let told = format!("target {}: connect: connection refused; {} is used", here(first), second.address());
    s_client(port, &shown).succeeded();
    live.wait_for(&told);
    // It fails for the third time after 3 s, and is passed over for 4 s then.
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_millis(3300) {
        s_client(port, &shown).succeeded();
    }
    let _first = SServer::start_at(&certificate, first, &["-tls1", "-www", "-cipher", "ALL:@SECLEVEL=0"]);
    sandbox.run(["reload", "exch1"]).succeeded();
    s_client(port, &shown).succeeded().says("Verification: OK");
    live.wait_for(&format!("target={} ", here(first)));
    assert!(began.elapsed() < std::time::Duration::from_secs(7), "its time was up");
    // Another list is in force for the next connection.
    let third = SServer::tls1(&certificate);
    let set = format!("target={},{}", here(free_port()), third.address());
    sandbox.run(["set", "exch1", &set]).succeeded().says("in force for new connections");
    s_client(port, &shown).succeeded().says("Verification: OK");
    live.wait_for(&format!("target={} ", third.address()));
}

#[test]
fn outbound_auto_finds_what_all_targets_together_need() {
    let sandbox = Sandbox::new();
    let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let modern = SServer::start(&certificate, &["-tls1_2", "-www"]);
    let old = SServer::tls1(&certificate);
    let targets = format!("{},{}", modern.address(), old.address());
    let added = sandbox.run(["add", "exch1", &here(free_port()), &targets, "--pin", &certificate.pin()]).succeeded();
    let added = added.says(&format!("target {} speaks TLS 1.2 ", modern.address()));
    added.says(&format!("target {} speaks TLS 1.0 ", old.address()));
    assert!(sandbox.text("exch1").contains("\nsecurity_level = 0 "), "{}", sandbox.text("exch1"));
}

#[test]
fn probe_reports_each_target_and_fails_if_none_answers() {
    let sandbox = Sandbox::new();
    let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let server = SServer::tls1(&certificate);
    let (down, up) = (here(free_port()), server.address());
    let probed = sandbox.run(["probe", &format!("{down},{up}")]).succeeded();
    assert!(probed.stdout.contains(&format!("target {down}: connect: ")), "{}", probed.stdout);
    assert!(probed.stdout.contains(&format!("ewsbridge add NAME PORT {up} ")), "{}", probed.stdout);
    let json = sandbox.run(["probe", "--json", &format!("{up},{down}")]).succeeded().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (&json["ok"], &json["targets"][0]["ok"], &json["targets"][1]["ok"]),
        (&true.into(), &true.into(), &false.into()),
        "{json}"
    );
    assert_eq!(json["targets"][0]["target"], *up, "{json}");
    sandbox.run(["probe", &format!("{down},{}", here(free_port()))]).exited(1);
}

#[test]
fn bad_lists_of_targets_are_refused_in_one_sentence() {
    let sandbox = Sandbox::new();
    sandbox.run(["add", "x", &here(free_port()), "192.0.2.1:443,192.0.2.2:443", "--offline"]).succeeded();
    let before = sandbox.tree();
    for (list, error) in [
        ("a:443,", "'a:443,' has nothing beside a comma; an example: ews1.corp:443,ews2.corp:443"),
        ("a:443,A:443", "'a:443' stands there twice"),
        ("a:443,b", "'b' has no port; an example: b:443"),
        ("a:443;b:443", "'a:443;b:443': an IPv6 address stands in brackets, [a:443;b]:443"),
    ] {
        for (words, told) in [
            (&["add", "y", "9443", list][..], "HOST:PORT: "),
            (&["probe", list], "HOST:PORT: "),
            (&["set", "x", &format!("target={list}")], "x: target: "),
            (&["run", "--listen", "127.0.0.1:0", "--target", list], "--target: "),
        ] {
            let refused = sandbox.run(words).exited(2);
            assert!(refused.stderr.starts_with(&format!("{told}{error}\n")), "{words:?}: {}", refused.stderr);
        }
    }
    assert_eq!(sandbox.tree(), before);
    sandbox.run(["set", "x", "target=192.0.2.3:443,192.0.2.4:8443"]).succeeded();
    assert!(sandbox.text("x").contains("target = \"192.0.2.3:443,192.0.2.4:8443\""), "{}", sandbox.text("x"));
}
