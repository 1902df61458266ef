//! What is wrong with a target's certificate: OpenSSL's codes as faults that an admin may accept, and
//! as words.
//!
//! Decides nothing: [`super::trust`] does. [`super::faults`] looks for faults with nobody trusted yet.

use std::ffi::c_int;
use std::net::IpAddr;

use openssl::nid::Nid;
use openssl::stack::StackRef;
use openssl::x509::verify::X509CheckFlags;
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use super::certificate::Facts;
use super::trust::Refusal;
use crate::config::values::{Fault, Host};

/// What the level of [`super::trust`] demands, in bits.
const BITS: u32 = 112;
/// Digests that protect by fewer.
const WEAK_DIGESTS: [Nid; 5] = [Nid::SHA1, Nid::MD5, Nid::MD4, Nid::MD2, Nid::RIPEMD160];

/// Whether a fault is among those that are accepted.
pub(super) fn accepts(accept: &[Fault], fault: Fault) -> bool {
    accept.contains(&fault) || fault == Fault::IpInCn && accept.contains(&Fault::WrongName)
}

/// Everything that is wrong with a complete chain, for the message alone: OpenSSL would tell one fault
/// after another, each once the one before is accepted. `None` if nothing is found.
pub(super) fn all_faults(accept: &[Fault], chain: &StackRef<X509>, name: &Host) -> Option<Refusal> {
    let mut found = Vec::new();
    for (depth, certificate) in chain.iter().enumerate() {
        let is_last = depth + 1 == chain.len();
        found.extend(faults_at(depth, is_last, certificate, name).into_iter().map(|code| (code, certificate)));
    }
    let leaf = chain.get(0);
    let (mut causes, mut faults, mut is_hopeless) = (Vec::new(), Vec::new(), false);
    for (code, certificate) in found {
        let error = result(code);
        let fault = fault_of(code, Some(certificate), name);
        is_hopeless |= fault.is_none();
        if fault.is_some_and(|fault| accepts(accept, fault)) {
            continue;
        }
        faults.extend(fault);
        causes.push(cause_of(error, fault, Some(certificate), leaf, name));
    }
    faults.dedup();
    if is_hopeless {
        faults.clear();
    }
    let leaf = leaf.map(X509Ref::to_owned);
    (!causes.is_empty()).then(|| Refusal { cause: causes.join("; "), faults, unvouched: false, leaf })
}

/// OpenSSL's codes for a key and a signature that are too weak; `counts`: whether anybody looks at the
/// signature, as nobody does at that of what is trusted as such.
pub(super) fn weaknesses_at(depth: usize, counts: bool, certificate: &X509Ref) -> Vec<c_int> {
    let mut found = Vec::new();
    if certificate.public_key().is_ok_and(|key| key.security_bits() < BITS) {
        let weak = (openssl_sys::X509_V_ERR_EE_KEY_TOO_SMALL, openssl_sys::X509_V_ERR_CA_KEY_TOO_SMALL);
        found.push(if depth == 0 { weak.0 } else { weak.1 });
    }
    let digest = certificate.signature_algorithm().object().nid().signature_algorithms().map(|parts| parts.digest);
    if counts && digest.is_some_and(|digest| WEAK_DIGESTS.contains(&digest)) {
        found.push(openssl_sys::X509_V_ERR_CA_MD_TOO_WEAK);
    }
    found
}

/// OpenSSL's codes for what is wrong with one certificate of a chain, in its own order.
fn faults_at(depth: usize, is_last: bool, certificate: &X509Ref, name: &Host) -> Vec<c_int> {
    let mut found = weaknesses_at(depth, !is_last, certificate);
    if depth == 0 && !bears(certificate, name) {
        found.push(match name {
            Host::Name(_) => openssl_sys::X509_V_ERR_HOSTNAME_MISMATCH,
            Host::Address(_) => openssl_sys::X509_V_ERR_IP_ADDRESS_MISMATCH,
        });
    }
    if let Ok(facts) = Facts::of(certificate) {
        let now = time::OffsetDateTime::now_utc();
        found.extend((now > facts.not_after).then_some(openssl_sys::X509_V_ERR_CERT_HAS_EXPIRED));
        found.extend((now < facts.not_before).then_some(openssl_sys::X509_V_ERR_CERT_NOT_YET_VALID));
    }
    found
}

/// One of OpenSSL's own codes, as the crate has it.
#[allow(unsafe_code)]
pub(super) fn result(code: c_int) -> X509VerifyResult {
    // SAFETY: any of OpenSSL's own codes will do, and no other comes here.
    unsafe { X509VerifyResult::from_raw(code) }
}

