//! What has been sent to a client, and what could be sent again?
//!
//! Events of the legacy era have numbers, so that a client whose connection broke can ask for
//! what it missed (`Last-Event-ID`). An event belongs to one stream: the one a request opened,
//! or the session's own, which is stream 0. Each stream keeps a bounded number of its newest
//! events; a connection is only somebody reading along.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::Notify;

use crate::wire::sse;

/// How many of the newest events that were read a stream keeps, and how many bytes.
const MOST_EVENTS: usize = 256;
const MOST_BYTES: usize = 1 << 20;
/// How much more it keeps of what nobody has read yet.
const UNREAD: usize = 16;

/// The events of one stream.
#[derive(Debug)]
pub struct Stream {
    number: u64,
    /// Keeps what was read for a while. A pipe does not: it has one reader, and no way back.
    replays: bool,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// With its number; 0 is what stands before the first.
    events: VecDeque<(u64, Bytes)>,
    bytes: usize,
    last: u64,
    /// Up to which event somebody has read.
    read: u64,
    done: bool,
    /// Counts readers; only the newest reads on.
    reader: u64,
}

impl Stream {
    pub fn new(number: u64) -> Arc<Self> {
        Arc::new(Self { number, replays: true, state: Mutex::default(), news: Notify::new() })
    }

    /// The own stream of a session that goes on after a restart. Its events have later numbers
    /// than any of before, so that a client who asks for what followed one gets them.
    pub fn resumed() -> Arc<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let stream = Self::new(0);
        let mut state = stream.state();
        state.last = now << 20;
        state.read = state.last;
        drop(state);
        stream
    }

    /// A stream whose events are read once, and of which none is forgotten before.
    pub fn pipe() -> Arc<Self> {
        Arc::new(Self { number: 0, replays: false, state: Mutex::default(), news: Notify::new() })
    }

    pub fn is_pipe(&self) -> bool {
        !self.replays
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Adds a message. The oldest are forgotten when there are too many.
    pub fn push(&self, text: Bytes) {
        let mut state = self.state();
        if state.done {
            return;
        }
        state.last += 1;
        state.bytes += text.len();
        let number = state.last;
        state.events.push_back((number, text));
        if self.replays {
            state.forget();
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Nothing more comes. What is there can still be read.
    pub fn end(&self) {
        self.state().done = true;
        self.news.notify_waiters();
    }

    pub fn is_done(&self) -> bool {
        self.state().done
    }

    /// Reads along from after an event, or from after the last one that was read. A reader
    /// that was there before ends: one message goes to one connection.
    pub fn follow(self: &Arc<Self>, after: Option<u64>) -> BoxStream<'static, (u64, Bytes)> {
        let mut state = self.state();
        state.reader += 1;
        let (me, at) = (state.reader, after.unwrap_or(state.read));
        drop(state);
        self.news.notify_waiters();
        stream::unfold((Arc::clone(self), me, at), |(stream, me, at)| async move {
            let (number, text) = stream.next(me, at).await?;
            Some(((number, text), (stream, me, number)))
        })
        .boxed()
    }

    async fn next(&self, me: u64, at: u64) -> Option<(u64, Bytes)> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Asked for before looking, so that an event in between is not missed.
            news.as_mut().enable();
            {
                let mut state = self.state();
                if state.reader != me {
                    return None;
                }
                if let Some((number, text)) = state.events.iter().find(|(number, _)| *number > at).cloned() {
                    state.read = state.read.max(number);
                    if !self.replays {
                        state.forget_read();
                    }
                    return Some((number, text));
                }
                if state.done {
                    return None;
                }
            }
            news.await;
        }
    }

    /// The stream as events with ids.
    pub fn events(self: &Arc<Self>, after: Option<u64>) -> BoxStream<'static, Bytes> {
        let stream = self.number;
        self.follow(after)
            .map(move |(number, text)| sse::message(Some(&format!("{stream}-{number}")), &text))
            .boxed()
    }

    /// The event that 2025-11-25 opens a stream with, so that a client has an id to come back
    /// with before the first message.
    pub fn opening(&self) -> Bytes {
        Bytes::from(format!("id: {}-0\ndata: \n\n", self.number))
    }
}

impl State {
    /// Drops the oldest events when there are too many; unread ones are given more room.
    fn forget(&mut self) {
        while self.events.len() > 1 {
            let unread = self.events.front().is_some_and(|(number, _)| *number > self.read);
            let room = if unread { UNREAD } else { 1 };
            if self.events.len() <= MOST_EVENTS * room && self.bytes <= MOST_BYTES * room {
                return;
            }
            self.drop_oldest();
        }
    }

    fn forget_read(&mut self) {
        while self.events.front().is_some_and(|(number, _)| *number <= self.read) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, text)) = self.events.pop_front() {
            self.bytes -= text.len();
        }
    }
}

/// The stream and the event that an id of ours names.
pub fn parse_id(id: &str) -> Option<(u64, u64)> {
    let (stream, event) = id.split_once('-')?;
    Some((stream.parse().ok()?, event.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(stream: &Arc<Stream>, after: Option<u64>) -> Vec<String> {
        stream.follow(after).map(|(n, text)| format!("{n}{}", String::from_utf8_lossy(&text))).collect().await
    }

    #[tokio::test]
    async fn what_was_missed_can_be_read_again() {
        let stream = Stream::new(3);
        for text in ["a", "b", "c"] {
            stream.push(Bytes::from_static(text.as_bytes()));
        }
        stream.end();
        assert_eq!(all(&stream, None).await, ["1a", "2b", "3c"]);
        assert_eq!(all(&stream, Some(1)).await, ["2b", "3c"]);
        assert_eq!(all(&stream, Some(9)).await, [""; 0]);
    }

    #[tokio::test]
    async fn a_new_reader_ends_the_old_one_and_goes_on_where_it_was() {
        let stream = Stream::new(0);
        stream.push(Bytes::from_static(b"a"));
        let mut old = stream.follow(None);
        assert_eq!(old.next().await.unwrap().0, 1);
        let mut new = stream.follow(None);
        assert_eq!(old.next().await, None);
        stream.push(Bytes::from_static(b"b"));
        assert_eq!(new.next().await.unwrap().0, 2);
    }

    #[tokio::test]
    async fn the_oldest_events_are_forgotten() {
        let stream = Stream::new(0);
        for _ in 0..10_000 {
            stream.push(Bytes::from_static(b"x"));
        }
        assert_eq!(stream.state().events.len(), MOST_EVENTS * UNREAD);
        stream.end();
        assert_eq!(all(&stream, None).await.len(), MOST_EVENTS * UNREAD);
    }

    #[tokio::test]
    async fn a_pipe_forgets_what_was_read_and_nothing_else() {
        let stream = Stream::pipe();
        for _ in 0..10_000 {
            stream.push(Bytes::from_static(b"x"));
        }
        stream.end();
        assert_eq!(all(&stream, None).await.len(), 10_000);
        assert_eq!(stream.state().events.len(), 0);
    }
}
