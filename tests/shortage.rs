//! A machine that is out of descriptors: its own fault, said so, and over when they are back.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{Bridge, client_hello, echo, is_served, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Leaves the bridge so many descriptors beyond those that it has open. The limit is on their numbers.
fn leave(bridge: &Bridge, more: usize) {
    let open = fs::read_dir(format!("/proc/{}/fd", bridge.pid())).unwrap();
    let open: Vec<usize> = open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    limit(bridge, (0..).filter(|number| !open.contains(number)).nth(more).unwrap());
}

fn limit(bridge: &Bridge, descriptors: usize) {
    let done = Command::new("prlimit")
        .args(["--pid", &bridge.pid().to_string(), &format!("--nofile={descriptors}:")])
        .status()
        .unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn no_descriptor_for_the_target_is_alert_80_and_our_own_fault() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).start();
    leave(&bridge, 1);
    let mut tcp = TcpStream::connect(bridge.address()).await.unwrap();
    tcp.write_all(&client_hello()).await.unwrap();
    let mut answer = Vec::new();
    within("the alert", tcp.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 80], "internal_error in place of our ServerHello\n{}", bridge.log());
    bridge.wait_for_log(&["ERROR", "connect: too many open files", "client=", "hint=", "LimitNOFILE"]);
    limit(&bridge, 1000);
    is_served(&bridge).await;
}

#[tokio::test]
async fn client_that_got_the_last_descriptor_waits_until_there_is_one_for_its_target() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).start();
    leave(&bridge, 1);
    let (client, ()) = tokio::join!(bridge.try_client(), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        limit(&bridge, 1000);
    });
    let mut client = client.unwrap_or_else(|failure| panic!("{failure:?}\n{}", bridge.log()));
    client.send(b"word").await;
    assert_eq!(client.receive(4).await, b"word");
    assert!(!bridge.log().contains("connect: too many open files"), "{}", bridge.log());
}

#[tokio::test]
async fn no_descriptor_for_a_client_is_told_once_and_heals() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).start();
    leave(&bridge, 0);
    // The kernel holds them until they can be accepted.
    let waiting = [bridge.try_client(), bridge.try_client(), bridge.try_client()];
    let relief = async {
        bridge.wait_for_log(&["ERROR", "accept: too many open files", "hint=", "LimitNOFILE"]);
        limit(&bridge, 1000);
    };
    let [one, two, three] = waiting;
    let (one, two, three, ()) = tokio::join!(one, two, three, relief);
    assert!(one.is_ok() && two.is_ok() && three.is_ok(), "{}", bridge.log());
    let told = bridge.log().lines().filter(|line| line.contains("accept: too many open files")).count();
    assert_eq!(told, 1, "{}", bridge.log());
}
