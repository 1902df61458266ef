//! Bad input gets a clear error and changes nothing, at each step of `add`.
//!
//! Each case says its exit code and the whole error, with `*` for what no test can know, and is tried
//! where nothing exists yet and where another forwarder does; the tree must then be as before.

mod cli_support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use cli_support::{
    Authority, Certificate, EWSBRIDGE, Leaf, Live, Outcome, SServer, Sandbox, Tree, deaf_port, free_port, is_root,
    run_to_end, tcp_target,
};

/// Whether the text is as the pattern says: `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// To be somebody else, or to have a small disk.
const NEEDS_ROOT: &str = "needs root; leave it out by: tests/run --rootless";

#[test]
fn a_pattern_fits_whole_texts_only() {
    assert!(fits("a*c\n", "abc\n") && fits("abc", "abc") && fits("*b*", "abc") && fits("a*b*c", "a12b34c"));
    assert!(!fits("ab", "abc") && !fits("b*", "abc") && !fits("*b", "abc") && !fits("a*b*b", "acb"));
}

#[track_caller]
fn is_refused(outcome: &Outcome, code: i32, error: &str) {
    assert!(
        outcome.code == code && fits(&format!("{error}\n"), &outcome.error()),
        "\n--- wanted: {code}\n{error}\n--- got: {}\n{}",
        outcome.code,
        outcome.error()
    );
}

/// Tries a command in an empty place and beside another forwarder.
#[track_caller]
fn refused(words: &[&str], code: i32, error: &str) {
    for sandbox in [Sandbox::new(), Sandbox::with_another()] {
        let before = sandbox.tree();
        let outcome = sandbox.run(words);
        is_refused(&outcome, code, error);
        assert!(outcome.stdout.is_empty(), "a result is printed: {}", outcome.stdout);
        assert_eq!(sandbox.tree(), before, "{words:?} changed the tree");
    }
}

