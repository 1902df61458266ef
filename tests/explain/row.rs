//! A row of the tables, and what is done with it.

use std::any::Any;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Bridge, Builder, Certificate, Listening, Pki, TIMEOUT, client_hello};

/// A failure and its cure.
pub(crate) struct Row {
    /// What is wrong, for a person.
    pub(crate) what: &'static str,
    pub(crate) server: fn(&World) -> Server,
    /// The bridge's flags; `--pin` of the server's certificate unless they say otherwise.
    pub(crate) flags: &'static [&'static str],
    /// The log's text after the target's address.
    pub(crate) told: &'static str,
    pub(crate) hint: &'static str,
    pub(crate) then: Then,
}

/// As the only flag: no flag at all, so that this system's authorities judge.
pub(crate) const SYSTEM: &str = "(system)";

/// What becomes of a hint.
pub(crate) enum Then {
    /// Its flags are given, after these words were put in the place of those that it leaves open.
    Give(&'static [(&'static str, &'static str)]),
    /// The same with one of its alternatives.
    Choose(usize, &'static [(&'static str, &'static str)]),
    /// A search, which finds that these weak words must be allowed and says so.
    SearchAllowing(&'static str),
    /// A search, which ends with this text and this hint.
    SearchInVain { told: &'static str, hint: &'static str, then: &'static Then },
    /// The server is mended as the hint says.
    Mend(fn(&World) -> Server),
}

/// A server, and what its row's texts call it by.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Words in braces: `pin` is always there.
    words: Vec<(&'static str, String)>,
    _running: Vec<Box<dyn Any + Send>>,
}

impl Server {
    pub(crate) fn new(running: impl Listening + Send + 'static, certificate: &Certificate) -> Self {
        let address = running.address();
        Self { address, words: vec![("pin", certificate.pin())], _running: vec![Box::new(running)] }
    }

    /// Lives as long as this server does.
    pub(crate) fn with(mut self, running: impl Send + 'static) -> Self {
        self._running.push(Box::new(running));
        self
    }

    /// Another word for the row's texts.
    pub(crate) fn word(mut self, name: &'static str, value: impl ToString) -> Self {
        self.words.retain(|(known, _)| *known != name);
        self.words.push((name, value.to_string()));
        self
    }

    fn fill(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }
}

/// What the rows of one test share.
pub(crate) struct World {
    pub(crate) pki: Pki,
    /// An ordinary certificate of it.
    pub(crate) certificate: Certificate,
}

/// Runs every row, a few at a time, and shows all that went wrong.
pub(crate) fn run(rows: &[Row]) {
    let pki = Pki::new();
    let world = World { certificate: pki.server(), pki };
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| row.check(&world)));
                    if let Err(panic) = tried {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                        wrong.lock().unwrap().push(format!("{}: {}", row.what, text.unwrap_or_default()));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} rows:\n\n{}", wrong.len(), rows.len(), wrong.join("\n\n"));
}

impl Row {
    fn check(&self, world: &World) {
        let server = (self.server)(world);
        let flags = flags(&server, self.flags);
        let bridge = bridge(&server, &flags).start();
        is_refused(&bridge);
        let line = bridge.wait_for_log(&["target ", "client=127.0.0.1:"]).line;
        let (told, hint) = parts(&line, server.address);
        assert_eq!(told, server.fill(self.told), "\nits hint: {hint}");
        assert_eq!(hint, server.fill(self.hint));
        drop(bridge);
        apply(&self.then, &hint, &server, &flags, world);
    }
}

/// The flags with the server's words, and with its pin where nothing else vouches for it.
fn flags(server: &Server, given: &[&str]) -> Vec<String> {
    let mut flags: Vec<String> = given.iter().map(|flag| server.fill(flag)).collect();
    if given == [SYSTEM] {
        return Vec::new();
    }
    if !given.iter().any(|flag| ["--pin", "--ca", "--insecure"].contains(flag)) {
        flags.extend(["--pin".to_owned(), server.fill("{pin}")]);
    }
    flags
}

fn bridge(server: &Server, flags: &[String]) -> Builder {
    Bridge::to(&server.address).args(flags)
}

/// A client gets a fatal handshake_failure, and no more.
fn is_refused(bridge: &Bridge) {
    let mut tcp = TcpStream::connect(bridge.address()).unwrap();
    tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
    tcp.write_all(&client_hello()).unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 40], "{}", bridge.log());
}

