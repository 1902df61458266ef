//! No payload, key or credential is ever logged: not at the most talkative level, not when a
//! connection goes well, and not in any way in which it fails.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod common;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cli_support::{Certificate, Live, Sandbox, free_port, run_to_end};
use common::{Listening, TcpTarget, within};
use nix::sys::signal::Signal;
use openssl::base64::encode_block;
use openssl::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVersion};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, KeyLog, RootCertStore};
use socket2::SockRef;
use std::net::TcpStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

/// What clients and targets send, each of which must stay unseen.
const USER: &str = "CORP\\zq-user-1x7";
const PASSWORD: &str = "Zq9-secret-password-of-the-client";
const NTLM: &[u8] = b"NTLMSSP\0\x03\0\0\0zq-ntlm-response-of-the-client-4711";
const COOKIE: &str = "zqcookie8842aabbccddeeff0011";
const BODY: &str = "<t:Subject>zq quarterly figures of the client</t:Subject>";
const ANSWER: &str = "<t:Body>zq answer of the target with a mail in it</t:Body>";
const BANNER: &str = "zq-bytes-of-a-target-that-speaks-no-TLS";
const PFX_PASSWORD: &str = "zq-PFX-passphrase-3141";

/// Everything secret, by name.
#[derive(Clone, Default)]
struct Secrets(Arc<Mutex<Vec<Secret>>>);

/// Its name and its bytes.
type Secret = (String, Vec<u8>);

impl Secrets {
    fn add(&self, name: &str, bytes: impl AsRef<[u8]>) {
        self.0.lock().unwrap().push((name.to_owned(), bytes.as_ref().to_vec()));
    }

    /// Which are to be found in a text, and in which form.
    fn found_in(&self, text: &str) -> Vec<String> {
        let lower = text.to_lowercase();
        let mut found = Vec::new();
        for (name, bytes) in self.0.lock().unwrap().iter() {
            for (form, is, ignores_case) in forms(bytes) {
                if (if ignores_case { &lower } else { text }).contains(&is) {
                    found.push(format!("{name}, {form}: {is}"));
                }
            }
        }
        found
    }
}

/// How bytes may be written: the form, the text, and whether that is in lower case to match any.
fn forms(bytes: &[u8]) -> Vec<(&'static str, String, bool)> {
    let mut forms = vec![("hex", hex(bytes, ""), true)];
    for separator in [" ", ":", ", ", ", 0x"] {
        forms.push(("hex with separators", hex(bytes, separator), true));
    }
    forms.push(("decimal", bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "), true));
    if let Ok(text) = std::str::from_utf8(bytes) {
        forms.push(("raw", text.to_lowercase(), true));
        forms.push(("escaped", text.escape_debug().to_string().to_lowercase(), true));
    }
    // Base64 depends on what stands before: three ways, without the digits that the neighbours share.
    for before in 0..3 {
        let text = encode_block(&[&[0; 2][..before.min(2)], bytes].concat());
        let digits = text.trim_end_matches('=');
        forms.push(("base64", digits[[0, 2, 3][before]..digits.len() - 1].to_owned(), false));
    }
    forms
}

fn hex(bytes: &[u8], separator: &str) -> String {
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        let separator = if index == 0 { "" } else { separator };
        write!(text, "{separator}{byte:02x}").unwrap();
    }
    text
}

/// The secrets of the clients' TLS connections go where the others are.
struct Keys(Secrets);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl KeyLog for Keys {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.add(&format!("key of a client's connection, {label}"), secret);
    }
}

/// What a target does with a connection once it has read a request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Answer,
    ResetInMidAnswer,
    FinInMidAnswer,
    BrokenRecord,
    Silent,
}

