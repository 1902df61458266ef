//! How the target's certificate is judged: nothing weaker than asked for, and each weaker rule by
//! its own name.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Builder, Certificate, Connection, Failure, Flaw, Pki, TlsTarget};
use openssl::ssl::SslVersion;
use rustls::AlertDescription;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const REFUSED: Failure = Failure::Alert(AlertDescription::HandshakeFailure);

/// A target with this certificate that counts the bytes it is sent, and answers each with the same.
fn counting(certificate: &Certificate) -> (TlsTarget, Arc<AtomicUsize>) {
    let received = Arc::new(AtomicUsize::new(0));
    let count = received.clone();
    let target = TlsTarget::serve(certificate, move |mut connection: Connection| {
        let mut buffer = [0; 1000];
        while let Ok(length @ 1..) = connection.read(&mut buffer) {
            count.fetch_add(length, Ordering::SeqCst);
            connection.write_all(&buffer[..length]).unwrap();
        }
    });
    (target, received)
}

/// A client sends a secret and gets it back, or is refused and the target has got nothing of it.
async fn passes(certificate: &Certificate, configure: impl FnOnce(Builder) -> Builder) -> (bool, Bridge) {
    let (target, received) = counting(certificate);
    let bridge = configure(Bridge::to(&target)).start();
    match bridge.try_client().await {
        Ok(mut client) => {
            client.send(b"secret").await;
            assert_eq!(client.receive(6).await, b"secret");
            (true, bridge)
        }
        Err(failure) => {
            assert_eq!(failure, REFUSED, "{}", bridge.log());
            assert_eq!(received.load(Ordering::SeqCst), 0, "the target got bytes of the client's");
            assert_eq!(target.accepted(), 1, "it was not tried again");
            (false, bridge)
        }
    }
}

const FLAWS: [Flaw; 11] = [
    Flaw::Sha1,
    Flaw::Sha1Intermediate,
    Flaw::Md5,
    Flaw::Md5Intermediate,
    Flaw::Rsa1024,
    Flaw::Rsa1024Intermediate,
    Flaw::Rsa768,
    Flaw::Expired,
    Flaw::WrongName,
    Flaw::IpInCn,
    Flaw::SelfSigned,
];

#[tokio::test]
async fn right_pin_is_enough_whatever_else_is_wrong() {
    let pki = Pki::new();
    for flaw in FLAWS {
        let certificate = pki.flawed(flaw);
        let (passed, bridge) = passes(&certificate, |bridge| bridge.pin(&certificate)).await;
        assert!(passed, "{flaw:?}: {}", bridge.log());
    }
}

#[tokio::test]
async fn pin_is_read_as_openssl_prints_it() {
    let certificate = Pki::new().flawed(Flaw::SelfSigned);
    let digits = certificate.pin().trim_start_matches("sha256:").to_uppercase();
    let colons: Vec<_> = digits.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap()).collect();
    let (passed, bridge) = passes(&certificate, |bridge| bridge.arg("--pin").arg(colons.join(":"))).await;
    assert!(passed, "{}", bridge.log());
}

#[tokio::test]
async fn pinned_bridge_refuses_an_impostor_before_one_client_byte() {
    // The impostor has a certificate of the very CA, for the very name.
    let pki = Pki::new();
    let pinned = Pki::new().server();
    for impostor in [pki.server(), pki.server_under_intermediate(), pki.flawed(Flaw::SelfSigned)] {
        let (passed, bridge) = passes(&impostor, |bridge| bridge.pin(&pinned)).await;
        assert!(!passed);
        let line = bridge.wait_for_log(&["certificate", "is not the pinned one"]).line;
        assert!(line.contains(&impostor.pin()), "{line}");
    }
}

#[tokio::test]
async fn pinned_bridge_refuses_an_impostor_of_each_version() {
    let certificate = Pki::new().server();
    let pinned = Pki::new().server();
    for version in [SslVersion::TLS1, SslVersion::TLS1_1, SslVersion::TLS1_2] {
        let received = Arc::new(AtomicUsize::new(0));
        let count = received.clone();
        let target = TlsTarget::serve_version(version, &certificate, move |mut connection: Connection| {
            count.fetch_add(connection.read(&mut [0; 100]).unwrap_or(0), Ordering::SeqCst);
        });
        let bridge = Bridge::to(&target).pin(&pinned).start();
        assert_eq!(bridge.try_client().await.unwrap_err(), REFUSED);
        assert_eq!((target.accepted(), received.load(Ordering::SeqCst)), (1, 0));
    }
}

