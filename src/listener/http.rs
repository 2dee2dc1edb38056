//! How does HTTP become calls, and replies HTTP?
//!
//! The order of checks is fixed, so that a refusal says the first thing that is wrong: host and
//! origin, endpoint, size and type of the body, JSON, era, and then what the era asks for.
//! (2026-07-28 "Streamable HTTP"; 2025-11-25 "Transports".)

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Method as Verb, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as HttpBody;

use super::{
    Front,
    answer::{self, detached, last_of},
    body::{self, Body},
    connect,
    connection::Fault,
    cors,
    doors::Doors,
    endpoint::Endpoint,
    envelope::{self, Envelope},
    guard::Guard,
    heads::{Heads, Takes, modern_header},
    intake::{acceptable, read},
    legacy::{self, Asking, Beside},
    pipe,
    refusal::{NoSession, ambiguous, error_response, not_allowed, refused, twice, unlike_header},
    replay,
    sender::{self, Network},
    session::{Mode, Session},
    write::Asked,
};
use crate::{
    call::{Call, Caller, Consent, Proof, Replying, Scope, Stage, TurnedAway, Watchman},
    error::{Error, Result},
    settings::Size,
    weaken,
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
    guard: Guard,
    consent: Arc<dyn Consent>,
    /// Callers' tokens are exchanged for others.
    exchanges: Arc<AtomicBool>,
    watchman: Arc<dyn Watchman>,
    proxies: Arc<[Network]>,
    body_limit: usize,
}

impl<S: Stage> Http<S> {
    /// `watchman` is told of requests that are turned away.
    pub fn new(
        front: Front<S>,
        guard: Guard,
        consent: Arc<dyn Consent>,
        watchman: Arc<dyn Watchman>,
        settings: &super::Settings,
    ) -> Self {
        let super::Settings {
            address,
            admin: _,
            hosts,
            origins,
            trusted_proxies,
            body_limit: Size(body_limit),
            page_size: _,
            limits: _,
            tls: _,
        } = settings;
        let doors = Arc::new(Doors::new(*address, hosts, origins));
        let proxies = trusted_proxies.as_slice().into();
        let exchanges = Arc::new(AtomicBool::new(consent.exchanges()));
        Self { front, doors, guard, consent, exchanges, watchman, proxies, body_limit: *body_limit }
    }

