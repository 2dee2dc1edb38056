//! Which models are there, who serves them, and what do they cost?

use std::{collections::HashSet, sync::Arc, time::SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Effect, Gives, Takes};
use crate::backend::openrouter::{
    Task,
    catalog::{Model, PriceKind, Search, Snapshot, Sort, Use},
    learned::Health,
    money::Price,
    refused::Refused,
    upstream::Code,
};

/// A model, as callers see it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelOut {
    id: String,
    name: String,
    /// Tokens that it can read and write together.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<u64>,
    /// The longest answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output: Option<u64>,
    /// US dollars for a million tokens read; missing where it is not known beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_usd_per_m: Option<String>,
    /// US dollars for a million tokens written.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_usd_per_m: Option<String>,
    input_modalities: Vec<String>,
    output_modalities: Vec<String>,
    /// Does it think before it answers?
    reasoning: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    intelligence_index: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// How it has answered here, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<Metrics>,
}

/// How a model has answered the callers of this gateway; newer requests count for more.
#[derive(Debug, Serialize, JsonSchema)]
struct Metrics {
    /// The part of requests that was answered, 0 to 1.
    ok_rate: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_s: Option<f64>,
    /// Of how many requests, up to 100.
    requests: u32,
}

impl Metrics {
    fn of(health: Health) -> Option<Self> {
        let rounded = |number: f64| (number * 1000.0).round() / 1000.0;
        (health.requests > 0).then(|| Self {
            ok_rate: rounded(health.ok),
            first_token_ms: health.first_ms.map(rounded),
            tokens_per_s: health.tokens_per_s.map(rounded),
            requests: health.requests,
        })
    }
}

