//! The cipher suites that a scan offers: those that a forwarder could use, by number and OpenSSL's name.
//!
//! No export, NULL or anonymous suite: an answer to one would tell nothing that the bridge could use.

use crate::config::values::{Version, Weak};

/// A cipher suite of TLS 1.0 to 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its number on the wire.
    pub number: u16,
    /// OpenSSL's name.
    pub name: &'static str,
}

/// How the keys are agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// The client encrypts a secret for the server's key: no forward secrecy.
    Rsa,
    /// Diffie-Hellman in a group of the server's own.
    Dhe,
    /// On an elliptic curve.
    Ecdhe,
}

impl Suite {
    /// The suite with this number, if it is one that is offered.
    pub fn numbered(number: u16) -> Option<Self> {
        SUITES.iter().copied().find(|suite| suite.number == number)
    }

    /// The suite with this name of OpenSSL's.
    pub fn named(name: &str) -> Option<Self> {
        SUITES.iter().copied().find(|suite| suite.name == name)
    }

    /// How it agrees on keys.
    pub fn agreement(self) -> Agreement {
        match self.name {
            name if name.starts_with("ECDHE-") => Agreement::Ecdhe,
            name if name.starts_with("DHE-") => Agreement::Dhe,
            _ => Agreement::Rsa,
        }
    }

    /// The cipher that is weak in it, whatever the keys: RC4 or 3DES.
    pub fn weak_cipher(self) -> Option<Weak> {
        match self.name {
            name if name.contains("RC4") => Some(Weak::Rc4),
            name if name.contains("DES-CBC3") => Some(Weak::TripleDes),
            _ => None,
        }
    }

    /// Everything that an admin must allow before a forwarder offers it.
    pub fn weak(self) -> Vec<Weak> {
        let dhe = (self.agreement() == Agreement::Dhe).then_some(Weak::Dhe);
        dhe.into_iter().chain(self.weak_cipher()).collect()
    }

    /// Whether a version has it: those of TLS 1.2 name its digest.
    fn belongs_to(self, version: Version) -> bool {
        version >= Version::Tls1_2 || self.name.ends_with("-SHA") || self.name == "RC4-MD5"
    }
}

/// The suites that a hello of this version may offer, in the order in which forwarders offer them.
pub fn offered(version: Version) -> Vec<u16> {
    SUITES.iter().filter(|suite| suite.belongs_to(version)).map(|suite| suite.number).collect()
}

const fn suite(number: u16, name: &'static str) -> Suite {
    Suite { number, name }
}

/// As many of [`SUITES`] stand first and are not weak.
pub const STRONG: usize = 20;

/// In the order of [`crate::tls::offer`].
pub const SUITES: [Suite; 40] = [
    suite(0xc030, "ECDHE-RSA-AES256-GCM-SHA384"),
    suite(0xc02f, "ECDHE-RSA-AES128-GCM-SHA256"),
    suite(0xc02c, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    suite(0xc02b, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    suite(0xc028, "ECDHE-RSA-AES256-SHA384"),
    suite(0xc027, "ECDHE-RSA-AES128-SHA256"),
    suite(0xc014, "ECDHE-RSA-AES256-SHA"),
    suite(0xc013, "ECDHE-RSA-AES128-SHA"),
    suite(0xc024, "ECDHE-ECDSA-AES256-SHA384"),
    suite(0xc023, "ECDHE-ECDSA-AES128-SHA256"),
    suite(0xc00a, "ECDHE-ECDSA-AES256-SHA"),
    suite(0xc009, "ECDHE-ECDSA-AES128-SHA"),
    suite(0x009d, "AES256-GCM-SHA384"),
    suite(0x009c, "AES128-GCM-SHA256"),
    suite(0x003d, "AES256-SHA256"),
    suite(0x003c, "AES128-SHA256"),
    suite(0x0035, "AES256-SHA"),
    suite(0x002f, "AES128-SHA"),
    suite(0xcca8, "ECDHE-RSA-CHACHA20-POLY1305"),
    suite(0xcca9, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    suite(0x009f, "DHE-RSA-AES256-GCM-SHA384"),
    suite(0x009e, "DHE-RSA-AES128-GCM-SHA256"),
    suite(0x006b, "DHE-RSA-AES256-SHA256"),
    suite(0x0067, "DHE-RSA-AES128-SHA256"),
    suite(0x0039, "DHE-RSA-AES256-SHA"),
    suite(0x0033, "DHE-RSA-AES128-SHA"),
    suite(0xccaa, "DHE-RSA-CHACHA20-POLY1305"),
    suite(0x006a, "DHE-DSS-AES256-SHA256"),
    suite(0x0040, "DHE-DSS-AES128-SHA256"),
    suite(0x0038, "DHE-DSS-AES256-SHA"),
    suite(0x0032, "DHE-DSS-AES128-SHA"),
    suite(0xc012, "ECDHE-RSA-DES-CBC3-SHA"),
    suite(0xc008, "ECDHE-ECDSA-DES-CBC3-SHA"),
    suite(0x000a, "DES-CBC3-SHA"),
    suite(0x0016, "DHE-RSA-DES-CBC3-SHA"),
    suite(0x0013, "DHE-DSS-DES-CBC3-SHA"),
    suite(0xc011, "ECDHE-RSA-RC4-SHA"),
    suite(0xc007, "ECDHE-ECDSA-RC4-SHA"),
    suite(0x0005, "RC4-SHA"),
    suite(0x0004, "RC4-MD5"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{library, offer};
    use openssl::ssl::{SslContext, SslMethod};

    #[test]
    fn every_number_is_that_of_the_name_in_openssl_rc4_too() {
        library::load_legacy_provider().unwrap();
        let context = SslContext::builder(SslMethod::tls_client()).unwrap().build();
        let ssl = openssl::ssl::Ssl::new(&context).unwrap();
        for suite in SUITES {
            let known = ssl.bytes_to_cipher_list(&suite.number.to_be_bytes(), false).unwrap().suites;
            assert_eq!(known[0].name(), suite.name);
            assert_eq!(suite.belongs_to(Version::Tls1_1), known[0].version() != "TLSv1.2", "{}", suite.name);
        }
    }

    #[test]
    fn the_strong_ones_are_those_of_an_ordinary_forwarder_in_its_order() {
        let names: Vec<&str> = SUITES[..STRONG].iter().map(|suite| suite.name).collect();
        assert_eq!(names.join(":"), offer::CIPHERS.replace(' ', ""));
        assert!(SUITES[..STRONG].iter().all(|suite| suite.weak_cipher().is_none()));
    }

    #[test]
    fn nothing_is_offered_that_no_forwarder_may_use() {
        let forbidden = ["EXP", "NULL", "ADH", "AECDH", "anon"];
        assert!(SUITES.iter().all(|suite| forbidden.iter().all(|word| !suite.name.contains(word))));
        assert_eq!(offered(Version::Tls1_0).len(), 19);
        assert_eq!(offered(Version::Tls1_2).len(), SUITES.len());
    }
}
