//! How many requests are under way at once, and who is next?
//!
//! Each caller has a line of his own, and its head stands in the common line. So nobody has more
//! places in the common line than he may have requests under way, however many he sends, and both
//! lines are served in order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::upstream::{Code, Failure, Phase};

/// The lines.
#[derive(Debug)]
pub struct Queue {
    all: Arc<Semaphore>,
    per_caller: usize,
    /// How many more of a caller's may wait.
    waiting: usize,
    patience: Duration,
    callers: Mutex<HashMap<String, Weak<Line>>>,
}

/// One caller's.
#[derive(Debug)]
struct Line {
    /// Under way, or in the common line.
    running: Arc<Semaphore>,
    /// Those and the ones that wait.
    present: Arc<Semaphore>,
}

/// A place among the requests under way, until it is dropped.
#[derive(Debug)]
pub struct Held {
    /// In this order, so that whoever is let in finds room everywhere.
    _all: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
    _present: OwnedSemaphorePermit,
    _line: Arc<Line>,
}

impl Queue {
    pub fn new(all: usize, per_caller: usize, waiting: usize, patience: Duration) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(all.clamp(1, Semaphore::MAX_PERMITS)));
        let per_caller = per_caller.clamp(1, Semaphore::MAX_PERMITS / 2);
        let waiting = waiting.min(Semaphore::MAX_PERMITS / 2);
        Arc::new(Self { all, per_caller, waiting, patience, callers: Mutex::default() })
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<String, Weak<Line>>> {
        self.callers.lock().expect("no code panics while it holds this lock")
    }

    fn line(&self, caller: &str) -> Arc<Line> {
        let mut callers = self.callers();
        if let Some(line) = callers.get(caller).and_then(Weak::upgrade) {
            return line;
        }
        callers.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Line {
            running: Arc::new(Semaphore::new(self.per_caller)),
            present: Arc::new(Semaphore::new(self.per_caller + self.waiting)),
        });
        callers.insert(caller.to_owned(), Arc::downgrade(&line));
        line
    }

    /// A place at once, if there is one and nobody waits for it.
    pub fn try_enter(&self, caller: &str) -> Option<Held> {
        let line = self.line(caller);
        let present = Arc::clone(&line.present).try_acquire_owned().ok()?;
        let running = Arc::clone(&line.running).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Held { _all: all, _running: running, _present: present, _line: line })
    }

    /// A place, as soon as it is this caller's turn.
    pub async fn enter(&self, caller: &str) -> Result<Held, Box<Failure>> {
        let full = |why: &str| Box::new(Failure::new(Code::RateLimited, Phase::Connecting, why));
        let line = self.line(caller);
        let present = Arc::clone(&line.present)
            .try_acquire_owned()
            .map_err(|_| full("too many of your requests wait already; wait for one of them"))?;
        let waiting = async {
            let running = Arc::clone(&line.running).acquire_owned().await.ok()?;
            Some((running, Arc::clone(&self.all).acquire_owned().await.ok()?))
        };
        match tokio::time::timeout(self.patience, waiting).await {
            Ok(Some((running, all))) => {
                Ok(Held { _all: all, _running: running, _present: present, _line: Arc::clone(&line) })
            }
            Ok(None) | Err(_) => Err(full("too many requests are under way; try again in a moment")),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_so_many_and_others_wait_their_time() {
        let queue = Queue::new(3, 2, 1, SECOND);
        let one = queue.try_enter("a").unwrap();
        let _two = queue.try_enter("a").unwrap();
        assert!(queue.try_enter("a").is_none());
        let mut waiting = Box::pin(queue.enter("a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(queue.enter("a").await.unwrap_err().code, Code::RateLimited, "the line is full");
        let _three = queue.try_enter("b").unwrap();
        assert!(queue.try_enter("b").is_none(), "all places are taken");
        drop(one);
        assert!(waiting.await.is_ok());
        assert!(queue.enter("c").await.is_ok(), "the one that waited is gone already");
        let (_four, mut late) = (queue.try_enter("c"), Box::pin(queue.enter("d")));
        assert!(late.as_mut().now_or_never().is_none());
        assert_eq!(late.await.unwrap_err().code, Code::RateLimited, "a second has gone by");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_most_does_not_keep_others_out() {
        let queue = Queue::new(2, 2, 100, 100 * SECOND);
        let mut running: Vec<_> = (0..2).map(|_| queue.try_enter("greedy").unwrap()).collect();
        let mut greedy: Vec<_> = (0..50).map(|_| Box::pin(queue.enter("greedy"))).collect();
        assert!(greedy.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        let mut modest = Box::pin(queue.enter("modest"));
        assert!(modest.as_mut().now_or_never().is_none());
        running.pop();
        assert!(modest.now_or_never().is_some(), "fifty others came first, and none of them is next");
    }

    #[tokio::test]
    async fn lines_of_callers_who_left_are_not_kept() {
        let queue = Queue::new(8, 2, 1, SECOND);
        for number in 0..100 {
            drop(queue.try_enter(&number.to_string()));
        }
        assert!(queue.callers().len() <= 2);
    }
}
