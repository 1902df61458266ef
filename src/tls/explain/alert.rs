//! What the target says by an alert, which depends on what was offered and on when it says it.

use super::wire::{its_own_log, no_offer_is_taken};
use super::{Cure, Explained, Seen, Step, offered_versions};
use crate::config::Settings;
use crate::config::values::{Version, Weak};

/// The numbers of alerts (RFC 5246 §7.2, RFC 6066 §9).
mod number {
    pub(super) const HANDSHAKE_FAILURE: i32 = 40;
    pub(super) const NO_CERTIFICATE: i32 = 41;
    pub(super) const BAD_CERTIFICATE: i32 = 42;
    pub(super) const UNSUPPORTED_CERTIFICATE: i32 = 43;
    pub(super) const CERTIFICATE_REVOKED: i32 = 44;
    pub(super) const CERTIFICATE_EXPIRED: i32 = 45;
    pub(super) const CERTIFICATE_UNKNOWN: i32 = 46;
    pub(super) const UNKNOWN_CA: i32 = 48;
    pub(super) const ACCESS_DENIED: i32 = 49;
    pub(super) const PROTOCOL_VERSION: i32 = 70;
    pub(super) const INSUFFICIENT_SECURITY: i32 = 71;
    pub(super) const INTERNAL_ERROR: i32 = 80;
    pub(super) const UNRECOGNIZED_NAME: i32 = 112;
    pub(super) const CERTIFICATE_REQUIRED: i32 = 116;
}

/// Explains a fatal alert of the target's; `code` is OpenSSL's text for it.
pub(super) fn received(alert: i32, code: &str, seen: &Seen<'_>, settings: &Settings) -> Explained {
    let step = seen.step();
    if step == Step::Ours && seen.asked && is_about_certificates(alert) {
        return about_our_certificate(alert, code, settings);
    }
    match alert {
        number::PROTOCOL_VERSION if step == Step::Hello => version(code, settings),
        number::HANDSHAKE_FAILURE | number::INSUFFICIENT_SECURITY if step == Step::Hello => offer(code, seen, settings),
        number::UNRECOGNIZED_NAME => name(code, settings),
        number::INTERNAL_ERROR => {
            let cause = format!("the server reports an error of its own {} ({code})", step.text());
            Explained::cured(cause, Cure::search(settings, its_own_log()))
        }
        _ => {
            let cause = format!("the server gave up {} ({code})", step.text());
            Explained::cured(cause, Cure::search(settings, no_offer_is_taken(seen, settings)))
        }
    }
}

fn is_about_certificates(alert: i32) -> bool {
    matches!(
        alert,
        number::HANDSHAKE_FAILURE
            | number::NO_CERTIFICATE
            | number::BAD_CERTIFICATE
            | number::UNSUPPORTED_CERTIFICATE
            | number::CERTIFICATE_REVOKED
            | number::CERTIFICATE_EXPIRED
            | number::CERTIFICATE_UNKNOWN
            | number::UNKNOWN_CA
            | number::ACCESS_DENIED
            | number::CERTIFICATE_REQUIRED
    )
}

/// The server has asked for a client certificate, and then said what it thinks of the answer.
fn about_our_certificate(alert: i32, code: &str, settings: &Settings) -> Explained {
    let Some((cert, _)) = &settings.credential else { return demanded(&format!(" ({code})")) };
    let why = match alert {
        number::CERTIFICATE_EXPIRED => "it has expired",
        number::CERTIFICATE_REVOKED => "it is revoked",
        number::UNKNOWN_CA => "its authority is not known there",
        number::UNSUPPORTED_CERTIFICATE => "it is of a kind or for a purpose that is not taken there",
        number::ACCESS_DENIED => "its owner is not let in",
        _ => "no reason given",
    };
    let cause = format!("the server refuses the client certificate {}: {why} ({code})", cert.display());
    Explained::cured(cause, another_certificate())
}

/// The connection ended after a client certificate was asked for.
pub(super) fn about_client_certificate(how: &str, settings: &Settings) -> Explained {
    match &settings.credential {
        None => demanded(&format!("; {how}")),
        Some((cert, _)) => {
            let cause = format!("{how}, with the client certificate {}", cert.display());
            Explained::cured(cause, Cure::to_do("the server's own log says whether it refuses that certificate"))
        }
    }
}

fn demanded(how: &str) -> Explained {
    Explained::cured(format!("the server demands a client certificate, and none is set{how}"), another_certificate())
}

/// One that the server's administrator has issued.
fn another_certificate() -> Cure {
    Cure::Set(vec![("auth_cert", "FILE".to_owned()), ("auth_key", "FILE".to_owned())])
}

/// The server takes none of the versions.
fn version(code: &str, settings: &Settings) -> Explained {
    let offered = offered_versions(settings);
    let cause = format!("the server speaks none of {offered} ({code})");
    let newest = settings.newest();
    let otherwise = if newest < Version::Tls1_2 {
        format!("the server may need more than TLS {newest}: allow older versions there")
    } else {
        "the server may speak TLS 1.3 alone: allow TLS 1.2 there, or let clients of TLS 1.3 reach it without this bridge".to_owned()
    };
    Explained::cured(cause, Cure::search(settings, Cure::Do(otherwise)))
}

/// The server takes nothing of the offer: versions, ciphers, curves, signatures or the name.
fn offer(code: &str, seen: &Seen<'_>, settings: &Settings) -> Explained {
    let versions = offered_versions(settings);
    let mut offered = vec![versions.as_str(), settings.ciphers.as_deref().unwrap_or("AES ciphers")];
    offered.extend(settings.allow_weak.iter().filter(|weak| **weak != Weak::NoRfc5746).map(|weak| weak.word()));
    let offered = offered.join(", ");
    let cause =
        format!("the server refused what we offered ({offered}): no version, cipher or name in common ({code})");
    Explained::cured(cause, Cure::search(settings, no_offer_is_taken(seen, settings)))
}

/// The server does not know the site that was named, or wants one to be named.
fn name(code: &str, settings: &Settings) -> Explained {
    match settings.sni_name() {
        Some(name) => Explained::cured(
            format!("the server knows no site named '{name}' ({code})"),
            Cure::one_of([
                ("to send no name", Cure::set("sni", "off")),
                ("to send one that it knows", Cure::set("sni", "NAME")),
            ]),
        ),
        None => Explained::cured(
            format!("the server wants to be told the name of its site, and none was sent ({code})"),
            Cure::set("sni", "NAME"),
        ),
    }
}
