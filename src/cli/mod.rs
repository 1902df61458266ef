//! What an admin types: one file a command, results on stdout, talk on stderr.

pub mod failed;
pub mod flags;
pub mod ports;
pub mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failed::Failed;
use flags::PlacesFlags;

/// Lets TLS 1.3 clients reach an old Exchange server; the bytes pass untouched.
#[derive(Parser)]
#[command(name = "ewsbridge", disable_help_subcommand = true, version)]
struct Arguments {
    #[command(flatten)]
    places: PlacesFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve in the foreground (what the unit runs)
    Run(run::Run),
}

/// Runs the command line and returns its exit code.
pub fn main() -> ExitCode {
    crate::tls::library::init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let places = arguments.places.places();
    let done = match arguments.command {
        Command::Run(command) => command.run(&places),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(failed) => failed.report(),
    }
}

/// What a command gives back: the exit code, or why it failed.
type Done = Result<u8, Failed>;
