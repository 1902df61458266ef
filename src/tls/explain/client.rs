//! A client that did not come through its handshake: scanners, old programs, distrust.

use std::net::IpAddr;

use rustls::{AlertDescription, PeerIncompatible};

use super::{Cure, Explained, Reason, client_certificate};
use crate::config::Settings;
use crate::config::values::Version;
use crate::leg::proxy::Malformed;
use crate::tls::inbound::Error;

/// Explains what a client did or said. Without a cure it is the client's own business, or a scanner's.
pub fn explain(error: &Error, settings: &Settings) -> Explained {
    let with_code = |cause: &str| format!("{cause} (rustls {error})");
    let explained = match error {
        Error::TooOld => Explained::cured("it speaks nothing newer than TLS 1.1", newer()),
        Error::PlainHttp => {
            let cure = Cure::to_do("let its URL begin with https://");
            Explained { is_foreign: true, ..Explained::cured("it speaks plain HTTP, not TLS", cure) }
        }
        Error::ProxyHeader(malformed) => proxy_header(*malformed),
        Error::Certificate(refused) => client_certificate::explain(refused, settings),
        Error::Tls(rustls::Error::NoCertificatesPresented) => client_certificate::none(settings),
        Error::Tls(rustls::Error::PeerIncompatible(what)) => incompatible(what, &with_code, settings),
        Error::Tls(rustls::Error::AlertReceived(alert)) => alerted(*alert, &with_code, settings),
        Error::Tls(rustls::Error::InvalidMessage(_)) => {
            Explained { is_foreign: true, ..Explained::plain(with_code("what it sent is not TLS")) }
        }
        Error::Tls(_) => Explained::plain(with_code("it breaks the protocol")),
        Error::StrayProxyHeader | Error::ClientCa(_) | Error::Left | Error::Io(_) => {
            Explained::plain(error.to_string())
        }
    };
    explained.counted(reason(error))
}

fn reason(error: &Error) -> Reason {
    match error {
        Error::PlainHttp | Error::Tls(rustls::Error::InvalidMessage(_)) => Reason::NotTls,
        Error::ProxyHeader(_) | Error::StrayProxyHeader => Reason::ProxyHeader,
        Error::Certificate(_) | Error::Tls(rustls::Error::NoCertificatesPresented) => Reason::Certificate,
        Error::Tls(rustls::Error::AlertReceived(_)) => Reason::Alert,
        Error::TooOld | Error::Tls(_) => Reason::Protocol,
        Error::Left | Error::Io(_) => Reason::Closed,
        Error::ClientCa(_) => Reason::Other,
    }
}

/// A client that has gone.
pub fn left(when: &str) -> Explained {
    Explained::plain(format!("it left {when}")).counted(Reason::Closed)
}

/// A client that has not said enough in time.
pub fn silence(limit: &str) -> Explained {
    Explained::plain(format!("not finished within {limit}")).counted(Reason::Timeout)
}

/// A load balancer that does not begin as it must.
fn proxy_header(malformed: Malformed) -> Explained {
    if malformed != Malformed::Missing {
        return Explained::cured(malformed.to_string(), Cure::to_do("let the load balancer send version 1 or 2"));
    }
    let cure = "let the load balancer send it (HAProxy: send-proxy-v2; nginx: proxy_protocol on); clients must not come from a network of proxy_from";
    Explained::cured("it is missing, and proxy_from demands it of this address", Cure::to_do(cure))
}

/// A header from somebody who may not say who the client is, or a second one.
pub fn stray_proxy_header(peer: IpAddr, settings: &Settings) -> Explained {
    if settings.expects_proxy_header(peer) {
        let cure = Cure::to_do("of several load balancers in a row, only the one before this host may send it");
        return Explained::cured("a second one follows the first", cure).counted(Reason::ProxyHeader);
    }
    let cause = "proxy_from does not name this address, so its PROXY header is not believed";
    let known = settings.proxy_from.iter().map(ToString::to_string);
    let all = known.chain([peer.to_string()]).collect::<Vec<_>>().join(",");
    let cure = Cure::one_of([("if it is a load balancer of yours", Cure::set("proxy_from", all))]);
    Explained::cured(cause, cure).counted(Reason::ProxyHeader)
}

fn newer() -> Cure {
    Cure::to_do("the client must speak TLS 1.2 or newer")
}

fn incompatible(what: &PeerIncompatible, with_code: &dyn Fn(&str) -> String, settings: &Settings) -> Explained {
    match what {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
            if settings.client_min_tls == Version::Tls1_3 =>
        {
            let cause = with_code("it speaks nothing newer than TLS 1.2, and client_min_tls is 1.3");
            Explained::cured(cause, Cure::set("client_min_tls", "1.2"))
        }
        PeerIncompatible::NoCipherSuitesInCommon => Explained::cured(
            with_code("it offers no cipher that is still safe: AES-GCM or ChaCha20 with ECDHE"),
            Cure::to_do("allow such a cipher on the client"),
        ),
        PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NamedGroupsExtensionRequired => Explained::cured(
            with_code("it offers no key exchange that is still safe: ECDHE with X25519, P-256 or P-384"),
            Cure::to_do("allow ECDHE with one of these groups on the client"),
        ),
        _ => Explained::cured(with_code("its ClientHello can't be answered"), newer()),
    }
}

fn alerted(alert: AlertDescription, with_code: &dyn Fn(&str) -> String, settings: &Settings) -> Explained {
    match alert {
        AlertDescription::UnknownCA => {
            Explained::cured(with_code("it does not know the authority of our certificate"), Cure::OwnAuthority)
        }
        // Many programs say one of these whatever they dislike.
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            let cure = match settings.foreign {
                Some(_) => Cure::OwnAuthority,
                None => {
                    let names = settings.san.iter().map(String::as_str).chain(["NAME"]).collect::<Vec<_>>().join(",");
                    Cure::one_of([
                        ("if it does not trust our CA", Cure::OwnAuthority),
                        ("if it calls us by a name that our certificate lacks", Cure::set("san", names)),
                    ])
                }
            };
            Explained::cured(with_code("it does not accept our certificate"), cure)
        }
        AlertDescription::CertificateExpired => Explained::cured(
            with_code("our certificate has expired by its clock"),
            Cure::to_do("compare the clocks of both machines (date)"),
        ),
        _ => Explained::plain(with_code("it gave up")),
    }
}
