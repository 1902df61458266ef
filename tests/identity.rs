//! Our own certificates: what they contain, who accepts them, how they are kept and renewed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ewsbridge::config::{Name, Places};
use ewsbridge::tls::certificate::{self, Facts};
use ewsbridge::tls::identity::{self, Authority, Error, Renewal};
use ewsbridge::tls::pfx;
use time::{Duration, OffsetDateTime};

const NAMES: [&str; 5] = ["mail.corp", "mail", "localhost", "127.0.0.1", "::1"];

/// A state folder of its own with a forwarder's name.
struct Host {
    folder: tempfile::TempDir,
    places: Places,
    name: Name,
    now: OffsetDateTime,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places { config: folder.path().join("etc"), state: folder.path().join("state") };
        Self { folder, places, name: "exch1".parse().unwrap(), now: OffsetDateTime::now_utc() }
    }

    /// With a CA, and a leaf for [`NAMES`] in place.
    fn with_leaf() -> Self {
        let host = Self::new();
        let (authority, _) = host.authority();
        let issued = authority.issue(&names(&NAMES), host.now).unwrap();
        host.install(&issued.chain_pem, &issued.key_pem).unwrap();
        host
    }

    fn authority(&self) -> (Authority, bool) {
        Authority::load_or_create(&self.places, "mail.corp", self.now).unwrap()
    }

    fn install(&self, chain: &str, key: &str) -> Result<(), Error> {
        identity::install(&self.places, &self.places.identity(&self.name), chain, key, None)
    }

    fn renew(&self, more: &[&str], force: bool, now: OffsetDateTime) -> Result<Renewal, Error> {
        identity::renew(&self.places, &self.name, &names(more), force, now)
    }

    fn ca(&self, file: &str) -> PathBuf {
        self.places.authority().join(file)
    }

    fn pair(&self, file: &str) -> PathBuf {
        self.places.identity(&self.name).join(file)
    }

    fn read(&self) -> Result<identity::Pair, Error> {
        identity::read(&self.places.identity(&self.name))
    }

    fn facts(&self) -> Facts {
        self.read().unwrap().facts
    }

    /// A path in the folder for a test's own files.
    fn own(&self, file: &str) -> String {
        self.folder.path().join(file).to_str().unwrap().to_owned()
    }

    /// Makes a self-signed pair with the system's `openssl`: `FILE.crt` and `FILE.key`.
    fn foreign(&self, file: &str, algorithm: &[&str]) -> (PathBuf, PathBuf) {
        let (crt, key) = (self.own(&format!("{file}.crt")), self.own(&format!("{file}.key")));
        let subject = format!("/CN={file}");
        openssl(
            &[&["req", "-x509", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &crt, "-newkey"], algorithm]
                .concat(),
        );
        (crt.into(), key.into())
    }

    /// A leaf under an intermediate under a root: `leaf.crt`, `leaf.key`, and `chain.crt` with the CAs, the root first.
    fn three_levels(&self) {
        self.foreign("root", &["rsa:2048"]);
        for (file, issuer, ca) in [("middle", "root", "TRUE"), ("leaf", "middle", "FALSE")] {
            let [crt, key, request, extensions] =
                ["crt", "key", "csr", "ext"].map(|end| self.own(&format!("{file}.{end}")));
            let [issuer_crt, issuer_key] = ["crt", "key"].map(|end| self.own(&format!("{issuer}.{end}")));
            fs::write(&extensions, format!("basicConstraints=CA:{ca}\n")).unwrap();
            openssl(&[
                "req",
                "-new",
                "-nodes",
                "-newkey",
                "rsa:2048",
                "-subj",
                &format!("/CN={file}"),
                "-keyout",
                &key,
                "-out",
                &request,
            ]);
            openssl(&[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &issuer_crt,
                "-CAkey",
                &issuer_key,
                "-CAcreateserial",
                "-extfile",
                &extensions,
                "-out",
                &crt,
            ]);
        }
        let chain =
            fs::read(self.own("root.crt")).unwrap().into_iter().chain(fs::read(self.own("middle.crt")).unwrap());
        fs::write(self.own("chain.crt"), chain.collect::<Vec<u8>>()).unwrap();
    }

    /// Exports a pair as PFX with more arguments for `openssl pkcs12`.
    fn pfx(&self, crt: &str, key: &str, more: &[&str]) -> Vec<u8> {
        let out = self.own("out.pfx");
        let fixed = ["pkcs12", "-export", "-in", crt, "-inkey", key, "-passout", "pass:Пароль 1", "-out", &out];
        openssl(&[&fixed, more].concat());
        fs::read(out).unwrap()
    }

    /// Every file and folder with its mode and contents.
    fn tree(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let (mut tree, mut open) = (BTreeMap::new(), vec![self.folder.path().to_owned()]);
        while let Some(path) = open.pop() {
            let metadata = fs::metadata(&path).unwrap();
            if metadata.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            tree.insert(path.clone(), (metadata.mode(), fs::read(&path).unwrap_or_default()));
        }
        tree
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn try_openssl(arguments: &[&str]) -> Output {
    Command::new("openssl").args(arguments).output().expect("the system's openssl")
}

fn openssl(arguments: &[&str]) -> String {
    let output = try_openssl(arguments);
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text_of(path: &Path) -> String {
    let text = openssl(&["x509", "-noout", "-text", "-in", path.to_str().unwrap()]);
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

fn verify(ca: &Path, leaf: &Path, more: &[&str]) -> Output {
    let fixed = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca.to_str().unwrap()];
    try_openssl(&[&fixed, more, &[leaf.to_str().unwrap()]].concat())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Serves a pair with rustls to the given number of clients, one after the other.
fn serve(pair: identity::Pair, clients: usize) -> (u16, JoinHandle<()>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(pair.chain, pair.key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        for _ in 0..clients {
            let (mut socket, _) = listener.accept().unwrap();
            let mut connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let _ = rustls::Stream::new(&mut connection, &mut socket).write_all(b"served");
        }
    });
    (port, serving)
}

/// Python's strict check (its default from 3.13): the bytes received, or the reason why not.
const STRICT_CLIENT: &str = r#"
import socket, ssl, sys
ca, name, port = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
try:
    with socket.create_connection(("127.0.0.1", int(port)), 10) as plain:
        with context.wrap_socket(plain, server_hostname=name) as tls:
            print(tls.version(), tls.recv(9).decode())
except ssl.SSLCertVerificationError as error:
    print(error.verify_message)
"#;

fn strict_client(ca: &Path, name: &str, port: u16) -> String {
    let output = Command::new("python3").args(["-c", STRICT_CLIENT]).arg(ca).args([name, &port.to_string()]).output();
    String::from_utf8(output.expect("python3").stdout).unwrap()
}

#[test]
fn ca_and_leaf_carry_what_rfc_5280_asks_for() {
    let host = Host::with_leaf();
    let (ca, leaf) = (text_of(&host.ca("ca.pem")), text_of(&host.pair("cert.pem")));
    let has = |text: &str, part: &str| assert!(text.contains(part), "{part:?} is missing in\n{text}");
    has(&ca, "Subject: CN = ewsbridge local CA on mail.corp\n");
    has(&ca, "X509v3 Basic Constraints: critical\nCA:TRUE, pathlen:0\n");
    has(&ca, "X509v3 Key Usage: critical\nCertificate Sign, CRL Sign\n");
    has(&leaf, "Issuer: CN = ewsbridge local CA on mail.corp\n");
    has(&leaf, "Subject: CN = mail.corp\n");
    has(&leaf, "X509v3 Basic Constraints: critical\nCA:FALSE\n");
    has(&leaf, "X509v3 Key Usage: critical\nDigital Signature\n");
    has(&leaf, "X509v3 Extended Key Usage:\nTLS Web Server Authentication\n");
    has(&leaf, "DNS:mail.corp, DNS:mail, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1\n");
    let identifier = |text: &str, which: &str| text.split(which).nth(1).unwrap().lines().nth(1).unwrap().to_owned();
    assert_eq!(identifier(&leaf, "Authority Key Identifier"), identifier(&ca, "Subject Key Identifier"));
    assert_ne!(identifier(&leaf, "Subject Key Identifier"), identifier(&ca, "Subject Key Identifier"));
    for text in [&ca, &leaf] {
        has(text, "ASN1 OID: prime256v1\n");
        let serial = identifier(text, "Serial Number");
        assert!(serial.split(':').count() <= 20 && !serial.starts_with('-'), "{serial}");
    }
    let second = host.authority().0.issue(&names(&["a"]), host.now).unwrap();
    fs::write(host.own("second"), second.chain_pem).unwrap();
    assert_ne!(identifier(&text_of(host.own("second").as_ref()), "Serial Number"), identifier(&leaf, "Serial Number"));
}

#[test]
fn a_leaf_lasts_less_than_825_days_and_the_ca_ten_years() {
    let host = Host::with_leaf();
    let leaf = host.facts();
    assert_eq!(leaf.not_after - leaf.not_before, Duration::days(824));
    assert_eq!(leaf.not_before, (host.now - Duration::DAY).replace_nanosecond(0).unwrap());
    let (_, ca) = Authority::certificate(&host.places).unwrap();
    assert_eq!(ca.not_after - ca.not_before, Duration::days(3652));
    assert_eq!((leaf.key.as_str(), leaf.signature.as_str(), leaf.self_signed), ("ECDSA P-256", "SHA-256", false));
    assert_eq!((ca.key.as_str(), ca.self_signed), ("ECDSA P-256", true));
}

#[test]
fn openssl_accepts_the_leaf_strictly_for_its_names_and_its_time_only() {
    let host = Host::with_leaf();
    let (ca, leaf) = (host.ca("ca.pem"), host.pair("cert.pem"));
    let after = |days: i64| (host.now.unix_timestamp() + days * 86_400).to_string();
    for more in [vec![], vec!["-verify_hostname", "mail.corp"], vec!["-verify_ip", "::1"], vec!["-attime", &after(822)]]
    {
        let output = verify(&ca, &leaf, &more);
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for more in [vec!["-verify_hostname", "other.corp"], vec!["-verify_ip", "10.0.0.1"], vec!["-attime", &after(824)]] {
        assert!(!verify(&ca, &leaf, &more).status.success(), "{more:?}");
    }
    let other = Host::with_leaf();
    assert!(!verify(&other.ca("ca.pem"), &leaf, &[]).status.success());
}

#[test]
fn python_accepts_the_leaf_strictly_by_name_and_by_address() {
    let (host, other) = (Host::with_leaf(), Host::with_leaf());
    let (port, serving) = serve(host.read().unwrap(), 4);
    let client = |ca: PathBuf, name: &str| {
        let output =
            Command::new("python3").args(["-c", STRICT_CLIENT]).arg(ca).args([name, &port.to_string()]).output();
        String::from_utf8(output.expect("python3").stdout).unwrap()
    };
    assert_eq!(client(host.ca("ca.pem"), "mail.corp"), "TLSv1.3 served\n");
    assert_eq!(client(host.ca("ca.pem"), "127.0.0.1"), "TLSv1.3 served\n");
    let refused = client(host.ca("ca.pem"), "other.corp");
    assert!(refused.starts_with("Hostname mismatch"), "{refused}");
    let refused = client(other.ca("ca.pem"), "mail.corp");
    assert!(refused.contains("certificate signature failure") || refused.contains("unable to get"), "{refused}");
    serving.join().unwrap();
}

#[test]
fn keys_are_never_world_readable_and_the_ca_key_is_its_owners_alone() {
    let host = Host::with_leaf();
    for (path, expected) in [
        (host.places.state.clone(), 0o750),
        (host.places.authority(), 0o700),
        (host.ca("ca.pem"), 0o644),
        (host.ca("ca.key"), 0o600),
        (host.places.state.join("identity"), 0o750),
        (host.places.identity(&host.name), 0o750),
        (host.pair("cert.pem"), 0o640),
        (host.pair("key.pem"), 0o640),
    ] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    assert_eq!(host.tree().len(), 9, "no draft is left behind: {:?}", host.tree().keys());
}

#[test]
fn needs_root_the_group_gets_the_pair_and_keeps_it_through_a_renewal_but_never_the_ca() {
    assert!(nix::unistd::geteuid().is_root(), "needs root; leave it out by: tests/run --rootless");
    let host = Host::new();
    let group = nix::unistd::Gid::from_raw(54_321);
    let issued = host.authority().0.issue(&names(&NAMES), host.now).unwrap();
    identity::install(&host.places, &host.places.identity(&host.name), &issued.chain_pem, &issued.key_pem, Some(group))
        .unwrap();
    let first = host.facts();
    assert!(matches!(host.renew(&[], true, host.now), Ok(Renewal::Renewed(_))));
    assert_ne!(host.facts().fingerprint, first.fingerprint);
    let group_of = |path: PathBuf| fs::metadata(path).unwrap().gid();
    for path in
        [host.places.state.clone(), host.places.identity(&host.name), host.pair("cert.pem"), host.pair("key.pem")]
    {
        assert_eq!(group_of(path.clone()), 54_321, "{}", path.display());
    }
    for path in [host.places.authority(), host.ca("ca.key")] {
        assert_ne!(group_of(path.clone()), 54_321, "{}", path.display());
    }
}

#[test]
fn the_ca_is_made_once_even_by_two_at_the_same_time() {
    let host = Host::new();
    let made: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| host.authority())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first = made[0].0.facts();
    assert!(made.iter().all(|(authority, _)| authority.facts() == first));
    assert_eq!(made.iter().filter(|(_, made)| *made).count(), 1);
    assert_eq!(host.tree().len(), 5, "{:?}", host.tree().keys());
}

#[test]
fn a_ca_that_appears_while_it_is_looked_for_is_not_half_a_ca() {
    for _ in 0..50 {
        let host = Host::new();
        thread::scope(|scope| {
            let looking = scope.spawn(|| {
                loop {
                    match Authority::load(&host.places) {
                        Err(Error::NoAuthority(_)) => {}
                        other => return other.map(|_| ()),
                    }
                }
            });
            let _ = host.authority();
            looking.join().unwrap().unwrap();
        });
    }
}

#[test]
fn a_broken_ca_is_refused_and_never_replaced() {
    let said = |host: &Host| {
        let before = host.tree();
        let error = Authority::load_or_create(&host.places, "mail.corp", host.now).map(|_| ()).unwrap_err();
        assert_eq!(host.tree(), before);
        assert!(error.hint().is_none_or(|hint| !hint.is_empty()));
        error.to_string().replace(host.places.authority().to_str().unwrap(), "CA")
    };
    for (missing, text) in [
        ("ca.pem", "CA: local CA: ca.pem is missing, the other file is there"),
        ("ca.key", "CA: local CA: ca.key is missing, the other file is there"),
    ] {
        let host = Host::with_leaf();
        fs::remove_file(host.ca(missing)).unwrap();
        assert_eq!(said(&host), text);
    }
    let (host, other) = (Host::with_leaf(), Host::with_leaf());
    fs::copy(other.ca("ca.key"), host.ca("ca.key")).unwrap();
    assert_eq!(said(&host), "CA: local CA: ca.key is not the key of ca.pem");
    fs::write(host.ca("ca.key"), "").unwrap();
    assert!(said(&host).starts_with("CA/ca.key: read the private key: "), "{}", said(&host));
    fs::write(host.ca("ca.pem"), "").unwrap();
    assert_eq!(said(&host), "CA/ca.pem: read the certificate: none inside, the file is empty");
}

#[test]
fn a_leaf_never_outlives_the_ca_and_an_expired_ca_issues_nothing() {
    let host = Host::new();
    let (authority, _) = host.authority();
    let end = authority.facts().not_after;
    let issued = authority.issue(&names(&NAMES), end - Duration::days(100)).unwrap();
    host.install(&issued.chain_pem, &issued.key_pem).unwrap();
    assert_eq!(host.facts().not_after, end);
    for now in [end, end + Duration::days(3), authority.facts().not_before - Duration::SECOND] {
        let error = authority.issue(&names(&NAMES), now).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::AuthorityDates { .. }), "{error}");
        assert!(error.hint().is_some());
    }
    let error = authority.issue(&names(&NAMES), end + Duration::days(3)).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("ca: local CA: not valid today: ") && error.ends_with("(expired 3 days ago)"), "{error}");
}

