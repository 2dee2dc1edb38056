//! From an HTTP request to who answers it: era, session, call.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::unbounded_channel;

use super::answer::{self, Call};
use super::envelope::{self, VERSION_KEY};
use super::session::{Session, refusal};
use super::stream::{self, Answered, Bound, EVENTS, JSON, Said, Work};
use super::{Era, Seen, Shared, fault, lock, tool};

pub async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let _ = socket.set_nodelay(true);
        shared.connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        shared.tell();
        let here = shared.clone();
        let service = service_fn(move |request| handle(here.clone(), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        shared.spawn(async {
            // A client that goes is not our failure, and one that is cut off was meant to be.
            let _ = connection.await;
        });
    }
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Answered> {
    let (head, body) = request.into_parts();
    let raw = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let message = serde_json::from_slice(&raw).unwrap_or(Value::Null);
    shared.record(&head, &message, &raw);

    if shared.settings.hang {
        return std::future::pending().await;
    }
    if let Some(pause) = shared.settings.slow {
        tokio::time::sleep(pause).await;
    }

    match (&head.method, head.uri.path()) {
        (&Method::GET, "/sse") if shared.settings.era != Era::Modern => Ok(shared.open_pair()),
        (&Method::POST, "/messages") => Ok(post_to_pair(&shared, &head, raw, &message)),
        (_, "/sse" | "/messages") => Ok(not_allowed("GET")),
        (&Method::POST, _) => post(&shared, &head, raw, &message).await,
        _ if shared.settings.era == Era::Modern => Ok(not_allowed("POST")),
        (&Method::GET, _) if head.headers.contains_key("last-event-id") => Ok(shared.go_on()),
        (&Method::GET, _) => Ok(with_session(&shared, &head, |session| shared.open_get_stream(session))),
        (&Method::DELETE, _) => Ok(with_session(&shared, &head, |session| {
            shared.end_session(session);
            stream::empty(StatusCode::OK)
        })),
        _ => Ok(not_allowed("GET, POST, DELETE")),
    }
}

fn with_session(shared: &Shared, head: &Parts, then: impl FnOnce(&Session) -> Answered) -> Answered {
    shared.session_of(&head.headers).map_or_else(|refused| *refused, |session| then(&session))
}

fn not_allowed(verbs: &'static str) -> Answered {
    let mut response = stream::empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(verbs));
    response
}

async fn post(shared: &Arc<Shared>, head: &Parts, raw: Bytes, message: &Value) -> io::Result<Answered> {
    if let Some(refused) = unfit(&head.headers, message) {
        return Ok(refused);
    }
    let modern = message["params"]["_meta"][VERSION_KEY].is_string();
    match shared.settings.era {
        Era::Modern if modern => post_modern(shared, head, raw, message).await,
        Era::Both if modern => post_modern(shared, head, raw, message).await,
        Era::Modern => Ok(unserved(message)),
        Era::Legacy | Era::Both => post_legacy(shared, head, raw, message).await,
    }
}

/// What is refused of any message.
fn unfit(headers: &HeaderMap, message: &Value) -> Option<Answered> {
    let has = |name, kind| {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(kind))
    };
    if !has(CONTENT_TYPE, JSON) {
        return Some(*refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, -32000, "Unsupported Media Type"));
    }
    if !(has(ACCEPT, JSON) && has(ACCEPT, EVENTS)) {
        return Some(*refusal(StatusCode::NOT_ACCEPTABLE, -32000, "Not Acceptable"));
    }
    let fault = if message.is_null() { (-32700, "Parse error") } else { (-32600, "Invalid Request") };
    (!message.is_object()).then(|| *refusal(StatusCode::BAD_REQUEST, fault.0, fault.1))
}

/// A modern-only server's answer to a message without the envelope.
fn unserved(message: &Value) -> Answered {
    let requested = &message["params"]["protocolVersion"];
    let data = json!({ "supported": [answer::MODERN], "requested": requested });
    let error = json!({ "code": -32022, "message": "Unsupported protocol version", "data": data });
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
    stream::json(StatusCode::BAD_REQUEST, &answer)
}

