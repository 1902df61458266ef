//! How a client is turned away: a fatal alert, and the time to read it.

use std::io;
use std::time::Duration;

use rustls::server::AcceptedAlert;

use super::Error;
use crate::leg::proxy;
use crate::leg::socket::Socket;
use crate::tls::client_auth;

/// How a refused client is told: the alert that takes the ServerHello's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// 40, handshake_failure: the target's fault.
    HandshakeFailure = 40,
    /// 45, certificate_expired: the certificate by which the client began the session that it resumes.
    CertificateExpired = 45,
    /// 49, access_denied: the client may not come from there.
    AccessDenied = 49,
    /// 70, protocol_version: the client is older than TLS 1.2.
    ProtocolVersion = 70,
    /// 80, internal_error: our own.
    InternalError = 80,
}

/// A fatal alert's record in the clear (RFC 8446 §6).
pub(super) fn fatal(alert: Alert) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, alert as u8]
}

/// Whether a ClientHello's version, which is 3.3 from TLS 1.2 on (RFC 8446 §4.1.2), says less.
///
/// rustls looks for signature algorithms first, which such hellos lack, and would answer 40.
fn is_too_old(first: &[u8]) -> bool {
    matches!(first, [22, _, _, _, _, 1, _, _, _, 3, 0..=2])
}

/// Tells the client by an alert, and the caller by an error, why its ClientHello won't do.
pub(super) async fn turned_away(mut socket: Socket, error: rustls::Error, mut alert: AcceptedAlert) -> Error {
    let is_too_old = is_too_old(socket.first_bytes());
    // An alert is a few bytes on a fresh connection: it fits the empty send queue.
    let _ = if is_too_old {
        io::Write::write_all(&mut socket, &fatal(Alert::ProtocolVersion))
    } else {
        alert.write_all(&mut socket)
    };
    linger(&mut socket).await;
    match socket.first_bytes() {
        _ if is_too_old => Error::TooOld,
        first if proxy::begins(first) => Error::StrayProxyHeader,
        first if is_http(first) => Error::PlainHttp,
        _ => Error::Tls(error),
    }
}

/// Whether it begins as a request of HTTP does: a method in capitals, then a space (RFC 9112 §3).
fn is_http(first: &[u8]) -> bool {
    let method = first.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    method > 0 && first.get(method) == Some(&b' ')
}

/// Sends a fatal alert to a client that was sent nothing yet, and closes.
pub async fn refuse(mut socket: Socket, alert: Alert) {
    if io::Write::write_all(&mut socket, &fatal(alert)).is_ok() {
        linger(&mut socket).await;
    }
}

/// The error with what is known of the certificate that was refused by the call that has just failed.
pub(super) fn refusal(error: rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(why) => Error::Certificate(client_auth::refused(why)),
        other => Error::Tls(other),
    }
}

/// Tells a client that the certificate won't do any more by which it began the session that it resumes.
/// A fatal alert ends the session for good (RFC 5246 §7.2).
pub(super) async fn end_of_session(socket: Socket, error: rustls::Error) -> Error {
    refuse(socket, Alert::CertificateExpired).await;
    refusal(error)
}

/// How long a refused client may take to read its alert.
const ALERT_LINGER: Duration = Duration::from_secs(1);

pub(super) async fn linger(socket: &mut Socket) {
    let lingering = std::future::poll_fn(|cx| socket.poll_linger(cx));
    let _ = tokio::time::timeout(ALERT_LINGER, lingering).await;
}
