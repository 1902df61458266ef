//! What a certificate says: the facts an admin compares, and certificates read from files.
//!
//! Judges nothing. A certificate may come from a hostile server, so whatever it says is bounded and
//! escaped here, before it can reach a terminal or a log.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::{fs, io};

use openssl::asn1::{Asn1StringRef, Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKeyRef, Public};
use openssl::x509::{GeneralNameRef, X509, X509NameRef, X509Ref};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use time::OffsetDateTime;

use super::library;
use crate::config::Fingerprint;
use crate::words;

/// What is worth knowing about a certificate. All texts are safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The subject, `CN=EXCH1, O=Corp`; `(empty)` if it has none.
    pub subject: String,
    /// The subject's common name, the most specific if there are several.
    pub common_name: Option<String>,
    /// The issuer, written like the subject.
    pub issuer: String,
    /// The issuer's common name.
    pub issuer_common_name: Option<String>,
    /// The DNS names and IP addresses it is valid for, in its own order.
    pub names: Vec<String>,
    /// The first second of its validity.
    pub not_before: OffsetDateTime,
    /// The last second of its validity.
    pub not_after: OffsetDateTime,
    /// The public key, `RSA 2048` or `ECDSA P-256`.
    pub key: String,
    /// The digest it was signed with, `SHA-256`, `SHA-1`, `MD5`.
    pub signature: String,
    /// SHA-256 of its DER: what a pin compares.
    pub fingerprint: Fingerprint,
    /// SHA-1 of its DER in upper-case hex, as Windows shows it; never a pin.
    pub thumbprint: String,
    /// Whether it is signed by its own key.
    pub self_signed: bool,
}

/// Why a certificate can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("{}: read: {}", path.display(), words::of(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}: read the certificate: none inside{hint}", path.display())]
    None {
        /// The file.
        path: PathBuf,
        /// What is inside instead, if that is known.
        hint: &'static str,
    },
    /// One of the certificates is damaged.
    #[error("{}: read certificate {number}: {cause}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Its place in the file, from 1.
        number: usize,
        /// What is wrong.
        cause: String,
    },
    /// Bytes that are no certificate.
    #[error("certificate: read: {0}")]
    Malformed(#[from] ErrorStack),
    /// A date that no calendar has.
    #[error("certificate: read its dates: out of range")]
    Date,
}

impl Facts {
    /// The facts of a certificate.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::Date`] if OpenSSL could take it apart but not make sense of it.
    pub fn of(certificate: &X509Ref) -> Result<Self, Error> {
        let key = certificate.public_key();
        let sha256 = certificate.digest(MessageDigest::sha256())?;
        Ok(Self {
            subject: name_text(certificate.subject_name()),
            common_name: common_name(certificate.subject_name()),
            issuer: name_text(certificate.issuer_name()),
            issuer_common_name: common_name(certificate.issuer_name()),
            names: certificate.subject_alt_names().iter().flatten().filter_map(alternative_name).collect(),
            not_before: date(certificate.not_before())?,
            not_after: date(certificate.not_after())?,
            key: key.as_ref().map_or_else(|_| "unknown".to_owned(), |key| key_text(key)),
            signature: signature_text(certificate),
            fingerprint: Fingerprint(sha256.as_ref().try_into().map_err(|_| ErrorStack::get())?),
            thumbprint: certificate.digest(MessageDigest::sha1())?.iter().map(|byte| format!("{byte:02X}")).collect(),
            self_signed: key.is_ok_and(|key| is_signed_by(certificate, &key)),
        })
    }

    /// The facts of a certificate in DER.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it isn't one, else as [`Facts::of`].
    pub fn of_der(der: &[u8]) -> Result<Self, Error> {
        library::init();
        Self::of(X509::from_der(der)?.as_ref())
    }

    /// Whole days until it expires; negative once it has.
    pub fn days_left(&self, now: OffsetDateTime) -> i64 {
        (self.not_after - now).whole_seconds().div_euclid(86_400)
    }

