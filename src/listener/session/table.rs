//! Which sessions are there, and when does one end?

use std::{sync::Arc, time::Duration as Time};

use bytes::Bytes;
use dashmap::DashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Session;
use crate::{
    call::{Caller, Scope},
    error::{Error, Result},
    listener::{
        kept::{Keeping, Kept, Note},
        replay::Stream,
        saved::{Journal, Record},
    },
    settings::Duration,
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

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    /// The ids are ours.
    table: DashMap<String, Arc<Session>, foldhash::fast::RandomState>,
    settings: Settings,
    journal: Option<Journal>,
}

/// The name of the one session in mode `single`; no id we make looks like it.
const SINGLE: &str = "single";

impl Sessions {
    pub fn new(settings: Settings, journal: Option<Journal>) -> Arc<Self> {
        Arc::new(Self { table: DashMap::default(), settings, journal })
    }

    /// A session of an earlier run with its streams, unless there are too many.
    pub fn restore(&self, id: String, record: &Record, mut streams: Vec<Kept>) -> Option<Arc<Session>> {
        let client = record.client().filter(|_| self.table.len() < self.settings.max)?;
        let keeping = Arc::new(Keeping { session: id.clone(), journal: self.journal.clone()? });
        let own = streams.iter().position(|stream| stream.number == 0);
        let own = own.map(|at| streams.swap_remove(at)).unwrap_or_default();
        let own = Stream::resumed(own, Arc::clone(&keeping));
        let mut session = Session::new(id.clone(), record.caller.clone(), record.scope(), own);
        session.introduce(client);
        session.resume(record.level(), streams, keeping);
        let session = Arc::new(session);
        self.table.insert(id, Arc::clone(&session));
        Some(session)
    }

    fn forget(&self, id: &str) {
        if let Some(journal) = &self.journal {
            journal.session(id.to_owned(), None);
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
        // A pipe ends with us, and its session with it.
        if let Some(journal) = self.journal.clone().filter(|_| !session.own.is_pipe()) {
            session.keep(journal);
        }
        let session = Arc::new(session);
        self.table.insert(id, Arc::clone(&session));
        Ok(session)
    }

    /// The session of this id, if it is this caller's and of this endpoint. One of another
    /// caller is as unknown as one that never was.
    pub fn find(&self, id: &str, caller: &Caller, scope: &Scope) -> Option<Arc<Session>> {
        let session = Arc::clone(&*self.table.get(id)?);
        if session.scope != *scope || !session.is_of(caller) {
            return None;
        }
        session.touch();
        Some(session)
    }

    /// A session by its id alone, for the old transport, whose address is the id.
    pub fn by_address(&self, id: &str, caller: &Caller) -> Option<Arc<Session>> {
        let session = Arc::clone(&*self.table.get(id)?);
        session.is_of(caller).then(|| {
            session.touch();
            session
        })
    }

    /// The session of clients that bring no id, in mode `single`; begun anew if it was idle.
    pub fn single(&self, caller: &Caller, scope: &Scope) -> Arc<Session> {
        let key = format!("{SINGLE} {} {scope:?}", caller.name());
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
        self.close(&format!("{SINGLE} {} {scope:?}", caller.name()));
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
            session.pause();
            false
        });
    }

    /// Waits until what was noted of sessions and their streams is on disk.
    pub async fn kept(&self) {
        let (done, kept) = oneshot::channel();
        if let Some(journal) = &self.journal {
            journal.stream(Note::Flush(done));
            let _ = kept.await; // Fails if nobody keeps anything.
        }
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

    /// Puts messages on the own stream of each session, by whose it is and where.
    pub fn tell_each(&self, texts: impl Fn(Caller, &Scope) -> Vec<Bytes>) {
        for session in &self.table {
            if session.client().is_some() {
                texts(session.caller(), &session.scope).into_iter().for_each(|text| session.own.push(text));
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
    use futures_util::StreamExt as _;

    use super::*;
    use crate::{
        listener::{
            kept::Change,
            legacy::nobody,
            saved::{Noted, journal},
        },
        wire::mcp::{Level, Revision},
    };

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

    /// A session of an earlier run, with this stream of a request's.
    fn restored(request: Kept) -> (Arc<Session>, Noted) {
        let (journal, noted) = journal();
        let sessions = Sessions::new(Settings::default(), Some(journal));
        let client = nobody(Revision::NEWEST_LEGACY);
        let record = Record::new(Caller::Local, &Scope::All, &client, Some(Level::Info), Vec::new());
        let session = sessions.restore("a".into(), &record, vec![request]).unwrap();
        (session, noted)
    }

    #[tokio::test]
    async fn nothing_of_a_new_run_is_taken_for_something_of_an_earlier_one() {
        let missed = vec![(4, Bytes::from_static(b"missed"))];
        let id = Some(Bytes::from_static(b"\"x\""));
        let kept = Kept { number: 3, request: id, done: false, read: 3, events: missed };
        let (session, _noted) = restored(kept);
        assert_eq!(session.level(), Some(Level::Info));
        assert!(session.question().0 > 1 << 40);
        let new = session.open_stream(b"1");
        let first = new.opening();
        let number = std::str::from_utf8(&first).unwrap().strip_prefix("id: ").unwrap();
        assert!(number.split_once('-').unwrap().0.parse::<u64>().unwrap() > 1 << 40, "{number}");
        let events: Vec<_> = session.stream(3).unwrap().follow(None).collect().await;
        let [(4, missed), (later, answer)] = &events[..] else { panic!("{events:?}") };
        assert!(
            missed == "missed"
                && *later > 1 << 40
                && answer.starts_with(b"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"error\"")
        );
    }

    #[test]
    fn of_streams_that_ended_the_disk_keeps_no_more_than_the_memory() {
        let kept = |number| Kept { number, done: true, events: vec![(1, Bytes::new())], ..Kept::default() };
        let (session, mut noted) = restored(kept(3));
        for _ in 0..20 {
            session.open_stream(b"1").end();
        }
        let notes = std::iter::from_fn(|| noted.streams.try_recv().ok());
        let changes: Vec<_> = notes.filter(|note| matches!(note, Note::Change(_))).collect();
        let [Note::Change(Change::Forget { session: of, number: 3 })] = &changes[..] else {
            panic!("{changes:?}")
        };
        assert_eq!((of.as_str(), session.stream(3).is_none()), ("a", true));
    }
}
