//! How does one exchange with a server look in HTTP/1.1?
//!
//! A request is a head of which most is the same for a whole session, and a body. The grammar of an
//! answer's head is read by httparse; here is decided where the answer ends (RFC 9112, §6.3), and
//! whether its connection is of use afterwards. Where two programs could see different ends, it is
//! not.

use std::{io::Write as _, ops::Range, str::from_utf8};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method as Verb, StatusCode, Uri};
use httparse::{EMPTY_HEADER, Status};

/// The largest head, or what follows the last chunk, of an answer.
const HEAD_LIMIT: usize = 64 << 10;
/// The most headers of an answer.
const MOST_HEADERS: usize = 128;
/// Bodies up to this are sent in one piece with their heads.
const SHORT: usize = 16 << 10;

/// A request, without the line that ends its head.
#[derive(Debug, Clone)]
pub struct Request {
    head: Vec<u8>,
    body: Option<Bytes>,
}

impl Request {
    pub fn new(verb: &Verb, path: &Uri, headers: &HeaderMap) -> Self {
        let mut head = Vec::with_capacity(512);
        for part in [verb.as_str(), " ", path.path_and_query().map_or("/", |path| path.as_str())] {
            head.extend_from_slice(part.as_bytes());
        }
        head.extend_from_slice(b" HTTP/1.1\r\n");
        let mut request = Self { head, body: None };
        for (name, value) in headers {
            request.add(name.as_str(), value);
        }
        request
    }

    /// The same with a body.
    pub fn with(&self, body: Bytes) -> Self {
        // Most of what is added to a head is short, and so is the text of most calls.
        let length = if body.len() > SHORT { 0 } else { body.len() };
        let mut head = Vec::with_capacity(self.head.len() + length + 256);
        head.extend_from_slice(&self.head);
        Self { head, body: Some(body) }
    }

    pub fn add(&mut self, name: &str, value: &HeaderValue) {
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            self.head.extend_from_slice(part);
        }
    }

    /// The bytes to be sent: first these, then those.
    pub fn into_bytes(self) -> (Vec<u8>, Bytes) {
        let (mut head, body) = (self.head, self.body.unwrap_or_default());
        if !body.is_empty() {
            write!(head, "content-length: {}\r\n", body.len()).expect("memory takes all that is written");
        }
        head.extend_from_slice(b"\r\n");
        if body.len() > SHORT {
            return (head, body);
        }
        head.extend_from_slice(&body);
        (head, Bytes::new())
    }
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The head of an answer.
pub struct Head {
    pub status: StatusCode,
    text: Box<[u8]>,
    content_type: Range<u16>,
    content_encoding: Range<u16>,
}

impl Head {
    pub fn content_type(&self) -> &[u8] {
        &self.text[usize::from(self.content_type.start)..usize::from(self.content_type.end)]
    }

    pub fn content_encoding(&self) -> &[u8] {
        &self.text[usize::from(self.content_encoding.start)..usize::from(self.content_encoding.end)]
    }

    /// All of it as it came.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// All values of a header, for what is seldom looked for.
    pub fn values(&self, name: &str) -> Vec<HeaderValue> {
        let mut headers = [EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let read = response.parse(&self.text).is_ok();
        let named = response.headers.iter().filter(|header| read && header.name.eq_ignore_ascii_case(name));
        named.filter_map(|header| HeaderValue::from_bytes(header.value).ok()).collect()
    }
}

/// What is left of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Bytes(u64),
    Chunks(Chunk),
    /// Whatever comes until the server closes the connection.
    All,
}

/// Where in a body of chunks we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// Before the size of the next.
    Size,
    /// So many bytes before the end of one.
    Inside(u64),
    /// Before the line end behind one.
    Behind,
    /// After the last, before the empty line that ends the body.
    Trailer,
}

