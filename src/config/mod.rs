//! A forwarder's settings: what they are, how they are read, and where they live on disk.
//!
//! Knows nobody above it: no TLS library, no runtime. A value that exists here has been checked.

pub mod draft;
pub mod file;
pub mod fingerprint;
pub mod name;
pub mod places;
pub mod settings;
pub mod store;
pub mod targets;
pub mod values;

pub use draft::Draft;
pub use fingerprint::Fingerprint;
pub use name::Name;
pub use places::Places;
pub use settings::Settings;
pub use targets::Targets;