fn here(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Certificates and keys for one test.
fn material() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_name_that_is_no_name() {
    let rule = "can't be a forwarder's name: use 1 to 64 of a-z A-Z 0-9 . _ -, the first a letter or digit";
    let long = "x".repeat(65);
    for name in ["../x", "a b", "", ".x", "_x", "a/b", "a@b", "a%i", "x\\x2d", &long] {
        let shown = name.escape_default();
        for command in [
            &["add", name, "9443", "ews.corp:443"][..],
            &["remove", name],
            &["show", name],
            &["set", name, "min_tls=1.1"],
            &["run", name],
            &["check", name],
            &["trust", name],
            &["cert", "show", name],
            &["cert", "renew", name],
        ] {
            refused(command, 2, &format!("'{shown}' {rule}"));
        }
    }
    refused(&["add", "--", "-x", "9443", "ews.corp:443"], 2, &format!("'-x' {rule}"));
    refused(&["add", "-x", "9443", "ews.corp:443"], 2, "error: unexpected argument '-x' found\n*");
}

#[test]
fn a_port_or_target_that_is_none() {
    refused(&["add", "x", "9443"], 2, "error: the following required arguments were not provided:\n  <HOST:PORT>\n*");
    for (listen, error) in [
        ("70000", "'70000' is not a port (1 to 65535)"),
        ("", "'' is not [ADDRESS:]PORT; an example: 9443, or 10.20.0.7:9443"),
        ("http", "'http' is not [ADDRESS:]PORT; an example: 9443, or 10.20.0.7:9443"),
        ("10.0.0.1:", "'10.0.0.1:' has no port; an example: 10.0.0.1:9443"),
        ("localhost:9443", "'localhost:9443': write an IP address, 127.0.0.1:9443"),
        ("0", "0 can't be added: clients must know the port (1 to 65535)"),
        ("127.0.0.1:0", "0 can't be added: clients must know the port (1 to 65535)"),
    ] {
        refused(&["add", "x", listen, "ews.corp:443"], 2, &format!("[ADDR:]PORT: {error}"));
    }
    for (target, error) in [
        ("ews.corp", "'ews.corp' has no port; an example: ews.corp:443"),
        ("ews.corp:0", "port 0 can't be connected to"),
        ("ews.corp:x", "'x' is not a port (1 to 65535)"),
        ("https://ews.corp/EWS", "'https://ews.corp/EWS' is a URL; give HOST:PORT, here ews.corp:443"),
        ("e ws:443", "'e ws' is neither a host name nor an IP address"),
    ] {
        refused(&["add", "x", "9443", target], 2, &format!("HOST:PORT: {error}"));
    }
}

#[test]
fn flags_that_contradict_or_say_nothing() {
    let pin = format!("sha256:{}", "ab".repeat(32));
    for (flags, error) in [
        (&["--insecure", "--pin", &pin][..], "--insecure: contradicts 'pin'*"),
        (
            &["--pin", "0E8A3AD980EC179856012B7EECF4327E99CD44CD"],
            "--pin: a SHA-1 thumbprint (40 digits) can't be a pin*",
        ),
        (&["--accept", "everything"], "--accept: 'everything' can't be accepted; what can: sha1, *"),
        (&["--min-tls", "1.3"], "--min-tls: TLS 1.3 is never spoken to the target*"),
        (&["--min-tls", "1.2", "--max-tls", "1.0"], "--min-tls: 1.2 is above max_tls, 1.0"),
        (&["--ciphers", "NULL-SHA"], "--ciphers: 'NULL-SHA' is never used*"),
        (&["--ciphers", "NO-SUCH-CIPHER"], "--ciphers: *"),
        (&["--cert", "x.pem"], "error: the following required arguments were not provided:\n  --key <FILE>\n*"),
    ] {
        let listen = here(free_port());
        refused(&[&["add", "x", &listen, "192.0.2.1:443"], flags].concat(), 2, error);
    }
}

#[test]
fn a_port_in_use_names_its_holder() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    // This very process holds it; its name is cut at 15 letters by the kernel.
    let error = format!(
        "x: listen on {}: address already in use\nhint: port {port} is held by bad_input* (PID {})",
        here(port),
        std::process::id()
    );
    refused(&["add", "x", &here(port), "192.0.2.1:443", "--offline"], 1, &error);
}

