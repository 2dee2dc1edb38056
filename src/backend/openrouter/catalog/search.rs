//! Which models fit what is wanted?

use std::{collections::HashSet, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{super::money::Price, model::Model, resolve::Snapshot};

/// What is wanted. Everything that is said must hold.
#[derive(Debug, Clone, Default)]
pub struct Search<'a> {
    /// Words that all stand in its id, its name or its description.
    pub query: Option<&'a str>,
    pub author: Option<&'a str>,
    pub input_modalities: &'a [String],
    pub output_modalities: &'a [String],
    pub supported_parameters: &'a [String],
    pub min_context: Option<u64>,
    pub max_prompt_price: Option<Price>,
    pub max_output_price: Option<Price>,
    pub price: PriceKind,
    pub min_intelligence: Option<f64>,
    pub min_coding: Option<f64>,
    pub min_agentic: Option<f64>,
    /// Ids to choose from. What the catalogue does not say about its models (provider, category, whether
    /// nothing is kept) is asked of the upstream, which answers with ids.
    pub among: Option<&'a HashSet<String>>,
    pub sort: Sort,
    pub offset: usize,
    pub limit: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PriceKind {
    #[default]
    Any,
    Free,
    Paid,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// What fits the query best, otherwise the most popular.
    #[default]
    Relevance,
    Newest,
    PriceLowToHigh,
    PriceHighToLow,
    ContextHighToLow,
    IntelligenceHighToLow,
    CodingHighToLow,
    AgenticHighToLow,
    Name,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    pub models: Vec<Arc<Model>>,
    pub total: usize,
    /// Where the rest begins.
    pub next_offset: Option<usize>,
}

impl Snapshot {
    pub fn search(&self, search: &Search<'_>) -> Found {
        let words: Vec<String> =
            search.query.unwrap_or_default().split_whitespace().map(str::to_lowercase).collect();
        let fits =
            |model: &&Arc<Model>| search.fits(model) && words.iter().all(|word| model.words.contains(word));
        let mut models: Vec<Arc<Model>> = self.models.iter().filter(fits).cloned().collect();
        // All of these keep the order of what is equal, which is that of popularity.
        match search.sort {
            Sort::Relevance => models.sort_by_key(|model| rank(model, &words)),
            Sort::Newest => models.sort_by_key(|model| std::cmp::Reverse(model.created)),
            Sort::PriceLowToHigh => models.sort_by_key(|model| (price(model).is_none(), price(model))),
            Sort::PriceHighToLow => models.sort_by_key(|model| std::cmp::Reverse(price(model))),
            Sort::ContextHighToLow => models.sort_by_key(|model| std::cmp::Reverse(model.window(None))),
            Sort::IntelligenceHighToLow => by_index(&mut models, "intelligence"),
            Sort::CodingHighToLow => by_index(&mut models, "coding"),
            Sort::AgenticHighToLow => by_index(&mut models, "agentic"),
            Sort::Name => models.sort_by_key(|model| model.name.to_lowercase()),
        }
        let total = models.len();
        let models: Vec<_> = models.into_iter().skip(search.offset).take(search.limit).collect();
        let end = search.offset.saturating_add(models.len());
        Found { next_offset: (!models.is_empty() && end < total).then_some(end), models, total }
    }
}

impl Search<'_> {
    fn fits(&self, model: &Model) -> bool {
        let has_all = |wanted: &[String], has: &[String]| wanted.iter().all(|one| has.contains(one));
        let at_most = |price: Option<Price>, most: Option<Price>| {
            most.is_none_or(|most| price.is_some_and(|price| price <= most))
        };
        let at_least = |kind: &str, least: Option<f64>| {
            least.is_none_or(|least| model.index(kind).is_some_and(|has| has >= least))
        };
        self.author.is_none_or(|author| model.author().eq_ignore_ascii_case(author))
            && has_all(self.input_modalities, &model.input_modalities)
            && has_all(self.output_modalities, &model.output_modalities)
            && has_all(self.supported_parameters, &model.supported_parameters)
            && self.min_context.is_none_or(|least| model.window(None).is_some_and(|window| window >= least))
            && at_most(model.pricing.prompt, self.max_prompt_price)
            && at_most(model.pricing.completion, self.max_output_price)
            && at_least("intelligence", self.min_intelligence)
            && at_least("coding", self.min_coding)
            && at_least("agentic", self.min_agentic)
            && self.among.is_none_or(|among| among.contains(&model.id))
            && match self.price {
                PriceKind::Any => true,
                PriceKind::Free => model.pricing.is_free(),
                PriceKind::Paid => !model.pricing.is_free(),
            }
    }
}

/// Names say more than descriptions.
fn rank(model: &Model, words: &[String]) -> usize {
    let name = model.words.splitn(3, '\n').take(2);
    let names: Vec<_> = name.collect();
    words.iter().filter(|word| !names.iter().any(|name| name.contains(word.as_str()))).count()
}

/// Both prices together, as most requests use both; none if one of them varies.
fn price(model: &Model) -> Option<super::super::money::Amount> {
    Some(model.pricing.prompt?.times(1) + model.pricing.completion?.times(1))
}

/// What was not measured goes last.
fn by_index(models: &mut [Arc<Model>], kind: &str) {
    let measured = |model: &Model| model.index(kind).unwrap_or(f64::NEG_INFINITY);
    models.sort_by(|one, other| measured(other).total_cmp(&measured(one)));
}
