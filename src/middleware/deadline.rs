//! How long may a call take?
//!
//! Two clocks: one that starts anew with every sign of life, and one that does not. Both run
//! until the last byte of a streamed reply. A call that is over its time is dropped, and what
//! is dropped is cancelled.
//!
//! A third one, much shorter, turns a reply that is not there yet into a stream, so that
//! something can be sent to a client whose connection would else be taken for dead.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
    time,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    fits,
    heartbeat::beating,
    tasks::{Tasks, may_become_one},
    timers::Timers,
};
use crate::{
    call::{Call, Event, Events, Reply, Replying, Stage, TaskNews},
    error::{Error, Result},
    settings::Duration,
    wire::{json, mcp::Method},
};

/// After this long a reply becomes a stream.
const PATIENCE: time::Duration = time::Duration::from_secs(5);

/// `[deadline]`: how long a call may take.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a backend may give no sign of life. Progress and log messages are signs.
    pub idle: Duration,
    /// How long a call may take in all, whatever the signs.
    pub total: Duration,
    /// What becomes of a call of a client that declares tasks (2026-07-28): `"late"` makes a task
    /// of it where others get an error, a time after that time, `"never"` never.
    pub task: BecomesTask,
    /// After how long without progress a client that gave a progress token is told of some by
    /// the gateway, so that it does not give up. That is no sign of life of the backend. `"0s"`
    /// for never.
    pub heartbeat: Duration,
    /// Other times for some tools, by their name here; `*` stands for any letters.
    pub tools: BTreeMap<String, Times>,
}

/// Other times than the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// How long the backend may give no sign of life; as for all tools where it is not said.
    pub idle: Option<Duration>,
    /// How long the call may take in all; as for all tools where it is not said.
    pub total: Option<Duration>,
    /// When a call becomes a task; as for all tools where it is not said.
    pub task: Option<BecomesTask>,
}

/// When a call becomes a task, if its client declares tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum BecomesTask {
    /// Instead of the error that others get.
    #[default]
    Late,
    After(Duration),
    Never,
}

impl TryFrom<String> for BecomesTask {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "late" => Ok(Self::Late),
            "never" => Ok(Self::Never),
            _ => {
                let wrong = |_| format!("{text:?} is neither \"late\" nor \"never\" nor a length of time");
                Duration::try_from(text.clone()).map(Self::After).map_err(wrong)
            }
        }
    }
}

impl From<BecomesTask> for String {
    fn from(rule: BecomesTask) -> Self {
        match rule {
            BecomesTask::Late => "late".into(),
            BecomesTask::Never => "never".into(),
            BecomesTask::After(time) => time.to_string(),
        }
    }
}

impl JsonSchema for BecomesTask {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BecomesTask".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "pattern": "^(late|never|[0-9]+ ?(ms|s|m|h|d))$",
            "description": "\"late\", \"never\", or a length of time."
        })
    }
}

