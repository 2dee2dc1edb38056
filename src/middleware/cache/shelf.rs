//! What is kept, and what of it may be used for a call?

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync};
use tokio::time::Instant;

use super::{
    Settings,
    flight::{Flights, Whose},
    kept::{Kept, Maker},
    key::{self, Key, Words},
    rule::{self, Rule, Rules, Share},
    stamp::Stamps,
};
use crate::{
    call::{Aim, Answer, Call},
    middleware::fits,
    weaken,
    wire::mcp::Method,
};

/// For how long a call is not waited for whose like had a reply that holds for no time.
const PASSED: Duration = Duration::from_secs(10);
/// How many of those are remembered.
const MOST_PASSED: usize = 4096;
/// What a reply is taken to weigh while nothing is known of it; only tables are made by it.
const USUAL: usize = 4096;
/// Parts of the memory, each with a lock of its own, at the most; and how many of the largest
/// replies there must be room for in each.
const MOST_PARTS: usize = 16;
const LARGEST_IN_A_PART: usize = 4;

/// What became of calls that could have been answered by a kept reply.
#[derive(Debug, Default)]
pub struct Counts {
    pub hits: AtomicU64,
    pub stale: AtomicU64,
    /// Answered by the reply to a call that was under way.
    pub joined: AtomicU64,
    pub misses: AtomicU64,
}

/// Weighs kept replies.
#[derive(Debug, Clone)]
struct Scales;

impl Weighter<Key, Arc<Kept>> for Scales {
    fn weight(&self, _: &Key, kept: &Arc<Kept>) -> u64 {
        kept.weight() as u64
    }
}

type Cache = sync::Cache<Key, Arc<Kept>, Scales>;

/// Memory for replies. Of what does not fit, what was used only once goes first.
fn cache(settings: &Settings) -> Cache {
    let (max, largest) = (settings.max.0, settings.largest.0);
    let parts = (max / LARGEST_IN_A_PART / largest.max(1)).clamp(1, MOST_PARTS);
    let max = if weaken::is("cache-room") { u64::MAX / 2 } else { max as u64 };
    let options = OptionsBuilder::new()
        .shards(1 << parts.ilog2())
        .estimated_items_capacity((settings.max.0 / USUAL).max(1))
        .weight_capacity(max)
        .build()
        .expect("both capacities are given");
    Cache::with_options(options, Scales, DefaultHashBuilder::default(), Default::default())
}

/// All replies that are kept by one configuration.
#[derive(Debug)]
pub struct Shelf {
    pub settings: Settings,
    pub rules: Rules,
    kept: Cache,
    /// Calls whose replies hold for no time, and until when that is taken for granted.
    passed: sync::Cache<Key, Instant>,
    pub stamps: Stamps,
    pub flights: Arc<Flights>,
    pub counts: Arc<Counts>,
}

/// A call that a kept reply could answer.
#[derive(Debug, Clone)]
pub struct Asking {
    pub aim: Arc<Aim>,
    pub method: Method,
    pub rule: Rule,
    /// The key of a reply that is for all, where one may be.
    pub shared: Option<Key>,
    pub private: Key,
    pub whose: Whose,
}

impl Asking {
    /// The keys under which a reply may be found, and under which a call may be under way.
    pub fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        self.shared.into_iter().chain([self.private])
    }
}

/// What there is for a call.
#[derive(Debug)]
pub enum Found {
    Fresh(Arc<Kept>),
    /// Its time is over, and it may be used while a new one is fetched.
    Stale(Arc<Kept>),
    Nothing,
}

impl Shelf {
    pub fn new(settings: &Settings, counts: Arc<Counts>) -> Self {
        let rules = Rules::new(settings);
        let (kept, passed) = (cache(settings), sync::Cache::new(MOST_PASSED));
        let stamps = Stamps::new(&rules.targets);
        let settings = settings.clone();
        Self { settings, rules, kept, passed, stamps, flights: Arc::default(), counts }
    }

