//! Certificates of one run, in files of a folder that goes with it.
//!
//! The front's is ECDSA P-256, as the CA of `ewsbridge` issues it; the target's RSA-2048, as Exchange's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RsaKeySize,
};
use tempfile::TempDir;

/// A certificate of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Certificate {
    /// The CA that clients trust.
    Authority,
    /// What every peer shows its clients, by that CA.
    Front,
    /// The CA that every peer trusts for the target.
    TargetAuthority,
    /// The target's, by that CA.
    Target,
    /// The same name by a CA that no peer trusts.
    Stranger,
}

impl Certificate {
    fn stem(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Front => "front",
            Self::TargetAuthority => "target-authority",
            Self::Target => "target",
            Self::Stranger => "stranger",
        }
    }
}

/// The files.
pub(crate) struct Material {
    folder: TempDir,
}

impl Material {
    /// Makes them all.
    ///
    /// # Errors
    /// If a file can't be written.
    pub(crate) fn new() -> Result<Self> {
        let material = Self { folder: tempfile::Builder::new().prefix("ewsbridge-compare-").tempdir()? };
        let rsa = || KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048);
        let own = material.authority(Certificate::Authority, KeyPair::generate()?)?;
        material.leaf(Certificate::Front, KeyPair::generate()?, &own)?;
        let theirs = material.authority(Certificate::TargetAuthority, rsa()?)?;
        material.leaf(Certificate::Target, rsa()?, &theirs)?;
        let (params, key) = (authority("stranger"), rsa()?);
        material.leaf(Certificate::Stranger, rsa()?, &Issuer::new(params, key))?;
        // HAProxy and socat want both in one file.
        let both = [material.certificate(Certificate::Front), material.key(Certificate::Front)];
        let both = both.iter().map(fs::read_to_string).collect::<std::io::Result<String>>()?;
        fs::write(material.path().join("front-both.pem"), both)?;
        Ok(material)
    }

    /// The folder of all files.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate, PEM.
    pub(crate) fn certificate(&self, which: Certificate) -> PathBuf {
        self.path().join(format!("{}.pem", which.stem()))
    }

    /// Its private key, PEM.
    pub(crate) fn key(&self, which: Certificate) -> PathBuf {
        self.path().join(format!("{}.key", which.stem()))
    }

    fn authority(&self, which: Certificate, key: KeyPair) -> Result<Issuer<'static, KeyPair>> {
        let params = authority(which.stem());
        self.write(which, &params.self_signed(&key)?.pem(), &key)?;
        Ok(Issuer::new(params, key))
    }

    fn leaf(&self, which: Certificate, key: KeyPair, issuer: &Issuer<'static, KeyPair>) -> Result<()> {
        let mut params = CertificateParams::new(["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.is_ca = IsCa::ExplicitNoCa;
        // With RSA key exchange the client encrypts to the target's key.
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        self.write(which, &params.signed_by(&key, issuer)?.pem(), &key)
    }

    fn write(&self, which: Certificate, certificate: &str, key: &KeyPair) -> Result<()> {
        fs::write(self.certificate(which), certificate).context("a certificate")?;
        fs::write(self.key(which), key.serialize_pem()).context("a key")
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}
