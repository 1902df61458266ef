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
