//! What a ClientHello to the target offers: versions, ciphers, groups, signatures, options, each explicit.
//!
//! Opens no connection and judges no certificate; [`super::outbound`] and [`super::scan`] do.

use openssl::error::ErrorStack;
use openssl::ssl::{SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode, SslVersion};

use super::{credential, library, trust};
use crate::config::Settings;
use crate::config::settings::weak_ciphers;
use crate::config::values::{Version, Weak};

/// AES, ECDHE before RSA, ChaCha20 for servers that have nothing else; no DHE: Schannel's DHE fails at random against other stacks
/// (KB4557473) and has 1024 bits. Some old servers look at the first 64 suites only.
pub const CIPHERS: &str = "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:\
    ECDHE-RSA-AES256-SHA384:ECDHE-RSA-AES128-SHA256:ECDHE-RSA-AES256-SHA:ECDHE-RSA-AES128-SHA:\
    ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-AES128-SHA:\
    AES256-GCM-SHA384:AES128-GCM-SHA256:AES256-SHA256:AES128-SHA256:AES256-SHA:AES128-SHA:\
    ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-CHACHA20-POLY1305";

/// What Schannel knows stands first; it has no X25519.
pub const GROUPS: &str = "P-256:P-384:P-521:X25519";

/// Diffie-Hellman in the server's own group, where it is allowed.
const DHE: &str = "DHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-SHA256:\
    DHE-RSA-AES128-SHA256:DHE-RSA-AES256-SHA:DHE-RSA-AES128-SHA:DHE-RSA-CHACHA20-POLY1305:\
    DHE-DSS-AES256-SHA256:DHE-DSS-AES128-SHA256:DHE-DSS-AES256-SHA:DHE-DSS-AES128-SHA";
/// Triple DES, where it is allowed.
const TRIPLE_DES: &str = "ECDHE-RSA-DES-CBC3-SHA:ECDHE-ECDSA-DES-CBC3-SHA:DES-CBC3-SHA";
/// Triple DES behind Diffie-Hellman, where both are allowed.
const DHE_TRIPLE_DES: &str = "DHE-RSA-DES-CBC3-SHA:DHE-DSS-DES-CBC3-SHA";
/// RC4, where it is allowed.
const RC4: &str = "ECDHE-RSA-RC4-SHA:ECDHE-ECDSA-RC4-SHA:RC4-SHA:RC4-MD5";

/// SHA-1 stands last, for servers that sign their key exchange with nothing else.
const SIGNATURES: &str = "RSA+SHA256:ECDSA+SHA256:RSA+SHA384:ECDSA+SHA384:RSA+SHA512:ECDSA+SHA512:\
    RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:RSA+SHA1:ECDSA+SHA1";
/// DSA keys, which only a server with Diffie-Hellman can have.
const DSA_SIGNATURES: &str = "DSA+SHA256:DSA+SHA1";

