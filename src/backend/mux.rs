//! Which request does a message belong to, on a connection that all requests share?
//!
//! Pipes and the old HTTP+SSE transport have one stream for everything. Responses are told
//! apart by id, progress by its token (which is the id of its request), and what a task asks by
//! the task's name. Any other question and a log message bear no sign at all, so they belong to a
//! request only while there is just one that they could be of. One whose caller has gone counts
//! too, since servers need not heed a cancellation: for questions until it is answered, for the
//! log for a while, since a server that does heed it never answers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::{
    mailbox::{Receiver, Slot},
    transport::{Inbox, Incoming, Kind, Trouble},
};
use crate::wire::{
    capability::may_ask,
    json::{self, Limits},
    mcp::{Method, meta},
    message::{self, Message},
};

pub type Item = Result<Message, Trouble>;

/// Unanswered requests that are remembered after their callers have gone.
const MOST_LEFT: usize = 1024;
/// How long a cancelled request may still have something to say in the log.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// The requests that wait for an answer on one connection.
pub struct Mux {
    table: Mutex<Table>,
    inbox: Inbox,
    habit: Habit,
}

/// Does a server ask its clients anything? It is one for all connections to a server, so that what
/// one of them has learned is known to the next.
#[derive(Debug, Clone, Default)]
pub struct Habit(Arc<AtomicBool>);

#[derive(Default)]
struct Table {
    waiting: HashMap<u64, Waiting>,
    /// Requests whose callers have gone, and whose answers have not come.
    left: HashMap<u64, Left>,
    /// Set once, when the connection has ended.
    lost: Option<Trouble>,
}

/// A request without its answer.
struct Waiting {
    to: Slot,
    method: Method,
    /// The task it is about.
    task: Option<Arc<str>>,
}

/// A request that nobody waits for.
struct Left {
    may_ask: bool,
    since: Instant,
}

impl std::fmt::Debug for Mux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mux").field("waiting", &self.table().waiting.len()).finish_non_exhaustive()
    }
}

impl Mux {
    pub fn new(inbox: Inbox, habit: Habit) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), inbox, habit })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics while it holds this lock")
    }

    /// From now on, what comes for the id of a request goes to the ticket. Call before sending.
    pub fn register(
        self: &Arc<Self>,
        id: u64,
        method: Method,
        target: Option<&Arc<str>>,
    ) -> Result<Ticket, Trouble> {
        let to = Slot::default();
        let receiver = to.receiver();
        let mut table = self.table();
        if let Some(lost) = &table.lost {
            return Err(Trouble { kind: Kind::NotSent, ..lost.clone() });
        }
        let task = target.filter(|_| method == Method::TasksResult).cloned();
        table.waiting.insert(id, Waiting { to, method, task });
        Ok(Ticket { id, receiver, mux: Arc::clone(self) })
    }

    /// One text from the server. An error says what was wrong with it; the connection goes on.
    pub fn deliver(&self, text: Bytes) -> Result<(), message::Malformed> {
        match message::batch(&text, &Limits::REPLY)? {
            Some(parts) => parts.into_iter().try_for_each(|part| self.deliver_one(part)),
            None => self.deliver_one(text),
        }
    }

    fn deliver_one(&self, text: Bytes) -> Result<(), message::Malformed> {
        let message = Message::parse(text, &Limits::REPLY)?;
        let mut table = self.table();
        let receiver = match message.kind() {
            message::Kind::Response => {
                // To nothing if there is nobody, most often since its call was cancelled before it came.
                if let Some(last) = number(message.id()).and_then(|id| table.answered(id)) {
                    last.put(Ok(message));
                }
                return Ok(());
            }
            // A ping is of no call's.
            message::Kind::Request if message.is_method("ping") => None,
            message::Kind::Request => {
                self.habit.0.store(true, Ordering::Relaxed);
                table.who_asks(&message)
            }
            message::Kind::Notification => match message.method().as_deref() {
                Some("notifications/progress") => number(message.in_params("progressToken")),
                Some("notifications/message") => table.alone(),
                _ => subscription(&message),
            },
        };
        match receiver.and_then(|id| table.waiting.get(&id)) {
            Some(waiting) => waiting.to.put(Ok(message)),
            None => {
                drop(table);
                (self.inbox)(message);
            }
        }
        Ok(())
    }

    /// Something came for a request that is no message: the request fails, the others go on.
    /// Where it is not known whose it was, it is whose who waits alone, if anyone does.
    pub fn reject(&self, id: Option<u64>, trouble: &Trouble) {
        let Some(id) = id.or_else(|| self.alone()) else { return };
        if let Some(receiver) = self.table().answered(id) {
            receiver.put(Err(trouble.clone()));
        }
    }

    /// Could the next question be told apart? A server that has asked nothing yet, over any
    /// connection, is trusted to go on like that, since to leave one may be to lose what it remembers.
    pub fn takes_questions(&self) -> bool {
        !self.habit.0.load(Ordering::Relaxed) || !self.table().left.values().any(|left| left.may_ask)
    }

    /// The call that waits, if it is just one.
    pub fn alone(&self) -> Option<u64> {
        self.table().alone()
    }

    /// The connection has ended: whoever waits is told, and nobody can wait any more.
    pub fn end(&self, trouble: Trouble) {
        let mut table = self.table();
        for (_, waiting) in table.waiting.drain() {
            waiting.to.put(Err(trouble.clone()));
        }
        table.lost.get_or_insert(trouble);
    }

    pub fn lost(&self) -> Option<Trouble> {
        self.table().lost.clone()
    }
}

