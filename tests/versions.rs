//! TLS 1.3 in, whatever the target speaks out, with no flag about versions.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bridge, Pki, SServer, TcpTarget, TlsTarget, s_client};
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;

const GET: &str = "GET / HTTP/1.0\r\n\r\n";

#[test]
fn tls_1_0_target_is_reached_over_tls_1_3() {
    each_suite_works(
        "-tls1",
        "TLSv1",
        "1.0",
        &["ECDHE-RSA-AES256-SHA", "ECDHE-RSA-AES128-SHA", "AES256-SHA", "AES128-SHA"],
    );
}

#[test]
fn tls_1_1_target_is_reached_over_tls_1_3() {
    each_suite_works(
        "-tls1_1",
        "TLSv1.1",
        "1.1",
        &["ECDHE-RSA-AES256-SHA", "ECDHE-RSA-AES128-SHA", "AES256-SHA", "AES128-SHA"],
    );
}

#[test]
fn tls_1_2_target_is_reached_over_tls_1_3() {
    // What Windows 2008 R2 to 2012 R2 have in common with us, and the GCM suites of later ones.
    let suites = [
        "ECDHE-RSA-AES256-SHA384",
        "ECDHE-RSA-AES128-SHA256",
        "ECDHE-RSA-AES256-SHA",
        "AES256-GCM-SHA384",
        "AES128-GCM-SHA256",
        "AES256-SHA256",
        "AES128-SHA",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ];
    each_suite_works("-tls1_2", "TLSv1.2", "1.2", &suites);
}

fn each_suite_works(flag: &str, shown: &str, logged: &str, suites: &[&str]) {
    let certificate = Pki::new().server();
    for suite in suites {
        let target = SServer::start(&certificate, &[flag, "-cipher", &format!("{suite}:@SECLEVEL=0"), "-www"]);
        let bridge = Bridge::to(&target).pin(&certificate).start();

        let (code, text) = s_client(bridge.address(), &trusting(&bridge.ca_file()), GET);

        assert_eq!(code, 0, "{suite}: {text}\n{}", bridge.log());
        assert!(text.contains("New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384"), "{text}");
        // The page tells what the target itself saw.
        assert!(text.contains(&format!("Protocol  : {shown}\n")), "{suite}: {text}");
        assert!(text.contains(&format!("Cipher    : {suite}\n")), "{suite}: {text}");
        let session = bridge.session();
        assert_eq!(&session["tls_in"], "1.3");
        assert_eq!(&session["tls_out"], logged);
        assert_eq!(&session["suite_in"], "TLS_AES_256_GCM_SHA384");
        assert_eq!(&session["suite_out"], *suite);
        assert_eq!(session.number("up"), GET.len() as u64);
    }
}

#[test]
fn newest_version_and_ecdhe_are_preferred() {
    let certificate = Pki::new().server();
    let target = SServer::start(&certificate, &["-cipher", "ALL:@SECLEVEL=0", "-www"]);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    s_client(bridge.address(), &trusting(&bridge.ca_file()), GET);
    let session = bridge.session();
    assert_eq!(&session["tls_out"], "1.2");
    assert!(session["suite_out"].starts_with("ECDHE-RSA-AES"), "{}", session.line);
}

#[test]
fn finite_field_diffie_hellman_is_never_chosen() {
    // Schannel's own fails at random against other stacks (KB4557473).
    let certificate = Pki::new().server();
    let target = SServer::start(&certificate, &["-tls1_2", "-cipher", "DHE-RSA-AES256-SHA:@SECLEVEL=0", "-www"]);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let (code, text) = s_client(bridge.address(), &trusting(&bridge.ca_file()), GET);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("alert handshake failure"), "{text}");
}

#[test]
fn tls_1_1_client_is_refused_and_the_target_hears_nothing() {
    let certificate = Pki::new().server();
    let target = TlsTarget::echo(&certificate);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    for version in ["-tls1_1", "-tls1"] {
        let (code, text) = s_client(bridge.address(), &[version, "-cipher", "ALL:@SECLEVEL=0"], GET);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("alert protocol version"), "{text}");
    }
    assert_eq!(target.accepted(), 0);
}

#[test]
fn tls_1_2_client_is_served() {
    let certificate = Pki::new().server();
    let target = SServer::start(&certificate, &["-tls1", "-cipher", "ALL:@SECLEVEL=0", "-www"]);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let ca = bridge.ca_file();
    let arguments = [&["-tls1_2"], &trusting(&ca)[..]].concat();
    let (code, text) = s_client(bridge.address(), &arguments, GET);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("New, TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"), "{text}");
    assert!(text.contains("Protocol  : TLSv1\n"), "{text}");
    assert_eq!(&bridge.session()["tls_in"], "1.2");
}

#[test]
fn http_2_is_never_negotiated() {
    let certificate = Pki::new().server();
    let target = SServer::start(&certificate, &["-tls1", "-cipher", "ALL:@SECLEVEL=0", "-www"]);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let ca = bridge.ca_file();
    for (offered, result) in [
        ("h2,http/1.1", "ALPN protocol: http/1.1"),
        ("http/1.1", "ALPN protocol: http/1.1"),
        ("h2", "No ALPN negotiated"),
        ("something", "No ALPN negotiated"),
    ] {
        let arguments = [&["-alpn", offered], &trusting(&ca)[..]].concat();
        let (code, text) = s_client(bridge.address(), &arguments, GET);
        assert_eq!(code, 0, "{offered}: {text}\n{}", bridge.log());
        assert!(text.contains(result), "{offered}: {text}");
    }
}

