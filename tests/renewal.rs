//! Certificates are renewed in time, without anyone noticing: with the clock moved by `faketime`.

mod cli_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use openssl::x509::X509;

use cli_support::{Certificate, EWSBRIDGE, Live, Outcome, Sandbox, free_port, run_to_end, s_client, tls_target};

/// A sandbox with the forwarder `exch1`, which has an extra name.
fn sandbox() -> (Sandbox, u16) {
    let (sandbox, port) = (Sandbox::new(), free_port());
    let words = ["add", "exch1", &format!("127.0.0.1:{port}"), "192.0.2.1:443", "--offline", "--san", "mail.corp"];
    sandbox.run(words).succeeded();
    (sandbox, port)
}

/// Runs a command when so many days have passed.
#[track_caller]
fn after(days: u32, sandbox: &Sandbox, words: &[&str]) -> Outcome {
    let mut command = Command::new("faketime");
    command.arg(format!("+{days} days")).arg(EWSBRIDGE).args(words);
    sandbox.surround(&mut command);
    run_to_end(&mut command)
}

/// The forwarder's server, a minute of whose time passes in a second.
#[track_caller]
fn fast_server(sandbox: &Sandbox) -> Live {
    // No deadline may pass before a handshake ends.
    let deadlines = ["hello_timeout", "handshake_timeout", "connect_timeout"].map(|key| format!("{key}=30m"));
    sandbox.run(["set", "exch1"].into_iter().chain(deadlines.iter().map(String::as_str))).succeeded();
    let mut command = Command::new("faketime");
    command.args(["-f", "+0 x60", EWSBRIDGE, "run", "exch1"]);
    sandbox.surround(&mut command);
    let live = Live::spawn(&mut command);
    live.wait_for(" listening");
    live
}

fn leaf(folder: &Path) -> X509 {
    X509::from_pem(&fs::read(folder.join("cert.pem")).expect("the certificate")).expect("PEM")
}

fn names(certificate: &X509) -> Vec<String> {
    let names = certificate.subject_alt_names().expect("alternative names");
    names.iter().map(|name| name.dnsname().map_or_else(|| format!("{:?}", name.ipaddress()), str::to_owned)).collect()
}

#[test]
fn a_leaf_past_two_thirds_of_its_life_is_renewed_from_the_same_authority() {
    let (sandbox, _) = sandbox();
    let folder = sandbox.identity("exch1");
    let (old, old_key) = (leaf(&folder), fs::read(folder.join("key.pem")).expect("the key"));
    let ca = fs::read(sandbox.ca("exch1")).expect("PEM");
    after(549, &sandbox, &["cert", "renew", "--all"]).succeeded().says("  ok    exch1: renewed, to ");

    let new = leaf(&folder);
    assert_ne!(new.serial_number().to_bn().expect("a number"), old.serial_number().to_bn().expect("a number"));
    assert_ne!(fs::read(folder.join("key.pem")).expect("the key"), old_key, "the old key lives on");
    assert!(old.not_after() < new.not_after());
    let life = new.not_before().diff(new.not_after()).expect("a difference").days;
    assert!((800..825).contains(&life), "{life} days");
    assert_eq!(names(&new), names(&old));
    assert!(names(&new).contains(&"mail.corp".to_owned()));

    assert_eq!(fs::read(sandbox.ca("exch1")).expect("PEM"), ca, "clients must paste anew");
    let authority = X509::from_pem(&ca).expect("PEM");
    assert!(new.verify(&authority.public_key().expect("a key")).expect("verified"));
    for (file, expected) in [("", 0o750), ("cert.pem", 0o640), ("key.pem", 0o640)] {
        let mode = fs::metadata(folder.join(file)).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, expected, "identity/exch1/{file}");
    }
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 2, "something was left beside the pair");
}

#[test]
fn a_leaf_that_is_not_due_stays_byte_for_byte() {
    let (sandbox, _) = sandbox();
    let before = sandbox.tree();
    for days in [0, 547] {
        after(days, &sandbox, &["cert", "renew", "exch1"]).succeeded().says("exch1: valid to ").says(", not due");
        assert_eq!(sandbox.tree(), before, "after {days} days");
    }
    after(0, &sandbox, &["cert", "renew", "exch1", "--force"]).succeeded().says("exch1: renewed, to ");
    assert_ne!(sandbox.tree(), before);
}

#[test]
fn a_running_forwarder_takes_the_new_leaf_over_without_dropping_a_connection() {
    let (sandbox, port) = sandbox();
    let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let changes = [format!("target={}", tls_target(&certificate)), format!("pin={}", certificate.pin())];
    sandbox.run(["set", "exch1"].into_iter().chain(changes.iter().map(String::as_str))).succeeded();
    let server = fast_server(&sandbox);
    let ca = sandbox.ca("exch1");
    let pem = || String::from_utf8(leaf(&sandbox.identity("exch1")).to_pem().expect("PEM")).expect("ASCII");
    let old = pem();

    // A connection that has asked nothing yet.
    let mut open = Command::new("openssl");
    open.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-verify_return_error", "-CAfile"]).arg(&ca);
    let mut open = Live::spawn_with_input(open.env_remove("OPENSSL_CONF"));
    open.wait_for("Verify return code: 0 (ok)");
    assert!(open.said().contains(&old));

    sandbox.run(["cert", "renew", "exch1", "--force"]).succeeded();
    let new = pem();
    assert_ne!(new, old);
    server.wait_for("certificate loaded forwarder=");
    s_client(port, &ca).succeeded().says("Verification: OK").says(&new);

    open.input("GET / HTTP/1.0\r\n\r\n");
    open.wait_for("HTTP/1.0 200 ok");
    open.finish().succeeded();
}