/// A target whose own keys are known to the test.
fn target(certificate: &Certificate, version: SslVersion, manner: Manner, secrets: &Secrets) -> TcpTarget {
    let mut builder = SslContext::builder(SslMethod::tls_server()).unwrap();
    builder.set_security_level(0);
    builder.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    builder.set_certificate(&certificate.x509).unwrap();
    builder.set_private_key(&certificate.pkey).unwrap();
    let keys = secrets.clone();
    builder.set_keylog_callback(move |_, line| {
        let secret = line.split(' ').nth(2).expect("label, random, secret");
        let bytes = (0..secret.len()).step_by(2).map(|at| u8::from_str_radix(&secret[at..at + 2], 16).unwrap());
        keys.add("master secret of a target's connection", bytes.collect::<Vec<_>>());
    });
    let context = builder.build();
    TcpTarget::serve(move |tcp| {
        let Ok(stream) = Ssl::new(&context).unwrap().accept(tcp) else { return };
        serve(stream, manner);
    })
}

fn serve(mut stream: SslStream<TcpStream>, manner: Manner) {
    let mut buffer = vec![0; 16 << 10];
    let mut request = Vec::new();
    while !request.windows(BODY.len()).any(|part| part == BODY.as_bytes()) {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => request.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let answer = format!("HTTP/1.1 200 OK\r\nSet-Cookie: {COOKIE}\r\nContent-Length: 9999\r\n\r\n{ANSWER}");
    if matches!(manner, Manner::Silent) {
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
        return;
    }
    stream.write_all(answer.as_bytes()).unwrap();
    match manner {
        Manner::ResetInMidAnswer => SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO)).unwrap(),
        Manner::BrokenRecord => {
            let record = [&[23, 3, 1, 0, 64][..], &ANSWER.as_bytes()[..50], &[0; 14]].concat();
            stream.get_mut().write_all(&record).unwrap();
        }
        Manner::Answer => _ = stream.shutdown(),
        Manner::FinInMidAnswer | Manner::Silent => {}
    }
}

/// A forwarder at the most talkative level, and what a client needs for it.
struct Bench {
    sandbox: Sandbox,
    server: Live,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    secrets: Secrets,
}

impl Bench {
    fn start(target: &impl Listening, secrets: &Secrets, settings: &[&str]) -> Self {
        Self::logging("text", target, secrets, settings)
    }

    /// The same with a log of this form.
    fn logging(form: &str, target: &impl Listening, secrets: &Secrets, settings: &[&str]) -> Self {
        let sandbox = Sandbox::new();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (listen, target) = (address.to_string(), target.address().to_string());
        sandbox.run(["add", "exch1", &listen, &target, "--offline", "--insecure"]).succeeded();
        let settings =
            settings.iter().copied().chain(["hello_timeout=1s", "connect_timeout=1s", "handshake_timeout=3s"]);
        sandbox.run(["set", "exch1"].into_iter().chain(settings)).succeeded();
        add_key_file(secrets, "the forwarder's key", &sandbox.identity("exch1").join("key.pem"));
        let mut command = sandbox.command(["run", "exch1"]);
        command.env("EWSBRIDGE_LOG", "trace").env("EWSBRIDGE_LOG_FORMAT", form);
        let server = Live::spawn(&mut command);
        server.wait_for(if form == "json" { "\"event\":\"listening\"" } else { " listening" });
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(sandbox.ca("exch1")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.key_log = Arc::new(Keys(secrets.clone()));
        Self { sandbox, server, address, config: Arc::new(config), secrets: secrets.clone() }
    }

    /// A request with everything secret in it; reads its answer, and then goes in this way.
    async fn request(&self, with_reset: bool) {
        let tcp = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connected = connector.connect(ServerName::from(self.address.ip()), tcp);
        let Ok(mut stream) = within("connecting", connected).await else { return };
        stream.write_all(&request()).await.unwrap();
        if with_reset {
            SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap();
            return;
        }
        let _ = within("the answer", stream.read_to_end(&mut Vec::new())).await;
    }

    /// Says something that is no TLS.
    async fn nonsense(&self, bytes: &[u8]) {
        let mut tcp = tokio::net::TcpStream::connect(self.address).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let _ = within("the end", tcp.read_to_end(&mut Vec::new())).await;
    }

    /// Ends it once it has said this; all that was logged.
    fn log(self, last: &str, what: &str) -> String {
        self.server.wait_for(last);
        self.server.signal(Signal::SIGTERM);
        let log = self.server.finish().all();
        let found = self.secrets.found_in(&log);
        assert!(found.is_empty(), "{what}: {found:#?}\nin\n{log}");
        drop(self.sandbox);
        log
    }
}

fn request() -> Vec<u8> {
    let basic = encode_block(format!("{USER}:{PASSWORD}").as_bytes());
    let ntlm = encode_block(NTLM);
    format!(
        "POST /EWS/Exchange.asmx?token={COOKIE} HTTP/1.1\r\nAuthorization: Basic {basic}\r\n\
         Proxy-Authorization: NTLM {ntlm}\r\nCookie: {COOKIE}\r\n\r\n{BODY}"
    )
    .into_bytes()
}

/// Each line of a key file is secret; the whole of it never fits into a line.
fn add_key_file(secrets: &Secrets, name: &str, file: &std::path::Path) {
    let text = std::fs::read_to_string(file).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('-') && line.len() > 20) {
        secrets.add(name, line);
    }
}