#[test]
fn a_port_of_another_forwarder_and_a_name_that_is_taken() {
    let sandbox = Sandbox::new();
    let port = free_port();
    sandbox.run(["add", "old", &here(port), "192.0.2.1:443", "--offline"]).succeeded();
    let before = sandbox.tree();
    let outcome = sandbox.run(["add", "x", &port.to_string(), "192.0.2.1:443", "--offline"]);
    let error = format!("x: port {port} belongs to forwarder 'old' (127.0.0.1:{port})\nhint: choose another port");
    is_refused(&outcome, 1, &error);
    let outcome = sandbox.run(["add", "old", &here(free_port()), "192.0.2.1:443", "--offline"]);
    let error = "old: the name is taken: *\nhint: choose another name, or change it: ewsbridge set old KEY=VALUE";
    is_refused(&outcome, 1, error);
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn a_target_that_cannot_be_reached() {
    let error = "x: target no-such-host.invalid:443: look-up: *";
    refused(&["add", "x", &here(free_port()), "no-such-host.invalid:443"], 1, error);
    let (_held, port) = deaf_port();
    let error = format!("x: target 127.0.0.1:{port}: connect: connection refused*");
    refused(&["add", "x", &here(free_port()), &here(port)], 1, &error);
}

#[test]
fn a_target_that_speaks_something_else() {
    for (greeting, answer, error) in [
        (&b""[..], &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "the server speaks plain HTTP on this port, not TLS"),
        (b"220 mail.corp ESMTP\r\n", b"", "the server speaks SMTP or FTP on this port, not TLS"),
        (b"\0\0garbage of no protocol", b"", "what the server sent is not TLS"),
    ] {
        let target = tcp_target(greeting, answer).to_string();
        let error = format!("x: target {target}: TLS handshake: {error}*");
        refused(&["add", "x", &here(free_port()), &target, "--insecure"], 1, &error);
    }
}

#[test]
fn a_target_that_never_answers() {
    let target = tcp_target(b"", b"").to_string();
    let sandbox = Sandbox::with_another();
    let before = sandbox.tree();
    let outcome = sandbox.run(["add", "x", &here(free_port()), &target, "--insecure"]);
    is_refused(
        &outcome,
        1,
        &format!(
            "x: target {target}: TLS handshake: not finished within 10s: no answer to our ClientHello; nor to 3 others\nhint: if the server is only slow: --outbound manual --handshake-timeout 60s; else: it may be no TLS port: name the server's HTTPS port, usually 443"
        ),
    );
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn a_target_with_other_versions_or_ciphers() {
    let material = material();
    let certificate = Certificate::self_signed(material.path(), "EXCH1");
    let old = SServer::tls1(&certificate);
    let words = ["add", "x", &here(free_port()), &old.address(), "--insecure"];
    let error = format!(
        "x: target {}: TLS handshake: the server speaks nothing newer than TLS 1.0, and min_tls is 1.2 (openssl *)\nhint: --min-tls 1.0",
        old.address()
    );
    refused(&[&words[..], &["--min-tls", "1.2"]].concat(), 1, &error);

    let strict = SServer::start(&certificate, &["-tls1_2", "-cipher", "ECDHE-ARIA256-GCM-SHA384"]);
    let words = ["add", "x", &here(free_port()), &strict.address(), "--insecure"];
    let error = "x: target *: TLS handshake: the server refused what we offered (TLS 1.0 to 1.2, AES ciphers, dhe, 3des, rc4): no version, cipher or name in common (openssl *); tried TLS 1.2, 1.1, 1.0, with and without extensions, with AES, DHE, 3DES, RC4\nhint: if the server serves by name: --server-name NAME; else: the server's own log has the cause*";
    refused(&words, 1, error);
}

#[test]
fn a_certificate_that_is_not_trusted() {
    let material = material();
    let folder = material.path();
    let authority = Authority::new(folder);
    let ca = authority.0.cert.display().to_string();
    let good = Leaf { name: "good", ..Leaf::default() }.issue(folder, Some(&authority));
    let expired = Leaf { name: "expired", expired: true, ..Leaf::default() }.issue(folder, Some(&authority));
    let other = Leaf { name: "other", loopback: false, dns: &["exch9.corp"], ..Leaf::default() };
    let other = other.issue(folder, Some(&authority));
    let wrong = format!("sha256:{}", "ab".repeat(32));
    for (certificate, flags, code, cause, accept) in [
        (&good, &[][..], 5, "issued by CN=CORP-CA, which nothing here trusts", ""),
        (&expired, &["--ca", &ca], 5, "CN=expired expired on *", " --accept expired"),
        (&other, &["--ca", &ca], 5, "it is made out for exch9.corp, not for 127.0.0.1", " --accept wrong-name"),
        (&good, &["--pin", &wrong], 1, "is not the pinned one; the server shows *", ""),
    ] {
        let target = SServer::tls1(certificate);
        let (listen, address) = (here(free_port()), target.address());
        let words = [&["add", "x", &listen, &address], flags].concat();
        let hint = if code == 5 { "\nhint: compare it, then run one of\n*" } else { "\nhint: *" };
        refused(&words, code, &format!("x: target {address}: certificate: {cause}{hint}{accept}*"));
    }
}

#[test]
fn a_file_of_authorities_that_is_none() {
    let material = material();
    let none = material.path().join("none.pem").display().to_string();
    let empty = material.path().join("empty.pem");
    fs::write(&empty, "no certificate\n").expect("written");
    for file in [none, empty.display().to_string()] {
        for more in [&[][..], &["--offline"]] {
            let listen = here(free_port());
            let words = [&["add", "x", &listen, "192.0.2.1:443", "--ca", &file], more].concat();
            refused(&words, 1, &format!("{file}: read*"));
        }
    }
}

#[test]
fn a_certificate_or_key_of_our_own_that_cannot_be_served() {
    let material = material();
    let folder = material.path();
    let good = Certificate::self_signed(folder, "good");
    let weak = Leaf { name: "weak", bits: 1024, ..Leaf::default() }.issue(folder, None);
    let text = |path: &Path| path.display().to_string();
    let file = |name: &str, contents: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, contents).expect("written");
        text(&path)
    };
    let other = cli_support::fresh_key(2048).private_key_to_pem_pkcs8().expect("PEM");
    let other = file("other.key", &other);
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let encrypted = good.pkey.private_key_to_pem_pkcs8_passphrase(cipher, b"x").expect("PEM");
    let encrypted = file("encrypted.key", &encrypted);
    let whole = good.pem();
    let half = file("half.pem", &whole.as_bytes()[..whole.len() / 2]);
    let (cert, key) = (text(&good.cert), text(&good.key));
    let none = text(&folder.join("none.key"));
    for (cert, key, error) in [
        (&cert, &none, format!("certificate: {none}: read: no such file or directory")),
        (&cert, &other, format!("certificate: {cert}: check: its key is not the one in {other}")),
        (
            &cert,
            &encrypted,
            format!(
                "certificate: {encrypted}: read the private key: it is encrypted, and nobody is there to type its password at a start\n\
                 hint: decrypt it first: openssl pkey -in {encrypted} -out plain.key"
            ),
        ),
        (&cert, &cert, format!("certificate: {cert}: read the private key: none inside, only a certificate")),
        (&half, &key, format!("certificate: {half}: *")),
        (
            &text(&weak.cert),
            &text(&weak.key),
            "certificate: *weak.pem: check: its key is RSA 1024, clients of today demand RSA 2048 or more".to_owned(),
        ),
    ] {
        let words = ["add", "x", &here(free_port()), "192.0.2.1:443", "--offline", "--cert", cert, "--key", key];
        refused(&words, 1, &error);
    }
    let words = ["add", "x", &here(free_port()), "192.0.2.1:443", "--offline", "--pfx", &cert];
    let password = file("password", b"x\n");
    let error = format!("{cert}: PFX: read: it is a PEM file; use --cert and --key");
    refused(&[&words[..], &["--pfx-password-file", &password]].concat(), 1, &error);
    refused(
        &[&words[..], &["--pfx-password-file", &none]].concat(),
        1,
        &format!("{none}: read: no such file or directory"),
    );
}

