//! Server-sent events: how do bytes become events, and events bytes?
//!
//! The decoder takes bytes in pieces of any size and gives the same events for all of them.
//! It bounds the size of one event, since a peer that never ends one would otherwise fill the
//! memory. (Events, comments and fields as in the HTML standard, "Server-sent events".)

use bytes::{BufMut, Bytes, BytesMut};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The `event` field; empty means `message`.
    pub name: String,
    /// Set also by an event without data, as 2025-11-25 opens its streams.
    pub id: Option<String>,
    pub data: Bytes,
    /// Milliseconds to wait before connecting again.
    pub retry: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is over {limit} bytes")]
pub struct TooLong {
    pub limit: usize,
}

/// Bytes to events.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    /// The bytes of a line that has not ended.
    line: BytesMut,
    /// Was the last byte a carriage return, which ends a line alone or with a line feed?
    after_return: bool,
    first_line: bool,
    event: Event,
    data: BytesMut,
    has_data: bool,
}

impl Decoder {
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            limit: max_event_bytes,
            line: BytesMut::new(),
            after_return: false,
            first_line: true,
            event: Event::default(),
            data: BytesMut::new(),
            has_data: false,
        }
    }

    /// The events that end in these bytes. An event that has not ended is never one.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', bytes) else {
                self.line.put_slice(bytes);
                self.bounded()?;
                break;
            };
            self.line.put_slice(&bytes[..end]);
            self.bounded()?;
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = self.line.split().freeze();
            events.extend(self.take(&line));
        }
        Ok(events)
    }

    fn bounded(&self) -> Result<(), TooLong> {
        let held = self.line.len() + self.data.len();
        if held > self.limit { Err(TooLong { limit: self.limit }) } else { Ok(()) }
    }

    fn take(&mut self, line: &Bytes) -> Option<Event> {
        let mut line = line.clone();
        if std::mem::take(&mut self.first_line) && line.starts_with("\u{feff}".as_bytes()) {
            line = line.slice(3..);
        }
        if line.is_empty() {
            return self.end();
        }
        let colon = memchr::memchr(b':', &line).unwrap_or(line.len());
        let mut value = line.slice((colon + 1).min(line.len())..);
        if value.first() == Some(&b' ') {
            value = value.slice(1..);
        }
        let text = || String::from_utf8_lossy(&value).into_owned();
        match &line[..colon] {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.put_u8(b'\n');
                }
                self.data.put_slice(&value);
            }
            b"event" => self.event.name = text(),
            b"id" if !value.contains(&0) => self.event.id = Some(text()),
            b"retry" => self.event.retry = text().parse().ok(),
            _ => {} // A comment, or a field nobody knows.
        }
        None
    }

    fn end(&mut self) -> Option<Event> {
        let data = self.data.split().freeze();
        let mut event = std::mem::take(&mut self.event);
        let something = std::mem::take(&mut self.has_data) || event.id.is_some() || event.retry.is_some();
        event.data = data;
        something.then_some(event)
    }
}

/// One JSON-RPC message as an event, with one line of data.
pub fn message(id: Option<&str>, text: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 48);
    out.put_slice(b"event: message\n");
    if let Some(id) = id {
        out.put_slice(b"id: ");
        out.put_slice(id.as_bytes());
        out.put_u8(b'\n');
    }
    out.put_slice(b"data: ");
    out.put_slice(&super::message::one_line(text.clone()));
    out.put_slice(b"\n\n");
    out.freeze()
}

/// What keeps proxies from closing a stream that has nothing to say.
pub const KEEP_ALIVE: &[u8] = b": still here\n\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new(1000);
        pieces.iter().flat_map(|piece| decoder.push(piece).unwrap()).collect()
    }

    #[test]
    fn fields_make_an_event() {
        let text = b": hello\nevent: endpoint\nid: 7\nretry: 20\ndata: a\ndata:b\n\ndata: open";
        let events = decode(&[text]);
        let expected =
            Event { name: "endpoint".into(), id: Some("7".into()), data: "a\nb".into(), retry: Some(20) };
        assert_eq!(events, [expected]);
    }

    #[test]
    fn an_id_alone_is_an_event_and_a_comment_is_none() {
        let events = decode(&[b"id: 1\ndata:\n\n: x\n\n\r\n"]);
        assert_eq!(events, [Event { id: Some("1".into()), ..Event::default() }]);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut decoder = Decoder::new(10);
        assert!(decoder.push(b"data: 123").is_ok());
        assert!(decoder.push(b"4567890").is_err());
        let mut decoder = Decoder::new(10);
        assert!(decoder.push(b"data: 1234\ndata: 5678\n").is_err() || decoder.push(b"data: 9012\n").is_err());
    }

    #[test]
    fn a_message_is_one_line_of_data_whatever_its_white_space() {
        let event = message(Some("3-1"), &Bytes::from_static(b"{\r\n \"a\": 1\n}"));
        assert_eq!(event, "event: message\nid: 3-1\ndata: {   \"a\": 1 }\n\n");
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_events(
            text in "(data|id|event|retry|:)?:? ?[a-z0-9\r\n:]{0,40}(\n\n|\r\n\r\n|\r\r)?(data: x\n\n)?",
            cuts in proptest::collection::vec(0usize..80, 0..6),
        ) {
            let whole = decode(&[text.as_bytes()]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&pieces), whole);
        }

        #[test]
        fn what_is_written_is_read(text in "[^\r\n]{0,40}") {
            let events = decode(&[&message(None, &Bytes::from(text.clone()))]);
            prop_assert_eq!(events[0].data.as_ref(), text.as_bytes());
        }
    }
}
