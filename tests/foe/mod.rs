//! Servers that mean harm: what they do is a [`Script`], who meets them is a [`Siege`].
//!
//! They have real keys, so that what they say is wrong only where it is meant to be: a message out of
//! turn still has the right MAC, and a bomb lies in a handshake that would succeed without it.

// The fuzz targets use one part of this, the directed tests another.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod bombs;
mod keys;
mod play;
mod script;
mod siege;
mod vitals;

pub use keys::AES128_SHA;
pub use play::{Owner, Patience, play};
pub use script::{Cut, Script, Step, WORDS, certificates, endless, handshake, message, record};
pub use siege::{DEADLINE, Met, Siege, always};
pub use vitals::Vitals;

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};

/// Repeatable junk.
pub fn junk(seed: usize, length: usize) -> Vec<u8> {
    crate::common::Stream::bytes(seed, length)
}

/// A small certificate of its own making, RSA of so many bits; small keys make many handshakes a second.
pub fn owner(bits: u32) -> Owner {
    let key = PKey::from_rsa(Rsa::generate(bits).expect("RSA")).expect("RSA");
    let mut name = X509NameBuilder::new().expect("a name");
    name.append_entry_by_text("CN", "exchange").expect("a name");
    let name = name.build();
    let mut builder = X509::builder().expect("a certificate");
    builder.set_serial_number(&Asn1Integer::from_bn(&BigNum::from_u32(1).expect("1")).expect("1")).expect("1");
    builder.set_subject_name(&name).expect("a name");
    builder.set_issuer_name(&name).expect("a name");
    builder.set_pubkey(&key).expect("a key");
    builder.set_not_before(&Asn1Time::days_from_now(0).expect("a date")).expect("a date");
    builder.set_not_after(&Asn1Time::days_from_now(30).expect("a date")).expect("a date");
    let digest = if bits < 768 { MessageDigest::sha1() } else { MessageDigest::sha256() };
    builder.sign(&key, digest).expect("a signature");
    Owner { certificate: builder.build().to_der().expect("DER"), key }
}
