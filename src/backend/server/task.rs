//! What if a server makes a task of a call?
//!
//! The server answers with the name of a task, and does the work later. Here the call goes on
//! all the same: the server is asked how its task is, as often as it wants to be, until there is
//! an answer. So to the rest of the gateway it is a call like any other, of which is told that
//! it has become a task; what a client is told of that is decided elsewhere.
//! (2025-11-25 "Tasks"; 2026-07-28, extension "Tasks".)

use std::{
    collections::VecDeque,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Hold, Link, Server};
use crate::{
    backend::{
        Ask, TaskSupport,
        cancel::Guard,
        exchange::{self, Place},
        handshake,
        transport::{Incoming, Kind, Trouble},
    },
    call::{Answer, Event, Events, Given, Reply, TaskNews},
    error::{Error, Result},
    wire::{
        json::{self, Limits},
        mcp::{Era, Method, Revision},
        message::{Message, Splice, object_with},
    },
};

/// How often a task is asked for where its server does not say.
const POLL: Duration = Duration::from_secs(1);
/// The bounds of what a server may say.
const OFTENEST: Duration = Duration::from_millis(50);
const SELDOMEST: Duration = Duration::from_secs(30);
/// Attempts in vain, one after the other, before a task is given up. The pauses between them double.
const ATTEMPTS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Tasks of which a connection remembers that they are its own.
const REMEMBERED: usize = 1024;
/// Begins the state of a round that goes on with a task.
const STATE: &str = "waystation task ";

/// What a server says of a task, in either revision's words.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    task_id: String,
    status: Status,
    status_message: Option<String>,
    #[serde(alias = "pollIntervalMs")]
    poll_interval: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Working,
    InputRequired,
    Completed,
    Failed,
    Cancelled,
}

/// What belongs to a task of the extension's besides.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    input_requests: Option<&'a RawValue>,
}

impl Told {
    /// The task that a response names instead of answering.
    pub fn made(message: &Message, era: Era) -> Option<Self> {
        let task = match era {
            Era::Modern if json::is_string(message.in_result("resultType")?, "task") => message.result()?,
            Era::Legacy if message.field("content").is_none() => message.in_result("task")?,
            _ => return None,
        };
        serde_json::from_slice(task).ok()
    }

    /// One of which nothing is known but its name.
    fn named(task_id: &str) -> Self {
        let task_id = task_id.to_owned();
        Self { task_id, status: Status::Working, status_message: None, poll_interval: Some(0.0) }
    }

    fn poll(&self) -> Duration {
        let said = self.poll_interval.filter(|ms| ms.is_finite() && *ms >= 0.0);
        let said = said.map(|ms| Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(SELDOMEST));
        said.unwrap_or(POLL).clamp(OFTENEST, SELDOMEST)
    }

    fn progress(&self) -> TaskNews {
        TaskNews { handle: self.task_id.clone(), message: self.status_message.clone(), poll: self.poll() }
    }
}

/// Is a call to be made as a task of 2025-11-25?
pub fn augments(link: &Link, ask: &Ask) -> bool {
    let wanted = match ask.task_support {
        TaskSupport::None => false,
        TaskSupport::Optional => ask.call.client.capabilities.takes_tasks(),
        TaskSupport::Required => true,
    };
    wanted && link.offer.revision == Revision::V2025_11_25 && {
        let text = link.offer.capabilities.as_bytes();
        let path = ["tasks", "requests", "tools", "call"];
        path.iter().try_fold(text, |object, name| json::member(object, name)).is_some()
    }
}

/// A request of a call with or without the member that asks for a task.
pub fn augmented(message: &Message, augments: bool) -> Result<Option<Message>, Trouble> {
    let old = message.param("task");
    if augments == old.is_some() {
        return Ok(None);
    }
    let Some(params) = message.top("params") else { return Ok(None) };
    let put: &[(&str, &[u8])] = if augments { &[("task", b"{}")] } else { &[] };
    let mut splice = Splice::new(message.text());
    splice.replace(params, object_with(params.of(message.text()), |key| key == "task", put));
    let changed = Message::parse(splice.finish().into(), &Limits::REQUEST);
    changed.map(Some).map_err(|_| Trouble::new(Kind::Rubbish, "the request cannot be made a task's"))
}