/// What can be wrong with the settings of the target's side, before any connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// OpenSSL knows none of the ciphers.
    #[error("ciphers: '{list}' names none that this OpenSSL has ({version})")]
    Ciphers {
        /// The admin's list.
        list: String,
        /// OpenSSL's version.
        version: String,
    },
    /// RC4 needs OpenSSL's legacy provider.
    #[error("ciphers: {0}")]
    Library(#[from] library::Error),
    /// The authorities can't be loaded.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// The certificate for a target that asks for one can't be used.
    #[error(transparent)]
    Credential(#[from] credential::Error),
    /// OpenSSL refuses a setting.
    #[error("openssl: {0}")]
    OpenSsl(#[from] ErrorStack),
}

/// A context that offers what the settings say; who is trusted is still to be said.
///
/// # Errors
/// Ciphers that OpenSSL doesn't have.
pub(super) fn context(settings: &Settings) -> Result<SslContextBuilder, Error> {
    library::init();
    let is_rc4 = |word: &&str| word.to_ascii_uppercase().contains("RC4");
    let named = settings.ciphers.as_deref().map(weak_ciphers).unwrap_or_default();
    if settings.allows(Weak::Rc4) || named.iter().any(is_rc4) {
        // Before the context is made: that is when it fetches its ciphers.
        library::load_legacy_provider()?;
    }
    let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
    // Certificates have a level of their own.
    context.set_security_level(settings.security_level);
    context.set_min_proto_version(Some(protocol(settings.min_tls)))?;
    context.set_max_proto_version(Some(protocol(settings.newest())))?;
    set_ciphers(&mut context, settings)?;
    context.set_groups_list(GROUPS)?;
    context.set_sigalgs_list(&signatures(settings))?;
    // Whatever a configuration file or a default may have set.
    context.clear_options(SslOptions::all());
    context.set_options(options(settings));
    context.set_mode(
        SslMode::AUTO_RETRY
            | SslMode::ACCEPT_MOVING_WRITE_BUFFER
            | SslMode::ENABLE_PARTIAL_WRITE
            | SslMode::RELEASE_BUFFERS,
    );
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    limit_chain(&mut context);
    Ok(context)
}

fn signatures(settings: &Settings) -> String {
    if settings.allows(Weak::Dhe) { format!("{SIGNATURES}:{DSA_SIGNATURES}") } else { SIGNATURES.to_owned() }
}

/// Pads hellos of 256 to 511 bytes, at which some servers hang (RFC 7685): OpenSSL's
/// `SSL_OP_TLSEXT_PADDING`, for which the crate has no name.
const TLSEXT_PADDING: SslOptions = SslOptions::from_bits_retain(1 << 4);

/// The longest certificate message that is read, in bytes; what is longer ends the handshake. A dozen
/// certificates fit. OpenSSL's own limit of 100 KiB lets a hostile server take several hundred MiB
/// of memory (CVE-2026-35189).
const CHAIN: std::ffi::c_long = 32 << 10;

#[allow(unsafe_code)]
fn limit_chain(context: &mut SslContextBuilder) {
    /// `SSL_CTRL_SET_MAX_CERT_LIST` (ssl.h), for which the crates have no name.
    const SET_MAX_CERT_LIST: std::ffi::c_int = 51;
    // SAFETY: the context is alive, and this control takes a number and no pointer.
    unsafe { openssl_sys::SSL_CTX_ctrl(context.as_ptr(), SET_MAX_CERT_LIST, CHAIN, std::ptr::null_mut()) };
}

fn protocol(version: Version) -> SslVersion {
    match version {
        Version::Tls1_0 => SslVersion::TLS1,
        Version::Tls1_1 => SslVersion::TLS1_1,
        // A TLS 1.3 hello never leaves: it is too long and too new for the servers this is for.
        Version::Tls1_2 | Version::Tls1_3 => SslVersion::TLS1_2,
    }
}

/// Protocol options as the settings say. With no bit of its own, each is off.
fn options(settings: &Settings) -> SslOptions {
    let mut options = SslOptions::NO_COMPRESSION | SslOptions::NO_SSLV3 | TLSEXT_PADDING;
    if settings.allows(Weak::NoRfc5746) {
        options |= LEGACY_SERVER_CONNECT;
    }
    if !settings.empty_fragments {
        options |= SslOptions::DONT_INSERT_EMPTY_FRAGMENTS;
    }
    if !settings.extensions {
        options |= SslOptions::NO_TICKET | NO_EXTENDED_MASTER_SECRET | NO_ENCRYPT_THEN_MAC;
    }
    options
}

/// Connects to a server without RFC 5746, but never renegotiates with it (`SSL_OP_LEGACY_SERVER_CONNECT`).
const LEGACY_SERVER_CONNECT: SslOptions = SslOptions::from_bits_retain(1 << 2);
/// `SSL_OP_NO_EXTENDED_MASTER_SECRET`.
const NO_EXTENDED_MASTER_SECRET: SslOptions = SslOptions::from_bits_retain(1);
/// `SSL_OP_NO_ENCRYPT_THEN_MAC`.
const NO_ENCRYPT_THEN_MAC: SslOptions = SslOptions::from_bits_retain(1 << 19);

fn set_ciphers(context: &mut SslContextBuilder, settings: &Settings) -> Result<(), Error> {
    let list = settings.ciphers.as_deref().unwrap_or(CIPHERS);
    let unknown = |_| Error::Ciphers { list: list.to_owned(), version: library::version() };
    // Broken ones that were named stand last; a word that means many ciphers brings none in.
    let weak = weak_ciphers(list);
    let words = list.split([':', ',', ' ']).filter(|word| !word.is_empty());
    let strong: Vec<&str> = words.filter(|word| !weak.contains(word)).collect();
    let mut words = [strong, vec!["-RC4", "-3DES"]].concat();
    let allowed: [(&[Weak], &str); 4] = [
        (&[Weak::Dhe], DHE),
        (&[Weak::TripleDes], TRIPLE_DES),
        (&[Weak::Dhe, Weak::TripleDes], DHE_TRIPLE_DES),
        (&[Weak::Rc4], RC4),
    ];
    words
        .extend(allowed.iter().filter(|(all, _)| all.iter().all(|weak| settings.allows(*weak))).map(|(_, list)| *list));
    words.extend(weak);
    words.extend(["!aNULL", "!eNULL", "!EXPORT", "!DES", "!LOW"]);
    if !settings.extensions {
        // Curves are agreed on in an extension.
        words.extend(["!kECDHE"]);
    }
    context.set_cipher_list(&words.join(":")).map_err(unknown)
}