impl Table {
    /// Takes a request out that has its answer.
    fn answered(&mut self, id: u64) -> Option<Slot> {
        self.left.remove(&id);
        self.waiting.remove(&id).map(|waiting| waiting.to)
    }

    /// Takes a request out whose caller has gone. More than can be remembered are never forgotten.
    fn leave(&mut self, id: u64) {
        let Some(waiting) = self.waiting.remove(&id).filter(|waiting| waiting.method != Method::Listen)
        else {
            return;
        };
        let id = if self.left.len() < MOST_LEFT { id } else { u64::MAX };
        let may_ask = waiting.may_ask() || self.left.get(&id).is_some_and(|left| left.may_ask);
        self.left.insert(id, Left { may_ask, since: Instant::now() });
    }

    /// The request that something without a sign is of.
    fn alone(&self) -> Option<u64> {
        if self.left.values().any(|left| left.since.elapsed() < LAST_WORDS) {
            return None;
        }
        // A subscription has nothing to say that does not name it.
        only(self.waiting.iter().filter(|(_, waiting)| waiting.method != Method::Listen))
    }

    /// The request that a question is of.
    fn who_asks(&self, question: &Message) -> Option<u64> {
        if let Some(task) = task_of(question) {
            let fits = |waiting: &Waiting| waiting.task.as_deref() == Some(&task);
            return only(self.waiting.iter().filter(|(_, waiting)| fits(waiting)));
        }
        if self.left.values().any(|left| left.may_ask) {
            return None;
        }
        only(self.waiting.iter().filter(|(_, waiting)| waiting.may_ask()))
    }
}

impl Waiting {
    fn may_ask(&self) -> bool {
        may_ask(self.method) || self.method == Method::TasksResult
    }
}

fn only<'a>(mut requests: impl Iterator<Item = (&'a u64, &'a Waiting)>) -> Option<u64> {
    let (first, _) = requests.next()?;
    requests.next().is_none().then_some(*first)
}

/// The task that a question says it is of.
fn task_of(question: &Message) -> Option<String> {
    let related = json::member(question.in_params("_meta")?, meta::RELATED_TASK)?;
    json::member(related, "taskId").and_then(json::string).map(std::borrow::Cow::into_owned)
}

/// The subscription that a notification says it belongs to.
fn subscription(notification: &Message) -> Option<u64> {
    let meta = notification.in_params("_meta")?;
    number(json::member(meta, meta::SUBSCRIPTION_ID))
}

fn number(text: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(text?).ok()?.parse().ok()
}

/// Which request is a text meant for that is no message? An id is believed only in its place
/// in a text that can be read at all, since a result may well speak of other ids; and only
/// where there is no method, since the server counts its own requests.
pub fn meant_for(text: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Response {
        id: u64,
        method: Option<serde::de::IgnoredAny>,
    }
    let found: Response = serde_json::from_slice(text).ok()?;
    found.method.is_none().then_some(found.id)
}

/// What is wrong with a text that is no message, for the caller.
pub fn rubbish(malformed: message::Malformed) -> Trouble {
    let why = crate::error::Error::from(malformed);
    Trouble::new(Kind::Rubbish, format!("what it sent is {why}"))
}

/// The right to what comes for one request. Dropping it gives the right up.
pub struct Ticket {
    id: u64,
    receiver: Receiver,
    mux: Arc<Mux>,
}

impl Ticket {
    /// Waits for the first message.
    pub async fn incoming(mut self) -> Result<Incoming, Trouble> {
        let first = self.next().await?;
        if first.kind() == message::Kind::Response {
            return Ok(Incoming::Whole(first));
        }
        let rest = stream::unfold(Some(self), |ticket| async {
            let mut ticket = ticket?;
            let item = ticket.next().await;
            let last = item.as_ref().map_or(true, |message| message.kind() == message::Kind::Response);
            Some((item, (!last).then_some(ticket)))
        });
        Ok(Incoming::Stream(stream::iter([Ok(first)]).chain(rest).boxed()))
    }

    /// The next message, for as long as there is no response.
    pub async fn next(&mut self) -> Item {
        let ended = || Err(Trouble::new(Kind::Lost, "the connection has ended"));
        self.receiver.next().await.unwrap_or_else(ended)
    }
}

impl Ticket {
    /// The response has come another way: nothing more comes for the request.
    pub fn answered(&self) {
        self.mux.table().answered(self.id);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.mux.table().leave(self.id);
    }
}
