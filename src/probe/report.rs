//! What a scan has found: data alone. `None` is what was not looked at, or can't be known.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::bridge::auto::Switches;
use crate::config::values::{Fault, Sni, Target, Version};
use crate::tls::certificate::Facts;
use crate::tls::reference::Http;
use crate::tls::scan::Key;
use crate::tls::scan::suites::Agreement;

/// Everything about one server.
#[derive(Clone, Debug)]
pub struct Report {
    /// The server as it was named.
    pub target: Target,
    /// The server name that was asked for, if not the target's own.
    pub sni: Sni,
    /// Every address, in the system's order.
    pub addresses: Vec<Address>,
    /// The one that all the rest is about.
    pub address: SocketAddr,
    /// TCP connections made.
    pub connections: usize,
    /// How many were allowed.
    pub most: usize,
    /// From the look-up on.
    pub time: Duration,
    /// TLS 1.3 to 1.0, the newest first.
    pub versions: Vec<(Version, Option<bool>)>,
    /// Cipher suites, newest version first, in the order in which the server chose them.
    pub suites: Vec<Accepted>,
    /// The versions whose suites are all in [`Self::suites`].
    pub complete: Vec<Version>,
    /// Whose order decides.
    pub preference: Option<Preference>,
    /// The certificates as sent, the server's own first.
    pub chain: Vec<Facts>,
    /// Who would trust it, and what keeps others from it.
    pub trust: Trust,
    /// How it behaves.
    pub behaviour: Behaviour,
    /// What a forwarder must be set to; `None` if no handshake came to its end for want of a client certificate.
    pub needs: Option<Needs>,
    /// What HTTP answered; `None` if it was not asked, or nothing came.
    pub http: Option<Http>,
    /// Whether a page was asked for.
    pub is_http_asked: bool,
    /// What was not looked at, since the connections or the time were used up.
    pub skipped: Vec<&'static str>,
    /// Whether it was for want of time.
    pub is_late: bool,
}

/// One address of the server's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// How long TCP took, or why there was none; `None` if it was not tried.
    pub connected: Option<Result<Duration, String>>,
}

/// A cipher suite that the server takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Under this version.
    pub version: Version,
    /// OpenSSL's name.
    pub suite: String,
    /// How keys are agreed on; `None` in TLS 1.3, where the suite does not say.
    pub agreement: Option<Agreement>,
    /// The curve or group, if it was seen.
    pub key: Option<Key>,
    /// What is to be thought of it.
    pub grade: Grade,
    /// Whether a forwarder would use it.
    pub is_used: bool,
}

/// How much a suite protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// As much as its version can.
    Good,
    /// Attacks are known but dear: 3DES, a small group.
    Weak,
    /// None to speak of: RC4.
    Broken,
}

/// Whose order of suites decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// The server's.
    Server,
    /// The client's.
    Client,
}

/// Who vouches for the certificate, by this system's authorities.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Everything that keeps it from being trusted; empty if nothing does.
    pub faults: Vec<Flaw>,
    /// The setting that fits.
    pub setting: Setting,
}

/// One thing wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// What it is.
    pub cause: String,
    /// The fault that `--accept` lets pass, if it is one of those.
    pub fault: Option<Fault>,
    /// Whether all that is missing is an authority.
    pub is_unvouched: bool,
}

/// The setting of trust that fits a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Setting {
    /// None: this system trusts it.
    #[default]
    Nothing,
    /// Accept these faults.
    Accept(Vec<Fault>),
    /// Its authority's file, with these faults accepted; or a pin.
    Authority(Vec<Fault>),
    /// A pin: nothing else would do.
    Pin,
}

/// How the server behaves. `None`: not looked at, or not to be known.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// RFC 5746.
    pub secure_renegotiation: Option<bool>,
    /// RFC 7627.
    pub extended_master_secret: Option<bool>,
    /// Resumption by session ID.
    pub resumes_by_id: Option<bool>,
    /// Resumption by ticket.
    pub resumes_by_ticket: Option<bool>,
    /// Whether it ends with `close_notify`.
    pub close_notify: Option<bool>,
    /// Whether it asks for a client certificate.
    pub client_certificate: Option<Request>,
    /// What it answers to a hello without a server name.
    pub without_name: Option<Named>,
    /// What it answers to a name that it can't know.
    pub other_name: Option<Named>,
    /// Versions whose hello it refuses although it speaks an older one.
    pub version_intolerance: Vec<Version>,
    /// Whether it refuses a hello with extensions.
    pub extension_intolerance: Option<bool>,
    /// Whether it refuses a hello of 256 to 511 bytes.
    pub medium_hello_intolerance: Option<bool>,
    /// Whether it refuses a hello of more than 512 bytes.
    pub long_hello_intolerance: Option<bool>,
}

/// Whether a client certificate is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// It is not asked for.
    No,
    /// It is asked for; the handshake ends well without.
    Optional,
    /// No handshake without.
    Required,
}

/// The answer to a hello with another server name, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// The same certificate.
    Same,
    /// Another one, with this subject.
    Other(String),
    /// None at all.
    Refused,
}

/// What a forwarder to this server must be set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The switches, as `auto` finds them.
    pub switches: Switches,
    /// Whether `auto` could try everything that it wanted to.
    pub is_least: bool,
    /// The version spoken then.
    pub version: &'static str,
    /// The suite used then.
    pub suite: &'static str,
}
