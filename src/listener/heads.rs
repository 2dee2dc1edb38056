//! What do the headers of a request say that we act on?
//!
//! All of them are looked at once: that is faster than to look for each.

use http::{HeaderMap, HeaderValue, header};

use crate::wire::mcp::{Era, Revision};

/// The headers we know, each by its first value.
#[derive(Debug, Default)]
pub struct Heads<'a> {
    pub content_type: Option<&'a HeaderValue>,
    pub accept: Option<&'a HeaderValue>,
    pub session: Option<&'a HeaderValue>,
    pub version: Once<'a>,
    pub method: Once<'a>,
    pub name: Once<'a>,
    /// Are there any `Mcp-Param-…`?
    pub params: bool,
    /// Are there any that some servers take for those above, with `_` for `-`?
    pub underscored: bool,
    /// Does `Connection` say that a header which we go by is not for us?
    pub nominated: bool,
    /// Is there a trace that the request belongs to?
    pub traced: bool,
}

/// A header that may be there once.
#[derive(Debug, Default, Clone, Copy)]
pub struct Once<'a> {
    pub first: Option<&'a HeaderValue>,
    pub again: bool,
}

impl<'a> Once<'a> {
    fn put(&mut self, value: &'a HeaderValue) {
        self.again = self.first.is_some();
        self.first = self.first.or(Some(value));
    }
}

impl<'a> Heads<'a> {
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut heads = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "content-type" => heads.content_type = heads.content_type.or(Some(value)),
                "accept" => heads.accept = heads.accept.or(Some(value)),
                "mcp-session-id" => heads.session = heads.session.or(Some(value)),
                "mcp-protocol-version" => heads.version.put(value),
                "mcp-method" => heads.method.put(value),
                "mcp-name" => heads.name.put(value),
                "connection" => heads.nominated |= nominates(value),
                "traceparent" | "baggage" => heads.traced = true,
                other => {
                    heads.params |= other.starts_with("mcp-param-");
                    heads.underscored |= other.starts_with("mcp_");
                }
            }
        }
        heads
    }
}

/// Does a `Connection` header name one that is not about the connection? Whoever stands between
/// takes such a header away, and another one in its place may be what we see. (RFC 9110, 7.6.1.)
fn nominates(connection: &HeaderValue) -> bool {
    const OURS: [&str; 10] = [
        "accept",
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "forwarded",
        "host",
        "origin",
        "x-forwarded-for",
        "last-event-id",
    ];
    let names = connection.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names
        .map(<[u8]>::to_ascii_lowercase)
        .any(|name| name.starts_with(b"mcp-") || OURS.iter().any(|ours| ours.as_bytes() == name))
}

/// What the client takes for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    pub json: bool,
    pub events: bool,
}

impl Takes {
    /// A client that does not say takes JSON.
    pub fn of(headers: &HeaderMap, first: Option<&HeaderValue>) -> Self {
        let Some(first) = first else { return Self { json: true, events: false } };
        if first == "application/json, text/event-stream" {
            return Self { json: true, events: true }; // As official SDKs write it.
        }
        let mut takes = Self { json: false, events: false };
        let accepts = headers.get_all(header::ACCEPT).iter();
        for range in accepts.flat_map(|accept| accept.as_bytes().split(|b| *b == b',')) {
            let kind = range.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            let is = |names: &[&str]| names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(kind));
            takes.json |= is(&["application/json", "application/*", "*/*"]);
            takes.events |= is(&["text/event-stream", "text/*", "*/*"]);
        }
        takes
    }
}

/// The revision of the modern era that a header names, if it does.
pub fn modern_header(version: Option<&HeaderValue>) -> Option<&str> {
    let legacy = Revision::parse(version?).is_some_and(|revision| revision.era() == Era::Legacy);
    let version = version?.to_str().ok()?;
    // A revision that is newer than we know is modern as well.
    (!legacy && version >= Revision::NEWEST.name()).then_some(version)
}
