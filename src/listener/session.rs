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
use dashmap::DashMap;
use futures_util::StreamExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, task::AbortHandle};

use super::{
    replay::Stream,
    saved::{Journal, Record},
};
use crate::{
    call::{self, Caller, Client, Event, Events, Scope},
    error::{Error, Result},
    settings::Duration,
    wire::{mcp::Level, message::Message},
};

/// `[session]`: what is kept for clients that speak a revision older than 2026-07-28.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether each client has a session of its own, or clients that bring no session id share
    /// one that begins anew when it was idle. The latter is for a gateway embedded behind a
    /// service that speaks for one client.
    pub mode: Mode,
    /// After how long without a request a session ends.
    pub idle: Duration,
    /// How many sessions there may be. One more is refused with 503.
    pub max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each client has a session of its own.
    #[default]
    PerClient,
    /// Clients that bring no session id share one.
    Single,
}

impl Default for Settings {
    fn default() -> Self {
        Self { mode: Mode::PerClient, idle: Duration::seconds(30 * 60), max: 10_000 }
    }
}

/// Resources that a session may watch.
const SUBSCRIPTIONS: usize = 1024;
/// Streams that have ended and could still be asked for.
const ENDED_STREAMS: usize = 16;

/// One client's session.
#[derive(Debug)]
pub struct Session {
    pub id: String,
    pub caller: Caller,
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
    journal: Option<Journal>,
}

