//! Everything that is wrong with a certificate, for somebody who has not decided yet whom to trust.
//!
//! [`super::trust`] judges a connection and stops at what it refuses first. Here one fault is let pass
//! after the other, until nothing is left to find. Opens no connection.

use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509PurposeId, X509Ref, X509StoreContext, X509VerifyResult};

use super::certificate::is_signed_by;
use super::refusal;
use super::trust::{self, Error, Refusal};
use crate::config::values::{Fault, Host};

/// What is let pass by now.
#[derive(Default)]
struct LetPass {
    /// Nobody vouches: the end of what the server sent is taken for an authority.
    authority: bool,
    name: bool,
    dates: bool,
}

/// One look at a chain.
struct Look {
    /// What was refused, and the certificate at which.
    refused: Option<(X509VerifyResult, Option<X509>)>,
    /// The chain as it was built, the server's own certificate first.
    chain: Vec<X509>,
}

/// More rounds than there are things to let pass.
const ROUNDS: usize = 8;

/// All that keeps a chain in DER, the server's own certificate first, from being trusted for a name by this
/// system's authorities; empty if nothing does.
///
/// # Errors
/// This system's authorities or the certificates can't be read, OpenSSL refuses. A system that has none vouches for nobody.
pub fn all(chain: &[Vec<u8>], name: &Host) -> Result<Vec<Refusal>, Error> {
    let chain: Result<Vec<X509>, ErrorStack> = chain.iter().map(|der| X509::from_der(der)).collect();
    let chain = &chain?[..];
    let mut found = Vec::new();
    let mut pass = LetPass::default();
    for _ in 0..ROUNDS {
        let look = look(chain, name, &pass)?;
        let Some((error, current)) = look.refused else {
            found.extend(weaknesses(&look.chain, name, &pass));
            break;
        };
        let refusal = trust::refusal(error, current.as_deref(), chain.first().map(|leaf| &**leaf), name);
        match (refusal.faults.first(), error.as_raw()) {
            _ if refusal.unvouched && !pass.authority => pass.authority = true,
            (Some(Fault::Expired), _) | (_, openssl_sys::X509_V_ERR_CERT_NOT_YET_VALID) => pass.dates = true,
            (Some(Fault::WrongName | Fault::IpInCn), _) => pass.name = true,
            _ => {
                found.push(refusal);
                break;
            }
        }
        found.push(refusal);
    }
    Ok(found)
}

fn look(chain: &[X509], name: &Host, pass: &LetPass) -> Result<Look, Error> {
    let Some(leaf) = chain.first() else { return Ok(Look { refused: None, chain: Vec::new() }) };
    let mut store = match trust::system_place() {
        Ok(place) => trust::authorities(place)?,
        Err(_) => X509StoreBuilder::new()?,
    };
    if pass.authority {
        store.add_cert(last(chain, leaf).clone())?;
    }
    store.set_param(&*param(name, pass)?)?;
    let mut sent = Stack::new()?;
    for certificate in &chain[1..] {
        sent.push(certificate.clone())?;
    }
    let look = X509StoreContext::new()?.init(&store.build(), leaf, &sent, |context| {
        let is_good = context.verify_cert()?;
        let refused = (!is_good).then(|| (context.error(), context.current_cert().map(X509Ref::to_owned)));
        let built = context.chain().map(|chain| chain.iter().map(X509Ref::to_owned).collect());
        Ok(Look { refused, chain: built.unwrap_or_default() })
    })?;
    // What was refused would else be taken for the next connection's failure.
    drop(ErrorStack::get());
    Ok(look)
}

fn param(name: &Host, pass: &LetPass) -> Result<X509VerifyParam, ErrorStack> {
    let mut param = X509VerifyParam::new()?;
    param.set_purpose(X509PurposeId::SSL_SERVER)?;
    // Keys and digests are looked at afterwards, all of them.
    param.set_auth_level(0);
    param.set_flags(X509VerifyFlags::PARTIAL_CHAIN)?;
    if pass.dates {
        param.set_flags(X509VerifyFlags::NO_CHECK_TIME)?;
    }
    param.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
    match name {
        _ if pass.name => {}
        Host::Address(address) => param.set_ip(*address)?,
        Host::Name(name) => param.set_host(name)?,
    }
    Ok(param)
}

/// The certificate at which what the server sent ends.
fn last<'a>(chain: &'a [X509], leaf: &'a X509) -> &'a X509 {
    let mut last = leaf;
    for _ in chain {
        let above = chain.iter().find(|other| *other != last && other.issued(last) == X509VerifyResult::OK);
        match above {
            Some(above) => last = above,
            None => break,
        }
    }
    last
}

/// Keys and signatures that are too weak; the signature of an authority that is trusted counts for nothing.
fn weaknesses(chain: &[X509], name: &Host, pass: &LetPass) -> Vec<Refusal> {
    let leaf = chain.first().map(|leaf| &**leaf);
    let mut found = Vec::new();
    for (depth, certificate) in chain.iter().enumerate() {
        let Ok(key) = certificate.public_key() else { continue };
        let counts = depth + 1 < chain.len() || pass.authority && !is_signed_by(certificate, &key);
        let codes = refusal::weaknesses_at(depth, counts, certificate).into_iter();
        found.extend(codes.map(|code| trust::refusal(refusal::result(code), Some(certificate), leaf, name)));
    }
    found
}
