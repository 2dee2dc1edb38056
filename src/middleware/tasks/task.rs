//! What is known of one task, and what of it is kept?

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    call::{Answer, Call, Caller, Client, Scope},
    wire::{
        capability::{Capabilities, method_and_params},
        json::{self, Limits},
        mcp::{Era, Method, Revision},
        message::{Message, object_with},
    },
};

/// A call that its client does not wait for.
#[derive(Debug)]
pub struct Task {
    pub id: String,
    /// The call it was made of.
    pub call: Call,
    /// Milliseconds since 1970.
    pub created: u64,
    /// How long it is kept from then on, in milliseconds.
    pub ttl: u64,
    state: Mutex<State>,
    /// Something has changed.
    pub news: Notify,
}

#[derive(Debug)]
pub struct State {
    pub status: Status,
    pub message: Option<String>,
    /// Milliseconds since 1970.
    pub updated: u64,
    /// How often it may be asked for, in milliseconds.
    pub poll: Option<u64>,
    /// The backend's own task, if it has made one.
    pub handle: Option<String>,
    pub asks: Option<Asks>,
    pub outcome: Option<Answer>,
    /// Whoever works on it.
    pub work: Option<AbortHandle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Working,
    InputRequired,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What a task asks of its client.
#[derive(Debug, Clone)]
pub struct Asks {
    /// By their keys, as a JSON object.
    pub requests: Bytes,
    /// What goes with the answers into the next round.
    pub state: Option<String>,
    pub answers: Vec<(String, Result<Bytes, Bytes>)>,
}

impl Asks {
    /// The requests that are not answered yet.
    pub fn open(&self) -> Vec<u8> {
        object_with(&self.requests, |key| self.answers.iter().any(|(other, _)| other == key), &[])
    }

    pub fn is_open(&self, key: &str) -> bool {
        let open = self.open();
        json::member(&open, key).is_some()
    }

    /// May a client that can do this be asked all that is open?
    pub fn may_be_put_to(&self, capabilities: Capabilities) -> bool {
        let open = self.open();
        json::members(&open).iter().all(|member| {
            let (method, params) = method_and_params(member.value.of(&open));
            capabilities.allow(&method, params)
        })
    }

    pub fn is_answered(&self) -> bool {
        json::members(&self.open()).is_empty()
    }
}

impl Task {
    pub fn new(id: String, call: Call, ttl: u64) -> Arc<Self> {
        let created = now();
        let state = State {
            status: Status::Working,
            message: None,
            updated: created,
            poll: None,
            handle: None,
            asks: None,
            outcome: None,
            work: None,
        };
        Arc::new(Self { id, call, created, ttl, state: Mutex::new(state), news: Notify::new() })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Whose it is; to all others it does not exist.
    pub fn is_of(&self, call: &Call) -> bool {
        self.call.caller == call.caller && self.call.scope == call.scope
    }

    /// Changes something of a task that is not done, and tells those who wait for it. False if it
    /// is done.
    pub fn change(&self, change: impl FnOnce(&mut State)) -> bool {
        let mut state = self.state();
        if state.status.is_terminal() {
            return false;
        }
        change(&mut state);
        state.updated = now();
        drop(state);
        self.news.notify_waiters();
        true
    }

    /// How many bytes it takes, nearly.
    pub fn size(&self) -> usize {
        let state = self.state();
        let outcome = match &state.outcome {
            Some(Answer::Response { message, .. } | Answer::Asks(message)) => message.text().len(),
            Some(Answer::Result(text)) => text.len(),
            None => 0,
        };
        outcome + self.call.message.text().len()
    }

    /// How long it is kept from now on.
    pub fn left(&self) -> Duration {
        Duration::from_millis((self.created + self.ttl).saturating_sub(now()))
    }

    /// In a form that can be kept.
    pub fn record(&self) -> Record {
        let state = self.state();
        let (text, written_in, wrapped) = match &state.outcome {
            Some(Answer::Response { message, written_in, wrapped }) => {
                (Some(message.text().clone()), *written_in, *wrapped)
            }
            _ => (None, Era::Legacy, false),
        };
        let call = &self.call;
        Record {
            caller: call.caller.clone(),
            endpoint: call.scope.endpoint(),
            request: String::from_utf8_lossy(call.message.text()).into_owned(),
            revision: call.client.revision.to_string(),
            capabilities: call.client.capabilities.json(),
            info: String::from_utf8_lossy(&call.client.info).into_owned(),
            created: self.created,
            ttl: self.ttl,
            updated: state.updated,
            poll: state.poll,
            status: state.status,
            message: state.message.clone(),
            handle: state.handle.clone(),
            outcome: text.map(|text| String::from_utf8_lossy(&text).into_owned()),
            is_modern: written_in == Era::Modern,
            wrapped,
        }
    }
}

/// A task as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    caller: Caller,
    /// The backend or the set, at an endpoint of one.
    endpoint: Option<String>,
    request: String,
    revision: String,
    /// JSON texts.
    capabilities: String,
    info: String,
    created: u64,
    ttl: u64,
    updated: u64,
    poll: Option<u64>,
    status: Status,
    message: Option<String>,
    handle: Option<String>,
    /// The response, in words of the modern era or not.
    outcome: Option<String>,
    is_modern: bool,
    wrapped: bool,
}

impl Record {
    /// The task of an earlier run, if it can be read.
    pub fn task(self, id: String) -> Option<Arc<Task>> {
        let revision = Revision::parse(&self.revision)?;
        let capabilities = Capabilities::of(self.capabilities.as_bytes(), revision);
        let outcome = match self.outcome {
            Some(text) => Some(Answer::Response {
                message: Message::parse(text.into(), &Limits::REPLY).ok()?,
                written_in: if self.is_modern { Era::Modern } else { Era::Legacy },
                wrapped: self.wrapped,
            }),
            None => None,
        };
        let call = Call::new(
            self.caller,
            Scope::at(self.endpoint.as_deref()),
            Method::ToolsCall,
            Message::parse(self.request.into(), &Limits::REQUEST).ok()?,
            Client { revision, capabilities, info: self.info.into() },
        );
        let state = State {
            status: self.status,
            message: self.message,
            updated: self.updated,
            poll: self.poll,
            handle: self.handle,
            asks: None,
            outcome,
            work: None,
        };
        let (created, ttl) = (self.created, self.ttl);
        Some(Arc::new(Task { id, call, created, ttl, state: Mutex::new(state), news: Notify::new() }))
    }
}

impl State {
    /// What went wrong, in words for people.
    pub fn failure(&self) -> Option<String> {
        let Some(Answer::Response { message, .. }) = &self.outcome else { return None };
        let text = match message.in_error("message") {
            Some(text) => text,
            None => {
                let blocks = message.in_result("content")?;
                json::member(json::elements(blocks).first()?.of(blocks), "text")?
            }
        };
        json::string(text).map(std::borrow::Cow::into_owned)
    }

    /// In 2025-11-25 a tool that reports an error has failed.
    pub fn legacy_status(&self) -> Status {
        match (&self.outcome, self.status) {
            (Some(Answer::Response { message, .. }), Status::Completed)
                if message.in_result("isError") == Some(b"true") =>
            {
                Status::Failed
            }
            (_, status) => status,
        }
    }
}

pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
