//! How does HTTP become calls, and replies HTTP?
//!
//! The order of checks is fixed, so that a refusal says the first thing that is wrong: host and
//! origin, endpoint, size and type of the body, JSON, era, and then what the era asks for.
//! (2026-07-28 "Streamable HTTP"; 2025-11-25 "Transports".)

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, Response, StatusCode, header, request::Parts,
};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;

use super::{
    Front,
    answer::{self, detached, last_of},
    body::{self, Body},
    doors::Doors,
    envelope::{self, Envelope},
    heads::Heads,
    legacy::{self, Asking},
    pipe,
    refusal::{NoSession, error_response, not_allowed, refused},
    replay,
    session::{Mode, Session},
    write::Asked,
};
use crate::{
    call::{Replying, Scope, Stage},
    error::{Error, Result},
    settings::Size,
    wire::{
        json::Limits,
        mcp::{Era, Revision},
        message::{self, Message},
    },
};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// The HTTP face of the gateway.
#[derive(Debug, Clone)]
pub struct Http<S> {
    front: Front<S>,
    doors: Arc<Doors>,
    body_limit: usize,
}

impl<S: Stage> Http<S> {
    pub fn new(front: Front<S>, settings: &super::Settings) -> Self {
        let super::Settings { address, admin: _, hosts, origins, body_limit: Size(body_limit), page_size: _ } =
            settings;
        Self { front, doors: Arc::new(Doors::new(*address, hosts, origins)), body_limit: *body_limit }
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let (parts, body) = request.into_parts();
        if let Err(refusal) = self.doors.check(&parts.uri, &parts.headers) {
            return refused(refusal);
        }
        let path = parts.uri.path();
        match endpoint(path) {
            Some(Endpoint::Mcp(scope)) => match parts.method {
                Verb::POST => self.post(&parts, scope, body).await,
                Verb::GET => self.get(&parts, &scope),
                Verb::DELETE => self.delete(&parts, &scope),
                _ => not_allowed("GET, POST, DELETE"),
            },
            Some(Endpoint::Sse(scope)) if parts.method == Verb::GET => pipe::open_sse(&self.front, scope),
            Some(Endpoint::Messages) if parts.method == Verb::POST => {
                Box::pin(self.message(&parts, body)).await
            }
            Some(Endpoint::Health) if parts.method == Verb::GET => body::plain(StatusCode::OK, "ok"),
            Some(Endpoint::Sse(_) | Endpoint::Health) => not_allowed("GET"),
            Some(Endpoint::Messages) => not_allowed("POST"),
            None => body::plain(StatusCode::NOT_FOUND, "There is nothing here. MCP is at /mcp."),
        }
    }

    async fn post<B>(&self, parts: &Parts, scope: Scope, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let heads = Heads::of(&parts.headers);
        let takes = Takes::of(&parts.headers, heads.accept);
        if let Err(refusal) = acceptable(heads.content_type, takes) {
            return refusal;
        }
        let text = match read(body, self.body_limit).await {
            Ok(text) => text,
            Err(refusal) => return refusal,
        };
        match message::batch(&text, &Limits::REQUEST) {
            Ok(None) => {}
            Ok(Some(batch)) => return Box::pin(self.batch(parts, &scope, batch)).await,
            Err(malformed) => return error_response(&malformed.into(), None, Era::Modern),
        }
        match self.begin(parts, &heads, takes, scope, text) {
            Begun::Done(response) => response,
            Begun::Modern(asked, reply) => answer::modern(asked, reply, takes.events).await,
            Begun::Legacy(asking, session, opening) => {
                let mut response = answer::legacy(asking, &session, takes.events).await;
                if opening {
                    self.name_session(&session, &mut response);
                }
                response
            }
        }
    }

