//! An MCP server, over whatever connects us to it, of whatever era.
//!
//! Inside the gateway a backend answers self-contained calls. This is where that is made true
//! of a server: it is connected to when first needed, asked which era it speaks, greeted if it
//! wants a handshake, and asked again when a connection was lost.
//!
//! # What a failed connection costs
//!
//! A call that finds no connection makes one, and all calls that come meanwhile share the
//! attempt. After a failure the next attempt waits, longer each time; calls in between are
//! refused at once with the reason, so a broken server delays nobody.
//!
//! # What is repeated
//!
//! A request is sent a second time only if nothing of it can have reached the server, or if it does
//! no harm: what reads, and tools that say so of themselves (`readOnlyHint`, `idempotentHint`).

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    task::AbortHandle,
};

mod call; //  what one call takes
pub mod task; // what if the server makes a task of it
mod watch; // what it tells of its own accord

pub use call::TURN;
use watch::Watching;
pub use watch::reply_to;

use super::{
    Ask, Backend, EraKind, Notice, Notices, Offer, State, Status,
    budget::Budget,
    handshake,
    parking::Parking,
    profiles::Lease,
    transport::{Connect, Kind, Transport, Trouble},
    visits::Visits,
};
use crate::{
    call::{Call, Reply},
    error::{Error, Result},
    wire::{capability::Capabilities, mcp::Era},
};

/// The pause after the first failure; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a server is taken for one of the legacy era without being asked again.
const VERDICT: Duration = Duration::from_secs(60 * 60);

/// The right to be the only call under way on a connection.
pub type Turn = OwnedSemaphorePermit;

/// What a call has of its connection until its end.
#[derive(Debug, Default)]
pub struct Hold {
    /// Where a question could not be told apart.
    pub turn: Option<Turn>,
    /// Where the connection is not always there.
    pub lease: Option<Arc<Lease>>,
}

pub struct Server {
    me: Weak<Server>,
    name: Arc<str>,
    /// Ways to connect, tried in this order until one is understood.
    ways: Vec<Arc<dyn Connect>>,
    kind: &'static str,
    era: EraKind,
    timeout: Duration,
    notices: Notices,
    link: ArcSwapOption<Link>,
    /// Held while a connection is made.
    making: tokio::sync::Mutex<Known>,
    /// How the last attempt to connect ended, for all who wait for it.
    attempt: tokio::sync::watch::Sender<Result<(), Trouble>>,
    health: Mutex<Health>,
    next_id: Arc<AtomicU64>,
    /// What a server of the legacy era is told that it may ask.
    capabilities: Capabilities,
    /// Calls that may be asked something, where servers do not tell which one they ask.
    turn: Arc<Semaphore>,
    parking: Arc<Parking>,
    visits: Arc<Visits>,
    /// Its latest tasks: another process of the same server would not know them.
    tasks: Mutex<VecDeque<String>>,
    /// The resources whose changes somebody wants to hear of.
    wanted: tokio::sync::watch::Sender<BTreeSet<String>>,
    /// Are changes heard of over this connection?
    watches: bool,
    /// The task that tells the server what is wanted.
    watching: Mutex<Option<AbortHandle>>,
    /// There are others that can take a call whose answer is lost.
    spared: bool,
    /// Of calls that are made again.
    budget: Budget,
}

/// What earlier connections taught.
#[derive(Debug, Default)]
struct Known {
    way: usize,
    /// With when it was found out.
    era: Option<(Era, Instant)>,
    pause: Option<(Instant, Duration)>,
}

#[derive(Debug)]
struct Health {
    state: State,
    since: SystemTime,
    problem: Option<String>,
    connections: u64,
}

/// A connection on which the handshake is done.
#[derive(Debug)]
pub struct Link {
    pub transport: Arc<dyn Transport>,
    pub offer: Arc<Offer>,
    /// The most talkative level asked for on this connection, as its number; 255 for none.
    level: AtomicU8,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What a server is made from.
#[derive(Clone)]
pub struct Parts {
    pub name: Arc<str>,
    pub ways: Vec<Arc<dyn Connect>>,
    /// `stdio`, `http` or `sse`, for people.
    pub kind: &'static str,
    pub era: EraKind,
    /// For a connection and its handshake.
    pub timeout: Duration,
    pub notices: Notices,
    /// Are changes heard of over this connection? Over one is enough.
    pub watches: bool,
    /// There are other servers that can take a call whose answer this one loses.
    pub spared: bool,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Server {
    pub fn new(parts: Parts, capabilities: Capabilities) -> Arc<Self> {
        let Parts { name, ways, kind, era, timeout, notices, watches, spared } = parts;
        let health =
            Health { state: State::Starting, since: SystemTime::now(), problem: None, connections: 0 };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            name,
            ways,
            kind,
            era,
            timeout,
            notices,
            link: ArcSwapOption::empty(),
            making: tokio::sync::Mutex::default(),
            attempt: tokio::sync::watch::Sender::new(Ok(())),
            health: Mutex::new(health),
            next_id: Arc::new(AtomicU64::new(1)),
            capabilities,
            turn: Arc::new(Semaphore::new(1)),
            parking: Arc::default(),
            visits: Arc::default(),
            tasks: Mutex::default(),
            wanted: tokio::sync::watch::Sender::default(),
            watches,
            watching: Mutex::default(),
            spared,
            budget: Budget::default(),
        })
    }

