//! The server's half of TLS_RSA_WITH_AES_128_CBC_SHA, TLS 1.0 to 1.2, written out so that a test may say
//! anything under the right keys (RFC 2246, RFC 4346 and RFC 5246, §5, §6.2.3.2, §6.3 and §8.1).

use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{PKey, Private};
use openssl::rsa::Padding;
use openssl::sign::Signer;
use openssl::symm::{Cipher, Crypter, Mode};

/// The suite's number.
pub const AES128_SHA: u16 = 0x002f;

const BLOCK: usize = 16;
const MAC: usize = 20;

fn hmac(digest: MessageDigest, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = PKey::hmac(key).expect("an HMAC key");
    let mut signer = Signer::new(digest, &key).expect("HMAC");
    parts.iter().for_each(|part| signer.update(part).expect("HMAC"));
    signer.sign_to_vec().expect("HMAC")
}

fn expand(digest: MessageDigest, secret: &[u8], seed: &[u8], length: usize) -> Vec<u8> {
    let (mut out, mut a) = (Vec::new(), seed.to_vec());
    while out.len() < length {
        a = hmac(digest, secret, &[&a]);
        out.extend(hmac(digest, secret, &[&a, seed]));
    }
    out.truncate(length);
    out
}

/// The pseudo-random function of TLS `1.minor - 1`.
pub fn prf(minor: u8, secret: &[u8], label: &[u8], seed: &[u8], length: usize) -> Vec<u8> {
    let seed = [label, seed].concat();
    if minor == 3 {
        return expand(MessageDigest::sha256(), secret, &seed, length);
    }
    // The halves share a byte where the length is odd.
    let half = secret.len().div_ceil(2);
    let md5 = expand(MessageDigest::md5(), &secret[..half], &seed, length);
    let sha1 = expand(MessageDigest::sha1(), &secret[secret.len() - half..], &seed, length);
    md5.iter().zip(sha1).map(|(one, other)| one ^ other).collect()
}

/// What a Finished message says.
pub fn verify_data(minor: u8, master: &[u8], who: &[u8], transcript: &[u8]) -> Vec<u8> {
    let of = |digest| hash(digest, transcript).expect("a digest").to_vec();
    let digest = match minor {
        3 => of(MessageDigest::sha256()),
        _ => [of(MessageDigest::md5()), of(MessageDigest::sha1())].concat(),
    };
    prf(minor, master, who, &digest, 12)
}

/// The master secret from a ClientKeyExchange; from one that can't be decrypted, some other secret.
pub fn master(minor: u8, key: &PKey<Private>, exchange: &[u8], client: &[u8], server: &[u8]) -> Vec<u8> {
    let rsa = key.rsa().expect("an RSA key");
    let mut secret = vec![0; rsa.size() as usize];
    let length = rsa.private_decrypt(exchange.get(2..).unwrap_or_default(), &mut secret, Padding::PKCS1).unwrap_or(0);
    drop(openssl::error::ErrorStack::get());
    let secret = if length == 0 { &[0; 48] } else { &secret[..length] };
    prf(minor, secret, b"master secret", &[client, server].concat(), 48)
}

/// One direction's protection.
pub struct Direction {
    minor: u8,
    mac: Vec<u8>,
    key: Vec<u8>,
    iv: Vec<u8>,
    sequence: u64,
}

/// The directions' keys: what the client writes with, and the server.
pub fn directions(minor: u8, master: &[u8], client: &[u8], server: &[u8]) -> (Direction, Direction) {
    let block = prf(minor, master, b"key expansion", &[server, client].concat(), 2 * (MAC + 2 * BLOCK));
    let (macs, rest) = block.split_at(2 * MAC);
    let (keys, ivs) = rest.split_at(2 * BLOCK);
    let one = |at: usize| Direction {
        minor,
        mac: macs[at * MAC..][..MAC].to_vec(),
        key: keys[at * BLOCK..][..BLOCK].to_vec(),
        iv: ivs[at * BLOCK..][..BLOCK].to_vec(),
        sequence: 0,
    };
    (one(0), one(1))
}

impl Direction {
    /// A record's protected body. From TLS 1.1 on each has an IV of its own, here of zeroes.
    pub fn seal(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
        let head = [&self.sequence.to_be_bytes()[..], &[kind, 3, self.minor], &length].concat();
        self.sequence += 1;
        let mac = hmac(MessageDigest::sha1(), &self.mac, &[&head, payload]);
        let mut text = [payload, &mac].concat();
        let padding = BLOCK - 1 - text.len() % BLOCK;
        text.resize(text.len() + padding + 1, u8::try_from(padding).expect("below 16"));
        if self.minor > 1 {
            text.splice(0..0, [0; BLOCK]);
        }
        self.crypt(Mode::Encrypt, &text)
    }

    /// What a record said. Its MAC is not looked at: the bridge is honest.
    pub fn open(&mut self, body: &[u8]) -> Vec<u8> {
        if body.is_empty() || !body.len().is_multiple_of(BLOCK) {
            return Vec::new();
        }
        let mut text = self.crypt(Mode::Decrypt, body);
        let padding = usize::from(text.last().copied().unwrap_or(0));
        text.truncate(text.len().saturating_sub(padding + 1 + MAC));
        if self.minor > 1 { text.split_off(text.len().min(BLOCK)) } else { text }
    }

    fn crypt(&mut self, mode: Mode, text: &[u8]) -> Vec<u8> {
        let mut crypter = Crypter::new(Cipher::aes_128_cbc(), mode, &self.key, Some(&self.iv)).expect("AES");
        crypter.pad(false);
        let mut out = vec![0; text.len() + BLOCK];
        let length = crypter.update(text, &mut out).expect("whole blocks");
        out.truncate(length);
        if self.minor == 1 {
            // TLS 1.0 chains its records.
            let last = if matches!(mode, Mode::Encrypt) { &out } else { text };
            self.iv = last[last.len() - BLOCK..].to_vec();
        }
        out
    }
}
