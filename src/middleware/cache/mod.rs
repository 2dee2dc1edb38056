//! Which replies may be used again?
//!
//! None, unless an operator names the tool or the backend. What a server says of its replies
//! (`ttlMs`, `cacheScope`) is obeyed; what it calls public is for all only where the operator says
//! so too. A reply is looked for after it is settled that the caller may make the call.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::{Layer, Service};

mod flight; // one call for many who ask
mod kept; //   a reply, and how it is used again
mod key; //    which calls are the same, and whose
mod rule; //   what is kept, and what makes it untrue
mod shelf; //  all that is kept
mod stamp; //  since when it is no longer true

pub use rule::{Rule, Share};

use super::deadline::late;
use crate::{
    call::{Aim, Call, Caller, Event, Reply, Replying, Stage},
    error::{Error, Result},
    settings::{Duration, Size},
    weaken,
    wire::mcp::Method,
};
use flight::{Flight, Flights, Part, lead};
use key::Key;
use shelf::{Asking, Counts, Found, Shelf};

/// After this long a call that waits for another is answered as a stream, so that its connection
/// is not taken for dead.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// `[cache]`: which replies may be used again. None, where no tool and no backend is named.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How much memory kept replies may take. Where there is no room, what is seldom used goes.
    pub max: Size,
    /// How large a reply may be that is kept.
    pub largest: Size,
    /// How long a reply is good at the most, whatever its server says.
    pub longest: Duration,
    /// Tools whose results are kept, each by `<backend>__<tool>`; `*` stands for any letters, and of
    /// the patterns that fit the longest says it. They must be ones that only read.
    pub tools: BTreeMap<String, Rule>,
    /// Backends whose resources, prompts and completions are kept, by their names.
    pub backends: BTreeMap<String, Rule>,
    /// Tools that change something, each with what is to be forgotten when it has run, all as
    /// `<backend>__<name or URI>`; `*` stands for any letters.
    pub clears: BTreeMap<String, Vec<String>>,
}

impl Default for Settings {
    /// A cache that is not missed on a small machine, for times that nobody has to explain.
    fn default() -> Self {
        Self {
            max: Size(64 << 20),
            largest: Size(1 << 20),
            longest: Duration::seconds(300),
            tools: BTreeMap::new(),
            backends: BTreeMap::new(),
            clears: BTreeMap::new(),
        }
    }
}

/// Replies that may be used again.
#[derive(Debug)]
pub struct Replies {
    shelf: ArcSwap<Shelf>,
    counts: Arc<Counts>,
}

impl Replies {
    pub fn new(settings: &Settings) -> Arc<Self> {
        let counts = Arc::<Counts>::default();
        let shelf = ArcSwap::from_pointee(Shelf::new(settings, Arc::clone(&counts)));
        Arc::new(Self { shelf, counts })
    }

    /// Is anything kept at all?
    pub fn is_on(&self) -> bool {
        !self.shelf.load().rules.is_empty()
    }

    /// Obeys other settings from the next call on. If they differ, what was kept by the old ones
    /// is forgotten, since it might be for fewer callers now, or for a shorter time.
    pub fn replace(&self, settings: &Settings) {
        if self.shelf.load().settings != *settings && !weaken::is("cache-news") {
            self.shelf.store(Arc::new(Shelf::new(settings, Arc::clone(&self.counts))));
        }
    }

    /// Everything of this backend may be different: it says so, or there was no connection.
    pub fn changed(&self, backend: &str) {
        self.shelf.load().stamps.changed(backend);
    }

    /// A resource of a backend is different, or one below it.
    pub fn updated(&self, backend: &str, uri: &str) {
        self.shelf.load().stamps.updated(backend, uri);
    }

    /// Forgets what is kept of what goes by names that fit, or everything; says how many replies
    /// that were. Calls under way are not kept either.
    pub fn clear(&self, pattern: Option<&str>) -> usize {
        self.shelf.load().clear(pattern)
    }

    /// How it is, for people.
    pub fn status(&self) -> Value {
        let shelf = self.shelf.load();
        let (replies, bytes) = shelf.room_taken();
        let Counts { hits, stale, joined, misses } = &*self.counts;
        json!({
            "hits": hits.load(Relaxed), "stale": stale.load(Relaxed), "joined": joined.load(Relaxed),
            "misses": misses.load(Relaxed), "replies": replies, "bytes": bytes,
            "max_bytes": shelf.settings.max.0,
        })
    }

    /// What is done about a tool, in words.
    pub fn describe(&self, aim: &Aim) -> Vec<String> {
        let shelf = self.shelf.load();
        let mut lines = Vec::new();
        if let Some((pattern, rule)) = shelf.rules.of_tool(aim) {
            let ttl = rule.ttl.map(|ttl| ttl.0.min(shelf.settings.longest.0)).map(Duration);
            lines.push(match (ttl, shelf.rules.rule(Method::ToolsCall, aim)) {
                (None, _) => format!("cache.tools.{pattern:?} does not say how long results are kept"),
                (_, None) => format!(
                    "not kept, though cache.tools.{pattern:?} names it: it does not say that it only reads"
                ),
                (Some(ttl), Some(Rule { share: Share::All, .. })) => {
                    format!("results are kept for {ttl} and given to all callers (cache.tools.{pattern:?})")
                }
                (Some(ttl), Some(Rule { share: Share::Caller, .. })) => {
                    format!("results are kept for {ttl}, each for its caller (cache.tools.{pattern:?})")
                }
            });
        }
        let made = shelf.rules.made_untrue(Method::ToolsCall, aim);
        let made: Vec<_> = made.into_iter().map(|place| shelf.rules.targets[place].as_str()).collect();
        if !made.is_empty() {
            lines.push(format!("when it has run, kept replies of {} are forgotten", made.join(", ")));
        }
        lines
    }
}