#[test]
fn needs_root_a_key_that_may_not_be_read() {
    assert!(is_root(), "{NEEDS_ROOT}");
    let place = Stranger::new();
    let own = Certificate::self_signed(&place.folder, "own");
    fs::set_permissions(&own.key, Permissions::from_mode(0o600)).expect("mode");
    fs::set_permissions(&own.cert, Permissions::from_mode(0o644)).expect("mode");
    let (cert, key) = (own.cert.display().to_string(), own.key.display().to_string());
    let home = place.home();
    let before = Tree::of(&home);
    let etc = home.join("etc").display().to_string();
    let var = home.join("var").display().to_string();
    let words = ["--config-dir", &etc, "--state-dir", &var, "add", "x", &here(free_port()), "192.0.2.1:443"];
    let outcome = place.run(&[&words[..], &["--offline", "--cert", &cert, "--key", &key]].concat());
    is_refused(&outcome, 77, &format!("certificate: {key}: read: permission denied\nhint: run it as root: *"));
    assert_eq!(Tree::of(&home), before);
}

/// Somebody without any right, with a copy of the binary that they may read.
struct Stranger {
    _folder: tempfile::TempDir,
    folder: PathBuf,
}

impl Stranger {
    const ID: u32 = 65534;

    fn new() -> Self {
        let guard = tempfile::tempdir().expect("a temporary folder");
        let folder = guard.path().to_owned();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("mode");
        fs::copy(EWSBRIDGE, folder.join("ewsbridge")).expect("a copy of the binary");
        Self { _folder: guard, folder }
    }