/// An answer's head and what follows it, once the head is whole; heads of the kind 1xx are passed
/// over. The flag says whether the connection is of use after it.
pub fn head(buffer: &mut BytesMut) -> Result<Option<(Head, Left, bool)>, Malformed> {
    loop {
        let Some(read) = one_head(buffer)? else {
            let long = buffer.len() >= HEAD_LIMIT;
            return if long { Err(Malformed("the head of the answer is too long")) } else { Ok(None) };
        };
        match read.0.status.as_u16() {
            101 => return Err(Malformed("it wants to speak another protocol")),
            100..200 => {}
            _ => return Ok(Some(read)),
        }
    }
}

fn one_head(buffer: &mut BytesMut) -> Result<Option<(Head, Left, bool)>, Malformed> {
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buffer,
        &mut headers,
    );
    let length = match parsed {
        Ok(Status::Complete(length)) if length <= HEAD_LIMIT => length,
        Ok(Status::Complete(_)) => return Err(Malformed("the head of the answer is too long")),
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed("the answer has too many headers")),
        Err(_) => return Err(Malformed("what it answered is no HTTP/1.1")),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Malformed("the answer has no status"))?;
    let mut said = Said { reusable: response.version == Some(1), ..Said::default() };
    for header in response.headers {
        said.note(header, buffer)?;
    }
    let left = said.left(status)?;
    let Said { content_type, content_encoding, reusable, .. } = said;
    let reusable = reusable && left != Left::All;
    let text = buffer[..length].into();
    buffer.advance(length);
    Ok(Some((Head { status, text, content_type, content_encoding }, left, reusable)))
}

/// What a head says that we act on.
#[derive(Debug, Default)]
struct Said {
    length: Option<u64>,
    coded: bool,
    chunked: bool,
    content_type: Range<u16>,
    content_encoding: Range<u16>,
    reusable: bool,
}

