//! A forwarder's settings: every key, its default, and the type that can't hold a bad combination.
//!
//! The table [`KEYS`] is the one place that names keys and defaults: `show`, `set` and the comments
//! of a new file come from it, and README's table is held to it by `tests/docs.rs`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::values::{
    self, BadValue, Fault, HalfClose, Host, Listen, Network, SendProxy, Sni, Target, TargetEof, Version, Weak,
};
use super::{Fingerprint, Targets, file::Reader};

/// The version of the file format that this program writes, and the newest that it reads.
pub const FORMAT: i64 = 1;

/// A key of a forwarder's file.
pub struct Key {
    /// Its name in the file and in `set`.
    pub name: &'static str,
    /// The default as it stands in a file; empty where there is none.
    pub default: &'static str,
    /// One line for the file's comment.
    pub about: &'static str,
}

const fn key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    Key { name, default, about }
}

/// Every key, in the order of a new file.
pub const KEYS: &[Key] = &[
    key("format", "", "version of this file's format"),
    key("listen", "", "PORT: all addresses, so that containers and other hosts reach it; or ADDRESS:PORT"),
    key("target", "", "the legacy server, HOST:PORT, looked up for each connection; \"A:443,B:443\": B where A fails"),
    key("server_name", "", "the name that each target's certificate must carry, if not the target's own"),
    key("sni", "\"auto\"", "server name sent to it: auto (the verified name; none for an IP), off, or a name"),
    key("min_tls", "\"1.0\"", "oldest TLS version spoken to the target"),
    key("max_tls", "\"1.2\"", "newest TLS version spoken to the target; a TLS 1.3 hello makes old servers fail"),
    key(
        "ciphers",
        "",
        "OpenSSL cipher list for the target; without it AES, ECDHE before RSA. 3DES and RC4 only if named",
    ),
    key(
        "security_level",
        "0",
        "OpenSSL's level for ciphers and signatures: 0 to 2; TLS 1.0, 1.1 and SHA-1 signatures need 0",
    ),
    key("extensions", "true", "false: a ClientHello without any extension, which ends at TLS 1.1 and names no site"),
    key(
        "empty_fragments",
        "true",
        "false: no empty record before each one in TLS 1.0 (BEAST), for servers that stumble",
    ),
    key("allow_weak", "[]", "weak things this server can't do without: no-rfc5746, dhe, 3des, rc4"),
    key("resumption", "true", "false: a full TLS handshake for each connection to the target"),
    key(
        "auth_cert",
        "",
        "PEM certificate to show where the target asks for a client certificate; its key is \"auth_key\"",
    ),
    key("auth_key", "", "the private key of \"auth_cert\""),
    key("ca", "", "PEM file of the authorities that vouch for the target; without it this system's own"),
    key("pin", "", "accept exactly these certificates, whatever their names and dates: [\"sha256:...\"]"),
    key("insecure", "false", "true: accept any certificate, so anyone on the path can read and change everything"),
    key("accept", "[]", "faults of the certificate to accept: sha1, rsa1024, expired, wrong-name, ip-in-cn"),
    key("target_eof", "\"mirror\"", "clean: the target's FIN without close_notify reaches clients as close_notify"),
    key("half_close", "\"forward\"", "hold: a client's end is kept from the target while an answer is owed or flowing"),
    key("send_proxy", "\"off\"", "v1, v2: a PROXY header before TLS tells the target the client's address"),
    key("client_min_tls", "\"1.2\"", "oldest TLS version spoken to clients: 1.2 or 1.3"),
    key("client_ca", "", "PEM file of authorities: clients must show a certificate by one of them"),
    key("san", "[]", "more names and addresses for the forwarder's own certificate"),
    key("cert", "", "serve this PEM certificate instead of our own; its key is \"key\""),
    key("key", "", "the private key of \"cert\""),
    key("allow_clients", "[]", "networks that clients may come from: [\"10.0.0.0/8\"]; empty: any"),
    key(
        "proxy_from",
        "[]",
        "networks of load balancers: what comes from there must begin with a PROXY header, nothing else may",
    ),
    key("max_connections", "4000", "connections at a time; one more waits 2 s at most, then it gets an alert"),
    key(
        "max_handshakes",
        "1000",
        "clients at a time that are not connected yet, in TLS handshakes or before; one more waits as well",
    ),
    key("accept_rate", "0", "new connections a second; more of them wait as well; 0: any"),
    key("hello_timeout", "\"15s\"", "a client that has not sent its whole ClientHello by then is dropped"),
    key("connect_timeout", "\"10s\"", "look-up and TCP connection to the target, all addresses and targets together"),
    key("handshake_timeout", "\"15s\"", "a peer that has not finished its TLS handshake by then is dropped"),
    key("half_close_timeout", "\"60s\"", "one side has ended and the other stays silent this long: cut"),
    key("linger_timeout", "\"10s\"", "both sides were told the end: time for them to take what is left and end too"),
    key(
        "dead_peer_timeout",
        "\"90s\"",
        "a peer that answers nothing any more, not even TCP's own probes, is cut by then",
    ),
    key("idle_timeout", "\"0s\"", "0s: never; EWS streams are silent for up to 30 min, so less than 31m cuts them"),
    key("drain_timeout", "\"30s\"", "on stop, open connections may finish within this time, then they are cut"),
    key(
        "keepalive_time",
        "\"30s\"",
        "silence before TCP probes whether the peer still lives; all three within dead_peer_timeout",
    ),
    key("keepalive_interval", "\"10s\"", "time between two such probes"),
    key("keepalive_probes", "5", "unanswered probes that end the connection"),
];