    /// Begins what a message asks for. Here is all that need not wait, so that the future of a
    /// request stays small: it is moved more than once.
    fn begin(&self, parts: &Parts, heads: &Heads<'_>, takes: Takes, scope: Scope, text: Bytes) -> Begun {
        let message = match Message::parse(text, &Limits::REQUEST) {
            Ok(message) => message,
            Err(malformed) => {
                let error = Error::from(malformed);
                let id = if let Error::NotRpc { id, .. } = &error { id.clone() } else { None };
                return Begun::Done(error_response(&error, id.as_deref(), Era::Modern));
            }
        };
        let envelope = Envelope::read(&message);
        if envelope.is_modern() {
            return match message.kind() {
                message::Kind::Request => self.modern(parts, heads, scope, message, envelope),
                message::Kind::Notification => Begun::Done(body::empty(StatusCode::ACCEPTED)),
                message::Kind::Response => {
                    let what = "clients of revision 2026-07-28 send no responses";
                    let error = Error::NotRpc { what, id: None };
                    Begun::Done(error_response(&error, None, Era::Modern))
                }
            };
        }
        if message.kind() == message::Kind::Request
            && let Some(version) = modern_header(heads.version.first)
        {
            return Begun::Done(unlike_header(&message, version));
        }
        self.legacy(parts, heads, takes, scope, message, envelope.progress)
    }

    /// A request that speaks for itself. The client going away drops the call and thereby
    /// cancels it, as the revision wants.
    fn modern(
        &self,
        parts: &Parts,
        heads: &Heads<'_>,
        scope: Scope,
        message: Message,
        envelope: Envelope,
    ) -> Begun {
        let id = message.id_bytes().unwrap_or_default();
        let headers = Some((heads, &parts.headers));
        let call = match envelope::call(message, envelope, scope, self.front.caller(), headers) {
            Ok(call) => call,
            Err(error) => return Begun::Done(error_response(&error, Some(&id), Era::Modern)),
        };
        let asked = Asked { id, method: call.method, revision: call.client.revision };
        Begun::Modern(asked, self.front.run(call))
    }

    fn legacy(
        &self,
        parts: &Parts,
        heads: &Heads<'_>,
        takes: Takes,
        scope: Scope,
        message: Message,
        progress: Option<Bytes>,
    ) -> Begun {
        let opening = message.kind() == message::Kind::Request && message.is_method("initialize");
        let session = if opening { self.open(parts, scope) } else { self.session(heads, &scope) };
        let session = match session {
            Ok(session) => session,
            Err(refusal) => return Begun::Done(refusal.into_response(message.id())),
        };
        match message.kind() {
            message::Kind::Notification => legacy::notice(&session, &message),
            message::Kind::Response => session.answered(message),
            message::Kind::Request => {
                let id = message.id_bytes();
                let trace = envelope::trace(heads, &parts.headers);
                return match self.front.ask(&session, message, progress, trace, takes.events) {
                    Ok(asking) => Begun::Legacy(asking, session, opening),
                    Err(error) => {
                        let mut response = error_response(&error, id.as_deref(), Era::Legacy);
                        if opening {
                            self.name_session(&session, &mut response);
                        }
                        Begun::Done(response)
                    }
                };
            }
        }
        Begun::Done(body::empty(StatusCode::ACCEPTED))
    }

    /// Tells the client of its new session, or forgets it if it came to nothing.
    fn name_session(&self, session: &Session, response: &mut Response<Body>) {
        if session.client().is_none() {
            self.front.sessions.close(&session.id);
        } else if self.front.sessions.mode() == Mode::PerClient
            && let Ok(id) = HeaderValue::from_str(&session.id)
        {
            response.headers_mut().insert(SESSION, id);
        }
    }

    fn open(&self, parts: &Parts, scope: Scope) -> Result<Arc<Session>, NoSession> {
        match self.front.sessions.mode() {
            // An id in the request is of an earlier session, which the client gives up.
            Mode::PerClient => {
                let own = replay::Stream::new(0);
                self.front.sessions.open(self.front.caller(), scope, own).map_err(NoSession::Full)
            }
            Mode::Single => match parts.headers.get(SESSION) {
                Some(_) => Err(NoSession::Unknown),
                None => Ok(self.front.sessions.renew_single(&self.front.caller(), &scope)),
            },
        }
    }

