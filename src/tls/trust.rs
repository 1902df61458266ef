//! How the target's certificate is judged.
//!
//! Certificates are verified at a level of their own (2), however weak the ciphers may be: OpenSSL
//! would otherwise take the cipher level, 0, for both (measured). Each weaker rule is an
//! opt-in of the admin's, and what is refused says which one would accept it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use openssl::hash::MessageDigest;
use openssl::ssl::{SslContextBuilder, SslRef, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags};
use openssl::x509::{X509, X509Ref, X509StoreContextRef, X509VerifyResult};
use time::OffsetDateTime;

use super::certificate::{self, validity};
use super::refusal::{accepts, all_faults, bears, cause_of, common_name_is, fault_of, is_unvouched};
use crate::config::settings::Trust;
use crate::config::values::{Fault, Host};
use crate::config::{Fingerprint, Settings};

/// The security level that chains must have: 112 bits, so no SHA-1, no MD5, no RSA below 2048.
const LEVEL: i32 = 2;

/// Where systems keep the authorities they trust, one PEM file each.
pub const SYSTEM_PLACES: [&str; 8] = [
    "/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Astra
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL, RED OS, Fedora
    "/etc/pki/tls/certs/ca-bundle.crt",                  // older RHEL
    "/usr/share/ca-certificates/ca-bundle.crt",          // ALT
    "/etc/pki/tls/cert.pem",                             // ALT, RHEL
    "/var/lib/ca-certificates/ca-bundle.pem",            // SUSE
    "/etc/ssl/ca-bundle.pem",                            // older SUSE
    "/etc/ssl/cert.pem",                                 // Alpine
];

/// What can be wrong with the authorities, before any connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This system has no list of authorities.
    #[error("system authorities: none found in {}", SYSTEM_PLACES.join(", "))]
    NoSystemAuthorities,
    /// A file of authorities can't be used.
    #[error(transparent)]
    File(#[from] certificate::Error),
    /// OpenSSL refuses.
    #[error("{0}")]
    OpenSsl(#[from] openssl::error::ErrorStack),
}

/// Why a certificate was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// One cause.
    pub cause: String,
    /// The faults that an admin may accept, all of them; none if one is among them that can't be.
    pub faults: Vec<Fault>,
    /// Whether all that is missing is an authority that vouches for it.
    pub unvouched: bool,
    /// The certificate that the target showed.
    pub leaf: Option<X509>,
}

/// Who vouches for a certificate that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Voucher {
    /// An authority of this system's.
    System,
    /// An authority of this file.
    File(PathBuf),
    /// The admin's pin.
    Pin,
    /// Nobody.
    Nobody,
}

/// Judges certificates for one forwarder.
pub struct Judge {
    rule: Rule,
    name: Host,
}

enum Rule {
    Chain { accept: Arc<[Fault]>, voucher: Voucher },
    Pins(Arc<[Fingerprint]>),
    Anything,
}

/// What a verification leaves behind.
pub type Verdict = Arc<Noted>;

/// A refusal, if there is one.
#[derive(Default)]
pub struct Noted {
    /// What was refused before the chain was known.
    early: OnceLock<Refusal>,
    /// What ended the verification.
    last: OnceLock<Refusal>,
}

impl Noted {
    /// Why the certificate was refused, if it was.
    pub fn get(&self) -> Option<&Refusal> {
        self.last.get().or_else(|| self.early.get())
    }
}

/// When a certificate is accepted: all that has to be asked of it again, since neither it nor its judge
/// changes. Taking it apart each time cost a new connection more than its handshake (measured).
#[derive(Clone, Debug)]
pub(super) struct Term(Option<RangeInclusive<OffsetDateTime>>);

impl Term {
    /// Of a certificate whose dates don't count.
    pub(super) const fn unlimited() -> Self {
        Self(None)
    }

    /// Whether it is accepted at this time.
    pub(super) fn includes(&self, now: OffsetDateTime) -> bool {
        self.0.as_ref().is_none_or(|dates| dates.contains(&now))
    }
}