    /// A folder that is theirs.
    fn home(&self) -> PathBuf {
        let home = self.folder.join("home");
        fs::create_dir(&home).expect("a folder");
        std::os::unix::fs::chown(&home, Some(Self::ID), Some(Self::ID)).expect("given away");
        home
    }

    fn run(&self, words: &[&str]) -> Outcome {
        let id = Self::ID.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(self.folder.join("ewsbridge")).args(words);
        command.env_remove("EWSBRIDGE_CONFIG_DIR").env_remove("EWSBRIDGE_STATE_DIR").env("LC_ALL", "C.UTF-8");
        run_to_end(&mut command)
    }
}

#[test]
fn needs_root_whoever_is_not_root_is_told_so() {
    let system = ["/etc/ewsbridge", "/var/lib/ewsbridge"].map(Path::new);
    assert!(is_root(), "{NEEDS_ROOT}");
    assert!(!system.iter().any(|folder| folder.exists()), "needs a machine where ewsbridge is not installed");
    let place = Stranger::new();
    for words in [
        &["add", "x", "9443", "192.0.2.1:443", "--offline"][..],
        &["remove", "x"],
        &["set", "x", "min_tls=1.1"],
        &["cert", "renew", "--all"],
    ] {
        is_refused(
            &place.run(words),
            77,
            "/etc/ewsbridge: permission denied\nhint: run it as root: sudo ewsbridge ...",
        );
    }
    is_refused(&place.run(&["install"]), 77, "*: permission denied\nhint: *");
    assert!(!system.iter().any(|folder| folder.exists()));

    // In folders of somebody else's the system itself refuses.
    let foreign = place.folder.join("foreign");
    fs::create_dir(&foreign).expect("a folder");
    let before = Tree::of(&foreign);
    let (etc, var) = (foreign.join("etc").display().to_string(), foreign.join("var").display().to_string());
    let words =
        ["--config-dir", &etc, "--state-dir", &var, "add", "x", &here(free_port()), "192.0.2.1:443", "--offline"];
    is_refused(&place.run(&words), 77, &format!("{var}: create: permission denied\nhint: run it as root: *"));
    assert_eq!(Tree::of(&foreign), before);

    // The keys were made before the settings' folder refuses.
    let home = place.home();
    let var = home.join("var").display().to_string();
    let words =
        ["--config-dir", &etc, "--state-dir", &var, "add", "x", &here(free_port()), "192.0.2.1:443", "--offline"];
    is_refused(&place.run(&words), 77, &format!("{etc}: create: permission denied\nhint: run it as root: *"));
    assert!(Tree::of(&home).files().is_empty() && !Path::new(&var).exists());
    assert_eq!(Tree::of(&foreign), before);
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    let sandbox = Sandbox::new();
    sandbox.run(["add", "x", &here(free_port()), "192.0.2.1:443", "--offline"]).succeeded();
    let path = sandbox.settings("x");
    let whole = sandbox.text("x");
    let half = whole.find("target").expect("a target") + 12;
    for (text, error) in [
        ("format = 1\nlisten = \"9443\ntarget = \"h:443\"\n", ":2: not TOML: *"),
        (&whole[..half], ":*: not TOML: *"),
        ("", ": format: is missing; is the file whole? It begins with  format = 1"),
        ("format = 1\nlisten = 9443\n", ": target: is missing; is the file whole?"),
        ("# mine\nformat = 2\nnovelty = 1\n", ":2: format: 2 was written by a newer ewsbridge; this one reads 1"),
        (
            "format = 1\nlisten = 9443\ntarget = \"h:443\"\nmin_tsl = \"1.1\"\n",
            ":4: min_tsl: unknown key; did you mean 'min_tls'?",
        ),
    ] {
        fs::write(&path, text).expect("written");
        let before = sandbox.tree();
        let error = format!("{}{error}", path.display());
        for words in [&["run", "x"][..], &["run", "--check", "x"], &["run", "--all"], &["show", "x"], &["check", "x"]] {
            is_refused(&sandbox.run(words), 78, &error);
        }
        for words in [&["trust", "x"][..], &["add", "x", "9443", "192.0.2.1:443"]] {
            is_refused(&sandbox.run(words), 78, &error);
        }
        let listed = sandbox.run(["list"]).succeeded().stdout;
        assert!(listed.contains("x     invalid"), "{listed}");
        assert_eq!(sandbox.tree(), before);
    }
}

