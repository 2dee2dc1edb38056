//! What becomes of the messages that come back for a call?
//!
//! The response is looked at before it goes on: a result of a kind we cannot pass on is an
//! error, never a success. Progress and log messages go to the caller under the caller's own
//! token; questions a server asks in between are refused, since nothing was offered for them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    Ask,
    server::reply_to,
    transport::{Kind, Transport, Trouble},
};
use crate::{
    call::{Answer, Event, Events},
    error::{Error, Result},
    wire::{
        json,
        mcp::{Era, Level},
        message::{self, Message},
        project,
    },
};

/// Tells the server when its caller has gone. Goes along with a call until it is answered.
pub struct Guard {
    transport: Arc<dyn Transport>,
    id: u64,
    era: Era,
    armed: bool,
}

impl Guard {
    pub fn new(transport: Arc<dyn Transport>, id: u64, era: Era) -> Self {
        Self { transport, id, era, armed: true }
    }

    /// There is nothing left to cancel.
    pub fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.armed || self.transport.cancels_by_closing(self.era) {
            return;
        }
        let text = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{},\"reason\":\"the caller has gone\"}}}}",
            self.id
        );
        let telling = self.transport.notify(Bytes::from(text));
        // Outside a runtime the process is ending, and its connections with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(telling);
        }
    }
}

/// A response as an answer, if it is one that can be passed on.
pub fn answer(message: Message, written_in: Era, wrapped: bool) -> Result<Answer, Trouble> {
    if written_in == Era::Modern
        && let Some(kind) = message.in_result("resultType")
    {
        match json::string(kind).as_deref() {
            Some("complete") => {}
            Some("input_required") => {
                let why = "the server asks for the user's or the model's input, which this gateway does not pass on yet";
                return Err(Trouble::new(Kind::Rubbish, why));
            }
            other => {
                let why =
                    format!("answered with a result of the unknown kind {:?}", other.unwrap_or_default());
                return Err(Trouble::new(Kind::Rubbish, why));
            }
        }
    }
    if message.result().is_some_and(|result| !result.starts_with(b"{")) {
        return Err(Trouble::new(Kind::Rubbish, "answered with a result that is no object"));
    }
    Ok(Answer::Response { message, written_in, wrapped })
}

struct Relay {
    messages: BoxStream<'static, Result<Message, Trouble>>,
    guard: Guard,
    backend: Arc<str>,
    token: Option<Bytes>,
    level: Option<Level>,
    caller_era: Era,
    wrapped: bool,
}

/// The caller's view of a request's stream: their notifications, then the answer.
pub fn relay(
    messages: BoxStream<'static, Result<Message, Trouble>>,
    guard: Guard,
    backend: Arc<str>,
    ask: &Ask,
    era: Era,
) -> Events {
    debug_assert_eq!(guard.era, era);
    let relay = Relay {
        messages,
        guard,
        backend,
        token: ask.call.progress.clone(),
        level: ask.call.log_level,
        caller_era: ask.call.client.revision.era(),
        wrapped: ask.wrapped,
    };
    let events = stream::unfold(Some(relay), |relay| async {
        let mut relay = relay?;
        let event = relay.next().await;
        let last = !matches!(event, Ok(Event::Notification(_)));
        Some((event, (!last).then_some(relay)))
    });
    events.boxed()
}

impl Relay {
    async fn next(&mut self) -> Result<Event> {
        loop {
            let cut_off = || Err(Trouble::new(Kind::Lost, "the answer was cut off before its end"));
            let message = self.messages.next().await.unwrap_or_else(cut_off);
            let message = message.map_err(|trouble| self.error(&trouble))?;
            match message.kind() {
                message::Kind::Response => {
                    self.guard.disarm();
                    let answer = answer(message, self.guard.era, self.wrapped);
                    return answer.map(Event::Answer).map_err(|trouble| self.error(&trouble));
                }
                message::Kind::Request if self.guard.era == Era::Modern => {
                    let why = "sent a request, which servers of revision 2026-07-28 may not";
                    return Err(Error::backend(&*self.backend, why));
                }
                message::Kind::Request => {
                    tokio::spawn(self.guard.transport.notify(reply_to(&message)));
                }
                message::Kind::Notification => {
                    if let Some(text) = self.notification(&message) {
                        return Ok(Event::Notification(text));
                    }
                }
            }
        }
    }

    fn error(&self, trouble: &Trouble) -> Error {
        Error::backend(&*self.backend, trouble)
    }

    /// A notification as the caller wants it, if they want it.
    fn notification(&self, message: &Message) -> Option<Bytes> {
        match &*message.method()? {
            "notifications/progress" => {
                let ours = message.in_params("progressToken")? == self.guard.id.to_string().as_bytes();
                let token = self.token.as_ref().filter(|_| ours)?;
                Some(project::progress(message, token).into())
            }
            "notifications/message" => {
                let level = message.param("level").and_then(|span| json::string(span.of(message.text())));
                let level = Level::parse(&level?)?;
                let wanted = match (self.level, self.caller_era) {
                    (Some(least), _) => level >= least,
                    (None, Era::Legacy) => true,
                    (None, Era::Modern) => false,
                };
                wanted.then(|| message.text().clone())
            }
            _ => None,
        }
    }
}
