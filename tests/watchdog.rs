//! The watchdog beats while every thread serves, whatever the target does. The real systemd restarts one that
//! does not, in `tests/systemd/restarts.rs`.

mod cli_support;
mod supervisor;

use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use cli_support::{Certificate, Live, Sandbox, free_port};
use supervisor::Supervisor;

const PATIENCE: Duration = Duration::from_millis(600);

/// A forwarder whose target does not exist, watched by what stands in for systemd.
struct World {
    sandbox: Sandbox,
    supervisor: Supervisor,
}

impl World {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let listen = format!("127.0.0.1:{}", free_port());
        sandbox.run(["add", "exch1", &listen, "192.0.2.1:443", "--offline", "--insecure"]).succeeded();
        Self { sandbox, supervisor: Supervisor::new() }
    }

    fn command(&self) -> Command {
        let mut command = self.supervisor.command(&self.sandbox, &[]);
        command.env("WATCHDOG_USEC", PATIENCE.as_micros().to_string());
        command
    }

    /// Beats since now, over twice the patience.
    fn beats(&self) -> usize {
        self.supervisor.forget_messages();
        thread::sleep(2 * PATIENCE);
        self.supervisor.count("WATCHDOG=1")
    }
}

fn serve(mut command: Command) -> Live {
    let live = Live::spawn(&mut command);
    live.wait_for(" listening");
    live
}

#[test]
fn it_beats_three_times_within_the_patience_also_beside_a_target_that_is_not_there() {
    let world = World::new();
    let server = serve(world.command());
    world.supervisor.wait_for("WATCHDOG=1");
    let beats = world.beats();
    assert!((3..=8).contains(&beats), "{beats} beats within twice the patience");
    assert_eq!(server.said().matches("watchdog").count(), 0, "{}", server.said());
}

#[test]
fn it_beats_where_clients_must_show_a_certificate() {
    let world = World::new();
    let ca = Certificate::self_signed(world.sandbox.material.path(), "CLIENTS");
    let file = world.sandbox.put("clients.pem", ca.pem());
    world.sandbox.run(["set", "exch1", &format!("client_ca={}", file.display())]).succeeded();
    let _server = serve(world.command());
    world.supervisor.wait_for("WATCHDOG=1");
}

#[test]
fn it_goes_on_beating_while_open_connections_drain() {
    let world = World::new();
    let server = serve(world.command());
    world.supervisor.wait_for("WATCHDOG=1");
    world.sandbox.run(["drain", "exch1"]).succeeded();
    assert!(world.beats() >= 3);
    server.signal(Signal::SIGTERM);
    server.finish().succeeded();
}

#[test]
fn a_watchdog_of_another_process_is_none_of_its_business() {
    let world = World::new();
    let mut command = world.command();
    command.env("WATCHDOG_PID", "1");
    let _server = serve(command);
    world.supervisor.wait_for("READY=1");
    assert_eq!(world.beats(), 0);
}

#[test]
fn a_process_that_stands_still_falls_silent() {
    let world = World::new();
    let server = serve(world.command());
    world.supervisor.wait_for("WATCHDOG=1");
    server.signal(Signal::SIGSTOP);
    thread::sleep(PATIENCE);
    assert_eq!(world.beats(), 0);
    server.signal(Signal::SIGCONT);
    world.supervisor.wait_for("WATCHDOG=1");
}
