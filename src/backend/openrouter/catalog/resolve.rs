//! Which model is meant by a name?
//!
//! Names of the configuration (`fast`), aliases of the catalogue (`~author/name-latest`), names with
//! a variant (`…:nitro`), and names in other letters all lead to one entry, which is what permissions
//! and prices are looked up by.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use serde_json::Value;

use super::{model::Model, similar};

/// An alias of an alias of an alias: longer chains lead nowhere.
const LONGEST_CHAIN: usize = 4;

/// Names of the configuration, and the models they stand for.
pub type Aliases = BTreeMap<String, String>;

/// The list of models, as it was at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// In the order in which they came: the most popular first.
    pub models: Arc<[Arc<Model>]>,
    pub(super) by_name: Arc<HashMap<String, usize>>,
    pub fetched_at: SystemTime,
    /// It is older than it should be, and could not be fetched anew.
    pub stale: bool,
    /// Entries that could not be read.
    pub broken: usize,
}

/// A name, led to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// What to ask the upstream for, with its variant.
    pub id: String,
    /// Its entry; none for a model that is not in the list.
    pub model: Option<Arc<Model>>,
    /// The name it was called by, if that is another.
    pub alias: Option<String>,
}

impl Snapshot {
    pub(in crate::backend::openrouter) fn new(entries: Vec<Value>, fetched_at: SystemTime) -> Self {
        let all = entries.len();
        let models: Arc<[_]> = entries.into_iter().filter_map(Model::read).map(Arc::new).collect();
        let mut by_name = HashMap::with_capacity(models.len() * 2);
        for (at, model) in models.iter().enumerate() {
            by_name.entry(model.id.to_lowercase()).or_insert(at);
        }
        // Its own id says more than what another is also called.
        for (at, model) in models.iter().enumerate() {
            if let Some(slug) = &model.canonical_slug {
                by_name.entry(slug.to_lowercase()).or_insert(at);
            }
        }
        let (broken, by_name) = (all - models.len(), Arc::new(by_name));
        Self { models, by_name, fetched_at, stale: false, broken }
    }

    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// The model with exactly this id or slug, in whatever letters.
    pub fn find(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.get(*self.by_name.get(&name.to_lowercase())?)
    }

    /// Follows a name to the model it stands for.
    pub fn resolve(&self, name: &str, aliases: &Aliases) -> Resolved {
        let mut id = name.trim().to_owned();
        for _ in 0..LONGEST_CHAIN {
            match aliases.get(&id).or_else(|| aliases.get(&id.to_lowercase())) {
                Some(next) if *next != id => id.clone_from(next),
                Some(_) | None => break,
            }
        }
        let mut model = self.find(&id);
        // A variant that is no entry of its own is served by the model without it.
        let mut variant = "";
        if model.is_none()
            && let Some((base, suffix)) = id.rsplit_once(':')
        {
            model = self.find(base);
            variant = suffix;
        }
        for _ in 0..LONGEST_CHAIN {
            let target = model.and_then(|model| self.find(model.alias_of.as_deref()?));
            model = target.or(model);
        }
        if let Some(model) = model {
            id = if variant.is_empty() { model.id.clone() } else { format!("{}:{variant}", model.id) };
        }
        let alias = (id != name.trim()).then(|| name.trim().to_owned());
        Resolved { id, model: model.cloned(), alias }
    }

    /// Models whose names look most like this one.
    pub fn suggestions(&self, name: &str, most: usize) -> Vec<String> {
        similar::most_like(
            name,
            self.models.iter().map(|model| (model.id.as_str(), model.name.as_str())),
            most,
        )
    }
}
