//! What did a child last say on its error output?
//!
//! When a server does not work, its last lines there are most often the whole explanation, so
//! they are kept for the errors that clients see and for people who look at the status. They
//! are somebody else's text: secrets that we gave the child are taken out, and what a terminal
//! would obey. However much a child writes, it is read, so that it never waits for us; a bounded
//! part is kept, and another bounded part logged.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt as _, process::ChildStderr};

use crate::weaken;

/// Lines kept.
const LINES: usize = 20;
/// Bytes of a line shown.
const LINE_BYTES: usize = 500;
/// Bytes of a line held. More than are shown, since what takes a secret's place is shorter.
const HELD_BYTES: usize = 8 * LINE_BYTES;
/// Bytes of the last lines in one error.
const SHOWN_BYTES: usize = 2000;
/// Bytes logged in a second.
const LOGGED_BYTES: usize = 64 << 10;

/// The last words of one child.
#[derive(Debug)]
pub struct Stderr {
    backend: Arc<str>,
    /// Longest first, so that a secret within another leaves nothing behind.
    secrets: Arc<[String]>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<Vec<u8>>,
    /// A line that has not ended. Often a question that nobody answers.
    open: Vec<u8>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lines", self.lines.len())
    }
}

impl Stderr {
    /// For a child of the named backend that was given these secrets.
    pub fn new(backend: Arc<str>, secrets: Arc<[String]>) -> Arc<Self> {
        Arc::new(Self { backend, secrets, kept: Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no code panics while it holds this lock")
    }

    /// The last lines, up to 2,000 bytes; none if nothing was said.
    pub fn last(&self) -> Option<String> {
        let kept = self.kept();
        let mut shown = Vec::new();
        let mut room = SHOWN_BYTES;
        let ended = kept.lines.iter().map(|line| (line, line.len() == HELD_BYTES));
        for (line, unfinished) in ended.chain([(&kept.open, true)]).rev() {
            let line = clean(line, unfinished, &self.secrets, LINE_BYTES);
            if line.is_empty() {
                continue;
            }
            let Some(rest) = room.checked_sub(line.len() + 1) else { break };
            room = rest;
            shown.push(line);
        }
        shown.reverse();
        (!shown.is_empty()).then(|| shown.join("\n"))
    }

    /// A text of the child's in which nothing is left that may not be seen.
    pub fn clean(&self, text: &[u8], longest: usize) -> String {
        clean(text, false, &self.secrets, longest)
    }

    /// Reads the error output to its end.
    pub async fn listen(self: Arc<Self>, mut pipe: ChildStderr) {
        let mut budget = Budget { since: Instant::now(), logged: 0, left_out: 0 };
        let mut bytes = vec![0; 16 << 10];
        while let Ok(read @ 1..) = pipe.read(&mut bytes).await {
            self.take(&bytes[..read], &mut budget);
        }
        budget.settle(&self.backend);
    }

    fn take(&self, mut bytes: &[u8], budget: &mut Budget) {
        let log = tracing::enabled!(tracing::Level::DEBUG);
        let mut kept = self.kept();
        // A carriage return alone ends a line too: progress bars are drawn with it.
        while let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) {
            kept.extend(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = kept.end_line();
            if log && !line.is_empty() && budget.allows(line.len(), &self.backend) {
                let text = clean(line, line.len() == HELD_BYTES, &self.secrets, LINE_BYTES);
                tracing::debug!(backend = &*self.backend, "stderr: {text}");
            }
        }
        kept.extend(bytes);
    }
}

impl Kept {
    fn extend(&mut self, bytes: &[u8]) {
        let room = HELD_BYTES - self.open.len();
        self.open.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Ends the open line, and gives it back where it is kept. Empty lines are not.
    fn end_line(&mut self) -> &[u8] {
        if self.open.trim_ascii().is_empty() {
            self.open.clear();
            return &[];
        }
        let oldest = if self.lines.len() == LINES { self.lines.pop_front() } else { None };
        let mut empty = oldest.unwrap_or_default(); // A flood of lines asks for no memory.
        empty.clear();
        self.lines.push_back(std::mem::replace(&mut self.open, empty));
        self.lines.back().map_or(&[], |line| line)
    }
}

/// How much of the output is logged.
struct Budget {
    since: Instant,
    logged: usize,
    left_out: usize,
}

impl Budget {
    fn allows(&mut self, bytes: usize, backend: &str) -> bool {
        if self.since.elapsed() > Duration::from_secs(1) {
            self.settle(backend);
        }
        let allowed = self.logged + bytes <= LOGGED_BYTES;
        *(if allowed { &mut self.logged } else { &mut self.left_out }) += bytes;
        allowed
    }

    fn settle(&mut self, backend: &str) {
        if self.left_out > 0 {
            tracing::debug!(backend, bytes = self.left_out, "stderr: more than is logged");
        }
        *self = Self { since: Instant::now(), logged: 0, left_out: 0 };
    }
}

/// The secrets of a child in the order and pieces in which they are looked for: the longest
/// first, and the lines of those that have several.
pub fn in_pieces<'a>(secrets: impl Iterator<Item = &'a str>) -> Arc<[String]> {
    let pieces = secrets.flat_map(|secret| std::iter::once(secret).chain(secret.lines()));
    let mut pieces: Vec<String> = pieces.filter(|piece| !piece.is_empty()).map(str::to_owned).collect();
    pieces.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    pieces.dedup();
    pieces.into()
}

/// A line as it may be seen. One that is not finished may end in the midst of a secret.
fn clean(text: &[u8], unfinished: bool, secrets: &[String], longest: usize) -> String {
    let mut text = String::from_utf8_lossy(text).into_owned();
    for secret in secrets {
        if text.contains(secret.as_str()) && !weaken::is("secrets-shown") {
            text = text.replace(secret.as_str(), "…");
        }
    }
    if unfinished {
        let begun = |text: &str| secrets.iter().filter_map(|secret| begun_in(text, secret)).max();
        text.truncate(text.len() - begun(&text).unwrap_or(0));
    }
    let mut text = without_controls(&text);
    if text.len() > longest {
        let cut = (0..=longest - "…".len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// How much of the text's end is the beginning of the secret.
fn begun_in(text: &str, secret: &str) -> Option<usize> {
    let parts = secret.char_indices().map(|(at, _)| at).filter(|at| *at > 0);
    parts.filter(|at| text.ends_with(&secret[..*at])).max()
}

/// The text without control characters and the terminal's orders (`ESC [ … letter`).
fn without_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.trim_end().chars();
    while let Some(next) = rest.next() {
        match next {
            '\u{1b}' if rest.as_str().starts_with('[') => {
                rest.by_ref().skip(1).find(|c| ('@'..='~').contains(c));
            }
            '\t' => out.push(' '),
            _ if next.is_control() => {}
            _ => out.push(next),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stderr(secrets: &[&str]) -> Arc<Stderr> {
        Stderr::new("b".into(), in_pieces(secrets.iter().copied()))
    }

    fn hear(stderr: &Stderr, text: &str) {
        let mut budget = Budget { since: Instant::now(), logged: 0, left_out: 0 };
        text.as_bytes().chunks(7).for_each(|bytes| stderr.take(bytes, &mut budget));
    }

    #[track_caller]
    fn check(said: &str, secrets: &[&str], expected: Option<&str>) {
        let stderr = stderr(secrets);
        hear(&stderr, said);
        assert_eq!(stderr.last().as_deref(), expected);
    }

    #[test]
    fn the_last_lines_are_kept_even_one_that_has_not_ended() {
        check("", &[], None);
        check("\n \r\n", &[], None);
        check("one\ntwo\r\n\n10 %\r20 %\rSure? ", &[], Some("one\ntwo\n10 %\n20 %\nSure?"));
        let many: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let last: Vec<_> = (80..100).map(|n| format!("line {n}")).collect();
        check(&many, &[], Some(&last.join("\n")));
    }

    #[test]
    fn what_is_kept_and_shown_is_bounded() {
        let stderr = stderr(&[]);
        hear(&stderr, &"ü".repeat(100_000));
        assert!(stderr.kept().open.len() <= HELD_BYTES);
        let last = stderr.last().unwrap();
        assert!(last.len() <= LINE_BYTES && last.ends_with('…'), "{}", last.len());
        hear(&stderr, &format!("\n{}\n", "x".repeat(5000)).repeat(50));
        assert_eq!(stderr.kept().lines.len(), LINES);
        assert!(stderr.last().unwrap().len() <= SHOWN_BYTES);
    }

    #[test]
    fn secrets_are_not_kept() {
        check("key=s3cret!\n", &["s3cret"], Some("key=…!"));
        check("key=s3cret-longer\n", &["s3cret", "s3cret-longer"], Some("key=…"));
        check("BEGIN\nline one\nline two\n", &["line one\nline two"], Some("BEGIN\n…\n…"));
        check("key=s3cr", &["s3cret"], Some("key="));
        check("key=s3cr\n", &["s3cret"], Some("key=s3cr"));
        let at_the_cut = format!("{}s3cret", "x".repeat(LINE_BYTES - 4));
        let stderr = stderr(&["s3cret"]);
        hear(&stderr, &at_the_cut);
        assert!(!stderr.last().unwrap().contains("s3"));
    }

    #[test]
    fn a_terminal_has_nothing_to_obey() {
        check("\u{1b}[31mred\u{1b}[0m\u{7}\tplain\u{1b}]0;title\n", &[], Some("red plain]0;title"));
    }

    #[test]
    fn what_is_logged_is_bounded() {
        let mut budget = Budget { since: Instant::now(), logged: 0, left_out: 0 };
        let allowed = (0..2000).filter(|_| budget.allows(100, "b")).count();
        assert!((600..=2 * LOGGED_BYTES / 100).contains(&allowed), "{allowed}");
    }
}
