//! `status`: how forwarders stand, by what the running processes say of themselves.

mod text;

use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::failed::{Failed, code};
use super::talk::say;
use super::{Done, list};
use crate::config::{Name, Places, store};
use crate::observe::metrics;
use crate::observe::snapshot::Snapshot;
use crate::service::control::{self, Order};
use crate::service::units;

/// How forwarders stand: target, connections, certificates, rates, last problems with their cure.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 it runs, 3 it (or one of several) does not, 4 no such forwarder.")]
pub(super) struct StatusCommand {
    /// The forwarder; all of them without it
    name: Option<String>,
    /// Look again every SECONDS (default 2), until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600), conflicts_with = "output")]
    watch: Option<u64>,
    /// Print one JSON document
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// How to print it
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Write it to a file, which is replaced as a whole
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One document.
    Json,
    /// Metrics, for the textfile collector of node_exporter.
    Prometheus,
}

/// What is known of one forwarder.
struct Seen {
    name: Name,
    /// What it says of itself, while it runs.
    snapshot: Option<Snapshot>,
    /// What systemd says of it, where there is one.
    unit: Option<units::Status>,
    /// What its file has that is wrong.
    invalid: Option<String>,
}

/// How long a process may take to say how it stands.
const PATIENCE: Duration = Duration::from_secs(10);

impl StatusCommand {
    /// Prints how it stands, once or again and again.
    pub(super) fn run(self, places: &Places) -> Done {
        let format = if self.json { Format::Json } else { self.format };
        let name = self.name.as_deref().map(str::parse::<Name>).transpose();
        let name = name.map_err(|error| Failed::with(code::USAGE, error))?;
        let connections = match format {
            Format::Prometheus => Order::Summary,
            Format::Text | Format::Json => Order::Status,
        };
        loop {
            let seen = look(places, name.as_ref(), connections)?;
            let page = match format {
                Format::Text => text::page(&seen, places, self.width()),
                Format::Json => json(&seen, name.is_some(), self.watch.is_some())?,
                Format::Prometheus => prometheus(&seen),
            };
            match &self.output {
                Some(file) => write(file, &page)?,
                None => self.show(&page),
            }
            let Some(seconds) = self.watch else {
                let all_run = seen.iter().all(|one| one.snapshot.is_some());
                return Ok(if all_run { 0 } else { code::NOT_RUNNING });
            };
            super::talk::all_said()?;
            std::thread::sleep(Duration::from_secs(seconds));
        }
    }

    fn show(&self, page: &str) {
        let redraws = self.watch.is_some() && is_screen();
        // Whole pages, so that nothing flickers: home, the page with what is behind each line's end
        // erased, and what is below it.
        if redraws {
            say!("\x1b[H{}\x1b[J", page.replace('\n', "\x1b[K\n"));
        } else {
            say!("{}", page.trim_end_matches('\n'));
            if self.watch.is_some() {
                say!("");
            }
        }
        let _ = std::io::stdout().flush();
    }

    /// Columns to fill; a file and a pipe have no end.
    fn width(&self) -> Option<usize> {
        let is_shown = self.output.is_none() && std::io::stdout().is_terminal();
        is_shown.then(|| terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0).max(40)))
    }
}

/// Whether stdout is a terminal that can be drawn on.
fn is_screen() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

fn look(places: &Places, name: Option<&Name>, order: Order) -> Result<Vec<Seen>, Failed> {
    let names = match name {
        Some(name) => vec![name.clone()],
        None => store::names(places)?,
    };
    names.into_iter().map(|name| look_at(places, name, order)).collect()
}

fn look_at(places: &Places, name: Name, order: Order) -> Result<Seen, Failed> {
    let invalid = match store::load(places, &name) {
        Ok(_) => None,
        Err(store::Error::Invalid(invalid)) => Some(invalid.to_string()),
        Err(error) => return Err(error.into()),
    };
    let has_unit = places.are_system() && units::running();
    let unit = if has_unit { units::status(&name).ok() } else { None };
    Ok(Seen { snapshot: ask(places, &name, order)?, name, unit, invalid })
}

