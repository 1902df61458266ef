//! Settings out of what a file or a command line says.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::ciphers::cipher_list;
use super::{Deadlines, Keepalive, Limits, Settings, Trust};
use crate::config::file::Reader;
use crate::config::values::{self, BadValue, Fault, HalfClose, Host, SendProxy, Sni, TargetEof, Version, Weak};
use crate::config::{Fingerprint, Targets};

impl Settings {
    /// Reads every key; what is wrong stays in the reader, which then yields no settings.
    pub(in crate::config) fn read(reader: &mut Reader<'_>) -> Option<Self> {
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
        let metrics = reader.text("metrics", metrics);
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
            metrics,
        })
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

/// Whoever can read metrics learns how much moves, so that a bare port is for this machine alone.
fn metrics(text: &str) -> Result<SocketAddr, BadValue> {
    let bare: Option<u16> = text.parse().ok();
    let address = bare.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).or_else(|| text.parse().ok());
    match address {
        Some(address) if address.port() > 0 => Ok(address),
        _ => Err(BadValue(format!("'{text}' is not [ADDRESS:]PORT; an example: 9101, or 10.20.0.7:9101"))),
    }
}

fn san(text: &str) -> Result<String, BadValue> {
    let (star, rest) = text.strip_prefix("*.").map_or(("", text), |rest| ("*.", rest));
    match rest.parse::<Host>()? {
        Host::Address(address) if star.is_empty() => Ok(address.to_string()),
        Host::Address(_) => Err(BadValue(format!("'{text}' is not a name"))),
        Host::Name(name) => Ok(format!("{star}{name}")),
    }
}
