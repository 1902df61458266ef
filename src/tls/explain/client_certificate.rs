//! A client that must show a certificate, and shows none, or one that won't do.

use rustls::CertificateError as Why;
use time::OffsetDateTime;

use super::{Cure, Explained};
use crate::config::Settings;
use crate::tls::client_auth::Refused;

/// A client that shows none.
pub(super) fn none(settings: &Settings) -> Explained {
    let cure = format!("give the client a certificate by an authority in {}, and its key", file(settings));
    Explained::cured("it shows no certificate, and client_ca demands one", Cure::to_do(cure))
}

/// Explains what is wrong with the one that it shows.
pub(super) fn explain(refused: &Refused, settings: &Settings) -> Explained {
    let Refused { why, facts } = refused;
    let whose = facts
        .as_ref()
        .map_or_else(|| "its certificate".to_owned(), |facts| format!("its certificate {}", facts.subject));
    match (why, facts) {
        (Why::UnknownIssuer, Some(facts)) => {
            let by = if facts.self_signed { "signed by itself" } else { &format!("by {}", facts.issuer) };
            let cure = format!("if it may connect, add its authority to {}, then reload", file(settings));
            Explained::cured(format!("{whose} is {by}, which client_ca does not hold"), Cure::to_do(cure))
        }
        (Why::BadSignature, Some(facts)) => {
            let cause = format!("{whose} is signed by another key than that of {} in client_ca", facts.issuer);
            let cure = format!("if the authority has a new certificate, add it to {}, then reload", file(settings));
            Explained::cured(cause, Cure::to_do(cure))
        }
        (Why::Expired | Why::ExpiredContext { .. }, Some(facts)) => {
            let what = if facts.not_after < OffsetDateTime::now_utc() {
                format!("expired on {}", facts.not_after.date())
            } else {
                "is by an authority that has expired".to_owned()
            };
            Explained::cured(format!("{whose} {what}"), Cure::to_do("renew it and give the new one to the client"))
        }
        (Why::NotValidYet | Why::NotValidYetContext { .. }, Some(facts)) => {
            let what = if facts.not_before > OffsetDateTime::now_utc() {
                format!("is not valid before {}", facts.not_before.date())
            } else {
                "is by an authority that is not valid yet".to_owned()
            };
            Explained::cured(format!("{whose} {what}"), Cure::to_do("compare the clocks of both machines (date)"))
        }
        (Why::InvalidPurpose | Why::InvalidPurposeContext { .. }, _) => Explained::cured(
            format!("{whose} is not made for clients (extended key usage)"),
            Cure::to_do("let it be issued for client authentication (clientAuth)"),
        ),
        _ => Explained::plain(format!("{whose} can't be accepted (rustls {why})")),
    }
}

fn file(settings: &Settings) -> String {
    settings.client_ca.as_ref().map_or_else(|| "client_ca".to_owned(), |file| file.display().to_string())
}
