//! Where does one HTTP/1.1 message end, and what does it say?
//!
//! The load and the backend share one core, and a bench is only worth something while the thing
//! under test is the slower side. With a general HTTP library at both ends the load core is full
//! before nginx is, and every subject looks alike. So both ends use this reader: it knows lengths
//! and chunks, which is all that nginx, hyper and this bench itself write. It is no server for
//! strangers: it bounds nothing.

use std::{borrow::Cow, ops::Range};

/// The extent of one complete message at the start of a buffer.
pub struct Frame {
    first_line: Range<usize>,
    headers: Range<usize>,
    body: Body,
    /// Where the next message would begin.
    pub end: usize,
}

enum Body {
    Whole(Range<usize>),
    Chunks(Vec<Range<usize>>),
}

/// One complete message, seen through its [`Frame`].
pub struct Message<'a> {
    /// The request line or the status line.
    pub first_line: &'a str,
    headers: &'a [u8],
    pub body: Cow<'a, [u8]>,
}

/// Finds the first message in `buffer`; `None` while it is not all there yet.
pub fn frame(buffer: &[u8]) -> Result<Option<Frame>, String> {
    let Some((first_line, headers)) = head(buffer) else {
        return Ok(None);
    };
    let body = headers.end + 2;
    let fields = &buffer[headers.clone()];
    if find(fields, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Ok(chunks(buffer, body)?.map(|(pieces, end)| Frame {
            first_line,
            headers,
            body: Body::Chunks(pieces),
            end,
        }));
    }
    let length = match find(fields, "content-length") {
        Some(text) => text.parse().map_err(|_| format!("content-length is {text:?}"))?,
        None => 0,
    };
    let end = body + length;
    Ok((buffer.len() >= end).then_some(Frame { first_line, headers, body: Body::Whole(body..end), end }))
}

impl Frame {
    /// The message itself. `buffer` is the one the frame was found in, unchanged.
    pub fn of<'a>(&self, buffer: &'a [u8]) -> Message<'a> {
        let body = match &self.body {
            Body::Whole(range) => Cow::Borrowed(&buffer[range.clone()]),
            Body::Chunks(ranges) => match &ranges[..] {
                [only] => Cow::Borrowed(&buffer[only.clone()]),
                several => several.iter().flat_map(|range| &buffer[range.clone()]).copied().collect(),
            },
        };
        Message {
            first_line: str::from_utf8(&buffer[self.first_line.clone()]).unwrap_or(""),
            headers: &buffer[self.headers.clone()],
            body,
        }
    }
}

impl<'a> Message<'a> {
    /// The value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        find(self.headers, name)
    }

    /// The status of an answer; 0 where the line is none.
    pub fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }
}

/// The first line without its end, and the header block with the end of its last line.
fn head(buffer: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let first = end_of_line(buffer, 0)?;
    let mut at = first + 2;
    loop {
        let end = end_of_line(buffer, at)?;
        if end == at {
            return Some((0..first, first + 2..at));
        }
        at = end + 2;
    }
}

/// Where the line that begins at `from` has its `\r\n`.
fn end_of_line(buffer: &[u8], from: usize) -> Option<usize> {
    let newline = from + buffer.get(from..)?.iter().position(|&byte| byte == b'\n')?;
    newline.checked_sub(1).filter(|&end| end >= from)
}

fn find<'a>(headers: &'a [u8], name: &str) -> Option<&'a str> {
    let mut at = 0;
    while let Some(end) = end_of_line(headers, at) {
        let line = &headers[at..end];
        if line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name.as_bytes()) {
            return str::from_utf8(&line[name.len() + 1..]).ok().map(str::trim);
        }
        at = end + 2;
    }
    None
}

/// The data of every chunk, and where the message ends.
type Chunks = (Vec<Range<usize>>, usize);

/// Reads chunks from `at` on; `None` while the last one is missing.
fn chunks(buffer: &[u8], mut at: usize) -> Result<Option<Chunks>, String> {
    let mut pieces = Vec::new();
    loop {
        let Some(end) = end_of_line(buffer, at) else {
            return Ok(None);
        };
        let line = String::from_utf8_lossy(&buffer[at..end]);
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| format!("a chunk has the size {line:?}"))?;
        let data = end + 2;
        if size == 0 {
            return Ok(after_trailers(buffer, data).map(|end| (pieces, end)));
        }
        if buffer.len() < data + size + 2 {
            return Ok(None);
        }
        pieces.push(data..data + size);
        at = data + size + 2;
    }
}

fn after_trailers(buffer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let end = end_of_line(buffer, at)?;
        if end == at {
            return Some(end + 2);
        }
        at = end + 2;
    }
}
