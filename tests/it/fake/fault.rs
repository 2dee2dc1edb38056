//! What a server can do wrong with a `tools/call`, each as a tool of that name.
//!
//! Those of HTTP fail over Streamable HTTP alone; those of the message over the HTTP+SSE pair as well.
//! What can fail as JSON and as an event stream follows [`super::Builder::sse`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::StatusCode;
use hyper::header::{
    CONTENT_ENCODING, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::answer::{Answer, Call};
use super::stream::{self as body, Answered, EVENTS, JSON};
use super::tool::{text, unhex};
use super::{Shared, lock};

/// Every tool that fails.
pub const FAULTS: [&str; 32] = [
    // Of HTTP.
    "html",         // 200, a page
    "no_content",   // 204
    "wrong_type",   // 200, the right answer as text/plain
    "truncated",    // 200, half of the right answer, in a whole body
    "cut",          // 200, half of the right answer, then the connection breaks
    "reset",        // the connection breaks before a byte is sent
    "no_answer",    // 200, an event stream that ends without an answer
    "hang_body",    // 200, headers, and then nothing
    "drip",         // 200, the right answer, a byte every `every_ms` (1000)
    "gzip",         // 200, said to be gzip, and is none
    "endless_line", // 200, an event stream of one line of `bytes` (64 MiB) without an end
    "oversize",     // 200, a right answer of `bytes` (32 MiB)
    "redirect",     // 307 to `url`
    "unauthorized", // 401, with WWW-Authenticate and a cookie
    "forbidden",    // 403
    "too_many",     // 429, Retry-After: 7
    "broken",       // 500, with a JSON-RPC error
    "unavailable",  // 503, Retry-After: 7, no body
    "body",         // `hex` as it is, with `status` (200) and `type` (application/json)
    // Of the message.
    "wrong_id",     // an answer to another request
    "id_as_text",   // the id's type is another
    "both",         // result and error
    "neither",      // no result, no error
    "not_jsonrpc",  // without "jsonrpc"
    "unknown_kind", // a resultType nobody knows
    "no_kind",      // no resultType
    "twice",        // the answer, twice; the first says "first"
    "stranger",     // before the answer, one to a request nobody made
    "foreign",      // before the answer, progress for a token nobody gave
    "deep",         // a right answer of `depth` levels (1000)
    "asks",         // a request to the client; legacy: answers with what came back
    "fails",        // a JSON-RPC error: code 4711, with data
];

/// The HTTP response of a tool that fails by HTTP's means.
pub fn of_http(shared: &Shared, modern: bool, message: &Value) -> Option<io::Result<Answered>> {
    if message["method"] != "tools/call" {
        return None;
    }
    let arguments = &message["params"]["arguments"];
    let number = |name: &str, absent| arguments[name].as_u64().unwrap_or(absent);
    let good = good(&message["id"], modern);
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let sse = shared.settings.sse;
    let kind = if sse { EVENTS } else { JSON };
    let framed = |text: &str| if sse { body::event(text.as_bytes()) } else { text.to_owned().into() };
    let whole = || String::from_utf8(framed(&good).into()).expect("text");
    let status = |status| Some(Ok(body::full(status, "text/plain", "no")));
    Some(Ok(match message["params"]["name"].as_str()? {
        "html" => body::full(StatusCode::OK, "text/html", "<html><h1>It works!</h1></html>"),
        "no_content" => body::empty(StatusCode::NO_CONTENT),
        "wrong_type" => body::full(StatusCode::OK, "text/plain", good),
        "truncated" => body::full(StatusCode::OK, kind, framed(&half(&good))),
        "cut" => body::streamed(kind, broken_after(half(&whole()))),
        "reset" => return Some(Err(io::ErrorKind::ConnectionReset.into())),
        "no_answer" => body::full(StatusCode::OK, EVENTS, ": nothing\n\n"),
        "hang_body" => body::streamed(kind, stream::pending()),
        "drip" => drip(kind, whole(), Duration::from_millis(number("every_ms", 1000))),
        "gzip" => with(body::full(StatusCode::OK, JSON, good), CONTENT_ENCODING, "gzip"),
        "endless_line" => body::streamed(EVENTS, long("data: ", number("bytes", 64 << 20), "")),
        "oversize" => {
            let whole = whole();
            let (before, after) = whole.split_once("good").expect("a good answer says so");
            body::streamed(kind, long(before, number("bytes", 32 << 20), after))
        }
        "redirect" => {
            let url = arguments["url"].as_str().unwrap_or("http://127.0.0.1:1/mcp");
            with(body::empty(StatusCode::TEMPORARY_REDIRECT), LOCATION, url)
        }
        "unauthorized" => {
            let refused = with(body::empty(StatusCode::UNAUTHORIZED), SET_COOKIE, "fake=1");
            with(refused, WWW_AUTHENTICATE, "Bearer realm=\"fake\"")
        }
        "forbidden" => return status(StatusCode::FORBIDDEN),
        "too_many" => with(body::empty(StatusCode::TOO_MANY_REQUESTS), RETRY_AFTER, "7"),
        "unavailable" => with(body::empty(StatusCode::SERVICE_UNAVAILABLE), RETRY_AFTER, "7"),
        "broken" => {
            let error = json!({ "code": -32603, "message": "Internal error" });
            let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
            body::json(StatusCode::INTERNAL_SERVER_ERROR, &answer)
        }
        "body" => {
            let status = StatusCode::from_u16(number("status", 200) as u16).expect("a status");
            let kind = arguments["type"].as_str().unwrap_or(JSON);
            body::full(status, kind, unhex(arguments["hex"].as_str().unwrap_or_default()))
        }
        _ => return None,
    }))
}

/// The answer of a tool that fails in what it says.
pub async fn of_message(call: &Call, name: &str, arguments: &Value) -> Option<Answer> {
    let Call { id, .. } = call;
    let good = || serde_json::from_str::<Value>(&good(id, call.is_modern())).expect("JSON");
    let but = |change: &dyn Fn(&mut Value)| {
        let mut answer = good();
        change(&mut answer);
        Answer::Message(answer)
    };
    Some(match name {
        "wrong_id" => but(&|answer| answer["id"] = json!("of-nobody")),
        "id_as_text" => but(&|answer| answer["id"] = json!(id.to_string())),
        "both" => but(&|answer| answer["error"] = json!({ "code": 1, "message": "and yet" })),
        "neither" => Answer::Message(json!({ "jsonrpc": "2.0", "id": id })),
        "not_jsonrpc" => Answer::Message(json!({ "id": id, "result": good()["result"] })),
        "unknown_kind" => but(&|answer| answer["result"]["resultType"] = json!("riddle")),
        "no_kind" => Answer::Message(json!({ "jsonrpc": "2.0", "id": id, "result": text("good") })),
        "twice" => {
            call.aside(&json!({ "jsonrpc": "2.0", "id": id, "result": good()["result"] }));
            Answer::Result(text("second"))
        }
        "stranger" => {
            call.aside(&json!({ "jsonrpc": "2.0", "id": "of-nobody", "result": text("stray") }));
            Answer::Result(text("good"))
        }
        "foreign" => {
            let params = json!({ "progressToken": "of-nobody", "progress": 1 });
            call.notify("notifications/progress", params);
            Answer::Result(text("good"))
        }
        "deep" => {
            let depth = arguments["depth"].as_u64().unwrap_or(1000) as usize;
            let nest = "[".repeat(depth) + &"]".repeat(depth);
            Answer::Raw(format!(r#"{{"content":[],"structuredContent":{{"a":{nest}}}}}"#).into())
        }
        "asks" => asks(call).await,
        "fails" => {
            let data = Some(json!({ "why": "asked to" }));
            Answer::Error { code: 4711, message: "failed as asked".to_owned(), data }
        }
        _ => return None,
    })
}

/// Asks the client something, as 2026-07-28 forbids; before that, waits for what it says and repeats it.
async fn asks(call: &Call) -> Answer {
    let id = format!("ask-{}", call.shared.next_number());
    let (answer, answered) = oneshot::channel();
    lock(&call.shared.asked).insert(json!(id).to_string(), answer);
    let params = json!({ "messages": [], "maxTokens": 1 });
    call.aside(&json!({
        "jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": params,
    }));
    if call.is_modern() {
        return Answer::Result(text("good"));
    }
    match answered.await {
        Ok(message) => Answer::Result(text(message.to_string())),
        Err(_) => Answer::Silence,
    }
}

/// The answer that says `good`.
fn good(id: &Value, modern: bool) -> String {
    let mut result = text("good");
    if modern {
        result["resultType"] = json!("complete");
    }
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

fn with(mut response: Answered, name: HeaderName, value: &str) -> Answered {
    response.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header"));
    response
}

fn broken_after(text: String) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    let breaks = async {
        tokio::task::yield_now().await; // else what came before would never be flushed
        Err(io::ErrorKind::ConnectionReset.into())
    };
    stream::iter([Ok(Bytes::from(text))]).chain(stream::once(breaks))
}

fn drip(kind: &str, text: String, pause: Duration) -> Answered {
    let bytes = Arc::new(text.into_bytes());
    let drops = stream::iter(0..bytes.len()).then(move |at| {
        let bytes = bytes.clone();
        async move {
            tokio::time::sleep(pause).await;
            Ok(Bytes::copy_from_slice(&bytes[at..=at]))
        }
    });
    body::streamed(kind, drops)
}

/// `length` bytes of text between two others.
fn long(
    before: &str,
    length: u64,
    after: &str,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + use<> {
    const PIECE: Bytes = Bytes::from_static(&[b'x'; 1 << 16]);
    let (whole, rest) = (length as usize / PIECE.len(), length as usize % PIECE.len());
    let before = stream::iter([Bytes::from(before.to_owned())]);
    let middle = stream::iter((0..whole).map(|_| PIECE));
    let last = [PIECE.slice(..rest), Bytes::from(after.to_owned())];
    before.chain(middle).chain(stream::iter(last)).map(Ok)
}
