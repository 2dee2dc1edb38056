//! Which models did a query ask for, and in what order?

use std::cmp::{Ordering, Reverse};

use serde_json::{Value, json};

use super::{Catalogue, Model, PROVIDERS, table::CATEGORIES};
use crate::simulator::refusal::Refusal;

const MOST: usize = 1000;
const USUAL: usize = 500;

/// What stands after the question mark, in its order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn read(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// A list, whether it was written with commas or by repeating the name.
    fn list(&self, name: &str) -> Vec<&str> {
        let values = self.0.iter().filter(|(key, _)| key == name);
        values
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect()
    }

    fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Refusal::invalid(format!("{name} has to be a number, and is {text:?}"))),
        }
    }

    fn count(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Refusal::invalid(format!("{name} has to be a whole number, and is {text:?}"))),
        }
    }

    /// Everything as it was, but the next page.
    fn following(&self, offset: usize, limit: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("offset", &offset.to_string()).append_pair("limit", &limit.to_string());
        for (key, value) in self.0.iter().filter(|(key, _)| key != "offset" && key != "limit") {
            query.append_pair(key, value);
        }
        query.finish()
    }
}

impl Catalogue {
    /// The answer of `path`, a list of models. `now` is in seconds since 1970.
    pub fn page(&self, path: &str, query: &Query, now: u64) -> Result<Value, Refusal> {
        let found = self.found(query, now)?;
        let (offset, limit) = (query.count("offset")?, query.count("limit")?);
        if let Some(limit) = limit
            && !(1..=MOST).contains(&limit)
        {
            return Err(Refusal::invalid(format!("limit has to be from 1 to {MOST}, and is {limit}")));
        }
        let paged = offset.is_some() || limit.is_some();
        let offset = offset.unwrap_or(0);
        let limit = if paged { limit.unwrap_or(USUAL) } else { found.len() };
        let data: Vec<_> = found.iter().skip(offset).take(limit).map(|model| model.shown(self)).collect();
        let end = offset.saturating_add(limit);
        let next = (end < found.len()).then(|| format!("/api/v1/{path}?{}", query.following(end, limit)));
        Ok(json!({ "data": data, "total_count": found.len(), "links": { "next": next } }))
    }

    /// All that the query asks for, without regard to pages.
    pub fn found(&self, query: &Query, now: u64) -> Result<Vec<&Model>, Refusal> {
        let mut found: Vec<&Model> = self.models.iter().collect();
        by_words(&mut found, query)?;
        by_kind(&mut found, query);
        by_number(&mut found, query, now)?;
        if let Some(sort) = query.get("sort") {
            sorted(&mut found, sort)?;
        }
        Ok(found)
    }
}

fn by_words(found: &mut Vec<&Model>, query: &Query) -> Result<(), Refusal> {
    if let Some(words) = query.get("q") {
        let words = words.to_lowercase();
        let text =
            |model: &Model| format!("{} {} {}", model.id, model.name, model.description).to_lowercase();
        found.retain(|model| words.split_whitespace().all(|word| text(model).contains(word)));
    }
    if let Some(category) = query.get("category") {
        if !CATEGORIES.contains(&category) {
            let known = CATEGORIES.join(", ");
            return Err(Refusal::invalid(format!("there is no category {category:?}; there are {known}")));
        }
        found.retain(|model| model.categories.contains(&category));
    }
    if let Some(arch) = query.get("arch") {
        found.retain(|model| model.tokenizer.eq_ignore_ascii_case(arch));
    }
    let authors = query.list("model_authors");
    found.retain(|model| authors.is_empty() || authors.contains(&model.author()));
    Ok(())
}

