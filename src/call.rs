//! What travels through the gateway: a [`Call`] on the way in, a [`Reply`] on the way out.
//!
//! Listeners make calls; backends make replies; every stage between is a function from one to
//! the other. Nothing here knows HTTP or stdio, so a tool behaves the same however its caller
//! came in.
//!
//! # Cancelling
//!
//! There is no message for it: whoever asked drops the future or the stream, and everything
//! that hangs on it ends, down to the backend, whose guard then tells the server. So a call
//! that nobody waits for cannot be left running by a forgotten branch.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use tower::Service;

mod caller; //     whom it is answered for
mod permission; // who may use what

pub use caller::{Caller, Identity, Proof};
pub use permission::{Explain, Explained, Grant, Kind, Permit, Thing, Verdict};

use crate::{
    error::{Error, Result},
    wire::{
        capability::Capabilities,
        mcp::{Era, Level, Method, Revision},
        message::Message,
        trace::Trace,
    },
};

/// One request, on its way to whoever answers it.
#[derive(Debug, Clone)]
pub struct Call {
    pub caller: Caller,
    /// The client's session, where it has one: clients of the modern era have none.
    pub session: Option<Session>,
    pub scope: Scope,
    pub method: Method,
    /// The request as the client wrote it.
    pub message: Message,
    pub client: Client,
    /// From which severity on the client wants log messages of this call. None: as the era has
    /// it, which is none at all in the modern one and the backend's choice in the legacy one.
    pub log_level: Option<Level>,
    /// How the client hears of progress, if it wants to.
    pub progress: Option<Progress>,
    /// The trace it belongs to, by what came beside the message.
    pub trace: Option<Box<Trace>>,
    /// Arguments that the client repeated beside the message, by lower-case name: to be held
    /// against the tool's annotations. None where there is no place to repeat them.
    pub mirrored: Option<Vec<(String, String)>>,
    /// What the client gives in answer to what a backend asked in an earlier round of the call.
    pub given: Option<Given>,
    /// Whose it is, once the router was asked. None if it is nobody's: the gateway answers itself,
    /// or refuses.
    pub aim: Option<Arc<Aim>>,
    /// What stages tell the audit trail of the call; none where it is not kept.
    pub marks: Option<Arc<Marks>>,
    /// The backend that asks for it in the middle of another call of this caller's, which is under
    /// way meanwhile.
    pub asked_by: Option<Arc<str>>,
    /// With what its caller came, where that is exchanged for a token of a server's. For the issuer of
    /// that alone.
    pub proof: Option<Arc<Proof>>,
}

impl Call {
    /// One that says no more than it must.
    pub fn new(caller: Caller, scope: Scope, method: Method, message: Message, client: Client) -> Self {
        Self {
            caller,
            session: None,
            scope,
            method,
            message,
            client,
            log_level: None,
            progress: None,
            trace: None,
            mirrored: None,
            given: None,
            aim: None,
            marks: None,
            asked_by: None,
            proof: None,
        }
    }
}

/// What is noted of a call beside what it asks for and how it ends.
#[derive(Debug, Default)]
pub struct Marks {
    /// The reply was there already.
    pub from_cache: AtomicBool,
}

/// What a call is for, for the stages that decide by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    pub backend: Arc<str>,
    /// What the backend calls the tool, prompt or resource.
    pub own: Arc<str>,
    pub hints: Hints,
}

/// What a tool says of itself (`annotations`). To be believed as far as its server is. What is no
/// tool only reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Hints {
    pub read_only: bool,
    pub idempotent: bool,
    /// None where nothing is said, which the specification takes for yes.
    pub destructive: Option<bool>,
    /// None where nothing is said, which the specification takes for yes.
    pub open_world: Option<bool>,
}

