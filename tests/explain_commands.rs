//! The cures as commands: what `check` prints for a forwarder with a name, run as it is printed, works.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod common;

use std::net::SocketAddr;
use std::time::Duration;

use cli_support::{Outcome, Sandbox, free_port, s_client};
use common::{Act, Certificate, End, Issued, Listening, NodeServer, Pki, SServer, Spec, Tuned, gate};
use openssl::hash::MessageDigest;
use openssl::ssl::{NameType, SniError, SslVerifyMode, SslVersion};

/// A sandbox with the forwarder `x` to this target, added without a look at it.
fn forwarder(target: &impl Listening, flags: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let (listen, target) = (format!("127.0.0.1:{}", free_port()), target.address().to_string());
    sandbox.run([&["add", "x", &listen, &target, "--offline"][..], flags].concat()).succeeded();
    sandbox
}

/// What `check` has to say, and its hint.
fn checked(sandbox: &Sandbox) -> (Outcome, String) {
    let outcome = sandbox.run(["check", "x"]).exited(1);
    let hint =
        outcome.stdout.lines().find_map(|line| line.trim().strip_prefix("hint: ")).unwrap_or_default().to_owned();
    (outcome, hint)
}

/// Runs a printed command, after its open words were filled in.
fn run(sandbox: &Sandbox, hint: &str, open: &[(&str, &str)]) -> Outcome {
    let command =
        hint.split("; ").find_map(|part| part.find("ewsbridge ").map(|at| part[at + 10..].to_owned())).unwrap();
    let command = open.iter().fold(command, |command, (word, value)| command.replacen(word, value, 1));
    sandbox.run(command.split(' '))
}

/// The target's side is in order.
#[track_caller]
fn target_is_fine(sandbox: &Sandbox) {
    let outcome = sandbox.run(["check", "x"]);
    assert!(outcome.stdout.contains("  ok    127.0.0.1, TCP "), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("Target 127.0.0.1\n  FAIL"), "{}", outcome.stdout);
}

#[track_caller]
fn cured(sandbox: &Sandbox, expected: &str, open: &[(&str, &str)]) {
    let (outcome, hint) = checked(sandbox);
    assert_eq!(hint, expected, "{}", outcome.stdout);
    run(sandbox, &hint, open).succeeded();
    target_is_fine(sandbox);
}

fn server(tune: impl FnOnce(&mut openssl::ssl::SslContextBuilder)) -> (Certificate, Tuned) {
    let certificate = Pki::new().server();
    let server = Tuned::serve(&certificate.chain, &certificate.key, tune);
    (certificate, server)
}

#[test]
fn two_settings_at_once() {
    let (certificate, server) = server(|context| context.set_max_proto_version(Some(SslVersion::TLS1)).unwrap());
    let sandbox = forwarder(&server, &["--pin", &certificate.pin(), "--min-tls", "1.2", "--security-level", "2"]);
    cured(&sandbox, "ewsbridge set x min_tls=1.0 security_level=0", &[]);
}

#[test]
fn a_search() {
    let (certificate, server) = server(|context| context.set_min_proto_version(Some(SslVersion::TLS1_2)).unwrap());
    let sandbox = forwarder(&server, &["--pin", &certificate.pin(), "--max-tls", "1.1"]);
    cured(&sandbox, "ewsbridge set x outbound=auto", &[]);
}

#[test]
fn a_search_that_finds_something_weak() {
    let certificate = Pki::new().server();
    let server = NodeServer::start("4.9.1", &certificate, "TLSv1", "RC4-SHA");
    let sandbox = forwarder(&server, &["--pin", &certificate.pin()]);
    let (_, hint) = checked(&sandbox);
    let asked = run(&sandbox, &hint, &[]).exited(5);
    let hint = asked.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    assert!(hint.ends_with("ewsbridge set x outbound=auto --allow-weak"), "{hint}");
    sandbox.run(hint.rsplit_once(": ewsbridge ").unwrap().1.split(' ')).succeeded();
    target_is_fine(&sandbox);
}

