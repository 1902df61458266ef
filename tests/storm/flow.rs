//! One direction of one connection, written and read at its plan's pace.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::pattern::{Pattern, Wrong};
use super::plan::Flow;

/// How a direction ended for whoever read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// close_notify.
    Clean,
    /// FIN alone.
    Fin,
    /// A reset, a fatal alert, a broken record.
    Broken,
    /// The plan was to read no more.
    Unread,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Heard {
    pub length: u64,
    pub wrong: Option<(u64, Wrong)>,
    pub end: End,
}

/// Reads in pieces of `piece` bytes.
#[derive(Clone, Copy)]
pub struct Pace {
    pub piece: usize,
    pub pause: Duration,
}

impl Pace {
    pub const FAST: Self = Self { piece: 64 << 10, pause: Duration::ZERO };
    pub const SLOW: Self = Self { piece: 4000, pause: Duration::from_millis(8) };
}

impl Heard {
    pub fn nothing() -> Self {
        Self { length: 0, wrong: None, end: End::Unread }
    }

    /// Reads until so many bytes are there or the direction ends.
    pub async fn read(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        what: Pattern,
        until: u64,
        pace: Pace,
        known: u32,
    ) {
        let mut buffer = vec![0; pace.piece];
        while self.length < until {
            let most = usize::try_from(until - self.length).unwrap_or(usize::MAX).min(pace.piece);
            match from.read(&mut buffer[..most]).await {
                Ok(0) => {
                    self.end = End::Clean;
                    return;
                }
                Ok(count) => {
                    if self.wrong.is_none() {
                        self.wrong = what.check(self.length, &buffer[..count], known).err();
                    }
                    self.length += count as u64;
                }
                Err(error) => {
                    let fin = error.kind() == std::io::ErrorKind::UnexpectedEof;
                    self.end = if fin { End::Fin } else { End::Broken };
                    return;
                }
            }
            if !pace.pause.is_zero() {
                tokio::time::sleep(pace.pause).await;
            }
        }
    }
}

/// Writes so many bytes of a flow; whether all were taken.
pub async fn write(into: &mut (impl AsyncWrite + Unpin), what: Pattern, flow: Flow, until: u64) -> bool {
    let mut buffer = vec![0; flow.piece];
    let (mut offset, mut pieces) = (0, 0);
    while offset < until {
        let count = usize::try_from(until - offset).unwrap_or(usize::MAX).min(flow.piece);
        what.fill(offset, &mut buffer[..count]);
        if into.write_all(&buffer[..count]).await.is_err() || into.flush().await.is_err() {
            return false;
        }
        offset += count as u64;
        pieces += 1;
        if flow.rest > 0 && pieces % flow.rest == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    true
}
