//! What kind of message is this, and where in its text are the parts we act on?
//!
//! A [`Message`] is one JSON-RPC message as it came, checked once and never copied: the text
//! and the places of its members. Whatever we must change is spliced into that text by
//! [`Splice`]; every byte we have no business with goes on as it was written.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    json::{self, Fault, Limits, Member, Members, Span},
    mcp::{Method, meta},
};
use crate::weaken;

/// Why a text is no message we can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Not JSON, or JSON that two parsers may read differently (-32700).
    Json(Fault),
    /// JSON, but no JSON-RPC message (-32600). The id is given back where it could be read.
    Rpc(&'static str, Option<Bytes>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    Notification,
    Response,
}

/// One JSON-RPC message.
#[derive(Debug, Clone)]
pub struct Message {
    text: Bytes,
    kind: Kind,
    /// Where the envelope's members stand among all.
    envelope: Envelope,
    members: Members,
}

/// The members we look at in the envelope and in `params`. A key that differs from one of them
/// in case only is refused: some parsers do not tell the two apart.
const ENVELOPE: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: [&str; 10] = [
    "name",
    "uri",
    "arguments",
    "cursor",
    "_meta",
    "ref",
    "requestState",
    "inputResponses",
    "task",
    "taskId",
];

/// Which members are those of the envelope, by their place in the list of all; [`NONE`] if they
/// are not there.
#[derive(Debug, Clone, Copy)]
struct Envelope {
    jsonrpc: u32,
    id: u32,
    method: u32,
    params: u32,
    result: u32,
    error: u32,
}

const NONE: u32 = u32::MAX;

impl Envelope {
    const EMPTY: Self =
        Self { jsonrpc: NONE, id: NONE, method: NONE, params: NONE, result: NONE, error: NONE };

    #[inline(always)]
    fn index(&self, key: &str) -> Option<usize> {
        let index = match key {
            "jsonrpc" => self.jsonrpc,
            "id" => self.id,
            "method" => self.method,
            "params" => self.params,
            "result" => self.result,
            "error" => self.error,
            _ => NONE,
        };
        (index != NONE).then_some(index as usize)
    }

    /// Where the place of a member is noted, by its key.
    #[inline(always)]
    fn place(&mut self, key: &[u8]) -> Option<&mut u32> {
        match key {
            b"jsonrpc" => Some(&mut self.jsonrpc),
            b"id" => Some(&mut self.id),
            b"method" => Some(&mut self.method),
            b"params" => Some(&mut self.params),
            b"result" => Some(&mut self.result),
            b"error" => Some(&mut self.error),
            _ => None,
        }
    }
}

impl Message {
    /// Reads one message. An array is not one; see [`batch`].
    pub fn parse(text: Bytes, limits: &Limits) -> Result<Self, Malformed> {
        let members = json::outline(&text, limits).map_err(Malformed::Json)?;
        let mut message = Self { text, kind: Kind::Notification, envelope: Envelope::EMPTY, members };
        message.kind = message.classify().map_err(|why| {
            let id = message.id().filter(|id| is_id(id)).map(Bytes::copy_from_slice);
            Malformed::Rpc(why, id)
        })?;
        Ok(message)
    }

