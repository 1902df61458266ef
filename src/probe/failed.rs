//! A server with which no forwarder could speak: what it is, and what to do about it.

use crate::bridge::failure::{Failure, Kind};
use crate::config::values::Version;
use crate::tls::explain::Cure;

use super::plan::Scan;

/// Whether nothing more can be learnt from such a server.
pub(super) fn is_final(failure: &Failure) -> bool {
    failure.stage != "TLS handshake" || failure.kind != Kind::Plain
}

/// A failure that is the last word, with a cure in any case.
pub(super) fn told(failure: Failure) -> Failure {
    // A search that failed is no reason to search.
    let cure = match failure.cure.clone() {
        Some(Cure::Search { otherwise, .. }) => Some(*otherwise),
        cure => cure,
    };
    let otherwise = match (failure.stage, failure.kind) {
        ("connect", _) => "is the server up, and is this its HTTPS port? A firewall in between may refuse too",
        (_, Kind::Silent) => "is this its HTTPS port? A firewall or an overloaded server may swallow the handshake",
        (_, Kind::Foreign) => "name the server's HTTPS port, usually 443",
        _ => "the server's own log says more; on Windows: Event Viewer, System, source Schannel",
    };
    Failure { cure: cure.or_else(|| Some(Cure::Do(otherwise.to_owned()))), ..failure }
}

/// What a handshake failed at that no switch could help; `Ok` if all that is missing is a client certificate.
///
/// # Errors
/// The failure, in better words where the scan has found them.
pub(super) async fn explained(failure: Failure, scan: &mut Scan<'_>) -> Result<(), Failure> {
    let better = |cause: &str, cure: &str| Failure {
        cause: cause.to_owned(),
        cure: Some(Cure::Do(cure.to_owned())),
        ..failure.clone()
    };
    if scan.newest().is_some_and(|(_, flight)| flight.asks) {
        return Ok(());
    }
    if scan.newest().is_none() && scan.speaks(Version::Tls1_3) == Some(true) {
        return Err(better(
            "the server speaks TLS 1.3 only, which ewsbridge does not speak to targets",
            "it needs no bridge: let its clients connect to it directly",
        ));
    }
    if scan.newest().is_none() && scan.is_ssl3().await {
        return Err(better(
            "the server speaks nothing newer than SSL 3, which is broken (RFC 7568) and never used",
            "switch TLS on at the server (Windows: SCHANNEL\\Protocols\\TLS 1.0\\Server, Enabled = 1; then restart it)",
        ));
    }
    Err(told(failure))
}
