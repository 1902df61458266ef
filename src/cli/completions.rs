//! `completions`: what a shell needs to complete commands, flags and values.

use clap::{Args, CommandFactory};

use super::{Arguments, Done};

/// Print completions for a shell.
#[derive(Args)]
pub(super) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    /// Prints them.
    pub(super) fn run(self) -> Done {
        clap_complete::generate(self.shell, &mut Arguments::command(), "ewsbridge", &mut std::io::stdout());
        Ok(0)
    }
}
