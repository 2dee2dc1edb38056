//! Which calls go on without their client, and how does it hear of them?
//!
//! A task is a call whose client was told its name instead of its answer. It runs here like any
//! other call; its state is on disk before its name is told, and so is its answer before anybody
//! hears that it is done. A task that the backend has made of the call goes on after a restart
//! of the gateway; any other ends with it, and says so.
//!
//! A client of 2025-11-25 asks for a task call by call. One of 2026-07-28 declares that it takes
//! tasks, and gets one when the backend makes one, or when a call takes too long. (2025-11-25
//! "Tasks"; 2026-07-28, extension "Tasks".)

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, OnceLock},
    time::Duration as Time,
};

use bytes::Bytes;
use dashmap::DashMap;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

mod stage; // the methods of tasks
mod task; //  one of them
mod words; // as clients read of it

pub use stage::{Tasked, TasksLayer};

use crate::{
    call::{Answer, Call, Event, Events, Given, Reply, Replying, TaskNews},
    error::{Error, Result},
    settings::Duration,
    store::Store,
    wire::{
        json::{self, Limits},
        mcp::{Era, Method},
        message::Message,
    },
};
use task::{Asks, Record, Status, Task};

/// `[tasks]`: calls that go on while their client does something else.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a task is kept after it was made, done or not. A client may ask for less.
    pub keep: Duration,
    /// How many tasks one caller may have.
    pub max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keep: Duration::seconds(60 * 60), max: 1000 }
    }
}

/// How soon a refusal must come to be answered at once, rather than as the end of a task.
const AT_ONCE: Time = Time::from_millis(100);
/// Changes that a slow subscriber may be behind.
const CHANGES: usize = 256;
/// What the results of one caller's tasks may take, in bytes, before no more are made.
const MOST_BYTES: usize = 256 << 20;
/// Entries of one page of `tasks/list`.
const PAGE: usize = 100;

/// Runs a call, past everything that is in front of tasks.
type Runner = Box<dyn Fn(Call) -> Replying + Send + Sync>;

/// All tasks.
pub struct Tasks {
    settings: Settings,
    store: Store,
    table: DashMap<String, Arc<Task>>,
    run: OnceLock<Runner>,
    changes: broadcast::Sender<Arc<Task>>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("tasks", &self.table.len()).finish_non_exhaustive()
    }
}

impl Tasks {
    pub fn new(settings: Settings, store: Store) -> Arc<Self> {
        let (changes, _) = broadcast::channel(CHANGES);
        Arc::new(Self { settings, store, table: DashMap::new(), run: OnceLock::new(), changes })
    }

    /// Says how calls are run, and goes on with the tasks of an earlier run if it was ours.
    pub async fn start(
        self: &Arc<Self>,
        run: impl Fn(Call) -> Replying + Send + Sync + 'static,
        goes_on: bool,
    ) {
        if self.run.set(Box::new(run)).is_err() || !goes_on {
            return;
        }
        for (id, text) in self.store.tasks().await {
            let record = serde_json::from_str::<Record>(&text).ok();
            let Some(task) = record.and_then(|record| record.task(id.clone())) else { continue };
            self.table.insert(id, Arc::clone(&task));
            self.expire_later(&task);
            let handle = task.state().handle.clone();
            if !task.state().status.is_terminal() {
                let events = match handle {
                    Some(handle) => {
                        self.events(self.round(&task, Given { task: Some(handle), ..Given::default() }))
                    }
                    None => stream::iter([Err(Error::Restarted)]).boxed(),
                };
                self.work(&task, events);
            }
        }
    }

    fn run(&self, call: Call) -> Replying {
        match self.run.get() {
            Some(run) => run(call),
            None => Box::pin(std::future::ready(Err(Error::Busy("the gateway is just starting".into())))),
        }
    }