    fn classify(&mut self) -> Result<Kind, &'static str> {
        let spelling = self.note_envelope();
        let text = self.text.as_ref();
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err("a message is one JSON object");
        }
        spelling?;
        let (jsonrpc, id, method) = (self.top("jsonrpc"), self.top("id"), self.top("method"));
        let (params, result, error) = (self.top("params"), self.top("result"), self.top("error"));
        if jsonrpc.map(|v| v.of(text)) != Some(b"\"2.0\"") {
            return Err("`jsonrpc` must be \"2.0\"");
        }
        let id = id.map(|id| id.of(text));
        let unread = id == Some(b"null") && error.is_some();
        if !unread && id.is_some_and(|id| !is_id(id)) {
            return Err("`id` must be a string or an integer");
        }
        if let Some(params) = params
            && text[params.start] != b'{'
        {
            return Err("`params` must be an object");
        }
        match (method, result.is_some(), error.is_some()) {
            (Some(method), false, false) => {
                if text[method.start] != b'"' {
                    return Err("`method` must be a string");
                }
                Ok(if id.is_some() { Kind::Request } else { Kind::Notification })
            }
            (Some(_), ..) => Err("a request has neither `result` nor `error`"),
            (None, true, true) => Err("a response has `result` or `error`, not both"),
            (None, false, false) => Err("`method` is missing"),
            (None, ..) if id.is_none() => Err("`id` is missing"),
            (None, true, false) => Ok(Kind::Response),
            (None, false, true) => self.error_shape().map(|()| Kind::Response),
        }
    }

    /// Notes the members of the envelope. An error, if one that we look at, there or deeper down,
    /// is not spelled as the specification has it.
    fn note_envelope(&mut self) -> Result<(), &'static str> {
        let text = self.text.as_ref();
        let mut in_params = false;
        let mut spelling = Ok(());
        for (index, member) in (0..).zip(&self.members) {
            if member.depth == 1 {
                let key = member.key.of(text);
                in_params = key == b"params";
                if let Some(place) = self.envelope.place(key) {
                    *place = index;
                } else if is_twin(member, text, &ENVELOPE) {
                    spelling =
                        Err("a member's name is spelled unusually; write it in lower case, without escapes");
                }
            } else if in_params && member.depth == 2 && unusual(member, text, &PARAMS) {
                spelling =
                    Err("a member's name is spelled unusually; write it in lower case, without escapes");
            } else if in_params && member.depth == 3 && unusual(member, text, &meta::OF_A_HOP) {
                spelling =
                    Err("a member of `_meta` is spelled unusually; write it as the specification does");
            }
        }
        if weaken::is("message-twins") { Ok(()) } else { spelling }
    }

    fn error_shape(&self) -> Result<(), &'static str> {
        let code = self.in_error("code").is_some_and(json_integer);
        let text = self.in_error("message").is_some_and(|message| message.starts_with(b"\""));
        if code && text { Ok(()) } else { Err("`error` needs an integer `code` and a text `message`") }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// Where a member of the envelope has its value.
    #[inline(always)]
    pub fn top(&self, key: &str) -> Option<Span> {
        self.envelope.index(key).map(|index| self.members[index].value)
    }

    /// What follows a member of the envelope; nothing, if that is not there.
    #[inline(always)]
    fn behind(&self, key: &str) -> &[Member] {
        match self.envelope.index(key) {
            Some(index) => &self.members[index + 1..],
            None => &[],
        }
    }

    /// The members of an object that is itself a member of the envelope, and those of its `_meta`.
    #[inline(always)]
    pub fn inside(&self, key: &str) -> &[Member] {
        let rest = self.behind(key);
        let end = rest.iter().position(|m| m.depth == 1).unwrap_or(rest.len());
        &rest[..end]
    }

    #[inline(always)]
    fn find(&self, parent: &str, key: &str) -> Option<Span> {
        let inside = self.behind(parent).iter().take_while(|m| m.depth != 1);
        inside.filter(|m| m.depth == 2).find(|m| m.is(key, &self.text)).map(|member| member.value)
    }

    /// The id as it is written, quotes and all.
    #[inline]
    pub fn id(&self) -> Option<&[u8]> {
        self.top("id").map(|span| span.of(&self.text))
    }

    /// The id, kept alive on its own.
    pub fn id_bytes(&self) -> Option<Bytes> {
        self.top("id").map(|span| self.slice(span))
    }

    pub fn method(&self) -> Option<Cow<'_, str>> {
        json::string(self.top("method")?.of(&self.text))
    }

    /// The method, if it is one that we know.
    pub fn known_method(&self) -> Option<Method> {
        let text = self.top("method")?.of(&self.text);
        let inner = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
        inner.and_then(Method::parse).or_else(|| Method::parse(&*self.method()?))
    }

    /// Is this the method?
    pub fn is_method(&self, name: &str) -> bool {
        self.top("method").is_some_and(|method| json::is_string(method.of(&self.text), name))
    }

    /// Where a member of `params` has its value.
    #[inline]
    pub fn param(&self, key: &str) -> Option<Span> {
        self.find("params", key)
    }

    /// A member of `params`, as it is written.
    #[inline]
    pub fn in_params(&self, key: &str) -> Option<&[u8]> {
        self.param(key).map(|span| span.of(&self.text))
    }

    /// Where a member of `result` has its value.
    #[inline]
    pub fn field(&self, key: &str) -> Option<Span> {
        self.find("result", key)
    }

    /// A member of `result`, as it is written.
    #[inline]
    pub fn in_result(&self, key: &str) -> Option<&[u8]> {
        self.field(key).map(|span| span.of(&self.text))
    }

    /// The members of the `_meta` in `params`, none of them spelled unusually.
    pub fn meta(&self) -> impl Iterator<Item = &Member> {
        self.inside("params").iter().filter(|member| member.depth == 3)
    }

    /// Where a member of `error` has its value.
    pub fn of_error(&self, key: &str) -> Option<Span> {
        self.find("error", key)
    }

    /// A member of `error`, as it is written.
    pub fn in_error(&self, key: &str) -> Option<&[u8]> {
        self.of_error(key).map(|span| span.of(&self.text))
    }

    /// The result as it is written.
    #[inline]
    pub fn result(&self) -> Option<&[u8]> {
        self.top("result").map(|span| span.of(&self.text))
    }

    /// A stretch of the text, shared and not copied.
    pub fn slice(&self, span: Span) -> Bytes {
        self.text.slice(span.start..span.end)
    }
}