#[test]
fn only_real_names_are_issued_and_a_long_one_stays_out_of_the_common_name() {
    let host = Host::new();
    let (authority, _) = host.authority();
    assert!(matches!(authority.issue(&[], host.now), Err(Error::NoNames)));
    assert!(matches!(authority.issue(&names(&["a b"]), host.now), Err(Error::Name(_))));
    let long = format!("{}.corp", vec!["x".repeat(40); 2].join("."));
    let issued = authority.issue(&names(&[&long, "Short.Corp."]), host.now).unwrap();
    host.install(&issued.chain_pem, &issued.key_pem).unwrap();
    assert_eq!(host.facts().common_name.as_deref(), Some("short.corp"));
    assert_eq!(host.facts().names, [long.as_str(), "short.corp"]);
}

#[test]
fn a_leaf_is_renewed_at_two_thirds_of_its_life_with_every_name_it_had() {
    let host = Host::with_leaf();
    let old = host.facts();
    let due = old.not_before + (old.not_after - old.not_before) * 2 / 3;
    assert_eq!(host.renew(&["new.corp"], false, due - Duration::SECOND).unwrap(), Renewal::Unchanged(old.clone()));
    let Renewal::Renewed(new) = host.renew(&["new.corp", "mail"], false, due).unwrap() else { panic!("not renewed") };
    assert_eq!(new, host.facts());
    assert_eq!(new.names, [&NAMES[..], &["new.corp"]].concat());
    assert_eq!(new.common_name, old.common_name);
    assert_eq!(new.not_before, (due - Duration::DAY).replace_nanosecond(0).unwrap());
    assert!(
        verify(&host.ca("ca.pem"), &host.pair("cert.pem"), &["-attime", &due.unix_timestamp().to_string()])
            .status
            .success()
    );
    assert_eq!(host.renew(&[], false, due).unwrap(), Renewal::Unchanged(new));
}