#[derive(Debug, Default)]
struct State {
    level: Option<Level>,
    /// Requests under way by id, and what ends them until it has been used.
    in_flight: BTreeMap<Bytes, Option<oneshot::Sender<()>>>,
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
            caller,
            scope,
            mark: call::Session::new(move |text| to_client.push(text)),
            client: OnceLock::new(),
            begun: Instant::now(),
            used: AtomicU64::new(0),
            state: Mutex::default(),
            own,
            next_stream: AtomicU64::new(1),
            journal: None,
        }
    }

    /// Has noted what has changed, if it is to be known after a restart.
    fn note(&self, state: &State) {
        if let (Some(journal), Some(client)) = (&self.journal, self.client()) {
            let watched = state.watched.keys().cloned().collect();
            let record = Record::new(&self.scope, client, state.level, watched);
            let _ = journal.send((self.id.clone(), Some(record))); // Fails when the gateway ends.
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

    /// Notes that a request is under way, and gives what its client's cancelling ends. Refuses
    /// an id that another has just now.
    pub fn begin(self: &Arc<Self>, id: Bytes) -> Result<(UnderWay, Cancelled)> {
        let (cancel, cancelled) = oneshot::channel();
        let mut state = self.state();
        if state.in_flight.contains_key(&id) {
            return Err(Error::NotRpc { what: "a request with this id is under way already", id: Some(id) });
        }
        // Its own copy: the text it was cut from may be large.
        let id = Bytes::copy_from_slice(&id);
        state.in_flight.insert(id.clone(), Some(cancel));
        drop(state);
        let session = Arc::clone(self);
        Ok((UnderWay { id, session }, cancelled))
    }

    /// How many requests are under way.
    pub fn busy(&self) -> usize {
        self.state().in_flight.len()
    }

    /// Ends a request of the client's, if it is under way.
    pub fn cancel(&self, id: &[u8]) {
        self.state().in_flight.get_mut(id).and_then(Option::take);
    }

    /// A new id for a request of ours to the client, and what its response comes to.
    pub fn question(self: &Arc<Self>) -> (u64, Question) {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        // Those that nobody waits for any more make room.
        state.questions.retain(|_, sender| !sender.is_closed());
        state.last_question += 1;
        let id = state.last_question;
        state.questions.insert(id, sender);
        (id, answer)
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

    /// A response of the client's. One to nothing we asked is of no interest.
    pub fn answered(&self, message: Message) {
        self.touch();
        let id = message.id().and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        let waiting = id.and_then(|id: u64| self.state().questions.remove(&id));
        if let Some(waiting) = waiting {
            let _ = waiting.send(message); // Fails if the call has ended meanwhile.
        }
    }

    /// A new stream for a request's messages.
    pub fn open_stream(&self) -> Arc<Stream> {
        let number = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let stream = Stream::new(number);
        let mut state = self.state();
        state.streams.push_back((number, Arc::clone(&stream)));
        while state.streams.iter().filter(|(_, stream)| stream.is_done()).count() > ENDED_STREAMS {
            let oldest = state.streams.iter().position(|(_, stream)| stream.is_done());
            oldest.map(|at| state.streams.remove(at));
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
        self.own.end();
        let mut state = self.state();
        state.in_flight.values_mut().for_each(|cancel| *cancel = None);
        state.streams.iter().for_each(|(_, stream)| stream.end());
        state.watched.drain().for_each(|(_, task)| task.abort());
    }
}

/// The client's response to a question, or an error if there will be none.
pub type Question = oneshot::Receiver<Message>;

/// Is done, with an error, when the client has cancelled its request.
pub type Cancelled = oneshot::Receiver<()>;

/// A request under way, until this is dropped.
#[derive(Debug)]
pub struct UnderWay {
    id: Bytes,
    session: Arc<Session>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.session.touch();
        self.session.state().in_flight.remove(&self.id);
    }
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    table: DashMap<String, Arc<Session>>,
    settings: Settings,
    journal: Option<Journal>,
}

/// The name of the one session in mode `single`; no id we make looks like it.
const SINGLE: &str = "single";

impl Sessions {
    pub fn new(settings: Settings, journal: Option<Journal>) -> Arc<Self> {
        Arc::new(Self { table: DashMap::new(), settings, journal })
    }

    /// A session of an earlier run, unless there are too many.
    pub fn restore(&self, id: String, caller: Caller, record: &Record) -> Option<Arc<Session>> {
        let client = record.client().filter(|_| self.table.len() < self.settings.max)?;
        let mut session = Session::new(id.clone(), caller, record.scope(), Stream::resumed());
        session.introduce(client);
        session.state().level = record.level();
        session.journal = self.journal.clone();
        let session = Arc::new(session);
        self.table.insert(id, Arc::clone(&session));
        Some(session)
    }

    fn forget(&self, id: &str) {
        if let Some(journal) = &self.journal {
            let _ = journal.send((id.to_owned(), None)); // Fails when the gateway ends.
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// A new session, unless there are too many. `own` is the stream for what belongs to no
    /// request; a pipe has no other.
    pub fn open(&self, caller: Caller, scope: Scope, own: Arc<Stream>) -> Result<Arc<Session>> {
        if self.table.len() >= self.settings.max {
            self.sweep();
        }
        if self.table.len() >= self.settings.max {
            return Err(Error::Busy(format!(
                "there are {} sessions, which is the most; try again later",
                self.settings.max
            )));
        }
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|_| Error::Busy("no random numbers to be had".into()))?;
        let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut session = Session::new(id.clone(), caller, scope, own);
        if !session.own.is_pipe() {
            session.journal = self.journal.clone(); // A pipe ends with us, and its session with it.
        }
        let session = Arc::new(session);
        self.table.insert(id, Arc::clone(&session));
        Ok(session)
    }

    /// The session of this id, if it is this caller's and of this endpoint. One of another
    /// caller is as unknown as one that never was.
    pub fn find(&self, id: &str, caller: &Caller, scope: &Scope) -> Option<Arc<Session>> {
        let session = Arc::clone(&*self.table.get(id)?);
        if session.caller != *caller || session.scope != *scope {
            return None;
        }
        session.touch();
        Some(session)
    }

    /// A session by its id alone, for the old transport, whose address is the id.
    pub fn by_address(&self, id: &str, caller: &Caller) -> Option<Arc<Session>> {
        let session = Arc::clone(&*self.table.get(id)?);
        (session.caller == *caller).then(|| {
            session.touch();
            session
        })
    }

    /// The session of clients that bring no id, in mode `single`; begun anew if it was idle.
    pub fn single(&self, caller: &Caller, scope: &Scope) -> Arc<Session> {
        let key = format!("{SINGLE} {scope:?}");
        let entry = self.table.entry(key.clone());
        let new = || Arc::new(Session::new(key, caller.clone(), scope.clone(), Stream::new(0)));
        let mut session = entry.or_insert_with(new);
        if session.idle_for() > self.settings.idle.0 {
            session.end();
            *session =
                Arc::new(Session::new(session.id.clone(), caller.clone(), scope.clone(), Stream::new(0)));
        }
        session.touch();
        Arc::clone(&session)
    }

    /// In mode `single`, `initialize` begins the session anew.
    pub fn renew_single(&self, caller: &Caller, scope: &Scope) -> Arc<Session> {
        self.close(&format!("{SINGLE} {scope:?}"));
        self.single(caller, scope)
    }

    pub fn close(&self, id: &str) {
        if let Some((_, session)) = self.table.remove(id) {
            session.end();
            self.forget(id);
        }
    }

    /// Ends all of them for this run. Those that are kept go on in the next.
    pub fn close_all(&self) {
        self.table.retain(|_, session| {
            session.end();
            false
        });
    }

    /// Ends sessions that have been idle too long. One with a request under way is not idle, and
    /// one on a pipe ends with its pipe: its client has no way to begin another.
    pub fn sweep(&self) {
        let idle = self.settings.idle.0;
        self.table.retain(|id, session| {
            let at_work = !session.state().in_flight.is_empty();
            let keep = session.idle_for() <= idle || at_work || session.own.is_pipe();
            if !keep {
                session.end();
                self.forget(id);
            }
            keep
        });
    }

    /// Puts a message on the own stream of every session.
    pub fn tell_all(&self, text: &Bytes) {
        for session in &self.table {
            if session.client().is_some() {
                session.own.push(text.clone());
            }
        }
    }

    /// How often to sweep: often enough that `idle` means what it says.
    pub fn sweep_every(&self) -> Time {
        (self.settings.idle.0 / 4).clamp(Time::from_millis(100), Time::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn sessions(max: usize, idle: Time) -> Arc<Sessions> {
        Sessions::new(Settings { max, idle: Duration(idle), ..Settings::default() }, None)
    }

    #[test]
    fn a_session_is_found_by_its_own_caller_at_its_own_endpoint_only() {
        let sessions = sessions(9, Time::from_secs(60));
        let session = sessions.open(Caller::Local, Scope::All, Stream::new(0)).unwrap();
        assert!(sessions.find(&session.id, &Caller::Local, &Scope::All).is_some());
        assert!(sessions.find(&session.id, &Caller::Gateway, &Scope::All).is_none());
        assert!(sessions.find(&session.id, &Caller::Local, &Scope::One("a".into())).is_none());
        assert!(sessions.find("0", &Caller::Local, &Scope::All).is_none());
    }

    #[test]
    fn their_number_is_bounded_and_idle_ones_make_room() {
        let sessions = sessions(2, Time::ZERO);
        let first = sessions.open(Caller::Local, Scope::All, Stream::new(0)).unwrap();
        let pending = first.begin(Bytes::from_static(b"1")).unwrap();
        sessions.open(Caller::Local, Scope::All, Stream::new(0)).unwrap();
        std::thread::yield_now();
        let third = sessions.open(Caller::Local, Scope::All, Stream::new(0));
        assert!(third.is_ok() && sessions.len() == 2, "the idle one made room, the busy one stays");
        drop(pending);
    }

    #[test]
    fn a_request_can_be_cancelled_while_it_is_under_way() {
        let sessions = sessions(2, Time::from_secs(60));
        let session = sessions.open(Caller::Local, Scope::All, Stream::new(0)).unwrap();
        let (under_way, mut cancelled) = session.begin(Bytes::from_static(b"\"a\"")).unwrap();
        assert!(session.begin(Bytes::from_static(b"\"a\"")).is_err(), "an id is one request's at a time");
        session.cancel(b"\"b\"");
        assert_eq!(cancelled.try_recv(), Err(TryRecvError::Empty));
        session.cancel(b"\"a\"");
        assert_eq!(cancelled.try_recv(), Err(TryRecvError::Closed));
        drop(under_way);
        assert!(session.begin(Bytes::from_static(b"\"a\"")).is_ok());
    }
}
