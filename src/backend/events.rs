//! How is an answer read that comes as an event stream, on however many connections?
//!
//! A server of revision 2025-11-25 may close the connection of a stream and be polled: after the
//! time it said, its client asks for what follows the last event it had (SEP-1699). A stream of
//! an older revision that broke is gone on with alike, if its events had ids.

use std::time::Duration;

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use super::{
    answered::cut_off,
    http::REPLY_LIMIT,
    pool::Answer,
    transport::{Incoming, Kind, Trouble},
};
use crate::wire::{
    json::Limits,
    message::{self, Message},
    sse::{Decoder, Event},
};

/// The pause where the server names none, and the shortest and longest that are kept to.
const PAUSE: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// Attempts in a row that bring nothing.
const ATTEMPTS: usize = 5;

pub type Events = BoxStream<'static, Result<Event, Trouble>>;
/// Opens the stream again after an event.
pub type Again = Box<dyn Fn(String) -> BoxFuture<'static, Result<Events, Trouble>> + Send + Sync>;

/// The events of a body. The connection is of use again when the body has ended.
pub fn of(answer: Answer) -> Events {
    let start = (Some(answer.body), Decoder::new(REPLY_LIMIT));
    let pieces = stream::unfold(start, |(mut body, mut decoder)| async {
        let piece = body.as_mut()?.piece().await.map_err(|fault| cut_off(&fault)).transpose()?;
        let events = piece.and_then(|data| {
            decoder
                .push(&data)
                .map_err(|why| Trouble::new(Kind::Rubbish, format!("sent an event stream: {why}")))
        });
        let events: Vec<_> = match events {
            Ok(events) => events.into_iter().flat_map(each).map(Ok).collect(),
            Err(trouble) => {
                body = None;
                vec![Err(trouble)]
            }
        };
        Some((stream::iter(events), (body, decoder)))
    });
    pieces.flatten().boxed()
}

/// The messages of a request's stream, to the end of the body that has the response.
pub fn messages(
    events: Events,
    again: Option<Again>,
    read: impl Fn(Event) -> Result<Message, Trouble> + Send + 'static,
) -> BoxStream<'static, Result<Message, Trouble>> {
    let reading = Reading { events, again, last: None, pause: PAUSE, fruitless: 0, answered: false };
    let messages = stream::unfold((reading, read), |(mut reading, read)| async {
        loop {
            let event = match reading.next().await? {
                Ok(event) => event,
                Err(trouble) => {
                    reading.answered = true; // Or rather, there will be no answer.
                    return Some((Err(trouble), (reading, read)));
                }
            };
            // An event without data opens a stream of 2025-11-25.
            if !event.data.is_empty() {
                let message = read(event);
                reading.answered |=
                    message.as_ref().map_or(true, |message| message.kind() == message::Kind::Response);
                return Some((message, (reading, read)));
            }
        }
    });
    messages.boxed()
}

/// The messages of an event, each as an event: servers of 2025-03-26 may send several in one.
pub fn each(event: Event) -> Vec<Event> {
    match message::batch(&event.data, &Limits::REPLY) {
        Ok(Some(parts)) => parts.into_iter().map(|data| Event { data, ..event.clone() }).collect(),
        // What is wrong with it is said by who reads it.
        Ok(None) | Err(_) => vec![event],
    }
}

/// The same up to the response. If that comes first, it is all.
pub async fn first_of(
    mut messages: BoxStream<'static, Result<Message, Trouble>>,
) -> Result<Incoming, Trouble> {
    let cut_off = || Err(Trouble::new(Kind::Lost, "the event stream ended without an answer"));
    let first = messages.next().await.unwrap_or_else(cut_off)?;
    if first.kind() == message::Kind::Response {
        // Most often the body ends with the answer; then there is nothing to wait for.
        if !matches!(messages.next().now_or_never(), Some(None)) {
            tokio::spawn(drain(messages));
        }
        return Ok(Incoming::Whole(first));
    }
    Ok(Incoming::Stream(stream::iter([Ok(first)]).chain(messages).boxed()))
}

/// Reads what follows an answer, which is the end of the body, so that the connection can be
/// used again; a server that does not end it within a second loses the connection.
async fn drain(mut messages: BoxStream<'static, Result<Message, Trouble>>) {
    let rest = async { while messages.next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
}

/// How far a stream has been read.
struct Reading {
    events: Events,
    again: Option<Again>,
    /// The last event that had an id.
    last: Option<String>,
    pause: Duration,
    fruitless: usize,
    answered: bool,
}

impl Reading {
    /// The next event, on however many connections it takes. None at the end.
    async fn next(&mut self) -> Option<Result<Event, Trouble>> {
        loop {
            match self.events.next().await {
                Some(Ok(event)) => {
                    self.fruitless = 0;
                    self.last = event.id.clone().or(self.last.take());
                    self.pause = event.retry.map_or(self.pause, Duration::from_millis);
                    return Some(Ok(event));
                }
                _ if self.answered => return None,
                Some(Err(trouble)) if trouble.kind != Kind::Lost => return Some(Err(trouble)),
                end => {
                    let Some((again, last)) = self.again.as_ref().zip(self.last.clone()) else { return end };
                    if self.fruitless == ATTEMPTS {
                        return end;
                    }
                    self.fruitless += 1;
                    tokio::time::sleep(self.pause.clamp(SHORTEST, LONGEST)).await;
                    match again(last).await {
                        Ok(events) => self.events = events,
                        // Nobody knows of the stream any more, or there is no such thing.
                        Err(trouble) if matches!(trouble.kind, Kind::Status(400..500)) => return end,
                        Err(_) => self.events = stream::empty().boxed(),
                    }
                }
            }
        }
    }
}
