//! What `probe` finds out about servers that work: each fact of its report, by servers that differ in it.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::scan::{Scanned, counting, covered, pass, scanned};
use common::{
    Bridge, Certificate, Dislike, Flaw, GnutlsServer, Listening, Manner, NodeServer, Pki, SServer, TcpTarget,
    TlsTarget, before,
};
use openssl::ssl::SslVersion;
use serde_json::{Value, json};

/// The versions that are spoken, the newest first.
fn spoken(found: &Value) -> Vec<&str> {
    let all = found["versions"].as_array().unwrap();
    let named: Vec<&str> = all.iter().map(|entry| entry["version"].as_str().unwrap()).collect();
    assert_eq!(named, ["1.3", "1.2", "1.1", "1.0"], "each by itself");
    let yes = all.iter().filter(|entry| entry["supported"].as_bool().unwrap());
    yes.map(|entry| entry["version"].as_str().unwrap()).collect()
}

/// The suites of a version, in order.
fn suites<'a>(found: &'a Value, version: &str) -> Vec<&'a str> {
    let all = found["ciphers"].as_array().unwrap().iter();
    all.filter(|entry| entry["version"] == version).map(|entry| entry["suite"].as_str().unwrap()).collect()
}

/// The suite that a forwarder would use.
fn used(found: &Value) -> &Value {
    let used: Vec<&Value> = found["ciphers"].as_array().unwrap().iter().filter(|entry| entry["used"] == true).collect();
    assert_eq!(used.len(), 1, "{found:#}");
    used[0]
}

/// A server on which everything is as `-cipher` and the other arguments say.
fn s_server(arguments: &[&str]) -> SServer {
    SServer::start(&Pki::new().server(), &[&["-www"], arguments].concat())
}

#[test]
fn each_version_is_found_by_itself() {
    let old = "ALL:@SECLEVEL=0";
    for (arguments, versions) in [
        (&[][..], &["1.3", "1.2"][..]),
        (&["-cipher", old], &["1.3", "1.2", "1.1", "1.0"]),
        (&["-cipher", old, "-no_tls1_3", "-no_tls1_1"], &["1.2", "1.0"]),
        (&["-cipher", old, "-no_tls1_3", "-no_tls1_2"], &["1.1", "1.0"]),
        (&["-cipher", old, "-tls1_1"], &["1.1"]),
        (&["-cipher", old, "-tls1"], &["1.0"]),
    ] {
        let found = scanned(&s_server(arguments), &[]);
        assert_eq!(spoken(&found), versions, "{arguments:?}");
        assert_eq!(found["intolerance"]["versions"], json!([]), "{arguments:?}");
    }
}

#[test]
fn the_server_s_order_is_told_from_the_client_s() {
    let order = "AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256:AES256-SHA256";
    let found = scanned(&s_server(&["-tls1_2", "-cipher", order, "-serverpref"]), &[]);
    assert_eq!(suites(&found, "1.2").join(":"), order);
    assert_eq!((found["preference"].as_str(), &found["ciphers_complete"]), (Some("server"), &json!(["1.2"])));
    assert_eq!(used(&found)["suite"], "AES128-SHA");

    let found = scanned(&s_server(&["-tls1_2", "-cipher", order]), &[]);
    assert_eq!(suites(&found, "1.2"), ["ECDHE-RSA-AES128-GCM-SHA256", "AES256-SHA256", "AES128-SHA"]);
    assert_eq!(found["preference"], "client");

    let found = scanned(&s_server(&["-tls1_2", "-cipher", "AES128-SHA"]), &[]);
    assert_eq!(found["preference"], Value::Null, "one suite has no order");
}

#[test]
fn what_there_are_no_connections_for_is_named_and_full_looks_at_it() {
    let server = s_server(&["-cipher", "ALL:@SECLEVEL=0"]);
    let found = scanned(&server, &[]);
    assert_eq!((&found["connections"], &found["skipped"]), (&json!(25), &json!(["further cipher suites"])));
    let found = scanned(&server, &["--full"]);
    assert_eq!((&found["skipped"], &found["connections_allowed"]), (&json!([]), &json!(150)));
    assert_eq!(found["ciphers_complete"], json!(["1.2", "1.1", "1.0"]));
    let old = ["ECDHE-RSA-AES256-SHA", "ECDHE-RSA-AES128-SHA", "AES256-SHA", "AES128-SHA"];
    assert_eq!(suites(&found, "1.0"), [&old[..], &["DHE-RSA-AES256-SHA", "DHE-RSA-AES128-SHA"]].concat());
    assert_eq!(suites(&found, "1.3"), ["TLS_AES_128_GCM_SHA256"]);
}

