//! Which models are there?
//!
//! More than four hundred that answer in text, and some that make pictures, embeddings, rankings and
//! speech; all made up. Some entries are odd on purpose, as the real catalogue's are: a context that
//! the provider does not have, an output as long as the whole window, a price of -1, words that
//! nobody has heard of. See `make.rs`.

use std::collections::HashMap;

use super::{money::Money, scenario};

mod make; //  the entries
mod query; // which of them were asked for
mod show; //  an entry as JSON
mod table; // names

pub use query::Query;
pub use table::{PROVIDERS, Provider};

/// One model.
#[derive(Debug, Clone)]
pub struct Model {
    pub id: String,
    /// With the date of the release.
    pub canonical: String,
    pub name: String,
    pub created: u64,
    pub description: String,
    pub context: Option<u64>,
    /// What its best provider really takes.
    pub window: Option<u64>,
    pub max_output: Option<u64>,
    pub inputs: Vec<&'static str>,
    pub outputs: Vec<&'static str>,
    pub tokenizer: &'static str,
    /// None is "varies".
    pub prices: Option<Prices>,
    pub parameters: Vec<&'static str>,
    pub reasoning: Option<Reasoning>,
    /// Intelligence, coding, agentic.
    pub benchmarks: Option<[f64; 3]>,
    pub expires: Option<&'static str>,
    /// The model that this is another name of.
    pub alias_of: Option<String>,
    /// Indices into [`PROVIDERS`], the best first.
    pub providers: Vec<usize>,
    pub categories: Vec<&'static str>,
    pub distillable: bool,
    /// Per mille of tool calls that went well.
    pub tool_success: u64,
    /// How many tokens a day, by which models are popular.
    pub traffic: u64,
    /// An entry without prices, for readers that must not stumble.
    pub broken: bool,
}

/// Prices for a token each, unless the name says of what else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prices {
    pub prompt: Money,
    pub completion: Money,
    pub cached: Money,
    /// Nothing where it is done without being told to.
    pub written: Money,
    pub search: Money,
    /// For one picture that is made.
    pub picture: Money,
    /// From so many prompt tokens on, these two prices hold instead.
    pub from: Option<(u64, Money, Money)>,
}

#[derive(Debug, Clone, Copy)]
pub struct Reasoning {
    pub mandatory: bool,
    pub by_default: bool,
}

impl Model {
    pub fn author(&self) -> &str {
        self.id.split('/').next().unwrap_or_default().trim_start_matches('~')
    }

    /// Does its provider keep prompts only when told to?
    pub fn caches_on_demand(&self) -> bool {
        self.author() == "anthropic"
    }

    pub fn is_free(&self) -> bool {
        self.id.ends_with(":free")
    }

    pub fn provider(&self) -> &'static Provider {
        &PROVIDERS[self.providers.first().copied().unwrap_or(0)]
    }

    /// Nothing where the price varies: whoever is chosen here costs as little as possible.
    pub fn prices(&self) -> Prices {
        self.prices.unwrap_or_default()
    }

    /// How many tokens question and answer may have together.
    pub fn limit(&self) -> u64 {
        match (self.context, self.window) {
            (Some(context), Some(window)) => context.min(window),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => 131_072,
        }
    }
}

/// All models.
#[derive(Debug)]
pub struct Catalogue {
    pub models: Vec<Model>,
    by_id: HashMap<String, usize>,
}

impl Catalogue {
    pub fn new(broken_entries: bool) -> Self {
        let models = make::all(broken_entries);
        let by_id = models.iter().enumerate().map(|(index, model)| (model.id.clone(), index)).collect();
        Self { models, by_id }
    }

    /// The model that an id stands for: one of the list, a variant of one (`:nitro` and the like), what
    /// an alias means, or `sim/…`, which behaves as its name says and costs what `acme/atlas-70b` does.
    pub fn find(&self, id: &str) -> Option<Model> {
        if let Some(behaviour) = id.strip_prefix("sim/") {
            let behaviour = behaviour.split(':').next().unwrap_or_default();
            let known = behaviour.starts_with("persona-")
                || behaviour == "reasoning-encrypted"
                || scenario::known(behaviour).is_some();
            let model = known.then(|| self.get("acme/atlas-70b")).flatten()?;
            let (id, name) = (id.to_owned(), format!("Simulator: {behaviour}"));
            return Some(Model { canonical: id.clone(), id, name, ..model.clone() });
        }
        if let Some(model) = self.get(id) {
            return Some(match &model.alias_of {
                Some(target) => self.get(target)?.clone(),
                None => model.clone(),
            });
        }
        let (base, variant) = id.rsplit_once(':')?;
        let known = ["nitro", "floor", "exacto", "thinking", "extended", "online"].contains(&variant);
        let model = known.then(|| self.get(base)).flatten()?;
        Some(Model { id: id.to_owned(), ..model.clone() })
    }

    /// An entry of the list, as it is.
    pub fn get(&self, id: &str) -> Option<&Model> {
        self.by_id.get(id).map(|index| &self.models[*index])
    }
}