/// What the running process says; `None`: there is none.
pub(super) fn ask(places: &Places, name: &Name, order: Order) -> Result<Option<Snapshot>, Failed> {
    let failed = |text: String| Failed::new(format!("{name}: {text}"));
    match control::ask(&places.control(name), order, PATIENCE) {
        Ok(answer) => match answer.status.map(serde_json::from_value) {
            Some(Ok(snapshot)) => Ok(Some(snapshot)),
            Some(Err(error)) => Err(failed(format!("what it says can't be read: {error}"))),
            None => Err(failed(format!("it can't say how it stands: {}", answer.text))
                .hint(format!("an older version runs: systemctl restart {}", units::unit_of(name)))),
        },
        Err(control::Error::NotRunning) => Ok(None),
        Err(error @ control::Error::Denied(_)) => {
            let hint = "run it as root, or as a member of the group ewsbridge";
            Err(Failed::with(code::NO_PERMISSION, format!("{name}: {error}")).hint(hint))
        }
        Err(error @ control::Error::Broken(..)) => Err(failed(error.to_string())),
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u8,
    ok: bool,
    #[serde(flatten)]
    what: What<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What<'a> {
    One(One<'a>),
    All { forwarders: Vec<One<'a>> },
}

#[derive(Serialize)]
struct One<'a> {
    service: Option<Service<'a>>,
    /// What its file has that is wrong.
    invalid: Option<&'a str>,
    #[serde(flatten)]
    what: Running<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Running<'a> {
    Yes(&'a Snapshot),
    No { name: &'a str, state: &'a str },
}

impl<'a> One<'a> {
    fn of(seen: &'a Seen) -> Self {
        let what = match &seen.snapshot {
            Some(snapshot) => Running::Yes(snapshot),
            None => Running::No { name: seen.name.as_str(), state: state(seen) },
        };
        let service = seen.unit.as_ref();
        Self {
            service: service.map(|unit| Service { state: unit.state.as_str(), enabled: unit.enabled }),
            invalid: seen.invalid.as_deref(),
            what,
        }
    }
}

/// What systemd says.
#[derive(Serialize)]
struct Service<'a> {
    state: &'a str,
    enabled: bool,
}

fn json(seen: &[Seen], one: bool, is_stream: bool) -> Result<String, Failed> {
    let mut entries: Vec<One<'_>> = seen.iter().map(One::of).collect();
    let ok = seen.iter().all(|seen| seen.snapshot.is_some());
    let what = match (one, entries.pop()) {
        (true, Some(entry)) => What::One(entry),
        (_, last) => {
            entries.extend(last);
            What::All { forwarders: entries }
        }
    };
    let document = Document { schema: 1, ok, what };
    // A stream is one document a line.
    let text = if is_stream { serde_json::to_string(&document) } else { serde_json::to_string_pretty(&document) };
    text.map_err(|error| Failed::new(format!("json: {error}")))
}

fn prometheus(seen: &[Seen]) -> String {
    metrics::text(seen.iter().map(|one| one.snapshot.as_ref().ok_or(one.name.as_str())))
}

/// Puts a file in place as a whole, for anybody to read: whoever collects it runs as somebody else.
fn write(file: &Path, page: &str) -> Result<(), Failed> {
    let failed = |what: &str, error: &std::io::Error| {
        Failed::new(format!("{}: {what}: {}", file.display(), crate::words::of(error)))
    };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(|error| failed("create", &error))?;
    let end = if page.ends_with('\n') { "" } else { "\n" };
    new.write_all(page.as_bytes())
        .and_then(|()| new.write_all(end.as_bytes()))
        .map_err(|error| failed("write", &error))?;
    let mode = std::fs::Permissions::from_mode(0o644);
    new.as_file().set_permissions(mode).map_err(|error| failed("permissions", &error))?;
    new.persist(file).map_err(|error| failed("replace", &error.error))?;
    Ok(())
}

/// `running`, `stopped` …, with or without systemd.
fn state(seen: &Seen) -> &str {
    match (&seen.snapshot, &seen.unit) {
        (Some(snapshot), _) => &snapshot.state,
        (None, Some(unit)) => unit.state.as_str(),
        (None, None) => "stopped",
    }
}

/// How its trust is written in `list`; here for the page of one that does not run.
fn trust(places: &Places, name: &Name) -> Option<String> {
    store::load(places, name).ok().map(|settings| list::trust_text(&settings.trust))
}
