//! What kind of cause a failure has, for counting: of a fixed few, where texts are endless.

/// The kind of a cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// No kind of its own.
    #[default]
    Other,
    /// The name was not found, or nobody could say.
    Name,
    /// Nothing listens there.
    Refused,
    /// There is no way there, or it is forbidden.
    Unreachable,
    /// A deadline passed.
    Timeout,
    /// The peer ended or tore down the connection.
    Closed,
    /// The peer sent a fatal alert.
    Alert,
    /// Versions, ciphers or messages do not fit.
    Protocol,
    /// Another protocol is spoken there.
    NotTls,
    /// A certificate was refused.
    Certificate,
    /// The PROXY header is missing, bad, or not believed.
    ProxyHeader,
    /// This machine is short of something.
    Shortage,
}

impl Reason {
    /// Its word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Name => "name",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Alert => "alert",
            Self::Protocol => "protocol",
            Self::NotTls => "not_tls",
            Self::Certificate => "certificate",
            Self::ProxyHeader => "proxy_header",
            Self::Shortage => "shortage",
        }
    }
}