impl Default for Settings {
    /// As official clients wait, and long enough for a model or a build in all.
    fn default() -> Self {
        Self {
            idle: Duration::seconds(60),
            total: Duration::seconds(600),
            task: BecomesTask::Late,
            heartbeat: Duration::seconds(15),
            tools: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// The times of a tool, whose name is given as JSON. Of the patterns that fit, the longest
    /// says it.
    fn times(&self, tool: Option<&[u8]>) -> (time::Duration, time::Duration, BecomesTask) {
        if self.tools.is_empty() {
            return (self.idle.0, self.total.0, self.task);
        }
        let tool = tool.and_then(json::string);
        let tool = tool.as_deref();
        let fitting = self.tools.iter().filter(|(pattern, _)| tool.is_some_and(|tool| fits(pattern, tool)));
        let times = fitting.max_by_key(|(pattern, _)| pattern.len()).map(|(_, times)| times);
        let idle = times.and_then(|times| times.idle).unwrap_or(self.idle);
        let total = times.and_then(|times| times.total).unwrap_or(self.total);
        (idle.0, total.0, times.and_then(|times| times.task).unwrap_or(self.task))
    }
}

/// Puts deadlines around a stage.
#[derive(Debug, Clone)]
pub struct DeadlineLayer(Arc<Settings>, Option<Arc<Tasks>>);

impl DeadlineLayer {
    /// `tasks` takes what is over its time and may go on. Without it, nothing may.
    pub fn new(settings: Settings, tasks: Option<Arc<Tasks>>) -> Self {
        Self(Arc::new(settings), tasks)
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, next: S) -> Deadline<S> {
        let timers = Arc::default();
        Deadline { settings: Arc::clone(&self.0), tasks: self.1.clone(), timers, next }
    }
}

/// A stage with deadlines around it.
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    settings: Arc<Settings>,
    tasks: Option<Arc<Tasks>>,
    timers: Arc<Timers>,
    next: S,
}

impl<S: Stage> Service<Call> for Deadline<S> {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        if call.method == Method::Listen {
            return self.next.call(call); // It ends when its client wants it to.
        }
        let clock = Clock::start(&self.settings, self.tasks.as_ref(), &call);
        let every = self.settings.heartbeat.0;
        let hears = call.progress.clone().filter(|_| !every.is_zero());
        let timers = Arc::clone(&self.timers);
        let mut reply = self.next.call(call);
        Box::pin(async move {
            let begun = clock.alive;
            let patience = if hears.is_some() { PATIENCE.min(every) } else { PATIENCE };
            let soon = clock.due().min(begun + patience);
            let events = match timers.wait(soon, &mut reply).await {
                Some(Ok(Reply::Stream(events))) => watched(events, clock),
                Some(other) => return other,
                None if soon < clock.due() || clock.outlives.is_some() => watched(late(reply), clock),
                None => return Err(clock.over()),
            };
            Ok(Reply::Stream(match hears {
                Some(progress) => beating(events, progress, every, begun),
                None => events,
            }))
        })
    }
}

