//! Pseudo-random bytes that this side and `tests/servers/https.js` make alike.

use openssl::hash::{MessageDigest, hash};
use openssl::sha::Sha256;
use openssl::symm::{Cipher, Crypter, Mode};
use std::fmt::Display;
use std::fmt::Write;

/// An endless stream given by its seed: the key stream of AES-128-CTR, its key the MD5 of the seed.
pub struct Stream(Crypter);

impl Stream {
    pub fn new(seed: impl Display) -> Self {
        let key = hash(MessageDigest::md5(), seed.to_string().as_bytes()).expect("MD5");
        let iv = [0; 16];
        Self(Crypter::new(Cipher::aes_128_ctr(), Mode::Encrypt, &key, Some(&iv)).expect("AES-128-CTR"))
    }

    /// The next bytes.
    pub fn next(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length + 16];
        let written = self.0.update(&vec![0; length], &mut bytes).expect("a stream cipher");
        assert_eq!(written, length);
        bytes.truncate(length);
        bytes
    }

    /// The first bytes of the stream with this seed.
    pub fn bytes(seed: impl Display, length: usize) -> Vec<u8> {
        Self::new(seed).next(length)
    }
}

/// SHA-256 in lower-case digits.
pub fn sha256(bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.finish().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}