fn by_kind(found: &mut Vec<&Model>, query: &Query) {
    let parameters = query.list("supported_parameters");
    found.retain(|model| parameters.iter().all(|parameter| model.parameters.contains(parameter)));
    let inputs = query.list("input_modalities");
    found.retain(|model| inputs.iter().all(|input| model.inputs.contains(input)));
    let mut outputs = query.list("output_modalities");
    if outputs.is_empty() {
        outputs.push("text");
    }
    found.retain(|model| outputs.iter().all(|output| *output == "all" || model.outputs.contains(output)));
    let providers = query.list("providers");
    let provides = |index: &usize| {
        let provider = &PROVIDERS[*index];
        providers.iter().any(|asked| *asked == provider.slug || *asked == provider.name)
    };
    found.retain(|model| providers.is_empty() || model.providers.iter().any(provides));
    if let Some(distillable) = query.get("distillable") {
        found.retain(|model| model.distillable == (distillable == "true"));
    }
    if query.get("zdr") == Some("true") {
        found.retain(|model| model.providers.iter().any(|index| PROVIDERS[*index].zdr));
    }
    if let Some(region) = query.get("region") {
        let is_there = |country: &str| match region {
            "eu" => ["DE", "FR", "NL", "SE"].contains(&country),
            "global" => true,
            other => other.eq_ignore_ascii_case(country),
        };
        found.retain(|model| model.providers.iter().any(|index| is_there(PROVIDERS[*index].country)));
    }
}

/// What a model has of something that queries give bounds for. What it has nothing of is in no bounds.
type Measure = fn(&Model, u64) -> Option<f64>;

const MEASURES: [(&str, &str, Measure); 8] = [
    ("context", "", |model, _| model.context.map(whole)),
    ("min_price", "max_price", |model, _| model.prices.map(|prices| prices.prompt.per_million())),
    ("min_output_price", "max_output_price", |model, _| {
        model.prices.map(|prices| prices.completion.per_million())
    }),
    ("min_age_days", "max_age_days", |model, now| Some(whole(now.saturating_sub(model.created) / 86_400))),
    ("min_intelligence_index", "max_intelligence_index", |model, _| model.benchmarks.map(|all| all[0])),
    ("min_coding_index", "max_coding_index", |model, _| model.benchmarks.map(|all| all[1])),
    ("min_agentic_index", "max_agentic_index", |model, _| model.benchmarks.map(|all| all[2])),
    ("min_tool_success_rate", "max_tool_success_rate", |model, _| Some(whole(model.tool_success) / 1000.0)),
];

/// Contexts, ages and shares are small enough for this to be exact.
fn whole(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

fn by_number(found: &mut Vec<&Model>, query: &Query, now: u64) -> Result<(), Refusal> {
    for (least, most, measure) in MEASURES {
        let (least, most) = (query.number(least)?, query.number(most)?);
        if least.is_none() && most.is_none() {
            continue;
        }
        let least = least.unwrap_or(f64::NEG_INFINITY);
        let most = most.unwrap_or(f64::INFINITY);
        found.retain(|model| measure(model, now).is_some_and(|has| least <= has && has <= most));
    }
    Ok(())
}

fn sorted(found: &mut [&Model], by: &str) -> Result<(), Refusal> {
    // What has no price, or no index, comes last whichever way the others go.
    let price = |model: &&Model| model.prices.map(|prices| prices.prompt);
    let index = |which: usize| {
        move |one: &&Model, other: &&Model| {
            let of = |model: &Model| model.benchmarks.map_or(f64::NEG_INFINITY, |all| all[which]);
            of(other).partial_cmp(&of(one)).unwrap_or(Ordering::Equal)
        }
    };
    match by {
        "most-popular" | "top-weekly" => found.sort_by_key(|model| Reverse(model.traffic)),
        "newest" => found.sort_by_key(|model| Reverse(model.created)),
        "pricing-low-to-high" => found.sort_by_key(|model| (price(model).is_none(), price(model))),
        "pricing-high-to-low" => found.sort_by_key(|model| Reverse(price(model))),
        "context-high-to-low" => found.sort_by_key(|model| Reverse(model.context)),
        "throughput-high-to-low" => found.sort_by_key(|model| Reverse(model.traffic % 997)),
        "latency-low-to-high" => found.sort_by_key(|model| model.traffic % 991),
        "intelligence-high-to-low" | "design-arena-elo-high-to-low" => found.sort_by(index(0)),
        "coding-high-to-low" => found.sort_by(index(1)),
        "agentic-high-to-low" => found.sort_by(index(2)),
        other => return Err(Refusal::invalid(format!("models cannot be sorted by {other:?}"))),
    }
    Ok(())
}