#[test]
fn places_that_are_occupied() {
    for (occupied, error) in [
        ("etc", "{}/forwarders/x.toml: read: not a directory"),
        ("etc/forwarders", "{}/x.toml: read: not a directory"),
        ("etc/forwarders/x.toml/", "{}: read: is a directory"),
        ("var", "{}: create: file exists"),
        ("var/identity", "{}: create: file exists"),
        ("var/identity/x", "x: {}: is there already, without a forwarder\nhint: left by an 'add' *"),
        ("var/ca", "certificate: {}*: *"),
    ] {
        let sandbox = Sandbox::new();
        let path = sandbox.root().join(occupied.trim_end_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        if occupied.ends_with('/') {
            fs::create_dir(&path).expect("a folder");
        } else {
            fs::write(&path, "somebody else's\n").expect("written");
        }
        let before = sandbox.tree();
        let outcome = sandbox.run(["add", "x", &here(free_port()), "192.0.2.1:443", "--offline"]);
        is_refused(&outcome, 1, &error.replace("{}", &path.display().to_string()));
        assert_eq!(sandbox.tree(), before, "with {occupied} occupied");
    }
}

#[test]
fn an_identity_that_nobody_knows_of_is_not_overwritten() {
    let sandbox = Sandbox::with_another();
    fs::create_dir(sandbox.identity("x")).expect("a folder");
    fs::write(sandbox.identity("x").join("key.pem"), "somebody's only key\n").expect("written");
    let before = sandbox.tree();
    let outcome = sandbox.run(["add", "x", &here(free_port()), "192.0.2.1:443", "--offline"]);
    let error = format!("x: {}: is there already, without a forwarder\nhint: *", sandbox.identity("x").display());
    is_refused(&outcome, 1, &error);
    assert_eq!(sandbox.tree(), before);
}

#[test]
fn a_target_that_dies_between_probe_and_proof() {
    let material = material();
    let certificate = Certificate::self_signed(material.path(), "EXCH1");
    for sandbox in [Sandbox::new(), Sandbox::with_another()] {
        let before = sandbox.tree();
        // It takes the probe's connection, and no other.
        let target = SServer::start(&certificate, &["-tls1", "-cipher", "ALL:@SECLEVEL=0", "-naccept", "1"]);
        let pin = certificate.pin();
        let words = ["add", "x", &here(free_port()), &target.address(), "--pin", &pin, "--outbound", "manual"];
        let outcome = sandbox.run(words);
        is_refused(&outcome, 1, &format!("x: target {}: connect: connection refused*", target.address()));
        assert!(outcome.stderr.contains("x.toml written\n"), "it never got so far: {}", outcome.stderr);
        assert_eq!(sandbox.tree(), before);
    }
}

#[test]
fn a_second_command_at_the_same_time_is_refused() {
    let sandbox = Sandbox::with_another();
    let silent = tcp_target(b"", b"").to_string();
    let before = sandbox.tree();
    let first = Live::spawn(&mut sandbox.command(["add", "x", &here(free_port()), &silent, "--insecure"]));
    first.wait_for("are free");
    let outcome = sandbox.run(["set", "old", "min_tls=1.1"]);
    let error = "*/etc: lock: *\nhint: another ewsbridge command is changing settings; repeat this one when it is done";
    is_refused(&outcome, 1, error);
    first.signal(Signal::SIGTERM);
    first.finish().exited(143);
    assert_eq!(sandbox.tree(), before);
}

/// Runs `add` on a file system of its own, mounted with `options`; gives back what it said, and what
/// the tree was before and after.
fn add_on_small_disk(options: &str, words: &[&str], with_another: bool) -> (Outcome, String, String) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let script = r#"
        mount -t tmpfs -o "$1" none "$2/disk" || exit 99
        tree() { cd "$2/disk" && find . -printf '%p %m %U:%G\n' | sort && find . -type f | sort | xargs -r sha256sum; }
        export EWSBRIDGE_CONFIG_DIR="$2/disk/etc" EWSBRIDGE_STATE_DIR="$2/disk/var" EWSBRIDGE="$3" OLD="$4"
        [ -z "$OLD" ] || "$EWSBRIDGE" add old "127.0.0.1:$OLD" 192.0.2.1:443 --offline >/dev/null 2>&1 || exit 98
        tree "$@" >"$2/before"
        folder=$2; shift 4
        "$EWSBRIDGE" add "$@"; code=$?
        tree - "$folder" >"$folder/after"
        exit $code
    "#;
    fs::create_dir(place.path().join("disk")).expect("a folder");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", options]).arg(place.path()).arg(EWSBRIDGE);
    command.arg(if with_another { free_port().to_string() } else { String::new() }).args(words);
    let outcome = run_to_end(&mut command);
    let text = |name: &str| fs::read_to_string(place.path().join(name)).unwrap_or_default();
    (outcome, text("before"), text("after"))
}

