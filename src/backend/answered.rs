//! What has an HTTP server answered, and is it what was asked for?

use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Response,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::{
    http::REPLY_LIMIT,
    pool::Answer,
    transport::{Kind, Trouble},
};
use crate::wire::{
    json::Limits,
    message::{self, Message},
};

/// The kind of a body.
pub enum Content {
    Json,
    Events,
    Other(String),
}

pub fn kind_of(response: &Response<Answer>) -> Content {
    let headers = response.headers();
    if headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
        && !headers.contains_key(CONTENT_ENCODING)
    {
        return Content::Json; // As most servers write it.
    }
    let short = |text: &[u8]| String::from_utf8_lossy(text).chars().take(60).collect::<String>();
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        // We ask for none, so what says that it is encoded cannot be read.
        return Content::Other(format!("{} in the encoding {}", short(kind), short(encoding.as_bytes())));
    }
    if kind.eq_ignore_ascii_case(b"application/json") {
        Content::Json
    } else if kind.eq_ignore_ascii_case(b"text/event-stream") {
        Content::Events
    } else {
        Content::Other(if kind.is_empty() { "no content type".into() } else { short(kind) })
    }
}

/// A whole body. Most come in one piece, which then is not copied.
pub async fn read(mut body: Answer) -> Result<Bytes, Trouble> {
    let cut_off = |_| Trouble::new(Kind::Lost, "the answer was cut off");
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let Ok(data) = frame.map_err(cut_off)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > REPLY_LIMIT {
            return Err(Trouble::new(Kind::Rubbish, format!("the answer is over {} MiB", REPLY_LIMIT >> 20)));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(
                    body.size_hint().lower().min(REPLY_LIMIT as u64) as usize + first.len() + data.len(),
                );
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

pub fn parse(text: Bytes) -> Result<Message, Trouble> {
    Message::parse(text, &Limits::REPLY).map_err(|malformed| {
        let why = match malformed {
            message::Malformed::Json(fault) => format!("answered with a text that is not JSON: {fault}"),
            message::Malformed::Rpc(what, _) => {
                format!("answered with something that is no response: {what}")
            }
        };
        Trouble::new(Kind::Rubbish, why)
    })
}

/// A response to this request, or to one whose id the server could not read.
pub fn belongs(message: Message, id: u64) -> Result<Message, Trouble> {
    let own = message.kind() == message::Kind::Response
        && message.id().is_some_and(|text| text == b"null" || is_number(text, id));
    if own { Ok(message) } else { Err(Trouble::new(Kind::Rubbish, "answered a request that was not asked")) }
}

fn is_number(text: &[u8], number: u64) -> bool {
    let mut rest = number;
    let digits = text.iter().rev().all(|digit| {
        let same = u64::from(digit.wrapping_sub(b'0')) == rest % 10 && rest > 0;
        rest /= 10;
        same
    });
    digits && rest == 0 && !text.is_empty()
}
