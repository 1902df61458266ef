//! Nothing in the environment weakens, breaks or widens what the settings say.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Builder, Failure, Pki, TlsTarget};
use rustls::AlertDescription;
use std::path::{Path, PathBuf};

/// OpenSSL configurations that hit each of our needs, were they read.
const HOSTILE: [(&str, &str); 4] = [
    (
        "modern only",
        "openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = policy
[policy]
CipherString = DEFAULT@SECLEVEL=2
MinProtocol = TLSv1.2
MaxProtocol = TLSv1.3
",
    ),
    (
        "one suite only",
        "openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = policy
[policy]
CipherString = ECDHE-ECDSA-AES256-GCM-SHA384
Groups = X448
SignatureAlgorithms = ed448
Options = -ServerPreference,NoRenegotiation
",
    ),
    (
        "no provider",
        "openssl_conf = init
[init]
providers = providers
alg_section = fips
[providers]
null = null
[null]
activate = 1
[fips]
default_properties = fips=yes
",
    ),
    ("broken", "openssl_conf = [init\n[[[ = = \\\n$nothing\n.include /nowhere/\n"),
];

#[tokio::test]
async fn openssl_conf_changes_nothing() {
    let pki = Pki::new();
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    for (name, text) in HOSTILE {
        let file = pki.dir().join("openssl.cnf");
        std::fs::write(&file, text).unwrap();
        let by_ca = Bridge::to(&target).arg("--ca").arg(pki.ca_file());
        for bridge in [Bridge::to(&target).pin(&certificate), by_ca] {
            assert_eq!(echo(bridge.env("OPENSSL_CONF", &file)).await.as_deref(), Ok("1.0"), "{name}");
        }
    }
    let missing = Bridge::to(&target).pin(&certificate).env("OPENSSL_CONF", "/nowhere/openssl.cnf");
    assert_eq!(echo(missing).await.as_deref(), Ok("1.0"));
}

#[tokio::test]
async fn openssl_conf_does_not_turn_verification_off() {
    let pki = Pki::new();
    let file = pki.dir().join("openssl.cnf");
    let text =
        "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = policy\n[policy]\nVerifyMode = None\n";
    std::fs::write(&file, text).unwrap();
    let (impostor, pinned) = (pki.server(), Pki::new().server());
    let target = TlsTarget::echo(&impostor);
    assert_eq!(echo(Bridge::to(&target).pin(&pinned).env("OPENSSL_CONF", &file)).await, Err(REFUSED));
    assert_eq!(echo(Bridge::to(&target).env("OPENSSL_CONF", &file)).await, Err(REFUSED));
}

#[tokio::test]
async fn openssl_conf_changes_no_weak_cipher() {
    // RC4 lives in a provider of its own, which we load ourselves.
    let pki = Pki::new();
    let certificate = pki.server();
    let target = common::NodeServer::start("4.9.1", &certificate, "TLSv1", "RC4-SHA");
    for (name, text) in HOSTILE {
        let file = pki.dir().join("openssl.cnf");
        std::fs::write(&file, text).unwrap();
        let bridge = Bridge::to(&target).pin(&certificate).args(["--ciphers", "RC4-SHA"]);
        let bridge = bridge.env("OPENSSL_CONF", &file).env("OPENSSL_MODULES", "/nowhere").start();
        assert!(bridge.try_client().await.is_ok(), "{name}: {}", bridge.log());
    }
}

#[tokio::test]
async fn ssl_cert_file_and_dir_are_not_trusted() {
    let pki = Pki::new();
    let target = TlsTarget::echo(&pki.server());
    let other = Pki::new();
    let folder = hashed_folder(&pki);
    let hostile = |bridge: Builder| bridge.env("SSL_CERT_FILE", pki.ca_file()).env("SSL_CERT_DIR", &folder);
    // Neither next to the system's authorities nor next to a file of them.
    assert_eq!(echo(hostile(Bridge::to(&target))).await, Err(REFUSED));
    assert_eq!(echo(hostile(Bridge::to(&target).arg("--ca").arg(other.ca_file()))).await, Err(REFUSED));
}

#[tokio::test]
async fn unusable_ssl_cert_file_and_modules_break_nothing() {
    let pki = Pki::new();
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_MODULES", "OPENSSL_ENGINES", "OPENSSL_ia32cap"] {
        let value = if name == "OPENSSL_ia32cap" { ":0" } else { "/nowhere" };
        let bridge = Bridge::to(&target).arg("--ca").arg(pki.ca_file()).env(name, value);
        assert_eq!(echo(bridge).await.as_deref(), Ok("1.0"), "{name}");
    }
}

#[tokio::test]
async fn keys_are_not_logged_for_sslkeylogfile() {
    let pki = Pki::new();
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    let file = pki.dir().join("keys");
    assert!(echo(Bridge::to(&target).pin(&certificate).env("SSLKEYLOGFILE", &file)).await.is_ok());
    assert!(!file.exists());
}

#[tokio::test]
async fn proxy_variables_are_not_obeyed() {
    let pki = Pki::new();
    let certificate = pki.server();
    let target = TlsTarget::echo(&certificate);
    let bridge = Bridge::to(&target).pin(&certificate);
    let bridge = bridge.env("HTTPS_PROXY", "http://127.0.0.1:1").env("ALL_PROXY", "socks5://127.0.0.1:1");
    assert_eq!(echo(bridge).await.as_deref(), Ok("1.0"));
}

const REFUSED: Failure = Failure::Alert(AlertDescription::HandshakeFailure);

/// Sends a word there and back; the version spoken to the target.
async fn echo(bridge: Builder) -> Result<String, Failure> {
    let bridge = bridge.start();
    let mut client = bridge.try_client().await?;
    client.send(b"word").await;
    assert_eq!(client.receive(4).await, b"word");
    client.shut_down().await;
    drop(client);
    Ok(bridge.session()["tls_out"].to_owned())
}

/// The CA in a folder as `openssl rehash` makes it.
fn hashed_folder(pki: &Pki) -> PathBuf {
    let folder = pki.dir().join("certs");
    std::fs::create_dir(&folder).unwrap();
    let hash = |ca: &Path| {
        let ca = openssl::x509::X509::from_pem(&std::fs::read(ca).unwrap()).unwrap();
        format!("{:08x}.0", ca.subject_name_hash())
    };
    std::fs::copy(pki.ca_file(), folder.join(hash(&pki.ca_file()))).unwrap();
    folder
}
