//! What the cryptography alone costs: the primitives that a bridge can't do without, each timed by
//! itself on the CPU clock of this thread, in the same run as the peers.
//!
//! Only the bridge's side is counted. The target's session is resumed, so there is no RSA and no key
//! exchange on that leg. Records are opened as they come; they leave as full as they can, even when
//! they came small.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use foreign_types::ForeignType;
use openssl::cipher::{Cipher, CipherRef};
use openssl::cipher_ctx::CipherCtx;
use openssl::nid::Nid;

use crate::load::FULL_RECORD;
use crate::measure::own_thread_time;

/// Both handshakes of a connection and its two ends; `resumed`: the client resumes its session.
///
/// # Errors
/// If a primitive fails, which would make its time worthless.
pub(crate) fn handshakes(resumed: bool) -> Result<f64> {
    let shared = x25519()? + inbound_schedule()? + outbound_resumed()? + records(&[2, 2])?;
    if resumed {
        // No certificate; the ticket opened, its binder checked, a new ticket.
        return Ok(shared + records(&[100, 52, 250, 200])? + hash(1000)? + expansions(3)? + mac()?);
    }
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| anyhow!("ECDSA key"))?;
    let random = SystemRandom::new();
    let signature = seconds(|| key.sign(&random, &[7; 130]).is_ok())?;
    // EncryptedExtensions, Certificate, CertificateVerify and Finished; the client's Finished; a ticket.
    Ok(shared + signature + records(&[850, 52, 250])? + hash(1500)?)
}

/// Opens and seals as many records of this size as `bytes` are, by AES-128-GCM, sealed full.
///
/// # Errors
/// If a primitive fails.
pub(crate) fn gcm(bytes: u64, record: usize) -> Result<f64> {
    Ok(gcm_open(record)? * count(bytes, record) + gcm_seal(FULL_RECORD)? * count(bytes, FULL_RECORD))
}

/// The same for one record that is not filled up.
///
/// # Errors
/// If a primitive fails.
pub(crate) fn gcm_once(length: usize) -> Result<f64> {
    Ok(gcm_open(length)? + gcm_seal(length)?)
}

/// From TLS 1.1 AES128-SHA to AES-128-GCM, full records.
///
/// # Errors
/// If a primitive fails.
pub(crate) fn cbc_to_gcm(bytes: u64) -> Result<f64> {
    Ok((cbc_open()? + gcm_seal(FULL_RECORD)?) * count(bytes, FULL_RECORD))
}

/// From AES-128-GCM to TLS 1.1 AES128-SHA.
///
/// # Errors
/// If a primitive fails.
pub(crate) fn gcm_to_cbc(bytes: u64) -> Result<f64> {
    Ok((gcm_open(FULL_RECORD)? + cbc_seal()?) * count(bytes, FULL_RECORD))
}

fn count(bytes: u64, record: usize) -> f64 {
    bytes as f64 / record as f64
}

/// CPU seconds of one call: the least of five series of some milliseconds.
fn seconds(mut work: impl FnMut() -> bool) -> Result<f64> {
    ensure!(work(), "a primitive of the floor fails");
    let mut calls = 1_u32;
    let mut series = |calls: u32| {
        let began = own_thread_time();
        let right = (0..calls).fold(true, |right, _| work() & right);
        right.then(|| own_thread_time() - began).context("a primitive of the floor fails")
    };
    while series(calls)? < Duration::from_millis(3) {
        calls *= 2;
    }
    let mut least = series(calls)?;
    for _ in 0..4 {
        least = least.min(series(calls)?);
    }
    Ok(least.as_secs_f64() / f64::from(calls))
}

/// A fresh share and the agreement with the other's.
fn x25519() -> Result<f64> {
    let theirs = PrivateKey::generate(&X25519).and_then(|key| key.compute_public_key());
    let theirs = theirs.map_err(|_| anyhow!("X25519"))?;
    seconds(|| {
        let Ok(own) = PrivateKey::generate(&X25519) else { return false };
        let share = own.compute_public_key().is_ok();
        let theirs = UnparsedPublicKey::new(&X25519, theirs.as_ref());
        share && agree(&own, theirs, (), |secret| Ok(secret[0])).is_ok_and(|byte| black_box(byte) == byte)
    })
}