/// How the target's certificate is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Chain, name and validity, by this system's authorities, but for the accepted faults.
    System(Vec<Fault>),
    /// The same by the authorities of this file.
    Ca(PathBuf, Vec<Fault>),
    /// One of these certificates and no other; the whole judgement.
    Pin(Vec<Fingerprint>),
    /// Not at all.
    Insecure,
}

/// How long each stage of a connection may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the client's whole ClientHello is there.
    pub hello: Duration,
    /// Look-up and TCP connection to the target together.
    pub connect: Duration,
    /// Each TLS handshake.
    pub handshake: Duration,
    /// Silence after one side has ended.
    pub half_close: Duration,
    /// Silence of an open connection; `None`: any.
    pub idle: Option<Duration>,
    /// For the peers to take what is left and to end in turn, once both were told the end.
    pub linger: Duration,
    /// Until a peer that answers nothing is given up.
    pub dead_peer: Duration,
    /// On stop, until open connections are cut.
    pub drain: Duration,
}

/// How much one forwarder takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: u32,
    /// Of them not yet connected.
    pub handshakes: u32,
    /// New connections a second; `None`: any.
    pub accept_rate: Option<u32>,
}

/// TCP keepalive, the same on both legs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub time: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes that end the connection.
    pub probes: u32,
}

/// Everything that one forwarder needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where clients connect.
    pub listen: Listen,
    /// Where their bytes go.
    pub target: Targets,
    /// The name that every target's certificate must carry; `None`: each its own host
    /// ([`Settings::verified_name`]).
    pub server_name: Option<Host>,
    /// The name in the ClientHello.
    pub sni: Sni,
    /// Oldest version spoken to the target.
    pub min_tls: Version,
    /// Newest version spoken to the target.
    pub max_tls: Version,
    /// The admin's cipher list.
    pub ciphers: Option<String>,
    /// OpenSSL's security level for the target's leg, 0 to 2; certificates have a level of their own.
    pub security_level: u32,
    /// Whether the ClientHello carries extensions.
    pub extensions: bool,
    /// Whether TLS 1.0 sends an empty record before each of a CBC cipher.
    pub empty_fragments: bool,
    /// The weak things that are allowed, in order and once each.
    pub allow_weak: Vec<Weak>,
    /// Whether sessions with the target are resumed.
    pub resumption: bool,
    /// A certificate and key that are shown to a target that asks for one.
    pub credential: Option<(PathBuf, PathBuf)>,
    /// How the target's certificate is judged.
    pub trust: Trust,
    /// What the target's FIN becomes.
    pub target_eof: TargetEof,
    /// What a client's end becomes.
    pub half_close: HalfClose,
    /// The PROXY header that goes before TLS to the target.
    pub send_proxy: SendProxy,
    /// Networks that clients may come from; none: any.
    pub allow_clients: Vec<Network>,
    /// Networks of load balancers, which must begin with a PROXY header.
    pub proxy_from: Vec<Network>,
    /// Limits.
    pub limits: Limits,
    /// Oldest version spoken to clients.
    pub client_min_tls: Version,
    /// The authorities by one of whom clients must show a certificate; `None`: they need none.
    pub client_ca: Option<PathBuf>,
    /// More names for our own certificate.
    pub san: Vec<String>,
    /// A certificate and key that are served in place of our own.
    pub foreign: Option<(PathBuf, PathBuf)>,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Keepalive.
    pub keepalive: Keepalive,
}

