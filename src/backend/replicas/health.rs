//! Is a replica of use, by how its calls went?
//!
//! Real calls say it, and cost nothing more. A replica that fails too often is ejected: it gets no
//! calls until a probe was answered, and then few at first, since what fails under load is most
//! often well without. Each ejection is twice as long as the one before, until a minute without
//! failures has passed.
//!
//! Takes the time as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which a replica is ejected.
const IN_A_ROW: u32 = 5;
/// It is also ejected when half of so many calls in so much time have failed.
const MANY: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);
/// The first ejection, and the longest.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// How long a replica that is back has less than its part.
const RETURN: Duration = Duration::from_secs(10);
/// After this long without an ejection earlier ones are forgotten.
const FORGIVEN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Health {
    standing: Standing,
    failed_in_a_row: u32,
    window: Window,
    /// Ejections, one soon after the other.
    ejections: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    In,
    /// Gets no calls, since then and for at least so long.
    Ejected(Instant, Duration),
    /// Was ejected until then.
    Returning(Instant),
}

/// The calls of the last seconds.
#[derive(Debug)]
struct Window {
    since: Instant,
    calls: u32,
    failed: u32,
}

impl Health {
    pub fn new(now: Instant) -> Self {
        let window = Window { since: now, calls: 0, failed: 0 };
        Self { standing: Standing::In, failed_in_a_row: 0, window, ejections: 0 }
    }

    pub fn standing(&self, now: Instant) -> Standing {
        match self.standing {
            Standing::Returning(since) if now.duration_since(since) >= RETURN => Standing::In,
            standing => standing,
        }
    }

    /// What part of its calls it gets, from 0 to 1.
    pub fn part(&self, now: Instant) -> f64 {
        match self.standing(now) {
            Standing::In => 1.0,
            Standing::Ejected(..) => 0.0,
            Standing::Returning(since) => {
                (now.duration_since(since).as_secs_f64() / RETURN.as_secs_f64()).max(0.05)
            }
        }
    }

    pub fn succeeded(&mut self, now: Instant) {
        self.window.count(now, 0);
        self.failed_in_a_row = 0;
    }

    /// Notes a failure; gives how long the replica is ejected for, if that was one too many.
    pub fn failed(&mut self, now: Instant) -> Option<Duration> {
        self.window.count(now, 1);
        self.failed_in_a_row += 1;
        let many = self.window.calls >= MANY && self.window.failed * 2 >= self.window.calls;
        let out = matches!(self.standing, Standing::Ejected(..));
        (!out && (self.failed_in_a_row >= IN_A_ROW || many)).then(|| self.eject(now))
    }

    /// Ejects it, or ejects it for longer, since a probe failed. Gives how long.
    pub fn eject(&mut self, now: Instant) -> Duration {
        match self.standing {
            Standing::Returning(since) | Standing::Ejected(since, _)
                if now.duration_since(since) < LONGEST + FORGIVEN =>
            {
                self.ejections += 1;
            }
            Standing::In | Standing::Returning(_) | Standing::Ejected(..) => self.ejections = 1,
        }
        let time = (FIRST * 2u32.pow((self.ejections - 1).min(4))).min(LONGEST);
        self.standing = Standing::Ejected(now, time);
        self.failed_in_a_row = 0;
        self.window = Window { since: now, calls: 0, failed: 0 };
        time
    }

    /// A probe was answered.
    pub fn returns(&mut self, now: Instant) {
        self.standing = Standing::Returning(now);
    }
}

impl Window {
    fn count(&mut self, now: Instant, failed: u32) {
        if now.duration_since(self.since) >= WINDOW {
            *self = Self { since: now, calls: 0, failed: 0 };
        }
        self.calls += 1;
        self.failed += failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn five_failures_in_a_row_eject_and_four_do_not() {
        let now = Instant::now();
        let mut health = Health::new(now);
        for _ in 0..3 {
            assert!((0..4).all(|_| health.failed(now).is_none()));
            health.succeeded(now);
        }
        assert!((0..4).all(|_| health.failed(now).is_none()));
        assert_eq!(health.failed(now), Some(FIRST));
        assert_eq!(health.part(now), 0.0);
    }

    #[tokio::test]
    async fn half_of_twenty_in_ten_seconds_eject_and_fewer_or_older_ones_do_not() {
        let now = Instant::now();
        // 20 calls, half of which fail by turns: the last but one of them is the tenth failure.
        let mut health = Health::new(now);
        let out: Vec<_> = (0..20)
            .map(|at| {
                if at % 2 == 1 {
                    health.failed(now)
                } else {
                    health.succeeded(now);
                    None
                }
            })
            .collect();
        assert_eq!(out.iter().position(Option::is_some), Some(19));
        // The same over a longer time.
        let mut health = Health::new(now);
        let spread = (0..40).any(|at| {
            let now = now + SECOND * at;
            if at % 2 == 1 {
                health.failed(now).is_some()
            } else {
                health.succeeded(now);
                false
            }
        });
        assert!(!spread);
        // Fewer than half.
        let mut health = Health::new(now);
        let third = (0..300).any(|at| {
            if at % 3 == 1 {
                health.failed(now).is_some()
            } else {
                health.succeeded(now);
                false
            }
        });
        assert!(!third);
    }

    #[tokio::test]
    async fn ejections_grow_from_five_seconds_to_a_minute_and_are_forgiven() {
        let mut now = Instant::now();
        let mut health = Health::new(now);
        let mut times = Vec::new();
        for _ in 0..6 {
            let time = health.eject(now);
            times.push(time.as_secs());
            now += time;
        }
        assert_eq!(times, [5, 10, 20, 40, 60, 60]);
        health.returns(now);
        // Fails again soon.
        now += SECOND;
        assert_eq!(health.eject(now), LONGEST);
        now += LONGEST;
        health.returns(now);
        now += LONGEST + FORGIVEN;
        assert_eq!(health.eject(now), FIRST);
    }

    #[tokio::test]
    async fn a_replica_that_is_back_gets_its_part_by_and_by() {
        let now = Instant::now();
        let mut health = Health::new(now);
        health.eject(now);
        health.returns(now);
        assert_eq!(health.part(now), 0.05);
        assert_eq!(health.part(now + SECOND * 5), 0.5);
        assert_eq!(health.part(now + RETURN), 1.0);
        assert_eq!(health.standing(now + RETURN), Standing::In);
    }
}