/// TLS 1.3's key schedule (RFC 8446, 7.1): three extractions, 18 expansions, two MACs, four keys.
fn inbound_schedule() -> Result<f64> {
    let salt = Salt::new(HKDF_SHA256, &[1; 32]);
    let extraction = seconds(|| {
        black_box(salt.extract(black_box(&[2; 32])));
        true
    })?;
    Ok(3.0 * extraction + expansions(18)? + 2.0 * mac()? + 4.0 * key()?)
}

/// TLS 1.2, resumed (RFC 5246, 5 and 8.1): key block and two verify_data by HMAC-SHA256, two keys, two Finished.
fn outbound_resumed() -> Result<f64> {
    Ok(8.0 * mac()? + hash(700)? + 2.0 * key()? + records(&[16, 2])?)
}

fn expansions(count: u32) -> Result<f64> {
    let secret = Salt::new(HKDF_SHA256, &[1; 32]).extract(&[2; 32]);
    let once = seconds(|| {
        let mut key = [0; 32];
        // Label and hash of the transcript, as HKDF-Expand-Label has them.
        let done = secret.expand(&[&[0, 32], &[3; 14], &[4; 33]], HKDF_SHA256).and_then(|okm| okm.fill(&mut key));
        done.is_ok() && black_box(key) == key
    })?;
    Ok(once * f64::from(count))
}

fn mac() -> Result<f64> {
    seconds(|| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, black_box(&[5; 48]));
        black_box(hmac::sign(&key, &[6; 77])).as_ref().len() == 32
    })
}

fn hash(bytes: usize) -> Result<f64> {
    let text = vec![7; bytes];
    seconds(|| black_box(digest(&SHA256, black_box(&text))).as_ref().len() == 32)
}

fn gcm_key() -> Result<LessSafeKey> {
    let unbound = UnboundKey::new(&AES_128_GCM, &[8; 16]).map_err(|_| anyhow!("AES-128-GCM"))?;
    Ok(LessSafeKey::new(unbound))
}

fn key() -> Result<f64> {
    seconds(|| black_box(gcm_key()).is_ok())
}

/// One record of each of these lengths, sealed. Opening costs the same to a few per cent.
fn records(lengths: &[usize]) -> Result<f64> {
    lengths.iter().map(|length| gcm_seal(*length)).sum()
}

fn gcm_seal(length: usize) -> Result<f64> {
    let key = gcm_key()?;
    let mut record = vec![9; length];
    seconds(|| {
        let nonce = Nonce::assume_unique_for_key([1; 12]);
        key.seal_in_place_separate_tag(nonce, Aad::from([2; 5]), black_box(&mut record)).is_ok()
    })
}

fn gcm_open(length: usize) -> Result<f64> {
    let key = gcm_key()?;
    let mut sealed = vec![9; length];
    let nonce = || Nonce::assume_unique_for_key([1; 12]);
    let tag = key.seal_in_place_separate_tag(nonce(), Aad::from([2; 5]), &mut sealed).map_err(|_| anyhow!("seal"))?;
    let mut opened = vec![0; length];
    seconds(|| {
        let aad = Aad::from([2; 5]);
        key.open_separate_gather(nonce(), aad, black_box(&sealed), tag.as_ref(), black_box(&mut opened)).is_ok()
    })
}

/// A full TLS 1.1 record sealed by OpenSSL's cipher that encrypts and authenticates in one pass.
fn cbc_seal() -> Result<f64> {
    let mut sealer = Cbc::sealer()?;
    seconds(|| sealer.record().is_ok())
}