/// All that stands in every request and answer.
fn secrets() -> Secrets {
    let secrets = Secrets::default();
    for (name, text) in [("user", USER), ("password", PASSWORD), ("cookie", COOKIE), ("request", BODY)] {
        secrets.add(name, text);
    }
    secrets.add("NTLM response", NTLM);
    secrets.add("answer", ANSWER);
    secrets.add("part of an answer", &ANSWER[..30]);
    secrets.add("bytes of a target without TLS", BANNER);
    secrets
}

#[test]
fn secrets_are_found_in_whatever_form_they_are_written() {
    let secrets = Secrets::default();
    secrets.add("password", PASSWORD);
    assert!(secrets.found_in("a log line without it").is_empty());
    let bytes = PASSWORD.as_bytes();
    let as_error = format!("{:?}", PASSWORD.to_uppercase());
    for text in [PASSWORD.to_owned(), hex(bytes, ""), hex(bytes, " ").to_uppercase(), format!("{bytes:?}"), as_error] {
        assert!(!secrets.found_in(&format!("before {text} after")).is_empty(), "{text}");
    }
    for before in ["", "a", "ab", "abc"] {
        let text = encode_block(format!("{before}{PASSWORD}:").as_bytes());
        assert!(!secrets.found_in(&text).is_empty(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_go_well_or_break_off_log_no_secret_at_trace() {
    let certificates = tempfile::tempdir().unwrap();
    let certificate = Certificate::self_signed(certificates.path(), "EXCH1");
    let manners =
        [Manner::Answer, Manner::ResetInMidAnswer, Manner::FinInMidAnswer, Manner::BrokenRecord, Manner::Silent];
    for (version, form) in [(SslVersion::TLS1, "text"), (SslVersion::TLS1_2, "json")] {
        for manner in manners {
            let secrets = secrets();
            let target = target(&certificate, version, manner, &secrets);
            let bench = Bench::logging(form, &target, &secrets, &["idle_timeout=2s"]);
            bench.request(false).await;
            bench.server.wait_for("session closed");
            bench.request(true).await;
            let known = secrets.0.lock().unwrap().iter().filter(|(name, _)| name.contains("connection")).count();
            assert!(known >= 3, "only {known} keys of connections are known");
            let log = bench.log("session closed", &format!("{manner:?}"));
            let fields = if form == "json" { ["\"up_bytes\":", "\"down_bytes\":"] } else { ["up=", "down="] };
            assert!(fields.iter().all(|field| log.contains(field)), "{log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_never_come_about_log_no_secret_at_trace() {
    let secrets = secrets();
    let banners: [&'static [u8]; 3] = [
        b"220 zq-bytes-of-a-target-that-speaks-no-TLS ESMTP\r\n",
        b"HTTP/1.1 400 Bad Request\r\nX: zq-bytes-of-a-target-that-speaks-no-TLS\r\n\r\n",
        b"\x16\x03\x01\x00\x50\x02\x00\x00\x4czq-bytes-of-a-target-that-speaks-no-TLS-and-lies-about-it-here",
    ];
    for banner in banners {
        let target = TcpTarget::answering(banner);
        let bench = Bench::start(&target, &secrets, &[]);
        bench.request(false).await;
        // Requests in the clear, and as a record that is none.
        bench.nonsense(&request()).await;
        bench.nonsense(&[&[0x16, 3, 1, 0, 200, 1, 0, 0, 196][..], &request()[..196]].concat()).await;
        bench.nonsense(&[&[0x17, 3, 3, 0, 200][..], &request()[..200]].concat()).await;
        let log = bench.log("target 127.0.0.1", "no TLS");
        assert!(log.contains("DEBUG"), "it said less than it can:\n{log}");
    }
    let closed = free_port();
    let bench = Bench::start(&SocketAddr::from(([127, 0, 0, 1], closed)), &secrets, &[]);
    bench.request(false).await;
    bench.log("connection refused", "no target");
}

#[test]
fn commands_log_no_passphrase_and_no_key_when_they_fail_or_succeed() {
    let sandbox = Sandbox::new();
    let secrets = Secrets::default();
    secrets.add("passphrase", PFX_PASSWORD);
    let own = Certificate::self_signed(sandbox.material.path(), "own");
    add_key_file(&secrets, "the key inside", &own.key);
    let (pfx, password) = (sandbox.material.path().join("own.pfx"), sandbox.put("password", PFX_PASSWORD));
    let exported = openssl::pkcs12::Pkcs12::builder().pkey(&own.pkey).cert(&own.x509).build2(PFX_PASSWORD).unwrap();
    std::fs::write(&pfx, exported.to_der().unwrap()).unwrap();
    let wrong = sandbox.put("wrong", format!("{PFX_PASSWORD}x"));
    let other = cli_support::fresh_key(2048).private_key_to_pem_pkcs8().unwrap();
    let other = sandbox.put("other.key", other);
    add_key_file(&secrets, "a key that does not fit", &other);
    let run = |words: &[&str]| {
        let mut command = sandbox.command(words);
        run_to_end(command.env("EWSBRIDGE_LOG", "trace"))
    };
    let address = format!("127.0.0.1:{}", free_port());
    let add = ["add", "exch1", &address, "192.0.2.1:443", "--offline"];
    let with = |more: &[&str]| run(&[&add[..], more].concat());
    let [pfx, password, wrong, cert, other] =
        [&pfx, &password, &wrong, &own.cert, &other].map(|path| path.to_str().unwrap().to_owned());
    let said = [
        with(&["--pfx", &pfx, "--pfx-password-file", &wrong]).exited(1),
        with(&["--cert", &cert, "--key", &other]).exited(1),
        // The files in each other's place.
        with(&["--cert", &other, "--key", &cert]).exited(1),
        with(&["--auth-pfx", &pfx, "--auth-pfx-password-file", &wrong]).exited(1),
        with(&["--pfx", &pfx, "--pfx-password-file", &password]).succeeded(),
        run(&["show", "exch1"]).succeeded(),
        run(&["cert", "show", "exch1"]),
        run(&["check", "exch1", "--json"]),
        run(&["run", "--check", "exch1"]).succeeded(),
    ];
    for outcome in said {
        let found = secrets.found_in(&outcome.all());
        assert!(found.is_empty(), "{found:#?}\nin\n{}", outcome.all());
    }
}
