//! What is written about one model?
//!
//! What is looked at here is read leniently and once; everything is kept as it was written. An entry
//! without an id or without prices cannot be offered and is broken.

use serde_json::Value;

use super::pricing::Pricing;

/// How much of a description is searched.
const SEARCHED: usize = 2000;

/// One model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub id: String,
    pub canonical_slug: Option<String>,
    pub name: String,
    /// In seconds of our era.
    pub created: u64,
    pub input_modalities: Vec<String>,
    pub output_modalities: Vec<String>,
    pub supported_parameters: Vec<String>,
    pub pricing: Pricing,
    /// Of an alias: the model that it stands for.
    pub alias_of: Option<String>,
    /// What it is searched by, in lower case.
    pub(super) words: String,
    context_length: Option<u64>,
    provider_context_length: Option<u64>,
    max_completion_tokens: Option<u64>,
    /// All of the entry.
    pub entry: Value,
}

impl Model {
    /// Reads an entry, if it is one.
    pub fn read(entry: Value) -> Option<Self> {
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |value: &Value, name: &str| value.get(name).and_then(count);
        let strings = |value: &Value, name: &str| -> Vec<String> {
            let all = value.get(name).and_then(Value::as_array).into_iter().flatten();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let id = text(&entry, "id").filter(|id| !id.is_empty())?;
        let pricing = Pricing::read(entry.get("pricing")?)?;
        let null = Value::Null;
        let architecture = entry.get("architecture").unwrap_or(&null);
        let provider = entry.get("top_provider").unwrap_or(&null);
        let name = text(&entry, "name").unwrap_or_else(|| id.clone());
        let description = entry.get("description").and_then(Value::as_str).unwrap_or_default();
        let described = &description[..description.floor_char_boundary(SEARCHED)];
        Some(Self {
            words: format!("{id}\n{name}\n{described}").to_lowercase(),
            canonical_slug: text(&entry, "canonical_slug"),
            created: number(&entry, "created").unwrap_or(0),
            input_modalities: strings(architecture, "input_modalities"),
            output_modalities: strings(architecture, "output_modalities"),
            supported_parameters: strings(&entry, "supported_parameters"),
            alias_of: entry.get("alias_target").and_then(|target| text(target, "slug")),
            context_length: number(&entry, "context_length"),
            provider_context_length: number(provider, "context_length"),
            max_completion_tokens: number(provider, "max_completion_tokens"),
            id,
            name,
            pricing,
            entry,
        })
    }

    /// Whose it is.
    pub fn author(&self) -> &str {
        let id = self.id.trim_start_matches('~');
        id.split_once('/').map_or(id, |(author, _)| author)
    }

    /// How many tokens it can read and write together: the least of what is said, for what the model
    /// could do is not what its provider does.
    pub fn window(&self, learned: Option<u64>) -> Option<u64> {
        let said = [self.context_length, self.provider_context_length, learned];
        said.into_iter().flatten().filter(|tokens| *tokens > 0).min()
    }

    /// The longest answer its provider gives. May be as long as the window, so it is nothing to ask for.
    pub fn longest_answer(&self) -> Option<u64> {
        self.max_completion_tokens.filter(|tokens| *tokens > 0)
    }

    /// Does it think before it answers?
    pub fn reasons(&self) -> bool {
        let supports = self.supported_parameters.iter().any(|parameter| parameter == "reasoning");
        supports || self.entry.get("reasoning").is_some_and(Value::is_object)
    }

    /// Can it read this? None if it does not say.
    pub fn reads(&self, modality: &str) -> Option<bool> {
        if self.input_modalities.is_empty() {
            return None;
        }
        Some(self.input_modalities.iter().any(|one| one == modality))
    }

    /// `intelligence`, `coding` or `agentic`, as measured by others.
    pub fn index(&self, kind: &str) -> Option<f64> {
        let measured = self.entry.get("benchmarks")?.get("artificial_analysis")?;
        measured.get(format!("{kind}_index"))?.as_f64()
    }
}

/// A number of tokens or seconds, even if it is written as a fraction.
fn count(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|number| *number >= 0.0).map(|number| number as u64))
}