    /// Its validity for people: `2019-04-02 to 2024-04-01  (expired 966 days ago)`.
    pub fn lifetime_text(&self, now: OffsetDateTime) -> String {
        let state = match (now < self.not_before, now > self.not_after) {
            (true, _) => "not yet valid".to_owned(),
            (_, true) => format!("expired {} ago", days((now - self.not_after).whole_days())),
            _ => format!("{} left", days(self.days_left(now))),
        };
        format!("{} to {}  ({state})", self.not_before.date(), self.not_after.date())
    }

    /// Its names for people, the first dozen at most: `ews.corp, 10.0.0.5 and 988 more`.
    pub fn names_text(&self) -> String {
        let shown = self.names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.names.len() {
            0 => "none".to_owned(),
            all if all > NAMES_SHOWN => format!("{shown} and {} more", all - NAMES_SHOWN),
            _ => shown,
        }
    }
}

/// Reads the certificates of a file, in its order: PEM with any text around them, or one in DER, as Windows' `.cer`.
///
/// # Errors
/// Each names the file; [`Error::Broken`] also the place in it.
pub fn read_pem_chain(path: &Path) -> Result<Vec<X509>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse_chain(&bytes, path)
}

/// The same for bytes already read; `path` serves the errors.
pub(crate) fn parse_chain(bytes: &[u8], path: &Path) -> Result<Vec<X509>, Error> {
    library::init();
    let broken = |index: usize, cause: String| Error::Broken { path: path.to_owned(), number: index + 1, cause };
    let pem = bytes.windows(11).any(|window| window == b"-----BEGIN ");
    if !pem && bytes.first() == Some(&0x30) {
        return X509::from_der(bytes).map(|one| vec![one]).map_err(|error| broken(0, openssl_cause(&error)));
    }
    let mut chain = Vec::new();
    for (index, item) in CertificateDer::pem_slice_iter(bytes).enumerate() {
        let der = item.map_err(|error| broken(index, pem_cause(&error)))?;
        chain.push(X509::from_der(&der).map_err(|error| broken(index, openssl_cause(&error)))?);
    }
    if chain.is_empty() {
        return Err(Error::None { path: path.to_owned(), hint: what_is_it(bytes) });
    }
    Ok(chain)
}

/// What an admin most likely took for a certificate.
fn what_is_it(bytes: &[u8]) -> &'static str {
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    match bytes {
        [] => ", the file is empty",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ", the file is UTF-16; save it as plain text",
        _ if has("PRIVATE KEY-----") => ", only a private key",
        _ if has("BEGIN CERTIFICATE REQUEST") || has("BEGIN NEW CERTIFICATE REQUEST") => ", only a request for one",
        _ if has("BEGIN PKCS7") => ", but a PKCS #7 bundle; convert it with `openssl pkcs7 -print_certs`",
        _ => "",
    }
}

/// Whether the certificate's signature was made with `key`.
///
/// A "no" leaves an error in OpenSSL's queue of this thread, and the next read on it, of whichever
/// connection, would be taken for failed (SSL_get_error(3)); so the queue is emptied.
pub(crate) fn is_signed_by(certificate: &X509Ref, key: &PKeyRef<Public>) -> bool {
    let is = certificate.verify(key).unwrap_or(false);
    drop(ErrorStack::get());
    is
}

/// OpenSSL's reason, once, with its number.
pub(crate) fn openssl_cause(errors: &ErrorStack) -> String {
    match errors.errors().last() {
        Some(last) => format!("{} (openssl {:08X})", last.reason().unwrap_or("unknown reason"), last.code()),
        None => "OpenSSL gave no reason".to_owned(),
    }
}

