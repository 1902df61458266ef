//! A forwarder's settings: what they are, how they are read, and where they live on disk.
//!
//! Knows nobody above it: no TLS library, no runtime. A value that exists here has been checked.

pub mod fingerprint;
pub mod name;
pub mod places;

pub use fingerprint::Fingerprint;
pub use name::Name;
pub use places::Places;
