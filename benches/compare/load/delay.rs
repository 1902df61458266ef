//! A longer way to the target, without root: a relay in the harness that holds bytes back.
//!
//! Each chunk arrives `one_way` later in either direction. The kernel of this machine accepts the TCP
//! connection at once, so what the establishment would have taken, a round trip, is added to the first
//! chunk from the peer: it reaches the target when it would have if the peer had waited for the
//! establishment. What a peer computes between the two, some 0.1 ms, is hidden, for all peers alike.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// The relay; it ends when dropped.
pub(crate) struct Delay {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Delay {
    /// Half a round trip to `target`.
    ///
    /// # Errors
    /// If it can't listen.
    pub(crate) async fn before(target: SocketAddr, one_way: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { continue };
                let established = Instant::now() + 2 * one_way;
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
                        return;
                    }
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(
                        hold_back(near_in, far_out, established, one_way),
                        hold_back(far_in, near_out, Instant::now(), one_way)
                    );
                });
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes chunks on, each `one_way` after it came or was sent at the earliest, until one side ends.
async fn hold_back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, earliest: Instant, one_way: Duration) {
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; 16 << 10];
    let mut open = true;
    while open || !waiting.is_empty() {
        let due = waiting.front().map(|(due, _)| *due);
        tokio::select! {
            read = from.read(&mut buffer), if open => {
                let length = read.unwrap_or(0);
                open = length > 0;
                // Without bytes: the end, which travels as long.
                waiting.push_back((Instant::now().max(earliest) + one_way, buffer[..length].to_vec()));
            }
            () = sleep_until(due.unwrap_or(earliest)), if due.is_some() => {
                let Some((_, bytes)) = waiting.pop_front() else { continue };
                let passed = if bytes.is_empty() { to.shutdown().await } else { to.write_all(&bytes).await };
                if passed.is_err() {
                    return;
                }
            }
        }
    }
}