/// The fault behind OpenSSL's error code, if it is one that can be accepted.
pub(super) fn fault_of(code: c_int, current: Option<&X509Ref>, name: &Host) -> Option<Fault> {
    let current = current?;
    match code {
        openssl_sys::X509_V_ERR_CERT_HAS_EXPIRED => Some(Fault::Expired),
        openssl_sys::X509_V_ERR_HOSTNAME_MISMATCH => Some(Fault::WrongName),
        openssl_sys::X509_V_ERR_IP_ADDRESS_MISMATCH => match name {
            Host::Address(address) if common_name_is(current, *address) => Some(Fault::IpInCn),
            _ => Some(Fault::WrongName),
        },
        openssl_sys::X509_V_ERR_CA_MD_TOO_WEAK => {
            let digest = current.signature_algorithm().object().nid().signature_algorithms()?.digest;
            (digest == Nid::SHA1).then_some(Fault::Sha1)
        }
        openssl_sys::X509_V_ERR_EE_KEY_TOO_SMALL | openssl_sys::X509_V_ERR_CA_KEY_TOO_SMALL => {
            let bits = current.public_key().ok()?.rsa().ok()?.n().num_bits();
            (bits >= 1024).then_some(Fault::Rsa1024)
        }
        _ => None,
    }
}

/// Whether a certificate is made out for a name, by OpenSSL's own rules.
#[allow(unsafe_code)]
pub(super) fn bears(certificate: &X509Ref, name: &Host) -> bool {
    use foreign_types::ForeignTypeRef;
    let flags = X509CheckFlags::NO_PARTIAL_WILDCARDS.bits();
    let octets = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    // SAFETY: the certificate is alive; name and address are given with their lengths, and no copy of
    // the name that matched is asked for.
    let answer = unsafe {
        match name {
            Host::Name(name) => openssl_sys::X509_check_host(
                certificate.as_ptr(),
                name.as_ptr().cast(),
                name.len(),
                flags,
                std::ptr::null_mut(),
            ),
            Host::Address(address) => {
                let octets = octets(address);
                openssl_sys::X509_check_ip(certificate.as_ptr(), octets.as_ptr(), octets.len(), flags)
            }
        }
    };
    answer == 1
}

pub(super) fn common_name_is(certificate: &X509Ref, address: IpAddr) -> bool {
    let mut names = certificate.subject_name().entries_by_nid(Nid::COMMONNAME);
    let is_it = |text: &str| text.parse() == Ok(address);
    names.any(|entry| entry.data().to_string().is_ok_and(|text| is_it(&text)))
}

/// Whether the chain is sound as far as it goes, but nobody here knows its end.
pub(super) fn is_unvouched(error: X509VerifyResult) -> bool {
    matches!(
        error.as_raw(),
        openssl_sys::X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
            | openssl_sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
            | openssl_sys::X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | openssl_sys::X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
            | openssl_sys::X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
    )
}

pub(super) fn cause_of(
    error: X509VerifyResult,
    fault: Option<Fault>,
    current: Option<&X509Ref>,
    leaf: Option<&X509Ref>,
    name: &Host,
) -> String {
    let facts = current.and_then(|certificate| Facts::of(certificate).ok());
    let whose = facts.as_ref().map_or_else(|| "it".to_owned(), |facts| facts.subject.clone());
    let until = facts.as_ref().map_or_else(String::new, |facts| format!(" on {}", facts.not_after.date()));
    match (fault, error.as_raw()) {
        (Some(Fault::Expired), _) => format!("{whose} expired{until}"),
        (Some(Fault::WrongName), _) => {
            let names = leaf.and_then(|leaf| Facts::of(leaf).ok()).map(|facts| facts.names_text());
            format!("it is made out for {}, not for {name}", names.unwrap_or_else(|| "other names".to_owned()))
        }
        (Some(Fault::IpInCn), _) => format!("{name} stands only in its common name, not among its addresses"),
        (Some(Fault::Sha1), _) => format!("{whose} is signed with SHA-1"),
        (Some(Fault::Rsa1024), _) => {
            format!("{whose} has a weak key, {}", facts.map_or_else(|| "RSA below 2048".to_owned(), |facts| facts.key))
        }
        (None, openssl_sys::X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT) => "self-signed, not trusted".to_owned(),
        (None, openssl_sys::X509_V_ERR_EE_KEY_TOO_SMALL | openssl_sys::X509_V_ERR_CA_KEY_TOO_SMALL) => {
            format!("{whose} has a key that can be broken, {}", facts.map_or_else(String::new, |facts| facts.key))
        }
        (None, _) if is_unvouched(error) => {
            let issuer = facts.map_or_else(|| "an unknown authority".to_owned(), |facts| facts.issuer);
            format!("issued by {issuer}, which nothing here trusts")
        }
        (None, openssl_sys::X509_V_ERR_CERT_NOT_YET_VALID) => {
            let from = facts.map_or_else(String::new, |facts| format!(" before {}", facts.not_before.date()));
            format!("{whose} is not valid{from}; is this machine's clock right?")
        }
        (None, openssl_sys::X509_V_ERR_CA_MD_TOO_WEAK) => {
            let digest = facts.map_or_else(|| "a broken digest".to_owned(), |facts| facts.signature);
            format!("{whose} is signed with {digest}, which anybody can forge")
        }
        (None, openssl_sys::X509_V_ERR_INVALID_PURPOSE) => {
            format!("{whose} is not made for servers (extended key usage)")
        }
        (None, openssl_sys::X509_V_ERR_INVALID_CA) => format!("{whose} may not issue certificates (CA:FALSE)"),
        (None, openssl_sys::X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION) => {
            format!("{whose} has a critical extension that OpenSSL does not know")
        }
        (None, code) => format!("{} (openssl verify {code})", error.error_string()),
    }
}