/// A result without the mark of the task it comes from, which is the connection's.
pub fn unmarked(message: Message) -> Message {
    const MARK: &str = crate::wire::mcp::meta::RELATED_TASK;
    let Some(place) = message.field("_meta") else { return message };
    let meta = place.of(message.text());
    if json::member(meta, MARK).is_none() {
        return message;
    }
    let text = {
        let mut splice = Splice::new(message.text());
        splice.replace(place, object_with(meta, |key| key == MARK, &[]));
        splice.finish()
    };
    Message::parse(text.into(), &Limits::REPLY).unwrap_or(message)
}

/// Does the server want a client that takes tasks?
pub fn wants_tasks(answer: &Answer) -> bool {
    let Answer::Response { message, .. } = answer else { return false };
    let code = crate::wire::mcp::code::MISSING_CAPABILITY.to_string();
    message.in_error("code") == Some(code.as_bytes())
        && message.in_error("data").is_some_and(|data| {
            memchr::memmem::find(data, crate::wire::mcp::extension::TASKS.as_bytes()).is_some()
        })
}

/// A task on its way to its end.
struct Following {
    server: Arc<Server>,
    ask: Ask,
    task: Told,
    /// Questions that were answered, and may still be shown for a while.
    answered: Vec<String>,
    hold: Hold,
    guard: Cancelling,
    failures: u32,
}

/// What comes next of a task.
enum Step {
    Told,
    Ends(Events),
}

/// Ends a task that nobody knows of when nobody waits for it any more.
struct Cancelling {
    server: Arc<Server>,
    ask: Ask,
    id: String,
    armed: bool,
}

impl Cancelling {
    fn heard(&mut self, event: &Result<Event>) {
        self.armed &= !matches!(event, Ok(Event::Answer(_)));
    }
}

impl Drop for Cancelling {
    fn drop(&mut self) {
        if self.armed
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (server, ask, id) = (Arc::clone(&self.server), self.ask.clone(), self.id.clone());
            runtime.spawn(async move { server.cancel_task(&ask, &id).await });
        }
    }
}

impl Server {
    /// What comes of a call whose server has made a task of it. `hidden`: its client does not
    /// know, so that its going ends the task too.
    pub fn follow(self: Arc<Self>, ask: Ask, task: Told, mut hold: Hold, hidden: bool) -> Events {
        hold.turn = None; // It asks when its result is asked for, and not before.
        let first = Event::Task(task.progress());
        self.remember(&task.task_id);
        let guard = Cancelling {
            server: Arc::clone(&self),
            ask: ask.clone(),
            id: task.task_id.clone(),
            armed: hidden,
        };
        let following = Following { server: self, ask, task, answered: vec![], hold, guard, failures: 0 };
        stream::iter([Ok(first)]).chain(following.events()).boxed()
    }

    /// The state of a round that goes on with a task, if this is one.
    pub fn task_of(state: Option<&str>) -> Option<String> {
        state?.strip_prefix(STATE).map(str::to_owned)
    }

    /// Goes on with a task of an earlier round.
    pub async fn go_on(
        self: Arc<Self>,
        ask: Ask,
        given: &Given,
        handle: &str,
        hold: Hold,
        hidden: bool,
    ) -> Result<Reply> {
        if given.gone {
            // What is parked ends with this, and the server is told.
            given.state.as_deref().and_then(|ticket| self.parking.take(ticket, &ask.call.caller));
            self.cancel_task(&ask, handle).await;
            return Ok(Reply::Whole(Answer::Result(Bytes::from_static(b"{}"))));
        }
        if let Some(parked) =
            given.state.as_deref().and_then(|ticket| self.parking.take(ticket, &ask.call.caller))
        {
            return exchange::resume(parked.answer(given).await, &ask);
        }
        let answers: Vec<_> =
            given.answers.iter().filter_map(|(key, answer)| Some((key, answer.as_ref().ok()?))).collect();
        if !answers.is_empty() {
            let answers =
                answers.iter().map(|(key, answer)| [json::quoted(key).as_bytes(), b":", answer].concat());
            let answers = answers.collect::<Vec<_>>().join(&b',');
            let answers = String::from_utf8_lossy(&answers);
            let params = format!("{{\"taskId\":{},\"inputResponses\":{{{answers}}}}}", json::quoted(handle));
            let said = self.of_task(&ask, Method::TasksUpdate, handle, &params).await;
            said.map_err(|trouble| self.error(&trouble))?;
        }
        let task = Told::named(handle);
        self.remember(handle);
        let guard =
            Cancelling { server: Arc::clone(&self), ask: ask.clone(), id: handle.to_owned(), armed: hidden };
        let answered = given.answers.iter().map(|(key, _)| key.clone()).collect();
        let following = Following { server: self, ask, task, answered, hold, guard, failures: 0 };
        Ok(Reply::Stream(following.events()))
    }