#[test]
fn key_exchange_is_told_with_curve_or_size_of_the_group() {
    let pki = Pki::new();
    let group = openssl::dh::Dh::get_2048_256().unwrap();
    let (small, large) = (pki.dir().join("dh1024"), pki.dir().join("dh2048"));
    fs::write(&small, DH1024).unwrap();
    fs::write(&large, group.params_to_pem().unwrap()).unwrap();
    let dhe = |file: &Path| {
        let file = file.to_str().unwrap();
        let ciphers = "DHE-RSA-AES128-SHA256:@SECLEVEL=0";
        scanned(&SServer::start(&pki.server(), &["-www", "-tls1_2", "-cipher", ciphers, "-dhparam", file]), &[])
    };
    let kind = |found: &Value| {
        let used = used(found);
        ["key_exchange", "dhe_bits", "curve", "grade"].map(|key| used[key].clone())
    };
    let found = dhe(&small);
    assert_eq!(kind(&found), [json!("DHE"), json!(1024), Value::Null, json!("weak")]);
    assert!(found["next"].as_str().unwrap().contains(" --allow-weak=dhe"), "{found:#}");
    assert_eq!(kind(&dhe(&large)), [json!("DHE"), json!(2048), Value::Null, json!("good")]);
    let certificate = pki.server();
    for (curve, name) in [("SECP256R1", "P-256"), ("SECP384R1", "P-384"), ("SECP521R1", "P-521"), ("X25519", "X25519")]
    {
        let priority = format!("-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ECDHE-RSA:-GROUP-ALL:+GROUP-{curve}");
        let found = scanned(&GnutlsServer::echo(&certificate, &priority), &[]);
        assert_eq!(kind(&found), [json!("ECDHE"), Value::Null, json!(name), json!("good")]);
    }
    let found = scanned(&s_server(&["-tls1_2", "-cipher", "AES128-SHA"]), &[]);
    assert_eq!(kind(&found), [json!("RSA"), Value::Null, Value::Null, json!("good")]);
}

#[test]
fn rc4_and_3des_are_graded_and_the_command_allows_them_only_where_nothing_else_is_left() {
    let certificate = Pki::new().server();
    let server = NodeServer::start("4.9.1", &certificate, "TLSv1", "RC4-SHA:RC4-MD5");
    let found = scanned(&server, &[]);
    assert_eq!((used(&found)["suite"].as_str(), used(&found)["grade"].as_str()), (Some("RC4-SHA"), Some("broken")));
    assert_eq!(found["needs"]["allow_weak"], json!(["rc4"]));
    assert!(found["next"].as_str().unwrap().contains(" --allow-weak=rc4 "), "{found:#}");
    assert!(found["verdict"].as_str().unwrap().starts_with("works only with what is weak: RC4."), "{found:#}");

    let server = NodeServer::start("4.9.1", &certificate, "TLSv1", "DES-CBC3-SHA");
    let found = scanned(&server, &[]);
    assert_eq!((used(&found)["grade"].as_str(), &found["needs"]["allow_weak"]), (Some("weak"), &json!(["3des"])));

    let server = NodeServer::start("4.9.1", &certificate, "TLSv1", "RC4-SHA:AES128-SHA:DES-CBC3-SHA");
    let found = scanned(&server, &[]);
    assert_eq!((used(&found)["suite"].as_str(), &found["needs"]["allow_weak"]), (Some("AES128-SHA"), &json!([])));
    assert!(suites(&found, "1.0").contains(&"RC4-SHA"), "shown all the same: {found:#}");
    assert!(!found["next"].as_str().unwrap().contains("weak"));
}