impl Judge {
    /// Loads the authorities that the settings name into `context`.
    ///
    /// # Errors
    /// A file that is missing, unreadable or without a certificate; a system without authorities.
    pub(super) fn new(settings: &Settings, context: &mut SslContextBuilder) -> Result<Self, Error> {
        context.set_verify(SslVerifyMode::PEER);
        let rule = match &settings.trust {
            Trust::System(accept) => {
                context.set_cert_store(authorities(system_place()?)?.build());
                Rule::Chain { accept: accept.as_slice().into(), voucher: Voucher::System }
            }
            Trust::Ca(file, accept) => {
                context.set_cert_store(authorities(file)?.build());
                Rule::Chain { accept: accept.as_slice().into(), voucher: Voucher::File(file.clone()) }
            }
            Trust::Pin(pins) => Rule::Pins(pins.as_slice().into()),
            Trust::Insecure => Rule::Anything,
        };
        Ok(Self { rule, name: settings.verified_name().clone() })
    }

    /// Who vouches for what this judge accepts.
    pub fn voucher(&self) -> Voucher {
        match &self.rule {
            Rule::Chain { voucher, .. } => voucher.clone(),
            Rule::Pins(_) => Voucher::Pin,
            Rule::Anything => Voucher::Nobody,
        }
    }

    /// Puts the rule in force for one connection.
    pub(super) fn attach(&self, ssl: &mut SslRef) -> Result<Verdict, Error> {
        let verdict = Verdict::default();
        match &self.rule {
            Rule::Anything => ssl.set_verify(SslVerifyMode::NONE),
            Rule::Pins(pins) => {
                let (pins, noted) = (Arc::clone(pins), Arc::clone(&verdict));
                ssl.set_verify_callback(SslVerifyMode::PEER, move |_, context| is_pinned(&pins, context, &noted));
            }
            Rule::Chain { accept, .. } => {
                let param = ssl.param_mut();
                param.set_auth_level(LEVEL);
                param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
                match &self.name {
                    Host::Address(address) => param.set_ip(*address)?,
                    Host::Name(name) => param.set_host(name)?,
                }
                let (accept, name, noted) = (Arc::clone(accept), self.name.clone(), Arc::clone(&verdict));
                ssl.set_verify_callback(SslVerifyMode::PEER, move |ok, context| {
                    may_go_on(ok, &accept, &name, context, &noted)
                });
            }
        }
        Ok(verdict)
    }

    /// How long a certificate stays accepted by pin, or by name and dates; `None`: it is not. For a
    /// session that is to be resumed, whose handshake shows none.
    pub(super) fn term(&self, leaf: &X509Ref) -> Option<Term> {
        match &self.rule {
            Rule::Anything => None,
            Rule::Pins(_) => self.confirm(Some(leaf)).is_ok().then(Term::unlimited),
            Rule::Chain { accept, .. } => {
                let names = accept.contains(&Fault::WrongName)
                    || bears(leaf, &self.name)
                    || matches!(self.name, Host::Address(address) if accept.contains(&Fault::IpInCn) && common_name_is(leaf, address));
                let dates = if accept.contains(&Fault::Expired) { None } else { Some(validity(leaf).ok()?) };
                names.then_some(Term(dates))
            }
        }
    }

    /// Looks again once the handshake is over: nothing is sent to a certificate that is not pinned.
    pub(super) fn confirm(&self, leaf: Option<&X509Ref>) -> Result<(), Refusal> {
        let Rule::Pins(pins) = &self.rule else { return Ok(()) };
        if leaf.is_some_and(|leaf| fingerprint(leaf).is_some_and(|found| pins.contains(&found))) {
            return Ok(());
        }
        Err(not_pinned(leaf))
    }
}

