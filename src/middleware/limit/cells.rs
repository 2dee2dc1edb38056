//! How much is left of one limit, for each whom it is counted for?
//!
//! The arithmetic is GCRA, by `governor`: of each key one number is kept, the time at which it would
//! have used up what is allowed so far. What is governor's own way of keeping it, take at once or
//! refuse, does not do for a call that several limits speak of. So the numbers are kept here: with
//! its lock held, a cell says first whether the call fits, and is changed only when all of them have
//! said yes. All locks of a call are taken in the order of the limits, and held for the arithmetic.
//!
//! There are never more than [`MOST`] cells to a limit. Those that are full again say nothing and are
//! forgotten; whoever has used anything keeps his. Where even that is not enough, newcomers share one
//! cell: they may be refused for what others did, and nobody else is.

use std::{
    hash::{Hash, Hasher},
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use dashmap::{DashMap, Entry};
use foldhash::quality::RandomState;
use governor::{
    Quota, RateLimiter, clock::Clock, middleware::StateInformationMiddleware, nanos::Nanos, state::StateStore,
};
use tokio::time::Instant;

use super::rate::Rate;
use crate::{call::Caller, weaken};

/// How many keys of one limit are told apart.
pub const MOST: usize = 100_000;

/// For whom a limit is counted apart; none where all share it.
pub type Key = Option<Caller>;

/// What is left of one limit.
#[derive(Debug)]
pub struct Cells {
    limiter: RateLimiter<Place, Staging, Watch, StateInformationMiddleware>,
    watch: Watch,
    rate: Rate,
    by_key: DashMap<Key, Arc<Cell>, RandomState>,
    count: AtomicUsize,
    /// Of all who came when there was no room.
    shared: Arc<Cell>,
}

/// What one key has used.
#[derive(Debug, Default)]
pub struct Cell {
    lock: Mutex<()>,
    /// In nanoseconds; 0 if nothing was ever used.
    used: AtomicU64,
    /// What it would be after the call that holds the lock.
    wanted: AtomicU64,
}

impl Cell {
    pub fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().expect("no code panics while it holds this lock")
    }

    /// Takes what was looked at last. The lock is held since.
    pub fn take(&self) {
        self.used.store(self.wanted.load(Relaxed), Relaxed);
    }
}

impl Cells {
    pub fn new(rate: Rate) -> Self {
        let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(rate.period()).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let watch = Watch(Instant::now());
        Self {
            limiter: RateLimiter::new(quota.allow_burst(burst), Staging, watch.clone()),
            watch,
            rate,
            by_key: DashMap::default(),
            count: AtomicUsize::new(0),
            shared: Arc::default(),
        }
    }

    /// The cell of a key.
    pub fn of(&self, key: &Key) -> Arc<Cell> {
        if let Some(cell) = self.by_key.get(key) {
            return Arc::clone(&cell);
        }
        if self.count.fetch_add(1, Relaxed) >= MOST && !weaken::is("limit-unbounded") {
            self.count.fetch_sub(1, Relaxed);
            return Arc::clone(&self.shared);
        }
        match self.by_key.entry(key.clone()) {
            Entry::Occupied(there) => {
                self.count.fetch_sub(1, Relaxed); // Somebody was faster.
                Arc::clone(there.get())
            }
            Entry::Vacant(place) => Arc::clone(&place.insert(Arc::default())),
        }
    }

    /// Does something of this cost fit? Says how much would be left, or how long to wait. The
    /// cell's lock is held.
    pub fn look(&self, cell: &Arc<Cell>, cost: u32) -> Result<u32, Duration> {
        let cost = NonZeroU32::new(cost.min(self.rate.burst)).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_key_n(&Place(Arc::clone(cell)), cost) {
            Ok(Ok(state)) => Ok(state.remaining_burst_capacity()),
            Ok(Err(not)) => Err(not.wait_time_from(self.watch.now())),
            // More than the burst, which the line above made impossible.
            Err(_) => Err(self.rate.period() * self.rate.burst),
        }
    }

    /// Gives back what was taken for a call that was refused after all. That is as if it had never
    /// been taken, since a cell can only be fuller than it would have been, by exactly that.
    pub fn give_back(&self, cell: &Cell, cost: u32) {
        let period = u64::try_from(self.rate.period().as_nanos()).unwrap_or(u64::MAX);
        let back = period.saturating_mul(cost.min(self.rate.burst).into());
        let _lock = cell.lock();
        cell.used.store(cell.used.load(Relaxed).saturating_sub(back).max(1), Relaxed);
    }

