//! Settings that exist: changed, shown, listed, removed; and what every command has in common.

mod cli_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use cli_support::{Authority, Certificate, Leaf, Live, SServer, Sandbox, free_port, run_to_end, s_client};

/// A sandbox with the forwarder `exch1`, whose target nobody has asked.
fn sandbox() -> (Sandbox, u16) {
    let (sandbox, port) = (Sandbox::new(), free_port());
    sandbox.run(["add", "exch1", &format!("127.0.0.1:{port}"), "192.0.2.1:443", "--offline"]).succeeded();
    (sandbox, port)
}

/// The value of a key that is live in the file.
fn value(sandbox: &Sandbox, key: &str) -> Option<String> {
    let text = sandbox.text("exch1");
    let line = text.lines().find(|line| line.split('=').next().is_some_and(|name| name.trim() == key))?;
    Some(line.split_once('=')?.1.split(" #").next()?.trim().to_owned())
}

fn json(text: &str) -> Value {
    let document: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
    assert_eq!(document["schema"], 1, "{text}");
    document
}

#[test]
fn set_changes_several_keys_at_once() {
    let (sandbox, _) = sandbox();
    let set =
        sandbox.run(["set", "exch1", "min_tls=1.1", "accept=sha1, expired", "idle-timeout=1h", "keepalive_probes=3"]);
    assert_eq!(set.succeeded().stdout, "exch1: in force at its next start\n");
    for (key, expected) in [
        ("min_tls", "\"1.1\""),
        ("accept", "[\"sha1\", \"expired\"]"),
        ("idle_timeout", "\"1h\""),
        ("keepalive_probes", "3"),
    ] {
        assert_eq!(value(&sandbox, key).as_deref(), Some(expected), "{key}");
    }
    sandbox.run(["run", "--check", "exch1"]).succeeded();
    let mode = fs::metadata(sandbox.settings("exch1")).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn an_empty_value_goes_back_to_the_default() {
    let (sandbox, _) = sandbox();
    sandbox.run(["set", "exch1", "min_tls=1.1", "accept=sha1"]).succeeded();
    sandbox.run(["set", "exch1", "min_tls=", "accept="]).succeeded();
    assert_eq!((value(&sandbox, "min_tls"), value(&sandbox, "accept")), (None, None));
    let shown = sandbox.run(["show", "exch1"]).succeeded().stdout;
    assert!(shown.contains("min_tls             = \"1.0\"        # default\n"), "{shown}");
    assert_eq!(sandbox.run(["set", "exch1", "min_tls="]).succeeded().stdout, "exch1: nothing to do\n");
}

#[test]
fn an_admins_comments_and_layout_survive() {
    let (sandbox, _) = sandbox();
    let path = sandbox.settings("exch1");
    let text = "# our old Exchange, ask Olga before you touch it\nformat = 1\n\nlisten   = 9443   # agreed with the firewall people\ntarget=\"ews.corp:443\"\n\n# until the update in March\nmin_tls = \"1.0\"   # sic\n# the end\n";
    fs::write(&path, text).expect("written");
    sandbox.run(["set", "exch1", "min_tls=1.1", "listen=9444"]).succeeded();
    let expected = text.replace("\"1.0\"", "\"1.1\"").replace("listen   = 9443", "listen   = 9444");
    assert_eq!(sandbox.text("exch1"), expected);
}

#[test]
fn a_wrong_change_leaves_everything_as_it_was() {
    let (sandbox, _) = sandbox();
    let other = format!("127.0.0.1:{}", free_port());
    sandbox.run(["add", "exch2", &other, "192.0.2.1:443", "--offline"]).succeeded();
    let ca = Authority::new(sandbox.material.path()).0;
    let ca = format!("ca={}", ca.cert.display());
    let none = sandbox.material.path().join("none.pem").display().to_string();
    let before = sandbox.tree();
    for (changes, code, error) in [
        (&["min_tsl=1.1"][..], 2, "min_tsl: unknown key; did you mean 'min_tls'?\n"),
        (&["format=2"], 2, "format: says how the file is written; it can't be set\n"),
        (&["min_tls"], 2, "'min_tls' is not KEY=VALUE\nhint: ewsbridge show NAME lists the keys\n"),
        (
            &["min_tls=9"],
            2,
            "exch1: min_tls: '9' is not a TLS version: 1.0, 1.1, 1.2 or 1.3\nhint: nothing was changed\n",
        ),
        // The first is right; the second spoils both.
        (&["max_tls=1.1", "min_tls=1.2"], 2, "exch1: min_tls: 1.2 is above max_tls, 1.1\nhint: nothing was changed\n"),
        (&["target="], 2, "exch1: target: is missing; is the file whole?\nhint: nothing was changed\n"),
        (&["ciphers=NO-SUCH-CIPHER"], 2, "--ciphers: 'NO-SUCH-CIPHER' names none that this OpenSSL has"),
        (&["cert=/x"], 2, "exch1: cert: has no 'key' beside it\nhint: nothing was changed\n"),
        (&[&format!("ca={none}")], 1, &format!("{none}: read: no such file or directory\n")),
        // The copy of the authorities is written before the pair turns out to be missing.
        (
            &[&ca, &format!("cert={none}"), &format!("key={none}")],
            1,
            &format!("certificate: {none}: read: no such file"),
        ),
    ] {
        let refused = sandbox.run([&["set", "exch1"], changes].concat()).exited(code);
        assert!(refused.stderr.starts_with(error), "{changes:?}: wanted {error}, got {}", refused.stderr);
        assert_eq!(refused.stdout, "");
        assert_eq!(sandbox.tree(), before, "{changes:?}");
    }
    let taken = sandbox.run(["set", "exch1", &format!("listen={other}")]).exited(1);
    assert!(taken.stderr.ends_with(&format!("belongs to forwarder 'exch2' ({other})\nhint: choose another port\n")));
    sandbox.run(["set", "none", "min_tls=1.1"]).exited(4);
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn new_names_and_foreign_pairs_are_put_in_place_by_set() {
    let (sandbox, port) = sandbox();
    let ca = sandbox.ca("exch1");
    sandbox.run(["set", "exch1", "san=mail.corp,10.20.0.7"]).succeeded();
    let shown = json(&sandbox.run(["cert", "show", "exch1", "--json"]).succeeded().stdout);
    let names = shown["vouches"].as_array().expect("names");
    assert!(names.contains(&"mail.corp".into()) && names.contains(&"10.20.0.7".into()), "{names:?}");
    assert_eq!(fs::read(sandbox.ca("exch1")).expect("PEM"), fs::read(ca).expect("PEM"), "clients must paste anew");

    // Relative paths are those of the admin's folder, not of the service's.
    let own = Certificate::self_signed(sandbox.material.path(), "own");
    let mut command = sandbox.command(["set", "exch1", "cert=own.pem", "key=own.key"]);
    run_to_end(command.current_dir(sandbox.material.path())).succeeded();
    assert_eq!(value(&sandbox, "cert"), Some(format!("\"{}\"", own.cert.display())));
    let target = SServer::tls1(&own);
    sandbox.run(["set", "exch1", &format!("target={}", target.address()), &format!("pin={}", own.pin())]).succeeded();
    let server = sandbox.serve("exch1");
    s_client(port, &own.cert).succeeded().says("subject=CN = own");
    drop(server);

    sandbox.run(["set", "exch1", "cert=", "key="]).succeeded();
    let _server = sandbox.serve("exch1");
    s_client(port, &sandbox.ca("exch1")).succeeded();
}

#[test]
fn an_imported_certificate_is_not_replaced_for_a_name() {
    let sandbox = Sandbox::new();
    let own = Certificate::self_signed(sandbox.material.path(), "own");
    let pfx = sandbox.material.path().join("own.pfx");
    let mut export = Command::new("openssl");
    export.args(["pkcs12", "-export", "-passout", "pass:x", "-in"]).arg(&own.cert).arg("-inkey").arg(&own.key);
    run_to_end(export.arg("-out").arg(&pfx)).succeeded();
    let (password, pfx) = (sandbox.put("password", "x\n").display().to_string(), pfx.display().to_string());
    let words = ["add", "exch1", &format!("127.0.0.1:{}", free_port()), "192.0.2.1:443", "--offline"];
    sandbox.run(words.into_iter().chain(["--pfx", &pfx, "--pfx-password-file", &password])).succeeded();
    let before = sandbox.tree();
    let refused = sandbox.run(["set", "exch1", "san=mail.corp"]).exited(1);
    assert!(refused.stderr.starts_with("exch1: san: the certificate was imported, it has names of its own\nhint: "));
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn show_and_list_tell_everything_as_json_too() {
    let (sandbox, port) = sandbox();
    sandbox
        .run(["add", "exch2", &format!("127.0.0.1:{}", free_port()), "192.0.2.2:443", "--offline", "--insecure"])
        .succeeded();
    fs::write(sandbox.settings("broken"), "format = 1\n").expect("written");

    let listed = json(&sandbox.run(["list", "--json"]).succeeded().stdout);
    let rows = listed["forwarders"].as_array().expect("a list");
    let names: Vec<&Value> = rows.iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["broken", "exch1", "exch2"]);
    assert_eq!((&rows[0]["state"], &rows[0]["listen"]), (&"invalid".into(), &Value::Null));
    assert!(
        rows[0]["problem"].as_str().is_some_and(|text| text.contains("broken.toml: listen: is missing")),
        "{listed}"
    );
    assert_eq!(rows[1]["listen"], format!("127.0.0.1:{port}"));
    assert_eq!((&rows[1]["trust"], &rows[2]["trust"]), (&"system".into(), &"NONE".into()));

    let shown = json(&sandbox.run(["show", "exch1", "--json"]).succeeded().stdout);
    assert_eq!(shown["file"], sandbox.settings("exch1").display().to_string());
    let row = |key: &str| {
        let rows = shown["settings"].as_array().expect("a list");
        rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key}")).clone()
    };
    assert_eq!(row("target")["value"], "\"192.0.2.1:443\"");
    assert_eq!((&row("target")["default"], &row("hello_timeout")["default"]), (&false.into(), &true.into()));
    assert_eq!(row("hello_timeout")["value"], "\"15s\"");

    let checked = sandbox.run(["check", "exch2", "--json"]).exited(1);
    let checked = json(&checked.stdout);
    assert_eq!(checked["ok"], false);
    assert!(checked["failures"].as_u64().is_some_and(|count| count > 0), "{checked}");
    assert!(
        checked["steps"].as_array().is_some_and(|steps| steps.iter().any(|step| step["result"] == "fail")),
        "{checked}"
    );
}

#[test]
fn an_empty_list_is_a_list() {
    let sandbox = Sandbox::new();
    assert_eq!(json(&sandbox.run(["list", "--json"]).succeeded().stdout)["forwarders"], serde_json::json!([]));
    let listed = sandbox.run(["list"]).succeeded();
    assert_eq!(listed.stdout, "");
    assert!(listed.stderr.contains("ewsbridge add NAME PORT HOST:PORT"), "{}", listed.stderr);
    assert!(sandbox.tree().files().is_empty());
}

#[test]
fn remove_leaves_the_authority_alone_and_nothing_else() {
    let (sandbox, port) = sandbox();
    let authority = Authority::new(sandbox.material.path());
    let target = SServer::tls1(&Leaf::default().issue(sandbox.material.path(), Some(&authority)));
    let ca = format!("ca={}", authority.0.cert.display());
    sandbox.run(["set", "exch1", &format!("target={}", target.address()), &ca]).succeeded();
    let pasted = fs::read(sandbox.ca("exch1")).expect("PEM");
    assert_eq!(sandbox.run(["remove", "exch1"]).succeeded().stdout, "exch1: removed\n");
    let left: Vec<String> = sandbox.tree().files().iter().map(|path| path.display().to_string()).collect();
    assert_eq!(left, ["var/ca/ca.key", "var/ca/ca.pem"]);
    sandbox.run(["remove", "exch1"]).exited(4).says("exch1: no such forwarder: ").says("hint: ewsbridge list");
    // What clients have pasted holds for the next one.
    sandbox.run(["add", "exch9", &format!("127.0.0.1:{port}"), "192.0.2.1:443", "--offline"]).succeeded();
    assert_eq!(fs::read(sandbox.ca("exch9")).expect("PEM"), pasted);
}

#[test]
fn cert_show_prints_what_is_pasted_and_nothing_else_on_stdout() {
    let (sandbox, _) = sandbox();
    let shown = sandbox.run(["cert", "show", "exch1"]).succeeded();
    assert!(
        shown.stdout.starts_with("-----BEGIN CERTIFICATE-----\n")
            && shown.stdout.ends_with("-----END CERTIFICATE-----\n")
    );
    assert_eq!(shown.stdout.matches("BEGIN").count(), 1);
    assert_eq!(shown.stdout, fs::read_to_string(sandbox.var().join("ca/ca.pem")).expect("the CA"));
    for told in ["Clients of exch1 must trust this local CA", "  SHA-256     sha256:", "  Thumbprint  "] {
        assert!(shown.stderr.contains(told), "{}", shown.stderr);
    }
    let fingerprint = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(sandbox.var().join("ca/ca.pem"))
        .output()
        .expect("openssl");
    let fingerprint = String::from_utf8_lossy(&fingerprint.stdout).to_lowercase().replace(':', "");
    let fingerprint = fingerprint.trim().rsplit('=').next().unwrap_or_default().to_owned();
    let document = json(&sandbox.run(["cert", "show", "exch1", "--json"]).succeeded().stdout);
    assert_eq!(document["sha256"], format!("sha256:{fingerprint}"));
    assert_eq!(document["pem"], shown.stdout);
}

#[test]
fn completions_are_there_for_the_usual_shells() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.run(["completions", shell]).succeeded();
        assert!(script.stdout.lines().count() > 50 && script.stderr.is_empty(), "{shell}: {script:?}");
        for word in ["renew", "half-close-timeout"] {
            assert!(script.stdout.contains(word), "{shell} completes no {word}");
        }
    }
    let script = sandbox.put("ewsbridge.bash", sandbox.run(["completions", "bash"]).stdout);
    run_to_end(Command::new("bash").arg("-n").arg(script)).succeeded();
    sandbox.run(["completions", "command.com"]).exited(2);
}

