//! A certificate of the target's that was refused.

use super::{Cure, Explained, Reason};
use crate::config::Settings;
use crate::config::settings::Trust;
use crate::config::values::{Fault, Host};
use crate::tls::certificate::Facts;
use crate::tls::trust::Refusal;

/// Explains a refused certificate; `presented` is the one that the target showed, if it can be read.
pub fn explain(refusal: &Refusal, presented: Option<&Facts>, settings: &Settings) -> Explained {
    Explained::cured(refusal.cause.clone(), cure(refusal, presented, settings)).counted(Reason::Certificate)
}

fn cure(refusal: &Refusal, presented: Option<&Facts>, settings: &Settings) -> Cure {
    let (accepted, in_place_of): (&[Fault], _) = match &settings.trust {
        Trust::Ca(_, accepted) => (accepted, Some("--ca")),
        Trust::System(accepted) => (accepted, (!accepted.is_empty()).then_some("--accept")),
        Trust::Pin(_) => (&[], Some("the other")),
        Trust::Insecure => (&[], None),
    };
    if refusal.faults.is_empty() {
        let pin = presented.map(|facts| facts.fingerprint);
        return Cure::Trust { pin, or_authority: refusal.unvouched, in_place_of };
    }
    // All that is needed, since the value replaces the one before it.
    let mut faults = [accepted, &refusal.faults].concat();
    faults.sort();
    faults.dedup();
    let accept = Cure::Accept(faults);
    match presented.and_then(own_name) {
        // A name that is verified is better than none.
        Some(name) if refusal.faults == [Fault::WrongName] => {
            let its_name = (format!("if {name} is its right name"), Cure::set("server_name", name));
            Cure::OneOf(vec![its_name, ("else".to_owned(), accept)])
        }
        _ => accept,
    }
}

/// A name by which the certificate could be verified.
fn own_name(facts: &Facts) -> Option<String> {
    let is_name = |name: &&String| matches!(name.parse(), Ok(Host::Name(_)));
    facts.names.iter().find(is_name).cloned()
}