    /// Makes a task of what is left of a call; gives what its client is told.
    pub async fn adopt(
        self: &Arc<Self>,
        call: Call,
        made: Option<TaskNews>,
        events: Events,
    ) -> Result<Answer> {
        let ttl = self.ttl(&call);
        let era = call.client.revision.era();
        if let Err(why) = self.has_room(&call) {
            self.end_of_backend(&call, made);
            return Err(Error::Busy(why));
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Error::Busy("no random numbers to be had".into()))?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let task = Task::new(id.clone(), Call { progress: None, given: None, ..call }, ttl);
        if let Some(made) = &made {
            heard(&task, made);
        }
        if let Err(why) = self.keep(&task).await {
            self.end_of_backend(&task.call, made);
            return Err(Error::Busy(format!("a task cannot be kept ({why}), so none is made")));
        }
        self.table.insert(id, Arc::clone(&task));
        self.expire_later(&task);
        self.work(&task, events);
        Ok(words::created(&task, era))
    }

    /// May this caller have one more?
    fn has_room(&self, call: &Call) -> Result<(), String> {
        let (mut tasks, mut bytes) = (0, 0);
        for task in self.table.iter().filter(|task| task.call.caller == call.caller) {
            tasks += 1;
            bytes += task.size();
        }
        if tasks >= self.settings.max {
            return Err(format!("there are {tasks} tasks of this caller's, which is the most"));
        }
        if bytes >= MOST_BYTES {
            return Err(format!("the results of this caller's tasks take {bytes} bytes, which is enough"));
        }
        Ok(())
    }

    /// How long a task is kept: as long as its client wants, up to what is set.
    fn ttl(&self, call: &Call) -> u64 {
        let most = u64::try_from(self.settings.keep.0.as_millis()).unwrap_or(u64::MAX);
        let task = call.message.in_params("task").unwrap_or(b"{}");
        let wanted = json::member(task, "ttl").and_then(|ttl| std::str::from_utf8(ttl).ok()?.parse().ok());
        wanted.map_or(most, |wanted: u64| wanted.min(most))
    }

    /// A backend's task that came to nothing here.
    fn end_of_backend(&self, call: &Call, made: Option<TaskNews>) {
        if let Some(made) = made {
            let given = Given { task: Some(made.handle), gone: true, ..Given::default() };
            tokio::spawn(self.run(Call { given: Some(given), ..call.clone() }));
        }
    }

    async fn keep(&self, task: &Task) -> Result<(), String> {
        let record = serde_json::to_string(&task.record()).map_err(|why| why.to_string())?;
        self.store.keep_task(&task.id, &record).await.map_err(|why| why.to_string())
    }

    /// Forgets a task when its time is over; one that is still at work is cancelled.
    fn expire_later(self: &Arc<Self>, task: &Arc<Task>) {
        let (tasks, task) = (Arc::downgrade(self), Arc::clone(task));
        tokio::spawn(async move {
            tokio::time::sleep(task.left()).await;
            let Some(tasks) = tasks.upgrade() else { return };
            tasks.cancel(&task).await;
            tasks.table.remove(&task.id);
            tasks.store.forget_task(&task.id).await;
        });
    }

    /// One more round of a task's call.
    fn round(&self, task: &Task, given: Given) -> Replying {
        self.run(Call { given: Some(given), ..task.call.clone() })
    }

    fn events(&self, reply: Replying) -> Events {
        let events = reply.map(|reply| match reply {
            Ok(Reply::Whole(answer)) => stream::iter([Ok(Event::Answer(answer))]).boxed(),
            Ok(Reply::Stream(events)) => events,
            Err(error) => stream::iter([Err(error)]).boxed(),
        });
        events.flatten_stream().boxed()
    }

    /// Works on a task until it is done, in the background.
    fn work(self: &Arc<Self>, task: &Arc<Task>, events: Events) {
        let (tasks, worked) = (Arc::clone(self), Arc::clone(task));
        let work = tokio::spawn(async move { tasks.finish(&worked, events).await });
        let mut state = task.state();
        match state.status {
            Status::Cancelled => work.abort(), // Meanwhile.
            _ => state.work = Some(work.abort_handle()),
        }
    }

