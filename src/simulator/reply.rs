//! What is an answer, before it goes out?

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header};
use serde_json::Value;

use super::{play::Step, random, refusal::Refusal};

/// Below this nothing is won by compressing.
const WORTHWHILE: usize = 1024;

/// Status, headers, and what the body does.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub steps: Vec<Step>,
}

impl Reply {
    pub fn json(value: &Value) -> Self {
        Self::text(200, "application/json", value.to_string())
    }

    pub fn text(status: u16, kind: &str, text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let steps = if text.is_empty() { Vec::new() } else { vec![Step::Send(text, 0)] };
        Self { status, headers: vec![("content-type", kind.to_owned())], steps }
    }

    /// A whole answer with so many tokens in it.
    pub fn generated(value: &Value, tokens: u64) -> Self {
        let mut reply = Self::json(value);
        for step in &mut reply.steps {
            if let Step::Send(_, holds) = step {
                *holds = tokens;
            }
        }
        reply.steps.insert(0, Step::Generated);
        reply
    }

    pub fn events(steps: Vec<Step>) -> Self {
        let kind = ("content-type", "text/event-stream".to_owned());
        Self { status: 200, headers: vec![kind, ("cache-control", "no-cache".to_owned())], steps }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Only if it is new to the client, and compressed if the client likes that.
    pub fn wanted_by(mut self, headers: &HeaderMap) -> Self {
        let says = |name: header::HeaderName, word: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(word))
        };
        let json = self.headers.iter().any(|(_, value)| value == "application/json");
        let Some(Step::Send(text, _)) = self.steps.last_mut() else { return self };
        if self.status != 200 || !json {
            return self;
        }
        let tag = format!("\"{}\"", random::short(text));
        if says(header::IF_NONE_MATCH, &tag) {
            let headers = vec![("etag", tag)];
            return Self { status: 304, headers, steps: Vec::new() };
        }
        if text.len() >= WORTHWHILE && says(header::ACCEPT_ENCODING, "gzip") {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            if encoder.write_all(text).is_ok()
                && let Ok(small) = encoder.finish()
            {
                *text = small.into();
                self.headers.push(("content-encoding", "gzip".to_owned()));
            }
        }
        self.headers.extend([("etag", tag), ("vary", "accept-encoding".to_owned())]);
        self
    }
}

impl From<Refusal> for Reply {
    fn from(no: Refusal) -> Self {
        let mut reply = Self::text(no.status, "application/json", no.body.to_string());
        reply.headers.extend(no.headers);
        reply
    }
}
