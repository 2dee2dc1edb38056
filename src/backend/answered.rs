//! What has an HTTP server answered, and is it what was asked for?

use bytes::Bytes;

use super::{
    http::REPLY_LIMIT,
    http1::Head,
    pool::{Body, Fault},
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

pub fn kind_of(head: &Head) -> Content {
    let (kind, encoding) = (head.content_type(), head.content_encoding());
    if kind == b"application/json" && encoding.is_empty() {
        return Content::Json; // As most servers write it.
    }
    let short = |text: &[u8]| String::from_utf8_lossy(text).chars().take(60).collect::<String>();
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity") {
        // We ask for none, so what says that it is encoded cannot be read.
        return Content::Other(format!("{} in the encoding {}", short(kind), short(encoding)));
    }
    if kind.eq_ignore_ascii_case(b"application/json") {
        Content::Json
    } else if kind.eq_ignore_ascii_case(b"text/event-stream") {
        Content::Events
    } else {
        Content::Other(if kind.is_empty() { "no content type".into() } else { short(kind) })
    }
}

/// A whole body.
pub async fn read(body: Body) -> Result<Bytes, Trouble> {
    let text = body.whole(REPLY_LIMIT).await.map_err(|fault| cut_off(&fault))?;
    text.ok_or_else(|| Trouble::new(Kind::Rubbish, format!("the answer is over {} MiB", REPLY_LIMIT >> 20)))
}

/// Why the rest of an answer cannot be had.
pub fn cut_off(fault: &Fault) -> Trouble {
    let why = match fault {
        Fault::Broken => "the answer was cut off".to_owned(),
        Fault::Malformed(what) => format!("the answer was cut off: {what}"),
    };
    Trouble::new(Kind::Lost, why)
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