#[test]
fn renewal_needs_the_ca_key_only_when_it_renews() {
    let host = Host::with_leaf();
    fs::remove_file(host.ca("ca.key")).unwrap();
    assert!(matches!(host.renew(&[], false, host.now), Ok(Renewal::Unchanged(_))));
    let before = host.tree();
    assert!(matches!(host.renew(&[], true, host.now), Err(Error::HalfAuthority { .. })));
    assert_eq!(host.tree(), before);
}

#[test]
fn renewal_repairs_a_torn_pair_and_follows_a_new_ca_but_leaves_a_foreign_one() {
    let host = Host::with_leaf();
    let other = Host::with_leaf();
    fs::copy(other.pair("key.pem"), host.pair("key.pem")).unwrap();
    assert!(matches!(host.read(), Err(Error::Mismatch { .. })));
    assert!(matches!(host.renew(&[], false, host.now), Ok(Renewal::Renewed(_))));
    fs::remove_file(host.pair("key.pem")).unwrap();
    assert!(matches!(host.renew(&[], false, host.now), Ok(Renewal::Renewed(_))));
    assert_eq!(host.facts().names, NAMES);

    fs::remove_dir_all(host.places.authority()).unwrap();
    assert!(matches!(host.renew(&[], false, host.now), Err(Error::NoAuthority(_))));
    let _ = host.authority();
    assert!(matches!(host.renew(&[], false, host.now), Ok(Renewal::Renewed(_))));
    assert!(verify(&host.ca("ca.pem"), &host.pair("cert.pem"), &[]).status.success());

    let (crt, key) = host.foreign("exchange", &["rsa:2048"]);
    assert!(matches!(
        identity::adopt(&host.places, &host.places.identity(&host.name), &crt, &key, None),
        Ok(Renewal::Renewed(_))
    ));
    let before = host.tree();
    assert!(matches!(host.renew(&[], true, host.now), Ok(Renewal::Foreign(_))));
    assert_eq!(host.tree(), before);
}

