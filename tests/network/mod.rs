//! Three machines and the router between them, each a network namespace that ends with the test. The
//! router can stop forwarding in silence, as a dead path does: no RST, no ICMP. Needs root.

#![allow(unreachable_pub)]

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::Command;

use super::common::Child;

/// A machine behind the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    Client,
    Bridge,
    Target,
}

use Machine::{Bridge, Client, Target};

/// The network.
pub struct Network {
    router: Child,
    machines: [(Machine, Child); 3],
}

/// The calling thread is on another machine until this is dropped.
pub struct Visit(File);

impl Machine {
    fn number(self) -> u8 {
        self as u8 + 1
    }

    /// Its address.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number(), 2)
    }
}

impl Network {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "needs root; leave it out by: tests/run --rootless");
        let network = Self { router: namespace(), machines: [Client, Bridge, Target].map(|it| (it, namespace())) };
        let router = network.router.pid();
        run(router, "echo 1 > /proc/sys/net/ipv4/ip_forward");
        for (machine, child) in &network.machines {
            let (number, pid, address) = (machine.number(), child.pid(), machine.address());
            run(
                router,
                &format!(
                    "ip link add m{number} type veth peer name eth0 netns {pid}
                    ip address add 10.77.{number}.1/24 dev m{number}
                    ip link set m{number} up"
                ),
            );
            // What the kernels hold for a connection is of one size everywhere, and small.
            run(
                pid,
                &format!(
                    "echo 4096 131072 1048576 > /proc/sys/net/ipv4/tcp_rmem
                    echo 4096 16384 1048576 > /proc/sys/net/ipv4/tcp_wmem
                    ip address add {address}/24 dev eth0
                    ip link set eth0 up
                    ip route add default via 10.77.{number}.1"
                ),
            );
        }
        network
    }

    /// The process that stands for a machine.
    pub fn pid(&self, machine: Machine) -> u32 {
        self.machines.iter().find(|(it, _)| *it == machine).expect("one of three").1.pid()
    }

    /// From now on nothing reaches this machine, nor comes from it.
    pub fn cut(&self, machine: Machine) {
        let (number, address) = (machine.number(), machine.address());
        run(
            self.router.pid(),
            &format!(
                "echo 0 > /proc/sys/net/ipv4/conf/m{number}/forwarding
                ip route add blackhole {address}/32"
            ),
        );
    }

    /// A socket that listens on a machine.
    pub fn listen(&self, machine: Machine) -> TcpListener {
        let _visit = self.visit(machine);
        TcpListener::bind((machine.address(), 0)).expect("a free port")
    }

    /// Moves the calling thread, and no other, to a machine: there it opens its sockets from now on.
    pub fn visit(&self, machine: Machine) -> Visit {
        let home = File::open("/proc/thread-self/ns/net").expect("own namespace");
        enter(&File::open(format!("/proc/{}/ns/net", self.pid(machine))).expect("a machine"));
        Visit(home)
    }

    /// The timers of the bridge's TCP connections (ss(8), `-o`).
    pub fn timers(&self) -> String {
        run(self.pid(Bridge), "ss --no-header --tcp --numeric --options")
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        enter(&self.0);
    }
}

#[allow(unsafe_code)]
fn enter(namespace: &File) {
    // SAFETY: the descriptor is open; the call changes where this thread opens sockets, nothing else.
    let answer = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(answer, 0, "setns: {}", std::io::Error::last_os_error());
}

/// A process with an empty network of its own.
fn namespace() -> Child {
    let child = Child::spawn(Command::new("unshare").args(["--net", "sh", "-c", "echo ready; exec cat"]));
    child.stdout.wait_for(&["ready"]);
    child
}

/// Runs commands in the network of a process, and gives back what they write.
fn run(pid: u32, commands: &str) -> String {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net")).args(["sh", "-e", "-c", commands]);
    let output = command.output().expect("nsenter");
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