    /// The era it speaks, found out if need be.
    pub async fn era(&self) -> Result<Era> {
        let link = match self.usable() {
            Some(link) => link,
            None => self.link().await.map_err(|trouble| self.error(&trouble))?,
        };
        Ok(link.offer.era)
    }

    /// The right to be the only call under way, if one is needed; an error if it is taken, or if
    /// it would be of no use.
    pub fn reserve(&self, call: &Call) -> Result<Option<Turn>, TryAcquireError> {
        let link = self.link.load();
        let needed = match link.as_ref() {
            Some(link) if !link.transport.takes_questions() => return Err(TryAcquireError::Closed),
            Some(link) => self.takes_turns(link, call),
            // Over Streamable HTTP it hardly ever is; over anything else it is as far as is known.
            None => self.kind != "http" && self.may_be_asked(call),
        };
        if needed { Arc::clone(&self.turn).try_acquire_owned().map(Some) } else { Ok(None) }
    }

    /// Could a question on its connection be anybody's?
    pub fn is_unclear(&self) -> bool {
        self.link.load().as_ref().is_some_and(|link| !link.transport.takes_questions())
    }

    /// Does the server remember anything between two requests, as far as is known?
    pub fn keeps_state(&self) -> bool {
        self.link.load().as_ref().is_some_and(|link| link.transport.keeps_state())
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("no code panics while it holds this lock")
    }

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn error(&self, trouble: &Trouble) -> Error {
        trouble.error(&self.name)
    }

    /// A new connection, or one that another call has made meanwhile.
    async fn link(&self) -> Result<Arc<Link>, Trouble> {
        let mut attempt = self.attempt.subscribe();
        // All who wait go on at the same time, and not one after the other as the lock would have it.
        let mut known = tokio::select! {
            biased;
            known = self.making.lock() => known,
            Ok(()) = attempt.changed() => {
                attempt.borrow().clone()?;
                match self.usable() {
                    Some(link) => return Ok(link),
                    None => self.making.lock().await,
                }
            }
        };
        if let Some(link) = self.usable() {
            return Ok(link); // Made while we waited.
        }
        if let Some((due, _)) = known.pause
            && Instant::now() < due
        {
            let problem = self.health().problem.clone();
            return Err(Trouble::new(Kind::NotSent, problem.unwrap_or_else(|| "not connected".into())));
        }
        let made = tokio::time::timeout(self.timeout, self.connect(&mut known)).await;
        match made.unwrap_or_else(|_| Err(self.too_late(known.way))) {
            Ok(link) => {
                known.pause = None;
                self.connected(&link);
                drop(self.attempt.send_replace(Ok(())));
                Ok(link)
            }
            // Nothing is wrong with the server, and the caller may be back at once.
            Err(trouble) if trouble.kind == Kind::Consent => {
                drop(self.attempt.send_replace(Err(trouble.clone())));
                Err(trouble)
            }
            Err(trouble) => {
                let pause = known.pause.map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
                known.pause = Some((Instant::now() + pause, pause));
                self.failed(&trouble);
                // Whatever became of the attempt, the request itself was not sent.
                let trouble = Trouble { kind: Kind::NotSent, ..trouble };
                drop(self.attempt.send_replace(Err(trouble.clone())));
                Err(trouble)
            }
        }
    }

    fn too_late(&self, way: usize) -> Trouble {
        let why = format!("no connection within {} s", self.timeout.as_secs_f64());
        let words = self.ways[way].last_words().map(|words| format!("{why}; the process last said: {words}"));
        Trouble::new(Kind::NotSent, words.unwrap_or(why))
    }

    fn usable(&self) -> Option<Arc<Link>> {
        let link = self.link.load();
        let link = link.as_ref()?;
        match link.transport.lost() {
            None => Some(Arc::clone(link)),
            Some(trouble) => {
                self.give_up(link, &trouble);
                None
            }
        }
    }

