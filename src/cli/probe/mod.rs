//! `probe`: what a server speaks and how it behaves, what that means, and the command that comes next.

mod json;
mod text;

use std::io::{IsTerminal, Write};

use clap::Args;

use super::Done;
use super::failed::{Failed, code};
use super::talk;
use crate::bridge::failure::Failure;
use crate::config::Targets;
use crate::config::values::Sni;
use crate::probe::report::Report;
use crate::probe::{self, Options, Progress};

/// Find out what a server speaks; changes nothing, needs no root.
#[derive(Args)]
#[command(after_help = "Example: ewsbridge probe ews.corp:443")]
pub(super) struct Probe {
    /// The server; several, HOST:PORT,HOST:PORT, are asked one after the other
    #[arg(value_name = "HOST:PORT")]
    target: String,
    /// Server name to send: auto, off or a name
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// List every cipher suite of every version: more connections, up to 150
    #[arg(long)]
    full: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Probe {
    /// Scans and prints what was found.
    pub(super) fn run(self) -> Done {
        let usage = |what: &'static str| move |error| Failed::with(code::USAGE, format!("{what}: {error}"));
        let targets: Targets = self.target.parse().map_err(usage("HOST:PORT"))?;
        let sni = self.sni.as_deref().map_or(Ok(Sni::Auto), str::parse).map_err(usage("--sni"))?;
        let options = Options { sni, full: self.full };
        let mut found = super::block_on(async {
            let mut found = Vec::new();
            for target in targets.iter() {
                let mut line = Line::default();
                found.push(probe::run(target, &options, &mut |progress| line.show(progress)).await);
                line.clear();
            }
            Ok(found)
        })?;
        if found.len() > 1 {
            return Ok(self.print_all(&found));
        }
        match found.remove(0) {
            Ok(report) if self.json => super::print_json(&json::document(&report)),
            Ok(report) => text::lines(&report).iter().for_each(|line| talk::say!("{line}")),
            Err(failure) if self.json => {
                super::print_json(&json::failure(&failure));
                return Ok(code::FAILED);
            }
            Err(failure) => return Err(Failed::new(&failure).maybe_hint(failure.hint())),
        }
        Ok(0)
    }

    /// Prints what was found of each of several targets; exit code 1 if nothing of any.
    fn print_all(&self, found: &[Result<Report, Failure>]) -> u8 {
        if self.json {
            super::print_json(&json::all(found));
        } else {
            for (index, found) in found.iter().enumerate() {
                if index > 0 {
                    talk::say!("");
                }
                match found {
                    Ok(report) => text::lines(report).iter().for_each(|line| talk::say!("{line}")),
                    Err(failure) => {
                        talk::say!("{failure}");
                        failure.hint().iter().for_each(|hint| talk::say!("hint: {hint}"));
                    }
                }
            }
        }
        if found.iter().any(Result::is_ok) { 0 } else { code::FAILED }
    }
}

/// The line on a terminal that says what goes on, overwritten again and again.
#[derive(Default)]
struct Line {
    shown: bool,
}

/// Takes the cursor to the line's begin and clears what stands there.
const CLEAR: &str = "\r\x1b[K";
/// Longer than that would wrap and could not be overwritten.
const WIDTH: usize = 78;

impl Line {
    fn show(&mut self, progress: &Progress<'_>) {
        let mut stderr = std::io::stderr();
        if !stderr.is_terminal() || std::env::var_os("TERM").is_none_or(|term| term == "dumb") {
            return;
        }
        let text = format!("  ...   [{}/{}] {}", progress.connection, progress.most, progress.about);
        let text: String = text.chars().take(WIDTH).collect();
        // Nobody misses it where it can't be shown.
        let _ = write!(stderr, "{CLEAR}{text}").and_then(|()| stderr.flush());
        self.shown = true;
    }

    fn clear(&self) {
        if self.shown {
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "{CLEAR}").and_then(|()| stderr.flush());
        }
    }
}
