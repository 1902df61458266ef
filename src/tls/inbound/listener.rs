//! What a forwarder serves TLS with: rustls' configuration, made anew as the certificate changes.

use std::sync::{Arc, RwLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ServerConfig;
use rustls::{SupportedProtocolVersion, version};

use super::Error;
use crate::config::Settings;
use crate::config::values::Version;
use crate::tls::certificate::Facts;
use crate::tls::client_auth::Authorities;
use crate::tls::identity::Pair;

/// What every connection of a forwarder shares: configuration, certificate, ticket keys.
pub struct Listener {
    /// Replaced as a whole when the certificate changes; connections keep the one they began with.
    configs: RwLock<Configs>,
    /// Kept over a change of certificate, so that resumption goes on.
    template: Template,
}

#[derive(Clone)]
pub(super) struct Configs {
    /// By whom clients' certificates must be.
    pub(super) authorities: Option<Authorities>,
    pub(super) with_http: Arc<ServerConfig>,
    pub(super) without_alpn: Arc<ServerConfig>,
    /// Of the certificate.
    facts: Arc<Facts>,
}

struct Template {
    provider: Arc<CryptoProvider>,
    authorities: Option<Authorities>,
    versions: &'static [&'static SupportedProtocolVersion],
    ticketer: Arc<dyn rustls::server::ProducesTickets>,
}

static MODERN: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static NEWEST: [&SupportedProtocolVersion; 1] = [&version::TLS13];

impl Listener {
    /// Prepares to serve with this certificate and key.
    ///
    /// # Errors
    /// [`Error::ClientCa`] for authorities that can't be used, [`Error::Tls`] if rustls refuses the pair
    /// or has no randomness for ticket keys.
    pub fn new(pair: Pair, settings: &Settings) -> Result<Self, Error> {
        Self::with(pair, settings, None)
    }

    fn with(pair: Pair, settings: &Settings, old: Option<&Template>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let authorities = settings.client_ca.as_deref().map(|file| Authorities::read(file, &provider)).transpose()?;
        let ticketer = match old.filter(|old| old.authorities == authorities) {
            Some(old) => Arc::clone(&old.ticketer),
            None => aws_lc_rs::Ticketer::new()?,
        };
        let versions: &[_] = if settings.client_min_tls == Version::Tls1_3 { &NEWEST } else { &MODERN };
        let template = Template { provider, authorities, versions, ticketer };
        Ok(Self { configs: RwLock::new(template.configs(pair)?), template })
    }

    /// Prepares to serve with other settings; who has a ticket of ours may still resume, unless clients
    /// are now judged by other authorities.
    ///
    /// # Errors
    /// As [`Listener::new`].
    pub fn successor(&self, pair: Pair, settings: &Settings) -> Result<Self, Error> {
        Self::with(pair, settings, Some(&self.template))
    }

    /// Serves new connections with another certificate; open ones are untouched.
    ///
    /// # Errors
    /// [`Error::Tls`] if rustls refuses the pair; the old one then stays in force.
    pub fn replace(&self, pair: Pair) -> Result<(), Error> {
        let configs = self.template.configs(pair)?;
        *self.configs.write().unwrap_or_else(std::sync::PoisonError::into_inner) = configs;
        Ok(())
    }

    /// The certificate that new connections are served with.
    pub fn facts(&self) -> Arc<Facts> {
        self.configs().facts
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.template.provider)
    }

    pub(super) fn configs(&self) -> Configs {
        self.configs.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Template {
    fn configs(&self, pair: Pair) -> Result<Configs, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_protocol_versions(self.versions)?;
        let builder = match &self.authorities {
            Some(authorities) => builder.with_client_cert_verifier(authorities.verifier()),
            None => builder.with_no_client_auth(),
        };
        let facts = Arc::new(pair.facts);
        let mut config = builder.with_single_cert(pair.chain, pair.key)?;
        // Ours is the better order for TLS 1.2, and scanners mark a server down that has none.
        config.ignore_client_order = true;
        config.ticketer = Arc::clone(&self.ticketer);
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let without_alpn = Arc::new(config.clone());
        // HTTP/1.1 and nothing else: NTLM is unusable over HTTP/2, and the target has none.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Configs { authorities: self.authorities.clone(), with_http: Arc::new(config), without_alpn, facts })
    }
}