/// What is wrong with the PEM text.
pub(crate) fn pem_cause(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "cut off, its END line is missing".to_owned(),
        pem::Error::Base64Decode(_) => "not base64".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is damaged".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A distinguished name in its own order: `CN=EXCH1, O=Corp`.
fn name_text(name: &X509NameRef) -> String {
    let part = |entry: &openssl::x509::X509NameEntryRef| {
        let object = entry.object();
        let key = object.nid().short_name().map_or_else(|_| object.to_string(), str::to_owned);
        format!("{key}={}", string_text(entry.data()))
    };
    let parts: Vec<String> = name.entries().take(NAMES_SHOWN).map(part).collect();
    if parts.is_empty() { "(empty)".to_owned() } else { parts.join(", ") }
}

fn common_name(name: &X509NameRef) -> Option<String> {
    name.entries_by_nid(Nid::COMMONNAME).last().map(|entry| string_text(entry.data()))
}

/// A string of a certificate, NULs included (`good.corp\0.evil`), so that they are seen.
fn string_text(string: &Asn1StringRef) -> String {
    string.to_string().map_or_else(|_| printable(&String::from_utf8_lossy(string.as_slice())), |text| printable(&text))
}

fn alternative_name(name: &GeneralNameRef) -> Option<String> {
    let address = |bytes: &[u8]| match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    };
    name.dnsname().map(printable).or_else(|| name.ipaddress().and_then(address).map(|address| address.to_string()))
}