/// The longest that an EWS streaming subscription is silent, and a little more (issue: 31 min).
pub const STREAM_SILENCE: Duration = Duration::from_secs(31 * 60);

impl Settings {
    /// Reads every key; what is wrong stays in the reader, which then yields no settings.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let listen = reader.required("listen", |text| text.parse());
        let target: Option<Targets> = reader.required("target", |text| text.parse());
        let server_name = reader.text("server_name", str::parse);
        let sni = reader.text("sni", str::parse).unwrap_or(Sni::Auto);
        let (min_tls, max_tls) = read_versions(reader);
        let ciphers = reader.text("ciphers", cipher_list);
        let security_level = reader.number("security_level", 0..=2).unwrap_or(0);
        let extensions = reader.boolean("extensions").unwrap_or(true);
        if !extensions && min_tls > Version::Tls1_1 {
            reader.problem("extensions", "TLS 1.2 can't do without; min_tls must be 1.1 or 1.0".to_owned());
        }
        check_level(reader, security_level, max_tls, extensions);
        let empty_fragments = reader.boolean("empty_fragments").unwrap_or(true);
        let mut allow_weak: Vec<Weak> = reader.list("allow_weak", str::parse);
        allow_weak.sort();
        allow_weak.dedup();
        let resumption = reader.boolean("resumption").unwrap_or(true);
        let credential = read_pair(reader, "auth_cert", "auth_key");
        let trust = read_trust(reader);
        let target_eof = reader.text("target_eof", str::parse).unwrap_or(TargetEof::Mirror);
        let half_close = reader.text("half_close", str::parse).unwrap_or(HalfClose::Forward);
        let send_proxy = reader.text("send_proxy", str::parse).unwrap_or(SendProxy::Off);
        let allow_clients = reader.list("allow_clients", str::parse);
        let proxy_from = reader.list("proxy_from", str::parse);
        let limits = read_limits(reader);
        let client_min_tls = reader.text("client_min_tls", client_version).unwrap_or(Version::Tls1_2);
        let client_ca = reader.text("client_ca", |text| Ok(PathBuf::from(text)));
        let san = reader.list("san", san);
        let foreign = read_pair(reader, "cert", "key");
        let deadlines = read_deadlines(reader);
        let keepalive = read_keepalive(reader, deadlines.dead_peer);
        Some(Self {
            listen: listen?,
            server_name,
            target: target?,
            sni,
            min_tls,
            max_tls,
            ciphers,
            security_level,
            extensions,
            empty_fragments,
            allow_weak,
            resumption,
            credential,
            trust: trust?,
            target_eof,
            half_close,
            send_proxy,
            allow_clients,
            proxy_from,
            limits,
            client_min_tls,
            client_ca,
            san,
            foreign,
            deadlines,
            keepalive,
        })
    }

    /// What an admin should hear although the settings are in order.
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.trust == Trust::Insecure {
            found.push("the target's certificate is not verified (insecure = true)".to_owned());
        }
        if let Some(idle) = self.deadlines.idle.filter(|idle| *idle < STREAM_SILENCE) {
            found.push(format!(
                "idle_timeout {} cuts EWS streaming subscriptions, which are silent for up to 30 min; use 31m or more, or 0s",
                values::duration_text(idle)
            ));
        }
        if let Some(weak) = self.ciphers.as_deref().map(weak_ciphers).filter(|weak| !weak.is_empty()) {
            found.push(format!("weak ciphers allowed towards the target: {}", weak.join(", ")));
        }
        if !self.allow_weak.is_empty() {
            let weak = self.allow_weak.iter().map(|weak| weak.about()).collect::<Vec<_>>().join(", ");
            found.push(format!("weak towards the target: {weak} (allow_weak)"));
        }
        found
    }

    /// Whether a connection from there must begin with a PROXY header.
    pub fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        self.proxy_from.iter().any(|network| network.contains(peer))
    }

    /// Whether something weak is allowed.
    pub fn allows(&self, weak: Weak) -> bool {
        self.allow_weak.contains(&weak)
    }

    /// The newest version that the ClientHello can name: without extensions there is no TLS 1.2.
    pub fn newest(&self) -> Version {
        if self.extensions { self.max_tls } else { self.max_tls.min(Version::Tls1_1) }
    }

    /// The settings of a forwarder that has this target alone.
    #[must_use]
    pub fn to(&self, target: &Target) -> Self {
        Self { target: target.clone().into(), ..self.clone() }
    }

    /// The name that the first target's certificate must carry.
    pub fn verified_name(&self) -> &Host {
        self.server_name.as_ref().unwrap_or(&self.target.first().host)
    }

    /// The longest that a connection to a target may take, all of them being tried.
    pub fn reaching(&self) -> Duration {
        let targets = u32::try_from(self.target.count()).unwrap_or(u32::MAX);
        self.deadlines.connect + self.deadlines.handshake.saturating_mul(targets)
    }

    /// The name sent to the first target in its ClientHello, if any.
    pub fn sni_name(&self) -> Option<&str> {
        match (&self.sni, self.verified_name()) {
            _ if !self.extensions => None,
            (Sni::Off, _) | (Sni::Auto, Host::Address(_)) => None,
            (Sni::Name(name), _) | (Sni::Auto, Host::Name(name)) => Some(name),
        }
    }
}