/// The same record opened; a changed one must not open, or nothing was authenticated.
fn cbc_open() -> Result<f64> {
    let mut sealer = Cbc::sealer()?;
    sealer.record()?;
    let mut opener = Cbc::opener(sealer.out[..sealer.input.len()].to_vec())?;
    opener.record()?;
    ensure!(opener.out[BLOCK..BLOCK + FULL_RECORD] == sealer.input[BLOCK..BLOCK + FULL_RECORD], "opened wrong");
    opener.input[100] ^= 1;
    ensure!(opener.record().is_err(), "a changed record is accepted");
    opener.input[100] ^= 1;
    seconds(|| opener.record().is_ok())
}

/// AES-128-CBC with HMAC-SHA1 as TLS 1.1 needs it, and a record for it.
struct Cbc {
    context: CipherCtx,
    /// The explicit IV, then the payload, then MAC and padding.
    input: Vec<u8>,
    out: Vec<u8>,
    /// The length that goes into the MAC's header.
    length: usize,
}

const BLOCK: usize = 16;
/// `EVP_CTRL_AEAD_TLS1_AAD` and `EVP_CTRL_AEAD_SET_MAC_KEY` of OpenSSL's evp.h.
const TLS1_AAD: i32 = 0x16;
const SET_MAC_KEY: i32 = 0x17;

impl Cbc {
    fn sealer() -> Result<Self> {
        let mut sealer = Self::with(vec![9; BLOCK + FULL_RECORD], |context, cipher| {
            context.encrypt_init(Some(cipher), Some(&[1; 16]), Some(&[2; 16]))
        })?;
        let padded = sealer.announce()? + sealer.length;
        ensure!(padded > sealer.length + 20, "no room for a MAC");
        sealer.input.resize(padded, 0);
        sealer.out.resize(padded + BLOCK, 0);
        Ok(sealer)
    }

    fn opener(sealed: Vec<u8>) -> Result<Self> {
        Self::with(sealed, |context, cipher| context.decrypt_init(Some(cipher), Some(&[1; 16]), Some(&[2; 16])))
    }

    fn with(
        input: Vec<u8>,
        begin: impl FnOnce(&mut CipherCtx, &CipherRef) -> Result<(), openssl::error::ErrorStack>,
    ) -> Result<Self> {
        let cipher = Cipher::from_nid(Nid::AES_128_CBC_HMAC_SHA1).context("no AES-CBC with HMAC-SHA1 in one pass")?;
        let mut context = CipherCtx::new()?;
        begin(&mut context, cipher)?;
        control(&mut context, SET_MAC_KEY, &mut [3; 20])?;
        Ok(Self { context, out: vec![0; input.len() + BLOCK], length: input.len(), input })
    }

    /// Tells the cipher of the next record; the bytes that MAC and padding add to it.
    fn announce(&mut self) -> Result<usize> {
        let length = u16::try_from(self.length)?.to_be_bytes();
        // Sequence number, type, version 1.1, length (RFC 4346, 6.2.3.1).
        control(&mut self.context, TLS1_AAD, &mut [0, 0, 0, 0, 0, 0, 0, 1, 23, 3, 2, length[0], length[1]])
    }

    fn record(&mut self) -> Result<()> {
        self.announce()?;
        let written = self.context.cipher_update(&self.input, Some(&mut self.out))?;
        ensure!(written > FULL_RECORD, "a record is cut to {written} bytes");
        Ok(())
    }
}

/// A control of the cipher with bytes to read; its answer.
fn control(context: &mut CipherCtx, what: i32, bytes: &mut [u8]) -> Result<usize> {
    let length = i32::try_from(bytes.len())?;
    // SAFETY: the context and the bytes outlive the call, which reads `length` of them and keeps nothing.
    #[allow(unsafe_code)]
    let answer = unsafe { openssl_sys::EVP_CIPHER_CTX_ctrl(context.as_ptr(), what, length, bytes.as_mut_ptr().cast()) };
    ensure!(answer > 0, "OpenSSL refuses a control of its cipher: {what:#x}");
    Ok(usize::try_from(answer)?)
}
