//! How errors of the system, and texts from outside, read in our messages.

use std::io;

/// An I/O error as a part of a sentence: lower case, without its number.
pub fn of(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    lower(text)
}

/// A text that begins with a small letter.
pub fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// The text with everything escaped that could move a cursor, end a line of the log or reverse it.
pub fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_reads_as_part_of_a_sentence() {
        assert_eq!(of(&io::Error::from_raw_os_error(nix::libc::EACCES)), "permission denied");
        assert_eq!(of(&io::Error::other("Odd")), "odd");
        assert_eq!(lower(""), "");
    }

    #[test]
    fn what_is_shown_moves_no_cursor_and_ends_no_line() {
        assert_eq!(printable("a\x1b[2J\n\u{202e}ж"), "a\\u{1b}[2J\\n\\u{202e}ж");
    }
}
