//! What has been sent to a client, and what could be sent again?
//!
//! Events of the legacy era have numbers, so that a client whose connection broke can ask for
//! what it missed (`Last-Event-ID`). An event belongs to one stream: the one a request opened,
//! or the session's own, which is stream 0. Each stream keeps a bounded number of its newest
//! events; a connection is only somebody reading along. What a restart must not lose is noted for
//! the disk (`kept.rs`).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::Notify;

use super::kept::{Change, Disk, Keeping, Kept};
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
    /// None if nothing of it outlives this run.
    disk: Option<Disk>,
}

impl Stream {
    pub fn new(number: u64) -> Arc<Self> {
        Arc::new(Self { number, replays: true, state: Mutex::default(), news: Notify::new() })
    }

    /// A stream of a session that goes on after a restart. Its new events have later numbers
    /// than any of before, so that a client who asks for what followed one gets them.
    pub fn resumed(kept: Kept, keeping: Arc<Keeping>) -> Arc<Self> {
        let stream = Self::new(kept.number);
        let mut state = stream.state();
        state.disk = Some(Disk::with(keeping, &kept));
        state.last = kept.events.last().map_or(0, |(number, _)| *number).max(later());
        (state.read, state.done) = (kept.read, kept.done);
        state.bytes = kept.events.iter().map(|(_, text)| text.len()).sum();
        state.events = kept.events.into();
        drop(state);
        stream
    }

    /// From now on what is new of it is noted for the disk.
    pub fn keep(self: &Arc<Self>, keeping: Arc<Keeping>, request: Option<Bytes>) {
        let of_request = request.is_some();
        let mut state = self.state();
        let disk = state.disk.insert(Disk::new(keeping, request));
        if of_request {
            disk.note(self); // Its client may ask for it before there is any event.
        }
    }

    /// What the disk does not know yet of it.
    pub fn change(&self) -> Option<Change> {
        let mut state = self.state();
        let State { events, read, done, disk, .. } = &mut *state;
        disk.as_mut()?.change(self.number, events, *read, *done)
    }

    /// Nothing of it is to be kept on disk any more.
    pub fn forget(&self) {
        if let Some(disk) = self.state().disk.take() {
            disk.forget(self.number);
        }
    }

