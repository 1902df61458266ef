//! `manual`: the man pages, out of the program itself, for whoever makes a package.
//!
//! Prose stands in `docs/man/*.in`; commands, flags, exit codes and keys are filled in from the tables that
//! the program goes by, so that the pages can't say otherwise. `docs/man` has the result
//! (`tests/manual.rs` holds it to this).

use std::fmt::Write;

use clap::{Arg, Args, Command, CommandFactory, ValueEnum};

#[cfg(test)]
use super::failed::code;
use super::talk::say;
use super::{Arguments, Done};
use crate::config::settings::KEYS;

/// Print a man page, in roff.
#[derive(Args)]
pub(super) struct Manual {
    /// The section: 8, the commands; 5, a forwarder's file
    section: Section,
}

#[derive(Clone, Copy, ValueEnum)]
enum Section {
    #[value(name = "8")]
    Commands,
    #[value(name = "5")]
    File,
}

impl Manual {
    /// Prints it.
    pub(super) fn run(self) -> Done {
        let version = env!("CARGO_PKG_VERSION");
        let page = match self.section {
            Section::Commands => {
                let text = include_str!("../../docs/man/ewsbridge.8.in");
                let text = text.replace("@COMMANDS@\n", &commands()).replace("@OPTIONS@\n", &options());
                format!(
                    ".TH EWSBRIDGE 8 \"{DATE}\" \"ewsbridge {version}\" \"ewsbridge\"\n{}",
                    text.replace("@EXIT@\n", &exits())
                )
            }
            Section::File => {
                let text = include_str!("../../docs/man/ewsbridge.toml.5.in").replace("@KEYS@\n", &keys());
                format!(".TH EWSBRIDGE.TOML 5 \"{DATE}\" \"ewsbridge {version}\" \"ewsbridge\"\n{text}")
            }
        };
        say!(".\\\" Made by: ewsbridge manual. Change docs/man/*.in, or what the program says.\n{}", page.trim_end());
        Ok(0)
    }
}

/// Of the last change to what the pages say.
const DATE: &str = "2026-11-25";

/// What each exit code means; README has the same.
const EXITS: [(&str, &str); 9] = [
    ("0", "Done; check: the path works, perhaps with warnings."),
    ("1", "Failed, or the answer is \"no\": target unreachable, TLS refused, port in use, a FAIL in check."),
    ("2", "Wrong usage: unknown command, flag or key, malformed value."),
    ("3", "It exists but does not run."),
    ("4", "No such forwarder."),
    ("5", "A decision is missing and nobody can be asked; stderr has the command that answers it."),
    ("77", "No permission: run it as root."),
    (
        "78",
        "A file of settings is invalid, or a socket that was passed does not fit it; the unit does not restart on this one.",
    ),
    ("130, 143", "Ended by SIGINT or SIGTERM before it was done; a run that was told to stop ends with 0."),
];

fn exits() -> String {
    EXITS.iter().fold(String::new(), |page, (number, about)| page + &item(number, about))
}

fn keys() -> String {
    let mut page = String::new();
    for key in KEYS {
        let default = if key.default.is_empty() { String::new() } else { format!(" Default: {}.", key.default) };
        page += &item(key.name, &format!("{}.{default}", sentence(key.about)));
    }
    page
}

/// All commands in the order in which the program has them, those of `cert` one by one.
fn commands() -> String {
    let mut page = String::new();
    let mut all = Arguments::command();
    all.build();
    for command in all.get_subcommands() {
        let own: Vec<&Command> = command.get_subcommands().filter(|own| own.get_name() != "help").collect();
        if own.is_empty() {
            page += &one(command, command.get_name());
        }
        for own in own {
            page += &one(own, &format!("{} {}", command.get_name(), own.get_name()));
        }
    }
    page
}

fn one(command: &Command, name: &str) -> String {
    let arguments = command.get_positionals().map(positional).collect::<Vec<_>>().join(" ");
    let mut page = format!(".SS {} {}\n", bold(name), arguments).replace(" \n", "\n");
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(page, "{}.", escaped(&sentence(&about)));
    for argument in command.get_positionals() {
        page += &tagged(&positional(argument), argument);
    }
    for argument in command.get_arguments().filter(|argument| is_own(argument)) {
        page += &tagged(&flag(argument), argument);
    }
    if let Some(after) = command.get_after_help() {
        let _ = write!(page, ".PP\n.nf\n{}\n.fi\n", escaped(&after.to_string()));
    }
    page
}

/// Not one of those that stand with every command.
fn is_own(argument: &Arg) -> bool {
    let global = ["config_dir", "state_dir", "version", "help"];
    !argument.is_positional() && !argument.is_hide_set() && !global.contains(&argument.get_id().as_str())
}

fn options() -> String {
    let mut all = Arguments::command();
    all.build();
    let global = all.get_arguments().filter(|argument| !argument.is_positional());
    global.fold(String::new(), |page, argument| page + &tagged(&flag(argument), argument))
}

fn tagged(tag: &str, argument: &Arg) -> String {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let takes_values = argument.get_action().takes_values() && !values.is_empty() && values.len() < 10;
    let choice = if takes_values { format!(" One of: {}.", values.join(", ")) } else { String::new() };
    let default: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if default.is_empty() || !argument.get_action().takes_values() {
        String::new()
    } else {
        format!(" Default: {}.", default.join(", "))
    };
    format!(".TP\n{tag}\n{}\n", escaped(&format!("{}.{choice}{default}", sentence(&help))))
}

fn positional(argument: &Arg) -> String {
    let name = argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let many = argument.get_num_args().is_some_and(|count| count.max_values() > 1);
    let shown = format!("\\fI{}\\fR{}", escaped(name), if many { "..." } else { "" });
    if argument.is_required_set() { shown } else { format!("[{shown}]") }
}

fn flag(argument: &Arg) -> String {
    let short = argument.get_short().map(|short| bold(&format!("-{short}")));
    let long = argument.get_long().map(|long| bold(&format!("--{long}")));
    let names = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    let takes = argument.get_action().takes_values();
    let value = argument.get_value_names().filter(|_| takes).and_then(|names| names.first());
    match value {
        Some(value) if argument.is_require_equals_set() => format!("{names}[=\\fI{}\\fR]", escaped(value)),
        Some(value) => format!("{names} \\fI{}\\fR", escaped(value)),
        None => names,
    }
}

fn item(tag: &str, about: &str) -> String {
    format!(".TP\n{}\n{}\n", bold(tag), escaped(about))
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

/// With a capital, unless it begins with a value, and without the full stop that comes anyway.
fn sentence(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    if text.split(' ').next().is_some_and(|word| word.ends_with([':', ','])) {
        return text.to_owned();
    }
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// Text that roff prints as it stands.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq").replace('\'', "\\(aq");
    let lines =
        text.lines().map(|line| if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_of_the_program_is_explained() {
        let codes = [
            code::FAILED,
            code::USAGE,
            code::NOT_RUNNING,
            code::NO_SUCH,
            code::UNDECIDED,
            code::NO_PERMISSION,
            code::CONFIG,
        ];
        for code in codes {
            assert!(EXITS.iter().any(|(number, _)| *number == code.to_string()), "{code}");
        }
    }

    #[test]
    fn what_stands_in_a_page_is_what_was_meant() {
        assert_eq!(escaped(".x -y \\ \"z\"\n'a"), "\\&.x \\-y \\e \\(dqz\\(dq\n\\(aqa");
        assert_eq!(sentence("print it."), "Print it");
    }
}
