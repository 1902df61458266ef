//! The process edge: run the command that was typed, print its error once, choose the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ewsbridge::cli::main()
}