impl ModelOut {
    pub fn new(model: &Model, described: bool) -> Self {
        let price = |price: Option<Price>| price.map(|price| price.of_a_million().to_string());
        let text = |name: &str| model.entry.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            id: model.id.clone(),
            name: model.name.clone(),
            context: model.window(None),
            max_output: model.longest_answer(),
            prompt_usd_per_m: price(model.pricing.prompt),
            output_usd_per_m: price(model.pricing.completion),
            input_modalities: model.input_modalities.clone(),
            output_modalities: model.output_modalities.clone(),
            reasoning: model.reasons(),
            intelligence_index: model.index("intelligence"),
            description: described.then(|| text("description")).flatten(),
            metrics: None,
        }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsSearch {
    /// Words in its id, its name or its description.
    query: Option<String>,
    /// Whose models, such as anthropic.
    author: Option<String>,
    /// Only models that this provider serves.
    provider: Option<String>,
    /// What it is for, such as programming or translation.
    category: Option<String>,
    /// What it can read: text, image, file, audio, video.
    input_modalities: Vec<String>,
    /// What it can make: text, image, audio, embeddings.
    output_modalities: Vec<String>,
    /// Parameters that it knows, such as tools or structured_outputs.
    supported_parameters: Vec<String>,
    /// The smallest window, in tokens.
    min_context: Option<u64>,
    /// The highest price for a million tokens read, in US dollars.
    max_prompt_price_per_m: Option<f64>,
    /// The highest price for a million tokens written, in US dollars.
    max_output_price_per_m: Option<f64>,
    /// any, free or paid. By default any.
    price: Option<PriceKind>,
    /// Only models with providers that keep nothing.
    zdr: Option<bool>,
    /// The lowest intelligence index, as measured by Artificial Analysis.
    min_intelligence_index: Option<f64>,
    /// In which order. By default what fits the query best, else the most popular.
    sort: Option<Sort>,
    /// Is it said how each has answered here?
    include_metrics: bool,
    /// How many. By default 10.
    #[schemars(range(min = 1, max = 50))]
    limit: Option<usize>,
    /// Where to go on: next_cursor of the page before.
    cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Found {
    models: Vec<ModelOut>,
    total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// Seconds since the list was fetched.
    catalog_age_s: u64,
    /// The list is older than it should be, since it could not be fetched anew.
    stale: bool,
}

impl Gives for Found {}

impl Takes for ModelsSearch {
    const NAME: &'static str = "models_search";
    const TITLE: &'static str = "Search models";
    const DESCRIPTION: &'static str = "Finds models by words, price, window and what they can read and make. Only those that may be used here.";
    const EFFECT: Effect = Effect::ASKS;
    type Gives = Found;

    async fn run(self, task: Arc<Task>) -> Result<Found, Refused> {
        let models = task.work.catalog.get().await;
        let mut among: HashSet<String> = models
            .models
            .iter()
            .filter(|model| task.is_allowed(model))
            .map(|model| model.id.clone())
            .collect();
        if let Some(ids) = self.asked_upstream(&task).await? {
            among.retain(|id| ids.contains(id));
        }
        let price = |amount: Option<f64>| amount.and_then(|amount| Price::per_million(&amount.to_string()));
        let offset = match &self.cursor {
            Some(cursor) => cursor
                .parse()
                .map_err(|_| Refused::input("the cursor is not one of this list; begin again without one"))?,
            None => 0,
        };
        let search = Search {
            query: self.query.as_deref(),
            author: self.author.as_deref(),
            input_modalities: &self.input_modalities,
            output_modalities: &self.output_modalities,
            supported_parameters: &self.supported_parameters,
            min_context: self.min_context,
            max_prompt_price: price(self.max_prompt_price_per_m),
            max_output_price: price(self.max_output_price_per_m),
            price: self.price.unwrap_or_default(),
            min_intelligence: self.min_intelligence_index,
            min_coding: None,
            min_agentic: None,
            among: Some(&among),
            sort: self.sort.unwrap_or_default(),
            offset,
            limit: self.limit.unwrap_or(10).clamp(1, 50),
        };
        let found = models.search(&search);
        Ok(Found {
            models: found.models.iter().map(|model| self.out(&task, model)).collect(),
            total: found.total,
            next_cursor: found.next_offset.map(|offset| offset.to_string()),
            catalog_age_s: age(&models),
            stale: models.stale,
        })
    }
}

impl ModelsSearch {
    fn out(&self, task: &Task, model: &Model) -> ModelOut {
        let health = self.include_metrics.then(|| task.work.lessons.of(&model.id).health);
        ModelOut { metrics: health.and_then(Metrics::of), ..ModelOut::new(model, false) }
    }

    /// Models by what the list does not say of them.
    async fn asked_upstream(&self, task: &Task) -> Result<Option<HashSet<String>>, Refused> {
        let mut filters = vec![("output_modalities", "all")];
        filters.extend(self.provider.as_deref().map(|provider| ("providers", provider)));
        filters.extend(self.category.as_deref().map(|category| ("category", category)));
        filters.extend((self.zdr == Some(true)).then_some(("zdr", "true")));
        if filters.len() == 1 {
            return Ok(None);
        }
        let models = task.work.upstream.models(&filters).await;
        let models = models.map_err(|failure| Refused::new(failure.code, failure.message.clone()))?;
        Ok(Some(models.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect()))
    }
}

pub fn age(models: &Snapshot) -> u64 {
    SystemTime::now().duration_since(models.fetched_at).map_or(0, |age| age.as_secs())
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelGet {
    /// A model's id, or another name for it.
    model: String,
    /// Are its providers given too, with what they cost and how fast they are?
    #[serde(default)]
    include_endpoints: bool,
    /// Is its description given too?
    #[serde(default)]
    include_description: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelGot {
    /// Is there such a model, and may it be used here?
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved_id: Option<String>,
    /// The name it was asked for by, if that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelOut>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<Map<String, Value>>,
    /// Models whose names look like it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suggestions: Vec<String>,
}

impl Gives for ModelGot {}

impl Takes for ModelGet {
    const NAME: &'static str = "model_get";
    const TITLE: &'static str = "Look up a model";
    const DESCRIPTION: &'static str =
        "Says whether there is such a model and what it is, or which ones are called alike.";
    const EFFECT: Effect = Effect::ASKS;
    type Gives = ModelGot;

    async fn run(self, task: Arc<Task>) -> Result<ModelGot, Refused> {
        let models = task.work.catalog.get().await;
        let resolved = models.resolve(&self.model, &task.work.settings.aliases);
        let Some(model) = resolved.model.filter(|model| task.is_allowed(model)) else {
            let suggestions = models.suggestions(&self.model, 20).into_iter();
            let allowed = |id: &String| models.find(id).is_some_and(|model| task.is_allowed(model));
            return Ok(ModelGot {
                valid: false,
                resolved_id: None,
                alias: None,
                model: None,
                endpoints: Vec::new(),
                suggestions: suggestions.filter(allowed).take(5).collect(),
            });
        };
        let mut endpoints = Vec::new();
        if self.include_endpoints {
            let of = task.work.upstream.endpoints(&model.id).await;
            let of = of.map_err(|failure| Refused::new(failure.code, failure.message.clone()))?;
            let all = of.map(|of| of.endpoints).unwrap_or_default();
            endpoints = all.iter().filter_map(|one| json!(one).as_object().cloned()).collect();
        }
        Ok(ModelGot {
            valid: true,
            resolved_id: Some(resolved.id),
            alias: resolved.alias,
            model: Some(ModelOut::new(&model, self.include_description)),
            endpoints,
            suggestions: Vec::new(),
        })
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelsCompare {
    /// The models.
    #[schemars(length(min = 2, max = 8))]
    models: Vec<String>,
    /// Tokens that a call reads. By default 1000.
    #[serde(default)]
    prompt_tokens: Option<u64>,
    /// Tokens that a call writes. By default 1000.
    #[serde(default)]
    output_tokens: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct ModelsCompared {
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cheapest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_context: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Row {
    model: ModelOut,
    /// What such a call costs, in US dollars; missing where it is not known beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_usd: Option<String>,
}

impl Gives for ModelsCompared {}

impl Takes for ModelsCompare {
    const NAME: &'static str = "models_compare";
    const TITLE: &'static str = "Compare what models are and cost";
    const DESCRIPTION: &'static str = "Puts models side by side with what a call of a given size costs. Asks no model; compare_models does.";
    const EFFECT: Effect = Effect::ASKS;
    type Gives = ModelsCompared;

    async fn run(self, task: Arc<Task>) -> Result<ModelsCompared, Refused> {
        let used = Use {
            prompt_tokens: self.prompt_tokens.unwrap_or(1000),
            output_tokens: self.output_tokens.unwrap_or(1000),
            ..Use::default()
        };
        let mut all = Vec::new();
        for name in &self.models {
            let chosen = task.choose(Some(name)).await?;
            let Some(model) = chosen.model else {
                let mut unknown = Refused::new(Code::ModelNotFound, format!("there is no model {name:?}"));
                unknown.suggestions = chosen.models.suggestions(name, 5);
                return Err(unknown);
            };
            all.push((model.pricing.estimate(used), model));
        }
        let cheapest = all.iter().filter(|(cost, _)| cost.is_some()).min_by_key(|(cost, _)| *cost);
        let largest = all.iter().max_by_key(|(_, model)| model.window(None));
        Ok(ModelsCompared {
            cheapest: cheapest.map(|(_, model)| model.id.clone()),
            largest_context: largest.map(|(_, model)| model.id.clone()),
            rows: all
                .iter()
                .map(|(cost, model)| Row {
                    model: ModelOut::new(model, false),
                    cost_usd: cost.map(|cost| cost.to_string()),
                })
                .collect(),
        })
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProvidersList {
    /// A part of the name.
    query: Option<String>,
    /// Only those with headquarters there, such as US.
    country: Option<String>,
    /// How many. By default 50.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<usize>,
    /// Where to go on: next_cursor of the page before.
    cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Providers {
    providers: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl Gives for Providers {}

impl Takes for ProvidersList {
    const NAME: &'static str = "providers_list";
    const TITLE: &'static str = "List providers";
    const DESCRIPTION: &'static str = "Lists who serves models, with their policies and where they are.";
    const EFFECT: Effect = Effect::ASKS;
    type Gives = Providers;

    async fn run(self, task: Arc<Task>) -> Result<Providers, Refused> {
        let all = task.work.upstream.providers().await;
        let all = all.map_err(|failure| Refused::new(failure.code, failure.message.clone()))?;
        let has = |one: &Value, names: &[&str], part: &Option<String>| {
            part.as_ref().is_none_or(|part| {
                let text = names.iter().filter_map(|name| one[*name].as_str()).collect::<Vec<_>>().join("\n");
                text.to_lowercase().contains(&part.to_lowercase())
            })
        };
        let fits = |one: &&Value| {
            has(one, &["name", "slug"], &self.query) && has(one, &["headquarters", "country"], &self.country)
        };
        let offset: usize = match &self.cursor {
            Some(cursor) => cursor
                .parse()
                .map_err(|_| Refused::input("the cursor is not one of this list; begin again without one"))?,
            None => 0,
        };
        let limit = self.limit.unwrap_or(50).clamp(1, 200);
        let fitting: Vec<_> = all.iter().filter(fits).collect();
        let next = offset.saturating_add(limit);
        Ok(Providers {
            next_cursor: (next < fitting.len()).then(|| next.to_string()),
            providers: fitting
                .iter()
                .skip(offset)
                .take(limit)
                .filter_map(|one| one.as_object().cloned())
                .collect(),
        })
    }
}
