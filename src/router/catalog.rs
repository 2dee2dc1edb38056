//! What do all backends offer, right now as far as is known?
//!
//! Each backend has a task that reads its lists: when a connection is made, when the backend
//! says that a list changed, and again after a failure. What was read last is shown until
//! something newer is known, over restarts too: a backend that starts, hangs or is dead costs
//! nobody a moment, only its own tools their freshness.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, watch};

use super::{
    names,
    offering::{self, Offering},
    view::{Note, Snapshot, Upstream},
};
use crate::{
    backend::{Backend, Notice, State, Status},
    call::{Permit, Scope},
    store::Store,
    wire::mcp::{Era, List, Method},
};

/// Changes that come within this time are told as one.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often the lists of a server are read that does not tell of changes.
const REREAD: Duration = Duration::from_secs(60);
/// The pause after a failed reading; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A backend and what the catalog needs to keep it.
#[derive(Debug)]
pub struct Source {
    pub upstream: Arc<Upstream>,
    /// Tells this backend from another one of the same name in an earlier configuration.
    pub fingerprint: String,
    /// What the backend itself has to say.
    pub notices: mpsc::Receiver<Notice>,
}

#[derive(Debug)]
pub struct Catalog {
    snapshot: ArcSwap<Snapshot>,
    shelves: Vec<Shelf>,
    store: Store,
    /// Signals that the snapshot may differ from what was announced.
    dirty: watch::Sender<u64>,
    changes: broadcast::Sender<Change>,
    /// Lists that backends have said changed, and which have been read since.
    told: Mutex<BTreeSet<List>>,
    /// How many backends have been read, or have failed to be, at least once.
    settled: watch::Sender<usize>,
}

/// What has changed.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Lists that differ from before, as clients see them.
    pub seen: BTreeSet<List>,
    /// Lists that a backend said have changed, whether a difference can be seen or not.
    pub told: BTreeSet<List>,
    /// The rules before, if others hold now.
    pub rules: Option<Arc<dyn Permit>>,
}

/// What is known of one backend.
#[derive(Debug)]
struct Shelf {
    upstream: Arc<Upstream>,
    fingerprint: String,
    offering: ArcSwap<Offering>,
    reading: Mutex<Reading>,
}

#[derive(Debug, Clone, Default)]
struct Reading {
    /// When the lists were last read whole; none if what is shown was kept from earlier.
    at: Option<SystemTime>,
    problem: Option<String>,
    /// What is shown comes from an earlier run of the gateway.
    kept: bool,
    settled: bool,
}