/// A file of authorities. Whatever stands in it is an anchor, also an intermediate or the server's
/// own certificate.
pub(super) fn authorities(file: &Path) -> Result<X509StoreBuilder, Error> {
    let mut store = X509StoreBuilder::new()?;
    for authority in certificate::read_pem_chain(file)? {
        store.add_cert(authority)?;
    }
    store.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    Ok(store)
}

/// The first place on this system that holds authorities.
///
/// # Errors
/// [`Error::NoSystemAuthorities`] if no place does.
pub fn system_place() -> Result<&'static Path, Error> {
    let has_some = |place: &&Path| std::fs::metadata(place).is_ok_and(|file| file.is_file() && file.len() > 0);
    SYSTEM_PLACES.iter().map(Path::new).find(has_some).ok_or(Error::NoSystemAuthorities)
}

/// SHA-256 of a certificate.
pub fn fingerprint(certificate: &X509Ref) -> Option<Fingerprint> {
    let digest = certificate.digest(MessageDigest::sha256()).ok()?;
    <[u8; 32]>::try_from(&*digest).ok().map(Fingerprint)
}

/// The pin is the whole judgement: chain, name and dates are not looked at.
fn is_pinned(pins: &[Fingerprint], context: &mut X509StoreContextRef, verdict: &Verdict) -> bool {
    if context.error_depth() > 0 {
        return true;
    }
    let leaf = context.current_cert();
    if leaf.and_then(fingerprint).is_some_and(|found| pins.contains(&found)) {
        return true;
    }
    let _ = verdict.last.set(not_pinned(leaf));
    false
}

fn not_pinned(leaf: Option<&X509Ref>) -> Refusal {
    let shown = leaf.and_then(fingerprint).map_or_else(|| "none".to_owned(), |found| found.to_string());
    let cause = format!("is not the pinned one; the server shows {shown}");
    Refusal { cause, faults: Vec::new(), unvouched: false, leaf: leaf.map(X509Ref::to_owned) }
}

/// Whether verification may go on: nothing is wrong, or the admin accepts what is.
fn may_go_on(ok: bool, accept: &[Fault], name: &Host, context: &mut X509StoreContextRef, verdict: &Verdict) -> bool {
    let current = context.current_cert();
    let error = context.error();
    let fault = (!ok).then(|| fault_of(error.as_raw(), current, name)).flatten();
    if ok && verdict.get().is_none() {
        return true;
    }
    if fault.is_some_and(|fault| accepts(accept, fault)) {
        // OpenSSL keeps an error that was let pass, and reports it again where another would stand:
        // a missing issuer would look like the weak key that is accepted.
        context.set_error(X509VerifyResult::OK);
        return true;
    }
    let leaf = context.chain().and_then(|chain| chain.get(0)).or(current);
    let is_early = error.as_raw() == openssl_sys::X509_V_ERR_EE_KEY_TOO_SMALL && fault.is_some();
    let complete = context.chain().filter(|_| ok || fault.is_some() && !is_early);
    let refusal = complete.and_then(|chain| all_faults(accept, chain, name));
    let first = || self::refusal(error, current, leaf, name);
    if is_early && verdict.get().is_none() {
        // The server's key is looked at before its chain, of which nothing could be said then. The
        // refusal stands; OpenSSL asks once more for each certificate of the chain, good ones included,
        // and gets its no then.
        let _ = verdict.early.set(first());
        context.set_error(X509VerifyResult::OK);
        return true;
    }
    if ok && refusal.is_none() {
        return false;
    }
    let _ = verdict.last.set(refusal.unwrap_or_else(first));
    false
}

/// What OpenSSL's verification met at a certificate, in words.
pub(super) fn refusal(
    error: X509VerifyResult,
    current: Option<&X509Ref>,
    leaf: Option<&X509Ref>,
    name: &Host,
) -> Refusal {
    let fault = fault_of(error.as_raw(), current, name);
    let cause = cause_of(error, fault, current, leaf, name);
    let leaf = leaf.map(X509Ref::to_owned);
    Refusal { cause, faults: Vec::from_iter(fault), unvouched: is_unvouched(error), leaf }
}