#[test]
fn version_tells_the_openssl_it_carries() {
    let told = Sandbox::new().run(["--version"]).succeeded().stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], format!("ewsbridge {}", env!("CARGO_PKG_VERSION")));
    assert!(lines[1].starts_with("OpenSSL 3."), "{told}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn every_command_has_the_exit_codes_of_the_table() {
    let sandbox = Sandbox::new();
    for words in [
        &["show", "none"][..],
        &["set", "none", "min_tls=1.1"],
        &["remove", "none"],
        &["check", "none"],
        &["trust", "none"],
        &["cert", "show", "none"],
        &["cert", "renew", "none"],
        &["run", "none"],
        &["run", "--check", "none"],
        &["run", "--all"],
    ] {
        let told = sandbox.run(words).exited(4);
        assert!(told.stderr.contains("hint: ewsbridge "), "{words:?}: {}", told.stderr);
    }
    for words in [&[][..], &["frobnicate"], &["run"], &["list", "--frobnicate"], &["cert"], &["run", "--listen", "1"]] {
        sandbox.run(words).exited(2);
    }
    for words in [&["--help"][..], &["add", "--help"], &["run", "--help"]] {
        assert!(sandbox.run(words).succeeded().stdout.contains("Usage: ewsbridge"));
    }
    assert!(sandbox.tree().files().is_empty());
}