    async fn finish(self: &Arc<Self>, task: &Arc<Task>, mut events: Events) {
        let outcome = loop {
            match events.next().await {
                None => break Err(Error::Lost("the answer was cut off before its end")),
                Some(Err(error)) => break Err(error),
                Some(Ok(Event::Notification(text))) => self.noticed(task, &text),
                Some(Ok(Event::Task(progress))) => {
                    if heard(task, &progress) {
                        self.changed(task, true).await;
                    }
                }
                Some(Ok(Event::Alive)) => {}
                Some(Ok(Event::Answer(Answer::Asks(question)))) => {
                    let given = self.asked(task, &question).await;
                    events = self.events(self.round(task, given));
                }
                Some(Ok(Event::Answer(answer))) => break Ok(answer),
            }
        };
        let answer = outcome.unwrap_or_else(|error| failed(&error, task.call.client.revision.era()));
        let status = match &answer {
            Answer::Response { message, .. } if message.top("error").is_some() => Status::Failed,
            _ => Status::Completed,
        };
        self.done(task, status, Some(answer)).await;
    }

    /// Ends a task, if it has not ended before.
    async fn done(&self, task: &Arc<Task>, status: Status, outcome: Option<Answer>) -> bool {
        let outcome = outcome.map(|answer| match answer {
            // So that all outcomes are kept alike.
            Answer::Result(text) => response(&text).unwrap_or(Answer::Result(text)),
            other => other,
        });
        let mut work = None;
        let done = task.change(|state| {
            state.status = status;
            state.outcome = outcome;
            state.asks = None;
            work = state.work.take();
        });
        if done {
            self.changed(task, true).await;
        }
        if status == Status::Cancelled {
            work.inspect(tokio::task::AbortHandle::abort);
        }
        done
    }

    /// Keeps a task's new state, and tells who subscribed to it.
    async fn changed(&self, task: &Arc<Task>, keep: bool) {
        if keep && let Err(why) = self.keep(task).await {
            tracing::warn!(task = task.id, %why, "the state of a task cannot be kept");
        }
        let _ = self.changes.send(Arc::clone(task)); // Nobody may listen.
    }

    /// A progress notification says in words what a task is doing.
    fn noticed(&self, task: &Arc<Task>, text: &Bytes) {
        let Ok(message) = Message::parse(text.clone(), &Limits::REPLY) else { return };
        if message.is_method("notifications/progress")
            && let Some(words) = message.in_params("message").and_then(json::string)
        {
            task.change(|state| state.message = Some(words.into_owned()));
            let _ = self.changes.send(Arc::clone(task));
        }
    }

    /// Waits until the client has answered all that is asked; gives what the next round is given.
    async fn asked(&self, task: &Arc<Task>, question: &Message) -> Given {
        let requests = question.in_result("inputRequests").unwrap_or(b"{}");
        let state = question.in_result("requestState").and_then(json::string);
        let asks = Asks {
            requests: Bytes::copy_from_slice(requests),
            state: state.map(std::borrow::Cow::into_owned),
            answers: Vec::new(),
        };
        task.change(|state| {
            state.status = Status::InputRequired;
            state.asks = Some(asks);
        });
        self.changed(task, false).await;
        loop {
            let news = task.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let ready = {
                let state = task.state();
                state.asks.as_ref().is_none_or(Asks::is_answered)
            };
            if ready {
                break;
            }
            news.await;
        }
        let mut given = Given { task: task.state().handle.clone(), ..Given::default() };
        task.change(|state| {
            state.status = Status::Working;
            if let Some(asks) = state.asks.take() {
                (given.state, given.answers) = (asks.state, asks.answers);
            }
        });
        self.changed(task, false).await;
        given
    }

    /// Takes answers; those to nothing that is asked are of no interest.
    async fn update(&self, task: &Arc<Task>, answers: Vec<(String, Result<Bytes, Bytes>)>) {
        let changed = task.change(|state| {
            if let Some(asks) = &mut state.asks {
                for (key, answer) in answers {
                    if asks.is_open(&key) {
                        asks.answers.push((key, answer));
                    }
                }
            }
        });
        if changed {
            self.changed(task, false).await;
        }
    }

