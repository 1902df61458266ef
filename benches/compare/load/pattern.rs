//! The bytes of every body: a fixed pseudo-random sequence by offset, so that a byte lost, doubled,
//! moved or changed is seen at once at the end that receives it.

use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The sequence begins anew after this many bytes; prime, so no buffer's size divides it.
const PERIOD: usize = 65_521;
/// The longest piece taken at once.
pub(super) const PIECE: usize = 1 << 16;

/// `length` bytes of the sequence from `offset` on; at most [`PIECE`].
pub(super) fn at(offset: u64, length: usize) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut once: Vec<u8> = Vec::with_capacity(PERIOD + 8);
        while once.len() < PERIOD {
            // xorshift64 (Marsaglia 2003)
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            once.extend_from_slice(&state.to_le_bytes());
        }
        once.truncate(PERIOD);
        once.iter().copied().cycle().take(PERIOD + PIECE).collect()
    });
    let start = usize::try_from(offset % PERIOD as u64).expect("below the period");
    &bytes[start..start + length]
}

/// Sends the first `total` bytes, `record` at a time: each write becomes a TLS record of its own.
///
/// # Errors
/// As the stream.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), total: u64, record: usize) -> Result<()> {
    let mut sent = 0;
    while sent < total {
        let length = record.min(usize::try_from(total - sent).unwrap_or(usize::MAX));
        stream.write_all(at(sent, length)).await.with_context(|| format!("sending at byte {sent} of {total}"))?;
        sent += length as u64;
    }
    stream.flush().await.context("sending")
}

/// Receives `total` bytes from `offset` of the sequence on and compares each.
///
/// # Errors
/// A wrong byte, an early end, or the stream's own.
pub(super) async fn check(stream: &mut (impl AsyncRead + Unpin), offset: u64, total: u64) -> Result<()> {
    let mut buffer = vec![0; PIECE.min(usize::try_from(total).unwrap_or(PIECE))];
    let mut got = 0;
    while got < total {
        let wanted = buffer.len().min(usize::try_from(total - got).unwrap_or(usize::MAX));
        let length =
            stream.read(&mut buffer[..wanted]).await.with_context(|| format!("receiving at byte {got} of {total}"))?;
        ensure!(length > 0, "ended at byte {got} of {total}");
        if buffer[..length] != *at(offset + got, length) {
            bail!("a wrong byte among {length} from byte {} on", offset + got);
        }
        got += length as u64;
    }
    Ok(())
}

/// The head of a request: how many bytes follow, and how many are to be answered.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) up: u64,
    pub(super) down: u64,
}

impl Head {
    pub(super) const LENGTH: usize = 16;

    pub(super) fn bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.up.to_le_bytes());
        bytes[8..].copy_from_slice(&self.down.to_le_bytes());
        bytes
    }

    pub(super) fn of(bytes: [u8; Self::LENGTH]) -> Self {
        let (up, down) = bytes.split_at(8);
        let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half of sixteen"));
        Self { up: number(up), down: number(down) }
    }
}
