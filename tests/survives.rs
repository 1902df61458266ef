//! What old servers do to records and handshakes, and the bridge lives with.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};

use openssl::ssl::SslVersion;

use common::{Bridge, Certificate, Failure, Flaw, GnutlsServer, Pki, SServer, Stream, TlsTarget};

/// A page of `s_server -www` comes through whole: it ends as HTML does.
async fn page_comes(bridge: &Bridge) {
    let mut client = bridge.client().await;
    client.send(b"GET / HTTP/1.0\r\n\r\n").await;
    let (page, end) = client.receive_all().await;
    let page = String::from_utf8_lossy(&page);
    assert!(page.starts_with("HTTP/1.0 200") && page.trim_end().ends_with("</HTML>"), "{page}");
    assert_eq!(end, "close_notify");
}

#[tokio::test]
async fn handshake_in_small_fragments_with_a_long_chain() {
    let pki = Pki::new();
    let certificate = pki.server_under_intermediate();
    for version in ["-tls1", "-tls1_2"] {
        for fragment in ["512", "1024"] {
            let flags = [version, "-cipher", "ALL:@SECLEVEL=0", "-www", "-max_send_frag", fragment];
            let server = SServer::start(&certificate, &flags);
            page_comes(&Bridge::to(&server).arg("--ca").arg(pki.ca_file()).start()).await;
        }
    }
}

#[tokio::test]
async fn records_of_one_byte_and_of_none() {
    let certificate = Pki::new().server();
    for version in [SslVersion::TLS1, SslVersion::TLS1_1, SslVersion::TLS1_2] {
        // With TLS 1.0 OpenSSL sends an empty record before each, Schannel one of one byte.
        let server = TlsTarget::serve_version(version, &certificate, |mut connection| {
            let mut request = [0; 5000];
            connection.read_exact(&mut request).unwrap();
            let answer = Stream::bytes("answer", 5000);
            for piece in answer.chunks(500) {
                connection.write_all(&piece[..1]).unwrap();
                connection.write_all(&piece[1..]).unwrap();
            }
            connection.write_all(&request).unwrap();
            connection.close_notify();
        });
        let bridge = Bridge::to(&server).pin(&certificate).start();
        let mut client = bridge.client().await;
        let request = Stream::bytes("request", 5000);
        for byte in request.chunks(1) {
            client.send(byte).await;
        }
        let (answer, end) = client.receive_all().await;
        assert!(answer == [Stream::bytes("answer", 5000), request].concat(), "{version:?}");
        assert_eq!(end, "close_notify");
    }
}

#[tokio::test]
async fn diffie_hellman_of_1024_bits_only_where_it_is_allowed() {
    let pki = Pki::new();
    let certificate = pki.server();
    let group = pki.dir().join("dh1024.pem");
    std::fs::write(&group, DH_1024).unwrap();
    for (version, level) in [("-tls1", 0), ("-tls1_2", 1)] {
        let flags = ["-cipher", "DHE-RSA-AES128-SHA:@SECLEVEL=0", "-www", "-dhparam", group.to_str().unwrap()];
        let server = SServer::start(&certificate, &[&[version], &flags[..]].concat());
        page_comes(&Bridge::to(&server).pin(&certificate).arg("--allow-weak=dhe").start()).await;
        let refused = Bridge::to(&server).pin(&certificate).start();
        assert!(matches!(refused.try_client().await, Err(Failure::Alert(_))), "{version}");
        let found = Bridge::to(&server).pin(&certificate).args(["--outbound", "auto", "--allow-weak=dhe"]).start();
        page_comes(&found).await;
        found.wait_for_log(&["auto: ", &format!("security_level = {level}"), "allow_weak = [\"dhe\"]"]);
    }
}

#[tokio::test]
async fn diffie_hellman_is_never_chosen_where_something_else_is_on_offer() {
    let certificate = Pki::new().server();
    for other in ["+ECDHE-RSA", "+RSA"] {
        let server = GnutlsServer::echo(&certificate, &format!("-VERS-ALL:+VERS-TLS1.0:-KX-ALL:+DHE-RSA:{other}"));
        let bridge = Bridge::to(&server).pin(&certificate).args(["--allow-weak=dhe"]).start();
        let mut client = bridge.client().await;
        client.send(b"line\n").await;
        assert_eq!(client.receive(5).await, b"line\n");
        client.shut_down().await;
        drop(client);
        let suite = bridge.session()["suite_out"].to_owned();
        assert!(!suite.starts_with("DHE"), "{suite}");
    }
}

#[tokio::test]
async fn expired_certificate_that_is_pinned() {
    let pki = Pki::new();
    for certificate in [pki.flawed(Flaw::Expired), pki.flawed(Flaw::Rsa1024), pki.flawed(Flaw::Md5)] {
        let server = start(&certificate);
        page_comes(&Bridge::to(&server).pin(&certificate).start()).await;
    }
}

fn start(certificate: &Certificate) -> SServer {
    SServer::start(certificate, &["-tls1_2", "-cipher", "ALL:@SECLEVEL=0", "-www"])
}

/// A group of 1024 bits made for this test (openssl dhparam 1024).
const DH_1024: &str = "\
-----BEGIN DH PARAMETERS-----\n\
MIGHAoGBAM5lUueKM0/HQ57LDpm9sRZGD2vmn64TbpvKZ0UjNDWg3kXhlFwL0zWt\n\
FhfIGB+/cZQzZ3qMP7I0xP45AxlzxvBKJT56yNkMRaW5YIym43kxJNafzQI6oZAz\n\
+zn+Ik08ACQM98sNmeXZLx2Oa6i5PvPQhbtTSiTRCOfj8fHqax3XAgEC\n\
-----END DH PARAMETERS-----\n";