#[tokio::test]
async fn pin_of_an_issuer_or_of_a_companion_is_not_a_pin_of_the_server() {
    // Whoever shows the pinned certificate next to his own has not shown its key.
    let pki = Pki::new();
    let chain = pki.server_under_intermediate();
    let mut companion = chain.clone();
    companion.chain.remove(0);
    let (passed, bridge) = passes(&chain, |bridge| bridge.pin(&companion)).await;
    assert!(!passed, "{}", bridge.log());
}

#[tokio::test]
async fn one_of_several_pins_is_enough() {
    let (old, new) = (Pki::new().server(), Pki::new().server());
    for certificate in [&old, &new] {
        let (passed, bridge) = passes(certificate, |bridge| bridge.pin(&old).pin(&new)).await;
        assert!(passed, "{}", bridge.log());
    }
}

#[tokio::test]
async fn good_chain_passes_with_its_ca() {
    let pki = Pki::new();
    for certificate in [pki.server(), pki.server_under_intermediate()] {
        let (passed, bridge) = passes(&certificate, |bridge| bridge.arg("--ca").arg(pki.ca_file())).await;
        assert!(passed, "{}", bridge.log());
    }
}

#[tokio::test]
async fn certificate_of_another_ca_is_refused() {
    let (certificate, other) = (Pki::new().server(), Pki::new());
    let (passed, bridge) = passes(&certificate, |bridge| bridge.arg("--ca").arg(other.ca_file())).await;
    assert!(!passed, "{}", bridge.log());
    bridge.wait_for_log(&["certificate", "nothing here trusts"]);
}

#[tokio::test]
async fn each_flaw_is_refused_with_the_name_of_its_opt_in() {
    let pki = Pki::new();
    for (flaw, opt_in, _) in OPT_INS {
        let certificate = pki.flawed(flaw);
        let (passed, bridge) = passes(&certificate, |bridge| bridge.arg("--ca").arg(pki.ca_file())).await;
        assert!(!passed, "{flaw:?} passed");
        let line = bridge.wait_for_log(&["certificate", "target 127.0.0.1:"]).line;
        assert!(line.contains(&format!("--accept {opt_in}")), "{flaw:?}: {line}");
    }
}

#[tokio::test]
async fn each_flaw_passes_with_its_own_opt_in_and_no_other() {
    let pki = Pki::new();
    for (flaw, opt_in, also) in OPT_INS {
        let certificate = pki.flawed(flaw);
        for accepted in ["sha1", "rsa1024", "expired", "wrong-name", "ip-in-cn"] {
            let with = |bridge: Builder| bridge.arg("--ca").arg(pki.ca_file()).arg("--accept").arg(accepted);
            let (passed, bridge) = passes(&certificate, with).await;
            let expected = accepted == opt_in || also.contains(&accepted);
            assert_eq!(passed, expected, "{flaw:?} with --accept {accepted}: {}", bridge.log());
        }
    }
}

/// Each flaw, the opt-in that accepts it, and wider ones that do so too: who accepts any name
/// accepts it wherever it stands.
const OPT_INS: [(Flaw, &str, &[&str]); 7] = [
    (Flaw::Sha1, "sha1", &[]),
    (Flaw::Sha1Intermediate, "sha1", &[]),
    (Flaw::Rsa1024, "rsa1024", &[]),
    (Flaw::Rsa1024Intermediate, "rsa1024", &[]),
    (Flaw::Expired, "expired", &[]),
    (Flaw::WrongName, "wrong-name", &[]),
    (Flaw::IpInCn, "ip-in-cn", &["wrong-name"]),
];

#[tokio::test]
async fn opt_ins_never_replace_the_chain() {
    // OpenSSL reports an accepted weak key of the leaf again where the missing issuer should be.
    let (pki, other) = (Pki::new(), Pki::new());
    let mut passed_wrongly = Vec::new();
    for flaw in FLAWS {
        for accepted in ["sha1", "rsa1024", "expired", "wrong-name", "ip-in-cn", ALL] {
            let with = |bridge: Builder| bridge.arg("--ca").arg(other.ca_file()).args(["--accept", accepted]);
            if passes(&pki.flawed(flaw), with).await.0 {
                passed_wrongly.push((flaw, accepted));
            }
        }
    }
    assert_eq!(passed_wrongly, [], "certificates of an unknown CA passed");
}

const ALL: &str = "sha1,rsa1024,expired,wrong-name,ip-in-cn";

#[tokio::test]
async fn md5_has_no_opt_in() {
    let pki = Pki::new();
    for flaw in [Flaw::Md5, Flaw::Md5Intermediate] {
        let with = |bridge: Builder| bridge.arg("--ca").arg(pki.ca_file()).args(["--accept", ALL]);
        let (passed, bridge) = passes(&pki.flawed(flaw), with).await;
        assert!(!passed, "{flaw:?} passed");
        bridge.wait_for_log(&["certificate", "MD5"]);
    }
    let certificate = pki.flawed(Flaw::Md5);
    let (target, _) = counting(&certificate);
    let (code, text) = Bridge::to(&target).args(["--accept", "md5"]).start_in_vain();
    assert_eq!(code, 2, "{text}");
}

