//! How much may a caller use in a day, and how much of it is used?
//!
//! A day is one of UTC. A call is counted before it is made, and given back if it came to nothing here.
//! Tokens and dollars are known only afterwards, so the last call of a day may go over; the next one
//! is refused. What was used is written to disk every second, as what has been added since: two
//! gateways with one database count for the same callers. A crash forgets a second at the most.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dashmap::DashMap;

use super::{cells::MOST, rules::whose, usage::Usage};
use crate::{
    call::Caller,
    error::Reached,
    store::{Store, Used},
    weaken,
};

const DAY: u64 = 86_400;
/// Whose use is counted when there are more callers than can be told apart.
const OTHERS: &str = "others";

/// What one caller may use in a day; nothing is said of what is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Most {
    pub calls: Option<u64>,
    pub tokens: Option<u64>,
    pub nano_usd: Option<u64>,
}

impl Most {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What all callers have used today.
#[derive(Debug, Default)]
pub struct Daily {
    used: DashMap<String, Today>,
    /// Some of it is not on disk.
    changed: AtomicBool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Today {
    day: u64,
    now: Sum,
    kept: Sum,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    calls: u64,
    tokens: u64,
    nano_usd: u64,
}

/// A call that was counted, until it is known whether it was made.
#[derive(Debug, Clone)]
pub struct Counted {
    name: String,
    day: u64,
}

impl Daily {
    /// Counts a call, or says which of the day's limits is used up.
    pub fn reserve(&self, caller: &Caller, most: &Most, now: SystemTime) -> Result<Counted, Box<Reached>> {
        let (day, rest) = day_and_rest(now);
        let name = self.name(caller);
        let mut today = self.used.entry(name.clone()).or_default();
        today.begin(day);
        let Sum { calls, tokens, nano_usd } = today.now;
        let over = |used: u64, most: Option<u64>| {
            most.is_some_and(|most| used >= most || weaken::is("limit-no-days"))
        };
        let limits = [
            ("limit.calls_per_day", over(calls, most.calls), most.calls.map(|most| most.to_string())),
            ("limit.tokens_per_day", over(tokens, most.tokens), most.tokens.map(|most| most.to_string())),
            ("limit.usd_per_day", over(nano_usd, most.nano_usd), most.nano_usd.map(dollars)),
        ];
        for (limit, over, most) in limits {
            if over && !weaken::is("limit-days") {
                let says = format!("{} a day", most.unwrap_or_default());
                return Err(Box::new(Reached { limit: limit.to_owned(), says, wait: rest, policy: None }));
            }
        }
        today.now.calls += 1;
        drop(today);
        self.changed.store(true, Ordering::Release);
        Ok(Counted { name, day })
    }

    /// The call was not made.
    pub fn give_back(&self, counted: &Counted) {
        if let Some(mut today) = self.used.get_mut(&counted.name).filter(|today| today.day == counted.day) {
            today.now.calls = today.now.calls.saturating_sub(1);
            self.changed.store(true, Ordering::Release);
        }
    }

    /// Adds what a call has used, to the day on which it ended.
    pub fn add(&self, counted: &Counted, usage: Usage, now: SystemTime) {
        let mut today = self.used.entry(counted.name.clone()).or_default();
        today.begin(day_and_rest(now).0);
        let sum = |so_far: u64, more: u64| so_far.saturating_add(more).min(i64::MAX.cast_unsigned());
        today.now.tokens = sum(today.now.tokens, usage.tokens);
        today.now.nano_usd = sum(today.now.nano_usd, usage.nano_usd);
        self.changed.store(true, Ordering::Release);
    }

    /// What is left of the day's limits, in lines.
    pub fn describe(&self, caller: &Caller, most: &Most, now: SystemTime) -> Vec<String> {
        let today = self.used.get(&self.name(caller)).filter(|today| today.day == day_and_rest(now).0);
        let Sum { calls, tokens, nano_usd } = today.map(|today| today.now).unwrap_or_default();
        let line = |name: &str, most: Option<u64>, used: u64| {
            most.map(|most| format!("limit.{name} {most}: {} left", most.saturating_sub(used)))
        };
        let usd = most.nano_usd.map(|most| {
            format!("limit.usd_per_day {}: {} left", dollars(most), dollars(most.saturating_sub(nano_usd)))
        });
        let lines =
            [line("calls_per_day", most.calls, calls), line("tokens_per_day", most.tokens, tokens), usd];
        lines.into_iter().flatten().collect()
    }

    /// Under which name a caller's use is counted.
    fn name(&self, caller: &Caller) -> String {
        let name = whose(caller).name();
        let room = self.used.len() < MOST || self.used.contains_key(&name);
        if room { name } else { OTHERS.to_owned() }
    }

    /// Goes on with what was used earlier today.
    pub async fn restore(&self, store: &Store, now: SystemTime) {
        let (day, _) = day_and_rest(now);
        for Used { caller, calls, tokens, nano_usd } in store.used_on(day).await {
            let sum = Sum {
                calls: calls.unsigned_abs(),
                tokens: tokens.unsigned_abs(),
                nano_usd: nano_usd.unsigned_abs(),
            };
            self.used.insert(caller, Today { day, now: sum, kept: sum });
        }
    }

