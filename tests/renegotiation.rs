//! IIS asks for a new handshake inside the connection, with or without a wish for a certificate.
//! Nothing of what is under way is lost.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, NodeServer, Pki, SServer, Stream, sha256};

#[tokio::test]
async fn quiet_connection_goes_on_after_it() {
    let certificate = Pki::new().server();
    for version in ["-tls1", "-tls1_1", "-tls1_2"] {
        // `r` asks for a handshake, `R` for a certificate too.
        for command in ["r", "R"] {
            let flags = [version, "-cipher", "AES128-SHA:@SECLEVEL=0", "-state"];
            let mut target = SServer::start(&certificate, &flags);
            let bridge = Bridge::to(&target).pin(&certificate).start();
            let mut client = bridge.client().await;
            client.send(b"before\n").await;
            target.child.stdout.wait_for(&["before"]);

            target.child.say(format!("{command}\n").as_bytes());
            target.child.stderr.wait_for_nth(&["SSL_accept:SSLv3/TLS write finished"], 1);

            client.send(b"after\n").await;
            target.child.stdout.wait_for(&["after"]);
            target.child.say(b"answer\n");
            assert_eq!(client.receive(7).await, b"answer\n", "{version} {command}");
        }
    }
}

#[tokio::test]
async fn upload_under_way_arrives_whole() {
    const MUCH: usize = 10 << 20;
    let certificate = Pki::new().server();
    for (version, protocol) in [("4.9.1", "TLSv1"), ("4.9.1", "TLSv1_2"), ("0.12.18", "TLSv1")] {
        let target = NodeServer::start(version, &certificate, protocol, "AES128-SHA");
        let bridge = Bridge::to(&target).pin(&certificate).start();
        let mut client = bridge.client().await;
        let body = Stream::bytes("body", MUCH);
        let answer = client.request("POST /ask", &body).await;
        assert_eq!(answer.text(), format!("true {MUCH} {}", sha256(&body)), "{version} {protocol}");
        // And again on the same connection, which is as good as new.
        let answer = client.request("POST /hash", &body).await;
        assert_eq!(answer.text(), format!("{MUCH} {}", sha256(&body)));
    }
}