/// A text as a single line, as pipes have it. Line ends can only stand between the parts of a
/// JSON text, where a blank means the same.
pub fn one_line(text: Bytes) -> Bytes {
    if memchr::memchr2(b'\n', b'\r', &text).is_none() {
        return text;
    }
    text.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect::<Vec<_>>().into()
}

/// Takes apart a batch (revision 2025-03-26). Nothing, if the text is no array.
pub fn batch(text: &Bytes, limits: &Limits) -> Result<Option<Vec<Bytes>>, Malformed> {
    if text.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'[') {
        return Ok(None);
    }
    json::check(text, limits).map_err(Malformed::Json)?;
    let parts = json::elements(text).into_iter().map(|span| text.slice(span.start..span.end));
    Ok(Some(parts.collect()))
}

/// Is a member's key one of these names, but not written like it?
///
/// Other spellings are those that some parser takes for the name: with escapes, or in another
/// case. Case is folded as Go's decoder does it, which takes two letters outside of ASCII for
/// theirs inside: the long s and the sign for kelvin.
#[inline(always)]
fn unusual(member: &Member, text: &[u8], names: &[&str]) -> bool {
    !names.iter().any(|name| member.is(name, text)) && is_twin(member, text, names)
}

#[inline(never)]
fn is_twin(member: &Member, text: &[u8], names: &[&str]) -> bool {
    let key = member.key.of(text);
    if member.plain && key.is_ascii() {
        return names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(key));
    }
    let plain = member.key_in(text).replace('\u{17f}', "s").replace('\u{212a}', "k");
    names.iter().any(|name| name.eq_ignore_ascii_case(&plain))
}

/// A string or an integer, as JSON-RPC and MCP want ids.
fn is_id(text: &[u8]) -> bool {
    text.starts_with(b"\"") || json_integer(text)
}

fn json_integer(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().enumerate().all(|(at, b)| b.is_ascii_digit() || (at == 0 && *b == b'-'))
}

/// Stretches of a text that are longer than this are better shared than copied.
pub const LONG: usize = 16 << 10;

/// Changes to a text, made all at once.
///
/// Places are those of the text as it was; they must not overlap.
#[derive(Debug)]
pub struct Splice<'a> {
    text: &'a [u8],
    edits: smallvec::SmallVec<[(Span, Cow<'a, [u8]>); 6]>,
}

impl<'a> Splice<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, edits: smallvec::SmallVec::new() }
    }

    /// Puts other bytes where a value stands.
    pub fn replace(&mut self, place: Span, with: impl Into<Cow<'a, [u8]>>) -> &mut Self {
        self.edits.push((place, with.into()));
        self
    }

    /// Puts bytes before the byte at a place.
    pub fn insert(&mut self, at: usize, what: impl Into<Cow<'a, [u8]>>) -> &mut Self {
        self.replace(Span { start: at, end: at }, what)
    }

    pub fn finish(&mut self) -> Vec<u8> {
        self.edits.sort_by_key(|(place, _)| place.start);
        let more: usize = self.edits.iter().map(|(_, with)| with.len()).sum();
        let mut out = Vec::with_capacity(self.text.len() + more);
        let mut at = 0;
        for (place, with) in &self.edits {
            out.extend_from_slice(&self.text[at..place.start]);
            out.extend_from_slice(with);
            at = place.end;
        }
        out.extend_from_slice(&self.text[at..]);
        out
    }
}

