//! The command with which a report of `probe` ends: pasted, it adds a forwarder that works.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod common;

use cli_support::{Sandbox, free_port};
use common::scan::scanned;
use common::{Certificate, Dislike, Flaw, GnutlsServer, Listening, Manner, NodeServer, Pki, SServer, before};

/// Fills in what the command leaves open, and runs it.
fn added(server: &impl Listening, needs: &str, client: Option<&Certificate>) {
    let found = scanned(server, &[]);
    // The scan went through a counter of its own.
    let counted = found["target"].as_str().unwrap();
    let next = found["next"].as_str().unwrap().replace(counted, &server.address().to_string());
    assert!(next.contains(needs), "{next}");
    let (sandbox, port) = (Sandbox::new(), free_port().to_string());
    let mut words: Vec<String> = next.split(' ').skip(1).map(str::to_owned).collect();
    (words[1], words[2]) = ("exch1".to_owned(), port);
    if let Some(client) = client {
        let mut files = [&client.cert_file, &client.key_file].into_iter();
        let open = words.iter_mut().filter(|word| *word == "FILE");
        open.for_each(|word| *word = files.next().unwrap().display().to_string());
    }
    let outcome = sandbox.run(&words).succeeded();
    assert!(outcome.stderr.contains("  ok    proved: TLS 1.3 in, "), "{}", outcome.all());
    let settings = sandbox.text("exch1");
    let level = format!("security_level = {}", found["needs"]["security_level"].as_u64().unwrap_or(2));
    assert!(settings.contains(&level), "{settings}");
}

#[test]
fn old_server_with_a_self_signed_certificate() {
    let certificate = Pki::new().flawed(Flaw::SelfSigned);
    let server = SServer::start(&certificate, &["-www", "-tls1", "-cipher", "ALL:@SECLEVEL=0"]);
    added(&server, &format!(" --pin {}", certificate.pin()), None);
}

#[test]
fn server_with_rc4_alone() {
    let server = NodeServer::start("0.10.48", &Pki::new().server(), "TLSv1", "RC4-SHA");
    added(&server, " --allow-weak=rc4 ", None);
}

#[test]
fn server_with_dhe_and_without_secure_renegotiation() {
    let priority = "-VERS-ALL:+VERS-TLS1.1:-KX-ALL:+DHE-RSA:%DISABLE_SAFE_RENEGOTIATION";
    added(&GnutlsServer::echo(&Pki::new().server(), priority), " --allow-weak=no-rfc5746,dhe ", None);
}

#[test]
fn device_that_dislikes_extensions() {
    let server = NodeServer::start("4.9.1", &Pki::new().server(), "TLSv1", "DES-CBC3-SHA");
    added(&before(&server, Dislike::Extensions, Manner::Closes), " --allow-weak=3des ", None);
}

#[test]
fn server_that_requires_a_client_certificate() {
    let pki = Pki::new();
    let server = SServer::start(&pki.server(), &["-www", "-tls1_2", "-Verify", "1"]);
    added(&server, " --auth-cert FILE --auth-key FILE ", Some(&pki.server()));
}
