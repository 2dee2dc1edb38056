//! What is noted of a call, and when is it over?
//!
//! On the way of a call only what costs nothing is taken along; it becomes a line where nobody
//! waits for it.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::Value;

use super::{Plan, Trail, arguments};
use crate::{
    call::{Aim, Answer, Caller, Event, Marks, Reply, Scope},
    error::{Error, Result},
    middleware::fits,
    secret,
    store::audit::Line,
    wire::{
        json,
        mcp::{Era, Method, code},
        message::Message,
    },
};

/// Letters of a name that is noted, where it is not known to be one.
const LETTERS: usize = 200;
/// Bytes of a result that are looked through for what it cost.
const LOOKED_THROUGH: usize = 64 << 10;
/// Bytes of what is noted of that.
const USAGE: usize = 1 << 10;

/// A call, as far as it is noted.
#[derive(Debug)]
pub struct Entry {
    pub number: u64,
    pub at: SystemTime,
    pub caller: Caller,
    pub scope: Scope,
    pub method: Method,
    /// What the client says of itself.
    pub client: Bytes,
    pub aim: Option<Arc<Aim>>,
    /// The request, if its target or arguments have to be looked at.
    pub message: Option<Message>,
    pub marks: Arc<Marks>,
    /// The backend that asks it of its caller.
    pub asked_by: Option<Arc<str>>,
    pub end: Option<End>,
}

/// How a call ended.
#[derive(Debug)]
pub struct End {
    pub outcome: Outcome,
    pub code: Option<i64>,
    pub micros: i64,
    /// What the backend said of its cost.
    pub usage: Option<Bytes>,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The tool says that it failed.
    ToolError,
    /// The backend answered with an error.
    Error,
    /// The backend asks for something first; the next round is a line of its own.
    Asked,
    /// It goes on as a task.
    Task,
    /// What it was for does not exist, or may not be seen by this caller.
    Unknown,
    /// Something in the request is not as it must be.
    Invalid,
    /// A rule asks for other arguments, or for more scopes than the token has.
    NotAllowed,
    /// A limit of the gateway's.
    Refused,
    /// The backend could not be asked, or gave no answer.
    Failed,
    /// The backend took too long.
    Late,
    /// Whoever asked has gone, or has said that it need not be answered.
    Cancelled,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool-error",
            Self::Error => "error",
            Self::Asked => "asked",
            Self::Task => "task",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::NotAllowed => "not-allowed",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Cancelled => "cancelled",
        }
    }

    fn of(answer: &Answer, method: Method) -> Self {
        let is = |text: Option<&[u8]>, word| text.is_some_and(|text| json::is_string(text, word));
        match answer {
            Answer::Asks(_) => Self::Asked,
            Answer::Response { message, .. } if message.result().is_none() => Self::Error,
            Answer::Response { message, .. } => match message.in_result("isError") {
                Some(b"true") => Self::ToolError,
                _ if is(message.in_result("resultType"), "task") => Self::Task,
                _ => Self::Ok,
            },
            Answer::Result(text) if method == Method::ToolsCall => {
                let member = |name| json::member(text, name);
                match member("isError") {
                    Some(b"true") => Self::ToolError,
                    _ if member("task").is_some() || is(member("resultType"), "task") => Self::Task,
                    _ => Self::Ok,
                }
            }
            Answer::Result(_) => Self::Ok,
        }
    }

    fn of_error(error: &Error) -> Self {
        match error {
            Error::NoEndpoint
            | Error::UnknownMethod(_)
            | Error::UnknownTool(_)
            | Error::UnknownPrompt(_)
            | Error::UnknownResource(_)
            | Error::UnknownTask(_) => Self::Unknown,
            Error::NotJson(_)
            | Error::NotRpc { .. }
            | Error::Params(_)
            | Error::Cursor
            | Error::Envelope(_)
            | Error::Header(_)
            | Error::Version { .. }
            | Error::NeedsExtension(_) => Self::Invalid,
            Error::NeedsScopes(_) | Error::Arguments(_) => Self::NotAllowed,
            Error::Busy(_) | Error::Limited(_) => Self::Refused,
            Error::Backend { .. } | Error::Lost(_) | Error::Restarted | Error::NoInput => Self::Failed,
            Error::Consent { .. } => Self::Asked,
            Error::Idle { .. } | Error::Deadline { .. } => Self::Late,
        }
    }
}

