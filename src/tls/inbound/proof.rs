//! A handshake with ourselves, in memory: that a listener's configuration still serves.
//!
//! No socket, no target, no client's rules of trust: only that our certificate, our key and rustls
//! lead a handshake to its end, on the thread that asks.

use std::io;
use std::ops::DerefMut;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::Acceptor;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, DigitallySignedStruct, SideData, SignatureScheme, version,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Listener;

/// The most flights that a handshake can take, session tickets included; TLS 1.3 takes three.
const FLIGHTS: usize = 8;

/// Why a handshake in memory did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unproved {
    /// rustls' words, of either side.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The two wait for each other.
    #[error("it does not come to its end")]
    Endless,
    /// Memory that can't be read or written; it is there to be told apart.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Listener {
    /// Leads one TLS 1.3 handshake with itself: the CPU of both ends, 1.2 ms here; nothing waits.
    ///
    /// Where clients must show a certificate, the proof ends at the point where one would be judged.
    ///
    /// # Errors
    /// [`Unproved`]: no client could come in now.
    pub fn prove(&self) -> Result<(), Unproved> {
        let configs = self.configs();
        let verifier = Arc::new(Any(self.provider()));
        let config = ClientConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let mut client = ClientConnection::new(Arc::new(config), name)?;
        let mut acceptor = Acceptor::default();
        let mut hello = Vec::new();
        client.write_tls(&mut hello)?;
        acceptor.read_tls(&mut hello.as_slice())?;
        let accepted = acceptor.accept().map_err(|(error, _)| error)?.ok_or(Unproved::Endless)?;
        let mut server = accepted.into_connection(configs.without_alpn).map_err(|(error, _)| error)?;
        let wants_certificate = configs.authorities.is_some();
        for _ in 0..FLIGHTS {
            pass(&mut server, &mut client)?;
            match pass(&mut client, &mut server) {
                Err(Unproved::Tls(rustls::Error::NoCertificatesPresented)) if wants_certificate => return Ok(()),
                passed => passed?,
            }
            if !server.is_handshaking() && !client.is_handshaking() {
                return Ok(());
            }
        }
        Err(Unproved::Endless)
    }
}

/// Has `to` read what `from` has to say.
fn pass<A, B>(
    from: &mut impl DerefMut<Target = ConnectionCommon<A>>,
    to: &mut impl DerefMut<Target = ConnectionCommon<B>>,
) -> Result<(), Unproved>
where
    A: SideData,
    B: SideData,
{
    let mut flight = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut flight)?;
    }
    let mut rest = flight.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest)?;
        to.process_new_packets()?;
    }
    Ok(())
}

/// Takes any certificate whose key signs: an expired one is no reason to be restarted.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Draft, Settings};
    use crate::tls::identity;

    fn settings(more: &[(&'static str, &str)]) -> Settings {
        let mut draft = Draft::default();
        draft.set_some("listen", Some("9443".to_owned()));
        draft.set_some("target", Some("ews.corp:443".to_owned()));
        for (key, value) in more {
            draft.set_some(key, Some((*value).to_owned()));
        }
        draft.settings().unwrap()
    }

    fn made() -> identity::ForThisRun {
        identity::for_this_run(&["localhost".to_owned()], time::OffsetDateTime::now_utc()).unwrap()
    }

    #[test]
    fn a_listener_proves_itself_also_where_clients_must_show_a_certificate() {
        let made = made();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &made.authority_pem).unwrap();
        Listener::new(made.pair, &settings(&[])).unwrap().prove().unwrap();
        let with_ca = settings(&[("client_ca", file.path().to_str().unwrap())]);
        Listener::new(self::made().pair, &with_ca).unwrap().prove().unwrap();
    }

    #[test]
    fn an_expired_certificate_is_no_reason_to_be_restarted() {
        let past = time::OffsetDateTime::now_utc() - time::Duration::days(4000);
        let made = identity::for_this_run(&["localhost".to_owned()], past).unwrap();
        Listener::new(made.pair, &settings(&[])).unwrap().prove().unwrap();
    }

    #[test]
    fn a_key_that_does_not_fit_proves_nothing() {
        let (one, mut other) = (made().pair, made().pair);
        other.chain = one.chain;
        // rustls itself may look at that already when the listener is made.
        let proved = Listener::new(other, &settings(&[])).map(|listener| listener.prove());
        assert!(!matches!(proved, Ok(Ok(()))), "{proved:?}");
    }
}
