//! Reads of a socket that reads ahead.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

async fn pair() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let keepalive = Keepalive { time: SOON, interval: SOON, probes: 3 };
    (Socket::new(tcp, &keepalive).unwrap(), peer)
}

async fn next(socket: &mut Socket, buffer: &mut [u8]) -> usize {
    loop {
        timeout(SOON, socket.readable()).await.expect("nothing can be read").unwrap();
        match socket.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read.unwrap(),
        }
    }
}

#[tokio::test]
async fn pieces_of_one_message_are_there_without_another_event_and_then_comes_the_end() {
    let (mut socket, mut peer) = pair().await;
    peer.write_all(b"abcde").await.unwrap();
    drop(peer);
    let mut piece = [0; 2];
    let mut all = Vec::new();
    loop {
        match next(&mut socket, &mut piece).await {
            0 => break,
            count => all.extend_from_slice(&piece[..count]),
        }
    }
    assert_eq!(all, b"abcde");
    assert_eq!(next(&mut socket, &mut piece).await, 0);
}

#[tokio::test]
async fn what_comes_after_a_short_read_wakes_the_reader() {
    let (mut socket, mut peer) = pair().await;
    let mut piece = [0; 100];
    for round in 0..200 {
        peer.write_all(&[round; 10]).await.unwrap();
        assert_eq!(next(&mut socket, &mut piece).await, 10);
        assert_eq!(piece[..10], [round; 10]);
        assert_eq!(socket.read(&mut piece).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    drop(peer);
    assert_eq!(next(&mut socket, &mut piece).await, 0);
}

#[tokio::test]
async fn bytes_that_were_put_back_hide_the_end_and_hold_no_buffer_once_they_are_read() {
    let (mut socket, peer) = pair().await;
    drop(peer);
    socket.unread(b"xyz");
    let ended = timeout(Duration::from_millis(100), socket.ended()).await;
    assert!(ended.is_err(), "the end was seen before what came first");
    let mut piece = [0; 100];
    assert_eq!(next(&mut socket, &mut piece).await, 3);
    assert!(socket.ahead.is_none());
    timeout(SOON, socket.ended()).await.unwrap();
    assert_eq!(next(&mut socket, &mut piece).await, 0);
}

/// Writes until neither the kernel nor the socket takes more; what it took.
fn write_all(socket: &mut Socket, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        match socket.write(&bytes[taken..]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    taken
}

/// Fills the kernel's queue, whose bytes come first; then writes what `kinds` say; the peer reads all.
async fn comes_in_order(kinds: &[Writes]) {
    let (mut socket, mut peer) = pair().await;
    let bytes: Vec<u8> = (0_u8..=250).cycle().take(64 << 20).collect();
    let mut taken = write_all(&mut socket, &bytes);
    for kind in kinds {
        socket.set_writes(*kind);
        let held = write_all(&mut socket, &bytes[taken..][..20_000]);
        assert_eq!(held, 20_000, "{kind:?} of {kinds:?}");
        taken += held;
    }
    socket.set_writes(Writes::Through);
    assert_eq!(socket.write(&bytes[taken..]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "{kinds:?}");
    let mut received = vec![0; taken];
    let (sent, _) =
        tokio::join!(poll_fn(|cx| socket.poll_sent(cx)), tokio::io::AsyncReadExt::read_exact(&mut peer, &mut received));
    sent.unwrap();
    assert!(received == bytes[..taken], "{kinds:?}");
    assert!(!socket.outgoing.holds_memory());
}

#[tokio::test]
async fn what_the_kernel_has_no_room_for_is_held_and_leaves_in_order() {
    use Writes::{Gathered, Held};
    for kinds in [&[Held][..], &[Gathered], &[Gathered, Held], &[Held, Gathered], &[Gathered, Held, Gathered]] {
        comes_in_order(kinds).await;
    }
}

#[tokio::test]
async fn what_is_gathered_leaves_together_and_not_before_it_is_sent() {
    let (mut socket, peer) = pair().await;
    socket.set_writes(Writes::Gathered);
    for piece in [&b"ab"[..], b"cd", b"e"] {
        assert_eq!(socket.write(piece).unwrap(), piece.len());
    }
    let mut piece = [0; 100];
    assert!(timeout(Duration::from_millis(100), peer.peek(&mut piece)).await.is_err(), "it left at once");
    poll_fn(|cx| socket.poll_sent(cx)).await.unwrap();
    assert_eq!(timeout(SOON, peer.peek(&mut piece)).await.unwrap().unwrap(), 5);
    assert_eq!(piece[..5], *b"abcde");
}

#[tokio::test]
async fn no_more_is_held_than_a_buffer_and_a_handshake() {
    let (mut socket, _peer) = pair().await;
    let bytes = vec![0; 64 << 20];
    let full = write_all(&mut socket, &bytes);
    socket.set_writes(Writes::Gathered);
    let held = write_all(&mut socket, &bytes[full..]);
    assert_eq!(held, crate::leg::buffer::SIZE + (64 << 10));
}

/// A socket whose kernel has no room, and which holds 20,000 bytes; how many bytes are on the way in all.
fn filled(socket: &mut Socket) -> usize {
    let bytes: Vec<u8> = (0_u8..=250).cycle().take(64 << 20).collect();
    let full = write_all(socket, &bytes);
    socket.set_writes(Writes::Gathered);
    let held = write_all(socket, &bytes[full..][..20_000]);
    socket.set_writes(Writes::Through);
    full + held
}

#[tokio::test]
async fn what_is_held_leaves_before_the_end_that_an_abort_leaves_to_the_lingering_close() {
    let (mut socket, mut peer) = pair().await;
    let count = filled(&mut socket);
    socket.abort().unwrap();
    let mut received = Vec::new();
    let read = async {
        tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut received).await.unwrap();
        drop(peer);
    };
    timeout(SOON, async { tokio::join!(poll_fn(|cx| socket.poll_linger(cx)), read) }).await.unwrap();
    assert_eq!(received.len(), count);
}

#[tokio::test]
async fn a_reset_that_a_write_was_told_of_is_no_end_to_whoever_reads() {
    let (mut socket, peer) = pair().await;
    filled(&mut socket);
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    let told = timeout(SOON, poll_fn(|cx| socket.poll_sent(cx))).await.unwrap().unwrap_err();
    assert_eq!(told.kind(), io::ErrorKind::ConnectionReset);
    for _ in 0..2 {
        timeout(SOON, socket.readable()).await.unwrap().unwrap();
        assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