/// A call that is not over. Dropped, it was cancelled.
#[derive(Debug)]
pub struct UnderWay {
    trail: Arc<Trail>,
    /// None once it is noted.
    entry: Option<Box<Entry>>,
    begun: Instant,
    era: Era,
}

impl UnderWay {
    pub fn new(trail: Arc<Trail>, entry: Entry, begun: Instant, era: Era) -> Self {
        Self { trail, entry: Some(Box::new(entry)), begun, era }
    }

    /// The reply as it came; its end is noted when it goes by.
    pub fn answered(mut self, reply: Result<Reply>) -> Result<Reply> {
        match reply {
            Ok(Reply::Stream(events)) => {
                let events = events.map(move |event| {
                    match &event {
                        Ok(Event::Answer(answer)) => self.ends_with(answer),
                        Err(error) => self.ends_badly(error),
                        Ok(Event::Notification(_) | Event::Task(_) | Event::Alive) => {}
                    }
                    event
                });
                Ok(Reply::Stream(events.boxed()))
            }
            Ok(Reply::Whole(answer)) => {
                self.ends_with(&answer);
                Ok(Reply::Whole(answer))
            }
            Err(error) => {
                self.ends_badly(&error);
                Err(error)
            }
        }
    }

    fn ends_with(&mut self, answer: &Answer) {
        let Some(method) = self.entry.as_ref().map(|entry| entry.method) else { return };
        let message = match answer {
            Answer::Response { message, .. } | Answer::Asks(message) => Some(message),
            Answer::Result(_) => None,
        };
        let code = message.and_then(|message| message.in_error("code"));
        let code = code.and_then(|code| std::str::from_utf8(code).ok()?.parse().ok());
        self.note(Outcome::of(answer, method), code, message.and_then(usage));
    }

    fn ends_badly(&mut self, error: &Error) {
        let (outcome, code) = (Outcome::of_error(error), error.codes(self.era).1);
        if let Some(entry) = &self.entry {
            // What a client asked for may be a secret; what a backend's trouble is, is none.
            let why = matches!(error, Error::Backend { .. }).then(|| error.to_string());
            let request = request(entry.number);
            tracing::debug!(request, outcome = outcome.name(), code, why, "a call was not answered");
        }
        self.note(outcome, Some(code), None);
    }

    fn note(&mut self, outcome: Outcome, code: Option<i64>, usage: Option<Bytes>) {
        let Some(mut entry) = self.entry.take() else { return };
        let micros = i64::try_from(self.begun.elapsed().as_micros()).unwrap_or(i64::MAX);
        entry.end = Some(End { outcome, code, micros, usage });
        self.trail.note(entry);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(method) = self.entry.as_ref().map(|entry| entry.method) else { return };
        let outcome = match method {
            _ if std::thread::panicking() => Outcome::Failed,
            // Nobody waits for the answer to a subscription.
            Method::Listen => Outcome::Ok,
            _ => Outcome::Cancelled,
        };
        self.note(outcome, None, None);
    }
}

/// What a result says of its cost: `usage` in its `_meta` or its structured content.
fn usage(message: &Message) -> Option<Bytes> {
    let text = message.result().filter(|text| text.len() <= LOOKED_THROUGH)?;
    memchr::memmem::find(text, b"\"usage\"")?;
    let within = |name| message.in_result(name).and_then(|object| json::member(object, "usage"));
    let usage = within("_meta").or_else(|| within("structuredContent"))?;
    (usage.len() <= USAGE).then(|| Bytes::copy_from_slice(usage))
}

/// The id of a request, by its number. Who sees one cannot tell the next, and so not how many there
/// are between two.
fn request(number: u64) -> String {
    // The last steps of SplitMix64, which give each number another one.
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}", mixed ^ (mixed >> 31))
}

