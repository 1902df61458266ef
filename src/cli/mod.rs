//! What an admin types: one file a command, results on stdout, talk on stderr.
//!
//! Invariants: a command that fails says why once, with the cure, and leaves nothing half done; its
//! exit code is one of [`failed::code`].

mod add;
mod cert;
mod check;
mod completions;
mod control;
mod demo;
pub mod failed;
mod firewall;
mod flags;
mod identities;
mod install;
mod list;
mod manual;
mod outbound;
mod ports;
mod probe;
mod proof;
mod remove;
mod run;
mod set;
mod show;
mod status;
mod summary;
mod talk;
mod trust;
mod undo;

use std::fs::File;
use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Places, store};
use crate::service;
use failed::{Failed, code};
use flags::PlacesFlags;

/// Lets TLS 1.3 clients reach an old Exchange server; the bytes pass untouched.
#[derive(Parser)]
#[command(name = "ewsbridge", disable_help_subcommand = true, disable_version_flag = true)]
#[command(override_help = HELP, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    places: PlacesFlags,
    /// Print versions
    #[arg(short = 'V', long, global = true)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Add(add::Add),
    Set(set::Set),
    Remove(remove::Remove),
    List(list::List),
    Status(status::StatusCommand),
    Show(show::Show),
    Cert(cert::Cert),
    Check(check::Check),
    Probe(probe::Probe),
    Trust(trust::TrustCommand),
    Demo(demo::Demo),
    Run(run::Run),
    Reload(control::Reload),
    Drain(control::Drain),
    Install(install::Install),
    Uninstall(install::Uninstall),
    Completions(completions::Completions),
    Manual(manual::Manual),
}

const HELP: &str = "\
Usage: ewsbridge [OPTIONS] COMMAND
Lets TLS 1.3 clients reach an old Exchange server; the bytes pass untouched.
Example: ewsbridge add exch1 9443 ews.corp:443

Set up:
  add NAME PORT HOST:PORT   probe, make a certificate, start, prove the path
  set NAME KEY=VALUE...     change settings, without a restart where one can be spared
  remove NAME               stop and delete a forwarder
Look:
  list                      all forwarders, one line each
  status [NAME]             target, connections, certificates, last problems
  show NAME                 the settings in force, defaults included
  cert show NAME            the certificate that clients must trust
Diagnose:
  check NAME                walk the path, name each fault and its cure
  probe HOST:PORT           find out what a server speaks; changes nothing
  trust NAME                compare the target's certificate with the pinned one
  demo [PORT]               the whole bridge on this machine, without Exchange
Service:
  run NAME                  serve in the foreground (what the unit runs)
  reload NAME               take over changed files; no connection is cut
  drain NAME                accept no more, wait for open connections to end
  cert renew NAME           renew certificates in time (what the timer runs)
  install, uninstall        binary, units and user, where no package did it
  completions SHELL         for bash, zsh, fish
  manual SECTION            the man pages 8 and 5, for whoever makes a package

Options:
  --config-dir DIR  settings, /etc/ewsbridge     --state-dir DIR  keys, /var/lib/ewsbridge
  -h, --help        this, or: ewsbridge COMMAND --help            -V, --version
";

/// Runs the command line and returns its exit code.
pub fn main() -> ExitCode {
    crate::tls::library::init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(code::USAGE));
        }
    };
    match run(arguments).and_then(|code| talk::all_said().map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        Err(failed) => failed.report(),
    }
}

fn run(arguments: Arguments) -> Done {
    if arguments.version {
        talk::say!("ewsbridge {}", env!("CARGO_PKG_VERSION"));
        talk::say!("{}", crate::tls::library::version());
        return Ok(0);
    }
    let places = arguments.places.places();
    match arguments.command {
        None => {
            eprint!("{HELP}");
            Ok(code::USAGE)
        }
        Some(Command::Add(command)) => command.run(&places),
        Some(Command::Set(command)) => command.run(&places),
        Some(Command::Remove(command)) => command.run(&places),
        Some(Command::List(command)) => command.run(&places),
        Some(Command::Status(command)) => command.run(&places),
        Some(Command::Show(command)) => command.run(&places),
        Some(Command::Cert(command)) => command.run(&places),
        Some(Command::Check(command)) => command.run(&places),
        Some(Command::Probe(command)) => command.run(),
        Some(Command::Trust(command)) => command.run(&places),
        Some(Command::Demo(command)) => command.run(),
        Some(Command::Run(command)) => command.run(&places),
        Some(Command::Reload(command)) => command.run(&places),
        Some(Command::Drain(command)) => command.run(&places),
        Some(Command::Install(command)) => command.run(),
        Some(Command::Uninstall(command)) => command.run(),
        Some(Command::Completions(command)) => command.run(),
        Some(Command::Manual(command)) => command.run(),
    }
}

/// What a command gives back: the exit code, or why it failed.
type Done = Result<u8, Failed>;

/// Waits for a future on a runtime of its own.
fn block_on<T>(future: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    let runtime = runtime.map_err(|error| Failed::new(format!("runtime: {error}")))?;
    let done = runtime.block_on(future);
    // A look-up that hangs must not hold the command.
    runtime.shutdown_background();
    done
}

/// The same; SIGINT or SIGTERM drops the future, which takes back what it had begun.
fn interruptible(future: impl Future<Output = Done>) -> Done {
    block_on(async {
        let failed = |error: std::io::Error| Failed::new(format!("signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            done = future => done,
            _ = interrupt.recv() => Err(Failed::with(130, "interrupted")),
            _ = terminate.recv() => Err(Failed::with(143, "terminated")),
        }
    })
}

/// Keeps a second command from changing settings at the same time, as long as it is held.
///
/// The lock is on the nearest folder that exists, so that no lock file is ever left.
fn lock(places: &Places) -> Result<Flock<File>, Failed> {
    let mut folder = places.config.as_path();
    while !folder.exists() {
        folder = folder.parent().unwrap_or(std::path::Path::new("/"));
    }
    let file = File::open(folder).map_err(store::Error::io(folder, "open"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        let failed = Failed::new(format!("{}: lock: {error}", folder.display()));
        failed.hint("another ewsbridge command is changing settings; repeat this one when it is done")
    })
}

/// Only root may write where the system's forwarders live.
fn require_rights(places: &Places) -> Result<(), Failed> {
    if places.are_system() && !service::is_root() {
        let failed = Failed::with(code::NO_PERMISSION, format!("{}: permission denied", places.config.display()));
        return Err(failed.hint("run it as root: sudo ewsbridge ..."));
    }
    Ok(())
}

fn print_json(document: &impl serde::Serialize) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => talk::say!("{text}"),
        Err(error) => eprintln!("json: {error}"),
    }
}

fn rfc3339(time: time::OffsetDateTime) -> String {
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// Prints rows with their columns aligned; the last one as it is.
fn print_table<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) {
    let rows: Vec<[String; N]> = rows.into_iter().collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        talk::say!("{}", cells.join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_stands_in_the_help() {
        for command in Arguments::command().get_subcommands() {
            let name = command.get_name();
            let listed = HELP.lines().any(|line| line.starts_with("  ") && line.contains(name));
            assert!(listed, "{name} is missing in the help");
        }
        assert!(HELP.lines().all(|line| line.chars().count() <= 92));
    }
}