impl Splice<'_> {
    /// The changed text in pieces that follow one another, of which long ones are shared with
    /// the text as it was.
    pub fn pieces(&mut self, text: &Bytes) -> Vec<Bytes> {
        self.edits.sort_by_key(|(place, _)| place.start);
        let mut pieces = Vec::new();
        let mut copied = Vec::new();
        let mut at = 0;
        let end = Span { start: text.len(), end: text.len() };
        for (place, with) in self.edits.iter().map(|(place, with)| (*place, &**with)).chain([(end, &b""[..])])
        {
            if place.start - at > LONG {
                pieces.push(Bytes::from(std::mem::take(&mut copied)));
                pieces.push(text.slice(at..place.start));
            } else {
                copied.extend_from_slice(&text[at..place.start]);
            }
            copied.extend_from_slice(with);
            at = place.end;
        }
        pieces.push(Bytes::from(copied));
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

/// An object with some members left out and others put in (at the end, or in the place of a
/// member of the same name). The members that stay keep their spelling and order.
pub fn object_with(object: &[u8], leave_out: impl Fn(&str) -> bool, put: &[(&str, &[u8])]) -> Vec<u8> {
    let members = json::members(object);
    object_of(object, members.iter().filter(|member| !leave_out(&member.key_in(object))), put)
}

/// An object of some members of a text and of others, which go before members of the same name.
/// The names of the others are as they stand in JSON.
pub fn object_of<'m>(
    text: &[u8],
    members: impl Iterator<Item = &'m Member>,
    put: &[(&str, &[u8])],
) -> Vec<u8> {
    let more: usize = put.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let mut out = Vec::with_capacity(more + 128);
    out.push(b'{');
    let separate = |out: &mut Vec<u8>| {
        if out.len() > 1 {
            out.push(b',');
        }
    };
    let mut add = |name: &[u8], value: &[u8]| {
        separate(&mut out);
        out.push(b'"');
        out.extend_from_slice(name);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
    };
    for member in members {
        if !put.iter().any(|(name, _)| member.stands_for(name, text)) {
            add(member.key.of(text), member.value.of(text));
        }
    }
    for (name, value) in put {
        add(name.as_bytes(), value);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Message, Malformed> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::REQUEST)
    }

    #[track_caller]
    fn refused(text: &str) {
        assert!(matches!(parse(text), Err(Malformed::Rpc(..))), "{text}: {:?}", parse(text));
    }

    #[test]
    fn requests_notifications_and_responses_are_told_apart() {
        let kind = |text| parse(text).unwrap().kind();
        assert_eq!(kind(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#), Kind::Request);
        assert_eq!(kind(r#"{"jsonrpc":"2.0","method":"ping"}"#), Kind::Notification);
        assert_eq!(kind(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#), Kind::Response);
        let error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}"#;
        assert_eq!(kind(error), Kind::Response);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            "[]",
            "3",
            "{}",
            r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#,
            r#"{"id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}"#,
        ] {
            refused(text);
        }
    }

    #[test]
    fn twins_of_names_we_act_on_are_refused() {
        refused(r#"{"jsonrpc":"2.0","id":1,"Method":"x","method":"y"}"#);
        refused(r#"{"jsonrpc":"2.0","id":1,"method":"x","Params":{}}"#);
        refused(r#"{"jsonrpc":"2.0","id":1,"meth\u006fd":"x"}"#);
        refused(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","Name":"b"}}"#);
        refused("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\",\"param\u{17f}\":{}}");
        refused(r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressTo\u212Aen":1}}}"#);
        let deep = r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{"Name":1,"NAME":2}}}"#;
        assert!(parse(deep).is_ok());
    }

    #[test]
    fn only_what_is_spliced_changes() {
        let text = r#"{"jsonrpc":"2.0", "id" : "c-1","method":"tools/call","params":{ "name":"a__b","arguments":{"name":"a__b","n":1.0e5}}}"#;
        let message = parse(text).unwrap();
        let mut splice = Splice::new(message.text());
        splice.replace(message.param("name").unwrap(), &b"\"b\""[..]);
        splice.replace(message.top("id").unwrap(), &b"7"[..]);
        let out = String::from_utf8(splice.finish()).unwrap();
        assert_eq!(out, text.replacen("\"c-1\"", "7", 1).replacen("\"a__b\"", "\"b\"", 1));
    }

    #[test]
    fn long_stretches_are_shared_and_not_copied() {
        let long = "x".repeat(LONG + 1);
        let text = format!(r#"{{"jsonrpc":"2.0","result":{{"a":"{long}","b":"{long}"}},"id":"1"}}"#);
        let message = parse(&text).unwrap();
        let mut splice = Splice::new(message.text());
        splice.replace(message.top("id").unwrap(), &b"7"[..]);
        splice.insert(message.top("result").unwrap().start + 1, &b"\"c\":1,"[..]);
        splice.replace(message.field("a").unwrap(), &b"2"[..]);
        let pieces = splice.pieces(message.text());
        assert_eq!(pieces.concat(), splice.finish());
        let shared = message.text().as_ptr_range();
        let is_shared: Vec<_> = pieces.iter().map(|piece| shared.contains(&piece.as_ptr())).collect();
        assert_eq!(is_shared, [false, true, false]);
    }

    #[test]
    fn an_object_is_written_again_with_members_left_out_and_put_in() {
        let object = br#"{ "a": 1.0, "b" : [ 2 ],"c":{}}"#;
        let out = object_with(object, |key| key == "b", &[("d", b"4"), ("c", b"3")]);
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a":1.0,"d":4,"c":3}"#);
    }
}
