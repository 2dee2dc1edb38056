//! May a call be made a second time, or would that be too many?
//!
//! When a server is in trouble, calls that are made again are what finishes it off. So no more of
//! them are made than a fifth of all calls, and ten a second besides, so that a gateway with few
//! calls can do it too. What was saved up is bounded.
//!
//! Costs a call nothing: how many there were is read only when one is to be made again.

use std::sync::Mutex;

use tokio::time::Instant;

/// One in so many calls may be made again.
const ONE_IN: f64 = 5.0;
/// And so many a second.
const A_SECOND: f64 = 10.0;
/// As many as can be saved up.
const MOST: f64 = 100.0;

#[derive(Debug)]
pub struct Budget(Mutex<Saved>);

#[derive(Debug)]
struct Saved {
    left: f64,
    calls: u64,
    at: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self(Mutex::new(Saved { left: MOST, calls: 0, at: Instant::now() }))
    }
}

impl Budget {
    /// Takes one call out of the budget, if there is one left. `calls` is how many there have been.
    pub fn take(&self, calls: u64) -> bool {
        let mut saved = self.0.lock().expect("no code panics while it holds this lock");
        let now = Instant::now();
        let (new, time) = (calls.saturating_sub(saved.calls), now.duration_since(saved.at));
        let left = saved.left + new as f64 / ONE_IN + time.as_secs_f64() * A_SECOND;
        let left = left.min(MOST);
        let enough = left >= 1.0;
        *saved = Saved { left: if enough { left - 1.0 } else { left }, calls, at: now };
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_the_calls_are_made_again_and_a_few_more() {
        let budget = Budget::default();
        let again = (1..=10_000).filter(|calls| budget.take(*calls)).count();
        assert!((2095..=2100).contains(&again), "{again}");
        tokio::time::advance(Duration::from_secs(1)).await;
        let again = (0..100).filter(|_| budget.take(10_000)).count();
        assert!((10..=11).contains(&again), "{again}");
        // What is saved up is bounded.
        tokio::time::advance(Duration::from_secs(3600)).await;
        let again = (0..1000).filter(|_| budget.take(1_000_000)).count();
        assert_eq!(again, 100);
    }
}
