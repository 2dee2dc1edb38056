//! How do rows and texts of strangers look on a terminal?
//!
//! What a server says of itself is a stranger's text. On a terminal, control characters in it
//! could move the cursor or change what was printed before, so they are left out there.

use std::{borrow::Cow, env, io, io::IsTerminal as _};

/// Rows below their heads, each column as wide as its widest cell. Numbers stand to the right.
pub fn draw(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let right: Vec<_> = (0..heads.len())
        .map(|column| {
            !rows.is_empty() && rows.iter().all(|row| row[column].bytes().all(|b| b.is_ascii_digit()))
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.enumerate().map(|(column, cell)| {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if right[column] { pad + cell } else { cell.to_owned() + &pad }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let head = line(&mut heads.iter().copied());
    rows.iter().fold(head, |text, row| text + &line(&mut row.iter().map(String::as_str)))
}

/// The text without what moves the cursor, other than to the next line or column.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(harmful) { Cow::Owned(text.replace(harmful, "")) } else { Cow::Borrowed(text) }
}

/// The text as it goes to standard output: whole for programs, harmless on a terminal.
pub fn for_output(text: &str) -> Cow<'_, str> {
    if io::stdout().is_terminal() { harmless(text) } else { Cow::Borrowed(text) }
}

/// The beginning of a text, on one line.
pub fn shortened(text: &str, longest: usize) -> String {
    let line = harmless(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= longest {
        return line;
    }
    let cut: String = line.chars().take(longest.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// May colours be used on standard error?
pub fn colours() -> bool {
    let said_no = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
    io::stderr().is_terminal() && !said_no && !dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "10", "x"], ["längst", "5", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(draw(&["name", "n", "why"], &rows), "name     n  why\na       10  x\nlängst   5\n");
    }

    #[test]
    fn a_text_of_a_stranger_cannot_move_the_cursor() {
        assert_eq!(harmless("a\u{1b}[2Jb\rc\n\td\u{9b}1m"), "a[2Jbc\n\td1m");
        assert_eq!(shortened("one two\n three four", 10), "one two t…");
    }
}
