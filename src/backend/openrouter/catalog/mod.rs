//! Which models are there, and how is that known without asking each time?
//!
//! The list is kept in memory for a quarter of an hour. After that it is still used, while it is
//! fetched anew in the background, once however many ask; after a day it is waited for. If it cannot
//! be fetched, the old one is used and says that it is. A copy on disk bridges restarts, and where
//! there is none either, a few models that are always there.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::settings;

mod file; //     the copy on disk
mod model; //    one model, of what is written about it
mod pricing; //  what its use costs
mod resolve; //  which model is meant by a name
mod search; //   models that fit
mod similar; //  names that look alike

pub use model::Model;
pub use pricing::Use;
pub use resolve::Snapshot;
pub use search::{PriceKind, Search, Sort};

/// How long the list of models is used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long it is used without asking anew.
    pub fresh: settings::Duration,
    /// How long it is used while it is fetched anew; after that it is waited for.
    pub usable: settings::Duration,
    /// How often it may be fetched because a model was not in it.
    pub refresh_at_most_every: settings::Duration,
    /// Where a copy is kept over restarts; nowhere by default.
    pub file: Option<PathBuf>,
}

impl Default for Settings {
    /// Models come every few days, prices change by the day.
    fn default() -> Self {
        Self {
            fresh: settings::Duration::seconds(15 * 60),
            usable: settings::Duration::seconds(24 * 3600),
            refresh_at_most_every: settings::Duration::seconds(60),
            file: None,
        }
    }
}

/// Fetches all models, as they are written.
pub type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<Value>, String>> + Send + Sync>;

type Flight = Shared<BoxFuture<'static, ()>>;

/// The list of models.
pub struct Catalog {
    me: Weak<Self>,
    settings: Settings,
    fetch: Fetch,
    kept: ArcSwap<Kept>,
    /// A fetch that is under way.
    flight: Mutex<Option<Flight>>,
}

/// The list, and when it is due.
#[derive(Debug)]
struct Kept {
    snapshot: Arc<Snapshot>,
    stale_at: Instant,
    unusable_at: Instant,
    /// When it was last tried to fetch another, whatever came of it.
    tried: Option<Instant>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("models", &self.now().len()).finish_non_exhaustive()
    }
}

impl Catalog {
    /// With the copy on disk, if there is one that can be read.
    pub async fn open(settings: Settings, fetch: Fetch) -> Arc<Self> {
        let saved = match &settings.file {
            Some(path) => file::read(path.clone()).await,
            None => None,
        };
        let now = Instant::now();
        let kept = match saved {
            Some(saved) => {
                let age = SystemTime::now().duration_since(saved.at).unwrap_or_default();
                let due = |time: Duration| now + time.saturating_sub(age);
                let (stale_at, unusable_at) = (due(settings.fresh.0), due(settings.usable.0));
                let snapshot = Snapshot::new(saved.models, saved.at);
                Kept { snapshot: Arc::new(snapshot), stale_at, unusable_at, tried: None }
            }
            None => {
                let snapshot = Snapshot { stale: true, ..Snapshot::new(always(), SystemTime::now()) };
                Kept { snapshot: Arc::new(snapshot), stale_at: now, unusable_at: now, tried: None }
            }
        };
        let (kept, flight) = (ArcSwap::from_pointee(kept), Mutex::default());
        Arc::new_cyclic(|me| Self { me: me.clone(), settings, fetch, kept, flight })
    }

    /// The list as it is, without waiting or asking.
    pub fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.kept.load().snapshot)
    }

    /// The list, fetched anew if it is due. Waits only if what there is cannot be used any more.
    pub async fn get(&self) -> Arc<Snapshot> {
        let (now, kept) = (Instant::now(), self.kept.load_full());
        if now < kept.stale_at {
            return Arc::clone(&kept.snapshot);
        }
        // After a failure there is a pause, so that an outage does not make every call wait.
        if self.tried_lately(&kept, now) {
            return Arc::clone(&kept.snapshot);
        }
        let flight = self.fly();
        if now >= kept.unusable_at {
            flight.await;
        }
        self.now()
    }

    /// The list, fetched anew whatever its age, but not too often: somebody asked for a model that is
    /// not in it.
    pub async fn refresh(&self) -> Arc<Snapshot> {
        if !self.tried_lately(&self.kept.load(), Instant::now()) {
            self.fly().await;
        }
        self.now()
    }

    fn tried_lately(&self, kept: &Kept, now: Instant) -> bool {
        kept.tried.is_some_and(|tried| now.duration_since(tried) < self.settings.refresh_at_most_every.0)
    }

    /// The fetch that is under way, or a new one. It goes on if nobody waits for it any more.
    fn fly(&self) -> Flight {
        let mut flight = self.flight.lock().expect("no code panics while it holds this lock");
        if let Some(flight) = &*flight {
            return flight.clone();
        }
        let me = self.me.clone();
        let task = tokio::spawn(async move {
            if let Some(catalog) = me.upgrade() {
                catalog.replace().await;
            }
        });
        let new = task.map(drop).boxed().shared();
        *flight = Some(new.clone());
        new
    }

    async fn replace(&self) {
        let _landing = Landing(self);
        let fetched = (self.fetch)().await;
        let (now, at) = (Instant::now(), SystemTime::now());
        let next = match fetched {
            Ok(models) if !models.is_empty() => {
                let snapshot = Arc::new(Snapshot::new(models, at));
                if snapshot.broken > 0 {
                    tracing::warn!(broken = snapshot.broken, "entries of the list of models cannot be read");
                }
                if let Some(path) = &self.settings.file
                    && let Err(why) = file::write(path.clone(), &snapshot, at).await
                {
                    tracing::warn!(%why, "the list of models cannot be kept on disk");
                }
                let Settings { fresh, usable, .. } = &self.settings;
                Kept { snapshot, stale_at: now + fresh.0, unusable_at: now + usable.0, tried: Some(now) }
            }
            failed => {
                let why = failed.err().unwrap_or_else(|| "it is empty".into());
                tracing::warn!(%why, "the list of models cannot be fetched; the old one is used");
                let kept = self.kept.load();
                let snapshot = Arc::new(Snapshot { stale: true, ..Snapshot::clone(&kept.snapshot) });
                let Kept { stale_at, unusable_at, .. } = **kept;
                Kept { snapshot, stale_at, unusable_at, tried: Some(now) }
            }
        };
        self.kept.store(Arc::new(next));
    }
}

/// The end of a fetch, however it came about: the next may begin.
struct Landing<'a>(&'a Catalog);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        *self.0.flight.lock().expect("no code panics while it holds this lock") = None;
    }
}

/// Models that are always there: OpenRouter's own, which choose another.
fn always() -> Vec<Value> {
    let entry = |id: &str, name: &str, price: &str, context: u64| {
        json!({
            "id": id, "canonical_slug": id, "name": name, "created": 1_699_401_600, "context_length": context,
            "description": "Chooses a model for each request.",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"], "tokenizer": "Router"},
            "pricing": {"prompt": price, "completion": price},
            "top_provider": {"context_length": null, "max_completion_tokens": null, "is_moderated": false},
            "supported_parameters": []
        })
    };
    vec![
        entry("openrouter/auto", "Auto Router", "-1", 2_000_000),
        entry("openrouter/free", "Free Models Router", "0", 200_000),
    ]
}

#[cfg(test)]
mod tests;
