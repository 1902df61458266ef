//! The floor.
mod relay;

pub(crate) use relay::run;

/// First argument of the program as the plain relay.
pub(crate) const RELAY: &str = "floor-relay";
