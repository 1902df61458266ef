//! A target that asks for a client certificate is shown the one that the settings name, and no other
//! target ever is.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Builder, Certificate, NodeServer, Pki, SServer, sha256};

/// A bridge that has a certificate to show.
fn with_credential(bridge: Builder, credential: &Certificate) -> Builder {
    bridge.arg("--auth-cert").arg(&credential.cert_file).arg("--auth-key").arg(&credential.key_file)
}

/// `openssl s_server` that demands a certificate of this CA.
fn demanding(pki: &Pki, certificate: &Certificate, flags: &[&str]) -> SServer {
    let ca = pki.ca_file();
    let demands =
        ["-Verify", "3", "-verify_return_error", "-CAfile", ca.to_str().unwrap(), "-cipher", "ALL:@SECLEVEL=0"];
    SServer::start(certificate, &[&demands[..], flags].concat())
}

#[tokio::test]
async fn demand_is_met_in_every_version() {
    let pki = Pki::new();
    let (certificate, credential) = (pki.server(), pki.client("bridge"));
    for version in ["-tls1", "-tls1_1", "-tls1_2"] {
        let server = demanding(&pki, &certificate, &[version, "-www"]);
        let bridge = with_credential(Bridge::to(&server).pin(&certificate), &credential).start();
        for resumed in ["false", "true"] {
            let mut client = bridge.client().await;
            client.send(b"GET / HTTP/1.1\r\n\r\n").await;
            let (page, _) = client.receive_all().await;
            let page = String::from_utf8_lossy(&page).into_owned();
            assert!(page.contains("CN = bridge") || page.contains("CN=bridge"), "{version}: {page}");
            drop(client);
            let nth = usize::from(resumed == "true");
            assert_eq!(&bridge.nth_session(nth)["resumed"], resumed, "{version} {} {page}", bridge.log());
        }
    }
}

#[tokio::test]
async fn wish_in_mid_connection_is_met_as_iis_utters_it() {
    let pki = Pki::new();
    let (certificate, credential) = (pki.server(), pki.client("bridge"));
    for version in ["-tls1", "-tls1_1", "-tls1_2"] {
        let flags = [
            version,
            "-no_resumption_on_reneg",
            "-state",
            "-cipher",
            "AES128-SHA:@SECLEVEL=0",
            "-CAfile",
            &pki.ca_file().display().to_string(),
        ];
        let mut server = SServer::start(&certificate, &flags);
        let bridge = with_credential(Bridge::to(&server).pin(&certificate), &credential).start();
        let mut client = bridge.client().await;
        client.send(b"before\n").await;
        server.child.stdout.wait_for(&["before"]);
        assert_eq!(server.child.stderr.count("read certificate verify"), 0, "shown unasked");
        server.child.say(b"R\n");
        server.child.stderr.wait_for(&["read certificate verify"]);
        client.send(b"after\n").await;
        server.child.stdout.wait_for(&["after"]);
    }
}

#[tokio::test]
async fn nobody_is_shown_one_unasked() {
    let pki = Pki::new();
    let (certificate, credential) = (pki.server(), pki.client("bridge"));
    let server = SServer::start(&certificate, &["-tls1_2", "-www"]);
    let bridge = with_credential(Bridge::to(&server).pin(&certificate), &credential).start();
    let mut client = bridge.client().await;
    client.send(b"GET / HTTP/1.1\r\n\r\n").await;
    let (page, _) = client.receive_all().await;
    assert!(String::from_utf8_lossy(&page).contains("no client certificate available"));
}

#[tokio::test]
async fn server_of_its_time_that_demands_one_is_reached() {
    let pki = Pki::new();
    let (certificate, credential) = (pki.server(), pki.client("bridge"));
    // `POST /ask` has node renegotiate for a certificate.
    let server = NodeServer::start("4.9.1", &certificate, "TLSv1", "AES128-SHA");
    let bridge = with_credential(Bridge::to(&server).pin(&certificate), &credential).start();
    let mut client = bridge.client().await;
    let body = vec![b'x'; 4 << 20];
    let answer = client.request("POST /ask", &body).await;
    assert_eq!(answer.text(), format!("true {} {}", body.len(), sha256(&body)));
}

#[test]
fn pair_that_does_not_belong_together_is_refused_at_the_start() {
    let pki = Pki::new();
    let (one, other) = (pki.client("one"), pki.server());
    let (code, text) = Bridge::to_name("127.0.0.1:1")
        .arg("--insecure")
        .arg("--auth-cert")
        .arg(&one.cert_file)
        .arg("--auth-key")
        .arg(&other.key_file)
        .start_in_vain();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("auth_cert: ") && text.contains("its key is not the one in"), "{text}");
}