    fn session(&self, heads: &Heads<'_>, scope: &Scope) -> Result<Arc<Session>, NoSession> {
        let session = match heads.session {
            Some(id) => {
                let id = id.to_str().map_err(|_| NoSession::Unknown)?;
                self.front.sessions.find(id, &self.front.caller(), scope).ok_or(NoSession::Unknown)?
            }
            None if self.front.sessions.mode() == Mode::Single => {
                let session = self.front.sessions.single(&self.front.caller(), scope);
                // Such clients may not greet at all; they are taken as they come.
                session.introduce(legacy::nobody(Revision::NEWEST_LEGACY));
                session
            }
            None => return Err(NoSession::Missing),
        };
        match heads.version.first {
            // Before 2025-06-18 there was no such header, so its absence says nothing.
            None => Ok(session),
            Some(version) => {
                let known = Revision::parse(version);
                known.filter(|known| known.era() == Era::Legacy).map(|_| session).ok_or(NoSession::Version)
            }
        }
    }

    /// Several messages at once, which revision 2025-03-26 has.
    async fn batch(&self, parts: &Parts, scope: &Scope, batch: Vec<Bytes>) -> Response<Body> {
        let refuse = |what| error_response(&Error::NotRpc { what, id: None }, None, Era::Legacy);
        let session = match self.session(&Heads::of(&parts.headers), scope) {
            Ok(session) => session,
            Err(_) => return refuse("a batch of messages is taken only on a session of revision 2025-03-26"),
        };
        if session.client().is_none_or(|client| client.revision != Revision::V2025_03_26) {
            return refuse("a batch of messages is taken only on a session of revision 2025-03-26");
        }
        if batch.is_empty() {
            return refuse("a batch has at least one message");
        }
        let mut waiting = Vec::new();
        for text in batch {
            // All answers come at once, as JSON, so there is no stream to be asked on.
            match pipe::take(&self.front, &session, text, false) {
                pipe::Taken::Nothing => {}
                pipe::Taken::Answer(text) => waiting.push(std::future::ready(Some(text)).boxed()),
                pipe::Taken::Asking(asking) => waiting.push(last_of(asking).boxed()),
            }
        }
        if waiting.is_empty() {
            return body::empty(StatusCode::ACCEPTED);
        }
        let answers = detached(futures_util::future::join_all(waiting)).await;
        let mut out = BytesMut::from(&b"["[..]);
        for (index, text) in answers.into_iter().flatten().enumerate() {
            if index > 0 {
                out.extend_from_slice(b",");
            }
            out.extend_from_slice(&text);
        }
        out.extend_from_slice(b"]");
        body::json(200, out)
    }

    /// Opens the session's own stream, or goes on with the stream of an earlier event.
    fn get(&self, parts: &Parts, scope: &Scope) -> Response<Body> {
        if !Takes::of(&parts.headers, parts.headers.get(header::ACCEPT)).events {
            return body::plain(
                StatusCode::NOT_ACCEPTABLE,
                "This is an MCP endpoint: POST JSON-RPC here, or GET with Accept: text/event-stream on a session.",
            );
        }
        if !parts.headers.contains_key(SESSION) && self.front.sessions.mode() == Mode::PerClient {
            return not_allowed("POST");
        }
        let session = match self.session(&Heads::of(&parts.headers), scope) {
            Ok(session) => session,
            Err(refusal) => return refusal.into_response(None),
        };
        let last = parts.headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let (stream, after) = match last.map(replay::parse_id) {
            None => (Arc::clone(&session.own), None),
            Some(id) => match id.and_then(|(number, event)| Some((session.stream(number)?, event))) {
                Some((stream, event)) => (stream, Some(event)),
                None => {
                    let error = Error::Params("Last-Event-ID names no event that is still kept here".into());
                    return body::json(400, error.response(None, Era::Legacy));
                }
            },
        };
        let events = stream.events(after);
        body::events(events, move || session.touch())
    }

    fn delete(&self, parts: &Parts, scope: &Scope) -> Response<Body> {
        if !parts.headers.contains_key(SESSION) {
            return not_allowed("POST");
        }
        match self.session(&Heads::of(&parts.headers), scope) {
            Ok(session) => {
                self.front.sessions.close(&session.id);
                body::empty(StatusCode::OK)
            }
            Err(refusal) => refusal.into_response(None),
        }
    }