#[test]
fn a_reader_never_sees_an_old_certificate_with_a_new_key() {
    let host = Host::with_leaf();
    let (seen, reads) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let reads = reads;
        scope.spawn(|| while seen.send(host.read().map(|pair| pair.facts.fingerprint)).is_ok() {});
        for _ in 0..200 {
            let Renewal::Renewed(new) = host.renew(&[], true, host.now).unwrap() else { panic!("not renewed") };
            // Whatever was read before and during the renewal is the old pair or the new one.
            while reads.recv().unwrap().unwrap() != new.fingerprint {}
        }
    });
}

#[test]
fn a_foreign_pair_is_checked_and_copied_only_when_it_changed() {
    let host = Host::new();
    let adopt = |(crt, key): &(PathBuf, PathBuf)| {
        identity::adopt(&host.places, &host.places.identity(&host.name), crt, key, None)
    };
    for (file, algorithm) in
        [("rsa", &["rsa:2048"][..]), ("ec", &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]), ("ed", &["ed25519"])]
    {
        let pair = host.foreign(file, algorithm);
        assert!(matches!(adopt(&pair), Ok(Renewal::Renewed(_))), "{file}");
        assert_eq!(host.facts().common_name.as_deref(), Some(file));
        let before = host.tree();
        assert!(matches!(adopt(&pair), Ok(Renewal::Unchanged(_))), "{file}");
        assert_eq!(host.tree(), before);
    }
    assert_eq!((mode(&host.pair("key.pem")), mode(&host.pair("cert.pem"))), (0o640, 0o640));
}