fn read_versions(reader: &mut Reader<'_>) -> (Version, Version) {
    let min = reader.text("min_tls", outbound_version).unwrap_or(Version::Tls1_0);
    let max = reader.text("max_tls", outbound_version).unwrap_or(Version::Tls1_2);
    if min > max {
        reader.problem("min_tls", format!("{min} is above max_tls, {max}"));
    }
    (min, max)
}

/// Above level 0 OpenSSL offers nothing older than TLS 1.2 (3.2 and later), so a cap below would leave nothing.
fn check_level(reader: &mut Reader<'_>, level: u32, max: Version, extensions: bool) {
    if level == 0 || (max > Version::Tls1_1 && extensions) {
        return;
    }
    let cap = if extensions { format!("max_tls is {max}") } else { "extensions is false".to_owned() };
    reader.problem("security_level", format!("{level} needs TLS 1.2, and {cap}; security_level must be 0"));
}

fn outbound_version(text: &str) -> Result<Version, BadValue> {
    match text.parse()? {
        Version::Tls1_3 => {
            Err(BadValue("TLS 1.3 is never spoken to the target: its hello makes old servers fail".into()))
        }
        version => Ok(version),
    }
}

fn client_version(text: &str) -> Result<Version, BadValue> {
    match text.parse()? {
        version @ (Version::Tls1_2 | Version::Tls1_3) => Ok(version),
        old => Err(BadValue(format!("TLS {old} is not offered to clients: 1.2 or 1.3"))),
    }
}