    /// A message of the old HTTP+SSE pair. The answer goes out on the session's stream.
    async fn message<B>(&self, parts: &Parts, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let id = parts.uri.query().and_then(|query| query.strip_prefix("session="));
        let session = id.and_then(|id| self.front.sessions.by_address(id, &self.front.caller()));
        let Some(session) = session else {
            return body::plain(StatusCode::NOT_FOUND, "There is no such session; begin with GET /sse.");
        };
        match read(body, self.body_limit).await {
            Ok(text) => match pipe::receive(&self.front, &session, text) {
                Ok(()) => body::plain(StatusCode::ACCEPTED, "Accepted"),
                Err(error) => error_response(&error, None, Era::Legacy),
            },
            Err(refusal) => refusal,
        }
    }
}

/// What became of a message.
enum Begun {
    Done(Response<Body>),
    Modern(Asked, Replying),
    /// With whether it opens the session.
    Legacy(Asking, Arc<Session>, bool),
}

enum Endpoint {
    Mcp(Scope),
    Sse(Scope),
    Messages,
    Health,
}

fn endpoint(path: &str) -> Option<Endpoint> {
    let one = |name: &str| (!name.is_empty() && !name.contains('/')).then(|| Scope::One(name.into()));
    match path {
        "/mcp" | "/mcp/" => Some(Endpoint::Mcp(Scope::All)),
        "/sse" => Some(Endpoint::Sse(Scope::All)),
        "/messages" => Some(Endpoint::Messages),
        "/health" => Some(Endpoint::Health),
        _ => match (path.strip_prefix("/mcp/"), path.strip_prefix("/sse/")) {
            (Some(name), _) => one(name).map(Endpoint::Mcp),
            (None, Some(name)) => one(name).map(Endpoint::Sse),
            (None, None) => None,
        },
    }
}

/// What the client takes for an answer.
#[derive(Debug, Clone, Copy)]
struct Takes {
    json: bool,
    events: bool,
}

impl Takes {
    /// A client that does not say takes JSON.
    fn of(headers: &HeaderMap, first: Option<&HeaderValue>) -> Self {
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

/// Is the body JSON, and will the client take JSON back?
#[expect(clippy::result_large_err, reason = "a refusal is a whole response, and rare")]
fn acceptable(kind: Option<&HeaderValue>, takes: Takes) -> Result<(), Response<Body>> {
    let kind = kind.map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    if !kind.eq_ignore_ascii_case(b"application/json") {
        let why = "The body must be JSON, sent with Content-Type: application/json.";
        return Err(body::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    if !takes.json {
        let why = "The answer is JSON or an event stream; send Accept: application/json, text/event-stream.";
        return Err(body::plain(StatusCode::NOT_ACCEPTABLE, why));
    }
    Ok(())
}

/// The revision of the modern era that a header names, if it does.
fn modern_header(version: Option<&HeaderValue>) -> Option<&str> {
    let legacy = Revision::parse(version?).is_some_and(|revision| revision.era() == Era::Legacy);
    let version = version?.to_str().ok()?;
    // A revision that is newer than we know is modern as well.
    (!legacy && version >= Revision::NEWEST.name()).then_some(version)
}

/// The refusal of a request that is not of the modern era, though its header says so.
fn unlike_header(message: &Message, version: &str) -> Response<Body> {
    let error = if message.method().as_deref() == Some("initialize") {
        Error::Header(format!(
            "`initialize` is not of the revision that the header MCP-Protocol-Version says, {version}"
        ))
    } else {
        let wanted = "io.modelcontextprotocol/protocolVersion and io.modelcontextprotocol/clientCapabilities";
        Error::Envelope(format!("a request of revision {version} must have {wanted} in `params._meta`"))
    };
    error_response(&error, message.id(), Era::Modern)
}

/// A whole body, unless it is too long.
async fn read<B>(mut body: B, limit: usize) -> Result<Bytes, Response<Body>>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let too_long = || {
        let why = format!("The body is over {} (listen.body_limit).", Size(limit));
        body::plain(StatusCode::PAYLOAD_TOO_LARGE, &why)
    };
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let cut_off = |_| body::plain(StatusCode::BAD_REQUEST, "The body was cut off.");
        let Ok(data) = frame.map_err(cut_off)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(too_long());
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}
