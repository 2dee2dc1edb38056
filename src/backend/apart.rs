//! Whose is a question that comes apart from its call, on the stream of the session?
//!
//! Over Streamable HTTP a server shows by the stream of a call that it asks because of it. Some
//! ask on the session's own stream instead. While exactly one request is under way in the
//! session, the question is of that one; else it is nobody's, and refused.

use std::{sync::Arc, time::Duration};

use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::watch;

use super::{
    mux::{Habit, Item, Mux, Ticket},
    transport::{Inbox, Incoming, Kind, Trouble},
};
use crate::wire::{mcp::Method, message};

/// How long a request waits for the session's stream to open: many servers lose what they say
/// there before.
const OPENING: Duration = Duration::from_secs(1);

/// What is under way in a session whose server may ask.
#[derive(Debug)]
pub struct Apart {
    /// Takes what comes on the session's stream.
    pub mux: Arc<Mux>,
    open: watch::Sender<bool>,
}

impl Apart {
    pub fn new(inbox: Inbox, habit: Habit) -> Self {
        Self { mux: Mux::new(inbox, habit), open: watch::Sender::new(false) }
    }

    /// The session's stream is open, or the server has none.
    pub fn opened(&self) {
        self.open.send_replace(true);
    }

    /// The answer to a request, and what is asked apart until then.
    pub async fn exchange(
        &self,
        (id, method): (u64, Method),
        answer: impl Future<Output = Result<Incoming, Trouble>> + Send + 'static,
    ) -> Result<Incoming, Trouble> {
        let _ = tokio::time::timeout(OPENING, self.open.subscribe().wait_for(|open| *open)).await;
        let ticket = self.mux.register(id, method, None)?;
        let answer = answer.map(|answer| match answer {
            Ok(Incoming::Whole(message)) => stream::iter([Ok(message)]).boxed(),
            Ok(Incoming::Stream(messages)) => messages,
            Err(trouble) => stream::iter([Err(trouble)]).boxed(),
        });
        let both = Both { ticket, answer: answer.flatten_stream().boxed() };
        let mut messages = stream::unfold(Some(both), Both::next).boxed();
        let first = messages.next().await.unwrap_or_else(cut_off)?;
        if first.kind() == message::Kind::Response {
            return Ok(Incoming::Whole(first));
        }
        Ok(Incoming::Stream(stream::iter([Ok(first)]).chain(messages).boxed()))
    }
}

/// The two ways on which something comes for a request.
struct Both {
    ticket: Ticket,
    answer: BoxStream<'static, Item>,
}

impl Both {
    async fn next(both: Option<Self>) -> Option<(Item, Option<Self>)> {
        let mut both = both?;
        let item = tokio::select! {
            biased; // What was asked before the answer came is asked before it.
            item = both.ticket.next() => item,
            item = both.answer.next() => item.unwrap_or_else(cut_off),
        };
        match &item {
            Ok(message) if message.kind() != message::Kind::Response => return Some((item, Some(both))),
            // The server may be at it still.
            Err(Trouble { kind: Kind::Lost, .. }) => {}
            Ok(_) | Err(_) => both.ticket.answered(),
        }
        Some((item, None))
    }
}

fn cut_off() -> Item {
    Err(Trouble::new(Kind::Lost, "the event stream ended without an answer"))
}