#[test]
fn run_ends_on_sigterm_with_zero() {
    let (sandbox, _) = sandbox();
    let server: Live = sandbox.serve("exch1");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.finish().succeeded().says("stopped");
}

#[test]
fn the_folders_come_by_flag_as_well() {
    let sandbox = Sandbox::new();
    let (etc, var) = (sandbox.root().join("e").display().to_string(), sandbox.root().join("v").display().to_string());
    let words = ["--config-dir", &etc, "--state-dir", &var, "add", "exch1", &format!("127.0.0.1:{}", free_port())];
    sandbox.run(words.into_iter().chain(["192.0.2.1:443", "--offline"])).succeeded();
    assert!(sandbox.root().join("e/forwarders/exch1.toml").exists() && sandbox.root().join("v/ca/ca.pem").exists());
    assert!(!sandbox.etc().exists() && !sandbox.var().exists());
}

#[test]
fn outbound_auto_searches_again_and_writes_what_it_finds() {
    let sandbox = Sandbox::new();
    let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let weak = SServer::start(&certificate, &["-tls1_2", "-cipher", "DHE-RSA-AES128-SHA256:@SECLEVEL=0"]);
    let (listen, target) = (format!("127.0.0.1:{}", free_port()), weak.address());
    sandbox.run(["add", "exch1", &listen, &target, "--insecure", "--offline"]).succeeded();
    let before = sandbox.text("exch1");

    let refused = sandbox.run(["set", "exch1", "outbound=auto"]).exited(5);
    assert!(refused.stderr.contains("can't do without what is weak: DHE"), "{}", refused.stderr);
    assert!(refused.stderr.contains("ewsbridge set exch1 outbound=auto --allow-weak"), "{}", refused.stderr);
    sandbox.run(["set", "exch1", "outbound=manual"]).exited(2);
    sandbox.run(["set", "exch1", "outbound=auto", "max_tls=1.1"]).exited(2);
    assert_eq!(sandbox.text("exch1"), before, "what was refused has changed something");

    // As the hint says.
    sandbox.run(["set", "exch1", "outbound=auto", "--allow-weak"]).succeeded();
    assert_eq!(value(&sandbox, "allow_weak").as_deref(), Some("[\"dhe\"]"));
    assert_eq!(value(&sandbox, "security_level").as_deref(), Some("2"));
    assert!(sandbox.text("exch1").contains("# auto: refused without"));
    let list = sandbox.run(["list"]).succeeded();
    assert!(list.stdout.contains("weak towards the target: DHE in the server's own group"), "{}", list.stdout);
}