    /// Nothing more comes in this run. The next goes on with it.
    pub fn pause(&self) {
        let mut state = self.state();
        if let Some(disk) = state.disk.take() {
            disk.close(self.number, &state.events, state.read, state.done);
        }
        state.done = true;
        drop(state);
        self.news.notify_waiters();
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
    pub fn push(self: &Arc<Self>, text: Bytes) {
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
        if let Some(disk) = &mut state.disk {
            disk.note(self);
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// Nothing more comes. What is there can still be read.
    pub fn end(self: &Arc<Self>) {
        let mut state = self.state();
        state.done = true;
        if let Some(disk) = &mut state.disk {
            disk.note(self);
        }
        drop(state);
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

    async fn next(self: &Arc<Self>, me: u64, at: u64) -> Option<(u64, Bytes)> {
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
                    if number > state.read {
                        state.read = number;
                        if let Some(disk) = &mut state.disk {
                            disk.note_read(self);
                        }
                    }
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

/// A number above all that were given out in earlier runs.
pub fn later() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) << 20
}

/// The stream and the event that an id of ours names.
pub fn parse_id(id: &str) -> Option<(u64, u64)> {
    let (stream, event) = id.split_once('-')?;
    Some((stream.parse().ok()?, event.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{
        kept::Note,
        saved::{Noted, journal},
    };

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

    /// A stream of a session that is kept, and where its notes come to.
    fn kept(request: Option<&'static str>) -> (Arc<Stream>, Noted) {
        let (journal, noted) = journal();
        let stream = Stream::new(7);
        let keeping = Keeping { session: "s".into(), journal };
        stream.keep(Arc::new(keeping), request.map(|id| Bytes::from_static(id.as_bytes())));
        (stream, noted)
    }

    /// The numbers of events that a change writes, and from which on older ones are dropped.
    fn written(change: Option<Change>) -> Option<(Vec<u64>, Option<u64>, bool)> {
        match change? {
            Change::Keep { stream, forgotten, .. } => {
                Some((stream.events.iter().map(|(number, _)| *number).collect(), forgotten, stream.done))
            }
            Change::Forget { .. } => None,
        }
    }

    #[tokio::test]
    async fn a_stream_that_was_read_to_its_end_costs_the_disk_nothing() {
        let (stream, mut noted) = kept(Some("1"));
        for _ in 0..100 {
            stream.push(Bytes::from_static(b"x"));
        }
        stream.end();
        assert_eq!(all(&stream, Some(0)).await.len(), 100);
        assert!(noted.streams.try_recv().is_ok() && noted.streams.try_recv().is_err(), "it is noted once");
        assert_eq!(stream.change(), None);
        stream.forget();
        assert!(noted.streams.try_recv().is_err(), "there is nothing to forget");
    }

    #[tokio::test]
    async fn the_disk_is_told_of_what_is_new_and_of_what_is_forgotten() {
        let (stream, mut noted) = kept(Some("1"));
        let mut is_noted = || std::iter::from_fn(|| noted.streams.try_recv().ok()).count();
        assert_eq!(is_noted(), 1, "a client may come back for it before its first event");
        assert_eq!(written(stream.change()), Some((vec![], None, false)));
        stream.push(Bytes::from_static(b"a"));
        stream.push(Bytes::from_static(b"b"));
        assert_eq!(is_noted(), 1);
        assert_eq!(written(stream.change()), Some((vec![1, 2], None, false)));
        assert_eq!(stream.change(), None);
        stream.push(Bytes::from_static(b"c"));
        assert_eq!((is_noted(), written(stream.change())), (1, Some((vec![3], None, false))));
        let read: Vec<_> = stream.follow(Some(0)).take(3).collect().await;
        assert_eq!((read.len(), is_noted()), (3, 1), "what is on disk and was read is noted too");
        for _ in 0..MOST_EVENTS * UNREAD {
            stream.push(Bytes::from_static(b"x"));
        }
        let (events, forgotten, _) = written(stream.change()).unwrap();
        assert_eq!((events.len(), forgotten), (MOST_EVENTS * UNREAD, Some(4)));
        stream.end();
        assert_eq!(written(stream.change()), Some((vec![], None, true)));
        assert_eq!(all(&stream, Some(0)).await.len(), MOST_EVENTS * UNREAD);
        assert!(matches!(stream.change(), Some(Change::Forget { number: 7, .. })));
        assert_eq!(stream.change(), None);
    }

    #[tokio::test]
    async fn a_stream_goes_on_after_a_restart_with_later_numbers() {
        let (journal, _noted) = journal();
        let keeping = Arc::new(Keeping { session: "s".into(), journal });
        let events = vec![(2, Bytes::from_static(b"b")), (3, Bytes::from_static(b"c"))];
        let kept = Kept { number: 7, request: None, done: false, read: 2, events };
        let stream = Stream::resumed(kept, keeping);
        assert_eq!(stream.change(), None, "the disk knows it");
        stream.push(Bytes::from_static(b"d"));
        let (events, ..) = written(stream.change()).unwrap();
        assert!(events.len() == 1 && events[0] > 1 << 40);
        stream.end();
        let d = format!("{}d", events[0]);
        assert_eq!(all(&stream, None).await, ["3c", &d]);
        assert_eq!(all(&stream, Some(1)).await, ["2b", "3c", &d]);
        assert_eq!(all(&stream, Some(99)).await, [d], "one that the disk had not heard of in time");
    }

    #[tokio::test]
    async fn a_stream_that_is_paused_is_kept_as_it_is() {
        let (stream, mut noted) = kept(Some("1"));
        stream.push(Bytes::from_static(b"a"));
        noted.streams.try_recv().unwrap();
        stream.pause();
        let Ok(Note::Change(change)) = noted.streams.try_recv() else { panic!("it is not kept") };
        assert_eq!(written(Some(change)), Some((vec![1], None, false)));
        stream.push(Bytes::from_static(b"b"));
        assert_eq!(all(&stream, None).await, ["1a"]);
        assert!(noted.streams.try_recv().is_err());
    }
}