    /// Was what goes on with this begun here?
    pub fn has_begun(&self, given: &Given) -> bool {
        let is_parked = given.state.as_deref().is_some_and(|ticket| self.parking.has(ticket));
        is_parked || given.task.as_ref().is_some_and(|task| self.tasks().contains(task))
    }

    fn tasks(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.tasks.lock().expect("no code panics while it holds this lock")
    }

    fn remember(&self, task: &str) {
        let mut tasks = self.tasks();
        if tasks.iter().all(|other| other != task) {
            tasks.truncate(REMEMBERED - 1);
            tasks.push_front(task.to_owned());
        }
    }

    /// Asks for something about a task.
    async fn of_task(&self, ask: &Ask, method: Method, id: &str, params: &str) -> Result<Message, Trouble> {
        let link = match self.usable() {
            Some(link) => link,
            None => self.link().await?,
        };
        let revision = (link.offer.era == Era::Modern).then_some(link.offer.revision);
        let capabilities = ask.call.client.capabilities.with_tasks().json();
        let mut outgoing = handshake::request_as(self.id(), method, params, revision, &capabilities);
        outgoing.target = Some(id.into());
        handshake::send(&*link.transport, outgoing).await
    }

    async fn cancel_task(&self, ask: &Ask, id: &str) {
        let params = format!("{{\"taskId\":{}}}", json::quoted(id));
        if let Err(trouble) = self.of_task(ask, Method::TasksCancel, id, &params).await {
            tracing::debug!(backend = &*self.name, %trouble, "a task could not be cancelled");
        }
    }
}

impl Following {
    fn events(self) -> Events {
        let steps = stream::unfold(Some(self), |following| async {
            let mut following = following?;
            match following.next().await {
                Ok(Step::Told) => {
                    let told = Event::Task(following.task.progress());
                    Some((stream::iter([Ok(told)]).boxed(), Some(following)))
                }
                Ok(Step::Ends(events)) => {
                    // Until the answer is there, going away still ends the task.
                    let mut guard = following.guard;
                    let events = events.inspect(move |event| guard.heard(event));
                    Some((events.boxed(), None))
                }
                Err(error) => Some((stream::iter([Err(error)]).boxed(), None)),
            }
        });
        steps.flatten().boxed()
    }

    async fn next(&mut self) -> Result<Step> {
        let pause = FIRST_PAUSE * 2u32.pow(self.failures);
        let pause = if self.failures == 0 { self.task.poll() } else { pause.min(SELDOMEST) };
        tokio::time::sleep(pause).await;
        let message = match self.get().await {
            Ok(message) => message,
            Err(trouble) => return self.failed(&trouble),
        };
        self.failures = 0;
        let link_era = self.era().await?;
        let told = message.result().and_then(|result| serde_json::from_slice(result).ok());
        let Some(told) = told else {
            self.guard.armed = false;
            let why = message.in_error("message").and_then(json::string);
            let why = why.as_deref().unwrap_or("it does not say how it is");
            return Err(self.error(format!("has lost its task: {why}")));
        };
        self.task = told;
        match (self.task.status, link_era) {
            (Status::Working, _) => Ok(Step::Told),
            (Status::Cancelled, _) => {
                self.guard.armed = false;
                Err(self.error("has cancelled its task"))
            }
            (_, Era::Legacy) => match self.result().await {
                Ok(events) => Ok(Step::Ends(events)),
                Err(trouble) => self.failed(&trouble),
            },
            (_, Era::Modern) => self.outcome(&message),
        }
    }