    fn connected(&self, link: &Arc<Link>) {
        self.link.store(Some(Arc::clone(link)));
        let mut health = self.health();
        *health = Health {
            state: State::Ready,
            since: SystemTime::now(),
            problem: None,
            connections: health.connections + 1,
        };
        let again = health.connections > 1;
        drop(health);
        tracing::info!(backend = &*self.name, revision = %link.offer.revision, "connected");
        if self.watches {
            let (ids, notices) = (Arc::clone(&self.next_id), Arc::clone(&self.notices));
            let (link, wanted) = (Arc::downgrade(link), self.wanted.subscribe());
            let task = tokio::spawn(Watching { link, ids, notices, wanted, again }.run());
            self.watch_by(Some(task.abort_handle()));
        }
        (self.notices)(Notice::Connected);
    }

    fn watch_by(&self, task: Option<AbortHandle>) {
        let mut watching = self.watching.lock().expect("no code panics while it holds this lock");
        if let Some(before) = std::mem::replace(&mut *watching, task) {
            before.abort();
        }
    }

    fn failed(&self, trouble: &Trouble) {
        let mut health = self.health();
        if health.state != State::Down {
            tracing::warn!(backend = &*self.name, problem = %trouble, "not connected");
            health.since = SystemTime::now();
        }
        health.state = State::Down;
        health.problem = Some(trouble.why.clone());
    }

    async fn connect(&self, known: &mut Known) -> Result<Arc<Link>, Trouble> {
        loop {
            let way = &self.ways[known.way];
            // A server may have learned the modern era since; nobody unlearns it.
            let lasting = |(era, found): &(Era, Instant)| *era == Era::Modern || found.elapsed() < VERDICT;
            let era = known.era.filter(lasting).map(|(era, _)| era);
            let made = self.connect_by(way, era).await;
            match made {
                Ok(link) => {
                    if era != Some(link.offer.era) {
                        known.era = Some((link.offer.era, Instant::now()));
                    }
                    return Ok(link);
                }
                // As 2025-11-25 has it ("Backwards compatibility"): these say that the
                // address is none of Streamable HTTP.
                Err(Trouble { kind: Kind::Status(400 | 404 | 405), .. })
                    if known.way + 1 < self.ways.len() =>
                {
                    known.way += 1;
                }
                Err(trouble) => {
                    // What was true of the server may be so no longer.
                    known.way = 0;
                    known.era = None;
                    return Err(trouble);
                }
            }
        }
    }

    async fn connect_by(&self, way: &Arc<dyn Connect>, known: Option<Era>) -> Result<Arc<Link>, Trouble> {
        let era = match self.era {
            EraKind::Legacy => Some(Era::Legacy),
            EraKind::Modern => Some(Era::Modern),
            EraKind::Auto => way.only().or(known),
        };
        let (inbox, answers) = self.inbox();
        let mut transport = way.connect(Arc::clone(&inbox)).await?;
        let offer = match era {
            Some(Era::Modern) => handshake::discover(&*transport, self.id()).await?,
            Some(Era::Legacy) => handshake::initialize(&*transport, self.id(), self.capabilities).await?,
            None => match handshake::probe(&*transport, self.id(), way.probe_apart()).await? {
                Some(offer) => offer,
                None => {
                    if way.probe_apart() {
                        tokio::spawn(transport.close());
                        transport = way.connect(inbox).await?;
                    }
                    handshake::initialize(&*transport, self.id(), self.capabilities).await?
                }
            },
        };
        let _ = answers.set(Arc::downgrade(&transport));
        let level = AtomicU8::new(u8::MAX);
        Ok(Arc::new(Link { transport, offer: Arc::new(offer), level }))
    }

    /// A connection that took a request neither the first nor the second time is none.
    fn give_up(&self, link: &Arc<Link>, trouble: &Trouble) {
        let gone = self.link.compare_and_swap(link, None);
        if gone.as_ref().is_some_and(|gone| Arc::ptr_eq(gone, link)) {
            self.failed(trouble);
            (self.notices)(Notice::Lost);
        }
    }
}

impl Backend for Server {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(self.ask(ask, Hold::default()))
    }

    fn status(&self) -> Status {
        self.usable(); // A loss that nobody has met yet is noticed here.
        let health = self.health();
        let link = self.link.load();
        Status {
            state: health.state,
            transport: self.kind,
            revision: link.as_ref().map(|link| link.offer.revision.to_string()),
            problem: health.problem.clone(),
            connections: health.connections,
            replicas: Vec::new(),
            since: health.since,
        }
    }

    fn offer(&self) -> Option<Arc<Offer>> {
        self.link.load().as_ref().map(|link| Arc::clone(&link.offer))
    }

    fn expect(&self, era: Era) {
        // Nobody holds the lock yet; if somebody does, they are finding it out.
        if let Ok(mut known) = self.making.try_lock() {
            known.era.get_or_insert((era, Instant::now()));
        }
    }

    fn watch(&self, uris: BTreeSet<String>) {
        self.wanted.send_replace(uris);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.watch_by(None);
            if let Some(link) = self.link.swap(None) {
                link.transport.close().await;
            }
        })
    }
}