#[test]
fn renegotiation_master_secret_and_resumption_are_told() {
    let certificate = Pki::new().server();
    let told = |found: &Value| {
        [
            &found["secure_renegotiation"],
            &found["extended_master_secret"],
            &found["resumption"]["session_id"],
            &found["resumption"]["ticket"],
        ]
        .map(|value| value.as_bool().unwrap())
    };
    for (arguments, expected) in [
        (&["-tls1_2"][..], [true, true, true, true]),
        (&["-tls1_2", "-no_ticket"], [true, true, true, false]),
        (&["-tls1_2", "-no_cache"], [true, true, false, true]),
        (&["-tls1_2", "-no_cache", "-no_ticket"], [true, true, false, false]),
    ] {
        assert_eq!(told(&scanned(&s_server(arguments), &[])), expected, "{arguments:?}");
    }
    // OpenSSL 1.0.2 knows no extended master secret, and node keeps no sessions by itself.
    let node = NodeServer::start("4.9.1", &certificate, "TLSv1", "AES128-SHA");
    assert_eq!(told(&scanned(&node, &[])), [true, false, false, true]);
    let gnutls = GnutlsServer::echo(&certificate, "-VERS-ALL:+VERS-TLS1.1:%DISABLE_SAFE_RENEGOTIATION");
    let found = scanned(&gnutls, &[]);
    assert!(!told(&found)[0]);
    assert!(found["next"].as_str().unwrap().contains(" --allow-weak=no-rfc5746 "), "{found:#}");
}

#[test]
fn a_client_certificate_that_is_asked_for_is_told_from_one_that_is_required() {
    let told = |arguments: &[&str]| {
        let found = scanned(&s_server(arguments), &[]);
        let command = found["next"].as_str().unwrap().contains(" --auth-cert FILE --auth-key FILE ");
        (found["client_certificate"].as_str().unwrap().to_owned(), command)
    };
    assert_eq!(told(&["-tls1_2"]), ("no".to_owned(), false));
    assert_eq!(told(&["-tls1_2", "-verify", "1"]), ("optional".to_owned(), false));
    for version in ["-tls1_2", "-tls1"] {
        let required = [version, "-Verify", "1", "-cipher", "AES128-SHA:@SECLEVEL=0"];
        assert_eq!(told(&required), ("required".to_owned(), true));
    }
}

#[test]
fn sites_are_told_apart_by_the_server_name() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (main, site) = (pki.server(), other.flawed(Flaw::WrongName));
    let (cert, key) = (site.cert_file.to_str().unwrap(), site.key_file.to_str().unwrap());
    let sites = ["-www", "-tls1_2", "-servername", "ews.test", "-cert2", cert, "-key2", key];
    let server = SServer::start(&main, &sites);
    let found = scanned(&server, &["--sni", "ews.test"]);
    assert_eq!(found["certificates"][0]["sha256"], site.pin());
    assert_eq!(found["server_name"]["without"], json!({"answer": "other", "subject": "CN=exchange"}));
    assert_eq!(found["server_name"]["other"], json!({"answer": "other", "subject": "CN=exchange"}));
    assert_eq!(found["sni"], "ews.test");
    assert!(found["next"].as_str().unwrap().contains(" --sni ews.test "), "{found:#}");

    let server = SServer::start(&main, &[&sites[..], &["-servername_fatal"]].concat());
    let found = scanned(&server, &["--sni", "ews.test"]);
    assert_eq!(found["server_name"]["other"], json!({"answer": "refused", "subject": null}));

    let found = scanned(&s_server(&["-tls1_2"]), &["--sni", "ews.test"]);
    assert_eq!(
        (&found["server_name"]["without"]["answer"], &found["server_name"]["other"]["answer"]),
        (&json!("same"), &json!("same"))
    );
    assert_eq!(scanned(&s_server(&["-tls1_2"]), &[])["sni"], Value::Null, "an address is no name");
}