#[test]
fn a_search_in_vain() {
    let (certificate, server) = server(|context| context.set_min_proto_version(Some(SslVersion::TLS1_3)).unwrap());
    let sandbox = forwarder(&server, &["--pin", &certificate.pin()]);
    let (_, hint) = checked(&sandbox);
    let before = sandbox.tree();
    let told = run(&sandbox, &hint, &[]).exited(1).stderr;
    assert!(told.contains("; tried TLS 1.2, 1.1, 1.0, with and without extensions"), "{told}");
    assert!(told.contains("\nhint: the server may speak TLS 1.3 alone: allow TLS 1.2 there"), "{told}");
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn faults_of_a_certificate_with_those_accepted_by_now() {
    let root = Issued::by(None, &Spec::AUTHORITY);
    let old = Spec { bits: 1024, digest: MessageDigest::sha1, days: (-9, -1), ..Spec::GOOD };
    let leaf = Issued::by(Some(&root), &old);
    let server = Tuned::serve(&[leaf.certificate], &leaf.key, |_| ());
    let folder = tempfile::tempdir().unwrap();
    let ca = root.store(folder.path(), "ca").0.display().to_string();
    let sandbox = forwarder(&server, &["--ca", &ca, "--accept", "expired"]);
    cured(&sandbox, "ewsbridge set x accept=sha1,rsa1024,expired", &[]);
}

#[test]
fn a_certificate_with_another_name() {
    let root = Issued::by(None, &Spec::AUTHORITY);
    let leaf = Issued::by(Some(&root), &Spec { names: &["exch1.corp.local"], ..Spec::GOOD });
    let server = Tuned::serve(&[leaf.certificate], &leaf.key, |_| ());
    let folder = tempfile::tempdir().unwrap();
    let ca = root.store(folder.path(), "ca").0.display().to_string();
    let sandbox = forwarder(&server, &["--ca", &ca]);
    let hint = "if exch1.corp.local is its right name: ewsbridge set x server_name=exch1.corp.local; else: ewsbridge set x accept=wrong-name";
    cured(&sandbox, hint, &[]);
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_pinned_or_its_authority_is_named() {
    let (certificate, server) = server(|_| ());
    let hint =
        "look at it, and pin it if it is right: ewsbridge trust x; or name its authority: ewsbridge set x ca=FILE";
    let sandbox = forwarder(&server, &[]);
    let (_, told) = checked(&sandbox);
    assert_eq!(told, hint);
    let shown = run(&sandbox, hint, &[]).exited(5).stderr;
    let pin = shown.lines().find_map(|line| line.strip_prefix("hint: compare it, then: ewsbridge ")).unwrap();
    assert!(pin.ends_with(&certificate.pin()), "{shown}");
    sandbox.run(pin.split(' ')).succeeded();
    target_is_fine(&sandbox);

    let pki = Pki::new();
    let certificate = pki.server();
    let server = Tuned::serve(&certificate.chain, &certificate.key, |_| ());
    let sandbox = forwarder(&server, &[]);
    run(&sandbox, hint.split_once("; ").unwrap().1, &[("FILE", &pki.ca_file().display().to_string())]).succeeded();
    target_is_fine(&sandbox);
}

#[test]
fn a_client_certificate() {
    let pki = Pki::new();
    let ca = pki.ca_file().display().to_string();
    let arguments = ["-tls1_2", "-www", "-Verify", "2", "-verify_return_error", "-CAfile", &ca];
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = Issued::by(None, &Spec::GOOD).store(folder.path(), "bridge");
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let arguments = [&arguments[..6], &[cert.as_str()]].concat();
    let certificate = pki.server();
    let server = SServer::start(&certificate, &arguments);
    let sandbox = forwarder(&server, &["--pin", &certificate.pin()]);
    cured(&sandbox, "ewsbridge set x auth_cert=FILE auth_key=FILE", &[("FILE", &cert), ("FILE", &key)]);
}

#[test]
fn a_site_by_its_name() {
    let (certificate, server) = server(|context| {
        context.set_servername_callback(|ssl, _| match ssl.servername(NameType::HOST_NAME) {
            Some("right.example") => Ok(()),
            _ => Err(SniError::ALERT_FATAL),
        });
    });
    let sandbox = forwarder(&server, &["--pin", &certificate.pin()]);
    cured(&sandbox, "ewsbridge set x sni=NAME", &[("NAME", "right.example")]);
}

#[test]
fn more_patience() {
    let (certificate, behind) = server(|_| ());
    let slow = gate(&behind, |_| Act::Later(Duration::from_millis(1500)));
    let sandbox = forwarder(&slow, &["--pin", &certificate.pin(), "--handshake-timeout", "700ms"]);
    let (_, hint) = checked(&sandbox);
    let told = run(&sandbox, &hint, &[]).exited(1).stderr;
    let hint = told.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    assert!(hint.starts_with("if the server is only slow: ewsbridge set x handshake_timeout=60s; else: "), "{hint}");
    run(&sandbox, hint, &[]).succeeded();
    target_is_fine(&sandbox);
}

#[test]
fn clients_of_a_forwarder_with_a_name() {
    let (certificate, server) = server(|context| context.set_verify(SslVerifyMode::NONE));
    let sandbox = forwarder(&server, &["--pin", &certificate.pin()]);
    sandbox.run(["set", "x", "client_min_tls=1.3"]).succeeded();
    let live = sandbox.serve("x");
    let address: SocketAddr = sandbox
        .text("x")
        .lines()
        .find_map(|line| line.strip_prefix("listen = \""))
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let (code, text) = common::s_client(address, &["-tls1_2"], "");
    assert_ne!(code, 0, "{text}");
    let told = live.wait_for("and client_min_tls is 1.3");
    assert!(told.contains("hint=\"ewsbridge set x client_min_tls=1.2\""), "{told}");
    let other = Pki::new();
    let stranger = other.ca_file().display().to_string();
    common::s_client(address, &["-CAfile", &stranger, "-verify_return_error"], "");
    let told = live.wait_for("it does not know the authority of our certificate");
    assert!(told.contains("hint=\"give it the text of: ewsbridge cert show x\""), "{told}");
    drop(live);

    sandbox.run(["set", "x", "client_min_tls=1.2"]).succeeded();
    let _live = sandbox.serve("x");
    let outcome = s_client(address.port(), &sandbox.ca("x")).succeeded();
    assert!(outcome.stdout.contains("Verify return code: 0 (ok)"), "{}", outcome.stdout);
    let (_, text) = common::s_client(address, &["-tls1_2", "-no_ign_eof"], "Q\n");
    assert!(text.contains("New, TLSv1.2"), "{text}");
}

#[test]
fn a_server_that_ends_each_handshake() {
    let (certificate, behind) = server(|_| ());
    let closing = gate(&behind, |_| Act::AtHello(End::Closes));
    let sandbox = forwarder(&closing, &["--pin", &certificate.pin()]);
    let (_, hint) = checked(&sandbox);
    let told = run(&sandbox, &hint, &[]).exited(1).stderr;
    assert!(told.contains("\nhint: if the server serves by name: "), "{told}");
}
