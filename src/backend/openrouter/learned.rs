//! What was learned of models by asking them?
//!
//! How its count of tokens compares with the estimate, how long its window really is, how often it answers and how
//! fast. This is of all callers together and holds nothing of what they said; it is kept over restarts.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{context::Ratio, policy::Attempt};
use crate::store::Store;

/// How much the newest request counts beside those before it; more while there are few.
const NEWS: f64 = 0.1;
/// More requests than this make nothing surer.
const ENOUGH: u32 = 100;
/// A model that nobody asked yet counts as if this part of some requests had gone well.
const SUPPOSED: f64 = 0.8;
const SUPPOSED_REQUESTS: f64 = 3.0;
/// A first word after so long is as bad as a tenth of all requests failing.
const SLOW_MS: f64 = 10_000.0;

/// Of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learned {
    /// Of tokens as they were reported to tokens as they were estimated.
    pub ratio: Ratio,
    /// A window that turned out smaller than was said.
    pub window: Option<u64>,
    pub health: Health,
}

/// How a model answers. Newer requests count for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Requests, as far as they count.
    pub requests: u32,
    /// The part of them that was answered.
    pub ok: f64,
    pub first_ms: Option<f64>,
    pub tokens_per_s: Option<f64>,
}

impl Health {
    fn note(&mut self, attempt: &Attempt) {
        self.requests = (self.requests + 1).min(ENOUGH);
        let weight = NEWS.max(1.0 / f64::from(self.requests));
        let mix = |before: f64, seen: f64| before + (seen - before) * weight;
        self.ok = mix(self.ok, if attempt.ok { 1.0 } else { 0.0 });
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        if let Some(first) = attempt.first.filter(|_| attempt.ok) {
            let seen = millis(first);
            self.first_ms = Some(self.first_ms.map_or(seen, |before| mix(before, seen)));
            let writing = attempt.total.saturating_sub(first).as_secs_f64();
            if attempt.tokens > 1 && writing > 0.0 {
                let seen = attempt.tokens as f64 / writing;
                self.tokens_per_s = Some(self.tokens_per_s.map_or(seen, |before| mix(before, seen)));
            }
        }
    }

    /// How good a choice the model is, up to 1.
    pub fn score(&self) -> f64 {
        let requests = f64::from(self.requests);
        let ok = (self.ok * requests + SUPPOSED * SUPPOSED_REQUESTS) / (requests + SUPPOSED_REQUESTS);
        ok - (self.first_ms.unwrap_or(0.0) / SLOW_MS).min(1.0) * 0.1
    }
}

/// Of all models of a backend.
#[derive(Debug, Default)]
pub struct Lessons(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    models: HashMap<String, Learned>,
    /// What has changed since it was kept.
    unkept: HashSet<String>,
}

impl Lessons {
    /// With what was kept of a backend. What cannot be read is learned anew.
    pub async fn open(store: &Store, backend: &str) -> Self {
        let kept = store.learned(backend).await.into_iter();
        let models = kept.filter_map(|(model, text)| Some((model, serde_json::from_str(&text).ok()?)));
        Self(Mutex::new(State { models: models.collect(), unkept: HashSet::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    fn change(&self, model: &str, change: impl FnOnce(&mut Learned)) {
        let mut state = self.state();
        change(state.models.entry(model.to_owned()).or_default());
        state.unkept.insert(model.to_owned());
    }

    pub fn of(&self, model: &str) -> Learned {
        self.state().models.get(model).copied().unwrap_or_default()
    }

    /// How the count of a request's tokens compared with the estimate that was made by the ratio of then.
    pub fn counted(&self, model: &str, reported: u64, estimated: u64) {
        if reported > 0 && estimated > 0 {
            self.change(model, |learned| learned.ratio = learned.ratio.learned(reported, estimated));
        }
    }

    /// A window is smaller than was said.
    pub fn window_is(&self, model: &str, tokens: u64) {
        self.change(model, |learned| learned.window = Some(tokens));
    }

    /// How requests went.
    pub fn tried(&self, attempts: &[Attempt]) {
        for attempt in attempts {
            self.change(&attempt.model, |learned| learned.health.note(attempt));
        }
    }

    /// Keeps what is new.
    pub async fn keep(&self, store: &Store, backend: &str) {
        let new: Vec<(String, String)> = {
            let mut state = self.state();
            let unkept = std::mem::take(&mut state.unkept);
            let text = |model: &String| serde_json::to_string(state.models.get(model)?).ok();
            unkept.into_iter().filter_map(|model| text(&model).map(|text| (model, text))).collect()
        };
        if !new.is_empty() {
            store.keep_learned(backend, &new).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(ok: bool, first: u64, total: u64, tokens: u64) -> Attempt {
        let millis = Duration::from_millis;
        Attempt { model: "m".into(), ok, first: Some(millis(first)), total: millis(total), tokens }
    }

    #[test]
    fn a_model_that_fails_or_dawdles_is_a_worse_choice() {
        let unknown = Health::default().score();
        let after = |attempts: &[Attempt]| {
            let mut health = Health::default();
            attempts.iter().for_each(|attempt| health.note(attempt));
            health
        };
        let good = after(&[attempt(true, 200, 1200, 100), attempt(true, 400, 1400, 100)]);
        assert_eq!((good.requests, good.ok, good.first_ms), (2, 1.0, Some(300.0)));
        assert!((good.tokens_per_s.unwrap() - 100.0).abs() < 1e-9);
        let bad = after(&[attempt(false, 0, 0, 0), attempt(false, 0, 0, 0)]);
        let slow = after(&[attempt(true, 9000, 9100, 2), attempt(true, 9000, 9100, 2)]);
        assert!(good.score() > slow.score() && slow.score() > bad.score(), "{good:?} {slow:?} {bad:?}");
        assert!(good.score() > unknown && unknown > bad.score());
        // What was once bad gets well again.
        let mut mended = bad;
        (0..40).for_each(|_| mended.note(&attempt(true, 200, 1200, 100)));
        assert!(mended.score() > 0.9, "{mended:?}");
    }

    #[tokio::test]
    async fn what_was_learned_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let settings = crate::store::Settings { path: Some(folder.path().join("a.db")) };
        let store = Store::open(&settings).await.unwrap();
        let lessons = Lessons::open(&store, "chat").await;
        lessons.counted("m", 150, 100);
        lessons.window_is("m", 8192);
        lessons.tried(&[attempt(true, 200, 1200, 100)]);
        lessons.keep(&store, "chat").await;
        let learned = lessons.of("m");
        store.close().await;

        let store = Store::open(&settings).await.unwrap();
        assert_eq!(Lessons::open(&store, "chat").await.of("m"), learned);
        assert_eq!(learned.window, Some(8192));
        assert_ne!(learned.ratio, Ratio::default());
        assert_eq!(Lessons::open(&store, "other").await.of("m"), Learned::default(), "another way to models");
    }
}