/// `add` on a disk that is full at each step in turn: one file or page more each time, until it succeeds.
#[track_caller]
fn full_disk(options: impl Fn(u32) -> String, with_another: bool) -> Vec<String> {
    let material = material();
    let certificate = Certificate::self_signed(material.path(), "EXCH1");
    let target = SServer::tls1(&certificate);
    let mut errors = Vec::new();
    for room in 1..60 {
        let words = ["x", &here(free_port()), &target.address(), "--pin", &certificate.pin()];
        let (outcome, before, after) = add_on_small_disk(&options(room), &words, with_another);
        match outcome.code {
            // Not even the other forwarder has room.
            98 => continue,
            0 => return errors,
            _ => is_refused(&outcome, 1, "*no space left on device*"),
        }
        assert_eq!(after, before, "with room for {room}: {}", outcome.error());
        let error = outcome.error().lines().next().unwrap_or_default().to_owned();
        let error = error.split("/disk/").nth(1).unwrap_or(&error).to_owned();
        if errors.last() != Some(&error) {
            errors.push(error);
        }
    }
    panic!("add never succeeds: {errors:?}");
}

#[test]
fn needs_root_a_full_disk_at_each_step_leaves_nothing() {
    assert!(is_root(), "{NEEDS_ROOT}");
    // One page holds a file; folders take none on tmpfs.
    let errors = full_disk(|room| format!("size={}k", room * 4), false);
    assert!(errors.len() >= 3, "only these steps failed: {errors:#?}");
    // One inode a file or folder.
    let errors = full_disk(|room| format!("nr_inodes={room}"), false);
    assert!(errors.len() >= 6, "only these steps failed: {errors:#?}");
    let errors = full_disk(|room| format!("nr_inodes={room}"), true);
    assert!(errors.len() >= 2, "only these steps failed: {errors:#?}");
}
