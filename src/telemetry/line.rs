//! How does an event stay on its line, whatever it says?
//!
//! Names of tools, subjects of tokens, headers and error messages are texts of strangers. One with
//! a line end in it could forge an event, and one with a terminal's order in it could hide one. So
//! what ends a line, moves the cursor or turns the direction of writing is shown as its number.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

use crate::weaken;

/// Does the letter act on how a line is shown?
fn acts(letter: char) -> bool {
    (letter.is_control() && letter != '\t')
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with `\n` or `\u{2028}` in place of letters that act.
pub fn one_line(text: &str) -> Cow<'_, str> {
    replaced(text, acts, |letter, out| out.extend(letter.escape_default()))
}

/// The same for JSON, in which such letters stand in texts only.
pub fn one_line_of_json(text: &str) -> Cow<'_, str> {
    replaced(text, acts, |letter, out| {
        let _ = write!(out, "\\u{:04x}", u32::from(letter)); // A String takes everything.
    })
}

fn replaced(text: &str, is: fn(char) -> bool, put: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if weaken::is("log-raw") || is_plain(text) || !text.contains(is) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is(letter) { put(letter, &mut out) } else { out.push(letter) }
    }
    Cow::Owned(out)
}

/// Has it only visible letters of ASCII, as most lines have? All bytes are looked at, many at once.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'))
}

/// A place for events, each of which comes as one text that ends with its line.
#[derive(Debug)]
pub struct OneLine<W> {
    pub to: W,
    pub json: bool,
    /// The colours that are usual here may stand in it. A stranger could paint with them too, but
    /// not hide anything.
    pub coloured: bool,
}

/// What follows the letter that begins a terminal's order, in all orders that may be given.
const COLOURS: [&str; 9] = ["[0m", "[1m", "[2m", "[3m", "[31m", "[32m", "[33m", "[34m", "[35m"];

/// The text as one line in which nothing but colours is ordered.
fn one_line_in_colours(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{1b}') {
        return one_line(text);
    }
    let mut parts = text.split('\u{1b}');
    let mut out = one_line(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let ours = weaken::is("log-raw") || COLOURS.iter().any(|colour| part.starts_with(colour));
        out.push_str(if ours { "\u{1b}" } else { "\\u{1b}" });
        out.push_str(&one_line(part));
    }
    Cow::Owned(out)
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        let line = match (self.json, self.coloured) {
            (true, _) => one_line_of_json(text),
            (false, false) => one_line(text),
            (false, true) => one_line_in_colours(text),
        };
        // In one piece, so that lines of several threads do not mix.
        self.to.write_all([&*line, end].concat().as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str, json: &str) {
        assert_eq!(one_line(text), expected);
        assert_eq!(one_line_of_json(text), json);
    }

    #[test]
    fn what_acts_on_a_line_is_shown_as_its_number() {
        check("plain, tür\t", "plain, tür\t", "plain, tür\t");
        check("a\nb\rc", "a\\nb\\rc", "a\\u000ab\\u000dc");
        check("\u{1b}[2J", "\\u{1b}[2J", "\\u001b[2J");
        check("\u{2028}\u{85}\u{202e}", "\\u{2028}\\u{85}\\u{202e}", "\\u2028\\u0085\\u202e");
    }

    #[test]
    fn only_the_end_of_an_event_ends_its_line() {
        let write = |event: &str, coloured| {
            let mut out = OneLine { to: Vec::new(), json: false, coloured };
            out.write_all(event.as_bytes()).unwrap();
            String::from_utf8(out.to).unwrap()
        };
        assert_eq!(write("a\n\nb\n", false), "a\\n\\nb\n");
        assert_eq!(write("\u{1b}[31mred\u{1b}[0m a\nb\n", true), "\u{1b}[31mred\u{1b}[0m a\\nb\n");
        assert_eq!(write("\u{1b}[8mhid\u{1b}[2Jden\u{1b}", true), "\\u{1b}[8mhid\\u{1b}[2Jden\\u{1b}");
    }
}