async fn post_modern(
    shared: &Arc<Shared>,
    head: &Parts,
    raw: Bytes,
    message: &Value,
) -> io::Result<Answered> {
    if message["id"].is_null() {
        return Ok(stream::empty(StatusCode::ACCEPTED));
    }
    if let Err((status, error)) = envelope::check(&head.headers, message) {
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
        return Ok(stream::json(status, &answer));
    }
    if message["method"] == "subscriptions/listen" {
        return Ok(shared.open_listen(&message["id"], &message["params"]));
    }
    respond(shared, None, raw, message).await
}

async fn post_legacy(
    shared: &Arc<Shared>,
    head: &Parts,
    raw: Bytes,
    message: &Value,
) -> io::Result<Answered> {
    if message["method"] == "initialize" && shared.settings.sessions {
        let session = shared.open_session();
        let id = HeaderValue::from_str(&session.id).expect("a plain id");
        let mut response = respond(shared, Some(session), raw, message).await?;
        response.headers_mut().insert("mcp-session-id", id);
        return Ok(response);
    }
    let session = match shared.session_of(&head.headers) {
        Ok(session) => session,
        Err(refused) => return Ok(*refused),
    };
    if shared.take_note(&session, message) {
        return Ok(stream::empty(StatusCode::ACCEPTED));
    }
    respond(shared, Some(session), raw, message).await
}

/// A message of the HTTP+SSE pair: accepted here, answered on the session's stream.
fn post_to_pair(shared: &Arc<Shared>, head: &Parts, raw: Bytes, message: &Value) -> Answered {
    let id = head.uri.query().and_then(|query| query.strip_prefix("session=")).unwrap_or_default();
    let session = match shared.session(id) {
        Ok(session) => session,
        Err(refused) => return *refused,
    };
    if !shared.take_note(&session, message) {
        let mut work = begin(shared, Some(session.clone()), raw, message);
        shared.spawn(async move {
            while let Some(Said::Aside(text) | Said::Last(text)) = work.said.recv().await {
                session.send(&text);
            }
        });
    }
    stream::full(StatusCode::ACCEPTED, "text/plain", "Accepted")
}

/// Answers a request, in the way the fake was told to, or as badly as the tool does.
async fn respond(
    shared: &Arc<Shared>,
    session: Option<Arc<Session>>,
    raw: Bytes,
    message: &Value,
) -> io::Result<Answered> {
    let modern = session.is_none();
    if let Some(failed) = fault::of_http(shared, modern, message) {
        return failed;
    }
    if modern && !answer::serves(shared, modern, message["method"].as_str().unwrap_or_default()) {
        let work = begin(shared, session, raw, message);
        return Ok(work.into_json(StatusCode::NOT_FOUND).await);
    }
    let work = begin(shared, session, raw, message);
    Ok(if shared.settings.sse { work.into_events() } else { work.into_json(StatusCode::OK).await })
}

fn begin(shared: &Arc<Shared>, session: Option<Arc<Session>>, raw: Bytes, message: &Value) -> Work {
    let (say, said) = unbounded_channel();
    let modern = session.is_none();
    let call = Call {
        shared: shared.clone(),
        session,
        id: message["id"].clone(),
        method: message["method"].as_str().unwrap_or_default().to_owned(),
        params: message["params"].clone(),
        raw,
        say,
    };
    let task = shared.spawn(call.run());
    Work { said, bound: modern.then(|| Bound(task)) }
}

impl Shared {
    fn record(&self, head: &Parts, message: &Value, raw: &Bytes) {
        lock(&self.seen).push(Seen {
            verb: head.method.clone(),
            path: head.uri.path().to_owned(),
            method: message["method"].as_str().unwrap_or_default().to_owned(),
            headers: head.headers.clone(),
            body: message.clone(),
            raw: raw.clone(),
            at: Instant::now(),
        });
        self.tell();
    }

    /// Takes a notification, or the answer to a request of ours; a request is left to be answered.
    fn take_note(&self, session: &Session, message: &Value) -> bool {
        if message["method"] == "notifications/cancelled" {
            tool::cancel(self, session, &message["params"]["requestId"]);
        }
        if message["method"].is_null() {
            let waiting = lock(&self.asked).remove(&message["id"].to_string());
            waiting.map(|waiting| waiting.send(message.clone()));
        }
        message["id"].is_null() || message["method"].is_null()
    }
}