/// The client's part of one round of a call that takes several (revision 2026-07-28, "Multi
/// Round-Trip Requests").
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The `requestState` of the round before: from a client as we sealed it, to a backend as
    /// that backend wrote it.
    pub state: Option<String>,
    /// By the keys of the requests: the result as JSON, or the error object with which a client
    /// of the legacy era refused.
    pub answers: Vec<(String, Result<Bytes, Bytes>)>,
    /// The client has gone: there will be no further round.
    pub gone: bool,
    /// The task that the backend made of the call, as [`Event::Task`] told. The call goes on
    /// with it, or ends it if the client has gone.
    pub task: Option<String>,
}

/// How a client hears of the progress of a call, in all rounds of it.
#[derive(Debug, Clone)]
pub struct Progress {
    /// As JSON.
    pub token: Bytes,
    pub told: Arc<Mutex<Told>>,
}

/// How much of it the client was told.
#[derive(Debug, Default)]
pub struct Told {
    /// The last notification.
    pub last: Option<Message>,
    /// Some were not the backend's own.
    pub beats: bool,
}

impl Progress {
    pub fn new(token: Bytes) -> Self {
        Self { token, told: Arc::default() }
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is no token.
    Missing,
    /// There is one, and it is not good. Why is for the log.
    Invalid,
    /// It cannot be looked at just now.
    Unavailable,
}

/// Why a request was turned away before there was a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// It was sent to a name that is none of ours, or from a page that may not send any.
    Door,
    NotLetIn(Denied),
    NoEndpoint,
    /// It named a session that is not its sender's.
    NoSession,
}

/// Is told of requests that are turned away.
pub trait Watchman: fmt::Debug + Send + Sync + 'static {
    fn turned_away(&self, why: TurnedAway);
}

/// Says who sends a request.
pub trait Identify: fmt::Debug + Send + Sync + 'static {
    /// What is known at once of the sender of a request with this `Authorization`.
    fn known(&self, authorization: Option<&[u8]>, peer: Option<IpAddr>) -> Option<Result<Caller, Denied>>;

    /// The same where somebody may have to be asked.
    fn ask<'a>(&'a self, authorization: &'a [u8]) -> BoxFuture<'a, Result<Caller, Denied>>;
}

/// What somebody is asked to agree to: that the gateway uses an account of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// For whom the account will be used, in words for people.
    pub caller: String,
    pub backend: String,
    /// Where that server is: scheme, host and port.
    pub server: String,
}

/// Where a browser goes to agree.
#[derive(Debug, Clone)]
pub struct Leave {
    pub to: String,
    /// What the same browser must bring back.
    pub cookie: String,
}

/// Lets callers connect their accounts at servers, by way of a browser.
pub trait Consent: fmt::Debug + Send + Sync + 'static {
    /// What a link is for, as long as it is good.
    fn wish(&self, link: &str) -> Option<Wish>;

    /// Uses a link up. Says where the browser goes, or why it goes nowhere.
    fn begin<'a>(&'a self, link: &'a str) -> BoxFuture<'a, Result<Leave, String>>;

    /// Takes what a browser comes back with: the query of its address, and the cookie.
    fn end<'a>(&'a self, query: &'a str, cookie: Option<&'a str>) -> BoxFuture<'a, Result<Wish, String>>;

    /// What the gateway says of itself as a client, where authorization servers can read it.
    fn document(&self) -> Option<String>;

    /// Do browsers reach the gateway over https?
    fn is_secure(&self) -> bool;

    /// Is there a server for which callers' tokens are exchanged?
    fn exchanges(&self) -> bool;
}

/// A session of a client's: how long it lasts, and what its client is told beside its calls.
#[derive(Clone)]
pub struct Session(Arc<Mark>);

struct Mark {
    over: AtomicBool,
    tell: Box<dyn Fn(Bytes) + Send + Sync>,
}

impl Session {
    /// `tell` takes notifications for the client that belong to no call.
    pub fn new(tell: impl Fn(Bytes) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Mark { over: AtomicBool::new(false), tell: Box::new(tell) }))
    }

    pub fn end(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    pub fn tell(&self, notification: Bytes) {
        (self.0.tell)(notification);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("over", &self.is_over()).finish_non_exhaustive()
    }
}

