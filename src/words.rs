//! How errors of the system read in our messages.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_reads_as_part_of_a_sentence() {
        assert_eq!(of(&io::Error::from_raw_os_error(nix::libc::EACCES)), "permission denied");
        assert_eq!(of(&io::Error::other("Odd")), "odd");
        assert_eq!(lower(""), "");
    }
}
