//! What do clients older than 2026-07-28 expect us to remember?
//!
//! Their revision and capabilities, said once; how much of the log they want; which of their
//! requests are under way, so that they can be cancelled; and what was sent to them lately.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration as Time, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{sync::oneshot, task::AbortHandle};

mod table; //     all sessions
mod under_way; // requests and questions without an answer yet

pub use table::{Mode, Sessions, Settings};
use under_way::Id;
pub use under_way::{Cancelled, Question, UnderWay};

use super::{
    kept::{Keeping, Kept},
    replay::{self, Stream},
    saved::{Journal, Record},
};
use crate::{
    call::{self, Caller, Client, Event, Events, Scope},
    error::{Error, Result},
    wire::{
        mcp::{Era, Level},
        message::Message,
    },
};

/// Resources that a session may watch.
const SUBSCRIPTIONS: usize = 1024;
/// Streams that have ended and could still be asked for.
const ENDED_STREAMS: usize = 16;

/// One client's session.
#[derive(Debug)]
pub struct Session {
    pub id: String,
    caller: Mutex<Caller>,
    pub scope: Scope,
    /// What backends know of it.
    pub mark: call::Session,
    /// Set by `initialize`.
    client: OnceLock<Client>,
    begun: Instant,
    /// Milliseconds after `begun` of the last request.
    used: AtomicU64,
    state: Mutex<State>,
    /// The session's own stream, number 0.
    pub own: Arc<Stream>,
    next_stream: AtomicU64,
    /// None if it ends with this run.
    keeping: Option<Arc<Keeping>>,
}

#[derive(Debug, Default)]
struct State {
    level: Option<Level>,
    /// Requests under way by id, and what ends them until it has been used.
    in_flight: BTreeMap<Id, Option<oneshot::Sender<()>>>,
    streams: VecDeque<(u64, Arc<Stream>)>,
    /// What the client was asked, by the ids of our requests.
    questions: HashMap<u64, oneshot::Sender<Message>>,
    last_question: u64,
    /// Tasks that tell of changes, by the resource that is watched.
    watched: HashMap<String, AbortHandle>,
}

impl Session {
    fn new(id: String, caller: Caller, scope: Scope, own: Arc<Stream>) -> Self {
        let to_client = Arc::clone(&own);
        Self {
            id,
            caller: Mutex::new(caller),
            scope,
            mark: call::Session::new(move |text| to_client.push(text)),
            client: OnceLock::new(),
            begun: Instant::now(),
            used: AtomicU64::new(0),
            state: Mutex::default(),
            own,
            next_stream: AtomicU64::new(1),
            keeping: None,
        }
    }

    /// Whose it is, with what their newest token says of them.
    pub fn caller(&self) -> Caller {
        self.caller.lock().expect("no code panics while it holds this lock").clone()
    }

    /// Is it this caller's? Then what their token says now is what holds.
    fn is_of(&self, caller: &Caller) -> bool {
        let mut own = self.caller.lock().expect("no code panics while it holds this lock");
        let same = *own == *caller;
        if same && matches!(caller, Caller::Known(_)) {
            *own = caller.clone();
        }
        same
    }

    /// From now on it is kept over restarts.
    fn keep(&mut self, journal: Journal) {
        let keeping = Arc::new(Keeping { session: self.id.clone(), journal });
        self.own.keep(Arc::clone(&keeping), None);
        self.keeping = Some(keeping);
    }

    /// Goes on with what an earlier run knew. Of requests that were under way then, nobody knows
    /// how they ended.
    fn resume(&mut self, level: Option<Level>, streams: Vec<Kept>, keeping: Arc<Keeping>) {
        let mut state = self.state();
        state.level = level;
        // An answer to a question of earlier must not be taken for one to a question of now.
        state.last_question = replay::later();
        for kept in streams {
            let (number, done, request) = (kept.number, kept.done, kept.request.clone());
            let stream = Stream::resumed(kept, Arc::clone(&keeping));
            if !done {
                stream.push(Error::Restarted.response(request.as_deref(), Era::Legacy).into());
                stream.end();
            }
            state.streams.push_back((number, stream));
        }
        drop(state);
        self.next_stream = AtomicU64::new(replay::later() + 1);
        self.keeping = Some(keeping);
    }

