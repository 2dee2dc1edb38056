//! What outlives a request: legacy sessions with their streams, and the subscriptions of 2026-07-28.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::stream::{self, Answered};
use super::{Shared, lock};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// A legacy session.
#[derive(Debug, Default)]
pub struct Session {
    pub id: String,
    /// Where messages go that belong to no request: the GET stream, or the one stream of an HTTP+SSE pair.
    stream: Mutex<Option<UnboundedSender<Bytes>>>,
}

/// A stream of `subscriptions/listen`.
#[derive(Debug)]
pub struct Listen {
    pub id: Value,
    pub filter: Value,
    pub stream: UnboundedSender<Bytes>,
}

/// A stream that hears of changes.
#[derive(Debug)]
pub struct Listener {
    stream: UnboundedSender<Bytes>,
    subscription: Option<(Value, Value)>,
}

/// Tells those who wait that a stream has ended.
struct Leave(Arc<Shared>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.tell();
    }
}

impl Session {
    pub fn listener(&self) -> Option<Listener> {
        let stream = lock(&self.stream).clone().filter(|stream| !stream.is_closed())?;
        Some(Listener { stream, subscription: None })
    }

    pub fn send(&self, message: &[u8]) {
        if let Some(listener) = self.listener() {
            listener.send_raw(stream::event(message));
        }
    }
}

impl Listen {
    pub fn listener(&self) -> Option<Listener> {
        let subscription = Some((self.id.clone(), self.filter.clone()));
        let listener = Listener { stream: self.stream.clone(), subscription };
        (!self.stream.is_closed()).then_some(listener)
    }
}

impl Listener {
    /// Sends a notification, if the subscription wants it. Tells whether it did.
    pub fn send(&self, notification: &Value) -> bool {
        let mut notification = notification.clone();
        if let Some((id, filter)) = &self.subscription {
            if !wants(filter, &notification) {
                return false;
            }
            notification["params"]["_meta"][SUBSCRIPTION] = id.clone();
        }
        self.send_raw(stream::event(notification.to_string().as_bytes()));
        true
    }

    /// A listener that is gone in the meantime hears nothing.
    pub fn send_raw(&self, bytes: Bytes) {
        let _ = self.stream.send(bytes);
    }
}

fn wants(filter: &Value, notification: &Value) -> bool {
    match notification["method"].as_str().unwrap_or_default() {
        "notifications/tools/list_changed" => filter["toolsListChanged"] == true,
        "notifications/prompts/list_changed" => filter["promptsListChanged"] == true,
        "notifications/resources/list_changed" => filter["resourcesListChanged"] == true,
        "notifications/resources/updated" => filter["resourceSubscriptions"]
            .as_array()
            .is_some_and(|uris| uris.contains(&notification["params"]["uri"])),
        _ => true,
    }
}

impl Shared {
    pub fn open_session(self: &Arc<Self>) -> Arc<Session> {
        let id = format!("{}-session-{}", self.settings.name, self.next_number());
        let session = Arc::new(Session { id: id.clone(), ..Session::default() });
        lock(&self.sessions).insert(id, session.clone());
        self.tell();
        session
    }

    /// The session a legacy request names; where there are no sessions, one for all.
    pub fn session_of(&self, headers: &HeaderMap) -> Result<Arc<Session>, Box<Answered>> {
        if !self.settings.sessions {
            let mut sessions = lock(&self.sessions);
            return Ok(sessions.entry(String::new()).or_default().clone());
        }
        let Some(id) = headers.get("mcp-session-id").and_then(|id| id.to_str().ok()) else {
            let text = "Bad Request: Mcp-Session-Id header is required";
            return Err(refusal(StatusCode::BAD_REQUEST, -32000, text));
        };
        self.session(id)
    }

    pub fn session(&self, id: &str) -> Result<Arc<Session>, Box<Answered>> {
        let unknown = || refusal(StatusCode::NOT_FOUND, -32001, "Session not found");
        lock(&self.sessions).get(id).cloned().ok_or_else(unknown)
    }

    pub fn end_session(&self, session: &Session) {
        lock(&self.sessions).remove(&session.id);
        self.tell();
    }

    /// The GET stream of a session; a second one beside it is refused.
    pub fn open_get_stream(self: &Arc<Self>, session: &Session) -> Answered {
        if !self.settings.get_stream {
            return stream::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        if session.listener().is_some() {
            let text = "Conflict: Only one SSE stream is allowed per session";
            return *refusal(StatusCode::CONFLICT, -32000, text);
        }
        let (sender, response) = stream::events_from_outside(None, Leave(self.clone()));
        *lock(&session.stream) = Some(sender);
        self.tell();
        response
    }

    /// A stream that goes on after an event, or word that there is no such event.
    pub fn go_on(&self) -> Answered {
        match lock(&self.later).pop_front() {
            Some(bytes) => stream::full(StatusCode::OK, stream::EVENTS, bytes),
            None => *refusal(StatusCode::BAD_REQUEST, -32000, "Invalid event ID"),
        }
    }

    /// The stream of an HTTP+SSE pair, which begins with where to post.
    pub fn open_pair(self: &Arc<Self>) -> Answered {
        let session = self.open_session();
        let endpoint = format!("event: endpoint\ndata: /messages?session={}\n\n", session.id);
        let (sender, response) = stream::events_from_outside(Some(endpoint.into()), Leave(self.clone()));
        *lock(&session.stream) = Some(sender);
        self.tell();
        response
    }

    /// `subscriptions/listen`: the acknowledgement, and then what the filter lets through.
    pub fn open_listen(self: &Arc<Self>, id: &Value, params: &Value) -> Answered {
        let filter = params["notifications"].clone();
        let acknowledged = json!({
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": { "notifications": filter, "_meta": { SUBSCRIPTION: id } },
        });
        let first = stream::event(acknowledged.to_string().as_bytes());
        let (stream, response) = stream::events_from_outside(Some(first), Leave(self.clone()));
        lock(&self.listens).push(Listen { id: id.clone(), filter, stream });
        self.tell();
        response
    }
}

/// A refusal of HTTP's with an error that belongs to no request.
pub fn refusal(status: StatusCode, code: i64, text: &str) -> Box<Answered> {
    let error = json!({ "code": code, "message": text });
    Box::new(stream::json(status, &json!({ "jsonrpc": "2.0", "id": null, "error": error })))
}
