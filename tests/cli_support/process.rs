//! Child processes: run to their end, or alive and listened to.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::TIMEOUT;

/// What a process said and how it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; 128 and the signal's number if it was killed.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// stderr without the lines of steps and their details: the error, then its hint.
    pub fn error(&self) -> String {
        let is_step =
            |line: &str| line.starts_with("  ok  ") || line.starts_with("  skip") || line.starts_with("  warn");
        let mut text = String::new();
        for line in self.stderr.lines().filter(|line| !is_step(line) && !line.starts_with("          ")) {
            writeln!(text, "{line}").expect("a String takes everything");
        }
        text
    }

    /// Everything that was printed, a terminal's line ends made ordinary.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr).replace('\r', "")
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.all().contains(text), "'{text}' is missing in\n{}", self.all());
        self
    }
}

/// Runs a command to its end, without any input.
#[track_caller]
pub fn run_to_end(command: &mut Command) -> Outcome {
    Live::spawn(command).finish()
}

#[derive(Default)]
struct Heard {
    text: Mutex<String>,
    more: Condvar,
}

/// A process that is alive; it is killed when this goes out of scope.
pub struct Live {
    child: Child,
    stdout: Arc<Heard>,
    stderr: Arc<Heard>,
    readers: Vec<JoinHandle<()>>,
    what: String,
}

impl Live {
    /// Starts it with no input.
    pub fn spawn(command: &mut Command) -> Self {
        Self::start(command.stdin(Stdio::null()))
    }

    /// Starts it with an input that stays open.
    pub fn spawn_with_input(command: &mut Command) -> Self {
        Self::start(command.stdin(Stdio::piped()))
    }

    fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        // A group of its own: some programs, faketime for one, run what they are told as a child.
        let mut child = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let (stdout, out) = listen(child.stdout.take().expect("piped"));
        let (stderr, err) = listen(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr, readers: vec![out, err], what }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types into the process.
    pub fn input(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("spawned with input");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("a living process");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).expect("a living process");
    }

    /// Waits until it has said this; gives back the whole line.
    #[track_caller]
    pub fn wait_for(&self, wanted: &str) -> String {
        let start = Instant::now();
        // Two streams, one wait: look at each in turn.
        while start.elapsed() < TIMEOUT {
            for heard in [&self.stdout, &self.stderr] {
                let text = heard.text.lock().expect("no panic while it was held");
                let (text, _) = heard
                    .more
                    .wait_timeout_while(text, std::time::Duration::from_millis(10), |text| !text.contains(wanted))
                    .expect("no panic while it was held");
                if let Some(at) = text.find(wanted) {
                    let from = text[..at].rfind('\n').map_or(0, |end| end + 1);
                    let to = text[at..].find('\n').map_or(text.len(), |end| at + end);
                    return text[from..to].to_owned();
                }
            }
        }
        panic!("{}: never said '{wanted}', but:\n{}", self.what, self.said());
    }

    /// All that it has said so far.
    pub fn said(&self) -> String {
        [&self.stdout, &self.stderr]
            .map(|heard| heard.text.lock().expect("no panic while it was held").clone())
            .concat()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Outcome {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(start.elapsed() < TIMEOUT, "{}: does not end; it said:\n{}", self.what, self.said());
            thread::sleep(std::time::Duration::from_millis(2));
        };
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader"));
        let text = |heard: &Heard| heard.text.lock().expect("no panic while it was held").clone();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let code = status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default());
        Outcome { code, stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // The whole group; none is left where all of it has ended.
        let _ = killpg(Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn listen(mut from: impl Read + Send + 'static) -> (Arc<Heard>, JoinHandle<()>) {
    let heard = Arc::new(Heard::default());
    let told = Arc::clone(&heard);
    let reader = thread::spawn(move || {
        let (mut buffer, mut pending) = ([0; 4096], Vec::new());
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            pending.extend_from_slice(&buffer[..count]);
            // A letter may lie across two reads.
            let whole = std::str::from_utf8(&pending).map_or_else(|error| error.valid_up_to(), str::len);
            let rest = pending.split_off(whole);
            told.text.lock().expect("no panic while it was held").push_str(&String::from_utf8_lossy(&pending));
            pending = rest;
            told.more.notify_all();
        }
        told.text.lock().expect("no panic while it was held").push_str(&String::from_utf8_lossy(&pending));
        told.more.notify_all();
    });
    (heard, reader)
}
