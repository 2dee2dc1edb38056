//! What of a stream is to be on disk, and what is there already?
//!
//! Noting must cost a call nothing: a stream that has changed says so once, and is looked at a
//! little later by whoever keeps it. Most have ended and were read by then, and need no place
//! on the disk at all.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{replay::Stream, saved::Journal};

/// A stream in a form that can be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    pub number: u64,
    /// The JSON-RPC id of the request it answers; none for a session's own stream.
    pub request: Option<Bytes>,
    /// Has the last event come?
    pub done: bool,
    /// Up to which event somebody has read.
    pub read: u64,
    /// With their numbers. In a [`Change`] they are those that are new.
    pub events: Vec<(u64, Bytes)>,
}

/// What is to be changed on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Keep {
        session: String,
        stream: Kept,
        /// Events before this one are not needed any more.
        forgotten: Option<u64>,
    },
    /// Nothing of this stream is needed any more.
    Forget { session: String, number: u64 },
}

/// What streams have to say to whoever keeps them.
#[derive(Debug)]
pub enum Note {
    /// It has changed; what of it is to be kept is asked later, if it is still there then.
    Changed(Weak<Stream>),
    Change(Change),
    /// Wants to know when everything before it is on disk.
    Flush(oneshot::Sender<()>),
}

/// Where a session's streams are kept.
#[derive(Debug)]
pub struct Keeping {
    pub session: String,
    pub journal: Journal,
}

/// What is on disk of one stream.
#[derive(Debug)]
pub struct Disk {
    keeping: Arc<Keeping>,
    request: Option<Bytes>,
    /// It was said that there is something new.
    noted: bool,
    row: Option<Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    done: bool,
    read: u64,
    first: u64,
    last: u64,
}

impl Disk {
    pub fn new(keeping: Arc<Keeping>, request: Option<Bytes>) -> Self {
        Self { keeping, request, noted: false, row: None }
    }

    /// Of a stream that was kept by an earlier run.
    pub fn with(keeping: Arc<Keeping>, kept: &Kept) -> Self {
        let number = |event: Option<&(u64, Bytes)>| event.map_or(0, |(number, _)| *number);
        let (first, last) = (number(kept.events.first()), number(kept.events.last()));
        let row = Row { done: kept.done, read: kept.read, first, last };
        Self { keeping, request: kept.request.clone(), noted: false, row: Some(row) }
    }

    pub fn note(&mut self, stream: &Arc<Stream>) {
        if !self.noted {
            self.noted = true;
            self.keeping.journal.stream(Note::Changed(Arc::downgrade(stream)));
        }
    }

    /// Notes that it was read, which is of interest if the disk knows of it.
    pub fn note_read(&mut self, stream: &Arc<Stream>) {
        if self.row.is_some() {
            self.note(stream);
        }
    }

    /// What has changed since this was asked last. The caller sees to it that the disk is told.
    pub fn change(
        &mut self,
        number: u64,
        events: &VecDeque<(u64, Bytes)>,
        read: u64,
        done: bool,
    ) -> Option<Change> {
        self.noted = false;
        let session = self.keeping.session.clone();
        let last = events.back().map_or(0, |(number, _)| *number);
        if done && last <= read {
            self.row.take()?;
            return Some(Change::Forget { session, number });
        }
        let first = events.front().map_or(0, |(number, _)| *number);
        let row = Row { done, read, first, last };
        let nothing = events.is_empty() && self.request.is_none();
        if self.row == Some(row) || (self.row.is_none() && nothing) {
            return None;
        }
        let before = self.row.replace(row);
        let known = before.map_or(0, |before| before.last);
        let new = events.partition_point(|(number, _)| *number <= known);
        let events = events.range(new..).cloned().collect();
        let forgotten = before.filter(|before| before.first < first && before.last > 0).map(|_| first);
        let request = self.request.clone();
        Some(Change::Keep { session, stream: Kept { number, request, done, read, events }, forgotten })
    }

    /// Tells the disk to forget the stream, if it knows of it.
    pub fn forget(self, number: u64) {
        if self.row.is_some() {
            let session = self.keeping.session.clone();
            self.keeping.journal.stream(Note::Change(Change::Forget { session, number }));
        }
    }

    /// Has the last change kept.
    pub fn close(mut self, number: u64, events: &VecDeque<(u64, Bytes)>, read: u64, done: bool) {
        if let Some(change) = self.change(number, events, read, done) {
            self.keeping.journal.stream(Note::Change(change));
        }
    }
}