impl Entry {
    /// The line of it. `client` is what [`client`] makes of what the client says; `stranger` makes a
    /// name of an address that cannot be made an address again.
    pub(super) fn line<'a>(
        &'a self,
        plan: &Plan,
        client: Option<&'a str>,
        stranger: impl Fn(std::net::IpAddr) -> String,
    ) -> Line<'a> {
        let (who, issuer) = match &self.caller {
            Caller::Local => ("local".into(), None),
            Caller::Gateway => ("gateway".into(), None),
            Caller::Known(identity) => (Cow::from(&identity.subject), Some(Cow::from(&identity.issuer))),
            Caller::Stranger(address) => (stranger(*address).into(), None),
        };
        let nowhere = self.end.as_ref().is_some_and(|end| end.code == Some(code::METHOD_NOT_FOUND));
        let endpoint = match &self.scope {
            Scope::All => Cow::from("/mcp"),
            // What is no endpoint may be anything, and as long as a path can be.
            Scope::One(_) | Scope::Set(_) if nowhere => "/mcp/…".into(),
            Scope::One(backend) => format!("/mcp/{backend}").into(),
            Scope::Set(set) => format!("/mcp/@{set}").into(),
        };
        let mut line = Line {
            at: Timestamp::try_from(self.at).unwrap_or_default(),
            request: Some(request(self.number).into()),
            who: Some(who),
            issuer,
            client: client.map(Cow::from),
            endpoint: Some(endpoint),
            method: Some(self.method.name().into()),
            backend: self.aim.as_ref().map(|aim| Cow::from(&*aim.backend)),
            target: self.target(),
            asked_by: self.asked_by.as_deref().map(Cow::from),
            cached: self.marks.from_cache.load(Ordering::Relaxed),
            arguments: self.arguments(plan),
            ..Line::default()
        };
        if let Some(End { outcome, code, micros, usage }) = &self.end {
            line.outcome = outcome.name().into();
            (line.code, line.took) = (*code, Some(*micros));
            line.usage = usage.as_deref().and_then(|usage| serde_json::from_slice(usage).ok());
        }
        line
    }

    fn param(&self, name: &str) -> Option<String> {
        let text = self.message.as_ref()?.in_params(name)?;
        json::string(text).map(std::borrow::Cow::into_owned)
    }

    /// What it was for. Not a task's id, which is a key to the task.
    fn target(&self) -> Option<Cow<'_, str>> {
        let target = match &self.aim {
            // The name of something that its backend lists.
            Some(aim) if matches!(self.method, Method::ToolsCall | Method::PromptsGet) => {
                return Some(Cow::from(&*aim.own));
            }
            Some(aim) => aim.own.to_string(),
            None => match self.method.target() {
                Some("taskId") | None => return None,
                Some(name) => self.param(name)?,
            },
        };
        // What follows in an address may be a key.
        let (place, query) = target.split_once('?').map_or((&*target, ""), |(place, _)| (place, "?…"));
        Some((shortened(&secret::mask(place)) + query).into())
    }

    fn arguments(&self, plan: &Plan) -> Option<Value> {
        let tools = &plan.settings.tools;
        if tools.is_empty() || self.method != Method::ToolsCall {
            return None;
        }
        let name = self.param("name")?;
        let full = self.aim.as_ref().map(|aim| format!("{}__{}", aim.backend, aim.own));
        let is_it =
            |pattern: &str| fits(pattern, &name) || full.as_ref().is_some_and(|full| fits(pattern, full));
        let wanted = tools.iter().any(|(pattern, tool)| tool.arguments && is_it(pattern));
        wanted.then(|| arguments::seen(self.message.as_ref()?.in_params("arguments")?)).flatten()
    }
}

/// Name and version, as the client gives them.
pub(super) fn client(info: &[u8]) -> Option<String> {
    let member = |name| Some(json::string(json::member(info, name)?)?.into_owned());
    let name = member("name")?;
    let text = member("version").map_or_else(|| name.clone(), |version| format!("{name}/{version}"));
    Some(shortened(&secret::mask(&text)))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
