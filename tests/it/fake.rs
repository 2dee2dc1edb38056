//! An MCP server that does as it is told, to stand behind the gateway.
//!
//! It speaks Streamable HTTP of either era at [`Fake::url`] and the HTTP+SSE pair of 2024-11-05 at
//! [`Fake::sse_url`], keeps every message it was sent, and can be made to fail in every way a server does
//! ([`fault`]). Nothing in it waits, but where a test asks for that; what a test waits for, it waits for with
//! [`Fake::until`].
//!
//! It stops, with all its connections, when the value is dropped.

#![allow(dead_code, unused_imports, reason = "a test uses the part of the fake that it needs")]

mod answer;
mod builder;
mod envelope;
mod fault;
pub mod provider;
mod server;
mod session;
mod stream;
mod tool;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

pub use builder::Builder;
pub use fault::FAULTS;
pub use tool::{OWN_TOOLS, numbered, tool};

/// How long [`Fake::until`] waits before it gives the test up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which revisions a fake speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: `initialize`, sessions.
    Legacy,
    /// 2026-07-28: every request stands for itself.
    Modern,
    /// Both, told apart by each message.
    Both,
}

/// One HTTP request that came in.
#[derive(Debug, Clone)]
pub struct Seen {
    pub verb: Method,
    pub path: String,
    /// The message's `method`; empty for a response, a GET, a DELETE and what is no JSON.
    pub method: String,
    pub headers: HeaderMap,
    /// The message; null where the body is no JSON.
    pub body: Value,
    /// The body, byte for byte.
    pub raw: Bytes,
    pub at: Instant,
}

/// A call of `slow` that was cancelled.
#[derive(Debug, Clone)]
pub struct Cancelled {
    /// The id the call had at the fake.
    pub id: Value,
    /// The call's `arguments`, by which a test knows it again.
    pub arguments: Value,
    pub how: How,
    /// When the fake learned of it.
    pub at: Instant,
}

/// How the fake learned of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By `notifications/cancelled` with the call's id, in its session.
    Notification,
    /// By the end of the call's connection; counts for 2026-07-28 alone.
    Closed,
}

/// A running fake.
#[derive(Debug)]
pub struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What all connections of a fake know in common.
#[derive(Debug)]
struct Shared {
    settings: Builder,
    tools: Mutex<Vec<Value>>,
    /// What the tool `raw` answers.
    raw: Mutex<Bytes>,
    seen: Mutex<Vec<Seen>>,
    cancelled: Mutex<Vec<Cancelled>>,
    running: Mutex<Vec<tool::Running>>,
    sessions: Mutex<HashMap<String, Arc<session::Session>>>,
    listens: Mutex<Vec<session::Listen>>,
    /// What the next streams say that go on after an event.
    later: Mutex<VecDeque<Bytes>>,
    /// May the calls of `ask` go on that wait for it?
    may_ask: watch::Sender<bool>,
    /// Requests of ours that a client has yet to answer, by id.
    asked: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    /// The lists whose cursor has expired already.
    expired: Mutex<HashSet<String>>,
    last_number: AtomicU64,
    connections: AtomicUsize,
    /// Moves whenever something happened that a test may wait for.
    happened: watch::Sender<u64>,
    stopped: watch::Sender<bool>,
}

