//! A child process whose lines can be waited for, ended with the test.

use super::TIMEOUT;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{self, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A running program; its output is collected while it runs, and it is killed when dropped.
pub struct Child {
    process: process::Child,
    program: String,
    pub stdout: Output,
    pub stderr: Output,
}

/// The lines a program has written so far.
#[derive(Clone, Default)]
pub struct Output(Arc<(Mutex<Seen>, Condvar)>);

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    ended: bool,
}

impl Child {
    /// Starts a program with pipes on all three ends.
    pub fn spawn(command: &mut Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let stdout = Output::collect(process.stdout.take().expect("piped"));
        let stderr = Output::collect(process.stderr.take().expect("piped"));
        Self { process, program, stdout, stderr }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Writes to its standard input, which stays open.
    pub fn say(&mut self, text: &[u8]) {
        let stdin = self.process.stdin.as_mut().expect("standard input is open");
        // A program that has ended meanwhile is judged by its status and output.
        let _ = stdin.write_all(text).and_then(|()| stdin.flush());
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        drop(self.take_input());
    }

    /// Its standard input, to keep or to drop elsewhere.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_unless(|_| ())
    }

    /// Waits for its end; `check` panics when that isn't to be expected any more.
    pub fn wait_unless(&mut self, check: impl Fn(&Self)) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("own child") {
                return status;
            }
            assert!(start.elapsed() < TIMEOUT, "{}: still running\n{}", self.program, self.all());
            check(self);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it at once, as an operator's `kill -9` would.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Everything it wrote, for a failed test's message.
    pub fn all(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", self.stdout.text(), self.stderr.text())
    }

    /// Everything it wrote by its end.
    pub fn all_at_end(&self) -> String {
        format!("{}\n{}", self.stdout.text_at_end(), self.stderr.text_at_end())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Output {
    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let output = Self::default();
        let sink = output.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            // Lines end with \n; what isn't UTF-8 is shown as it can be.
            while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
                sink.add(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
            sink.end();
        });
        output
    }

    fn add(&self, line: String) {
        self.0.0.lock().expect("no panic while held").lines.push(line);
        self.0.1.notify_all();
    }

    fn end(&self) {
        self.0.0.lock().expect("no panic while held").ended = true;
        self.0.1.notify_all();
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.0.lock().expect("no panic while held").lines.clone()
    }

    /// The text so far.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// The whole text, once the program has closed its end.
    pub fn text_at_end(&self) -> String {
        self.until(TIMEOUT, "the end of the output", |seen| seen.ended.then(|| seen.lines.join("\n")))
    }

    /// Waits for a line that contains all these texts, seen already or yet to come.
    pub fn wait_for(&self, texts: &[&str]) -> String {
        self.wait_for_nth(texts, 0)
    }

    /// Waits for the line that is the `nth` (from 0) with all these texts.
    pub fn wait_for_nth(&self, texts: &[&str], nth: usize) -> String {
        self.until(TIMEOUT, &format!("a line with {texts:?} (number {nth})"), |seen| {
            let fits = |line: &&String| texts.iter().all(|text| line.contains(text));
            seen.lines.iter().filter(fits).nth(nth).cloned()
        })
    }

    /// The same for the first such line of a program that may take longer than [`TIMEOUT`].
    pub fn wait_long_for(&self, limit: Duration, texts: &[&str]) -> String {
        self.until(limit, &format!("a line with {texts:?}"), |seen| {
            seen.lines.iter().find(|line| texts.iter().all(|text| line.contains(text))).cloned()
        })
    }

    /// How many lines contain this text by now.
    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    fn until<T>(&self, limit: Duration, what: &str, mut found: impl FnMut(&Seen) -> Option<T>) -> T {
        let start = Instant::now();
        let mut seen = self.0.0.lock().expect("no panic while held");
        loop {
            if let Some(result) = found(&seen) {
                return result;
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() || seen.ended {
                let text = seen.lines.join("\n");
                let ended = if seen.ended { " (the program closed its output)" } else { "" };
                drop(seen);
                panic!("waited in vain for {what}{ended}; there was:\n{text}");
            }
            seen = self.0.1.wait_timeout(seen, left).expect("no panic while held").0;
        }
    }
}
