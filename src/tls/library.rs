//! OpenSSL's start: once for the process, without a configuration file, legacy algorithms on demand.
//!
//! Invariant: whoever calls OpenSSL first calls [`init`] before, so that neither `OPENSSL_CONF` nor
//! the distribution's `openssl.cnf` ever decides what a connection may do.

use std::ptr;
use std::sync::{Once, OnceLock};

use openssl::error::ErrorStack;
use openssl::provider::Provider;

/// Why the legacy algorithms can't be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The linked OpenSSL was built without them, or can't find its module.
    #[error("{version}: load the legacy algorithms (RC4, RC2): {cause}")]
    NoLegacyProvider {
        /// What is linked.
        version: String,
        /// OpenSSL's own words.
        cause: String,
    },
}

/// Starts OpenSSL without reading any configuration file; harmless to repeat.
///
/// OpenSSL reads its configuration at the first call of any kind and never again. This first call
/// says "none", and every later one, by whatever crate, finds the question settled.
#[allow(unsafe_code)]
pub fn init() {
    static START: Once = Once::new();
    START.call_once(|| {
        // SAFETY: any thread may call OPENSSL_init_ssl at any time; a null `settings` is allowed.
        unsafe { openssl_sys::OPENSSL_init_ssl(NO_LOAD_CONFIG | openssl_sys::OPENSSL_INIT_NO_ATEXIT, ptr::null()) };
    });
}

/// Makes RC4, RC2 and their like known, beside the usual algorithms, until the process ends.
///
/// Nothing uses them by itself: RC4 suites still have to be named, RC2 is only met in PFX files.
///
/// # Errors
/// [`Error::NoLegacyProvider`] if the linked OpenSSL has none; every call then says so.
pub fn load_legacy_provider() -> Result<(), Error> {
    static LOADED: OnceLock<Result<(), Error>> = OnceLock::new();
    init();
    LOADED.get_or_init(|| load("legacy").and_then(|()| load("default"))).clone()
}

/// Loads a provider for good: OpenSSL drops its built-in choice as soon as one is named, so
/// "default" has to be named as well, and unloading either would break contexts that use it.
fn load(provider: &str) -> Result<(), Error> {
    let failed = |cause: ErrorStack| Error::NoLegacyProvider { version: version(), cause: cause.to_string() };
    Provider::try_load(None, provider, true).map(std::mem::forget).map_err(failed)
}

/// The linked OpenSSL, for example `OpenSSL 3.5.5 27 Jan 2026`.
pub fn version() -> String {
    openssl::version::version().to_owned()
}

/// `OPENSSL_INIT_NO_LOAD_CONFIG` of `openssl/crypto.h`, which the crate doesn't name.
const NO_LOAD_CONFIG: u64 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ssl::{SslContext, SslMethod};

    #[test]
    fn rc4_suites_exist_once_the_legacy_algorithms_are_loaded() {
        load_legacy_provider().unwrap();
        load_legacy_provider().unwrap();
        let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
        context.set_cipher_list("RC4-SHA:@SECLEVEL=0").expect("fails if no suite is left");
        assert!(version().starts_with("OpenSSL 3."), "{}", version());
    }

    #[test]
    #[allow(unsafe_code)]
    fn openssl_of_ours_keeps_tables_for_four_pipelines() {
        /// `SSL_CTRL_SET_MAX_PIPELINES` (ssl.h), for which the crates have no name.
        const SET_MAX_PIPELINES: std::ffi::c_int = 126;
        if option_env!("OPENSSL_NO_VENDOR").is_some() {
            println!("{}, linked from the system, keeps what it keeps", version());
            return;
        }
        let context = SslContext::builder(SslMethod::tls_client()).unwrap();
        // SAFETY: the context is alive, and this control takes a number and no pointer.
        let set =
            |number| unsafe { openssl_sys::SSL_CTX_ctrl(context.as_ptr(), SET_MAX_PIPELINES, number, ptr::null_mut()) };
        assert_eq!(
            (set(4), set(5)),
            (1, 0),
            "see .cargo/perl-for-four-pipelines; if OpenSSL was built before: cargo clean -p openssl-sys"
        );
    }
}