/// [`words::printable`], cut at [`TEXT_MAX`].
pub(crate) fn printable(text: &str) -> String {
    let mut shown = words::printable(&text.chars().take(TEXT_MAX).collect::<String>());
    if text.chars().nth(TEXT_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// From the first second of a certificate's validity to the last.
pub(super) fn validity(certificate: &X509Ref) -> Result<RangeInclusive<OffsetDateTime>, Error> {
    Ok(date(certificate.not_before())?..=date(certificate.not_after())?)
}

fn date(date: &Asn1TimeRef) -> Result<OffsetDateTime, Error> {
    let since = Asn1Time::from_unix(0)?.diff(date)?;
    let since = time::Duration::days(since.days.into()) + time::Duration::seconds(since.secs.into());
    OffsetDateTime::UNIX_EPOCH.checked_add(since).ok_or(Error::Date)
}

fn key_text(key: &PKeyRef<Public>) -> String {
    match key.id() {
        Id::RSA | Id::RSA_PSS => format!("RSA {}", key.bits()),
        Id::EC => {
            let curve = key.ec_key().ok().and_then(|key| key.group().curve_name());
            match curve {
                Some(Nid::X9_62_PRIME256V1) => "ECDSA P-256".to_owned(),
                Some(Nid::SECP384R1) => "ECDSA P-384".to_owned(),
                Some(Nid::SECP521R1) => "ECDSA P-521".to_owned(),
                Some(other) => format!("ECDSA {}", other.short_name().unwrap_or("unknown curve")),
                None => "ECDSA unknown curve".to_owned(),
            }
        }
        Id::ED25519 => "Ed25519".to_owned(),
        Id::ED448 => "Ed448".to_owned(),
        Id::DSA => format!("DSA {}", key.bits()),
        _ => "unknown".to_owned(),
    }
}

fn signature_text(certificate: &X509Ref) -> String {
    let algorithm = certificate.signature_algorithm().object().nid();
    match algorithm.signature_algorithms().map(|parts| parts.digest) {
        Some(Nid::SHA1) => "SHA-1".to_owned(),
        Some(Nid::SHA224) => "SHA-224".to_owned(),
        Some(Nid::SHA256) => "SHA-256".to_owned(),
        Some(Nid::SHA384) => "SHA-384".to_owned(),
        Some(Nid::SHA512) => "SHA-512".to_owned(),
        // RSASSA-PSS and the Edwards curves: the digest is a parameter or part of the algorithm.
        Some(Nid::UNDEF) | None => algorithm.short_name().unwrap_or("unknown").to_owned(),
        Some(other) => other.short_name().unwrap_or("unknown").to_owned(),
    }
}

fn days(count: i64) -> String {
    if count == 1 { "1 day".to_owned() } else { format!("{count} days") }
}

/// Names shown of a certificate, and parts of a subject; the rest is only counted or left out.
const NAMES_SHOWN: usize = 12;
/// Longest text taken from a certificate, in characters; longer than any DNS name (253). The rest is cut.
const TEXT_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::pkey::PKey;
    use openssl::x509::X509Name;
    use openssl::x509::extension::SubjectAlternativeName;
    use time::macros::datetime;

    /// A self-signed certificate with the given common name and DNS names.
    fn certificate(common_name: &str, names: &[&str], digest: MessageDigest) -> X509 {
        library::init();
        let key = PKey::from_rsa(openssl::rsa::Rsa::generate(1024).unwrap()).unwrap();
        let mut name = X509Name::builder().unwrap();
        if !common_name.is_empty() {
            name.append_entry_by_nid(Nid::COMMONNAME, common_name).unwrap();
        }
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::from_str("20190402000000Z").unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_str("20240401000000Z").unwrap()).unwrap();
        if !names.is_empty() {
            let mut alternative = SubjectAlternativeName::new();
            names.iter().for_each(|name| {
                if name.parse::<IpAddr>().is_ok() {
                    alternative.ip(name)
                } else {
                    alternative.dns(name)
                };
            });
            let extension = alternative.build(&builder.x509v3_context(None, None)).unwrap();
            builder.append_extension(extension).unwrap();
        }
        builder.sign(&key, digest).unwrap();
        builder.build()
    }

    #[test]
    fn a_signature_by_another_key_leaves_no_error_for_the_next_connection() {
        let (one, other) =
            (certificate("EXCH1", &[], MessageDigest::sha256()), certificate("EXCH2", &[], MessageDigest::sha256()));
        assert!(is_signed_by(&one, &one.public_key().unwrap()));
        assert!(!is_signed_by(&one, &other.public_key().unwrap()));
        assert!(ErrorStack::get().errors().is_empty());
    }

    #[test]
    fn an_old_exchange_certificate_is_described_as_openssl_prints_it() {
        let certificate =
            certificate("EXCH1", &["EXCH1", "EXCH1.corp.local", "10.0.0.5", "::1"], MessageDigest::sha1());
        let facts = Facts::of(&certificate).unwrap();
        assert_eq!(facts, Facts::of_der(&certificate.to_der().unwrap()).unwrap());
        assert_eq!((facts.subject.as_str(), facts.common_name.as_deref()), ("CN=EXCH1", Some("EXCH1")));
        assert_eq!((facts.issuer, facts.issuer_common_name.as_deref()), ("CN=EXCH1".to_owned(), Some("EXCH1")));
        assert_eq!(facts.names, ["EXCH1", "EXCH1.corp.local", "10.0.0.5", "::1"]);
        assert_eq!((facts.key.as_str(), facts.signature.as_str(), facts.self_signed), ("RSA 1024", "SHA-1", true));
        assert_eq!(facts.not_before, datetime!(2019-04-02 0:00 UTC));
        let sha256 = openssl::hash::hash(MessageDigest::sha256(), &certificate.to_der().unwrap()).unwrap();
        assert_eq!(facts.fingerprint.0, *sha256);
        assert_eq!((facts.thumbprint.len(), facts.thumbprint.to_uppercase()), (40, facts.thumbprint));
    }

    #[test]
    fn the_lifetime_says_how_long_it_lasts_or_since_when_it_is_over() {
        let facts = Facts::of(&certificate("a", &[], MessageDigest::md5())).unwrap();
        assert_eq!(facts.signature, "MD5");
        let text = |now| facts.lifetime_text(now);
        assert_eq!(text(datetime!(2026-11-23 12:00 UTC)), "2019-04-02 to 2024-04-01  (expired 966 days ago)");
        assert_eq!(text(datetime!(2024-03-30 12:00 UTC)), "2019-04-02 to 2024-04-01  (1 day left)");
        assert_eq!(text(datetime!(2019-04-01 12:00 UTC)), "2019-04-02 to 2024-04-01  (not yet valid)");
        assert_eq!(facts.days_left(datetime!(2024-04-01 0:00 UTC)), 0);
        assert_eq!(facts.days_left(datetime!(2024-04-01 0:00:01 UTC)), -1);
    }

    #[test]
    fn a_hostile_name_reaches_nobody_s_terminal_unescaped() {
        let hostile = "good.corp\u{1b}[2J\u{202e}\n\r";
        let facts = Facts::of(&certificate(hostile, &[], MessageDigest::sha256())).unwrap();
        assert_eq!(facts.subject, "CN=good.corp\\u{1b}[2J\\u{202e}\\n\\r");
        let facts = Facts::of(&certificate("good.corp\0.evil", &[], MessageDigest::sha256())).unwrap();
        assert_eq!(facts.common_name.as_deref(), Some("good.corp\\u{0}.evil"));
        assert_eq!(printable(&"x".repeat(TEXT_MAX)), "x".repeat(TEXT_MAX));
        assert_eq!(printable(&"x".repeat(TEXT_MAX + 1)), format!("{}…", "x".repeat(TEXT_MAX)));
    }

    #[test]
    fn a_thousand_names_are_counted_and_no_name_at_all_is_said() {
        let many: Vec<String> = (0..1000).map(|number| format!("host{number}.corp")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let facts = Facts::of(&certificate("", &many, MessageDigest::sha256())).unwrap();
        assert_eq!((facts.names.len(), facts.subject.as_str(), facts.common_name.as_ref()), (1000, "(empty)", None));
        assert!(facts.names_text().ends_with("host11.corp and 988 more"), "{}", facts.names_text());
        let facts = Facts::of(&certificate("a", &[], MessageDigest::sha256())).unwrap();
        assert_eq!(facts.names_text(), "none");
    }

    #[test]
    fn no_byte_of_a_certificate_can_cause_a_panic() {
        let der = certificate("EXCH1", &["EXCH1", "10.0.0.5"], MessageDigest::sha256()).to_der().unwrap();
        let now = datetime!(2026-11-23 12:00 UTC);
        for index in 0..der.len() {
            for value in [0, 0xff, der[index] ^ 1, der[index] ^ 0x80] {
                let mut broken = der.clone();
                broken[index] = value;
                if let Ok(facts) = Facts::of_der(&broken) {
                    let text = facts.lifetime_text(now) + &facts.names_text() + &facts.subject;
                    assert!(!text.contains(char::is_control), "{text:?}");
                }
            }
            assert!(Facts::of_der(&der[..index]).is_err());
        }
    }

    #[test]
    fn a_file_is_read_as_bundle_with_text_around_or_as_der() {
        let (one, two) =
            (certificate("1", &[], MessageDigest::sha256()), certificate("2", &[], MessageDigest::sha256()));
        let text = |certificate: &X509| String::from_utf8(certificate.to_pem().unwrap()).unwrap();
        let bundle =
            format!("Bag Attributes\n{}\r\nsubject=2\n{}trailer", text(&one), text(&two).replace('\n', "\r\n"));
        let path = Path::new("chain.pem");
        let subjects = |chain: Vec<X509>| chain.iter().map(|one| Facts::of(one).unwrap().subject).collect::<Vec<_>>();
        assert_eq!(subjects(parse_chain(bundle.as_bytes(), path).unwrap()), ["CN=1", "CN=2"]);
        assert_eq!(subjects(parse_chain(&two.to_der().unwrap(), path).unwrap()), ["CN=2"]);
    }

    #[test]
    fn a_file_that_holds_no_certificate_says_what_it_holds() {
        let said = |bytes: &[u8]| parse_chain(bytes, Path::new("x.pem")).unwrap_err().to_string();
        let good = String::from_utf8(certificate("1", &[], MessageDigest::sha256()).to_pem().unwrap()).unwrap();
        assert_eq!(said(b""), "x.pem: read the certificate: none inside, the file is empty");
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(said(key), "x.pem: read the certificate: none inside, only a private key");
        assert!(said(b"\xff\xfe-\0-\0").ends_with("save it as plain text"));
        assert_eq!(said(&good.as_bytes()[..200]), "x.pem: read certificate 1: cut off, its END line is missing");
        let damaged = format!("{good}{}", good.replacen("MII", "***", 1));
        assert_eq!(said(damaged.as_bytes()), "x.pem: read certificate 2: not base64");
        let empty = format!("{good}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(said(empty.as_bytes()).starts_with("x.pem: read certificate 2: "), "{}", said(empty.as_bytes()));
        assert!(said(b"0\x82not DER").starts_with("x.pem: read certificate 1: "));
        let missing = read_pem_chain(Path::new("/nonexistent/x.pem")).unwrap_err();
        assert_eq!(missing.to_string(), "/nonexistent/x.pem: read: no such file or directory");
        assert_eq!(read_pem_chain(Path::new("/")).unwrap_err().to_string(), "/: read: is a directory");
    }
}