    /// Writes what has changed to disk, and forgets what was before today.
    pub async fn keep(&self, store: &Store, now: SystemTime) {
        if !self.changed.swap(false, Ordering::AcqRel) {
            return;
        }
        let (day, _) = day_and_rest(now);
        let mut added = Vec::new();
        self.used.retain(|name, today| {
            let Sum { calls, tokens, nano_usd } = today.now;
            let grown = |now: u64, kept: u64| now.wrapping_sub(kept).cast_signed();
            if today.day == day && today.now != today.kept {
                added.push(Used {
                    caller: name.clone(),
                    calls: grown(calls, today.kept.calls),
                    tokens: grown(tokens, today.kept.tokens),
                    nano_usd: grown(nano_usd, today.kept.nano_usd),
                });
                today.kept = today.now;
            }
            today.day == day
        });
        store.add_used(day, &added).await;
    }
}

impl Today {
    fn begin(&mut self, day: u64) {
        if self.day != day {
            *self = Self { day, ..Self::default() };
        }
    }
}

/// Which day it is, counted from 1970, and how long it still is.
fn day_and_rest(now: SystemTime) -> (u64, Duration) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let day = since.as_secs() / DAY;
    (day, Duration::from_secs((day + 1) * DAY).saturating_sub(since))
}

fn dollars(nano_usd: u64) -> String {
    let text = format!("{}.{:09}", nano_usd / 1_000_000_000, nano_usd % 1_000_000_000);
    let cents = text.len() - 7;
    let short = text.trim_end_matches('0');
    format!("${}", &text[..short.len().max(cents)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { calls: Some(2), tokens: Some(100), nano_usd: Some(1_500_000_000) };

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(20_000 * DAY + seconds)
    }

    fn refused(daily: &Daily, seconds: u64) -> Option<(String, u64)> {
        let refusal = daily.reserve(&Caller::Local, &MOST, at(seconds)).err()?;
        Some((refusal.limit, refusal.wait.as_secs()))
    }

    #[test]
    fn a_day_s_calls_come_back_at_midnight() {
        let daily = Daily::default();
        assert_eq!(refused(&daily, 10), None);
        assert_eq!(refused(&daily, 20), None);
        assert_eq!(refused(&daily, DAY - 30), Some(("limit.calls_per_day".into(), 30)));
        assert_eq!(refused(&daily, DAY), None);
    }

    #[test]
    fn a_call_that_was_not_made_is_given_back() {
        let daily = Daily::default();
        let counted = daily.reserve(&Caller::Local, &MOST, at(0)).unwrap();
        daily.give_back(&counted);
        daily.reserve(&Caller::Local, &MOST, at(1)).unwrap();
        assert_eq!(daily.describe(&Caller::Local, &MOST, at(1))[0], "limit.calls_per_day 2: 1 left");
        daily.give_back(&Counted { day: 3, ..counted });
        assert_eq!(daily.describe(&Caller::Local, &MOST, at(1))[0], "limit.calls_per_day 2: 1 left");
    }

    #[test]
    fn tokens_and_dollars_are_counted_when_they_are_known() {
        for (tokens, nano_usd, limit) in
            [(100, 0, "limit.tokens_per_day"), (0, 1_500_000_000, "limit.usd_per_day")]
        {
            let daily = Daily::default();
            let counted = daily.reserve(&Caller::Local, &MOST, at(0)).unwrap();
            daily.add(&counted, Usage { tokens: tokens / 2, nano_usd: nano_usd / 2 }, at(1));
            daily.give_back(&counted);
            assert_eq!(refused(&daily, 2), None);
            daily.add(&counted, Usage { tokens: tokens / 2, nano_usd: nano_usd / 2 }, at(3));
            assert_eq!(refused(&daily, 4), Some((limit.into(), DAY - 4)));
        }
    }

    #[tokio::test]
    async fn what_was_used_is_there_after_a_restart() {
        let store = Store::in_memory().await.unwrap();
        let daily = Daily::default();
        let counted = daily.reserve(&Caller::Local, &MOST, at(0)).unwrap();
        daily.keep(&store, at(1)).await;
        daily.add(&counted, Usage { tokens: 40, nano_usd: 7 }, at(2));
        daily.keep(&store, at(3)).await;
        daily.keep(&store, at(4)).await;
        let again = Daily::default();
        again.restore(&store, at(5)).await;
        let lines = again.describe(&Caller::Local, &MOST, at(6));
        let left = [
            "calls_per_day 2: 1 left",
            "tokens_per_day 100: 60 left",
            "usd_per_day $1.50: $1.499999993 left",
        ];
        assert_eq!(lines, left.map(|line| format!("limit.{line}")));
        again.restore(&store, at(DAY)).await;
        again.keep(&store, at(DAY)).await;
        assert_eq!(refused(&again, DAY), None);
    }
}