#[test]
fn a_pair_that_could_not_be_served_is_refused_and_the_old_one_stays() {
    let host = Host::with_leaf();
    host.three_levels();
    let (crt, key) = host.foreign("good", &["rsa:2048"]);
    let (weak_crt, weak_key) = host.foreign("weak", &["rsa:1024"]);
    let (_, other_key) = host.foreign("other", &["rsa:2048"]);
    let encrypted: PathBuf = host.own("encrypted.key").into();
    openssl(&[
        "pkey",
        "-aes256",
        "-passout",
        "pass:x",
        "-in",
        key.to_str().unwrap(),
        "-out",
        encrypted.to_str().unwrap(),
    ]);
    let traditional: PathBuf = host.own("traditional.key").into();
    openssl(&[
        "rsa",
        "-traditional",
        "-aes256",
        "-passout",
        "pass:x",
        "-in",
        key.to_str().unwrap(),
        "-out",
        traditional.to_str().unwrap(),
    ]);
    let upside_down: PathBuf = host.own("upside_down.crt").into();
    fs::write(
        &upside_down,
        [fs::read(host.own("chain.crt")).unwrap(), fs::read(host.own("leaf.crt")).unwrap()].concat(),
    )
    .unwrap();
    let (leaf_key, missing) = (PathBuf::from(host.own("leaf.key")), PathBuf::from(host.own("missing")));
    let before = host.tree();
    for (crt, key, text) in [
        (&crt, &other_key, "good.crt: check: its key is not the one in other.key"),
        (&weak_crt, &weak_key, "weak.crt: check: its key is RSA 1024, clients of today demand RSA 2048 or more"),
        (
            &crt,
            &encrypted,
            "encrypted.key: read the private key: it is encrypted, and nobody is there to type its password at a start",
        ),
        (
            &crt,
            &traditional,
            "traditional.key: read the private key: it is encrypted, and nobody is there to type its password at a start",
        ),
        (
            &upside_down,
            &leaf_key,
            "upside_down.crt: check: the certificate of the key stands at place 3, it must be the first",
        ),
        (&key, &crt, "good.key: read the certificate: none inside, only a private key"),
        (&crt, &crt, "good.crt: read the private key: none inside, only a certificate"),
        (&missing, &key, "missing: read: no such file or directory"),
        (&crt, &missing, "missing: read: no such file or directory"),
    ] {
        let error =
            identity::adopt(&host.places, &host.places.identity(&host.name), crt, key, None).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string().replace(&host.own(""), ""), text);
        assert_eq!(host.tree(), before);
    }
    let error = host.install(&fs::read_to_string(&crt).unwrap(), &fs::read_to_string(&other_key).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "certificate: check: its key is not the one in key");
    assert_eq!(host.tree(), before);
}

