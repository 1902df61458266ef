//! The local CA: one for the machine, made once, known to the clients that pasted it.
//!
//! Invariant: an existing CA is never replaced, however broken; clients trust exactly that one.

use std::path::{Path, PathBuf};
use std::{fs, io};

use openssl::x509::X509;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use time::{Duration, OffsetDateTime};

use super::files::{self, Content};
use super::{Error, names};
use crate::config::Places;
use crate::tls::certificate::{self, Facts};

/// The local CA with its key.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    facts: Facts,
    issuer: Issuer<'static, KeyPair>,
}

/// A fresh certificate with its key.
pub struct Issued {
    /// The leaf alone: a client has the CA pasted, and a CA that only the server sends proves nothing.
    pub chain_pem: String,
    /// Its key, PKCS #8.
    pub key_pem: String,
}

impl Authority {
    /// Loads the CA, or makes it if there is none at all, and gives back whether it did. `host` goes into a new one's name.
    ///
    /// # Errors
    /// As [`Authority::load`] if one of its files exists, [`Error::Io`] if it can't be written.
    pub fn load_or_create(places: &Places, host: &str, now: OffsetDateTime) -> Result<(Self, bool), Error> {
        match Self::load(places) {
            Err(Error::NoAuthority(_)) => {}
            other => return other.map(|authority| (authority, false)),
        }
        let (certificate, key) = draft(host, now)?;
        files::folder(&places.state, None)?;
        let files = [Content(CERTIFICATE, &certificate, 0o644), Content(KEY, &key, 0o600)];
        // Not made means that another `ewsbridge add` was first: its CA is the one.
        let made = files::fill(&places.authority(), 0o700, None, &files)?;
        Ok((Self::load(places)?, made))
    }

    /// A CA that is written nowhere, with its certificate for the clients.
    pub(super) fn in_memory(host: &str, now: OffsetDateTime) -> Result<(Self, String), Error> {
        let (certificate, key) = draft(host, now)?;
        let folder = PathBuf::from("memory");
        Ok((Self::parse(folder, certificate.as_bytes(), key.into_bytes())?, certificate))
    }

    /// Loads the CA with its key, which only root may.
    ///
    /// # Errors
    /// [`Error::NoAuthority`] if there is none, [`Error::HalfAuthority`] if one file is missing,
    /// [`Error::AuthorityMismatch`] if they don't belong together.
    pub fn load(places: &Places) -> Result<Self, Error> {
        let folder = places.authority();
        let (certificate_path, key_path) = (folder.join(CERTIFICATE), folder.join(KEY));
        let look = || Ok::<_, Error>((read(&certificate_path)?, read(&key_path)?));
        let (certificate, key) = match look()? {
            // The folder may have appeared between the two looks; it appears whole, so the next one tells.
            (None, Some(_)) => look()?,
            found => found,
        };
        let (certificate, key) = match (certificate, key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return Err(Error::NoAuthority(folder)),
            (None, _) => return Err(Error::HalfAuthority { folder, missing: CERTIFICATE }),
            (_, None) => return Err(Error::HalfAuthority { folder, missing: KEY }),
        };
        Self::parse(folder, &certificate, key)
    }

    fn parse(folder: PathBuf, certificate: &[u8], key: Vec<u8>) -> Result<Self, Error> {
        let certificate = first(certificate, &folder.join(CERTIFICATE))?;
        let failed = |cause: String| Error::Key { path: folder.join(KEY), cause };
        let key = String::from_utf8(key).map_err(|_| failed("not a PEM file".to_owned()))?;
        let key = KeyPair::from_pem(&key).map_err(|error| failed(error.to_string()))?;
        let public = certificate.public_key().and_then(|key| key.public_key_to_der());
        if public.map_err(certificate::Error::from)? != key.subject_public_key_info() {
            return Err(Error::AuthorityMismatch(folder));
        }
        let der = certificate.to_der().map_err(certificate::Error::from)?;
        Ok(Self { facts: Facts::of(&certificate)?, issuer: Issuer::from_ca_cert_der(&der.into(), key)?, folder })
    }

    /// The CA's certificate, which clients paste, and its facts; needs no key.
    ///
    /// # Errors
    /// [`Error::NoAuthority`] if there is none, or why it can't be read.
    pub fn certificate(places: &Places) -> Result<(X509, Facts), Error> {
        let path = places.authority().join(CERTIFICATE);
        let certificate = first(&read(&path)?.ok_or_else(|| Error::NoAuthority(places.authority()))?, &path)?;
        let facts = Facts::of(&certificate)?;
        Ok((certificate, facts))
    }

    /// What its certificate says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Issues a certificate for these names and addresses, the first of which becomes its common name.
    ///
    /// It began a day ago, for clients whose clock is late, and lasts 824 days in all: Apple's
    /// systems refuse 826. It never outlives the CA.
    ///
    /// # Errors
    /// [`Error::Name`] or [`Error::NoNames`]; [`Error::AuthorityDates`] if the CA itself isn't valid now.
    pub fn issue(&self, names: &[String], now: OffsetDateTime) -> Result<Issued, Error> {
        if now < self.facts.not_before || now >= self.facts.not_after {
            return Err(Error::AuthorityDates { folder: self.folder.clone(), lifetime: self.facts.lifetime_text(now) });
        }
        let names = names.iter().map(|name| names::normal(name)).collect::<Result<Vec<_>, _>>()?;
        // Longer ones (X.520 allows 64) stay in the list that clients really read.
        let common = names.iter().find(|name| name.len() <= COMMON_NAME_MAX).map_or("ewsbridge", String::as_str);
        let mut leaf = params(common, LEAF_LIFE, now);
        leaf.not_after = leaf.not_after.min(self.facts.not_after);
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        if names.is_empty() {
            return Err(Error::NoNames);
        }
        leaf.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        let key = KeyPair::generate()?;
        Ok(Issued { chain_pem: leaf.signed_by(&key, &self.issuer)?.pem(), key_pem: key.serialize_pem() })
    }
}

/// A new CA's certificate and key.
fn draft(host: &str, now: OffsetDateTime) -> Result<(String, String), Error> {
    let room = COMMON_NAME_MAX - COMMON_NAME.len();
    let host: String = host.chars().filter(char::is_ascii_graphic).take(room).collect();
    let mut authority = params(&format!("{COMMON_NAME}{host}"), LIFE, now);
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok((authority.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// What both kinds share. The serial number is rcgen's: 20 octets, positive, the hash of a fresh public key.
fn params(common_name: &str, life: Duration, now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = now.replace_nanosecond(0).unwrap_or(now) - BACKDATED;
    params.not_after = params.not_before + life;
    params
}

fn first(bytes: &[u8], path: &Path) -> Result<X509, Error> {
    // `parse_chain` gives at least one.
    Ok(certificate::parse_chain(bytes, path)?.swap_remove(0))
}

/// The file's bytes, or nothing if it isn't there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "read", error)),
    }
}

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
/// What every local CA's common name begins with; the host's name follows.
pub(super) const COMMON_NAME: &str = "ewsbridge local CA on ";
/// X.520's upper bound; OpenSSL refuses to print more.
const COMMON_NAME_MAX: usize = 64;
/// The CA's life, 10 years: a new one has to be pasted into every client.
const LIFE: Duration = Duration::days(3652);
/// A leaf's life: below the 825 days that Apple's systems allow.
const LEAF_LIFE: Duration = Duration::days(824);
/// How far back a certificate begins, for clients whose clock is late.
const BACKDATED: Duration = Duration::DAY;
