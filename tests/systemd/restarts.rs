//! Restarts, crashes, drains and stops under a real systemd: who keeps the listening socket, and how long.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::host::{Server, file_in};
use super::{SETTINGS, UNIT, World};

#[test]
fn the_listening_socket_outlives_the_process_and_not_the_service() {
    let world = World::new("bookworm");
    world.install();
    world.add("exch1 9443").succeeded();

    restarts_and_a_crash_under_load_refuse_nobody(&world);
    a_process_that_falls_silent_is_started_again_and_refuses_nobody(&world);
    another_address_closes_the_stored_socket(&world);
    a_drain_takes_the_socket_out_of_the_store(&world);
    a_stop_and_a_fault_of_configuration_close_the_port(&world);
    a_long_drain_is_not_killed_and_a_second_signal_ends_it(&world);
    a_socket_unit_of_the_admins_own_is_used_and_must_agree(&world);
}

fn restarts_and_a_crash_under_load_refuse_nobody(world: &World) {
    let load = Load::start(world);
    for _ in 0..10 {
        load.goes_on();
        world.host.ok(&format!("systemctl restart {UNIT}"));
    }
    load.goes_on();
    // Nor does a signal that systemd has not sent.
    let killed = |signal| {
        let pid = world.host.property(UNIT, "MainPID");
        world.host.ok(&format!("kill -{signal} {pid}"));
        world.host.wait_until(&format!(
            "systemctl is-active --quiet {UNIT} && [ $(systemctl show --property MainPID --value {UNIT}) != {pid} ]"
        ));
        load.goes_on();
    };
    killed("TERM");
    assert_eq!(load.seen().failures, Vec::<String>::new(), "a restart lost a connection");
    killed("KILL");
    let (served, failures) = load.end();
    println!("{served} connections served during 11 restarts and a crash; cut by the crash: {failures:?}");
    // What was open went with the process that had it: at most one connection a client.
    assert!(!failures.iter().any(|failure| failure.contains("refused")), "{failures:?}");
    assert!(failures.len() <= CLIENTS, "{failures:?}");
    assert_eq!(world.host.property(UNIT, "NRestarts"), "2");
    assert_eq!(stored(world), "1");
    world.assert_path(9443);
}

fn a_process_that_falls_silent_is_started_again_and_refuses_nobody(world: &World) {
    let host = &world.host;
    assert_eq!(host.property(UNIT, "WatchdogUSec"), "1min");
    let folder = format!("/etc/systemd/system/{UNIT}.service.d");
    host.ok(&format!("mkdir {folder} && printf '[Service]\\nWatchdogSec=3s\\n' >{folder}/short.conf"));
    host.ok(&format!("systemctl daemon-reload && systemctl restart {UNIT}"));
    let load = Load::start(world);
    // Longer than the watchdog waits: it is proved alive meanwhile.
    let pid = host.property(UNIT, "MainPID");
    thread::sleep(Duration::from_secs(5));
    load.goes_on();
    assert_eq!(host.property(UNIT, "MainPID"), pid, "it was restarted for nothing");
    let restarts = host.property(UNIT, "NRestarts");
    host.ok(&format!("kill -STOP {pid}"));
    host.wait_until(&format!(
        "systemctl is-active --quiet {UNIT} && [ $(systemctl show --property NRestarts --value {UNIT}) != {restarts} ]"
    ));
    load.goes_on();
    let (served, failures) = load.end();
    println!("{served} connections served beside a process that fell silent; cut with it: {failures:?}");
    assert!(!failures.iter().any(|failure| failure.contains("refused")), "{failures:?}");
    assert!(failures.len() <= CLIENTS, "{failures:?}");
    host.ok("journalctl --sync");
    let told = host.ok(&format!("journalctl --quiet --unit {UNIT} --grep 'Watchdog timeout|result .watchdog.'"));
    assert!(told.contains("atchdog"), "{told}");
    host.ok(&format!("rm -r {folder} && systemctl daemon-reload && systemctl restart {UNIT}"));
    world.assert_path(9443);
}

fn another_address_closes_the_stored_socket(world: &World) {
    // The same port, then another one.
    for (listen, listeners) in
        [("0.0.0.0:9443", "0.0.0.0:9443\n"), ("0.0.0.0:9444", "0.0.0.0:9444\n"), ("9443", "*:9443\n")]
    {
        world.host.ewsbridge(&format!("set exch1 listen={listen}")).succeeded();
        assert_eq!(listening(world), listeners);
        assert_eq!(stored(world), "1");
    }
    world.assert_path(9443);
}