    /// A call, if it is one that a kept reply could answer.
    pub fn asking(&self, call: &Call) -> Option<Asking> {
        let aim = call.aim.as_ref()?;
        let rule = *self.rules.rule(call.method, aim)?;
        if is_part_of_more(call) && !weaken::is("cache-asked") {
            return None;
        }
        let words = Words::of(call, aim)?;
        let context = key::context(&call.caller);
        let shared = (rule.share == Share::All || weaken::is("cache-word")).then(|| words.for_all());
        let private = words.for_one(&context);
        let whose = Whose { context, era: call.client.revision.era() };
        Some(Asking { aim: Arc::clone(aim), method: call.method, rule, shared, private, whose })
    }

    pub fn find(&self, asking: &Asking, now: Instant) -> Found {
        for kept in asking.keys().filter_map(|key| self.valid(&key, &asking.aim)) {
            let late = asking.rule.stale_while_revalidate.map_or(Duration::ZERO, |late| late.0);
            match kept.overdue(now) {
                None => return Found::Fresh(kept),
                Some(overdue) if overdue < late => return Found::Stale(kept),
                Some(_) => {}
            }
        }
        Found::Nothing
    }

    /// What may still be used where nothing better can be had.
    pub fn last_resort(&self, asking: &Asking, now: Instant) -> Option<Arc<Kept>> {
        let late = asking.rule.stale_if_error?.0;
        let mut kept = asking.keys().filter_map(|key| self.valid(&key, &asking.aim));
        kept.find(|kept| kept.overdue(now).is_none_or(|overdue| overdue < late))
    }

    /// What is kept and still true, however old.
    fn valid(&self, key: &Key, aim: &Aim) -> Option<Arc<Kept>> {
        if weaken::is("cache-hit") {
            return None;
        }
        let (kept, since) = (self.kept.get(key)?, self.stamps.since(aim));
        if kept.begun >= since {
            return Some(kept);
        }
        self.kept.remove_if(key, |kept| kept.begun < since);
        None
    }

    /// The reply to a call that began then, as it is kept; it is, if it is not too large and what
    /// it says is still true.
    pub fn keep(&self, asking: &Asking, begun: u64, answer: &Answer, now: Instant) -> Option<Arc<Kept>> {
        let Asking { aim, method, rule, .. } = asking;
        let longest = self.settings.longest.0;
        let kept = Maker { aim, method: *method, rule, longest, begun, now }.kept(answer);
        let kept = kept.map(Arc::new);
        let key = match (&kept, asking.shared) {
            (Some(kept), Some(shared)) if kept.shared => shared,
            _ => asking.private,
        };
        match &kept {
            None => self.passed.insert(key, now + PASSED),
            Some(kept) => {
                let small = kept.weight() <= self.settings.largest.0 || weaken::is("cache-large");
                if small && self.began_late_enough(begun, aim) {
                    self.kept.insert(key, Arc::clone(kept));
                }
            }
        }
        kept
    }

    fn began_late_enough(&self, begun: u64, aim: &Aim) -> bool {
        begun >= self.oldest(aim)
    }

    /// Since when a call must have begun to be one whose reply can be kept, or waited for.
    pub fn oldest(&self, aim: &Aim) -> u64 {
        if weaken::is("cache-news") {
            return 0;
        }
        self.stamps.since(aim).max(self.stamps.floor.load(Relaxed))
    }

    /// Are replies to this call of a kind that holds for no time, as far as is known?
    pub fn is_passed(&self, asking: &Asking) -> bool {
        weaken::is("cache-crowd")
            || asking.keys().any(|key| self.passed.get(&key).is_some_and(|until| Instant::now() < until))
    }

    /// Forgets what goes by names that fit, or everything; says how many replies that were.
    pub fn clear(&self, pattern: Option<&str>) -> usize {
        if weaken::is("cache-news") {
            return 0;
        }
        self.stamps.floor.store(self.stamps.next(), Relaxed);
        let before = self.kept.len();
        self.kept.retain(|_, kept| pattern.is_some_and(|pattern| !fits(pattern, &rule::name(&kept.aim))));
        before.saturating_sub(self.kept.len())
    }

    /// How many replies are kept, and in how many bytes.
    pub fn room_taken(&self) -> (usize, u64) {
        (self.kept.len(), self.kept.weight())
    }
}

/// Is it one of several rounds, or a call that is to become a task? What it is answered is for
/// nobody else, and for no other time.
fn is_part_of_more(call: &Call) -> bool {
    let words = ["requestState", "inputResponses", "task"];
    call.given.is_some() || words.iter().any(|word| call.message.param(word).is_some())
}
