//! Listening sockets outlive the process: no connection attempt is lost by a restart or a crash. The real
//! systemd does the same in `tests/systemd.rs`.

mod cli_support;
mod supervisor;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use openssl::ssl::{SslConnector, SslMethod, SslStream};
use socket2::{Domain, Socket, Type};

use cli_support::{Certificate, Live, Outcome, Sandbox, TIMEOUT, free_port, run_to_end, tls_target};
use supervisor::{Supervisor, copy, hand_over, shell};

/// The forwarder `exch1`, and whoever keeps its sockets.
struct World {
    sandbox: Sandbox,
    supervisor: Supervisor,
    port: u16,
    ca: PathBuf,
}

impl World {
    fn new() -> Self {
        let port = free_port();
        Self::listening_on(port, &format!("127.0.0.1:{port}"))
    }

    fn listening_on(port: u16, listen: &str) -> Self {
        let sandbox = Sandbox::new();
        let certificate = Certificate::self_signed(sandbox.material.path(), "EXCH1");
        let target = tls_target(&certificate).to_string();
        sandbox.run(["add", "exch1", listen, &target, "--offline", "--pin", &certificate.pin()]).succeeded();
        let ca = sandbox.ca("exch1");
        Self { sandbox, supervisor: Supervisor::new(), port, ca }
    }

    #[track_caller]
    fn serve(&self) -> Live {
        self.supervisor.serve(&self.sandbox, &[])
    }

    /// Starts it in vain.
    fn refuse(&self, passed: &[(&str, &dyn AsFd)]) -> Outcome {
        run_to_end(&mut self.supervisor.command(&self.sandbox, passed))
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port))?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        Ok(tcp)
    }

    /// A client that shakes hands and asks on what it has connected.
    fn client(&self) -> Client {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("a connector");
        connector.set_ca_file(&self.ca).expect("an authority");
        Client(connector.build())
    }

    #[track_caller]
    fn is_served(&self) {
        self.client().ask(self.connect().expect("a connection")).expect("an answer");
    }

    #[track_caller]
    fn is_refused(&self) {
        assert_eq!(self.connect().expect_err("a connection").kind(), ErrorKind::ConnectionRefused);
    }
}

#[derive(Clone)]
struct Client(SslConnector);

impl Client {
    fn ask(&self, tcp: TcpStream) -> Result<(), String> {
        answer(self.shake_hands(tcp)?)
    }

    fn shake_hands(&self, tcp: TcpStream) -> Result<SslStream<TcpStream>, String> {
        self.0.connect("127.0.0.1", tcp).map_err(|error| format!("handshake: {error}"))
    }
}

fn answer(mut tls: SslStream<TcpStream>) -> Result<(), String> {
    tls.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(|error| format!("request: {error}"))?;
    let mut text = String::new();
    tls.read_to_string(&mut text).map_err(|error| format!("answer: {error}"))?;
    if text == "HTTP/1.0 200 ok\r\n\r\n" { Ok(()) } else { Err(format!("answer: {text:?}")) }
}