fn a_drain_takes_the_socket_out_of_the_store(world: &World) {
    world.host.ewsbridge("drain exch1").succeeded().says("exch1: drained");
    assert_eq!(listening(world), "");
    world.host.wait_until(&format!("[ $(systemctl show --property NFileDescriptorStore --value {UNIT}) = 0 ]"));
    assert_eq!(world.host.property(UNIT, "ActiveState"), "active");
    world.host.ok(&format!("systemctl restart {UNIT}"));
    assert_eq!(stored(world), "1");
    world.assert_path(9443);
}

fn a_stop_and_a_fault_of_configuration_close_the_port(world: &World) {
    let host = &world.host;
    host.ok(&format!("systemctl stop {UNIT}"));
    assert_eq!((listening(world).as_str(), stored(world).as_str()), ("", "0"));
    host.ok(&format!("systemctl start {UNIT}"));
    world.assert_path(9443);

    host.ok(&format!("cp -p {SETTINGS} /tmp/good && echo 'lisen = 1' >>{SETTINGS}"));
    assert_ne!(host.sh(&format!("systemctl restart {UNIT}")).code, Some(0));
    assert_eq!(
        (host.property(UNIT, "ActiveState"), host.property(UNIT, "ExecMainStatus")),
        ("failed".into(), "78".into())
    );
    assert_eq!(listening(world), "", "connections are taken for nobody");
    host.ok(&format!("cp -p /tmp/good {SETTINGS} && rm /tmp/good && systemctl start {UNIT}"));
    world.assert_path(9443);
}

fn a_long_drain_is_not_killed_and_a_second_signal_ends_it(world: &World) {
    let host = &world.host;
    let folder = format!("/etc/systemd/system/{UNIT}.service.d");
    host.ok(&format!("mkdir {folder} && printf '[Service]\\nTimeoutStopSec=1s\\n' >{folder}/impatient.conf"));
    host.ok("systemctl daemon-reload");
    host.ewsbridge("set exch1 drain_timeout=5s").succeeded();
    let open = open_client(world);
    let begun = Instant::now();
    host.ok(&format!("systemctl stop {UNIT}"));
    assert!(begun.elapsed() >= Duration::from_secs(5), "it was killed after {:?}", begun.elapsed());
    assert_eq!(host.property(UNIT, "Result"), "success");
    assert!(last_lines(world).contains("stopped: open connections were cut cut=1"), "{}", last_lines(world));
    drop(open);

    host.ewsbridge("set exch1 drain_timeout=1h").succeeded();
    host.ok(&format!("systemctl start {UNIT}"));
    let open = open_client(world);
    let pid = host.property(UNIT, "MainPID");
    host.ok(&format!("systemctl stop --no-block {UNIT}"));
    host.wait_until(&format!(
        "journalctl --sync; journalctl --quiet _PID={pid} | grep -q 'stopping: open connections'"
    ));
    // A reload is answered and changes nothing of it.
    host.ok(&format!("kill -HUP {pid}"));
    host.wait_until(&format!("journalctl --sync; journalctl --quiet _PID={pid} | grep -q 'it accepts no more'"));
    assert_eq!(host.property(UNIT, "ActiveState"), "deactivating");
    host.ok(&format!("kill -TERM {pid}"));
    host.wait_until(&format!("[ $(systemctl show --property ActiveState --value {UNIT}) = inactive ]"));
    assert_eq!(host.property(UNIT, "Result"), "success");
    assert!(last_lines(world).contains("stopped by a second signal"), "{}", last_lines(world));
    drop(open);
    host.ewsbridge("set exch1 drain_timeout=30s").succeeded();
    host.ok(&format!("rm -r {folder} && systemctl daemon-reload"));
}

fn a_socket_unit_of_the_admins_own_is_used_and_must_agree(world: &World) {
    let host = &world.host;
    let unit = |streams: &str| {
        let text = format!("[Socket]\\n{streams}BindIPv6Only=ipv6-only\\nService={UNIT}.service\\n");
        host.ok("systemctl stop exch1.socket 2>/dev/null || true");
        host.ok(&format!("systemctl stop {UNIT}; systemctl reset-failed {UNIT} 2>/dev/null || true"));
        host.ok(&format!("printf '{text}' >/etc/systemd/system/exch1.socket && systemctl daemon-reload"));
        host.ok("systemctl start exch1.socket");
    };
    unit("ListenStream=0.0.0.0:9443\\nListenStream=[::]:9443\\n");
    assert_eq!(host.property(UNIT, "ActiveState"), "inactive");
    // The first client starts it.
    world.assert_path(9443);
    assert_eq!(host.property(UNIT, "ActiveState"), "active");
    assert_eq!(stored(world), "0", "the socket unit keeps them");
    let pid = host.property(UNIT, "MainPID");
    let sockets = host.ok("ss -Hltnp sport = :9443");
    assert_eq!(sockets.matches(&format!("pid={pid},")).count(), 2, "{sockets}");
    let load = Load::start(world);
    for _ in 0..3 {
        load.goes_on();
        host.ok(&format!("systemctl restart {UNIT}"));
    }
    load.goes_on();
    assert_eq!(load.end().1, Vec::<String>::new());

    unit("ListenStream=0.0.0.0:9555\\n");
    assert_ne!(host.sh(&format!("systemctl start {UNIT}")).code, Some(0));
    assert_eq!(
        (host.property(UNIT, "ActiveState"), host.property(UNIT, "ExecMainStatus")),
        ("failed".into(), "78".into())
    );
    let said = last_lines(world);
    assert!(said.contains("socket 'exch1.socket': it listens on 0.0.0.0:9555, but 'listen' says [::]:9443"), "{said}");
    assert!(said.contains("hint: have ListenStream= of its unit"), "{said}");

    host.ok("systemctl stop exch1.socket && rm /etc/systemd/system/exch1.socket && systemctl daemon-reload");
    host.ok(&format!("systemctl start {UNIT}"));
    assert_eq!(stored(world), "1");
    world.assert_path(9443);
}

