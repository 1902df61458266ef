//! Floods and shortages: what they cost is bounded, those who are connected don't notice, and it is
//! over when they are.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Bridge, Failure, echo, eventually, is_served, within};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::AlertDescription::InternalError;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

fn descriptors(bridge: &Bridge) -> usize {
    count(bridge.pid())
}

fn count(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Memory in use, in KiB (proc_pid_status(5), VmRSS).
fn memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Looks again and again at what a bridge uses; gives back the most descriptors and the most memory.
struct Peak {
    stop: mpsc::Sender<()>,
    seen: JoinHandle<(usize, usize)>,
}

impl Peak {
    fn of(bridge: &Bridge) -> Self {
        let (pid, (stop, stopped)) = (bridge.pid(), mpsc::channel::<()>());
        let seen = std::thread::spawn(move || {
            let mut most = (0, 0);
            while stopped.recv_timeout(Duration::from_millis(3)).is_err() {
                most = (count(pid).max(most.0), memory(pid).max(most.1));
            }
            most
        });
        Self { stop, seen }
    }

    fn end(self) -> (usize, usize) {
        self.stop.send(()).unwrap();
        self.seen.join().unwrap()
    }
}

#[tokio::test]
async fn flood_of_openers_costs_little_and_leaves_the_connected_alone() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target)
        .pin(&certificate)
        .args(["--hello-timeout", "6s"])
        .set("max_handshakes=400")
        .set("max_connections=50")
        .start();
    is_served(&bridge).await;
    let mut established = bridge.client().await;
    eventually("the first session's end", || bridge.sessions() == 1);
    let (descriptors_before, memory_before) = (descriptors(&bridge), memory(bridge.pid()));
    let peak = Peak::of(&bridge);

    let mut flood = Vec::new();
    for count in 0..2_000 {
        flood.push(TcpStream::connect(bridge.address()).await.unwrap());
        if count % 400 == 0 {
            established.send(b"word").await;
            assert_eq!(established.receive(4).await, b"word");
        }
    }
    match bridge.try_client().await {
        // A place came free in time, or it was told.
        Ok(_) | Err(Failure::Alert(InternalError)) => {}
        // Or, beyond all who wait and are refused, closed.
        Err(Failure::Other(how)) => assert!(how.contains("reset") || how.contains("eof"), "{how}"),
        Err(other) => panic!("{other:?}"),
    }
    established.send(b"word").await;
    assert_eq!(established.receive(4).await, b"word");
    let (descriptors_most, memory_most) = peak.end();
    // Handshakes, those who wait, those who are refused, some just accepted, our own client's target.
    let bound = descriptors_before + 400 + 1024 + 256 + 32;
    assert!(descriptors_most <= bound, "{descriptors_most} descriptors");
    assert!(descriptors_most > descriptors_before + 1_200, "the flood never came: {descriptors_most} descriptors");
    let grown = memory_most.saturating_sub(memory_before);
    println!("2,000 openers: {descriptors_most} descriptors and {grown} KiB more at most");
    assert!(grown < 40 << 10, "2,000 openers took {grown} KiB");

    // Nobody is left connected and silent.
    for opener in &mut flood {
        let mut bytes = Vec::new();
        let _ = within("each opener's end", opener.read_to_end(&mut bytes)).await;
        assert!(bytes.is_empty() || bytes == [21, 3, 3, 0, 2, 2, 80], "{bytes:02x?}");
    }
    is_served(&bridge).await;
    drop(flood);
    eventually("its descriptors are free again", || descriptors(&bridge) <= descriptors_before);
    let told = bridge.log().lines().filter(|line| line.contains("max_handshakes: ")).count();
    assert_eq!(told, 1, "{}", bridge.log());
    established.send(b"word").await;
    assert_eq!(established.receive(4).await, b"word");
}

#[tokio::test]
async fn limits_that_need_more_descriptors_than_there_are_shrink_to_fit_and_the_log_says_how_many_it_takes() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).descriptors(150, 150).start();
    let line =
        bridge.wait_for_log(&["WARN", "max_connections = 4000 and max_handshakes = 1000 need 10344 descriptors"]);
    assert!(line.line.contains("the limit is 150: in force are 25 and 21"), "{}", line.line);
    assert!(line["hint"].contains("LimitNOFILE=10344"), "{}", line.line);
    let mut open = Vec::new();
    for _ in 0..25 {
        open.push(bridge.client().await);
    }
    assert_eq!(bridge.try_client().await.unwrap_err(), Failure::Alert(InternalError));
    bridge.wait_for_log(&["max_connections: 25 are open"]);
    for client in &mut open {
        client.send(b"word").await;
        assert_eq!(client.receive(4).await, b"word");
    }
    assert!(!bridge.log().contains("too many open files"), "{}", bridge.log());
    open.pop();
    is_served(&bridge).await;
}

#[tokio::test]
async fn soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let (certificate, target) = echo();
    let modest = ["max_connections=100", "max_handshakes=20"];
    let bridge = Bridge::to(&target).pin(&certificate).descriptors(64, 2_000).set(modest[0]).set(modest[1]).start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", bridge.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("2000"), "{line}");
    assert!(!bridge.log().contains("descriptors"), "{}", bridge.log());
    let mut open = Vec::new();
    for _ in 0..60 {
        open.push(bridge.client().await);
    }
    is_served(&bridge).await;
}

#[tokio::test]
async fn number_of_descriptors_that_is_needed_is_enough_and_one_less_is_not() {
    let (certificate, target) = echo();
    // 2 x 100 + 20, 1,024 who wait, 256 who are refused, 64 to spare.
    for (limit, is_told) in [(1564, false), (1563, true)] {
        let bridge = Bridge::to(&target).pin(&certificate).descriptors(limit, limit);
        let bridge = bridge.set("max_connections=100").set("max_handshakes=20").start();
        is_served(&bridge).await;
        bridge.session();
        assert_eq!(bridge.log().contains("LimitNOFILE=1564"), is_told, "{}", bridge.log());
    }
}

#[tokio::test]
async fn process_whose_descriptors_are_used_up_goes_on_when_connections_end() {
    let (certificate, target) = echo();
    let bridge = Bridge::to(&target).pin(&certificate).args(["--hello-timeout", "60s"]).start();
    is_served(&bridge).await;
    bridge.session();
    // Taken away while it runs, as another process' hunger for files would.
    let limit = descriptors(&bridge) + 20;
    let lowered = std::process::Command::new("prlimit")
        .args(["--pid", &bridge.pid().to_string(), &format!("--nofile={limit}:{limit}")])
        .status();
    assert!(lowered.unwrap().success());
    let mut established = bridge.client().await;
    let mut flood = Vec::new();
    for _ in 0..40 {
        flood.push(TcpStream::connect(bridge.address()).await.unwrap());
    }
    bridge.wait_for_log(&["ERROR", "accept: too many open files; trying again", "LimitNOFILE"]);
    established.send(b"word").await;
    assert_eq!(established.receive(4).await, b"word");
    // It comes while nothing is free, and is served when something is.
    let (late, ()) = tokio::join!(bridge.try_client(), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        flood.clear();
    });
    let mut late = late.unwrap_or_else(|failure| panic!("{failure:?}\n{}", bridge.log()));
    late.send(b"word").await;
    assert_eq!(late.receive(4).await, b"word");
    is_served(&bridge).await;
    let told = bridge.log().lines().filter(|line| line.contains("accept: too many open files")).count();
    assert_eq!(told, 1, "{}", bridge.log());
}