    /// Has noted what has changed, if it is to be known after a restart.
    fn note(&self, state: &State) {
        if let (Some(keeping), Some(client)) = (&self.keeping, self.client()) {
            let watched = state.watched.keys().cloned().collect();
            let record = Record::new(self.caller(), &self.scope, client, state.level, watched);
            keeping.journal.session(self.id.clone(), Some(record));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// The client as it introduced itself, once it has.
    pub fn client(&self) -> Option<&Client> {
        self.client.get()
    }

    /// Takes the introduction; false if there was one before.
    pub fn introduce(&self, client: Client) -> bool {
        let new = self.client.set(client).is_ok();
        if new {
            self.note(&self.state());
        }
        new
    }

    /// Notes that the client is there.
    pub fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(now, Ordering::Relaxed);
    }

    fn idle_for(&self) -> Time {
        self.begun.elapsed().saturating_sub(Time::from_millis(self.used.load(Ordering::Relaxed)))
    }

    pub fn level(&self) -> Option<Level> {
        self.state().level
    }

    pub fn set_level(&self, level: Level) {
        let mut state = self.state();
        state.level = Some(level);
        self.note(&state);
    }

    /// Passes on what a subscription to a resource tells, until it is given up.
    pub fn subscribe(&self, uri: String, mut events: Events) -> Result<()> {
        let mut state = self.state();
        if state.watched.len() >= SUBSCRIPTIONS && !state.watched.contains_key(&uri) {
            return Err(Error::Busy(format!("a session may watch {SUBSCRIPTIONS} resources, not more")));
        }
        let own = Arc::clone(&self.own);
        let task = tokio::spawn(async move {
            while let Some(Ok(Event::Notification(text))) = events.next().await {
                own.push(text);
            }
        });
        let before = state.watched.insert(uri, task.abort_handle());
        before.inspect(AbortHandle::abort);
        self.note(&state);
        Ok(())
    }

    pub fn unsubscribe(&self, uri: &str) {
        let mut state = self.state();
        state.watched.remove(uri).inspect(AbortHandle::abort);
        self.note(&state);
    }

    /// A new stream for the messages of the request with this id.
    pub fn open_stream(&self, request: &[u8]) -> Arc<Stream> {
        let number = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let stream = Stream::new(number);
        if let Some(keeping) = &self.keeping {
            stream.keep(Arc::clone(keeping), Some(Bytes::copy_from_slice(request)));
        }
        let mut state = self.state();
        state.streams.push_back((number, Arc::clone(&stream)));
        while state.streams.iter().filter(|(_, stream)| stream.is_done()).count() > ENDED_STREAMS {
            let oldest = state.streams.iter().position(|(_, stream)| stream.is_done());
            let oldest = oldest.and_then(|at| state.streams.remove(at));
            oldest.inspect(|(_, stream)| stream.forget());
        }
        stream
    }

    pub fn stream(&self, number: u64) -> Option<Arc<Stream>> {
        if number == 0 {
            return Some(Arc::clone(&self.own));
        }
        let state = self.state();
        state.streams.iter().find(|(other, _)| *other == number).map(|(_, stream)| Arc::clone(stream))
    }

    /// Nothing more comes of this session: its requests are cancelled, its streams end.
    pub fn end(&self) {
        self.mark.end();
        self.end_with(|stream| {
            stream.end();
            stream.forget();
        });
    }

    /// The same for this run. The next goes on with it.
    fn pause(&self) {
        self.end_with(|stream| stream.pause());
    }

    fn end_with(&self, end: impl Fn(&Arc<Stream>)) {
        end(&self.own);
        let mut state = self.state();
        // Before the requests end, so that theirs are not taken for answered.
        state.streams.iter().for_each(|(_, stream)| end(stream));
        state.in_flight.values_mut().for_each(|cancel| *cancel = None);
        state.watched.drain().for_each(|(_, task)| task.abort());
    }
}
