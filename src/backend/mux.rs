//! Which request does a message belong to, on a connection that all requests share?
//!
//! Pipes and the old HTTP+SSE transport have one stream for everything. Responses are told
//! apart by id, progress by its token (which is the id of its request); a log message or a
//! question bears no sign at all, so it belongs to a request only while there is just one. One
//! whose caller has gone counts until it is answered: servers need not heed a cancellation.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::transport::{Inbox, Incoming, Kind, Trouble};
use crate::wire::{
    json::{self, Limits},
    mcp::{Method, meta},
    message::{self, Message},
};

pub type Item = Result<Message, Trouble>;

/// Unanswered requests that are remembered after their callers have gone.
const MOST_LEFT: usize = 1024;

/// The requests that wait for an answer on one connection.
pub struct Mux {
    table: Mutex<Table>,
    inbox: Inbox,
}

#[derive(Default)]
struct Table {
    waiting: HashMap<u64, mpsc::UnboundedSender<Item>>,
    /// Those of them that are subscriptions: nothing is theirs that does not say so.
    subscriptions: HashSet<u64>,
    /// Requests whose callers have gone, and whose answers have not come.
    left: HashSet<u64>,
    /// The server has asked something.
    asks: bool,
    /// Set once, when the connection has ended.
    lost: Option<Trouble>,
}

impl std::fmt::Debug for Mux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mux").field("waiting", &self.table().waiting.len()).finish_non_exhaustive()
    }
}

impl Mux {
    pub fn new(inbox: Inbox) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), inbox })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics while it holds this lock")
    }

    /// From now on, what comes for the id of a request goes to the ticket. Call before sending.
    pub fn register(self: &Arc<Self>, id: u64, method: Method) -> Result<Ticket, Trouble> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut table = self.table();
        if let Some(lost) = &table.lost {
            return Err(Trouble { kind: Kind::NotSent, ..lost.clone() });
        }
        table.waiting.insert(id, sender);
        if method == Method::Listen {
            table.subscriptions.insert(id);
        }
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
        let is_response = message.kind() == message::Kind::Response;
        let receiver = match message.kind() {
            message::Kind::Response => number(message.id()).and_then(|id| table.answered(id)),
            // A ping is of no call's; where servers may ask more, one call at a time is under way.
            message::Kind::Request if message.is_method("ping") => None,
            message::Kind::Request => {
                table.asks = true;
                table.alone().and_then(|id| table.waiting.get(&id)).cloned()
            }
            message::Kind::Notification => match message.method().as_deref() {
                Some("notifications/progress") => number(message.in_params("progressToken")),
                Some("notifications/message") => table.alone(),
                _ => subscription(&message),
            }
            .and_then(|id| table.waiting.get(&id))
            .cloned(),
        };
        drop(table);
        match receiver {
            Some(receiver) => {
                let _ = receiver.send(Ok(message)); // Fails if the caller has just gone.
            }
            // A response to nothing, most often one that came after its call was cancelled.
            None if is_response => {}
            None => (self.inbox)(message),
        }
        Ok(())
    }

    /// Something came for a request that is no message: the request fails, the others go on.
    /// Where it is not known whose it was, it is whose who waits alone, if anyone does.
    pub fn reject(&self, id: Option<u64>, trouble: &Trouble) {
        let Some(id) = id.or_else(|| self.alone()) else { return };
        if let Some(receiver) = self.table().answered(id) {
            let _ = receiver.send(Err(trouble.clone()));
        }
    }

    /// Could the next question be told apart? A server that has asked nothing yet is trusted to go
    /// on like that, since to leave its connection may be to lose what it remembers.
    pub fn takes_questions(&self) -> bool {
        let table = self.table();
        !table.asks || table.left.is_empty()
    }

    /// The call that waits, if it is just one.
    pub fn alone(&self) -> Option<u64> {
        self.table().alone()
    }

    /// The connection has ended: whoever waits is told, and nobody can wait any more.
    pub fn end(&self, trouble: Trouble) {
        let mut table = self.table();
        for (_, receiver) in table.waiting.drain() {
            let _ = receiver.send(Err(trouble.clone()));
        }
        table.lost.get_or_insert(trouble);
    }

    pub fn lost(&self) -> Option<Trouble> {
        self.table().lost.clone()
    }
}

impl Table {
    /// Takes a request out that has its answer.
    fn answered(&mut self, id: u64) -> Option<mpsc::UnboundedSender<Item>> {
        self.left.remove(&id);
        self.subscriptions.remove(&id);
        self.waiting.remove(&id)
    }

    /// Takes a request out whose caller has gone. More than can be remembered are never forgotten.
    fn leave(&mut self, id: u64) {
        let was_waiting = self.waiting.remove(&id).is_some();
        if !self.subscriptions.remove(&id) && was_waiting {
            self.left.insert(if self.left.len() < MOST_LEFT { id } else { u64::MAX });
        }
    }

    fn alone(&self) -> Option<u64> {
        if !self.left.is_empty() {
            return None;
        }
        let mut calls = self.waiting.keys().filter(|id| !self.subscriptions.contains(id));
        let first = calls.next().copied();
        first.filter(|_| calls.next().is_none())
    }
}

/// The subscription that a notification says it belongs to.
fn subscription(notification: &Message) -> Option<u64> {
    let meta = notification.in_params("_meta")?;
    let found = json::members(meta).into_iter().find(|member| member.is(meta::SUBSCRIPTION_ID, meta))?;
    number(Some(found.value.of(meta)))
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
    receiver: mpsc::UnboundedReceiver<Item>,
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
        self.receiver.recv().await.unwrap_or_else(ended)
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