impl Fake {
    /// A fake of both eras that answers with JSON and has its own tools, see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where Streamable HTTP is spoken.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Where the HTTP+SSE pair of 2024-11-05 begins; a POST there is refused with 405.
    pub fn sse_url(&self) -> String {
        format!("http://{}/sse", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The requests so far with this `method`.
    pub fn seen_of(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method == method).collect()
    }

    /// Forgets what was seen and cancelled, for the next part of a test.
    pub fn forget(&self) {
        lock(&self.shared.seen).clear();
        lock(&self.shared.cancelled).clear();
    }

    /// The calls of `slow` that were cancelled so far.
    pub fn cancelled(&self) -> Vec<Cancelled> {
        lock(&self.shared.cancelled).clone()
    }

    /// How many calls of `slow` are running; one of a legacy session runs on when its connection ends.
    pub fn running(&self) -> usize {
        lock(&self.shared.running).len()
    }

    /// Lets all running calls of `slow` come to their answer.
    pub fn release(&self) {
        let ended = std::mem::take(&mut *lock(&self.shared.running));
        ended.into_iter().for_each(|running| running.end(tool::End::Released));
        self.shared.tell();
    }

    /// How many TCP connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many legacy sessions are open.
    pub fn sessions(&self) -> usize {
        lock(&self.shared.sessions).len()
    }

    /// How many streams [`Fake::notify`] would write to.
    pub fn listeners(&self) -> usize {
        self.shared.listeners().len()
    }

    /// Ends all legacy sessions, as a restart does: their ids are unknown from now on, their streams end.
    pub fn forget_sessions(&self) {
        lock(&self.shared.sessions).clear();
    }

    /// Sets what the tool `raw` answers: these bytes stand where the `result` would.
    pub fn answer_raw(&self, bytes: impl Into<Bytes>) {
        *lock(&self.shared.raw) = bytes.into();
    }

    /// Sends a notification on the GET stream of each legacy session, on each stream of an HTTP+SSE pair and
    /// on each `subscriptions/listen` whose filter has it, there with its subscription's id. Gives to how many.
    pub fn notify(&self, notification: Value) -> usize {
        let listeners = self.shared.listeners();
        listeners.iter().filter(|listener| listener.send(&notification)).count()
    }

    /// Sends these bytes as they are on each stream that [`Fake::notify`] would write to.
    pub fn push_raw(&self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.shared.listeners().iter().for_each(|listener| listener.send_raw(bytes.clone()));
    }

    /// Answers the next GET that goes on after an event with these bytes, and ends.
    pub fn answer_later(&self, bytes: impl Into<Bytes>) {
        lock(&self.shared.later).push_back(bytes.into());
    }

    /// Lets the calls of `ask` ask that wait for it.
    pub fn let_ask(&self) {
        self.shared.may_ask.send_replace(true);
    }

    /// Has other tools from now on, and says so to all who listen. Gives how many do.
    pub fn change_tools(&self, tools: Vec<Value>) -> usize {
        *lock(&self.shared.tools) = tools;
        self.notify(json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }))
    }

    /// Waits until `done` holds; the test fails, with `what`, if it never does.
    pub async fn until(&self, what: &str, done: impl Fn(&Fake) -> bool) {
        let mut happened = self.shared.happened.subscribe();
        let wait = async {
            while !done(self) {
                happened.changed().await.expect("the fake is there");
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("in vain: {what}; seen: {:#?}", self.seen());
        }
    }

    /// Waits until `count` requests with this `method` have come, and gives them.
    pub async fn until_seen(&self, method: &str, count: usize) -> Vec<Seen> {
        self.until(method, |fake| fake.seen_of(method).len() >= count).await;
        self.seen_of(method)
    }

    /// Waits until `count` calls of `slow` are running.
    pub async fn until_running(&self, count: usize) {
        self.until("slow calls", |fake| fake.running() >= count).await;
    }

    /// Waits until `count` calls of `slow` were cancelled, and gives them.
    pub async fn until_cancelled(&self, count: usize) -> Vec<Cancelled> {
        self.until("cancellations", |fake| fake.cancelled().len() >= count).await;
        self.cancelled()
    }

    /// Waits until `count` streams are there for [`Fake::notify`].
    pub async fn until_listening(&self, count: usize) {
        self.until("listening streams", |fake| fake.listeners() >= count).await;
    }

    /// Ends at once: the port is closed, and every connection.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.stopped.send_replace(true);
    }
}

impl Shared {
    fn new(settings: Builder) -> Self {
        Shared {
            tools: Mutex::new(settings.tools.clone()),
            raw: Mutex::new(Bytes::from_static(b"{}")),
            settings,
            seen: Mutex::default(),
            cancelled: Mutex::default(),
            running: Mutex::default(),
            sessions: Mutex::default(),
            listens: Mutex::default(),
            later: Mutex::default(),
            may_ask: watch::Sender::new(false),
            asked: Mutex::default(),
            expired: Mutex::default(),
            last_number: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            happened: watch::Sender::new(0),
            stopped: watch::Sender::new(false),
        }
    }

    /// Runs a task no longer than the fake.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
        let mut stopped = self.stopped.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        })
    }

    /// Wakes the tests that wait.
    fn tell(&self) {
        self.happened.send_modify(|times| *times += 1);
    }

    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn listeners(&self) -> Vec<session::Listener> {
        let mut listeners: Vec<_> =
            lock(&self.sessions).values().filter_map(|session| session.listener()).collect();
        listeners.extend(lock(&self.listens).iter().filter_map(session::Listen::listener));
        listeners
    }
}

/// A poisoned lock is a test that failed already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
