//! A forwarder's settings: every key, its default, and the type that can't hold a bad combination.
//!
//! The table [`KEYS`] is the one place that names keys and defaults: `show`, `set` and the comments
//! of a new file come from it, and README's table is held to it by `tests/docs.rs`.

mod ciphers;
mod keys;
mod read;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::values::{self, Fault, HalfClose, Host, Listen, Network, SendProxy, Sni, Target, TargetEof, Version, Weak};
use super::{Fingerprint, Targets};

pub use ciphers::weak_ciphers;
pub use keys::{FORMAT, KEYS, Key};

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
    /// Where metrics are read by HTTP.
    pub metrics: Option<SocketAddr>,
}

/// The longest that an EWS streaming subscription is silent, and a little more (issue: 31 min).
pub const STREAM_SILENCE: Duration = Duration::from_secs(31 * 60);

impl Settings {
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