/// A reply that is still to come, as the stream that it may turn out to be.
pub(super) fn late(reply: Replying) -> Events {
    let events = reply.map(|reply| match reply {
        Ok(Reply::Whole(answer)) => stream::iter([Ok(Event::Answer(answer))]).boxed(),
        Ok(Reply::Stream(events)) => events,
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    events.flatten_stream().boxed()
}

/// The two clocks of one call.
#[derive(Debug)]
struct Clock {
    method: Method,
    /// The name of what is called, as JSON.
    target: Option<Bytes>,
    idle: time::Duration,
    total: time::Duration,
    end: Instant,
    /// The last sign of life.
    alive: Instant,
    /// Set if the call may become a task: the call, and who takes it.
    outlives: Option<Box<(Call, Arc<Tasks>)>>,
}

impl Clock {
    fn start(settings: &Settings, tasks: Option<&Arc<Tasks>>, call: &Call) -> Self {
        let target = call.method.target().and_then(|name| call.message.param(name));
        let target = target.map(|place| call.message.slice(place));
        let tool = target.as_deref().filter(|_| call.method == Method::ToolsCall);
        let (idle, mut total, task) = settings.times(tool);
        let tasks = tasks.filter(|_| may_become_one(call) && task != BecomesTask::Never);
        let outlives = tasks.map(|tasks| Box::new((call.clone(), Arc::clone(tasks))));
        if let (BecomesTask::After(time), Some(_)) = (task, &outlives) {
            total = total.min(time.0);
        }
        let now = Instant::now();
        Self { method: call.method, target, idle, total, end: now + total, alive: now, outlives }
    }

    fn due(&self) -> Instant {
        (self.alive + self.idle).min(self.end)
    }

    fn over(&self) -> Error {
        let target = self.target.as_deref().and_then(json::string);
        let target = target.as_deref().unwrap_or(self.method.name()).to_owned();
        if Instant::now() >= self.end {
            Error::Deadline { target, after: self.total }
        } else {
            Error::Idle { target, after: self.idle }
        }
    }
}

fn watched(events: Events, clock: Clock) -> Events {
    let watched = stream::unfold(Some((events, clock)), |state| async {
        let (mut events, mut clock) = state?;
        loop {
            match tokio::time::timeout_at(clock.due(), events.next()).await {
                Ok(None) => return None,
                Ok(Some(Ok(Event::Alive))) => clock.alive = Instant::now(),
                Ok(Some(Ok(Event::Task(made)))) => {
                    clock.alive = Instant::now();
                    if let Some(outlives) = clock.outlives.take() {
                        return Some((as_task(*outlives, Some(made), events).await, None));
                    }
                    // A client that takes no tasks waits for the answer, as for any other.
                }
                Ok(Some(event)) => {
                    clock.alive = Instant::now();
                    let last = !matches!(event, Ok(Event::Notification(_)));
                    return Some((event, (!last).then_some((events, clock))));
                }
                Err(_) => {
                    return Some(match clock.outlives.take() {
                        Some(outlives) => (as_task(*outlives, None, events).await, None),
                        None => (Err(clock.over()), None),
                    });
                }
            }
        }
    });
    watched.boxed()
}

/// The answer that names the task which a call has become.
async fn as_task(outlives: (Call, Arc<Tasks>), made: Option<TaskNews>, events: Events) -> Result<Event> {
    let (call, tasks) = outlives;
    tasks.adopt(call, made, events).await.map(Event::Answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::{Caller, Client, Progress, Scope},
        wire::{capability::Capabilities, json::Limits, mcp::Revision, message::Message},
    };

    #[test]
    fn stars_stand_for_any_letters() {
        for (pattern, name) in
            [("a__b", "a__b"), ("a__*", "a__b"), ("*", ""), ("*__b", "a__b"), ("a*b*c", "axbyc")]
        {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a__b", "a__bc"), ("a__*", "b__a"), ("a*b*c", "acb"), ("", "a")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn the_most_particular_pattern_says_the_times() {
        let second = |n| Times { idle: Some(Duration::seconds(n)), ..Times::default() };
        let tools = [("a__*".to_owned(), second(1)), ("a__slow*".to_owned(), second(2))];
        let settings = Settings { tools: tools.into(), ..Settings::default() };
        let idle = |tool: Option<&str>| settings.times(tool.map(str::as_bytes)).0.as_secs();
        assert_eq!(
            (idle(Some("\"a__b\"")), idle(Some("\"a__slow_b\"")), idle(Some("\"b\"")), idle(None)),
            (1, 2, 60, 60)
        );
    }

    /// A call of a client that hears of progress.
    fn call() -> Call {
        let text = Bytes::from_static(
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}}",
        );
        let info = Bytes::from_static(b"{}");
        Call {
            progress: Some(Progress::new(Bytes::from_static(b"1"))),
            ..Call::new(
                Caller::Local,
                Scope::All,
                Method::ToolsCall,
                Message::parse(text, &Limits::REQUEST).unwrap(),
                Client { revision: Revision::NEWEST, capabilities: Capabilities::NONE, info },
            )
        }
    }

    /// At which seconds something is heard of a call that is never answered.
    async fn seconds(settings: Settings) -> Vec<u64> {
        let silent = tower::service_fn(|_: Call| std::future::pending::<Result<Reply>>().boxed());
        let begun = Instant::now();
        let reply = DeadlineLayer::new(settings, None).layer(silent).call(call()).await;
        let Ok(Reply::Stream(events)) = reply else { panic!("no stream: {reply:?}") };
        let heard = events.map(|event| (begun.elapsed().as_secs(), event)).collect::<Vec<_>>().await;
        let (last, beats) = heard.split_last().unwrap();
        assert!(matches!(last.1, Err(Error::Idle { .. })), "{last:?}");
        assert!(beats.iter().all(|(_, event)| matches!(event, Ok(Event::Notification(_)))), "{beats:?}");
        heard.into_iter().map(|(second, _)| second).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_is_no_sign_of_life() {
        assert_eq!(seconds(Settings::default()).await, [15, 30, 45, 60]);
        let heartbeat = |n| Settings { heartbeat: Duration::seconds(n), ..Settings::default() };
        assert_eq!(seconds(heartbeat(2)).await, (1..30).map(|n| 2 * n).chain([60]).collect::<Vec<_>>());
        assert_eq!(seconds(heartbeat(0)).await, [60]);
    }
}