/// How many sockets the store holds.
fn stored(world: &World) -> String {
    world.host.property(UNIT, "NFileDescriptorStore")
}

/// Where anybody listens on the ports that these tests use.
fn listening(world: &World) -> String {
    world.host.ok("ss -Hltn '( sport = :9443 or sport = :9444 )' | tr -s ' ' | cut -d ' ' -f 4")
}

fn last_lines(world: &World) -> String {
    world.host.ok(&format!("journalctl --sync; journalctl --no-pager --output=cat --lines=8 --unit={UNIT}"))
}

/// A client outside that has shaken hands and stays.
fn open_client(world: &World) -> Server {
    let ca = ca_file(world);
    let client = ["openssl", "s_client", "-connect", ADDRESS, "-CAfile", &ca, "-ign_eof"];
    world.host.serve_outside(&client, "Verify return code: 0 (ok)")
}

fn ca_file(world: &World) -> String {
    let shown = world.host.ewsbridge("cert show exch1").succeeded();
    file_in(world.folder.path(), "ca.pem", &shown.out).to_string_lossy().into_owned()
}

const ADDRESS: &str = "203.0.113.2:9443";
pub(super) const CLIENTS: usize = 4;

/// Clients outside that come without a pause; each line is one connection's end.
const LOAD: &str = r#"
import socket, ssl, sys, threading
host, port = sys.argv[1].split(":")
context = ssl.create_default_context(cafile=sys.argv[2])
stop, out = threading.Event(), threading.Lock()

def visit():
    tcp = socket.create_connection((host, int(port)), 60)
    with context.wrap_socket(tcp, server_hostname=host) as tls:
        tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while part := tls.recv(65536):
            answer += part
    if not answer.startswith(b"HTTP/1.0 200 ok"):
        raise ValueError("answer: %r" % answer[:40])

def client():
    while not stop.is_set():
        try:
            visit()
            line = "served"
        except Exception as error:
            line = "failed: %r" % error
        with out:
            print(line, flush=True)

clients = [threading.Thread(target=client) for _ in range(int(sys.argv[3]))]
for thread in clients:
    thread.start()
sys.stdin.read()
stop.set()
for thread in clients:
    thread.join()
"#;

pub(super) struct Load {
    child: Child,
    input: Option<ChildStdin>,
    seen: Arc<Mutex<Seen>>,
    reader: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    served: usize,
    failures: Vec<String>,
}

impl Load {
    pub(super) fn start(world: &World) -> Self {
        let mut command = world.host.outside(&["python3", "-c", LOAD, ADDRESS, &ca_file(world), &CLIENTS.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("it is piped"));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let told = Arc::clone(&seen);
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut seen = told.lock().unwrap_or_else(PoisonError::into_inner);
                match line.as_str() {
                    "served" => seen.served += 1,
                    // Some are enough to tell.
                    _ if seen.failures.len() > 20 => {}
                    _ => seen.failures.push(line),
                }
            }
        });
        Self { child, input, seen, reader: Some(reader) }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until each client may have been served once more.
    pub(super) fn goes_on(&self) {
        let (begun, before) = (Instant::now(), self.seen().served);
        while self.seen().served < before + 2 * CLIENTS {
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody is served: {:?}", self.seen().failures);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has each client come to its end; how many were served, and what failed.
    pub(super) fn end(mut self) -> (usize, Vec<String>) {
        drop(self.input.take());
        assert!(self.child.wait().expect("own child").success());
        self.reader.take().expect("not joined yet").join().expect("no panic");
        let seen = std::mem::take(&mut *self.seen());
        (seen.served, seen.failures)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