impl crate::call::Explain for Replies {
    fn explain(&self, _: &Caller, aim: &Aim) -> Vec<String> {
        self.describe(aim)
    }
}

/// Puts it before a stage.
#[derive(Debug, Clone)]
pub struct CacheLayer(pub Arc<Replies>);

impl<S> Layer<S> for CacheLayer {
    type Service = Cached<S>;

    fn layer(&self, next: S) -> Cached<S> {
        Cached { replies: Arc::clone(&self.0), next }
    }
}

/// A stage with it before.
#[derive(Debug, Clone)]
pub struct Cached<S> {
    replies: Arc<Replies>,
    next: S,
}

impl<S: Stage> Service<Call> for Cached<S> {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Replying {
        let Some(aim) = &call.aim else { return self.next.call(call) };
        let shelf = self.replies.shelf.load();
        if shelf.rules.is_empty() {
            return self.next.call(call);
        }
        let shelf = Arc::clone(&shelf);
        let untrue = shelf.rules.made_untrue(call.method, aim);
        if !untrue.is_empty() {
            return Writing { shelf, untrue }.call(self.next.call(call));
        }
        let Some(asking) = shelf.asking(&call) else { return self.next.call(call) };
        let (era, now) = (asking.whose.era, Instant::now());
        match shelf.find(&asking, now) {
            Found::Fresh(kept) => {
                shelf.counts.hits.fetch_add(1, Relaxed);
                mark(&call);
                Box::pin(std::future::ready(Ok(Reply::Whole(kept.answer(era, now)))))
            }
            Found::Stale(kept) => {
                shelf.counts.stale.fetch_add(1, Relaxed);
                mark(&call);
                renew(&shelf, &asking, call, self.next.clone());
                Box::pin(std::future::ready(Ok(Reply::Whole(kept.answer(era, now)))))
            }
            Found::Nothing if shelf.is_passed(&asking) => {
                shelf.counts.misses.fetch_add(1, Relaxed);
                self.next.call(call)
            }
            Found::Nothing => fetch(shelf, asking, call, self.next.clone()),
        }
    }
}

/// Notes that the reply was there already.
fn mark(call: &Call) {
    if let Some(marks) = &call.marks {
        marks.from_cache.store(true, Relaxed);
    }
}

/// Fetches a reply that nobody waits for, unless that is being done.
fn renew<S: Stage>(shelf: &Arc<Shelf>, asking: &Asking, call: Call, next: S) {
    let key = asking.shared.unwrap_or(asking.private);
    let call = Call { progress: None, log_level: None, ..call };
    if !shelf.flights.is_under_way(&key)
        && let Part::Leads(flight, _) = take_part(shelf, key, asking, &call, &next)
    {
        tokio::spawn(flight);
    }
}

/// Makes the call, or waits for a like one.
fn fetch<S: Stage>(shelf: Arc<Shelf>, asking: Asking, call: Call, next: S) -> Replying {
    Box::pin(async move {
        let mut keys = asking.keys().collect::<Vec<_>>().into_iter();
        let first = keys.next().unwrap_or(asking.private);
        match take_part(&shelf, first, &asking, &call, &next) {
            Part::Leads(flight, hear) => {
                shelf.counts.misses.fetch_add(1, Relaxed);
                lead(flight, hear).await
            }
            Part::Waits(flight) => {
                let mut reply: Replying = Box::pin(follow(flight, keys, shelf, asking, call, next));
                match tokio::time::timeout(PATIENCE, &mut reply).await {
                    Ok(reply) => reply,
                    Err(_) => Ok(Reply::Stream(late(reply))),
                }
            }
        }
    })
}

/// Waits for calls of others; makes the call where none of their replies is for this caller.
async fn follow<S: Stage>(
    mut flight: Flight,
    mut keys: impl Iterator<Item = Key>,
    shelf: Arc<Shelf>,
    asking: Asking,
    call: Call,
    mut next: S,
) -> Result<Reply> {
    loop {
        if let Some(answer) = flight.await.for_another(asking.whose) {
            shelf.counts.joined.fetch_add(1, Relaxed);
            return answer.map(Reply::Whole);
        }
        let part = keys.next().map(|key| take_part(&shelf, key, &asking, &call, &next));
        match part {
            Some(Part::Waits(another)) => flight = another,
            Some(Part::Leads(flight, hear)) => {
                shelf.counts.misses.fetch_add(1, Relaxed);
                return lead(flight, hear).await;
            }
            None => {
                shelf.counts.misses.fetch_add(1, Relaxed);
                return next.call(call).await;
            }
        }
    }
}

fn take_part<S: Stage>(shelf: &Arc<Shelf>, key: Key, asking: &Asking, call: &Call, next: &S) -> Part {
    let (mut next, call) = (next.clone(), call.clone());
    Flights::take_part(shelf, key, asking, move || next.call(call))
}

/// A call that makes kept replies untrue: when it ends, or is dropped, since it may have run.
struct Writing {
    shelf: Arc<Shelf>,
    untrue: Vec<usize>,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.shelf.stamps.written(&self.untrue);
    }
}

impl Writing {
    fn call(self, reply: Replying) -> Replying {
        Box::pin(async move {
            match reply.await? {
                whole @ Reply::Whole(_) => Ok(whole),
                Reply::Stream(events) => {
                    let mut writing = Some(self);
                    // Before the caller hears of it, so that what it reads next is new.
                    let events = events.inspect(move |event| {
                        if !matches!(event, Ok(Event::Notification(_) | Event::Task(_) | Event::Alive)) {
                            drop(writing.take());
                        }
                    });
                    Ok(Reply::Stream(events.boxed()))
                }
            }
        })
    }
}
