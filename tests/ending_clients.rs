//! What programs make of a target that ends by FIN without close_notify, mirrored and made clean: the
//! table in `docs/endings.md`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Pki, TlsTarget, s_client};
use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

const SETTINGS: [&str; 2] = ["mirror", "clean"];

/// A target that answers by path and then ends by FIN.
fn target_and_bridge(target_eof: &str) -> (TlsTarget, Bridge) {
    let certificate = Pki::new().server();
    let target = TlsTarget::serve(&certificate, |mut connection| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(connection.read(&mut byte), Ok(1)) {
                return;
            }
            head.push(byte[0]);
        }
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap();
        let answer = match path {
            b"/until-the-end" => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody",
            b"/cut-short" => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbody",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        };
        connection.write_all(answer.as_bytes()).unwrap();
        if path == b"/idle" {
            // IIS waits for 120 s.
            std::thread::sleep(Duration::from_millis(300));
        }
        connection.fin();
    });
    let bridge = Bridge::to(&target).pin(&certificate).arg("--set").arg(format!("target_eof={target_eof}")).start();
    (target, bridge)
}

/// Runs a program, and gives its exit code and all it wrote.
fn output(command: &mut Command) -> (Option<i32>, String) {
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy"]
    {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

fn curl(bridge: &Bridge, paths: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("curl");
    command.args(["--http1.1", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20"]);
    // More than the target waits with an idle connection.
    command.args(["--rate", "1/s", "--write-out", ";%{num_connects};"]).arg("--cacert").arg(bridge.ca_file());
    command.args(paths.iter().map(|path| format!("https://localhost:{}{path}", bridge.address().port())));
    output(&mut command)
}

/// Python's own client; a second request on the same connection after a while if there are two paths.
fn python(bridge: &Bridge, paths: &[&str]) -> String {
    const CLIENT: &str = "
import http.client, ssl, sys, time
ca, port, *paths = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
connection = http.client.HTTPSConnection('localhost', int(port), context=context, timeout=20)
connection.connect()
connection.auto_open = 0
for number, path in enumerate(paths):
    time.sleep(number)
    try:
        connection.request('GET', path)
        print(connection.getresponse().read().decode(), end=';')
    except Exception as error:
        print(type(error).__name__, end=';')
";
    let mut command = Command::new("python3");
    command.args(["-c", CLIENT]).arg(bridge.ca_file()).arg(bridge.address().port().to_string()).args(paths);
    output(&mut command).1
}

#[test]
fn body_that_only_the_end_delimits_is_whole_and_strict_clients_call_it_cut_unless_the_end_is_made_clean() {
    for target_eof in SETTINGS {
        let (_target, bridge) = target_and_bridge(target_eof);
        let is_clean = target_eof == "clean";
        let (code, text) = curl(&bridge, &["/until-the-end"]);
        assert!(text.starts_with("body;1;"), "{target_eof}: {text}");
        // Newer curls pass over it, some older ones tell it by 56.
        assert!(code == Some(0) || (code == Some(56) && !is_clean), "{target_eof}: {code:?} {text}");
        assert_eq!(python(&bridge, &["/until-the-end"]), "body;", "{target_eof}");
        let request = "GET /until-the-end HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let (_, text) = s_client(bridge.address(), &["-quiet"], request);
        assert!(text.contains("body"), "{target_eof}: {text}");
        assert_eq!(text.contains("unexpected eof while reading"), !is_clean, "{target_eof}: {text}");
    }
}

#[test]
fn body_that_is_cut_short_is_an_error_even_if_the_end_is_made_clean() {
    for target_eof in SETTINGS {
        let (_target, bridge) = target_and_bridge(target_eof);
        assert_eq!(curl(&bridge, &["/cut-short"]).0, Some(18), "{target_eof}");
        assert_eq!(python(&bridge, &["/cut-short"]), "IncompleteRead;", "{target_eof}");
    }
}

#[test]
fn body_of_known_length_is_whole_and_an_end_after_it_is_no_fault_of_it() {
    for target_eof in SETTINGS {
        let (_target, bridge) = target_and_bridge(target_eof);
        assert_eq!(curl(&bridge, &["/known"]), (Some(0), "body;1;".to_owned()), "{target_eof}");
        assert_eq!(python(&bridge, &["/known"]), "body;", "{target_eof}");
    }
}

#[test]
fn connection_that_idles_out_is_replaced_or_fails_at_the_next_request_in_either_case() {
    for target_eof in SETTINGS {
        let (_target, bridge) = target_and_bridge(target_eof);
        // The second is answered on a new connection.
        assert_eq!(curl(&bridge, &["/idle", "/idle"]), (Some(0), "body;1;body;1;".to_owned()), "{target_eof}");
        // Python's own client neither looks before it sends nor tries again.
        assert_eq!(python(&bridge, &["/idle", "/idle"]), "body;RemoteDisconnected;", "{target_eof}");
    }
}