    /// There are other backends.
    pub fn look_again(&self) {
        self.exchanges.store(self.consent.exchanges(), Ordering::Relaxed);
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<Fault>> + Unpin,
    {
        let (mut parts, body) = request.into_parts();
        weaken::show(|| format!("{parts:?}"));
        sender::correct(&mut parts, &self.proxies);
        if let Err(refusal) = self.doors.check(&parts.uri, &parts.headers) {
            self.watchman.turned_away(TurnedAway::Door);
            return refused(refusal);
        }
        if let Some(refused) = twice(&parts.headers) {
            self.watchman.turned_away(TurnedAway::Door);
            return refused;
        }
        let origin = parts.headers.get(header::ORIGIN).cloned();
        let mut response = match cors::preflight(&parts) {
            Some(response) => response,
            None => self.admitted(parts, body).await,
        };
        if let Some(origin) = origin {
            cors::open_to(origin, response.headers_mut());
        }
        response
    }

    /// Answers a request that may come in, whoever sends it.
    async fn admitted<B>(&self, parts: Parts, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<Fault>> + Unpin,
    {
        let part = Endpoint::part(parts.uri.path());
        match Endpoint::at(parts.uri.path()) {
            Some(Endpoint::Health) if parts.method == Verb::GET => body::plain(StatusCode::OK, "ok"),
            Some(Endpoint::Metadata(of)) if parts.method == Verb::GET => {
                self.guard.metadata(of).unwrap_or_else(nothing_here)
            }
            Some(Endpoint::AuthorizationServer) if parts.method == Verb::GET => {
                self.guard.authorization_server().unwrap_or_else(nothing_here)
            }
            Some(Endpoint::Health | Endpoint::Metadata(_) | Endpoint::AuthorizationServer) => {
                not_allowed("GET")
            }
            Some(Endpoint::Page(page)) => {
                let asked = (&parts.method, page, parts.uri.query());
                Box::pin(connect::answer(&*self.consent, asked, &parts.headers)).await
            }
            Some(endpoint) => match self.guard.who(&parts, part).await {
                Ok(caller) => self.known(&parts, endpoint, caller, body).await,
                Err(denied) => {
                    self.watchman.turned_away(TurnedAway::NotLetIn(denied));
                    self.guard.denied(denied, part)
                }
            },
            None => {
                self.watchman.turned_away(TurnedAway::NoEndpoint);
                nothing_here()
            }
        }
    }

    /// Answers a request of somebody's.
    async fn known<B>(&self, parts: &Parts, endpoint: Endpoint<'_>, caller: Caller, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<Fault>> + Unpin,
    {
        match endpoint {
            Endpoint::Mcp(scope) => {
                let heads = Heads::of(&parts.headers);
                if let Some(refusal) = ambiguous(&heads) {
                    return refusal;
                }
                let takes = Takes::of(&parts.headers, heads.accept);
                let visit = Visit { parts, heads, takes, caller, scope };
                match parts.method {
                    Verb::POST => self.post(visit, body).await,
                    Verb::GET => self.get(&visit),
                    Verb::DELETE => self.delete(&visit),
                    _ if weaken::is("listen-methods") => self.post(visit, body).await,
                    _ => not_allowed("GET, POST, DELETE"),
                }
            }
            Endpoint::Sse(scope) if parts.method == Verb::GET => pipe::open_sse(&self.front, caller, scope),
            Endpoint::Messages if parts.method == Verb::POST => {
                Box::pin(self.message(parts, &caller, body)).await
            }
            Endpoint::Messages => not_allowed("POST"),
            Endpoint::Sse(_)
            | Endpoint::Health
            | Endpoint::Metadata(_)
            | Endpoint::AuthorizationServer
            | Endpoint::Page(_) => not_allowed("GET"),
        }
    }

    async fn post<B>(&self, visit: Visit<'_>, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<Fault>> + Unpin,
    {
        if let Err(refusal) = acceptable(visit.heads.content_type, visit.takes) {
            return refusal;
        }
        let text = match read(body, self.body_limit).await {
            Ok(text) => text,
            Err(refusal) => return refusal,
        };
        weaken::show(|| String::from_utf8_lossy(&text).into_owned());
        match message::batch(&text, &Limits::REQUEST) {
            Ok(None) => {}
            Ok(Some(batch)) => return Box::pin(self.batch(&visit, batch)).await,
            Err(malformed) => return error_response(&malformed.into(), None, Era::Modern),
        }
        let (takes, part) = (visit.takes, Endpoint::part(visit.parts.uri.path()));
        match self.begin(visit, text) {
            Begun::Done(response) => response,
            Begun::Modern(asked, reply) => {
                self.guard.stepped_up(part, answer::modern(asked, reply, takes.events).await)
            }
            Begun::Legacy(asking, session, opening) => {
                let response = answer::legacy(asking, &session, takes.events).await;
                let mut response = self.guard.stepped_up(part, response);
                if opening {
                    self.name_session(&session, &mut response);
                }
                response
            }
        }
    }

    /// Begins what a message asks for. Here is all that need not wait, so that the future of a
    /// request stays small: it is moved more than once.
    fn begin(&self, visit: Visit<'_>, text: Bytes) -> Begun {
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
                message::Kind::Request => self.modern(visit, message, envelope),
                message::Kind::Notification => Begun::Done(body::empty(StatusCode::ACCEPTED)),
                message::Kind::Response => {
                    let what = "clients of revision 2026-07-28 send no responses";
                    let error = Error::NotRpc { what, id: None };
                    Begun::Done(error_response(&error, None, Era::Modern))
                }
            };
        }
        if message.kind() == message::Kind::Request
            && let Some(version) = modern_header(visit.heads.version.first)
        {
            return Begun::Done(unlike_header(&message, version));
        }
        self.legacy(&visit, message, envelope.progress)
    }

    /// The token of a request, where anybody may need it.
    fn proof(&self, parts: &Parts) -> Option<Arc<Proof>> {
        if self.exchanges.load(Ordering::Relaxed) { self.guard.proof(parts) } else { None }
    }

    /// A request that speaks for itself. The client going away drops the call and thereby
    /// cancels it, as the revision wants.
    fn modern(&self, visit: Visit<'_>, message: Message, envelope: Envelope) -> Begun {
        let Visit { parts, heads, takes: _, caller, scope } = visit;
        let id = message.id_bytes().unwrap_or_default();
        let headers = Some((&heads, &parts.headers));
        let proof = self.proof(parts);
        let call = match envelope::call(message, envelope, scope, caller, headers) {
            Ok(call) => Call { proof, ..call },
            Err(error) => return Begun::Done(error_response(&error, Some(&id), Era::Modern)),
        };
        let asked = Asked { id, method: call.method, revision: call.client.revision };
        Begun::Modern(asked, self.front.run(call))
    }

    fn legacy(&self, visit: &Visit<'_>, message: Message, progress: Option<Bytes>) -> Begun {
        let opening = message.kind() == message::Kind::Request && message.is_method("initialize");
        let session = if opening { self.open(visit) } else { self.session(visit) };
        let session = match session {
            Ok(session) => session,
            Err(refusal) => {
                if matches!(refusal, NoSession::Unknown) {
                    self.watchman.turned_away(TurnedAway::NoSession);
                }
                return Begun::Done(refusal.into_response(message.id()));
            }
        };
        match message.kind() {
            message::Kind::Notification => legacy::notice(&session, &message),
            message::Kind::Response => session.answered(message),
            message::Kind::Request => {
                let id = message.id_bytes();
                let trace = envelope::trace(&visit.heads, &visit.parts.headers);
                let beside = Beside { trace, proof: self.proof(visit.parts) };
                return match self.front.ask(&session, message, progress, beside, visit.takes.events) {
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

    fn open(&self, visit: &Visit<'_>) -> Result<Arc<Session>, NoSession> {
        match self.front.sessions.mode() {
            // An id in the request is of an earlier session, which the client gives up.
            Mode::PerClient => {
                let own = replay::Stream::new(0);
                self.front
                    .sessions
                    .open(visit.caller.clone(), visit.scope.clone(), own)
                    .map_err(NoSession::Full)
            }
            Mode::Single => match visit.heads.session {
                Some(_) => Err(NoSession::Unknown),
                None => Ok(self.front.sessions.renew_single(&visit.caller, &visit.scope)),
            },
        }
    }

    fn session(&self, visit: &Visit<'_>) -> Result<Arc<Session>, NoSession> {
        let session = match visit.heads.session {
            Some(id) => {
                let id = id.to_str().map_err(|_| NoSession::Unknown)?;
                self.front.sessions.find(id, &visit.caller, &visit.scope).ok_or(NoSession::Unknown)?
            }
            None if self.front.sessions.mode() == Mode::Single => {
                let session = self.front.sessions.single(&visit.caller, &visit.scope);
                // Such clients may not greet at all; they are taken as they come.
                session.introduce(legacy::nobody(Revision::NEWEST_LEGACY));
                session
            }
            None => return Err(NoSession::Missing),
        };
        match visit.heads.version.first {
            // Before 2025-06-18 there was no such header, so its absence says nothing.
            None => Ok(session),
            Some(version) => {
                let known = Revision::parse(version);
                known.filter(|known| known.era() == Era::Legacy).map(|_| session).ok_or(NoSession::Version)
            }
        }
    }

    /// Several messages at once, which revision 2025-03-26 has.
    async fn batch(&self, visit: &Visit<'_>, batch: Vec<Bytes>) -> Response<Body> {
        let refuse = |what| error_response(&Error::NotRpc { what, id: None }, None, Era::Legacy);
        let session = match self.session(visit) {
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
    fn get(&self, visit: &Visit<'_>) -> Response<Body> {
        if !visit.takes.events {
            return body::plain(
                StatusCode::NOT_ACCEPTABLE,
                "This is an MCP endpoint: POST JSON-RPC here, or GET with Accept: text/event-stream on a session.",
            );
        }
        if visit.heads.session.is_none() && self.front.sessions.mode() == Mode::PerClient {
            return not_allowed("POST");
        }
        let session = match self.session(visit) {
            Ok(session) => session,
            Err(refusal) => return refusal.into_response(None),
        };
        let last = visit.parts.headers.get("last-event-id").and_then(|id| id.to_str().ok());
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

    fn delete(&self, visit: &Visit<'_>) -> Response<Body> {
        if visit.heads.session.is_none() {
            return not_allowed("POST");
        }
        match self.session(visit) {
            Ok(session) => {
                self.front.sessions.close(&session.id);
                body::empty(StatusCode::OK)
            }
            Err(refusal) => refusal.into_response(None),
        }
    }

    /// A message of the old HTTP+SSE pair. The answer goes out on the session's stream.
    async fn message<B>(&self, parts: &Parts, caller: &Caller, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<Fault>> + Unpin,
    {
        let id = parts.uri.query().and_then(|query| query.strip_prefix("session="));
        let session = id.and_then(|id| self.front.sessions.by_address(id, caller));
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

/// A request of somebody's, before its body has been looked at.
struct Visit<'a> {
    parts: &'a Parts,
    heads: Heads<'a>,
    takes: Takes,
    caller: Caller,
    scope: Scope,
}

fn nothing_here() -> Response<Body> {
    body::plain(StatusCode::NOT_FOUND, "There is nothing here. MCP is at /mcp.")
}

/// What became of a message.
enum Begun {
    Done(Response<Body>),
    Modern(Asked, Replying),
    /// With whether it opens the session.
    Legacy(Asking, Arc<Session>, bool),
}
