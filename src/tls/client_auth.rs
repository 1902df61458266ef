//! Certificates that clients must show (`client_ca`), judged by rustls' own rules.
//!
//! A resumed session shows none: it was shown when the session began, and lies in the ticket. So it is
//! judged again, at today's date and by today's authorities.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::certificate::{self, Facts};

/// Why authorities can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read, or holds something else.
    #[error(transparent)]
    File(#[from] certificate::Error),
    /// One of its certificates is none by which rustls could judge.
    #[error("{path}: certificate {number}, {subject}: {cause}")]
    Unusable {
        /// The file.
        path: String,
        /// Its place in the file, from 1.
        number: usize,
        /// Whose it is.
        subject: String,
        /// rustls' words.
        cause: String,
    },
}

/// The authorities by one of whom a client's certificate must be.
#[derive(Clone, Debug)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    verifier: Arc<Noting>,
}

impl Authorities {
    /// Reads a file of authorities, PEM or one in DER.
    ///
    /// # Errors
    /// [`Error`], which names the file.
    pub fn read(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        let mut certificates = Vec::new();
        for (index, authority) in certificate::read_pem_chain(path)?.iter().enumerate() {
            let unusable = |cause: String| Error::Unusable {
                path: path.display().to_string(),
                number: index + 1,
                subject: Facts::of(authority).map_or_else(|_| "?".to_owned(), |facts| facts.subject),
                cause,
            };
            let der = CertificateDer::from(authority.to_der().map_err(|error| unusable(error.to_string()))?);
            roots.add(der.clone()).map_err(|error| unusable(error.to_string()))?;
            certificates.push(der);
        }
        let rules = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider)).build();
        let rules = rules.map_err(|error| Error::Unusable {
            path: path.display().to_string(),
            number: 1,
            subject: "?".to_owned(),
            cause: error.to_string(),
        })?;
        Ok(Self { certificates, verifier: Arc::new(Noting(rules)) })
    }

    /// What rustls asks.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::<Noting>::clone(&self.verifier)
    }

    /// Whether a chain that was shown when a session began would be accepted now.
    pub(super) fn still_accept(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<(), rustls::Error> {
        let Some([leaf, rest @ ..]) = chain else { return Err(rustls::Error::NoCertificatesPresented) };
        self.verifier.verify_client_cert(leaf, rest, UnixTime::now()).map(|_| ())
    }
}

/// Whether they are the same, in whatever file.
impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

/// A certificate that was refused. All texts are safe to print.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why.
    pub why: CertificateError,
    /// What it says, if it can be read.
    pub facts: Option<Box<Facts>>,
}

thread_local! {
    /// rustls calls its verifier within one call of ours and tells only the error.
    static REFUSED: Cell<Option<Box<Facts>>> = const { Cell::new(None) };
}

/// What was refused by the call into rustls that has just failed on this thread.
pub(super) fn refused(why: CertificateError) -> Refused {
    Refused { why, facts: REFUSED.take() }
}

/// rustls' rules, and a note of what they refuse.
#[derive(Debug)]
struct Noting(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Noting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(leaf, intermediates, now);
        REFUSED.set(if verified.is_err() { Facts::of_der(leaf).ok().map(Box::new) } else { None });
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