/// Clients that come without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(world: &World) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            served: Arc::default(),
            refused: Arc::default(),
            failed: Arc::default(),
            clients: Vec::new(),
        };
        for _ in 0..6 {
            let (stop, served, refused) = (Arc::clone(&load.stop), Arc::clone(&load.served), Arc::clone(&load.refused));
            let (failed, client, port) = (Arc::clone(&load.failed), world.client(), world.port);
            load.clients.push(thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let Ok(tcp) = TcpStream::connect(("127.0.0.1", port)) else {
                        refused.fetch_add(1, Ordering::SeqCst);
                        continue;
                    };
                    tcp.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
                    match client.ask(tcp) {
                        Ok(()) => drop(served.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => failed.lock().expect("no panic while held").push(error),
                    }
                }
            }));
        }
        load
    }

    /// Waits until each client may have been served once more.
    #[track_caller]
    fn goes_on(&self) {
        let (begun, before) = (Instant::now(), self.served.load(Ordering::SeqCst));
        while self.served.load(Ordering::SeqCst) < before + 2 * self.clients.len() {
            assert!(begun.elapsed() < TIMEOUT, "nobody is served; failures: {:?}", self.failures());
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn failures(&self) -> Vec<String> {
        self.failed.lock().expect("no panic while held").clone()
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().for_each(|client| client.join().expect("no panic"));
        self.served.load(Ordering::SeqCst)
    }
}

#[test]
fn ten_restarts_and_a_kill_under_load_refuse_no_connection_and_serve_those_of_the_gap() {
    let world = World::new();
    let mut process = world.serve();
    let load = Load::start(&world);
    for _ in 0..10 {
        load.goes_on();
        process.signal(Signal::SIGTERM);
        process.finish().succeeded();
        let waiting = world.connect().expect("a connection while no process runs");
        process = world.serve();
        world.client().ask(waiting).expect("the next process serves it");
        assert_eq!(world.supervisor.stored(), ["stored-exch1"]);
    }
    load.goes_on();
    assert_eq!((load.refused(), load.failures()), (0, vec![]), "a restart lost a connection");

    process.signal(Signal::SIGKILL);
    process.finish().exited(137);
    let waiting = world.connect().expect("a connection after the crash");
    let process = world.serve();
    world.client().ask(waiting).expect("the next process serves it");
    load.goes_on();
    assert_eq!(load.refused(), 0, "a crash refused a connection");
    // What was open is lost with the process that had it: at most one connection a client.
    assert!(load.failures().len() <= 6, "{:?}", load.failures());
    println!("{} connections served, 0 refused", load.end());
    process.signal(Signal::SIGTERM);
    process.finish().succeeded();
}

#[test]
fn a_stored_socket_at_another_address_is_closed_and_the_settings_rule() {
    let world = World::new();
    for listen in [format!("0.0.0.0:{}", world.port), format!("127.0.0.1:{}", world.port)] {
        // The same port: the old socket must be out of the way before the new one is bound.
        let process = world.serve();
        process.signal(Signal::SIGTERM);
        process.finish().succeeded();
        world.sandbox.run(["set", "exch1", &format!("listen={listen}")]).succeeded();
        world.supervisor.forget_messages();
        let process = world.serve();
        assert!(process.said().contains(&format!("listen={listen}")), "{}", process.said());
        world.supervisor.wait_for("FDSTOREREMOVE=1\nFDNAME=stored-exch1\n");
        world.supervisor.wait_for("FDSTORE=1\nFDNAME=stored-exch1\nFDPOLL=0\n");
        assert_eq!(world.supervisor.stored(), ["stored-exch1"]);
        world.is_served();
        process.signal(Signal::SIGTERM);
        process.finish().succeeded();
    }
    let other = free_port();
    world.sandbox.run(["set", "exch1", &format!("listen=127.0.0.1:{other}")]).succeeded();
    // One more holder, as a systemd that is slow to let go.
    let _held = world.supervisor.stored_copy();
    let process = world.serve();
    assert!(process.said().contains(&format!("listen=127.0.0.1:{other}")), "{}", process.said());
    world.is_refused();
}

/// As systemd before 227 does it, which passes no names.
#[test]
fn sockets_without_names_are_used_where_the_settings_say_and_else_closed() {
    let world = World::new();
    // Its closed connections must not keep the port; systemd sets this too.
    let reuse = |socket: &Socket| socket.set_reuse_address(true).expect("a socket option");
    let wanted = listening(&format!("127.0.0.1:{}", world.port), reuse);
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut command = shell("LISTEN_FDS=2 LISTEN_PID=$$");
    world.sandbox.surround(&mut command);
    hand_over(&mut command, vec![copy(&wanted), copy(&elsewhere)]);
    let process = Live::spawn(&mut command);
    process.wait_for(" listening");
    world.is_served();
    let refused =
        TcpStream::connect(elsewhere.local_addr().expect("bound")).expect_err("a port that is not the settings'");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    process.signal(Signal::SIGTERM);
    process.finish().succeeded();
    // Where only another address was passed, the settings' is bound.
    drop((wanted, command));
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut command = shell("LISTEN_FDS=1 LISTEN_PID=$$");
    world.sandbox.surround(&mut command);
    hand_over(&mut command, vec![copy(&elsewhere)]);
    let process = Live::spawn(&mut command);
    process.wait_for(" listening");
    world.is_served();
}

#[test]
fn drain_refuses_connections_although_a_copy_of_the_socket_was_stored() {
    let world = World::new();
    let process = world.serve();
    let open = world.client().shake_hands(world.connect().expect("a connection")).expect("a handshake");
    world.supervisor.wait_for("FDSTORE=1");
    let _held = world.supervisor.stored_copy();
    world.sandbox.run(["set", "exch1", "drain_timeout=100ms"]).succeeded();
    world.sandbox.run(["drain", "exch1"]).exited(1).says("1 still open after 100ms");
    world.supervisor.wait_for("FDSTOREREMOVE=1\nFDNAME=stored-exch1\n");
    assert!(world.supervisor.stored().is_empty());
    world.is_refused();
    answer(open).expect("what was open goes on");
    process.signal(Signal::SIGTERM);
    process.finish().succeeded();
    // A restart begins anew.
    world.supervisor.forget_messages();
    let _process = world.serve();
    world.is_served();
    world.supervisor.wait_for("FDSTORE=1\nFDNAME=stored-exch1\n");
}

#[test]
fn what_is_stored_and_is_no_listening_socket_or_another_forwarders_leaves_the_store() {
    let world = World::new();
    let file = tempfile::tempfile().expect("a file");
    let foreign = TcpListener::bind("127.0.0.1:0").expect("a port");
    let first = world.supervisor.serve(&world.sandbox, &[("stored-exch1", &file), ("stored-exch2", &foreign)]);
    world.supervisor.wait_for("FDSTOREREMOVE=1\nFDNAME=stored-exch1\n");
    world.supervisor.wait_for("FDSTOREREMOVE=1\nFDNAME=stored-exch2\n");
    let refused = TcpStream::connect(foreign.local_addr().expect("bound")).expect_err("a connection");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    world.is_served();
    first.signal(Signal::SIGTERM);
    first.finish().succeeded();
    // What is in use under the name that has to be forgotten stays in the store.
    world.supervisor.forget_messages();
    let _second = world.supervisor.serve(&world.sandbox, &[("stored-exch1", &file)]);
    world.supervisor.wait_for("FDSTOREREMOVE=1\nFDNAME=stored-exch1\n");
    world.supervisor.wait_for("FDSTORE=1\nFDNAME=stored-exch1\n");
    assert_eq!(world.supervisor.stored(), ["stored-exch1"]);
    world.is_served();
}

/// A listening socket, as a unit with ListenStream= has systemd make it.
fn listening(address: &str, options: impl FnOnce(&Socket)) -> Socket {
    let address: std::net::SocketAddr = address.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    options(&socket);
    socket.bind(&address.into()).expect("a free port");
    socket.listen(100).expect("it listens");
    socket
}

#[test]
fn all_sockets_of_a_socket_unit_are_served_and_left_to_it() {
    let port = free_port();
    let world = World::listening_on(port, &port.to_string());
    let v4 = listening(&format!("0.0.0.0:{port}"), |_| {});
    let v6 = listening(&format!("[::]:{port}"), |socket| socket.set_only_v6(true).expect("a socket option"));
    let passed: [(&str, &dyn AsFd); 2] = [("exch1.socket", &v4), ("exch1.socket", &v6)];
    let process = world.supervisor.serve(&world.sandbox, &passed);
    process.wait_for(&format!("listen=0.0.0.0:{port}"));
    process.wait_for(&format!("listen=[::]:{port}"));
    for address in ["127.0.0.1", "::1"] {
        let tcp = TcpStream::connect((address, port)).expect("a connection");
        tcp.set_read_timeout(Some(TIMEOUT)).expect("a socket option");
        world.client().ask(tcp).expect("an answer");
    }
    // Neither blocks, and neither would be a child's: O_NONBLOCK and O_CLOEXEC.
    for number in [3, 4] {
        let information = format!("/proc/{}/fdinfo/{number}", process.pid());
        let text = std::fs::read_to_string(information).expect("a descriptor");
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
        let flags = i32::from_str_radix(flags.trim(), 8).expect("octal");
        assert_eq!(flags & (libc::O_NONBLOCK | libc::O_CLOEXEC), libc::O_NONBLOCK | libc::O_CLOEXEC, "{text}");
    }
    world.sandbox.run(["drain", "exch1"]).succeeded();
    process.wait_for("its socket unit goes on taking connections");
    let waiting = world.connect().expect("the unit takes it");
    process.signal(Signal::SIGTERM);
    process.finish().succeeded();
    world.supervisor.wait_for("STOPPING=1");
    assert!(world.supervisor.stored().is_empty(), "a unit's socket is kept twice");
    let _process = world.supervisor.serve(&world.sandbox, &passed);
    world.client().ask(waiting).expect("an answer of the next process");
}

#[test]
fn sockets_that_cannot_be_used_end_the_start_with_78_with_cause_and_cure() {
    let world = World::new();
    let port = world.port;
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = elsewhere.local_addr().expect("bound");
    let cause = format!("socket 'x.socket': it listens on {address}, but 'listen' says 127.0.0.1:{port}");
    let cure = "have ListenStream= of its unit and 'listen' of the forwarder say the same";
    let udp = UdpSocket::bind(("127.0.0.1", port)).expect("a port");
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let connected = TcpStream::connect(address).expect("a connection");
    let unix = std::os::unix::net::UnixListener::bind(world.sandbox.material.path().join("unix")).expect("a socket");
    let file = tempfile::tempfile().expect("a file");
    let shared = listening(&format!("127.0.0.1:{port}"), |socket| socket.set_reuse_port(true).expect("an option"));
    let (none, none_cure) =
        ("socket 'x.socket': not a listening TCP socket", "its unit needs ListenStream=[ADDRESS:]PORT and Accept=no");
    let shared_cause = "socket 'x.socket': its port may be shared with another process (SO_REUSEPORT)";
    let shared_cure = "take ReusePort= out of its unit: clients would be shared out in silence";
    let cases: [(&dyn AsFd, &str, &str); 7] = [
        (&elsewhere, &cause, cure),
        (&udp, none, none_cure),
        (&bound, none, none_cure),
        (&connected, none, none_cure),
        (&unix, none, none_cure),
        (&file, none, none_cure),
        (&shared, shared_cause, shared_cure),
    ];
    for (socket, cause, cure) in cases {
        let failed = world.refuse(&[("x.socket", socket)]).exited(78);
        assert_eq!(failed.stderr, format!("{cause}\nhint: {cure}\n"));
    }
    assert!(TcpStream::connect(address).is_ok(), "it was taken from its unit");
}

#[test]
fn descriptors_promised_but_not_there_end_the_start_and_those_of_another_process_are_nothing() {
    let world = World::new();
    let started = |assignment: &str, descriptors: usize| {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut command = shell(assignment);
        world.sandbox.surround(&mut command);
        hand_over(&mut command, (0..descriptors).map(|_| copy(&socket)).collect());
        command
    };
    let text = "LISTEN_FDS: inherited descriptors: ";
    for (assignment, cause) in [
        ("LISTEN_FDS=9 LISTEN_PID=$$", "bad file descriptor"),
        ("LISTEN_FDS=x LISTEN_PID=$$", "invalid LISTEN_FDS"),
        ("LISTEN_FDS=1 LISTEN_FDNAMES=a:b LISTEN_PID=$$", "invalid LISTEN_FDNAMES"),
    ] {
        let failed = run_to_end(&mut started(assignment, 1)).exited(78);
        assert_eq!(failed.stderr, format!("{text}{cause}\n"), "{assignment}");
    }
    for assignment in ["LISTEN_FDS=1 LISTEN_FDNAMES=a:b LISTEN_PID=1", "LISTEN_FDS=1 LISTEN_FDNAMES=a", "LISTEN_PID=$$"]
    {
        let process = Live::spawn(&mut started(assignment, 1));
        process.wait_for(" listening");
        world.is_served();
        process.signal(Signal::SIGTERM);
        process.finish().succeeded();
    }
}

#[test]
fn a_stop_asks_systemd_for_the_time_that_it_may_take_and_a_second_signal_ends_it() {
    let world = World::new();
    world.sandbox.run(["set", "exch1", "drain_timeout=2h"]).succeeded();
    let mut process = world.serve();
    let open = world.client().shake_hands(world.connect().expect("a connection")).expect("a handshake");
    process.signal(Signal::SIGTERM);
    world.supervisor.wait_for("STOPPING=1\nEXTEND_TIMEOUT_USEC=7205000000\n");
    // It stops all the same, and no sooner.
    process.signal(Signal::SIGHUP);
    process.wait_for("reload: it accepts no more connections");
    // Whoever comes now waits for the next process.
    let waiting = world.connect().expect("a connection while it stops");
    assert!(process.is_alive());
    process.signal(Signal::SIGTERM);
    process.finish().succeeded().says("stopped by a second signal: open connections were cut cut=1");
    drop(open);
    let _process = world.serve();
    world.client().ask(waiting).expect("the next process serves it");
}