#[test]
fn devices_that_dislike_versions_or_extensions_are_found_out() {
    let certificate = Pki::new().server();
    for (dislike, manner, protocol, versions, extensions) in [
        (Dislike::VersionAbove(1), Manner::Alerts, "TLSv1", &["1.2", "1.1"][..], false),
        (Dislike::VersionAbove(2), Manner::Closes, "TLSv1_1", &["1.2"], false),
        (Dislike::VersionAbove(1), Manner::Hangs, "TLSv1", &["1.2", "1.1"], false),
        (Dislike::Extensions, Manner::Closes, "TLSv1", &[], true),
    ] {
        let server = NodeServer::start("4.9.1", &certificate, protocol, "AES128-SHA");
        let device = before(&server, dislike, manner);
        let found = scanned(&device, &[]);
        let told = &found["intolerance"];
        assert_eq!((&told["versions"], &told["extensions"]), (&json!(versions), &json!(extensions)), "{dislike:?}");
        assert_eq!(used(&found)["suite"], "AES128-SHA");
        let text = found["verdict"].as_str().unwrap();
        let what = if extensions { "stumbles over extensions" } else { "stumbles over newer versions" };
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn a_server_that_dislikes_tls_1_3_hellos_alone_works_with_the_defaults() {
    let server = s_server(&["-tls1_2"]);
    let found = scanned(&disliking(&server, is_1_3), &[]);
    assert_eq!(found["intolerance"]["versions"], json!(["1.3"]));
    assert!(found["verdict"].as_str().unwrap().starts_with("works with the defaults"), "{found:#}");
}

#[test]
fn hellos_of_lengths_that_hang_are_tried() {
    let server = s_server(&["-tls1_2"]);
    let told = |found: &Value| {
        let told = &found["intolerance"];
        [&told["hello_256_to_511_bytes"], &told["hello_over_512_bytes"]].map(|value| value.as_bool().unwrap())
    };
    assert_eq!(told(&scanned(&server, &[])), [false, false]);
    let medium = disliking(&server, |hello| (256..512).contains(&(hello.len() - 5)));
    assert_eq!(told(&scanned(&medium, &[])), [true, false]);
    let long = disliking(&server, |hello| hello.len() - 5 > 512);
    assert_eq!(told(&scanned(&long, &[])), [false, true]);
}

/// A device that closes at first records of a certain kind.
fn disliking(server: &impl Listening, dislikes: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> TcpTarget {
    let server = server.address();
    choosing(move |hello| (!dislikes(hello)).then_some(server))
}

/// A device that passes a connection on to where its first record belongs, or else closes it.
fn choosing(choice: impl Fn(&[u8]) -> Option<SocketAddr> + Send + Sync + 'static) -> TcpTarget {
    TcpTarget::serve(move |mut client: TcpStream| {
        let mut record = vec![0; 5];
        client.read_exact(&mut record).unwrap();
        record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
        client.read_exact(&mut record[5..]).unwrap();
        let Some(server) = choice(&record) else {
            let _ = client.shutdown(Shutdown::Both);
            return;
        };
        let mut server = TcpStream::connect(server).unwrap();
        server.write_all(&record).unwrap();
        pass(client, server);
    })
}

/// Whether a hello offers TLS 1.3.
fn is_1_3(hello: &[u8]) -> bool {
    hello.windows(7).any(|bytes| bytes == [0, 43, 0, 9, 8, 3, 4])
}

/// As tlslite-ng does when it is limited to TLS 1.0.
#[test]
fn a_version_that_only_an_offer_of_tls_1_3_gets_is_not_spoken() {
    let certificate = Pki::new().server();
    let newer = SServer::start(&certificate, &["-www", "-tls1_2"]);
    let older = NodeServer::start("4.9.1", &certificate, "TLSv1", "AES128-SHA");
    let (new, old) = (newer.address(), older.address());
    let found = scanned(&choosing(move |hello| Some(if is_1_3(hello) { new } else { old })), &[]);
    assert_eq!(spoken(&found), ["1.0"]);
}

/// An Exchange for strangers, and what it was sent inside TLS.
fn exchange(version: SslVersion, certificate: &Certificate) -> (TlsTarget, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&heard);
    let target = TlsTarget::serve_version(version, certificate, move |mut connection| {
        let mut request = vec![0; 4096];
        let Ok(count @ 1..) = connection.read(&mut request) else { return };
        request.truncate(count);
        while !request.ends_with(b"\r\n\r\n") {
            let mut more = [0; 4096];
            let Ok(count @ 1..) = connection.read(&mut more) else { break };
            request.extend(&more[..count]);
        }
        tell.lock().unwrap().push(String::from_utf8(request).unwrap());
        let _ = connection.write_all(
            b"HTTP/1.1 401 Unauthorized\r\nServer: Microsoft-IIS/8.5 \x1b[31m\r\nWWW-Authenticate: Negotiate\r\n\
              WWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
        );
        connection.fin();
    });
    (target, heard)
}

#[test]
fn the_ews_page_is_asked_for_once_and_nothing_else_is_sent() {
    let certificate = Pki::new().server();
    for version in [SslVersion::TLS1, SslVersion::TLS1_1, SslVersion::TLS1_2] {
        let (target, heard) = exchange(version, &certificate);
        let found = scanned(&target, &[]);
        let ews = &found["ews"];
        assert_eq!((&ews["status"], &ews["schemes"]), (&json!(401), &json!(["Negotiate", "NTLM"])));
        assert_eq!(ews["server"], "Microsoft-IIS/8.5 \\u{1b}[31m", "what a server says moves no cursor");
        assert_eq!(
            *heard.lock().unwrap(),
            [
                "GET /EWS/Exchange.asmx HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: ewsbridge\r\nConnection: close\r\n\r\n"
            ]
        );
        if version != SslVersion::TLS1 {
            assert_eq!(found["close_notify"], false, "it ends as IIS does");
        }
    }
}

#[test]
fn the_certificate_is_described_and_the_setting_that_fits_is_named() {
    let pki = Pki::new();
    let certificate = pki.server_under_intermediate();
    let found = scanned(&SServer::start(&certificate, &["-www", "-tls1_2"]), &[]);
    let shown = &found["certificates"][0];
    assert_eq!((&shown["subject"], &shown["issuer"]), (&json!("CN=exchange"), &json!("CN=The test's intermediate")));
    assert_eq!(shown["names"], json!(["localhost", "127.0.0.1", "::1"]));
    assert_eq!((&shown["key"], &shown["signature"]), (&json!("RSA 2048"), &json!("SHA-256")));
    assert_eq!((&shown["sha256"], &shown["self_signed"]), (&json!(certificate.pin()), &json!(false)));
    assert_eq!(found["certificates"].as_array().unwrap().last().unwrap()["subject"], "CN=The test's intermediate");
    let trust = &found["trust"];
    assert_eq!((&trust["trusted"], &trust["setting"]), (&json!(false), &json!("ca")));
    let target = found["target"].as_str().unwrap();
    let pin = certificate.pin();
    assert_eq!(found["next"], format!("ewsbridge add NAME PORT {target} --pin {pin}"));
    assert_eq!(found["alternatives"], json!([format!("ewsbridge add NAME PORT {target} --ca FILE")]));

    let certificate = pki.flawed(Flaw::SelfSigned);
    let found = scanned(&SServer::start(&certificate, &["-www", "-tls1_2"]), &[]);
    assert_eq!(found["trust"]["faults"], json!([{"cause": "self-signed, not trusted", "accept": null}]));
    assert_eq!((&found["trust"]["setting"], &found["alternatives"]), (&json!("pin"), &json!([])));
}

/// Each flaw of a certificate whose authority this system trusts: the setting that is named lets a
/// forwarder through, and no fault is forgotten.
#[tokio::test]
async fn needs_root_what_is_wrong_with_a_certificate_is_cured_by_the_setting_that_is_named() {
    let pki = Pki::new();
    let system = pki.dir().join("system");
    fs::create_dir_all(system.join("certs")).unwrap();
    fs::copy(pki.ca_file(), system.join("certs/ca-certificates.crt")).unwrap();
    let covers = [("/etc/ssl", system.as_path())];
    for (certificate, accepted, setting) in [
        (pki.server(), &[][..], "none"),
        (pki.server_under_intermediate(), &[], "none"),
        (pki.flawed(Flaw::Sha1), &["sha1"], "accept"),
        (pki.flawed(Flaw::Sha1Intermediate), &["sha1"], "accept"),
        (pki.flawed(Flaw::Rsa1024), &["rsa1024"], "accept"),
        (pki.flawed(Flaw::Rsa1024Intermediate), &["rsa1024"], "accept"),
        (pki.flawed(Flaw::Expired), &["expired"], "accept"),
        (pki.flawed(Flaw::WrongName), &["wrong-name"], "accept"),
        (pki.flawed(Flaw::IpInCn), &["ip-in-cn"], "accept"),
        (pki.flawed(Flaw::Md5), &[], "pin"),
        (pki.flawed(Flaw::Md5Intermediate), &[], "pin"),
        (pki.flawed(Flaw::Rsa768), &[], "pin"),
        (pki.flawed(Flaw::SelfSigned), &[], "pin"),
    ] {
        let (target, _) = exchange(SslVersion::TLS1_1, &certificate);
        let address = target.address().to_string();
        let found = Scanned::of(covered(&covers, &[&address, "--json"])).json();
        let trust = &found["trust"];
        let what = certificate.cert_file.display();
        assert_eq!((&trust["setting"], &trust["accept"]), (&json!(setting), &json!(accepted)), "{what}: {trust:#}");
        assert_eq!(trust["trusted"], setting == "none");
        assert_eq!(trust["faults"].as_array().unwrap().is_empty(), setting == "none", "{what}");
        let words = found["next"].as_str().unwrap().split(' ').skip(5).map(str::to_owned);
        let bridge = Bridge::to(&target).cover("/etc/ssl", &system).args(words.collect::<Vec<_>>()).start();
        bridge.try_client().await.unwrap_or_else(|failure| panic!("{what}: {failure:?} {}", bridge.log()));
    }
}

#[test]
fn needs_root_every_address_of_a_name_is_tried() {
    let server = s_server(&["-tls1_2"]);
    let counter = counting(&server);
    let folder = tempfile::TempDir::new().unwrap();
    let (hosts, switch) = (folder.path().join("hosts"), folder.path().join("nsswitch"));
    fs::write(&hosts, "127.0.0.2 ews.test\n127.0.0.1 ews.test\n").unwrap();
    fs::write(&switch, "hosts: files\n").unwrap();
    let covers = [("/etc/hosts", hosts.as_path()), ("/etc/nsswitch.conf", switch.as_path())];
    let port = counter.address().port();
    let found = Scanned::of(covered(&covers, &[&format!("ews.test:{port}"), "--json"])).json();
    let addresses = found["addresses"].as_array().unwrap();
    let told = |ip: &str| addresses.iter().find(|one| one["address"] == ip).unwrap();
    let (good, bad) = (told("127.0.0.1"), told("127.0.0.2"));
    assert_eq!((&good["connected"], &good["error"]), (&json!(true), &Value::Null));
    assert_eq!((&bad["connected"], &bad["error"]), (&json!(false), &json!("connection refused")));
    assert_eq!(found["address"], format!("127.0.0.1:{port}"));
    assert_eq!((&found["sni"], &found["target"]), (&json!("ews.test"), &json!(format!("ews.test:{port}"))));
    assert!(found["connections"].as_u64().unwrap() <= 25);

    let found = Scanned::of(covered(&covers, &["ews.test:1"]));
    let line = found.stderr.lines().next().unwrap();
    assert!(line.starts_with("target ews.test:1: connect: "), "{line}");
    assert!(line.contains("127.0.0.1: connection refused") && line.contains("127.0.0.2: connection refused"), "{line}");
    assert_eq!(found.code, 1);
}

#[test]
fn a_slow_server_and_one_that_drips_are_found_out_too() {
    let server = s_server(&["-tls1_2"]);
    let address = server.address();
    let count = Arc::new(Mutex::new(0));
    let slow = TcpTarget::serve(move |client| {
        let number = {
            let mut count = count.lock().unwrap();
            *count += 1;
            *count
        };
        // As long as slow servers are known to take, and only as often as it tells something.
        if number <= 2 {
            std::thread::sleep(Duration::from_secs(6));
        }
        pass(client, TcpStream::connect(address).unwrap());
    });
    let found = scanned(&slow, &[]);
    assert_eq!((spoken(&found), &found["needs"]["security_level"]), (vec!["1.2"], &json!(2)));

    let dripping = TcpTarget::serve(move |mut client| {
        let server = TcpStream::connect(address).unwrap();
        let (mut up, mut down) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), server);
        let there = std::thread::spawn(move || {
            let _ = std::io::copy(&mut up.0, &mut up.1);
            let _ = up.1.shutdown(Shutdown::Write);
        });
        let mut byte = [0; 3];
        client.set_nodelay(true).unwrap();
        while let Ok(count @ 1..) = down.read(&mut byte) {
            if client.write_all(&byte[..count]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Write);
        there.join().unwrap();
    });
    let found = scanned(&dripping, &[]);
    assert_eq!((spoken(&found), &found["ews"]["status"]), (vec!["1.2"], &json!(200)));
    assert_eq!(suites(&found, "1.2")[0], "ECDHE-RSA-AES256-GCM-SHA384");
}

/// A group of 1024 bits, made by `openssl dhparam -2 1024`; OpenSSL takes its time for one.
const DH1024: &str = "-----BEGIN DH PARAMETERS-----
MIGHAoGBAJHc98EhaH5x1KiwrTa4N3r9UItZH0qbaeGHRTDDHOnpyf+R1c8tFFw7
kJ6OaSKz+u9zjk6zXQ2l9O2N5NeFjLOTpG+qQFqoYRa4DpbO7OrQIX37rJ2k6B2q
N8+NjMkXiUivgSyobCJmdP48f17ZOD77j1C3e/BpOZuONdceEvC/AgEC
-----END DH PARAMETERS-----";