#[test]
fn a_failed_step_leaves_the_tree_as_it_was() {
    let host = Host::new();
    let (authority, _) = host.authority();
    let issued = authority.issue(&names(&NAMES), host.now).unwrap();
    fs::write(host.places.state.join("identity"), "in the way").unwrap();
    let before = host.tree();
    let error = host.install(&issued.chain_pem, &issued.key_pem).unwrap_err().to_string();
    assert!(error.ends_with("identity/exch1: write: not a directory"), "{error}");
    assert!(identity::remove(&host.places, &host.name).is_err());
    assert_eq!(host.tree(), before);
    fs::remove_file(host.places.state.join("identity")).unwrap();
    identity::remove(&host.places, &host.name).unwrap();
    host.install(&issued.chain_pem, &issued.key_pem).unwrap();
    fs::remove_file(host.pair("cert.pem")).unwrap();
    fs::create_dir(host.pair("cert.pem")).unwrap();
    host.install(&issued.chain_pem, &issued.key_pem).unwrap_err();
    assert!(!host.tree().keys().any(|path| path.to_string_lossy().contains(".new-")), "{:?}", host.tree().keys());
    identity::remove(&host.places, &host.name).unwrap();
    assert!(!host.places.identity(&host.name).exists());
}

#[test]
fn a_pair_for_this_run_is_accepted_by_this_machines_names() {
    let host = Host::new();
    let made = identity::for_this_run(&identity::machine_names(), host.now).unwrap();
    assert!(made.pair.facts.names.contains(&"127.0.0.1".to_owned()));
    fs::write(host.own("ca.pem"), &made.authority_pem).unwrap();
    let (port, serving) = serve(made.pair, 1);
    assert_eq!(strict_client(host.own("ca.pem").as_ref(), "localhost", port), "TLSv1.3 served\n");
    serving.join().unwrap();
}

