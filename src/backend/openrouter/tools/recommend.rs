//! Which model is a good one for a task?

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Effect, Gives, Takes};
use crate::backend::openrouter::{
    Task,
    catalog::{Model, Snapshot, Use},
    refused::Refused,
};

/// A call by which prices are compared.
const CALL: Use =
    Use { prompt_tokens: 3000, output_tokens: 1000, images: 0, web_searches: 0, keeps_prompt: false };
/// A window in which much fits.
const LONG: u64 = 200_000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelsRecommend {
    /// What it is for.
    task: TaskIn,
    /// economy prefers cheap models, quality good ones. By default balanced.
    #[serde(default)]
    tier: Tier,
    /// What must hold besides.
    #[serde(default)]
    constraints: Constraints,
    /// How many. By default 5.
    #[serde(default)]
    #[schemars(range(min = 1, max = 20))]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum TaskIn {
    Coding,
    Reasoning,
    Vision,
    LongContext,
    Cheap,
    Fast,
    Creative,
    Translation,
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Tier {
    Economy,
    #[default]
    Balanced,
    Quality,
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Constraints {
    /// The smallest window, in tokens.
    min_context: Option<u64>,
    /// The most that 3000 tokens read and 1000 written may cost, in US dollars.
    max_cost_usd: Option<f64>,
    /// What it must be able to read, such as image.
    input_modalities: Vec<String>,
    /// Parameters it must know, such as tools.
    supported_parameters: Vec<String>,
    /// Only models that cost nothing.
    free: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Recommended {
    /// The best first.
    ranked: Vec<Fit>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Fit {
    model: String,
    /// From 0 to 1.
    score: f64,
    reasons: Vec<String>,
}

impl Gives for Recommended {}

impl Takes for ModelsRecommend {
    const NAME: &'static str = "models_recommend";
    const TITLE: &'static str = "Choose a model for a task";
    const DESCRIPTION: &'static str = "Ranks the models that may be used here for a task, by what is known of them: measured indexes, price, \
        window, abilities and how much they are used. Asks no model.";
    const EFFECT: Effect = Effect::ASKS;
    type Gives = Recommended;

    async fn run(self, task: Arc<Task>) -> Result<Recommended, Refused> {
        let models = task.work.catalog.get().await;
        let limit = self.limit.unwrap_or(5).clamp(1, 20);
        // How fast models are is not in the list, but can be what it is sorted by.
        let fastest = match self.task {
            TaskIn::Fast => task.work.upstream.models(&[("sort", "throughput-high-to-low")]).await.ok(),
            _ => None,
        };
        let fastest: Vec<_> =
            fastest.iter().flatten().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect();
        let mut ranked = self.ranked(&models, &fastest, |model| task.is_allowed(model));
        ranked.truncate(limit);
        Ok(Recommended { ranked })
    }
}

/// What is known of a model, each from 0 to 1.
struct Known {
    index: Option<f64>,
    speed: Option<f64>,
    cheap: f64,
    window: f64,
    popular: f64,
}

impl ModelsRecommend {
    fn ranked(&self, models: &Snapshot, fastest: &[String], allowed: impl Fn(&Model) -> bool) -> Vec<Fit> {
        let speeds: HashMap<_, _> = fastest.iter().rev().zip(1_u32..).collect();
        let speed = |model: &Model| speeds.get(&model.id).map(|rank| f64::from(*rank) / fastest.len() as f64);
        let fitting: Vec<_> =
            models.models.iter().filter(|model| allowed(model) && self.fits(model)).collect();
        let cost = |model: &Model| model.pricing.estimate(CALL).map(|cost| cost.nanos());
        let mut costs: Vec<_> = fitting.iter().filter_map(|model| cost(model)).collect();
        costs.sort_unstable();
        let index = |model: &Model| model.index(self.index()).or_else(|| model.index("intelligence"));
        let best = fitting.iter().filter_map(|model| index(model)).fold(1.0, f64::max);
        let widest = fitting.iter().filter_map(|model| model.window(None)).max().unwrap_or(1).max(2) as f64;
        let mut ranked: Vec<_> = fitting
            .iter()
            .enumerate()
            .map(|(at, model)| {
                let dearer =
                    cost(model).map(|cost| costs.len() - costs.partition_point(|other| *other <= cost));
                let known = Known {
                    index: index(model).map(|index| index / best),
                    speed: speed(model),
                    cheap: dearer.map_or(0.0, |dearer| dearer as f64 / costs.len().max(1) as f64),
                    window: model
                        .window(None)
                        .map_or(0.0, |window| (window.max(1) as f64).ln() / widest.ln()),
                    popular: 1.0 - at as f64 / fitting.len() as f64,
                };
                self.fit(model, &known)
            })
            .collect();
        // What is equal stays in the order of use.
        ranked.sort_by_key(|fit| Reverse((fit.score * 1000.0) as i64));
        ranked
    }

    /// What must be, whatever it scores.
    fn fits(&self, model: &Model) -> bool {
        let Constraints { min_context, max_cost_usd, input_modalities, supported_parameters, free } =
            &self.constraints;
        let knows = |name: &str| model.supported_parameters.iter().any(|one| one == name);
        let writes_text = model.output_modalities.iter().any(|one| one == "text");
        let cost = model.pricing.estimate(CALL);
        let dollars = |most: &f64| cost.is_some_and(|cost| cost.nanos() as f64 / 1e9 <= *most);
        let can = match self.task {
            TaskIn::Vision => model.reads("image") == Some(true),
            TaskIn::LongContext => model.window(None).is_some_and(|window| window >= LONG),
            TaskIn::Reasoning => model.reasons(),
            TaskIn::Json => knows("structured_outputs") || knows("response_format"),
            _ => true,
        };
        can && writes_text
            && model.alias_of.is_none()
            && cost.is_some()
            && min_context.is_none_or(|least| model.window(None).is_some_and(|window| window >= least))
            && max_cost_usd.as_ref().is_none_or(dollars)
            && input_modalities.iter().all(|one| model.reads(one) == Some(true))
            && supported_parameters.iter().all(|one| knows(one))
            && (!free || model.pricing.is_free())
    }

    const fn index(&self) -> &'static str {
        match self.task {
            TaskIn::Coding => "coding",
            TaskIn::Json => "agentic",
            _ => "intelligence",
        }
    }

    fn fit(&self, model: &Model, known: &Known) -> Fit {
        // Of measured quality, price, window and use.
        let weights = match self.task {
            TaskIn::Coding | TaskIn::Reasoning | TaskIn::Json => [0.55, 0.15, 0.1, 0.2],
            TaskIn::Vision | TaskIn::Creative | TaskIn::Translation => [0.35, 0.2, 0.05, 0.4],
            TaskIn::LongContext => [0.25, 0.15, 0.4, 0.2],
            TaskIn::Cheap => [0.15, 0.6, 0.0, 0.25],
            TaskIn::Fast => [0.15, 0.2, 0.0, 0.15],
        };
        let [quality, price, window, used] = weights;
        let (quality, price) = match self.tier {
            Tier::Economy => (quality * 0.5, price * 2.5),
            Tier::Balanced => (quality, price),
            Tier::Quality => (quality * 2.0, price * 0.25),
        };
        // What nobody measured is not taken for bad, but for less than the middle.
        let index = known.index.unwrap_or(0.3);
        let fast = if self.task == TaskIn::Fast { 1.0 } else { 0.0 };
        let sum = quality * index
            + price * known.cheap
            + window * known.window
            + used * known.popular
            + fast * known.speed.unwrap_or(0.0);
        let score = (sum / (quality + price + window + used + fast) * 1000.0).round() / 1000.0;
        let mut reasons = Vec::new();
        if let Some(index) = model.index(self.index()) {
            reasons.push(format!("{} index {index}", self.index()));
        }
        if model.pricing.is_free() {
            reasons.push("costs nothing".into());
        } else if let Some(cost) = model.pricing.estimate(CALL) {
            reasons.push(format!("{cost} US dollars for 3000 tokens read and 1000 written"));
        }
        if let Some(window) = model.window(None) {
            reasons.push(format!("window of {window} tokens"));
        }
        if self.task == TaskIn::Fast && known.speed.is_some_and(|speed| speed > 0.9) {
            reasons.push("among the fastest".into());
        }
        if known.popular > 0.9 {
            reasons.push("among the most used".into());
        }
        Fit { model: model.id.clone(), score, reasons }
    }
}