#[test]
fn a_running_forwarder_keeps_the_old_pair_when_the_new_one_is_broken() {
    let (sandbox, port) = sandbox();
    let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
    let changes = [format!("target={}", tls_target(&certificate)), format!("pin={}", certificate.pin())];
    sandbox.run(["set", "exch1"].into_iter().chain(changes.iter().map(String::as_str))).succeeded();
    let server = fast_server(&sandbox);
    fs::copy(&certificate.key, sandbox.identity("exch1").join("key.pem")).expect("written");
    let line = server.wait_for("still using the old one");
    assert!(line.contains(" ERROR ") && line.contains("its key is not the one in "), "{line}");
    s_client(port, &sandbox.var().join("ca/ca.pem")).succeeded().says("Verification: OK");
    // The renewal repairs it, although the leaf is not due.
    sandbox.run(["cert", "renew", "--all"]).succeeded().says("exch1: renewed, to ");
    server.wait_for("certificate loaded forwarder=");
}

/// A sandbox whose forwarder serves a foreign pair, which lies beside it.
fn foreign() -> (Sandbox, Certificate) {
    let sandbox = Sandbox::new();
    let own = Certificate::self_signed(sandbox.material.path(), "own");
    let (cert, key) = (own.cert.display().to_string(), own.key.display().to_string());
    let words = ["add", "exch1", &format!("127.0.0.1:{}", free_port()), "192.0.2.1:443", "--offline"];
    sandbox.run(words.into_iter().chain(["--cert", &cert, "--key", &key])).succeeded();
    (sandbox, own)
}

#[test]
fn a_foreign_pair_that_changed_on_disk_is_taken_over() {
    let (sandbox, own) = foreign();
    let before = sandbox.tree();
    let unchanged = format!("exch1: {} has not changed", own.cert.display());
    sandbox.run(["cert", "renew", "--all"]).succeeded().says(&unchanged);
    assert_eq!(sandbox.tree(), before);

    let next = Certificate::self_signed(sandbox.material.path(), "next");
    fs::copy(&next.cert, &own.cert).expect("replaced");
    fs::copy(&next.key, &own.key).expect("replaced");
    sandbox.run(["cert", "renew", "--all"]).succeeded().says(&format!("exch1: {} taken over, to ", own.cert.display()));
    assert_eq!(leaf(&sandbox.identity("exch1")).to_der().expect("DER"), next.x509.to_der().expect("DER"));
    sandbox.run(["run", "--check", "exch1"]).succeeded();
}

#[test]
fn a_broken_foreign_pair_leaves_the_old_one_and_the_others_are_renewed() {
    let (sandbox, own) = foreign();
    let port = free_port();
    sandbox.run(["add", "exch2", &format!("127.0.0.1:{port}"), "192.0.2.1:443", "--offline"]).succeeded();
    let other = cli_support::fresh_key(2048).private_key_to_pem_pkcs8().expect("PEM");
    fs::write(&own.key, other).expect("replaced");
    let (mine, theirs) = (leaf(&sandbox.identity("exch1")), leaf(&sandbox.identity("exch2")));

    let (cert, key) = (own.cert.display(), own.key.display());
    let cause = format!("certificate: {cert}: check: its key is not the one in {key}");
    let failed = after(600, &sandbox, &["cert", "renew", "--all"]).exited(1);
    assert!(failed.stderr.contains(&format!("  FAIL  exch1: {cause}\n")), "{}", failed.stderr);
    assert!(failed.stderr.contains("  ok    exch2: renewed, to "), "{}", failed.stderr);
    assert!(failed.stderr.ends_with("not all certificates could be renewed\n"), "{}", failed.stderr);
    let der = |certificate: &X509| certificate.to_der().expect("DER");
    assert_eq!(der(&leaf(&sandbox.identity("exch1"))), der(&mine));
    assert_ne!(der(&leaf(&sandbox.identity("exch2"))), der(&theirs));

    let before = sandbox.tree();
    assert_eq!(sandbox.run(["cert", "renew", "exch1"]).exited(1).error(), format!("{cause}\n"));
    fs::remove_file(&own.cert).expect("removed");
    let gone = format!("certificate: {cert}: read: no such file or directory\n");
    assert_eq!(sandbox.run(["cert", "renew", "exch1"]).exited(1).error(), gone);
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn sighup_right_after_the_start_is_a_reload() {
    let (sandbox, _) = sandbox();
    for _ in 0..5 {
        let server = sandbox.serve("exch1");
        sandbox.run(["cert", "renew", "exch1", "--force"]).succeeded();
        // Without it the look comes once a minute, later than this test waits.
        server.signal(Signal::SIGHUP);
        server.wait_for("reloaded forwarder=");
        server.signal(Signal::SIGTERM);
        server.finish().succeeded();
    }
}
