//! Since when is what was kept no longer true?
//!
//! Moments are counted, not timed. A call notes the count when it begins; whatever makes replies
//! untrue raises the count and notes it as well. So a reply that was on its way meanwhile is not
//! kept, however long it takes, and nothing has to be looked for to be thrown away.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use dashmap::DashMap;

use super::rule;
use crate::{call::Aim, middleware::fits, weaken};

/// Resources of one backend whose changes are told apart. With more, all of it counts as changed.
const MOST: usize = 256;

#[derive(Debug)]
pub struct Stamps {
    now: AtomicU64,
    /// What was asked for before is not kept, though what is kept stays.
    pub floor: AtomicU64,
    backends: DashMap<Arc<str>, Changes>,
    /// Names that writing tools make untrue, as patterns.
    names: Vec<(String, AtomicU64)>,
}

/// When a backend said that something changed.
#[derive(Debug, Default)]
struct Changes {
    all: u64,
    resources: HashMap<String, u64>,
}

impl Stamps {
    pub fn new(names: &[String]) -> Self {
        let names = names.iter().map(|pattern| (pattern.clone(), AtomicU64::new(0))).collect();
        Self { now: AtomicU64::new(0), floor: AtomicU64::new(0), backends: DashMap::new(), names }
    }

    /// This moment, for a call that begins.
    pub fn now(&self) -> u64 {
        self.now.load(SeqCst)
    }

    /// A moment after all that have begun.
    pub fn next(&self) -> u64 {
        self.now.fetch_add(1, SeqCst) + 1
    }

    /// Everything of this backend may be different.
    pub fn changed(&self, backend: &str) {
        let moment = self.next();
        let mut changes = self.backends.entry(backend.into()).or_default();
        *changes = Changes { all: moment, resources: HashMap::new() };
    }

    /// This resource of a backend is different, or one below it.
    pub fn updated(&self, backend: &str, uri: &str) {
        let moment = self.next();
        let mut changes = self.backends.entry(backend.into()).or_default();
        if changes.resources.len() < MOST || changes.resources.contains_key(uri) {
            changes.resources.insert(uri.to_owned(), moment);
        } else {
            *changes = Changes { all: moment, resources: HashMap::new() };
        }
    }

    /// A writing tool has run, or may have.
    pub fn written(&self, places: &[usize]) {
        let moment = self.next();
        for (_, at) in places.iter().filter_map(|place| self.names.get(*place)) {
            at.store(moment, SeqCst);
        }
    }

    /// Since when what is now said of something is true.
    pub fn since(&self, aim: &Aim) -> u64 {
        if weaken::is("cache-news") {
            return 0;
        }
        let mut since = self.backends.get(&aim.backend).map_or(0, |changes| changes.since(&aim.own));
        if !self.names.is_empty() {
            let name = rule::name(aim);
            let written = self.names.iter().filter(|(pattern, _)| fits(pattern, &name));
            since = written.map(|(_, at)| at.load(SeqCst)).fold(since, u64::max);
        }
        since
    }
}

impl Changes {
    fn since(&self, own: &str) -> u64 {
        let near = |uri: &String| own.starts_with(uri.as_str()) || uri.starts_with(own);
        let near = self.resources.iter().filter(|(uri, _)| near(uri)).map(|(_, at)| *at);
        near.fold(self.all, u64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Hints;

    /// Is what was asked for now still true after this?
    #[track_caller]
    fn check(backend: &str, own: &str, what: impl FnOnce(&Stamps), still: bool) {
        let stamps = Stamps::new(&["notes__*".to_owned()]);
        let begun = stamps.now();
        what(&stamps);
        let aim = Aim { backend: backend.into(), own: own.into(), hints: Hints::default() };
        assert_eq!(stamps.since(&aim) <= begun, still, "{backend} {own}");
        assert!(stamps.since(&aim) <= stamps.now(), "what is asked for after is true");
    }

    #[test]
    fn what_was_asked_for_before_a_change_is_not_true_after_it() {
        check("a", "x", |stamps| stamps.changed("a"), false);
        check("a", "x", |stamps| stamps.changed("b"), true);
        check("a", "file:///x", |stamps| stamps.updated("a", "file:///x"), false);
        check("a", "file:///x", |stamps| stamps.updated("a", "file:///y"), true);
        check("a", "file:///x", |stamps| stamps.updated("b", "file:///x"), true);
        // A folder and what is in it.
        check("a", "file:///x/", |stamps| stamps.updated("a", "file:///x/1"), false);
        check("a", "file:///x/1", |stamps| stamps.updated("a", "file:///x/"), false);
        check("notes", "x", |stamps| stamps.written(&[0]), false);
        check("other", "x", |stamps| stamps.written(&[0]), true);
    }

    #[test]
    fn more_changes_than_are_told_apart_are_a_change_of_all() {
        check(
            "a",
            "file:///never",
            |stamps| (0..=MOST).for_each(|n| stamps.updated("a", &format!("b:{n}"))),
            false,
        );
        check(
            "a",
            "file:///never",
            |stamps| (0..MOST).for_each(|n| stamps.updated("a", &format!("b:{n}"))),
            true,
        );
    }
}
