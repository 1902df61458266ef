//! Limits that change while a forwarder serves: in force at once, and nobody inside is put out.

#![allow(clippy::unwrap_used)]

mod cli_support;
mod common;

use std::net::SocketAddr;
use std::process::Command;

use cli_support::{EWSBRIDGE, Live, Sandbox, free_port};
use common::{Client, Failure, Listening, TlsTarget, connect, echo};
use rustls::AlertDescription::{AccessDenied, InternalError};

/// A forwarder with a file of settings, at work.
struct World {
    sandbox: Sandbox,
    server: Live,
    address: SocketAddr,
    ca: String,
    _target: TlsTarget,
}

impl World {
    fn new(limits: &[&str]) -> Self {
        Self::start(limits, |sandbox| sandbox.serve("exch1"))
    }

    /// With the server that `serve` starts.
    fn start(limits: &[&str], serve: impl FnOnce(&Sandbox) -> Live) -> Self {
        let (certificate, target) = echo();
        let (sandbox, port) = (Sandbox::new(), free_port());
        let (listen, to, pin) = (format!("127.0.0.1:{port}"), target.address().to_string(), certificate.pin());
        sandbox.run(["add", "exch1", &listen, &to, "--pin", &pin, "--offline"]).succeeded();
        let set = ["set", "exch1"].into_iter().chain(limits.iter().copied());
        sandbox.run(set).succeeded().says("in force at its next start");
        let server = serve(&sandbox);
        let ca = std::fs::read_to_string(sandbox.ca("exch1")).unwrap();
        Self { sandbox, server, address: listen.parse().unwrap(), ca, _target: target }
    }

    fn set(&self, change: &str) {
        self.sandbox.run(["set", "exch1", change]).succeeded().says("in force for new connections");
    }

    async fn try_client(&self) -> Result<Client, Failure> {
        connect(self.address, &self.ca, "127.0.0.1").await
    }

    async fn client(&self) -> Client {
        let mut client =
            self.try_client().await.unwrap_or_else(|failure| panic!("{failure:?}\n{}", self.server.said()));
        answers(&mut client).await;
        client
    }

    async fn refuses(&self) {
        assert_eq!(self.try_client().await.unwrap_err(), Failure::Alert(InternalError), "{}", self.server.said());
    }
}

async fn answers(client: &mut Client) {
    client.send(b"word").await;
    assert_eq!(client.receive(4).await, b"word");
}

#[tokio::test]
async fn larger_number_of_connections_is_in_force_at_once() {
    let world = World::new(&["max_connections=1"]);
    let mut first = world.client().await;
    world.refuses().await;
    let line = world.server.wait_for("max_connections: 1 are open");
    assert!(line.contains("ewsbridge set exch1 max_connections=2"), "{line}");
    world.set("max_connections=2");
    let mut second = world.client().await;
    world.refuses().await;
    answers(&mut first).await;
    answers(&mut second).await;
}

#[tokio::test]
async fn smaller_number_of_connections_cuts_nobody_and_is_reached_as_they_end() {
    let world = World::new(&["max_connections=3"]);
    let mut open = vec![world.client().await, world.client().await, world.client().await];
    world.set("max_connections=1");
    for client in &mut open {
        answers(client).await;
    }
    open.truncate(1);
    // One is left, which is as many as there may be.
    world.refuses().await;
    answers(&mut open[0]).await;
    open.clear();
    let _one = world.client().await;
    world.refuses().await;
}

#[tokio::test]
async fn client_that_waits_is_served_when_a_reload_makes_room() {
    let world = World::new(&["max_connections=1"]);
    let _first = world.client().await;
    let (second, ()) = tokio::join!(world.try_client(), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        world.set("max_connections=2");
    });
    answers(&mut second.unwrap()).await;
}

#[tokio::test]
async fn allowed_networks_change_for_clients_to_come() {
    let world = World::new(&["allow_clients=10.0.0.0/8"]);
    assert_eq!(world.try_client().await.unwrap_err(), Failure::Alert(AccessDenied));
    let line = world.server.wait_for("allow_clients: the address is in none of its networks");
    assert!(line.contains("add 127.0.0.1 to allow_clients, see: ewsbridge show exch1"), "{line}");
    world.set("allow_clients=10.0.0.0/8,127.0.0.1");
    let mut inside = world.client().await;
    world.set("allow_clients=10.0.0.0/8");
    assert_eq!(world.try_client().await.unwrap_err(), Failure::Alert(AccessDenied));
    answers(&mut inside).await;
}

#[tokio::test]
async fn handshakes_and_rate_change_too() {
    let world = World::new(&["max_handshakes=1"]);
    let _idle = tokio::net::TcpStream::connect(world.address).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    world.refuses().await;
    world.set("max_handshakes=2");
    let mut client = world.client().await;
    world.set("accept_rate=1");
    let began = std::time::Instant::now();
    let _one = world.client().await;
    let _next = world.client().await;
    assert!(began.elapsed() >= std::time::Duration::from_millis(900), "{:?}", began.elapsed());
    answers(&mut client).await;
}

#[tokio::test]
async fn settings_that_are_refused_leave_the_limits_as_they_were() {
    let world = World::new(&["max_connections=1"]);
    let _first = world.client().await;
    let (old, new) = (world.address.to_string(), format!("127.0.0.1:{}", free_port()));
    let text = world.sandbox.text("exch1");
    assert!(text.contains("\nmax_connections = 1") && text.contains(&old), "{text}");
    let text = text.replace("\nmax_connections = 1", "\nmax_connections = 5").replace(&old, &new);
    std::fs::write(world.sandbox.settings("exch1"), text).unwrap();
    world.sandbox.run(["reload", "exch1"]).exited(1).says("restart needed");
    world.refuses().await;
}

#[tokio::test]
async fn limits_that_a_reload_brings_fit_into_the_descriptors_too() {
    // 2 x 4 + 4, and 1,344 for those who wait, are refused, and the rest.
    let world = World::start(&["max_connections=4", "max_handshakes=4"], |sandbox| {
        let mut command = Command::new("prlimit");
        command.arg("--nofile=1356:1356").arg(EWSBRIDGE).args(["run", "exch1"]);
        sandbox.surround(&mut command);
        let live = Live::spawn(&mut command);
        live.wait_for(" listening");
        live
    });
    assert!(!world.server.said().contains("descriptors"), "{}", world.server.said());
    let mut first = world.client().await;
    world.set("max_connections=5");
    let line = world.server.wait_for("max_connections = 5 and max_handshakes = 4 need 1358 descriptors");
    assert!(line.contains("systemctl edit ewsbridge@exch1: [Service] LimitNOFILE=1358"), "{line}");
    answers(&mut first).await;
    world.client().await;
}