/// Text and hint of a line in the log.
fn parts(line: &str, target: SocketAddr) -> (String, String) {
    let told = line.split(&format!("target {target}: ")).nth(1).unwrap_or(line);
    let told = told.split(" forwarder=run").next().unwrap();
    let hint = line.split(" hint=\"").nth(1).unwrap_or_default();
    (told.to_owned(), hint.trim_end_matches('"').replace("\\\"", "\""))
}

fn apply(then: &Then, hint: &str, server: &Server, flags: &[String], world: &World) {
    match then {
        Then::Give(open) => works(server, &given(flags, hint, open, server)),
        Then::Choose(number, open) => {
            let one = hint.split("; ").nth(*number).unwrap();
            works(server, &given(flags, one, open, server));
        }
        Then::SearchAllowing(words) => {
            let searching = given(flags, hint, &[], server);
            let (code, text) = bridge(server, &searching).start_in_vain();
            assert_eq!(code, 5, "{text}");
            let hint = text.split("\nhint: ").nth(1).unwrap();
            assert!(hint.ends_with(&format!(": --allow-weak={words}")), "{text}");
            works(server, &given(&searching, hint, &[], server));
        }
        Then::SearchInVain { told, hint: last, then } => {
            let searching = given(flags, hint, &[], server);
            let (code, text) = bridge(server, &searching).start_in_vain();
            assert_eq!(code, 1, "{text}");
            let expected = format!("run: target {}: {told}\nhint: {last}", server.address);
            assert_eq!(text, server.fill(&expected));
            apply(then, &server.fill(last), server, flags, world);
        }
        Then::Mend(mend) => {
            let mended = mend(world);
            // The same flags, but for the pin if the certificate is another.
            let same = flags
                .iter()
                .map(|flag| if *flag == server.fill("{pin}") { mended.fill("{pin}") } else { flag.clone() });
            works(&mended, &same.collect::<Vec<_>>());
        }
    }
}

/// The flags with those of a hint: in place of the same ones, and without those that it takes away.
fn given(flags: &[String], hint: &str, open: &[(&str, &str)], server: &Server) -> Vec<String> {
    let (hint, without) = hint.split_once(" in place of ").unwrap_or((hint, ""));
    let mut words: Vec<String> = Vec::new();
    let mut open = open.iter();
    for word in hint.split([' ', ';']).flat_map(|word| word.split_once('=').map_or(vec![word], |(a, b)| vec![a, b])) {
        words.push(match word {
            "NAME" | "FILE" => {
                let (name, value) = open.next().expect("a value for what the hint leaves open");
                assert_eq!(*name, word);
                server.fill(value)
            }
            _ => word.to_owned(),
        });
    }
    let mut new: Vec<Vec<String>> = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        if word.starts_with("--") {
            let value = words.next_if(|next| !next.starts_with("--") && !word.starts_with("--no-"));
            new.push(std::iter::once(word).chain(value).collect());
        }
    }
    assert!(!new.is_empty() || hint.is_empty(), "no flag in the hint: {hint}");
    let mut kept = Vec::new();
    let mut old = flags.iter().peekable();
    while let Some(flag) = old.next() {
        let value = old.next_if(|next| !next.starts_with("--"));
        let name = flag.split('=').next().unwrap();
        let is_replaced = new.iter().any(|new| new[0] == name) || without.split(", ").any(|other| other == name);
        if !is_replaced {
            kept.push(flag.clone());
            kept.extend(value.cloned());
        }
    }
    for flag in new {
        // Its list is optional, so the value needs the sign.
        kept.extend(if flag[0] == "--allow-weak" { vec![flag.join("=")] } else { flag });
    }
    kept
}

/// A client is served.
fn works(server: &Server, flags: &[String]) {
    let bridge = bridge(server, flags).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let served = runtime.block_on(bridge.try_client());
    assert!(served.is_ok(), "the cure does not help: {flags:?}\n{}", bridge.log());
}