#[tokio::test]
async fn keys_below_1024_bits_have_no_opt_in() {
    let pki = Pki::new();
    let with = |bridge: Builder| bridge.arg("--ca").arg(pki.ca_file()).args(["--accept", ALL]);
    let (passed, bridge) = passes(&pki.flawed(Flaw::Rsa768), with).await;
    assert!(!passed);
    let line = bridge.wait_for_log(&["certificate", "a key that can be broken"]).line;
    assert!(!line.contains("--accept"), "{line}");
}

#[tokio::test]
async fn system_authorities_are_the_default_and_dont_know_a_private_ca() {
    let pki = Pki::new();
    for certificate in [pki.server(), pki.flawed(Flaw::SelfSigned)] {
        let (passed, bridge) = passes(&certificate, |bridge| bridge).await;
        assert!(!passed, "{}", bridge.log());
        bridge.wait_for_log(&["WARN", "target 127.0.0.1:", "certificate"]);
    }
}

#[tokio::test]
async fn self_signed_passes_as_its_own_ca() {
    let certificate = Pki::new().flawed(Flaw::SelfSigned);
    let (passed, bridge) = passes(&certificate, |bridge| bridge.arg("--ca").arg(&certificate.cert_file)).await;
    assert!(passed, "{}", bridge.log());
}

#[tokio::test]
async fn insecure_accepts_anything_and_warns() {
    let pki = Pki::new();
    for flaw in FLAWS {
        let (passed, bridge) = passes(&pki.flawed(flaw), |bridge| bridge.arg("--insecure")).await;
        assert!(passed, "{flaw:?}: {}", bridge.log());
        let line = bridge.wait_for_log(&["WARN"]).line;
        assert!(line.contains("any certificate") || line.contains("insecure"), "{line}");
    }
}

#[tokio::test]
async fn server_name_is_what_the_certificate_must_carry() {
    let pki = Pki::new();
    let certificate = pki.flawed(Flaw::WrongName);
    for (name, expected) in [("other.example", true), ("another.example", false), ("OTHER.example", true)] {
        let with = |bridge: Builder| bridge.arg("--ca").arg(pki.ca_file()).args(["--server-name", name]);
        let (passed, bridge) = passes(&certificate, with).await;
        assert_eq!(passed, expected, "{name}: {}", bridge.log());
    }
}

#[test]
fn contradicting_rules_are_refused_at_once() {
    let pki = Pki::new();
    let certificate = pki.server();
    let (target, _) = counting(&certificate);
    let ca = pki.ca_file();
    let ca = ca.to_str().unwrap();
    let pin = certificate.pin();
    let contradictions: [&[&str]; 5] = [
        &["--ca", ca, "--pin", &pin],
        &["--ca", ca, "--insecure"],
        &["--pin", &pin, "--insecure"],
        &["--pin", &pin, "--accept", "sha1"],
        &["--insecure", "--accept", "sha1"],
    ];
    for arguments in contradictions {
        let (code, text) = Bridge::to(&target).args(arguments).start_in_vain();
        assert_eq!(code, 2, "{arguments:?}: {text}");
    }
    assert_eq!(target.accepted(), 0);
}

#[test]
fn unusable_ca_file_ends_the_start() {
    let pki = Pki::new();
    let certificate = pki.server();
    let (target, _) = counting(&certificate);
    let empty = pki.dir().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for file in [empty, pki.dir().join("missing.pem"), certificate.key_file.clone()] {
        let (code, text) = Bridge::to(&target).arg("--ca").arg(&file).start_in_vain();
        assert_ne!(code, 0);
        assert!(text.contains(file.to_str().unwrap()), "{text}");
    }
}

/// Exchange's chains are a few KiB. A certificate that takes OpenSSL much memory to read needs more
/// (CVE-2026-35189), so what is longer than 32 KiB ends the handshake.
#[tokio::test]
async fn chain_of_16_kib_passes_and_one_past_32_kib_does_not() {
    for (kib, passes) in [(16, true), (31, true), (33, false)] {
        let mut certificate = Pki::new().server();
        let pin = certificate.pin();
        let leaf = certificate.chain[0].clone();
        // Each stands in the message with its length in three bytes before it (RFC 5246 §7.4.2).
        let count = (kib << 10) / (leaf.to_der().unwrap().len() + 3);
        certificate.chain.resize(count, leaf);
        let target = TlsTarget::echo(&certificate);
        let bridge = Bridge::to(&target).args(["--pin", &pin]).start();
        assert_eq!(bridge.try_client().await.is_ok(), passes, "{kib} KiB: {}", bridge.log());
    }
}