/// Each is one of its own, and its clones are the same.
impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Session {}

impl Hash for Session {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

/// Which of the backends a client sees, and under which names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of them, named `<backend>__<tool>`: `/mcp`.
    All,
    /// One, with its own names: `/mcp/<backend>`.
    One(Arc<str>),
    /// What a set has, named as in all: `/mcp/@<set>`.
    Set(Arc<str>),
}

impl Scope {
    /// What stands behind `/mcp/` in its address.
    pub fn endpoint(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::One(backend) => Some(backend.to_string()),
            Self::Set(set) => Some(format!("@{set}")),
        }
    }

    /// Whose address has this behind `/mcp/`.
    pub fn at(endpoint: Option<&str>) -> Self {
        match endpoint {
            None => Self::All,
            Some(name) => {
                name.strip_prefix('@').map_or_else(|| Self::One(name.into()), |set| Self::Set(set.into()))
            }
        }
    }
}

/// What a client said of itself.
#[derive(Debug, Clone)]
pub struct Client {
    pub revision: Revision,
    /// What it can be asked.
    pub capabilities: Capabilities,
    /// A JSON object, as the client wrote it.
    pub info: Bytes,
}

/// How a call was answered.
pub enum Reply {
    /// At once and for good.
    Whole(Answer),
    /// With notifications first. The stream's last item is the answer or an error.
    Stream(Events),
}

pub type Events = BoxStream<'static, Result<Event>>;

#[derive(Debug)]
pub enum Event {
    /// A notification for the caller, as a whole message.
    Notification(Bytes),
    /// The backend has made a task of the call, or tells how its task is. The answer still
    /// comes as the last item, when the task is done.
    Task(TaskNews),
    /// The backend works, and has nothing to tell. For whoever measures silence, and no further.
    Alive,
    Answer(Answer),
}

impl Event {
    /// Does nothing follow this in a reply?
    pub fn is_last(event: &Result<Self>) -> bool {
        !matches!(event, Ok(Self::Notification(_) | Self::Task(_) | Self::Alive))
    }
}

/// How a backend's task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskNews {
    /// Stands for the task: a text that the backend understands in [`Given::task`].
    pub handle: String,
    /// What it is doing, in words for people.
    pub message: Option<String>,
    /// How often it may be asked.
    pub poll: Duration,
}

/// What was answered. Projected to the client's revision only where it is written out.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A backend's response as it came: a result, or an error of the backend's own.
    Response {
        message: Message,
        /// The era whose words it uses.
        written_in: Era,
        /// The tool's output schema was wrapped for clients of the legacy era.
        wrapped: bool,
    },
    /// The text of a result that was made here, in words of the client's era.
    Result(Bytes),
    /// The backend needs something of the client first: a response whose result has the type
    /// `input_required`, in words of the modern era.
    Asks(Message),
}

impl Reply {
    /// The same with another answer at its end.
    pub fn map_answer(self, change: impl Fn(Answer) -> Result<Answer> + Send + 'static) -> Result<Self> {
        Ok(match self {
            Self::Whole(answer) => Self::Whole(change(answer)?),
            Self::Stream(events) => Self::Stream(
                events
                    .map(move |event| match event {
                        Ok(Event::Answer(answer)) => change(answer).map(Event::Answer),
                        other => other,
                    })
                    .boxed(),
            ),
        })
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(answer) => f.debug_tuple("Whole").field(answer).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// What a stage gives for a call; dropping it cancels the call.
pub type Replying = BoxFuture<'static, Result<Reply>>;

/// One stage of the gateway. Written out here so that no other file repeats the bounds.
///
/// Stages are always ready: one that is too busy for a call says so in its reply, so that it can
/// be told to the caller, and whom it concerns can be chosen.
pub trait Stage:
    Service<Call, Response = Reply, Error = Error, Future = Replying> + Clone + Send + Sync + 'static
{
}

impl<S> Stage for S where
    S: Service<Call, Response = Reply, Error = Error, Future = Replying> + Clone + Send + Sync + 'static
{
}