    /// How much is left for a key, without taking any.
    pub fn left(&self, key: &Key) -> u32 {
        let Some(cell) = self.by_key.get(key).map(|cell| Arc::clone(&cell)) else { return self.rate.burst };
        let _lock = cell.lock();
        self.look(&cell, 1).map_or(0, |left| left.saturating_add(1))
    }

    /// Forgets the keys whose cells are full again.
    pub fn sweep(&self) {
        let now = self.watch.now().as_nanos();
        let mut gone = 0;
        self.by_key.retain(|_, cell| {
            // Nobody can come to hold it meanwhile: the way to it leads through this table.
            let kept = Arc::strong_count(cell) > 1 || u128::from(cell.used.load(Relaxed)) > now;
            gone += usize::from(!kept);
            kept
        });
        self.count.fetch_sub(gone, Relaxed);
    }
}

/// The time since a limit was made. A step of the system's clock changes nothing.
#[derive(Debug, Clone)]
struct Watch(Instant);

impl Clock for Watch {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Where governor finds a key's number: in the cell itself, which was looked up before.
#[derive(Debug, Clone)]
struct Place(Arc<Cell>);

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// Puts the new number beside the old one.
#[derive(Debug)]
struct Staging;

impl StateStore for Staging {
    type Key = Place;

    fn measure_and_replace<T, F, E>(&self, place: &Place, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let Place(cell) = place;
        let used = cell.used.load(Relaxed);
        let (outcome, wanted) = decide((used > 0).then(|| used.into()))?;
        cell.wanted.store(wanted.into(), Relaxed);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::middleware::limit::rate::Per;

    fn cells(count: u32, burst: u32) -> Cells {
        let mut rate = Rate::new(count, 1, Per::Caller);
        rate.burst = burst;
        Cells::new(rate)
    }

    fn taken(cells: &Cells, key: &Key, cost: u32) -> bool {
        let cell = cells.of(key);
        let _lock = cell.lock();
        cells.look(&cell, cost).map(|_| cell.take()).is_ok()
    }

    fn stranger(number: u32) -> Key {
        Some(Caller::Stranger(std::net::Ipv4Addr::from_bits(number).into()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_only_looked_at_is_not_taken() {
        let cells = cells(1, 2);
        let cell = cells.of(&None);
        for _ in 0..5 {
            let _lock = cell.lock();
            assert_eq!(cells.look(&cell, 1), Ok(1));
        }
        assert!(taken(&cells, &None, 2) && !taken(&cells, &None, 1));
        let _lock = cell.lock();
        assert_eq!(cells.look(&cell, 2), Err(Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_can_be_taken_again() {
        let cells = cells(10, 10);
        assert!(taken(&cells, &None, 7));
        cells.give_back(&cells.of(&None), 4);
        assert_eq!(cells.left(&None), 7);
        assert!(taken(&cells, &None, 7) && !taken(&cells, &None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn offenders_are_not_forgotten_and_idle_keys_are() {
        let cells = cells(1, 3);
        for number in 0..100 {
            assert!(taken(&cells, &stranger(number), 1));
        }
        assert!(taken(&cells, &stranger(7), 2));
        tokio::time::advance(Duration::from_millis(1500)).await;
        cells.sweep();
        assert_eq!(cells.by_key.len(), 1);
        assert!(taken(&cells, &stranger(7), 1) && !taken(&cells, &stranger(7), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_cells_than_that() {
        let cells = cells(1, 1);
        assert!(taken(&cells, &stranger(0), 1));
        for number in 1..1_000_000 {
            cells.of(&stranger(number));
        }
        assert_eq!(cells.by_key.len(), MOST);
        assert!(!taken(&cells, &stranger(0), 1), "who was there before is still known");
        assert!(taken(&cells, &stranger(2_000_000), 1));
        assert!(!taken(&cells, &stranger(2_000_001), 1), "newcomers share one cell");
        cells.sweep();
        assert_eq!(cells.by_key.len(), 1);
        assert!(taken(&cells, &stranger(2_000_001), 1), "and have their own when there is room again");
    }
}