impl Said {
    fn note(&mut self, header: &httparse::Header<'_>, buffer: &[u8]) -> Result<(), Malformed> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            12 if is("content-type") => self.content_type = place(header.value, buffer),
            14 if is("content-length") => {
                for length in header.value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    let all_digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                    let number = from_utf8(length).ok().filter(|_| all_digits).and_then(|it| it.parse().ok());
                    let number: u64 = number.ok_or(Malformed("its content-length is no number"))?;
                    if self.length.replace(number).is_some_and(|before| before != number) {
                        return Err(Malformed("the answer has two lengths"));
                    }
                }
            }
            16 if is("content-encoding") => self.content_encoding = place(header.value, buffer),
            17 if is("transfer-encoding") => {
                let mut codings = header.value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                let alone = !self.coded && codings.clone().count() == 1;
                self.chunked = alone && codings.all(|coding| coding.eq_ignore_ascii_case(b"chunked"));
                self.coded = true;
            }
            10 if is("connection") => {
                let mut words = header.value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                self.reusable &= !words.any(|word| word.eq_ignore_ascii_case(b"close"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the body ends.
    fn left(&mut self, status: StatusCode) -> Result<Left, Malformed> {
        match (self.coded, self.chunked, self.length) {
            _ if matches!(status.as_u16(), 204 | 304) => Ok(Left::Bytes(0)),
            (true, true, length) => {
                // The length is not the one that counts; who sent both is not to be trusted further.
                self.reusable &= length.is_none();
                Ok(Left::Chunks(Chunk::Size))
            }
            (true, false, _) => Err(Malformed("the answer is in a transfer coding that is not known here")),
            (false, _, Some(length)) => Ok(Left::Bytes(length)),
            (false, _, None) => Ok(Left::All),
        }
    }
}

/// Where in the buffer a value stands, which is part of it. Heads are shorter than 64 KiB.
fn place(value: &[u8], buffer: &[u8]) -> Range<u16> {
    let start = value.as_ptr() as usize - buffer.as_ptr() as usize;
    let place = |at: usize| u16::try_from(at).unwrap_or_default();
    place(start)..place(start + value.len())
}

impl Left {
    pub const NOTHING: Self = Self::Bytes(0);

    /// The next piece of the body, if there is any in the buffer.
    pub fn piece(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        loop {
            let Self::Chunks(chunk) = self else {
                let there = match self {
                    Self::Bytes(left) => usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len()),
                    Self::All | Self::Chunks(_) => buffer.len(),
                };
                if let Self::Bytes(left) = self {
                    *left -= there as u64;
                }
                return Ok((there > 0).then(|| buffer.split_to(there).freeze()));
            };
            match *chunk {
                Chunk::Size => {
                    let size = httparse::parse_chunk_size(buffer);
                    match size.map_err(|_| Malformed("the size of a chunk is no number"))? {
                        Status::Complete((length, size)) => {
                            buffer.advance(length);
                            *chunk = if size == 0 { Chunk::Trailer } else { Chunk::Inside(size) };
                        }
                        Status::Partial => return partial(buffer),
                    }
                }
                Chunk::Inside(left) => {
                    let there = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    if there == 0 {
                        return Ok(None);
                    }
                    let left = left - there as u64;
                    *chunk = if left == 0 { Chunk::Behind } else { Chunk::Inside(left) };
                    return Ok(Some(buffer.split_to(there).freeze()));
                }
                Chunk::Behind => match &buffer[..] {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        *chunk = Chunk::Size;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(Malformed("a chunk is longer than its size")),
                },
                Chunk::Trailer => {
                    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
                    match httparse::parse_headers(buffer, &mut headers) {
                        Ok(Status::Complete((length, _))) => {
                            buffer.advance(length);
                            *self = Self::NOTHING;
                            return Ok(None);
                        }
                        Ok(Status::Partial) => return partial(buffer),
                        Err(_) => return Err(Malformed("what follows the last chunk is no header")),
                    }
                }
            }
        }
    }
}

/// More has to come, if that much may.
fn partial(buffer: &BytesMut) -> Result<Option<Bytes>, Malformed> {
    if buffer.len() < HEAD_LIMIT { Ok(None) } else { Err(Malformed("a line between chunks is too long")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The status, the body, whether it is whole, and whether the connection is of use then.
    type Seen = (u16, Vec<u8>, bool, bool);

    /// What is read of bytes that come in pieces of these lengths, and then the end of the connection.
    fn read(text: &[u8], pieces: &[usize]) -> Result<Option<Seen>, Malformed> {
        let (mut buffer, mut rest) = (BytesMut::new(), text);
        let mut lengths = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
        let mut more = |buffer: &mut BytesMut| {
            let (piece, after) =
                rest.split_at(lengths.next().unwrap_or(1).clamp(1, rest.len().max(1)).min(rest.len()));
            buffer.extend_from_slice(piece);
            rest = after;
            !piece.is_empty()
        };
        let (head, mut left, reusable) = loop {
            if let Some(read) = head(&mut buffer)? {
                break read;
            }
            if !more(&mut buffer) {
                return Ok(None);
            }
        };
        let mut body = Vec::new();
        while left != Left::NOTHING {
            if let Some(piece) = left.piece(&mut buffer)? {
                body.extend_from_slice(&piece);
            } else if left != Left::NOTHING && !more(&mut buffer) {
                break;
            }
        }
        let whole = matches!(left, Left::NOTHING | Left::All);
        Ok(Some((head.status.as_u16(), body, whole, reusable && left == Left::NOTHING && buffer.is_empty())))
    }

    fn whole(text: &str) -> (u16, String, bool, bool) {
        let (status, body, whole, reusable) = read(text.as_bytes(), &[]).unwrap().unwrap();
        (status, String::from_utf8(body).unwrap(), whole, reusable)
    }

    #[test]
    fn an_answer_ends_where_the_specification_says() {
        let is = |text: &str, status: u16, body: &str, end: (bool, bool)| {
            assert_eq!(whole(text), (status, body.to_owned(), end.0, end.1), "{text}");
        };
        is("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "{}", (true, true));
        is("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\ncontent-length:2\r\n\r\n{}", 200, "{}", (true, true));
        is("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", 202, "", (true, true));
        is("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", 204, "", (true, true));
        is(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1",
            200,
            "1",
            (true, true),
        );
        is("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1", 200, "1", (true, false));
        is("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n1", 200, "1", (true, false));
        is("HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end", (true, false));
        is("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n12", 200, "1", (true, false));
        is("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n12", 200, "12", (false, false));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n";
        is(&format!("{chunked}\r\n2;x=y\r\n{{}}\r\n0\r\n\r\n"), 200, "{}", (true, true));
        is(
            &format!("{chunked}\r\n1\r\n1\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"),
            200,
            "10123456789",
            (true, true),
        );
        is(&format!("{chunked}Content-Length: 1\r\n\r\n1\r\n1\r\n0\r\n\r\n"), 200, "1", (true, false));
        is(&format!("{chunked}\r\n5\r\n12"), 200, "12", (false, false));
        is(&format!("{chunked}\r\n1\r\n1\r\n0\r\n"), 200, "1", (false, false));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        for (head, what) in [
            ("HTTP/2 200 OK\r\n", "no HTTP/1.1"),
            ("SSH-2.0-OpenSSH_9.2\r\n", "no HTTP/1.1"),
            ("HTTP/1.1 200 OK\r\nContent-Length : 1\r\n", "no HTTP/1.1"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n", "no HTTP/1.1"),
            ("HTTP/1.1 101 Switching Protocols\r\n", "another protocol"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n", "two lengths"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n", "two lengths"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n", "transfer coding"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n", "transfer coding"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                "transfer coding",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n", "transfer coding"),
        ] {
            let fault = read(format!("{head}\r\n1").as_bytes(), &[]).unwrap_err();
            assert!(fault.0.contains(what), "{head}: {fault}");
        }
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, what) in [
            ("x\r\n", "no number"),
            ("-1\r\n1\r\n", "no number"),
            ("11111111111111111\r\n", "no number"),
            ("1\r\n12\r\n", "longer than its size"),
            ("0\r\nno header\r\n\r\n", "no header"),
        ] {
            let fault = read(format!("{chunked}{body}").as_bytes(), &[]).unwrap_err();
            assert!(fault.0.contains(what), "{body}: {fault}");
        }
    }

    #[test]
    fn a_head_has_an_end() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(HEAD_LIMIT));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
        let chunk = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: {}",
            "a".repeat(HEAD_LIMIT)
        );
        for (text, what) in [(long, "too long"), (many, "too many headers"), (chunk, "too long")] {
            assert!(read(text.as_bytes(), &[]).unwrap_err().0.contains(what));
        }
    }

    #[test]
    fn headers_are_found_by_any_spelling() {
        let mut buffer = BytesMut::from(
            "HTTP/1.1 401 \r\nWWW-Authenticate: Basic\r\nwww-authenticate: Bearer\r\nCONTENT-TYPE: a/b\r\n\r\n",
        );
        let (head, ..) = head(&mut buffer).unwrap().unwrap();
        assert_eq!(head.values("www-authenticate"), ["Basic", "Bearer"]);
        assert_eq!((head.content_type(), head.content_encoding()), (&b"a/b"[..], &b""[..]));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_an_answer_comes_in_pieces(
            chunks in proptest::collection::vec("[a-z\r\n]{1,40}", 0..8),
            chunked: bool,
            pieces in proptest::collection::vec(1usize..60, 0..40),
        ) {
            let body = chunks.concat();
            let coded: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
            let text = if chunked {
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{coded}0\r\n\r\n")
            } else {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            };
            prop_assert_eq!(read(text.as_bytes(), &pieces), Ok(Some((200, body.into_bytes(), true, true))));
        }

        #[test]
        fn any_bytes_are_an_answer_or_none(text: Vec<u8>, pieces in proptest::collection::vec(1usize..9, 0..9)) {
            let _ = read(&text, &pieces);
            let _ = read(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &text[..]].concat(), &pieces);
        }
    }
}
