//! Is the head of a request written so that nobody reads another request out of it?
//!
//! hyper reads heads, and is kinder than a server behind or before other servers may be: it takes
//! lines that end without CR, and a length beside chunks, and nothing of that is left in what it
//! passes on. So the bytes are looked at on their way to it. This does not read requests: it
//! follows where heads begin and end, and says which of them hyper's result is not to be used of.

use super::limits::Settings;

/// Why a request is refused for how its head is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A line that ends without CR.
    BareLf,
    /// More than one statement of how long the body is.
    Lengths,
    /// A line, or all of them together, are too long.
    TooLong,
    /// It came together with the end of a body in chunks, where heads are not seen.
    Unseen,
}

/// Follows one connection.
#[derive(Debug)]
pub struct Scanner {
    at: At,
    line_limit: usize,
    /// A line whose end has not come.
    partial: Vec<u8>,
    head: Head,
    /// How many heads have come to their end.
    seen: u32,
    malformed: Option<(u32, Malformed)>,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Head,
    /// In a body of which so much is still to come.
    Body(u64),
    /// In a body of chunks, with the last bytes of it that came.
    Chunks([u8; 4]),
}

/// What is known of the head that is coming.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Scanner {
    pub fn new(settings: &Settings) -> Self {
        Self {
            at: At::Head,
            line_limit: settings.header_size.0,
            partial: Vec::new(),
            head: Head::default(),
            seen: 0,
            malformed: None,
        }
    }

    /// What is wrong with the request of this number, the first being 0.
    pub fn verdict(&self, number: u32) -> Option<Malformed> {
        match self.malformed {
            Some((of, malformed)) if of <= number => Some(malformed),
            _ if number >= self.seen => Some(Malformed::Unseen),
            _ => None,
        }
    }

    /// These bytes have come.
    pub fn come(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.malformed.is_none() {
            match &mut self.at {
                At::Head => bytes = self.lines(bytes),
                At::Body(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        self.at = At::Head;
                    }
                }
                At::Chunks(last) => {
                    let kept = bytes.len().min(last.len());
                    last.rotate_left(kept);
                    let from = last.len() - kept;
                    last[from..].copy_from_slice(&bytes[bytes.len() - kept..]);
                    return;
                }
            }
        }
    }

    /// All requests that came have been answered, and the next is waited for. Has some of it come?
    pub fn rest(&mut self) -> bool {
        if let At::Chunks(last) = self.at {
            self.at = At::Head;
            // No part of a head ends as the last chunk does, so nothing of the next has come.
            if last != *b"\r\n\r\n" {
                self.fault(Malformed::Unseen);
            }
        }
        self.head.begun || !self.partial.is_empty() || self.malformed.is_some()
    }

    /// Reads lines up to the end of the head; gives back what comes behind it.
    fn lines<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            let rest = &bytes[at + 1..];
            let ended = if self.partial.is_empty() {
                self.line(&bytes[..at])
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(&bytes[..at]);
                self.line(&line)
            };
            bytes = rest;
            if ended || self.malformed.is_some() {
                return bytes;
            }
        }
        if self.partial.len() + bytes.len() > self.line_limit {
            self.fault(Malformed::TooLong);
        } else {
            self.partial.extend_from_slice(bytes);
        }
        &[]
    }

    /// Is it the last of the head?
    fn line(&mut self, line: &[u8]) -> bool {
        let Some((b'\r', line)) = line.split_last() else {
            self.fault(Malformed::BareLf);
            return true;
        };
        match line.first() {
            // Empty lines before a request are none of it.
            None => return self.head.begun && self.ended(),
            Some(b'C' | b'c') => {
                if let Some(value) = value_of(line, b"content-length:") {
                    let length = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
                    // hyper refuses what is no number.
                    let again = self.head.length.replace(length.unwrap_or(0)).is_some();
                    self.one_length(again || self.head.chunked);
                }
            }
            Some(b'T' | b't') if value_of(line, b"transfer-encoding:").is_some() => {
                let again = std::mem::replace(&mut self.head.chunked, true);
                self.one_length(again || self.head.length.is_some());
            }
            Some(_) => {}
        }
        if line.len() > self.line_limit {
            self.fault(Malformed::TooLong);
        }
        self.head.begun = true;
        false
    }

    fn one_length(&mut self, another: bool) {
        if another {
            self.fault(Malformed::Lengths);
        }
    }

    fn ended(&mut self) -> bool {
        let Head { length, chunked, .. } = std::mem::take(&mut self.head);
        self.seen += 1;
        self.at = match (chunked, length) {
            (true, _) => At::Chunks([0; 4]),
            (false, None | Some(0)) => At::Head,
            (false, Some(length)) => At::Body(length),
        };
        true
    }

    fn fault(&mut self, malformed: Malformed) {
        self.malformed.get_or_insert((self.seen, malformed));
    }
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (begin, value) = line.split_at_checked(name.len())?;
    begin.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts on the first requests, however the bytes come.
    #[track_caller]
    fn check(text: &str, expected: &[Option<Malformed>]) {
        for size in [1, 2, 3, 7, 1000] {
            let mut scanner = Scanner::new(&Settings::default());
            text.as_bytes().chunks(size).for_each(|piece| scanner.come(piece));
            let verdicts: Vec<_> = (0..expected.len()).map(|number| scanner.verdict(number as u32)).collect();
            assert_eq!(verdicts, expected, "{text:?} in pieces of {size}");
        }
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn heads_are_found_behind_bodies() {
        let post = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\n\n";
        check(&format!("\r\n{GET}{post}{GET}"), &[None, None, None, Some(Malformed::Unseen)]);
        let bare = "GET / HTTP/1.1\nHost: a\n\n";
        check(&format!("{post}{bare}"), &[None, Some(Malformed::BareLf), Some(Malformed::BareLf)]);
    }

    #[test]
    fn what_others_could_read_otherwise_is_malformed() {
        let of = |lines: &str| format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n");
        check(&of("Content-Length: 3\r\ntransfer-Encoding: chunked"), &[Some(Malformed::Lengths)]);
        check(&of("Transfer-Encoding: chunked\r\ncontent-length: 3"), &[Some(Malformed::Lengths)]);
        check(&of("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), &[Some(Malformed::Lengths)]);
        check(&of("Content-Length: 3\r\nContent-Length: 3"), &[Some(Malformed::Lengths)]);
        check(&of("A: b\nC: d"), &[Some(Malformed::BareLf)]);
        check(&of(&format!("A: {}", "b".repeat(9000))), &[Some(Malformed::TooLong)]);
        check(&of("Content-Length-Of: 3\r\nX: Content-Length: 3\r\nTransfer: x"), &[None]);
    }

    #[test]
    fn a_head_right_behind_chunks_is_not_seen() {
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
        check(&format!("{chunked}{GET}"), &[None, Some(Malformed::Unseen)]);
        let mut scanner = Scanner::new(&Settings::default());
        for text in [chunked, GET] {
            scanner.come(text.as_bytes());
            assert!(!scanner.rest());
        }
        assert_eq!((scanner.verdict(0), scanner.verdict(1)), (None, None));
        let mut scanner = Scanner::new(&Settings::default());
        scanner.come(format!("{chunked}GET / HT").as_bytes());
        assert!(scanner.rest());
        assert_eq!((scanner.verdict(0), scanner.verdict(1)), (None, Some(Malformed::Unseen)));
    }

    #[test]
    fn half_a_head_behind_a_request_is_no_rest() {
        for (text, half) in [("", false), ("G", true), ("GET / HTTP/1.1\r\n", true), ("\r\n", false)] {
            let mut scanner = Scanner::new(&Settings::default());
            scanner.come(format!("{GET}{text}").as_bytes());
            assert_eq!(scanner.rest(), half, "{text:?}");
        }
    }
}
