//! Servers that `probe` can't help: what each is and what to do, in bounded time. And how it prints.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::scan::{Scanned, command, counting};
use common::{Child, Flaw, Listening, Pki, SServer, TcpTarget, full_backlog};
use serde_json::{Value, json};
use socket2::SockRef;

/// The failure of a scan, and that `--json` says the same with the same exit code.
fn fails(target: &str, within: Duration) -> (String, String) {
    let scanned = Scanned::with(&[target]);
    assert!(scanned.time < within, "{target} took {:?}", scanned.time);
    assert_eq!((scanned.code, scanned.stdout.as_str()), (1, ""), "{}", scanned.stderr);
    let (message, hint) = scanned.stderr.trim_end().split_once("\nhint: ").unwrap();
    let side = format!("target {target}: ");
    (message.strip_prefix(&side).unwrap().to_owned(), hint.to_owned())
}

/// The same of `--json`.
fn fails_in_json(target: &str) -> Value {
    let scanned = Scanned::with(&[target, "--json"]);
    assert_eq!((scanned.code, scanned.stderr.as_str()), (1, ""));
    let found: Value = serde_json::from_str(&scanned.stdout).unwrap();
    assert_eq!((&found["schema"], &found["ok"]), (&json!(1), &json!(false)));
    found["error"].clone()
}

const SOON: Duration = Duration::from_secs(15);

const PORT: &str = "name the server's HTTPS port, usually 443";