    /// Cancels a task, the backend's included. False if it was done.
    async fn cancel(&self, task: &Arc<Task>) -> bool {
        let (handle, asks) = {
            let state = task.state();
            (state.handle.clone(), state.asks.clone())
        };
        let cancelled = self.done(task, Status::Cancelled, None).await;
        // A call that waits for answers is the backend's to end as well.
        if cancelled && (handle.is_some() || asks.is_some()) {
            let state = asks.and_then(|asks| asks.state);
            let given = Given { task: handle, state, gone: true, ..Given::default() };
            tokio::spawn(self.round(task, given));
        }
        cancelled
    }

    /// Begins a call as a task, as its client wants it.
    async fn begin(self: Arc<Self>, mut call: Call) -> Result<Reply> {
        call.client.capabilities = call.client.capabilities.with_tasks();
        let mut reply = self.run(Call { progress: None, ..call.clone() });
        // What is refused at once needs no task to be refused in.
        let events = match tokio::time::timeout(AT_ONCE, poll_fn(|context| reply.poll_unpin(context))).await {
            Ok(reply) => self.events(Box::pin(std::future::ready(Ok(reply?)))),
            Err(_) => self.events(reply),
        };
        self.adopt(call, None, events).await.map(Reply::Whole)
    }

    /// The task that a request names, if it is one of its caller's.
    fn find(&self, call: &Call) -> Result<Arc<Task>> {
        let id = call.message.in_params("taskId").and_then(json::string);
        let id = id.ok_or_else(|| Error::Params("the parameter `taskId`, a text, is missing".into()))?;
        let task = self.table.get(&*id).map(|task| Arc::clone(&task)).filter(|task| task.is_of(call));
        task.ok_or_else(|| Error::UnknownTask(id.into_owned()))
    }

    /// Those of a caller, oldest first, and the name of the last if there are more.
    fn page(&self, call: &Call) -> Result<(Vec<Arc<Task>>, Option<String>)> {
        let mut mine: Vec<_> =
            self.table.iter().map(|task| Arc::clone(&task)).filter(|task| task.is_of(call)).collect();
        mine.sort_unstable_by(|one, two| (one.created, &one.id).cmp(&(two.created, &two.id)));
        let start = match call.message.in_params("cursor").and_then(json::string) {
            None => 0,
            Some(cursor) => 1 + mine.iter().position(|task| task.id == cursor).ok_or(Error::Cursor)?,
        };
        let page: Vec<_> = mine[start..].iter().take(PAGE).cloned().collect();
        let more = mine.len() > start + page.len();
        let last = page.last().filter(|_| more).map(|task| task.id.clone());
        Ok((page, last))
    }
}

/// What a backend tells of its task. True if it is the first that is heard.
fn heard(task: &Task, progress: &TaskNews) -> bool {
    let mut first = false;
    task.change(|state| {
        first = state.handle.is_none();
        state.handle = Some(progress.handle.clone());
        state.message.clone_from(&progress.message);
        state.poll = u64::try_from(progress.poll.as_millis()).ok();
    });
    first
}

fn failed(error: &Error, era: Era) -> Answer {
    let text = error.response(Some(b"0"), era);
    match Message::parse(text.into(), &Limits::REPLY) {
        Ok(message) => Answer::Response { message, written_in: era, wrapped: false },
        Err(_) => Answer::Result(Bytes::from_static(b"{}")),
    }
}

/// A result of ours as a response.
fn response(result: &[u8]) -> Option<Answer> {
    let text = [b"{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":", result, b"}"].concat();
    let message = Message::parse(text.into(), &Limits::REPLY).ok()?;
    Some(Answer::Response { message, written_in: Era::Legacy, wrapped: false })
}

/// May this call become a task without being asked?
pub fn may_become_one(call: &Call) -> bool {
    call.method == Method::ToolsCall
        && call.client.capabilities.takes_tasks()
        && call.client.revision.era() == Era::Modern
}
