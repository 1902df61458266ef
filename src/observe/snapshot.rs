//! How a forwarder stands at one moment: the document that goes through the control socket, and that
//! `status --json` prints. Fields may be added and never change their meaning; `schema` says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::problems::Problem;
use super::tally::Histogram;
use super::tally::target::Standing;
use crate::tls::certificate::Facts;

/// One forwarder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// `running`, or `stopping` once it accepts nobody any more.
    pub state: String,
    /// The process.
    pub process: Process,
    /// When it began to serve.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When its settings were loaded.
    #[serde(with = "time::serde::rfc3339")]
    pub loaded: OffsetDateTime,
    /// Where it listens.
    pub listen: String,
    /// Where the bytes go, as the settings have it.
    pub target: String,
    /// How each target stands.
    pub targets: Vec<Standing>,
    /// The certificate that clients see, and those that the targets showed.
    pub certificates: Vec<Certificate>,
    /// Connections by number and bytes.
    pub sessions: Sessions,
    /// How much moved lately; not known before it has run for a few seconds.
    pub rates: Option<Rates>,
    /// How connections ended, by `tls_out`, `ended_by`, `end`.
    pub ends: Vec<Count>,
    /// Handshakes by `side`, `version`, `suite`, `resumed`.
    pub handshakes: Vec<Count>,
    /// What kept connections from coming about, by `side`, `stage`, `reason`.
    pub failures: Vec<Count>,
    /// Clients turned away, by the setting that did it.
    pub refused: BTreeMap<String, u64>,
    /// When each TLS version was last spoken with the target.
    #[serde(with = "moments")]
    pub last_spoken: BTreeMap<String, OffsetDateTime>,
    /// Times by what took them: `connect`, `outbound` (the target's handshake), `inbound` (from accept to the
    /// end of the client's handshake, with the target's in between), `session`.
    pub durations: BTreeMap<String, Histogram>,
    /// What the settings have that is weak or odd.
    pub warnings: Vec<String>,
    /// The last warnings and errors of the log, the newest first.
    pub problems: Vec<Problem>,
    /// Each open connection, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Vec<Connection>>,
}

/// The process that serves; several forwarders may share one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Version of OpenSSL.
    pub openssl: String,
    /// What it holds in memory.
    pub resident_bytes: Option<u64>,
    /// CPU time since its start.
    pub cpu_seconds: Option<f64>,
}

/// A certificate of either leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// `own` or `target`.
    pub role: String,
    /// The target that showed it, `HOST:PORT`; none for our own.
    pub target: Option<String>,
    /// Whom it is for.
    pub subject: String,
    /// Who made it.
    pub issuer: String,
    /// Its alternative names.
    pub names: Vec<String>,
    /// Until when it is valid.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// SHA-256 of its DER, 64 hex digits.
    pub sha256: String,
    /// Who vouches for the target's: `this system`, a file, `pin`, or nobody.
    pub vouched_by: Option<String>,
}

/// Connections by number and bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// Open, with both handshakes done.
    pub open: u64,
    /// The same by the version spoken with the target.
    pub open_by_version: BTreeMap<String, u64>,
    /// Ended.
    pub done: u64,
    /// From clients to targets, inside TLS.
    pub up_bytes: u64,
    /// From targets to clients.
    pub down_bytes: u64,
}

/// How much moved lately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Over so much time.
    pub over_seconds: f64,
    /// Connections that came about.
    pub sessions_per_second: f64,
    /// From clients to targets.
    pub up_bytes_per_second: f64,
    /// From targets to clients.
    pub down_bytes_per_second: f64,
}

/// How often something came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Count {
    /// What it was.
    #[serde(flatten)]
    pub labels: BTreeMap<String, String>,
    /// How often, since the start.
    pub count: u64,
}

/// One open connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// The client.
    pub client: String,
    /// The load balancer between.
    pub via: Option<String>,
    /// The target's address.
    pub target: Option<String>,
    /// The subject of the client's certificate.
    pub client_cert: Option<String>,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// TLS version with the client.
    pub tls_in: String,
    /// Cipher suite with the client.
    pub suite_in: String,
    /// TLS version with the target.
    pub tls_out: String,
    /// Cipher suite with the target.
    pub suite_out: String,
    /// Whether the target's session was resumed.
    pub resumed: bool,
    /// From client to target.
    pub up_bytes: u64,
    /// From target to client.
    pub down_bytes: u64,
    /// How long both handshakes have been done.
    pub open_seconds: f64,
    /// How long no byte has moved.
    pub idle_seconds: f64,
}

impl Snapshot {
    /// An empty one.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: "running".to_owned(),
            process: Process::default(),
            since: OffsetDateTime::UNIX_EPOCH,
            loaded: OffsetDateTime::UNIX_EPOCH,
            listen: String::new(),
            target: String::new(),
            targets: Vec::new(),
            certificates: Vec::new(),
            sessions: Sessions::default(),
            rates: None,
            ends: Vec::new(),
            handshakes: Vec::new(),
            failures: Vec::new(),
            refused: BTreeMap::new(),
            last_spoken: BTreeMap::new(),
            durations: BTreeMap::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
            connections: None,
        }
    }
}

impl Process {
    /// This one. What the system does not tell is unknown.
    pub fn this() -> Self {
        let fields = std::fs::read_to_string("/proc/self/statm").ok();
        let pages = fields.as_deref().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        let page = page.and_then(|size| u64::try_from(size).ok());
        let cpu = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).ok();
        Self {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            openssl: crate::tls::library::version(),
            resident_bytes: pages.zip(page).map(|(pages, page)| pages * page),
            cpu_seconds: cpu.map(|time| std::time::Duration::from(time).as_secs_f64()),
        }
    }
}

impl Certificate {
    /// What there is to say of it here.
    pub fn of(facts: &Facts, role: &str) -> Self {
        Self {
            role: role.to_owned(),
            target: None,
            subject: facts.subject.clone(),
            issuer: facts.issuer.clone(),
            names: facts.names.clone(),
            not_after: facts.not_after,
            sha256: facts.fingerprint.to_string().trim_start_matches("sha256:").to_owned(),
            vouched_by: None,
        }
    }
}

/// Moments by name, as RFC 3339.
mod moments {
    use std::collections::BTreeMap;

    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    pub(super) fn serialize<S: Serializer>(
        moments: &BTreeMap<String, OffsetDateTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts = moments.iter().map(|(name, at)| at.format(&Rfc3339).map(|text| (name, text)));
        texts.collect::<Result<BTreeMap<_, _>, _>>().map_err(S::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, OffsetDateTime>, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
        let moments = texts.into_iter().map(|(name, text)| OffsetDateTime::parse(&text, &Rfc3339).map(|at| (name, at)));
        moments.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}
