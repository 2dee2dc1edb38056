//! What does the simulator remember between requests?

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde_json::Value;

use super::{
    Settings,
    account::{Account, Purchase},
    bill::Bill,
    catalogue::Catalogue,
    chat::Kept,
    clock::Clock,
    journal::Journal,
    random::{self, Random},
    rules::Rules,
};

/// Of generations, and of sessions, only so many are remembered.
const MOST: usize = 10_000;

/// Everything that lasts.
#[derive(Debug)]
pub struct World {
    pub settings: Settings,
    pub catalogue: Catalogue,
    pub clock: Clock,
    pub journal: Journal,
    pub rules: Mutex<Rules>,
    account: Mutex<Account>,
    generations: Mutex<Recent<(u64, Value)>>,
    /// What the messages of each session were, by their digests.
    sessions: Mutex<Recent<Vec<u64>>>,
    /// Answers that may be given again.
    answers: Mutex<Recent<Kept>>,
    counter: AtomicU64,
}

impl World {
    pub fn new(settings: Settings) -> Self {
        Self {
            catalogue: Catalogue::new(settings.broken_entries),
            settings,
            clock: Clock::default(),
            journal: Journal::default(),
            rules: Mutex::default(),
            account: Mutex::default(),
            generations: Mutex::default(),
            sessions: Mutex::default(),
            answers: Mutex::default(),
            counter: AtomicU64::new(0),
        }
    }

    /// As if it had just been started.
    pub fn reset(&self) {
        self.clock.reset();
        self.journal.clear();
        *self.rules.lock().expect("no code panics while it holds this lock") = Rules::default();
        *self.account() = Account::default();
        *self.generations() = Recent::default();
        *self.sessions.lock().expect("no code panics while it holds this lock") = Recent::default();
        *self.answers() = Recent::default();
        self.counter.store(0, Relaxed);
    }

    pub fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().expect("no code panics while it holds this lock")
    }

    fn generations(&self) -> MutexGuard<'_, Recent<(u64, Value)>> {
        self.generations.lock().expect("no code panics while it holds this lock")
    }

    fn answers(&self) -> MutexGuard<'_, Recent<Kept>> {
        self.answers.lock().expect("no code panics while it holds this lock")
    }

    /// An answer that may still be given again.
    pub fn kept(&self, key: &str) -> Option<Kept> {
        self.answers().get(key).filter(|kept| kept.until_ms > self.clock.now()).cloned()
    }

    pub fn keep(&self, key: String, kept: Kept) {
        self.answers().put(key, kept);
    }

    /// A number that is never the same.
    pub fn count(&self) -> u64 {
        self.counter.fetch_add(1, Relaxed)
    }

    /// Chance that depends on the seed and on `what` alone.
    pub fn random(&self, what: &str) -> Random {
        Random::new(self.settings.seed, what)
    }

    /// `gen-1763683202-0aB3dE6gH9jK2mN5pQ8u`: the time, and what the counter makes of the seed.
    pub fn generation_id(&self) -> String {
        let (seed, count) = (self.settings.seed.to_le_bytes(), self.count().to_le_bytes());
        format!("gen-{}-{}", self.clock.now() / 1000, random::base62(&[b"generation", &seed, &count], 20))
    }

    /// How many of the first messages are the same as in the request before this one of the session.
    pub fn known_messages(&self, session: &str, messages: Vec<u64>) -> usize {
        let mut sessions = self.sessions.lock().expect("no code panics while it holds this lock");
        let before = sessions.get(session).map_or(&[][..], Vec::as_slice);
        let same = before.iter().zip(&messages).take_while(|(one, other)| one == other).count();
        // The newest message is never read from a cache, or there would be nothing to answer.
        let same = same.min(messages.len().saturating_sub(1));
        sessions.put(session.to_owned(), messages);
        same
    }

    /// An answer has come to its end, with so many tokens delivered.
    pub fn settle(&self, request: u64, bill: &Bill, completion: u64, charge: bool, cancelled: bool) {
        let now = self.clock.now();
        let cost = if charge { bill.cost(completion).total() } else { Default::default() };
        if charge {
            let reasoning = bill.reasoning.min(completion);
            let (model, prompt, cached) = (&bill.model, bill.prompt, bill.cached);
            let purchase = Purchase { model, prompt, cached, completion, reasoning, cost };
            self.account().spend(bill.holder, &purchase, now);
            self.journal.bill(request, cost);
        }
        let delay = u64::try_from(self.settings.generation_delay.as_millis()).unwrap_or(u64::MAX);
        let told = bill.generation(completion, cost, cancelled, now);
        self.generations().put(bill.id.clone(), (now.saturating_add(delay), told));
    }

    /// What is known of a generation by now.
    pub fn generation(&self, id: &str) -> Option<Value> {
        let generations = self.generations();
        let (from, told) = generations.get(id)?;
        (*from <= self.clock.now()).then(|| told.clone())
    }
}

/// A table that forgets what came first when it is full.
#[derive(Debug)]
struct Recent<T> {
    by_name: HashMap<String, T>,
    order: VecDeque<String>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Recent<T> {
    fn get(&self, name: &str) -> Option<&T> {
        self.by_name.get(name)
    }

    fn put(&mut self, name: String, what: T) {
        if self.by_name.insert(name.clone(), what).is_none() {
            self.order.push_back(name);
        }
        if self.order.len() > MOST
            && let Some(first) = self.order.pop_front()
        {
            self.by_name.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_beginning_that_is_the_same_is_known() {
        let world = World::new(Settings::default());
        assert_eq!(world.known_messages("s", vec![1, 2]), 0);
        assert_eq!(world.known_messages("s", vec![1, 2, 3]), 2);
        assert_eq!(world.known_messages("s", vec![1, 2, 3]), 2);
        assert_eq!(world.known_messages("s", vec![9, 2, 3, 4]), 0);
        assert_eq!(world.known_messages("t", vec![9, 2, 3, 4, 5]), 0);
    }

    #[test]
    fn what_came_first_is_forgotten_first() {
        let mut recent = Recent::default();
        for number in 0..=MOST {
            recent.put(number.to_string(), number);
        }
        assert_eq!((recent.get("0"), recent.get("1"), recent.by_name.len()), (None, Some(&1), MOST));
    }
}
