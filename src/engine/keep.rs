//! How does what is noted while the gateway runs get to disk, and back at the next start?

use std::time::Duration;

use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until},
};

use super::Stack;
use crate::{
    listener::{
        Front,
        kept::{Change, Kept, Note},
        saved::{Noted, Record},
    },
    store::{self, Store, UsedState},
};

/// How long a stream that has changed is left alone, and up to twice as long: nearly all are read
/// and done by then.
const AFTER: Duration = Duration::from_millis(50);

/// Goes on with the sessions of the last run.
pub async fn restore(store: &Store, front: &Front<Stack>) {
    let mut streams = store.streams().await;
    for (id, text) in store.sessions().await {
        if let Ok(record) = serde_json::from_str(&text) {
            let streams = streams.remove(&id).unwrap_or_default();
            front.restore(id, &record, streams.into_iter().map(restored).collect());
        }
    }
}

/// Keeps what is noted of sessions and used states at once, and of streams a little later; as
/// many together as have come.
pub async fn keep(store: Store, mut noted: Noted, mut noted_used: UnboundedReceiver<UsedState>) {
    const AT_ONCE: usize = 1000;
    let (mut sessions, mut used) = (Vec::new(), Vec::new());
    // Notes that came since it was kept last, and those that came before.
    let (mut young, mut old) = (Vec::new(), Vec::new());
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            _ = noted.sessions.recv_many(&mut sessions, AT_ONCE), if !noted.sessions.is_closed() => {
                keep_sessions(&store, &mut sessions).await;
            }
            _ = noted_used.recv_many(&mut used, AT_ONCE), if !noted_used.is_closed() => {
                store.keep_used(&used).await;
                used.clear();
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                // No stream comes before its session.
                while let Ok(session) = noted.sessions.try_recv() {
                    sessions.push(session);
                }
                keep_sessions(&store, &mut sessions).await;
                while let Ok(note) = noted.streams.try_recv() {
                    young.push(note);
                }
                if young.iter().any(|note| matches!(note, Note::Flush(_))) {
                    old.append(&mut young);
                }
                keep_streams(&store, old).await;
                old = std::mem::take(&mut young);
                due = (!old.is_empty()).then(|| Instant::now() + AFTER);
            }
            Some(note) = noted.streams.recv(), if due.is_none() => {
                young.push(note);
                due = Some(Instant::now() + AFTER);
            }
            else => return,
        }
    }
}

async fn keep_sessions(store: &Store, noted: &mut Vec<(String, Option<Record>)>) {
    if noted.is_empty() {
        return;
    }
    let text = |record: Option<Record>| record.and_then(|record| serde_json::to_string(&record).ok());
    let sessions: Vec<_> = noted.drain(..).map(|(id, record)| (id, text(record))).collect();
    store.keep_sessions(&sessions).await;
}

async fn keep_streams(store: &Store, notes: Vec<Note>) {
    let mut changes = Vec::new();
    let mut waiting = Vec::new();
    for note in notes {
        match note {
            Note::Changed(stream) => changes.extend(stream.upgrade().and_then(|stream| stream.change())),
            Note::Change(change) => changes.push(change),
            Note::Flush(done) => waiting.push(done),
        }
    }
    if !changes.is_empty() {
        let changes: Vec<_> = changes.into_iter().map(kept).collect();
        store.keep_streams(&changes).await;
    }
    for done in waiting {
        let _ = done.send(()); // Whoever asked may not wait any more.
    }
}

fn kept(change: Change) -> store::Change {
    match change {
        Change::Keep { session, stream, forgotten } => {
            let Kept { number, request, done, read, events } = stream;
            let stream = store::Stream { number, request, done, read, events };
            store::Change::Keep { session, stream, forgotten }
        }
        Change::Forget { session, number } => store::Change::Forget { session, number },
    }
}

fn restored(stream: store::Stream) -> Kept {
    let store::Stream { number, request, done, read, events } = stream;
    Kept { number, request, done, read, events }
}
