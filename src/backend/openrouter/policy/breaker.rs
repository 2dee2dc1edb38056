//! What fails again and again: when is it left alone, and when asked again?
//!
//! After so many failures within a while the answer is no, for a while. Then one call may try, and
//! what comes of it decides for all. The time is an argument.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

/// More names than anybody uses; who makes up models must not fill the memory.
const MOST_NAMES: usize = 1024;

/// It is left alone until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub until: Instant,
}

/// All that may be left alone, by name.
#[derive(Debug)]
pub struct Breakers {
    most: u32,
    window: Duration,
    rest: Duration,
    known: Mutex<HashMap<String, Breaker>>,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: VecDeque<Instant>,
    open_until: Option<Instant>,
    /// A call is finding out.
    probing: bool,
}

/// A call's right to try. Whoever drops it without a word gives the next one his chance.
#[derive(Debug)]
pub struct Try<'a> {
    breakers: &'a Breakers,
    name: String,
    probe: bool,
}

impl Breakers {
    pub fn new(most: u32, window: Duration, rest: Duration) -> Self {
        Self { most, window, rest, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Breaker>> {
        self.known.lock().expect("no code panics while it holds this lock")
    }

    /// May it be asked now?
    pub fn admit(&self, name: &str, now: Instant) -> Result<Try<'_>, Open> {
        let mut probe = false;
        if let Some(breaker) = self.known().get_mut(name)
            && let Some(until) = breaker.open_until
        {
            if now < until || breaker.probing {
                return Err(Open { until: until.max(now) });
            }
            breaker.probing = true;
            probe = true;
        }
        Ok(Try { breakers: self, name: name.to_owned(), probe })
    }

    /// What is left alone now.
    pub fn open(&self, now: Instant) -> Vec<String> {
        let known = self.known();
        let open =
            known.iter().filter(|(_, one)| one.open_until.is_some_and(|until| now < until || one.probing));
        let mut names: Vec<_> = open.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    fn forget_old(known: &mut HashMap<String, Breaker>, window: Duration, now: Instant) {
        known.retain(|_, one| {
            one.open_until.is_some() || one.failures.back().is_some_and(|last| now - *last < window)
        });
    }
}

impl Try<'_> {
    pub fn worked(self) {
        if self.probe {
            self.breakers.known().remove(&self.name);
        }
    }

    pub fn failed(self, now: Instant) {
        let Breakers { most, window, rest, .. } = *self.breakers;
        let mut known = self.breakers.known();
        if known.len() >= MOST_NAMES && !known.contains_key(&self.name) {
            Breakers::forget_old(&mut known, window, now);
        }
        if most == 0 || known.len() >= MOST_NAMES && !known.contains_key(&self.name) {
            return;
        }
        let breaker = known.entry(self.name.clone()).or_default();
        breaker.failures.push_back(now);
        while breaker.failures.front().is_some_and(|first| now - *first >= window) {
            breaker.failures.pop_front();
        }
        if self.probe || breaker.failures.len() >= most as usize {
            breaker.open_until = Some(now + rest);
            breaker.failures.clear();
        }
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(breaker) = self.breakers.known().get_mut(&self.name)
        {
            breaker.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breakers() -> Breakers {
        Breakers::new(3, 30 * SECOND, 15 * SECOND)
    }

    fn fail(breakers: &Breakers, now: Instant) {
        breakers.admit("m", now).unwrap().failed(now);
    }

    #[test]
    fn too_many_failures_open_it_and_one_call_finds_out() {
        let (breakers, now) = (breakers(), Instant::now());
        for second in 0..3 {
            fail(&breakers, now + second * SECOND);
        }
        let until = now + 17 * SECOND;
        assert_eq!(breakers.admit("m", now + 3 * SECOND).unwrap_err(), Open { until });
        assert!(breakers.admit("other", now).is_ok());
        let probe = breakers.admit("m", until).unwrap();
        assert!(breakers.admit("m", until).is_err(), "one is enough to find out");
        probe.worked();
        assert!(breakers.admit("m", until).is_ok() && breakers.open(until).is_empty());
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let (breakers, now) = (breakers(), Instant::now());
        (0..3).for_each(|_| fail(&breakers, now));
        fail(&breakers, now + 15 * SECOND);
        assert_eq!(breakers.open(now + 29 * SECOND), ["m"]);
        assert!(breakers.admit("m", now + 30 * SECOND).is_ok());
    }

    #[test]
    fn a_probe_that_was_cancelled_decides_nothing() {
        let (breakers, now) = (breakers(), Instant::now());
        (0..3).for_each(|_| fail(&breakers, now));
        drop(breakers.admit("m", now + 15 * SECOND).unwrap());
        assert!(breakers.admit("m", now + 15 * SECOND).is_ok());
    }

    #[test]
    fn failures_far_apart_do_not_add_up() {
        let (breakers, now) = (breakers(), Instant::now());
        for minute in 0..9 {
            fail(&breakers, now + minute * 20 * SECOND);
        }
        assert!(breakers.open(now + 180 * SECOND).is_empty());
    }

    #[test]
    fn names_without_end_are_not_kept() {
        let (breakers, now) = (breakers(), Instant::now());
        for number in 0..3000 {
            breakers.admit(&number.to_string(), now).unwrap().failed(now);
        }
        assert_eq!(breakers.known().len(), MOST_NAMES);
        let later = now + 31 * SECOND;
        breakers.admit("late", later).unwrap().failed(later);
        assert_eq!(breakers.known().len(), 1);
    }
}