#[test]
fn early_data_is_never_offered() {
    // It could be replayed by whoever is on the path (RFC 8446 §8).
    let certificate = Pki::new().server();
    let target = SServer::start(&certificate, &["-tls1", "-cipher", "ALL:@SECLEVEL=0", "-www"]);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let ca = bridge.ca_file();
    let arguments = [&["-tls1_3"], &trusting(&ca)[..]].concat();
    let (code, text) = s_client(bridge.address(), &arguments, GET);
    assert_eq!(code, 0, "{text}\n{}", bridge.log());
    let offered: Vec<&str> = text.lines().filter(|line| line.contains("Max Early Data:")).collect();
    assert!(!offered.is_empty() && offered.iter().all(|line| line.trim() == "Max Early Data: 0"), "{text}");
}

#[test]
fn clients_resume_their_sessions() {
    let pki = Pki::new();
    let certificate = pki.server();
    let target = SServer::start(&certificate, &["-tls1", "-cipher", "ALL:@SECLEVEL=0", "-www"]);
    let bridge = Bridge::to(&target).pin(&certificate).start();
    let ca = bridge.ca_file();
    for version in ["-tls1_2", "-tls1_3"] {
        let file = pki.dir().join(version);
        let file = file.to_str().unwrap();
        let first = [&[version, "-sess_out", file], &trusting(&ca)[..]].concat();
        let (code, text) = s_client(bridge.address(), &first, GET);
        assert!(code == 0 && text.contains("\nNew, TLSv1."), "{text}");
        let second = [&[version, "-sess_in", file], &trusting(&ca)[..]].concat();
        let (code, text) = s_client(bridge.address(), &second, GET);
        assert!(code == 0 && text.contains("\nReused, TLSv1."), "{text}");
        // The target answered the second one too.
        assert!(text.contains("Protocol  : TLSv1\n"), "{text}");
    }
}

#[test]
fn target_is_sent_a_short_hello_without_tls_1_3() {
    let hello = hello_sent("127.0.0.1", &[]);
    assert!(hello.bytes.len() <= 512, "{} bytes", hello.bytes.len());
    assert_eq!(hello.version, 0x0303);
    assert!(!hello.has(SUPPORTED_VERSIONS) && !hello.has(KEY_SHARE));
    // Windows 2003 looks at the first 64 only.
    assert!(hello.suites.len() <= 64, "{:04x?}", hello.suites);
    assert!(hello.suites.contains(&SECURE_RENEGOTIATION_SCSV) || hello.has(RENEGOTIATION_INFO));
}

#[test]
fn server_name_is_sent_as_set() {
    let name = |host, arguments: &[&str]| hello_sent(host, arguments).server_name();
    assert_eq!(name("localhost", &[]).as_deref(), Some("localhost"));
    assert_eq!(name("127.0.0.1", &[]), None);
    assert_eq!(name("localhost", &["--sni", "off"]), None);
    assert_eq!(name("127.0.0.1", &["--sni", "mail.example"]).as_deref(), Some("mail.example"));
}

const SERVER_NAME: u16 = 0;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
const RENEGOTIATION_INFO: u16 = 0xff01;
const SECURE_RENEGOTIATION_SCSV: u16 = 0x00ff;

/// The ClientHello that a bridge sends to a target with this name.
fn hello_sent(host: &str, arguments: &[&str]) -> Hello {
    let (sender, receiver) = mpsc::channel();
    let target = TcpTarget::serve(move |mut stream| {
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut body).unwrap();
        sender.send([&head[..], &body].concat()).unwrap();
    });
    let port = common::Listening::address(&target).port();
    let bridge = Bridge::to_name(&format!("{host}:{port}")).arg("--insecure").args(arguments).start();
    s_client(bridge.address(), &[], "");
    Hello::parse(receiver.recv_timeout(common::TIMEOUT).expect("a ClientHello"))
}

/// A ClientHello, taken apart (RFC 5246 §7.4.1.2).
struct Hello {
    bytes: Vec<u8>,
    version: u16,
    suites: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    fn parse(bytes: Vec<u8>) -> Self {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let length = |at: usize| usize::from(number(at));
        let version = number(9);
        let mut at = 43;
        at += 1 + usize::from(bytes[at]);
        let suites = bytes[at + 2..at + 2 + length(at)].chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        let suites = suites.collect();
        at += 2 + length(at);
        at += 1 + usize::from(bytes[at]);
        at += 2;
        let mut extensions = Vec::new();
        while at < bytes.len() {
            extensions.push((number(at), bytes[at + 4..at + 4 + length(at + 2)].to_vec()));
            at += 4 + length(at + 2);
        }
        Self { version, suites, extensions, bytes }
    }

    fn has(&self, extension: u16) -> bool {
        self.extensions.iter().any(|(kind, _)| *kind == extension)
    }

    fn server_name(&self) -> Option<String> {
        let (_, body) = self.extensions.iter().find(|(kind, _)| *kind == SERVER_NAME)?;
        Some(String::from_utf8_lossy(&body[5..]).into_owned())
    }
}

fn trusting(ca: &Path) -> [&str; 5] {
    ["-CAfile", ca.to_str().unwrap(), "-verify_return_error", "-verify_hostname", "localhost"]
}