/// One backend, for people.
#[derive(Debug, Serialize)]
pub struct Report {
    pub name: String,
    #[serde(flatten)]
    pub status: Status,
    pub tools: usize,
    pub prompts: usize,
    pub resources: usize,
    /// What is listed was last confirmed before the connection was lost, or not at all yet.
    pub stale: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

impl Catalog {
    /// A catalog of these backends, with what is known of them from earlier. Reading begins at
    /// once, in tasks that end with the catalog.
    pub async fn start(sources: Vec<Source>, store: Store) -> Arc<Self> {
        let mut shelves = Vec::new();
        let mut receivers = Vec::new();
        for Source { upstream, fingerprint, notices } in sources {
            let kept = store.catalog(&upstream.name, &fingerprint).await;
            let kept = kept.and_then(|text| Offering::from_json(&text));
            if let Some(era) = kept.as_ref().and_then(|kept| kept.era) {
                upstream.backend.expect(era);
            }
            let reading = Reading { kept: kept.is_some(), ..Reading::default() };
            let offering = ArcSwap::from_pointee(kept.unwrap_or_default());
            shelves.push(Shelf { upstream, fingerprint, offering, reading: Mutex::new(reading) });
            receivers.push(notices);
        }
        let catalog = Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot(&shelves)),
            shelves,
            store,
            dirty: watch::Sender::new(0),
            changes: broadcast::Sender::new(64),
            told: Mutex::default(),
            settled: watch::Sender::new(0),
        });
        for (index, notices) in receivers.into_iter().enumerate() {
            tokio::spawn(Arc::clone(&catalog).keep_reading(index, notices));
        }
        tokio::spawn(announce(Arc::downgrade(&catalog), catalog.dirty.subscribe()));
        catalog
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Tells which lists have changed, as clients see them.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Waits until every backend has answered or failed once, but no longer than this.
    pub async fn settle(&self, longest: Duration) {
        let mut settled = self.settled.subscribe();
        let all = self.shelves.len();
        let _ = tokio::time::timeout(longest, settled.wait_for(|count| *count >= all)).await;
    }

    /// Waits for the first answer of backends of which nothing is known yet, as long as they are
    /// starting and this could be theirs, until it is known. Says whether there were any.
    pub async fn first_heard(
        &self,
        scope: &Scope,
        method: Method,
        target: &str,
        known: impl Fn() -> bool,
    ) -> bool {
        let could_have = |upstream: &Upstream| match (scope, method) {
            (Scope::One(name), _) => *upstream.name == **name,
            (Scope::All | Scope::Set(_), Method::ResourcesRead) => true, // What it is called says nothing of whose it is.
            (Scope::All | Scope::Set(_), _) => {
                [&*upstream.prefix, &*upstream.name].iter().any(|own| names::may_be_of(own, target))
            }
        };
        let starting = self.shelves.iter().filter(|shelf| could_have(&shelf.upstream) && shelf.is_starting());
        let starting: Vec<_> = starting.collect();
        let Some(longest) = starting.iter().map(|shelf| shelf.upstream.patience).max() else { return false };
        let mut settled = self.settled.subscribe();
        let heard = settled.wait_for(|_| known() || !starting.iter().any(|shelf| shelf.is_starting()));
        let _ = tokio::time::timeout(longest, heard).await; // Then it is looked for all the same.
        true
    }

    /// Is anything known from an earlier run, or has every backend been heard of?
    pub fn is_known(&self) -> bool {
        self.shelves.iter().all(|shelf| {
            let reading = shelf.reading();
            reading.kept || reading.settled
        })
    }

    /// A backend by its name.
    pub fn backend(&self, name: &str) -> Option<Arc<dyn Backend>> {
        let shelf = self.shelves.iter().find(|shelf| *shelf.upstream.name == *name)?;
        Some(Arc::clone(&shelf.upstream.backend))
    }

    pub fn reports(&self) -> Vec<Report> {
        let snapshot = self.snapshot.load();
        self.shelves.iter().map(|shelf| shelf.report(&snapshot)).collect()
    }

    pub fn notes(&self) -> Vec<Note> {
        self.snapshot.load().notes.clone()
    }

    /// Ends all connections and children in good order.
    pub async fn close(&self) {
        futures_util::future::join_all(self.shelves.iter().map(|shelf| shelf.upstream.backend.close())).await;
        self.store.close().await;
    }

    async fn keep_reading(self: Arc<Self>, index: usize, mut notices: mpsc::Receiver<Notice>) {
        let weak = Arc::downgrade(&self);
        drop(self);
        let mut pause = FIRST_PAUSE;
        let mut told = BTreeSet::new();
        loop {
            let Some(catalog) = weak.upgrade() else { return };
            let read = catalog.read(index).await;
            if read && !told.is_empty() {
                catalog.tell(std::mem::take(&mut told));
            }
            drop(catalog);
            // What the backend said about its connection while it was read is what we know.
            let mut again = false;
            while let Ok(notice) = notices.try_recv() {
                if let Notice::Changed(list) = notice {
                    again = true;
                    told.insert(list);
                }
            }
            if again {
                tokio::time::sleep(DEBOUNCE).await;
                continue;
            }
            if read {
                pause = FIRST_PAUSE;
                // A modern server tells of changes on a subscription only, and need not have any.
                let modern = weak.upgrade().is_some_and(|catalog| catalog.is_modern(index));
                let patience = if modern { REREAD } else { Duration::MAX };
                match tokio::time::timeout(patience, notices.recv()).await {
                    Ok(None) if modern => tokio::time::sleep(REREAD).await,
                    Ok(None) => return,
                    Ok(Some(Notice::Changed(list))) => drop(told.insert(list)),
                    Ok(Some(_)) | Err(_) => {}
                }
                tokio::time::sleep(DEBOUNCE).await;
                while let Ok(notice) = notices.try_recv() {
                    if let Notice::Changed(list) = notice {
                        told.insert(list);
                    }
                }
            } else {
                let _ = tokio::time::timeout(pause, notices.recv()).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    fn is_modern(&self, index: usize) -> bool {
        let offer = self.shelves[index].upstream.backend.offer();
        offer.is_some_and(|offer| offer.era == Era::Modern)
    }

    /// Reads one backend's lists; says whether that worked.
    async fn read(&self, index: usize) -> bool {
        let shelf = &self.shelves[index];
        let name = &shelf.upstream.name;
        let begun = Instant::now();
        let read = offering::read(&*shelf.upstream.backend, name).await;
        let ok = read.is_ok();
        match read {
            Ok(offering) => {
                shelf.set_reading(|reading| {
                    reading.at = Some(SystemTime::now());
                    reading.problem = None;
                });
                if **shelf.offering.load() != offering {
                    let tools = offering.list(List::Tools).len();
                    tracing::info!(
                        backend = &**name,
                        tools,
                        took_ms = begun.elapsed().as_millis(),
                        "catalog read"
                    );
                    self.store.keep_catalog(name, &shelf.fingerprint, &offering.to_json()).await;
                    shelf.offering.store(Arc::new(offering));
                    self.rebuild();
                    for fault in left_out(name, &self.snapshot.load()) {
                        tracing::warn!(backend = &**name, "{fault}");
                    }
                }
            }
            Err(error) => {
                tracing::debug!(backend = &**name, %error, "catalog not read");
                shelf.set_reading(|reading| reading.problem = Some(error.to_string()));
            }
        }
        if !std::mem::replace(&mut shelf.reading.lock().expect(LOCK).settled, true) {
            self.settled.send_modify(|count| *count += 1);
        }
        ok
    }

    /// Has everybody told whose lists are others than by the rules before.
    pub fn rules_changed(&self, before: Arc<dyn Permit>) {
        let _ = self.changes.send(Change { rules: Some(before), ..Change::default() }); // Nobody may be listening.
    }

    fn tell(&self, lists: BTreeSet<List>) {
        self.told.lock().expect(LOCK).extend(lists);
        self.dirty.send_modify(|count| *count += 1);
    }

    fn rebuild(&self) {
        self.snapshot.rcu(|_| snapshot(&self.shelves));
        self.dirty.send_modify(|count| *count += 1);
    }
}

const LOCK: &str = "no code panics while it holds this lock";

impl Shelf {
    fn reading(&self) -> Reading {
        self.reading.lock().expect(LOCK).clone()
    }

    /// Is nothing known of it, because it has not answered or failed yet?
    fn is_starting(&self) -> bool {
        let reading = self.reading();
        !reading.kept && !reading.settled && self.upstream.backend.status().state != State::Down
    }

    fn set_reading(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.reading.lock().expect(LOCK));
    }

    fn report(&self, snapshot: &Snapshot) -> Report {
        let mut status = self.upstream.backend.status();
        let reading = self.reading();
        let offering = self.offering.load();
        if status.problem.is_none() {
            status.problem = reading.problem;
        }
        Report {
            name: self.upstream.name.to_string(),
            stale: reading.at.is_none() || status.state != State::Ready,
            tools: offering.list(List::Tools).len(),
            prompts: offering.list(List::Prompts).len(),
            resources: offering.list(List::Resources).len() + offering.list(List::Templates).len(),
            faults: offering.faults.iter().cloned().chain(left_out(&self.upstream.name, snapshot)).collect(),
            status,
        }
    }
}

/// What a backend offers that is not shown, and why.
fn left_out(backend: &str, snapshot: &Snapshot) -> Vec<String> {
    let notes = snapshot.notes.iter();
    let notes = notes.filter(|note| *note.backend == *backend && note.shown_as.is_none());
    notes.map(|note| format!("{:?} is left out: {}", note.name, note.why)).collect()
}

fn snapshot(shelves: &[Shelf]) -> Snapshot {
    let offered: Vec<_> =
        shelves.iter().map(|shelf| (Arc::clone(&shelf.upstream), shelf.offering.load_full())).collect();
    Snapshot::build(&offered)
}

/// Tells of changes once they have come to rest, and only of those that can be seen.
async fn announce(catalog: std::sync::Weak<Catalog>, mut dirty: watch::Receiver<u64>) {
    let Some(mut announced) = catalog.upgrade().map(|catalog| catalog.snapshot()) else { return };
    while dirty.changed().await.is_ok() {
        tokio::time::sleep(DEBOUNCE).await;
        dirty.mark_unchanged();
        let Some(catalog) = catalog.upgrade() else { return };
        let now = catalog.snapshot();
        let differs = |list: &List| match (announced.view(&Scope::All), now.view(&Scope::All)) {
            (Some(before), Some(after)) => {
                !before.listing(*list, Era::Legacy).same_as(after.listing(*list, Era::Legacy))
            }
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        };
        let seen: BTreeSet<_> = List::ALL.into_iter().filter(differs).collect();
        let told = std::mem::take(&mut *catalog.told.lock().expect(LOCK));
        if !seen.is_empty() || !told.is_empty() {
            let _ = catalog.changes.send(Change { seen, told, rules: None }); // Nobody may be listening.
        }
        announced = now;
    }
}