#[test]
fn pfx_files_of_old_and_new_windows_are_read_with_their_chain_in_order() {
    let host = Host::new();
    host.three_levels();
    let (crt, key, chain) = (host.own("leaf.crt"), host.own("leaf.key"), host.own("chain.crt"));
    let rc2 = ["-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1"];
    for encryption in [&rc2[..], &["-keypbe", "AES-256-CBC", "-certpbe", "AES-256-CBC"]] {
        let bytes = host.pfx(&crt, &key, &[encryption, &["-certfile", &chain]].concat());
        is_read_in_order(&host, &bytes);
    }
    let (crt, key) = host.foreign("ec", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let contents = pfx::read(&host.pfx(crt.to_str().unwrap(), key.to_str().unwrap(), &[]), "Пароль 1").unwrap();
    host.install(&contents.chain_pem, &contents.key_pem).unwrap();
    assert_eq!(host.facts().key, "ECDSA P-256");
}

/// OpenSSL 3.0 takes it for a wrong password; ours does not.
#[test]
fn pfx_file_without_a_checksum_is_read() {
    let host = Host::new();
    host.three_levels();
    let (crt, key, chain) = (host.own("leaf.crt"), host.own("leaf.key"), host.own("chain.crt"));
    is_read_in_order(&host, &host.pfx(&crt, &key, &["-nomac", "-certfile", &chain]));
}

fn is_read_in_order(host: &Host, bytes: &[u8]) {
    let contents = pfx::read(bytes, "Пароль 1").unwrap();
    fs::write(host.own("read.crt"), &contents.chain_pem).unwrap();
    let chain = certificate::read_pem_chain(host.own("read.crt").as_ref()).unwrap();
    let chain: Vec<_> = chain.iter().map(|one| Facts::of(one).unwrap().common_name.unwrap()).collect();
    assert_eq!(chain, ["leaf", "middle"]);
    assert!(contents.key_pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    host.install(&contents.chain_pem, &contents.key_pem).unwrap();
    assert_eq!(host.facts().common_name.as_deref(), Some("leaf"));
}

#[test]
fn a_pfx_file_says_whether_the_password_or_the_file_is_wrong() {
    let host = Host::new();
    let (crt, key) = host.foreign("one", &["rsa:2048"]);
    let (crt, key) = (crt.to_str().unwrap(), key.to_str().unwrap());
    let said = |bytes: &[u8], password: &str| pfx::read(bytes, password).map(|_| ()).unwrap_err().to_string();
    let good = host.pfx(crt, key, &[]);
    for wrong in ["", "wrong", "Пароль 1\0", "\0"] {
        assert_eq!(said(&good, wrong), "PFX: decrypt: wrong password", "{wrong:?}");
    }
    assert_eq!(said(b"", ""), "PFX: read: it is empty");
    assert_eq!(said(b"MZ nonsense", ""), "PFX: read: it is no PKCS #12 file, or a damaged one");
    assert_eq!(said(&good[..good.len() / 2], "Пароль 1"), "PFX: read: it is no PKCS #12 file, or a damaged one");
    assert_eq!(said(&fs::read(crt).unwrap(), ""), "PFX: read: it is a PEM file; use --cert and --key");
    let keyless = host.pfx(crt, key, &["-nokeys"]);
    assert_eq!(
        said(&keyless, "Пароль 1"),
        "PFX: read: no private key inside, only certificates; export it with its private key"
    );
    let bare = host.pfx(crt, key, &["-nocerts"]);
    assert_eq!(said(&bare, "Пароль 1"), "PFX: read: no certificate that belongs to its private key");
}

/// Run once more by the next test, in a process of its own and with somebody else's certificate.
#[test]
fn a_certificate_is_read_under_whatever_configuration() {
    let host = Host::with_leaf();
    let path = std::env::var_os("EWSBRIDGE_TEST_CERTIFICATE").map_or_else(|| host.pair("cert.pem"), Into::into);
    let chain = certificate::read_pem_chain(&path).unwrap();
    assert_eq!(Facts::of(&chain[0]).unwrap().common_name.as_deref(), Some("mail.corp"));
}

#[test]
fn a_hostile_openssl_configuration_changes_nothing() {
    let host = Host::with_leaf();
    let hostile =
        "openssl_conf = all\n[all]\nalg_section = algorithms\n[algorithms]\ndefault_properties = provider=nobody\n";
    fs::write(host.own("openssl.cnf"), hostile).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_certificate_is_read_under_whatever_configuration"]);
    child.env("OPENSSL_CONF", host.own("openssl.cnf")).env("EWSBRIDGE_TEST_CERTIFICATE", host.pair("cert.pem"));
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}
