//! Clients that people have: they get an answer with the CA the bridge prints, and none without it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Pki, SServer, curl, python, python_strict};

/// Both names that a client on this machine may use; the certificate is for both.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];

fn bridge_to_tls_1_0() -> (SServer, Bridge) {
    let certificate = Pki::new().server();
    let target = SServer::start(&certificate, &["-tls1", "-cipher", "ALL:@SECLEVEL=0", "-www"]);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    (target, bridge)
}

#[test]
fn curl_gets_an_answer_with_the_printed_ca() {
    let (_target, bridge) = bridge_to_tls_1_0();
    for host in HOSTS {
        let (code, text) = curl(&bridge, Some(&bridge.ca_file()), host);
        assert_eq!(code, 0, "{host}: {text}\n{}", bridge.log());
        assert!(text.contains("200 ok") && text.contains("Protocol  : TLSv1\n"), "{text}");
    }
    assert_eq!(&bridge.session()["tls_in"], "1.3");
}

#[test]
fn curl_fails_without_the_ca() {
    let (_target, bridge) = bridge_to_tls_1_0();
    for host in HOSTS {
        let (code, text) = curl(&bridge, None, host);
        assert_eq!(code, 60, "{text}");
        assert!(text.contains("unable to get local issuer certificate"), "{text}");
    }
}

#[test]
fn python_gets_an_answer_with_the_printed_ca() {
    let (_target, bridge) = bridge_to_tls_1_0();
    for host in HOSTS {
        let (code, text) = python(&bridge, Some(&bridge.ca_file()), host);
        assert_eq!(code, 0, "{host}: {text}\n{}", bridge.log());
        assert!(text.contains("200") && text.contains("Protocol  : TLSv1\n"), "{text}");
    }
}

#[test]
fn python_fails_without_the_ca() {
    let (_target, bridge) = bridge_to_tls_1_0();
    for host in HOSTS {
        let (code, text) = python(&bridge, None, host);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("CERTIFICATE_VERIFY_FAILED"), "{text}");
    }
}

#[test]
fn python_with_the_strict_checks_of_3_13_gets_an_answer() {
    let (_target, bridge) = bridge_to_tls_1_0();
    for host in HOSTS {
        let (code, text) = python_strict(&bridge, Some(&bridge.ca_file()), host);
        assert_eq!(code, 0, "{host}: {text}");
    }
}

#[test]
fn another_runs_ca_is_not_enough() {
    let (_target, bridge) = bridge_to_tls_1_0();
    let (_other_target, other) = bridge_to_tls_1_0();
    let (code, text) = curl(&bridge, Some(&other.ca_file()), "localhost");
    assert_eq!(code, 60, "{text}");
    assert_eq!(python(&bridge, Some(&other.ca_file()), "localhost").0, 1);
}

#[test]
fn only_the_ca_is_printed_and_no_key() {
    let (_target, bridge) = bridge_to_tls_1_0();
    let ca = bridge.ca();
    assert_eq!(ca.matches("-----BEGIN CERTIFICATE-----").count(), 1, "{ca}");
    assert!(!ca.contains("PRIVATE"), "{ca}");
    let ca = openssl::x509::X509::from_pem(ca.as_bytes()).unwrap();
    assert_eq!(ca.issuer_name().to_der().unwrap(), ca.subject_name().to_der().unwrap());
}

#[test]
fn own_certificate_and_key_are_served_when_given() {
    let certificate = Pki::new().server();
    let target = SServer::start(&certificate, &["-tls1", "-cipher", "ALL:@SECLEVEL=0", "-www"]);
    let served = Pki::new();
    let own = served.server();
    let bridge =
        Bridge::to(&target).pin(&certificate).arg("--cert").arg(&own.cert_file).arg("--key").arg(&own.key_file).start();
    let (code, text) = curl(&bridge, Some(&served.ca_file()), "localhost");
    assert_eq!(code, 0, "{text}");
}
