//! A certificate of the target's that was refused.

use super::{Cure, Explained};
use crate::config::Settings;
use crate::config::settings::Trust;
use crate::config::values::Fault;
use crate::tls::certificate::Facts;
use crate::tls::trust::Refusal;

/// Explains a refused certificate; `presented` is the one that the target showed, if it can be read.
pub fn explain(refusal: &Refusal, presented: Option<&Facts>, settings: &Settings) -> Explained {
    Explained::cured(refusal.cause.clone(), cure(refusal, presented, settings))
}

fn cure(refusal: &Refusal, presented: Option<&Facts>, settings: &Settings) -> Cure {
    if refusal.faults.is_empty() {
        return Cure::Trust { pin: presented.map(|facts| facts.fingerprint), or_authority: refusal.unvouched };
    }
    // All that is needed, since the value replaces the one before it.
    let accepted: &[Fault] = match &settings.trust {
        Trust::System(accept) | Trust::Ca(_, accept) => accept,
        Trust::Pin(_) | Trust::Insecure => &[],
    };
    let mut faults = [accepted, &refusal.faults].concat();
    faults.sort();
    faults.dedup();
    Cure::Accept(faults)
}
