//! What does a client ask about tasks?

use std::{
    collections::BTreeSet,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::broadcast::{self, error::RecvError};
use tower::{Layer, Service};

use super::{Status, Task, Tasks, words};
use crate::{
    call::{Answer, Call, Event, Events, Reply, Replying, Stage},
    error::{Error, Result},
    wire::{
        json::{self, Limits},
        mcp::{Era, Method, Revision, extension},
        message::{Message, Splice},
    },
};

/// Tasks that one subscription may name.
const MOST: usize = 1024;

/// Puts the methods of tasks before a stage.
#[derive(Debug, Clone)]
pub struct TasksLayer(pub Arc<Tasks>);

impl<S> Layer<S> for TasksLayer {
    type Service = Tasked<S>;

    fn layer(&self, next: S) -> Tasked<S> {
        Tasked { tasks: Arc::clone(&self.0), next }
    }
}

/// A stage with tasks before it.
#[derive(Debug, Clone)]
pub struct Tasked<S> {
    tasks: Arc<Tasks>,
    next: S,
}

impl<S: Stage> Service<Call> for Tasked<S> {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Replying {
        match call.method {
            Method::ToolsCall if wants_task(&call) => Box::pin(Arc::clone(&self.tasks).begin(call)),
            Method::TasksGet
            | Method::TasksResult
            | Method::TasksList
            | Method::TasksCancel
            | Method::TasksUpdate => Box::pin(Arc::clone(&self.tasks).answer(call)),
            Method::Listen if named(&call).is_some() => self.listen(call),
            _ => self.next.call(call),
        }
    }
}

impl<S: Stage> Tasked<S> {
    /// A subscription that names tasks: what the next stage makes of it, and how they are.
    fn listen(&mut self, call: Call) -> Replying {
        if !call.client.capabilities.takes_tasks() {
            return Box::pin(std::future::ready(Err(Error::NeedsExtension(extension::TASKS))));
        }
        let tasks = match self.tasks.watched(&call) {
            Ok(tasks) => tasks,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let (changes, client) = (self.tasks.changes.subscribe(), call.client.clone());
        let id = Bytes::copy_from_slice(call.message.id().unwrap_or(b"0"));
        let reply = self.next.call(call);
        Box::pin(reply.map(|reply| {
            let Reply::Stream(events) = reply? else { return Err(Error::NoInput) };
            let names: Vec<_> = tasks.iter().map(|task| json::quoted(&task.id)).collect();
            let events = acknowledged(events, names.join(","));
            let told = changed(changes, tasks).filter_map(move |task| {
                let event = words::notification(&task, &client, &id).map(Event::Notification);
                std::future::ready(event.is_ok().then_some(event))
            });
            // The subscription ends where the next stage ends it.
            let (end, ended) = futures_util::future::abortable(std::future::pending::<()>());
            let ending = stream::once(std::future::ready(())).filter_map(move |()| {
                ended.abort();
                std::future::ready(None)
            });
            let told = told.take_until(end);
            Ok(Reply::Stream(stream::select(events.chain(ending), told).boxed()))
        }))
    }
}

/// Does a client of 2025-11-25 want a task of this call?
fn wants_task(call: &Call) -> bool {
    call.client.revision == Revision::V2025_11_25
        && call.message.in_params("task").is_some_and(|task| task.starts_with(b"{"))
}

/// The names of tasks in a subscription, as a JSON list.
fn named(call: &Call) -> Option<&[u8]> {
    let wanted = call.message.in_params("notifications")?;
    json::member(wanted, "taskIds")
}

/// The events with the names of tasks put into the first, which says what is honoured.
fn acknowledged(events: Events, names: String) -> Events {
    let mut names = Some(names);
    let events = events.map(move |event| match (event, names.take()) {
        (Ok(Event::Notification(text)), Some(names)) => {
            let message = Message::parse(text.clone(), &Limits::REPLY)?;
            let Some(place) = message.param("notifications") else {
                return Ok(Event::Notification(text));
            };
            let comma = if place.len() > 2 { "," } else { "" };
            let mut splice = Splice::new(&text);
            splice.insert(place.start + 1, format!("\"taskIds\":[{names}]{comma}").into_bytes());
            let text = splice.finish();
            Ok(Event::Notification(text.into()))
        }
        (event, _) => event,
    });
    events.boxed()
}

/// The tasks among these whenever they change.
fn changed(
    changes: broadcast::Receiver<Arc<Task>>,
    tasks: Vec<Arc<Task>>,
) -> impl stream::Stream<Item = Arc<Task>> + Send {
    stream::unfold((changes, tasks, Vec::new()), |(mut changes, tasks, mut missed)| async move {
        loop {
            if let Some(task) = missed.pop() {
                return Some((task, (changes, tasks, missed)));
            }
            match changes.recv().await {
                Ok(task) if tasks.iter().any(|other| Arc::ptr_eq(other, &task)) => {
                    return Some((task, (changes, tasks, missed)));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => missed.clone_from(&tasks),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

impl Tasks {
    async fn answer(self: Arc<Self>, call: Call) -> Result<Reply> {
        let era = call.client.revision.era();
        if era == Era::Modern && !call.client.capabilities.takes_tasks() {
            return Err(Error::NeedsExtension(extension::TASKS));
        }
        if era == Era::Legacy && call.client.revision < Revision::V2025_11_25 {
            return Err(Error::UnknownMethod(call.method.name().to_owned()));
        }
        let answer = match call.method {
            Method::TasksList => self.list(&call)?,
            Method::TasksCancel => {
                let task = self.find(&call)?;
                let cancelled = self.cancel(&task).await;
                match era {
                    Era::Modern => words::acknowledged(),
                    Era::Legacy if !cancelled => {
                        return Err(Error::Params("the task is done, so it cannot be cancelled".into()));
                    }
                    Era::Legacy => words::detailed(&task, &call.client)?,
                }
            }
            Method::TasksUpdate => {
                let task = self.find(&call)?;
                let answers = call.given.filter(|_| call.message.in_params("inputResponses").is_some());
                let missing =
                    || Error::Params("the parameter `inputResponses`, an object, is missing".into());
                self.update(&task, answers.ok_or_else(missing)?.answers).await;
                words::acknowledged()
            }
            Method::TasksResult => {
                let task = self.find(&call)?;
                return Ok(Reply::Stream(self.result(task, call)));
            }
            _ => words::detailed(&*self.find(&call)?, &call.client)?,
        };
        Ok(Reply::Whole(answer))
    }

    /// The tasks of a subscription that are its caller's.
    fn watched(&self, call: &Call) -> Result<Vec<Arc<Task>>> {
        let wrong = || Error::Params("`taskIds` must be a list of at most 1024 texts".into());
        let names = named(call).filter(|names| names.starts_with(b"[")).ok_or_else(wrong)?;
        let places = json::elements(names);
        if places.len() > MOST {
            return Err(wrong());
        }
        let mut ids = BTreeSet::new();
        for place in places {
            ids.insert(json::string(place.of(names)).ok_or_else(wrong)?.into_owned());
        }
        let find = |id: &String| self.table.get(id).map(|task| Arc::clone(&task));
        Ok(ids.iter().filter_map(find).filter(|task| task.is_of(call)).collect())
    }

    fn list(&self, call: &Call) -> Result<Answer> {
        let (page, next) = self.page(call)?;
        let tasks: Vec<_> = page
            .iter()
            .map(|task| words::described(task, &call.client).map(|text| format!("{{{text}}}")))
            .collect::<Result<_>>()?;
        let next = next.map(|next| format!(",\"nextCursor\":{}", json::quoted(&next))).unwrap_or_default();
        Ok(Answer::Result(format!("{{\"tasks\":[{}]{next}}}", tasks.join(",")).into()))
    }

    /// What a task comes to, when it does; until then, what it asks of its client.
    fn result(self: Arc<Self>, task: Arc<Task>, mut call: Call) -> Events {
        let answer = async move {
            if let Some(given) = call.given.take().filter(|given| !given.gone) {
                self.update(&task, given.answers).await;
            }
            self.awaited(&task, &call).await
        };
        stream::once(answer).map(|answer| answer.map(Event::Answer)).boxed()
    }

    async fn awaited(&self, task: &Task, call: &Call) -> Result<Answer> {
        loop {
            let news = task.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let (status, outcome, asks) = {
                let state = task.state();
                (state.status, state.outcome.clone(), state.asks.clone())
            };
            match (outcome, status) {
                (Some(answer), _) => return words::marked(task, answer),
                (None, status) if status.is_terminal() => {
                    let why = if status == Status::Cancelled {
                        "the task was cancelled"
                    } else {
                        "it has no result"
                    };
                    return Err(Error::Params(why.to_owned()));
                }
                _ => {}
            }
            let capabilities = call.client.capabilities;
            if let Some(asks) = asks.filter(|asks| !asks.is_answered() && asks.may_be_put_to(capabilities)) {
                return words::asked(task, &asks);
            }
            news.await;
        }
    }
}
