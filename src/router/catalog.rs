//! What do all backends offer, right now as far as is known?
//!
//! Each backend has a task that reads its lists: when a connection is made, when the backend
//! says that a list changed, and again after a failure. What was read last is shown until
//! something newer is known, over restarts too: a backend that starts, hangs or is dead costs
//! nobody a moment, only its own tools their freshness.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, mpsc, watch};

use super::{
    names, offering,
    view::{Note, Snapshot, Upstream},
};
use crate::{
    backend::{Backend, Notice},
    call::{Permit, Scope},
    store::Store,
    wire::mcp::{Era, List, Method},
};

mod shelf; // one backend

pub use shelf::Report;

use shelf::{Shelf, left_out};

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
    shelves: ArcSwap<Vec<Arc<Shelf>>>,
    store: Store,
    /// Signals that the snapshot may differ from what was announced.
    dirty: watch::Sender<u64>,
    changes: broadcast::Sender<Change>,
    /// Lists that backends have said changed, and which have been read since.
    told: Mutex<BTreeSet<List>>,
    /// Signals that a backend has been read, or has failed to be, for the first time.
    settled: watch::Sender<()>,
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

impl Catalog {
    /// A catalog of these backends, with what is known of them from earlier. Reading begins at
    /// once, in tasks that end with the catalog.
    pub async fn start(sources: Vec<Source>, store: Store) -> Arc<Self> {
        let mut shelves = Vec::new();
        let mut receivers = Vec::new();
        for Source { upstream, fingerprint, notices } in sources {
            shelves.push(Shelf::new(upstream, fingerprint, &store).await);
            receivers.push(notices);
        }
        let catalog = Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot(&shelves)),
            shelves: ArcSwap::from_pointee(shelves.clone()),
            store,
            dirty: watch::Sender::new(0),
            changes: broadcast::Sender::new(64),
            told: Mutex::default(),
            settled: watch::Sender::new(()),
        });
        for (shelf, notices) in shelves.into_iter().zip(receivers) {
            catalog.begin_reading(shelf, notices);
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
        let all = settled.wait_for(|()| self.shelves.load().iter().all(|shelf| shelf.reading().settled));
        let _ = tokio::time::timeout(longest, all).await;
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
        let shelves = self.shelves.load_full();
        let starting = shelves.iter().filter(|shelf| could_have(&shelf.upstream) && shelf.is_starting());
        let starting: Vec<_> = starting.collect();
        let Some(longest) = starting.iter().map(|shelf| shelf.upstream.patience).max() else { return false };
        let mut settled = self.settled.subscribe();
        let heard = settled.wait_for(|()| known() || !starting.iter().any(|shelf| shelf.is_starting()));
        let _ = tokio::time::timeout(longest, heard).await; // Then it is looked for all the same.
        true
    }

    /// Is anything known from an earlier run, or has every backend been heard of?
    pub fn is_known(&self) -> bool {
        self.shelves.load().iter().all(|shelf| {
            let reading = shelf.reading();
            reading.kept || reading.settled
        })
    }

    /// A backend by its name.
    pub fn backend(&self, name: &str) -> Option<Arc<dyn Backend>> {
        let shelves = self.shelves.load();
        let shelf = shelves.iter().find(|shelf| *shelf.upstream.name == *name)?;
        Some(Arc::clone(&shelf.upstream.backend))
    }

    pub fn reports(&self) -> Vec<Report> {
        let snapshot = self.snapshot.load();
        self.shelves.load().iter().map(|shelf| shelf.report(&snapshot)).collect()
    }

    pub fn notes(&self) -> Vec<Note> {
        self.snapshot.load().notes.clone()
    }

    /// Has these backends from now on in place of all of these names: those that are new, and those that
    /// are others than before. Gives back what was there before, for whoever is to close it.
    pub async fn replace(self: &Arc<Self>, gone: &BTreeSet<String>, new: Vec<Source>) -> Vec<Arc<Upstream>> {
        let mut shelves = self.shelves.load().to_vec();
        let (left, kept): (Vec<_>, Vec<_>) =
            shelves.drain(..).partition(|shelf| gone.contains(&*shelf.upstream.name));
        shelves = kept;
        let mut read = Vec::new();
        for Source { upstream, fingerprint, notices } in new {
            let shelf = Shelf::new(upstream, fingerprint, &self.store).await;
            shelves.push(Arc::clone(&shelf));
            read.push((shelf, notices));
        }
        // In the order in which a gateway has them that starts with all of these.
        shelves[1..].sort_by(|one, other| one.upstream.name.cmp(&other.upstream.name));
        self.shelves.store(Arc::new(shelves));
        self.rebuild();
        for (shelf, notices) in read {
            self.begin_reading(shelf, notices);
        }
        left.iter().for_each(|shelf| shelf.gone.cancel());
        left.iter().map(|shelf| Arc::clone(&shelf.upstream)).collect()
    }

    fn begin_reading(self: &Arc<Self>, shelf: Arc<Shelf>, notices: mpsc::Receiver<Notice>) {
        let (catalog, gone) = (Arc::downgrade(self), shelf.gone.clone());
        tokio::spawn(gone.run_until_cancelled_owned(keep_reading(catalog, shelf, notices)));
    }

    /// Ends all connections and children in good order.
    pub async fn close(&self) {
        let shelves = self.shelves.load_full();
        futures_util::future::join_all(shelves.iter().map(|shelf| shelf.upstream.backend.close())).await;
        self.store.close().await;
    }

    /// Reads one backend's lists; says whether that worked.
    async fn read(&self, shelf: &Shelf) -> bool {
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
        if shelf.settles() {
            self.settled.send_replace(());
        }
        ok
    }

    /// Has everybody told whose lists are others than by the rules before.
    pub fn rules_changed(&self, before: Arc<dyn Permit>) {
        let _ = self.changes.send(Change { rules: Some(before), ..Change::default() }); // Nobody may be listening.
    }

    fn tell(&self, lists: BTreeSet<List>) {
        self.told.lock().expect("no code panics while it holds this lock").extend(lists);
        self.dirty.send_modify(|count| *count += 1);
    }

    fn rebuild(&self) {
        self.snapshot.rcu(|_| snapshot(&self.shelves.load()));
        self.dirty.send_modify(|count| *count += 1);
    }
}

/// Reads one backend's lists whenever they may have changed.
async fn keep_reading(weak: Weak<Catalog>, shelf: Arc<Shelf>, mut notices: mpsc::Receiver<Notice>) {
    let mut pause = FIRST_PAUSE;
    let mut told = BTreeSet::new();
    loop {
        let Some(catalog) = weak.upgrade() else { return };
        let read = catalog.read(&shelf).await;
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
            let modern = shelf.is_modern();
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

fn snapshot(shelves: &[Arc<Shelf>]) -> Snapshot {
    let offered: Vec<_> =
        shelves.iter().map(|shelf| (Arc::clone(&shelf.upstream), shelf.offering.load_full())).collect();
    Snapshot::build(&offered)
}

/// Tells of changes once they have come to rest, and only of those that can be seen.
async fn announce(catalog: Weak<Catalog>, mut dirty: watch::Receiver<u64>) {
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
        let told =
            std::mem::take(&mut *catalog.told.lock().expect("no code panics while it holds this lock"));
        if !seen.is_empty() || !told.is_empty() {
            let _ = catalog.changes.send(Change { seen, told, rules: None }); // Nobody may be listening.
        }
        announced = now;
    }
}