fn read_trust(reader: &mut Reader<'_>) -> Option<Trust> {
    let ca = reader.text("ca", |text| Ok(PathBuf::from(text)));
    let pins = reader.list("pin", |text| text.parse::<Fingerprint>().map_err(|error| BadValue(error.to_string())));
    let insecure = reader.boolean("insecure").unwrap_or(false);
    let mut accept: Vec<Fault> = reader.list("accept", |text| text.parse());
    accept.sort();
    accept.dedup();
    let chosen = [("ca", ca.is_some()), ("pin", reader.has("pin")), ("insecure", insecure)];
    let chosen: Vec<&str> = chosen.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if let [first, second, ..] = chosen[..] {
        reader.problem(second, format!("contradicts '{first}': a pin, a CA and insecure are each the whole judgement"));
        return None;
    }
    if reader.has("pin") && pins.is_empty() {
        reader.problem("pin", "names no certificate; leave the key out, or pin one".to_owned());
        return None;
    }
    if !accept.is_empty() && (insecure || !pins.is_empty()) {
        reader.problem("accept", format!("has no meaning beside '{}', which looks at no fault", chosen[0]));
    }
    Some(match ca {
        Some(file) => Trust::Ca(file, accept),
        None if !pins.is_empty() => Trust::Pin(pins),
        None if insecure => Trust::Insecure,
        None => Trust::System(accept),
    })
}

/// A certificate and its key, of which neither is of use alone.
fn read_pair(reader: &mut Reader<'_>, cert_key: &'static str, key_key: &'static str) -> Option<(PathBuf, PathBuf)> {
    let cert = reader.text(cert_key, |text| Ok(PathBuf::from(text)));
    let key = reader.text(key_key, |text| Ok(PathBuf::from(text)));
    match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (Some(_), None) => {
            reader.problem(cert_key, format!("has no '{key_key}' beside it"));
            None
        }
        (None, Some(_)) => {
            reader.problem(key_key, format!("has no '{cert_key}' beside it"));
            None
        }
        (None, None) => None,
    }
}

fn read_deadlines(reader: &mut Reader<'_>) -> Deadlines {
    Deadlines {
        hello: bounded(reader, "hello_timeout", 15),
        connect: bounded(reader, "connect_timeout", 10),
        handshake: bounded(reader, "handshake_timeout", 15),
        half_close: bounded(reader, "half_close_timeout", 60),
        linger: bounded(reader, "linger_timeout", 10),
        dead_peer: dead_peer(reader),
        idle: reader.text("idle_timeout", values::duration).filter(|idle| !idle.is_zero()),
        drain: reader.text("drain_timeout", values::duration).unwrap_or(Duration::from_secs(30)),
    }
}

/// TCP's own probes, within the time that a silent peer has; without a word of the admin a part of it.
fn read_keepalive(reader: &mut Reader<'_>, dead_peer: Duration) -> Keepalive {
    let part = |numerator: u32| Duration::from_secs((dead_peer * numerator / 9).as_secs().clamp(1, 32_767));
    let keys = ["keepalive_time", "keepalive_interval", "keepalive_probes"];
    let given = keys.iter().copied().find(|key| reader.has(key));
    let keepalive = Keepalive {
        time: whole_seconds(reader, "keepalive_time").unwrap_or(part(3)),
        interval: whole_seconds(reader, "keepalive_interval").unwrap_or(part(1)),
        probes: reader.number("keepalive_probes", 1..=127).unwrap_or(5),
    };
    let takes = keepalive.time + keepalive.interval * keepalive.probes;
    if let Some(key) = given.filter(|_| takes > dead_peer) {
        let (takes, limit) = (values::duration_text(takes), values::duration_text(dead_peer));
        let sum = "keepalive_time + keepalive_interval x keepalive_probes";
        reader.problem(key, format!("{sum} is {takes}, more than dead_peer_timeout, {limit}"));
    }
    keepalive
}

fn read_limits(reader: &mut Reader<'_>) -> Limits {
    Limits {
        connections: reader.number("max_connections", 1..=MOST).unwrap_or(4000),
        handshakes: reader.number("max_handshakes", 1..=MOST).unwrap_or(1000),
        accept_rate: reader.number("accept_rate", 0..=MOST).filter(|rate| *rate > 0),
    }
}

