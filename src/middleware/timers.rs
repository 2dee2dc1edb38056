//! How does one timer serve many calls, one after the other?
//!
//! Most calls are answered long before their time is over, and to give a timer a place among all
//! others and to take it away again costs more than to wait. So a timer that was not needed keeps
//! its place until another call takes it. If it goes off before that one's time, it is set anew.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use futures_util::FutureExt as _;
use tokio::time::{Instant, Sleep};

/// Timers that are kept; of more, those that come back end.
const MOST: usize = 256;

/// Timers that nobody waits for.
#[derive(Debug, Default)]
pub struct Timers(Mutex<Vec<Pin<Box<Sleep>>>>);

/// A timer of one call's, until this is dropped.
struct Taken {
    timer: Option<Pin<Box<Sleep>>>,
    from: Arc<Timers>,
}

impl Timers {
    fn list(&self) -> MutexGuard<'_, Vec<Pin<Box<Sleep>>>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// Waits until a time at the longest. None if it is over.
    pub async fn wait<F>(self: Arc<Self>, due: Instant, mut future: F) -> Option<F::Output>
    where
        F: Future + Unpin,
    {
        let mut taken = Taken { timer: None, from: self };
        poll_fn(|context| {
            let done = future.poll_unpin(context);
            if done.is_ready() {
                return done.map(Some);
            }
            let timer = taken.timer(due);
            while timer.as_mut().poll(context).is_ready() {
                if timer.deadline() >= due {
                    return std::task::Poll::Ready(None);
                }
                timer.as_mut().reset(due);
            }
            std::task::Poll::Pending
        })
        .await
    }
}

impl Taken {
    /// One that goes off at this time or before.
    fn timer(&mut self, due: Instant) -> &mut Pin<Box<Sleep>> {
        self.timer.get_or_insert_with(|| {
            let kept = self.from.list().pop();
            let mut timer = kept.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            timer
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(timer) = self.timer.take() else { return };
        let mut list = self.from.list();
        if list.len() < MOST {
            list.push(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_not_needed_serves_whoever_comes_next() {
        let timers = Arc::new(Timers::default());
        let after = |seconds| Instant::now() + Duration::from_secs(seconds);
        let slow = || Box::pin(tokio::time::sleep(Duration::from_secs(1)));
        assert_eq!(Arc::clone(&timers).wait(after(5), slow()).await, Some(()));
        assert_eq!(timers.list().len(), 1);
        for seconds in [9, 2, 60] {
            let begun = Instant::now();
            assert_eq!(Arc::clone(&timers).wait(after(seconds), pending::<()>()).await, None);
            assert_eq!(begun.elapsed().as_secs(), seconds, "neither when it was set for before nor later");
            assert_eq!(timers.list().len(), 1);
        }
    }
}
