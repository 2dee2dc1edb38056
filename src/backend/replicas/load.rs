//! How much does a replica have to do, and how fast is it?
//!
//! The time of its calls is a peak EWMA: a call that took longer than the average sets it, shorter
//! ones bring it down by and by, and with it comes down what nobody has asked for a while. Failures do
//! not count: who fails at once is not fast. Times the calls under way, it is what another call would
//! have to wait. (The measure is Finagle's.)

use std::time::Duration;

use tokio::time::Instant;

/// How long a peak is remembered.
const MEMORY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Load {
    pub under_way: usize,
    /// Of the average, in seconds. Zero before the first call.
    time: f64,
    at: Instant,
}

impl Load {
    pub fn new(now: Instant) -> Self {
        Self { under_way: 0, time: 0.0, at: now }
    }

    /// Notes how long a call took.
    pub fn took(&mut self, time: Duration, now: Instant) {
        let (time, before) = (time.as_secs_f64(), self.time(now));
        let weight = decay(now.duration_since(self.at));
        self.time = if time > before { time } else { self.time * weight + time * (1.0 - weight) };
        self.at = now;
    }

    /// The average, in seconds.
    pub fn time(&self, now: Instant) -> f64 {
        self.time * decay(now.duration_since(self.at))
    }

    /// What another call would have to wait. Where nothing is known yet, one call finds it out.
    pub fn wait(&self, now: Instant) -> f64 {
        match self.under_way {
            1.. if self.time == 0.0 => f64::INFINITY,
            calls => self.time(now) * (calls + 1) as f64,
        }
    }
}

fn decay(since: Duration) -> f64 {
    (-since.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_call_counts_at_once_and_a_fast_one_by_and_by() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        let slow = Duration::from_secs(1);
        let fast = Duration::from_millis(10);
        load.took(fast, now);
        load.took(slow, now);
        assert!((load.time(now) - 1.0).abs() < 1e-9);
        for _ in 0..10 {
            now += Duration::from_millis(100);
            load.took(fast, now);
        }
        let soon = load.time(now);
        assert!((0.8..1.0).contains(&soon), "{soon}");
        for _ in 0..600 {
            now += Duration::from_millis(100);
            load.took(fast, now);
        }
        let later = load.time(now);
        assert!((0.009..0.02).contains(&later), "{later}");
    }

    #[tokio::test]
    async fn another_call_waits_for_those_that_are_under_way() {
        let now = Instant::now();
        let (mut fast, mut slow) = (Load::new(now), Load::new(now));
        fast.took(Duration::from_millis(10), now);
        slow.took(Duration::from_millis(50), now);
        fast.under_way = 3;
        assert!(fast.wait(now) < slow.wait(now));
        fast.under_way = 5;
        assert!(fast.wait(now) > slow.wait(now));
    }
}
