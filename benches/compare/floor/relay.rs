//! The least that carries bytes from one TCP connection to another: one thread, 64 KiB each way, no TLS.
//!
//! Runs as a process of its own, the benchmark's program under another first argument.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};

const BUFFER: usize = 64 << 10;

/// Serves until it is killed.
///
/// # Errors
/// If it can't listen.
pub(crate) fn run(listen: &str, target: &str) -> Result<()> {
    let (listen, target): (SocketAddr, SocketAddr) = (listen.parse()?, target.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.context("relay: listen")?;
        loop {
            let (near, _) = listener.accept().await.context("relay: accept")?;
            tokio::spawn(async move {
                // An end of either side is the end of that direction; what fails is seen by the load.
                let _ = connection(near, target).await;
            });
        }
    })
}

async fn connection(mut near: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
    tokio::join!(carry(near_in, far_out), carry(far_in, near_out));
    Ok(())
}

async fn carry(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