/// What a limit can be at most; the number of descriptors sets a lower one.
const MOST: u32 = 1_000_000;

/// Within what keepalive, whose shortest time is a second, can tell.
fn dead_peer(reader: &mut Reader<'_>) -> Duration {
    let (least, most) = (Duration::from_secs(9), Duration::from_secs(24 * 3600));
    let given = reader.text("dead_peer_timeout", |text| match values::duration(text)? {
        time if (least..=most).contains(&time) => Ok(time),
        _ => Err(BadValue("must be 9s to 24h".into())),
    });
    given.unwrap_or(Duration::from_secs(90))
}

/// A deadline that can't be switched off.
fn bounded(reader: &mut Reader<'_>, key: &'static str, default: u64) -> Duration {
    let given = reader.text(key, |text| match values::duration(text)? {
        Duration::ZERO => Err(BadValue("can't be off: without it a silent peer would hold its place forever".into())),
        time => Ok(time),
    });
    given.unwrap_or(Duration::from_secs(default))
}

/// A time that the kernel counts in seconds, at most 32767 (tcp(7)).
fn whole_seconds(reader: &mut Reader<'_>, key: &'static str) -> Option<Duration> {
    reader.text(key, |text| {
        let time = values::duration(text)?;
        let fits = time.subsec_millis() == 0 && (1..=32_767).contains(&time.as_secs());
        if fits { Ok(time) } else { Err(BadValue("must be whole seconds, 1s to 32767s".into())) }
    })
}

fn san(text: &str) -> Result<String, BadValue> {
    let (star, rest) = text.strip_prefix("*.").map_or(("", text), |rest| ("*.", rest));
    match rest.parse::<Host>()? {
        Host::Address(address) if star.is_empty() => Ok(address.to_string()),
        Host::Address(_) => Err(BadValue(format!("'{text}' is not a name"))),
        Host::Name(name) => Ok(format!("{star}{name}")),
    }
}

/// Cipher words that no forwarder may use, whatever else its list says.
const NEVER: &[&str] =
    &["NULL", "ENULL", "ANULL", "EXP", "EXPORT", "ADH", "AECDH", "SSLV2", "ALL", "COMPLEMENTOFALL", "MD2", "LOW"];

/// Takes a list of OpenSSL cipher names; no strength rules, no never-acceptable suites.
///
/// Whether OpenSSL knows the names is seen when the forwarder's context is built, at start.
fn cipher_list(text: &str) -> Result<String, BadValue> {
    let text = text.trim();
    if text.split([':', ',', ' ']).all(str::is_empty) {
        return Err(BadValue("names no cipher; leave the key out for the default".into()));
    }
    for word in text.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        if word.starts_with('@') {
            return Err(BadValue(format!("'{word}': the security level is set by ewsbridge; name ciphers only")));
        }
        let removes = word.starts_with(['!', '-']);
        let upper = word.trim_start_matches(['+', '!', '-']).to_ascii_uppercase();
        let parts: Vec<&str> = upper.split(['+', '-']).collect();
        let is_single_des = parts.contains(&"DES") && !parts.contains(&"CBC3");
        if !removes && (is_single_des || parts.iter().any(|part| NEVER.contains(part))) {
            return Err(BadValue(format!(
                "'{word}' is never used: no encryption, no authentication or export strength"
            )));
        }
        if !word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+!".contains(&byte)) {
            return Err(BadValue(format!("'{}' is not a cipher name", word.escape_default())));
        }
    }
    Ok(text.to_owned())
}

/// The words of a cipher list that ask for a broken cipher: by its own name, or by that of its kind.
///
/// A word that means many ciphers never means a broken one.
pub fn weak_ciphers(list: &str) -> Vec<&str> {
    let is_weak = |word: &&str| {
        let upper = word.to_ascii_uppercase();
        !word.starts_with(['!', '-']) && ["RC4", "3DES", "DES-CBC3"].iter().any(|weak| upper.contains(weak))
    };
    list.split([':', ',', ' ']).filter(is_weak).collect()
}
