//! How commands talk: a step a line on stderr, a word and not a colour for its meaning; questions.

use std::fmt::{self, Display};
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use super::failed::Failed;

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    /// Done, or as it should be.
    Ok,
    /// It works, but somebody should know.
    Warn,
    /// It does not work.
    Fail,
    /// Not looked at.
    Skip,
}

impl Word {
    /// The word, four columns wide, coloured only where a person looks.
    fn shown(self, colour: bool) -> String {
        let (word, code) = match self {
            Self::Ok => ("ok  ", 32),
            Self::Warn => ("warn", 33),
            Self::Fail => ("FAIL", 31),
            Self::Skip => ("skip", 36),
        };
        if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

/// Prints one step to stderr.
pub(super) fn step(word: Word, text: impl Display) {
    // Who no longer reads the talk must not stop the work.
    let _ = writeln!(io::stderr(), "  {}  {text}", word.shown(colour(io::stderr().is_terminal())));
}

/// A duration for people: `0.8 ms`.
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Prints one step to stdout, where the steps are the result.
pub(super) fn result(word: Word, text: impl Display) {
    say!("  {}  {text}", word.shown(colour(io::stdout().is_terminal())));
}

/// Prints a line of the result to stdout, where `println!` would panic if it can't be written.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::talk::write_line(format_args!($($text)*)) };
}
pub(super) use say;

/// Why a line of the result was lost.
static LOST: OnceLock<String> = OnceLock::new();

/// What [`say!`] calls.
pub(super) fn write_line(text: fmt::Arguments<'_>) {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => {}
        // The reader has had enough, as `head` has after ten lines.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => _ = LOST.set(crate::words::of(&error)),
    }
}

/// Whether every line of the result was written, or its reader wanted no more.
///
/// # Errors
/// What the system said of a line that is lost, on a full disk say.
pub(super) fn all_said() -> Result<(), Failed> {
    LOST.get().map_or(Ok(()), |cause| Err(Failed::new(format!("standard output: write: {cause}"))))
}

/// `NO_COLOR` beats `CLICOLOR_FORCE` beats the terminal.
fn colour(terminal: bool) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    !is_set("NO_COLOR") && (is_set("CLICOLOR_FORCE") || (terminal && !dumb))
}

/// Whether somebody is there to be asked.
pub(super) fn can_ask(no_input: bool) -> bool {
    !no_input && io::stdin().is_terminal()
}

/// Asks on the terminal and returns one trimmed line; `None` at its end.
pub(super) fn ask(question: &str) -> Option<String> {
    eprint!("{question} ");
    let _ = io::stderr().flush();
    let mut line = String::new();
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim().to_owned()),
    }
}

/// The command line as it was typed, fit to be pasted, without some flags and their values.
pub(super) fn typed_without(flags: &[&str]) -> String {
    std::iter::once("ewsbridge".to_owned())
        .chain(without(std::env::args().skip(1), flags))
        .collect::<Vec<_>>()
        .join(" ")
}

fn without(mut words: impl Iterator<Item = String>, flags: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if flags.contains(&word.as_str()) {
            words.next();
        } else if !word.split_once('=').is_some_and(|(flag, _)| flags.contains(&flag)) {
            kept.push(quoted(word));
        }
    }
    kept
}

/// A word as a shell must be given it.
fn quoted(word: String) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@+[]".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Whether the terminal's language can be shown letters beyond ASCII.
pub(super) fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_can_be_pasted_again_without_some_flags() {
        let words = ["add", "x", "--ca", "my ca's.pem", "--accept=sha1", "--san", "mail corp"].map(str::to_owned);
        assert_eq!(without(words.clone().into_iter(), &["--ca", "--accept"]), ["add", "x", "--san", "'mail corp'"]);
        assert_eq!(without(words.into_iter(), &[])[3], r"'my ca'\''s.pem'");
    }
}