#[test]
fn other_protocols_are_named_after_one_connection() {
    for (greeting, answer, speaks) in [
        (&b""[..], &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "plain HTTP"),
        (b"220 mail.corp ESMTP\r\n", b"", "SMTP or FTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"", "SSH"),
        (b"+OK ready\r\n", b"", "POP3"),
        (b"* OK ready\r\n", b"", "IMAP"),
    ] {
        let server = TcpTarget::serve(move |mut stream| {
            let _ = stream.write_all(greeting);
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        });
        let (cause, hint) = fails(&server.address().to_string(), SOON);
        assert_eq!(cause, format!("TLS handshake: the server speaks {speaks} on this port, not TLS"));
        assert_eq!((hint.as_str(), server.accepted()), (PORT, 1));
    }
    let server = TcpTarget::answering(&[0x80; 300]);
    let (cause, hint) = fails(&server.address().to_string(), SOON);
    assert_eq!((cause.as_str(), hint.as_str()), ("TLS handshake: what the server sent is not TLS", PORT));
}

#[test]
fn ssl_3_is_found_out_and_never_used() {
    let certificate = Pki::new().server();
    // Node 0.10 still has it.
    let script = "var https = require('https'), fs = require('fs'), a = process.argv; \
        https.createServer({ key: fs.readFileSync(a[1]), cert: fs.readFileSync(a[2]), \
        secureProtocol: 'SSLv3_method', ciphers: 'AES128-SHA' }, function (q, r) { console.log('asked'); r.end(); }) \
        .listen(0, '127.0.0.1', function () { console.log('listening ' + this.address().port); });";
    let mut command = Command::new(common::cached("node-0.10.48/bin/node"));
    command.args(["--enable-ssl3", "-e", script]).arg(&certificate.key_file).arg(&certificate.cert_file);
    let server = Child::spawn(&mut command);
    let line = server.stdout.wait_for(&["listening "]);
    let target = format!("127.0.0.1:{}", line.trim_start_matches("listening "));
    let (cause, hint) = fails(&target, SOON);
    let text = "the server speaks nothing newer than SSL 3, which is broken (RFC 7568) and never used";
    assert_eq!(cause, format!("TLS handshake: {text}"));
    let cure =
        "switch TLS on at the server (Windows: SCHANNEL\\Protocols\\TLS 1.0\\Server, Enabled = 1; then restart it)";
    assert_eq!(hint, cure);
    let expected = json!({"side": format!("target {target}"), "stage": "TLS handshake", "cause": text, "hint": cure});
    assert_eq!(fails_in_json(&target), expected);
    assert_eq!(server.stdout.count("asked"), 0);
}

#[test]
fn a_server_of_tls_1_3_alone_needs_no_bridge() {
    let server = SServer::start(&Pki::new().server(), &["-www", "-tls1_3"]);
    let counter = counting(&server);
    let (cause, hint) = fails(&counter.address().to_string(), SOON);
    let text = "TLS handshake: the server speaks TLS 1.3 only, which ewsbridge does not speak to targets";
    assert_eq!(cause, text);
    assert_eq!(hint, "it needs no bridge: let its clients connect to it directly");
    assert!(counter.accepted() <= 25);
}

#[test]
fn servers_that_close_or_reset_are_told_apart() {
    let read = |stream: &mut TcpStream| _ = stream.read(&mut [0; 4096]);
    let closing = TcpTarget::serve(move |mut stream| read(&mut stream));
    let resetting = TcpTarget::serve(move |mut stream| {
        read(&mut stream);
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let alerting = TcpTarget::answering(&[21, 3, 1, 0, 2, 2, 80]);
    for (server, cause) in [
        (closing, "the server closed the connection at our ClientHello, without a reason"),
        (resetting, "the server reset the connection at our ClientHello, without a reason"),
        (
            alerting,
            "the server reports an error of its own at our ClientHello (openssl 0A000438 tlsv1 alert internal error)",
        ),
    ] {
        let (told, hint) = fails(&server.address().to_string(), SOON);
        assert!(told.starts_with(&format!("TLS handshake: {cause}")), "{told}");
        assert!(hint.contains("the server's own log"), "{hint}");
        assert!(server.accepted() <= 25, "{}", server.accepted());
    }
}

#[test]
fn a_silent_server_costs_less_than_half_a_minute() {
    let server = TcpTarget::silent();
    let (cause, hint) = fails(&server.address().to_string(), Duration::from_secs(30));
    assert!(cause.starts_with("TLS handshake: not finished within 10s: no answer to our ClientHello"), "{cause}");
    assert!(hint.contains("port"), "{hint}");
}

#[test]
fn a_server_that_drips_for_ever_costs_no_more() {
    let server = TcpTarget::serve(|mut stream| {
        // The begin of a record, and then its bytes, so slowly that it never ends.
        let mut bytes = [22, 3, 1, 0x40, 0, 2, 0, 0x3f, 0].into_iter().chain(std::iter::repeat(1));
        while stream.write_all(&[bytes.next().unwrap()]).is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    let (cause, _) = fails(&server.address().to_string(), Duration::from_secs(30));
    assert!(
        cause.starts_with("TLS handshake: not finished within 10s: its answer to our ClientHello does not"),
        "{cause}"
    );
}

#[test]
fn garbage_without_end_is_cut_off() {
    let endless = TcpTarget::serve(|mut stream| {
        let mut record = vec![22, 3, 1, 0x40, 0, 2, 0xff, 0xff, 0xff];
        record.resize(5 + 0x4000, 0);
        while stream.write_all(&record).is_ok() {}
    });
    let (cause, hint) = fails(&endless.address().to_string(), SOON);
    assert!(cause.contains("longer message than is read") && cause.contains("0A000098"), "{cause}");
    assert_eq!(hint, "let the server send its own certificate and its intermediates, and no others");
}

#[test]
fn a_server_that_is_not_there_is_told_from_a_name_that_is_not() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = socket.local_addr().unwrap().to_string();
    drop(socket);
    let (cause, hint) = fails(&deaf, SOON);
    assert_eq!(cause, "connect: connection refused");
    assert!(hint.contains("nothing listens there on port") && hint.contains("is the service started"), "{hint}");
    let (cause, hint) = fails("nobody.invalid:443", SOON);
    assert!(cause.starts_with("look-up: "), "{cause}");
    assert!(hint.starts_with("is the name right?"), "{hint}");
    let (full, _held) = full_backlog();
    let (cause, _) = fails(&full.to_string(), Duration::from_secs(20));
    assert_eq!(cause, "connect: no answer within 10s");
}

#[test]
fn what_is_typed_wrongly_is_wrong_usage() {
    for (arguments, message) in [
        (&["ews.corp"][..], "HOST:PORT: 'ews.corp' has no port; an example: ews.corp:443"),
        (&["h:1", "--sni", "10.0.0.1"], "--sni: an IP address can't be sent as server name (RFC 6066 §3); use off"),
    ] {
        let scanned = Scanned::with(arguments);
        assert_eq!((scanned.code, scanned.stderr.trim_end()), (2, message));
    }
}

#[test]
fn a_report_fits_80_columns_and_ends_with_the_command() {
    let certificate = Pki::new().flawed(Flaw::SelfSigned);
    let server = SServer::start(&certificate, &["-www", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    let scanned = Scanned::with(&[&server.address().to_string()]);
    assert_eq!((scanned.code, scanned.stderr.as_str()), (0, ""), "no progress where nobody looks");
    let lines: Vec<&str> = scanned.stdout.lines().collect();
    let is_fingerprint = |line: &str| line.trim_start().starts_with("sha256:");
    assert!(lines.iter().all(|line| line.chars().count() <= 80 || is_fingerprint(line)), "{}", scanned.stdout);
    assert!(lines.contains(&"Protocols    TLS 1.3 no, TLS 1.2 no, TLS 1.1 yes, TLS 1.0 no"));
    assert!(lines.contains(&"Ciphers    * TLS 1.1  ECDHE-RSA-AES256-SHA  P-256"), "{}", scanned.stdout);
    assert!(lines.contains(&"EWS          /EWS/Exchange.asmx answers 200"));
    assert!(lines.iter().any(|line| line.starts_with("Verdict      works with the defaults; TLS 1.1 is old,")));
    let tail = &lines[lines.len() - 2..];
    assert_eq!(tail[0], format!("Next         ewsbridge add NAME PORT {} \\", server.address()));
    assert_eq!(tail[1], format!("  --pin {}", certificate.pin()));
}

#[test]
fn on_a_terminal_one_line_tells_how_far_it_is_and_is_gone_at_the_end() {
    let server = SServer::start(&Pki::new().server(), &["-www", "-tls1_2"]);
    let words = format!("'{}' probe {}", env!("CARGO_BIN_EXE_ewsbridge"), server.address());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &words, "/dev/null"]).env("TERM", "xterm");
    let shown = Scanned::of(script).stdout;
    assert!(shown.contains("\r\x1b[K  ...   [1/25] TLS 1.2 and older at level 2"), "{shown:?}");
    let rest = shown.rsplit("\r\x1b[K").next().unwrap();
    assert!(rest.starts_with(&format!("{} (127.0.0.1): ", server.address())), "{rest:?}");
}

/// Runs a command whose reader is gone before it says a word: its exit code and what it says of that.
fn unread(mut command: Command) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_reader_that_goes_away_ends_no_command_in_panic() {
    let certificate = Pki::new().server();
    let server = SServer::start(&certificate, &["-www", "-tls1_2"]);
    let target = server.address().to_string();
    for arguments in [&[target.as_str()][..], &[&target, "--json"]] {
        assert_eq!(unread(command(arguments)), (Some(0), String::new()));
    }
    let folder = tempfile::TempDir::new().unwrap();
    let ewsbridge = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ewsbridge"));
        command.args(words).env("EWSBRIDGE_CONFIG_DIR", folder.path().join("etc"));
        command.env("EWSBRIDGE_STATE_DIR", folder.path().join("var"));
        command
    };
    let added = ewsbridge(&["add", "x", "127.0.0.1:1", &target, "--offline", "--pin", &certificate.pin()]).output();
    assert!(added.unwrap().status.success());
    for words in
        [&["list"][..], &["show", "x"], &["check", "x"], &["cert", "show", "x"], &["trust", "x"], &["--version"]]
    {
        let (code, talk) = unread(ewsbridge(words));
        assert!(!talk.contains("panicked"), "{words:?}: {talk}");
        // Nobody serves x.
        assert_eq!(code, Some(i32::from(words[0] == "check")), "{words:?}");
    }
    let full = std::fs::File::options().write(true).open(Path::new("/dev/full")).unwrap();
    let output = ewsbridge(&["cert", "show", "x"]).stdout(full).output().unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(talk.ends_with("standard output: write: no space left on device\n"), "{talk}");
}