    fn failed(&mut self, trouble: &Trouble) -> Result<Step> {
        if trouble.kind == Kind::Busy {
            return Ok(Step::Told); // Others have their turn.
        }
        self.failures += 1;
        if self.failures < ATTEMPTS { Ok(Step::Told) } else { Err(self.server.error(trouble)) }
    }

    async fn era(&self) -> Result<Era> {
        self.server.era().await
    }

    fn error(&self, why: impl ToString) -> Error {
        Error::backend(&*self.server.name, why)
    }

    async fn get(&self) -> Result<Message, Trouble> {
        let params = format!("{{\"taskId\":{}}}", json::quoted(&self.task.task_id));
        self.server.of_task(&self.ask, Method::TasksGet, &self.task.task_id, &params).await
    }

    /// What a task of the extension's has come to, which stands in the task itself.
    fn outcome(&self, message: &Message) -> Result<Step> {
        let outcome: Option<Outcome<'_>> =
            message.result().and_then(|result| serde_json::from_slice(result).ok());
        let wrong = || self.error("says of its task that it is done, and not what has come of it");
        let outcome = outcome.ok_or_else(wrong)?;
        let (member, value) = match (self.task.status, outcome) {
            (Status::InputRequired, Outcome { input_requests: Some(requests), .. }) => {
                return self.asks(requests.get().as_bytes());
            }
            (Status::Completed, Outcome { result: Some(result), .. }) => ("result", result),
            (Status::Failed, Outcome { error: Some(error), .. }) => ("error", error),
            _ => return Err(wrong()),
        };
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":0,\"{member}\":{}}}", value.get());
        let message = Message::parse(text.into(), &Limits::REPLY)?;
        let answer = exchange::answer(message, Era::Modern, &self.ask, &self.server.visits);
        let answer = answer.map_err(|trouble| self.server.error(&trouble))?;
        Ok(Step::Ends(stream::iter([Ok(Event::Answer(answer))]).boxed()))
    }

    /// What the task asks of its client, without what has been answered.
    fn asks(&self, requests: &[u8]) -> Result<Step> {
        let open = object_with(requests, |key| self.answered.iter().any(|other| other == key), &[]);
        if json::members(&open).is_empty() {
            return Ok(Step::Told);
        }
        let state = json::quoted(&format!("{STATE}{}", self.task.task_id));
        let head = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{{\"resultType\":\"input_required\",\"requestState\":{state},\"inputRequests\":"
        );
        let text = [head.as_bytes(), &open, b"}}"].concat();
        let message = Message::parse(text.into(), &Limits::REPLY)?;
        let asks = exchange::input_required(message, &self.ask.call);
        let asks = asks.map_err(|trouble| self.server.error(&trouble))?;
        Ok(Step::Ends(stream::iter([Ok(Event::Answer(asks))]).boxed()))
    }

    /// Fetches what a task of 2025-11-25 has come to, and what it asks until then.
    async fn result(&mut self) -> Result<Events, Trouble> {
        let link = match self.server.usable() {
            Some(link) => link,
            None => self.server.link().await?,
        };
        // What it asks may come without its name, so nobody else may be asked meanwhile.
        let turn = self.server.turn(&link, &self.ask.call, None).await?;
        let id = self.server.id();
        let params = format!("{{\"taskId\":{}}}", json::quoted(&self.task.task_id));
        let mut outgoing = handshake::request(id, Method::TasksResult, &params, None);
        outgoing.target = Some(self.task.task_id.as_str().into());
        let mut guard = Guard::new(Arc::clone(&link.transport), id, Era::Legacy);
        match link.transport.request(outgoing).await? {
            Incoming::Whole(message) => {
                guard.disarm();
                let answer = exchange::answer(message, Era::Legacy, &self.ask, &self.server.visits)?;
                Ok(stream::iter([Ok(Event::Answer(answer))]).boxed())
            }
            Incoming::Stream(messages) => {
                let place = Place {
                    backend: Arc::clone(&self.server.name),
                    parking: Arc::clone(&self.server.parking),
                    visits: Arc::clone(&self.server.visits),
                    hold: Hold { turn, lease: self.hold.lease.take() },
                    tasks: None,
                };
                Ok(exchange::relay(messages, guard, place, &self.ask))
            }
        }
    }
}
