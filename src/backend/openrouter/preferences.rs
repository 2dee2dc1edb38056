//! Which model is meant where only its kind is known?
//!
//! Whoever asks for a text of somebody else's model cannot know which models there are. So it says
//! words of their names and what matters to it (MCP, "Sampling", "Model preferences"), and these
//! choose among the models that may be used. What fits nothing is no error: then the usual one is
//! asked.

use std::{cmp::Reverse, sync::Arc};

use super::{
    Task,
    ask::Chosen,
    catalog::{Model, Snapshot, Use},
    refused::Refused,
    upstream::{Content, Message, Part},
};

/// A call by which prices are compared.
const CALL: Use =
    Use { prompt_tokens: 3000, output_tokens: 1000, images: 0, web_searches: 0, keeps_prompt: false };
/// What a model counts for that nobody measured, whose best counts for one.
const UNMEASURED: f64 = 0.3;

/// What kind of model is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Preferences {
    /// Names or parts of names; the first that fits a model decides.
    pub hints: Vec<String>,
    /// How much it matters that it is cheap, of those that fit.
    pub cost: f64,
    /// How much it matters that it is good.
    pub intelligence: f64,
}

impl Task {
    /// The model that is preferred for these messages, of those that may be asked.
    pub async fn prefer(
        &self,
        preferences: &Preferences,
        messages: &[Message],
        with_tools: bool,
    ) -> Result<Chosen, Refused> {
        let models = self.work.catalog.get().await;
        let fits = |model: &Model| {
            let knows_tools = || model.supported_parameters.iter().any(|one| one == "tools");
            self.is_allowed(model) && reads(model, messages) && (!with_tools || knows_tools())
        };
        for hint in preferences.hints.iter().filter(|hint| !hint.trim().is_empty()) {
            let named = models.resolve(hint, &self.work.settings.aliases);
            let named = named.model.filter(|model| fits(model)).map(|model| (named.id, model));
            let found = named.or_else(|| preferences.best(&models, hint, fits));
            if let Some((id, model)) = found {
                return Ok(Chosen { id, model: Some(model), models });
            }
        }
        self.choose(None).await
    }
}

impl Preferences {
    /// The best of the models that fit, of those whose name or id contains a hint. The most used of
    /// equally good ones.
    fn best(
        &self,
        models: &Snapshot,
        hint: &str,
        fits: impl Fn(&Model) -> bool,
    ) -> Option<(String, Arc<Model>)> {
        let hint = plain(hint);
        let is_called =
            |model: &Model| plain(&model.id).contains(&hint) || plain(&model.name).contains(&hint);
        let writes = |model: &Model| model.output_modalities.iter().any(|one| one == "text");
        let all = models
            .models
            .iter()
            .filter(|model| is_called(model) && model.alias_of.is_none() && writes(model) && fits(model));
        let all: Vec<_> = all.collect();
        let cost = |model: &Model| model.pricing.estimate(CALL).map(|cost| cost.nanos());
        let good = all.iter().filter_map(|model| model.index("intelligence")).fold(1.0, f64::max);
        let score = |model: &Model| {
            let dearer = |own| all.iter().filter(|other| cost(other).is_none_or(|cost| cost > own)).count();
            let cheap = cost(model).map_or(0.0, |own| dearer(own) as f64 / all.len() as f64);
            let index = model.index("intelligence").map_or(UNMEASURED, |index| index / good);
            ((self.cost * cheap + self.intelligence * index) * 1000.0) as i64
        };
        let best = all.iter().enumerate().max_by_key(|(at, model)| (score(model), Reverse(*at)))?.1;
        Some((best.id.clone(), Arc::clone(best)))
    }
}

/// Names are written in many ways: claude-3-5-sonnet, Claude 3.5 Sonnet.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Can a model read what messages are made of, as far as it says?
fn reads(model: &Model, messages: &[Message]) -> bool {
    let parts = messages.iter().flat_map(|message| match &message.content {
        Content::Parts(parts) => parts.as_slice(),
        Content::None | Content::Text(_) => &[],
    });
    let mut modalities = parts.filter_map(|part| match part {
        Part::ImageUrl { .. } => Some("image"),
        Part::InputAudio { .. } => Some("audio"),
        _ => None,
    });
    modalities.all(|modality| model.reads(modality) != Some(false))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;

    fn models() -> Snapshot {
        let model = |id: &str, name: &str, price: &str, index: f64| {
            json!({
                "id": id, "name": name, "pricing": { "prompt": price, "completion": price },
                "architecture": { "input_modalities": ["text"], "output_modalities": ["text"] },
                "benchmarks": { "artificial_analysis": { "intelligence_index": index } },
            })
        };
        let all = vec![
            model("anthropic/claude-sonnet-4.6", "Anthropic: Claude Sonnet 4.6", "0.000003", 50.0),
            model("anthropic/claude-opus-4.6", "Anthropic: Claude Opus 4.6", "0.000015", 60.0),
            model("anthropic/claude-haiku-4.5", "Anthropic: Claude Haiku 4.5", "0.000001", 30.0),
        ];
        Snapshot::new(all, SystemTime::now())
    }

    #[track_caller]
    fn check(hint: &str, cost: f64, intelligence: f64, expected: Option<&str>) {
        let preferences = Preferences { hints: Vec::new(), cost, intelligence };
        let best = preferences.best(&models(), hint, |_| true);
        assert_eq!(best.map(|(id, _)| id).as_deref(), expected, "{hint}");
    }

    #[test]
    fn what_matters_decides_among_the_models_that_a_hint_fits() {
        check("claude", 0.0, 0.0, Some("anthropic/claude-sonnet-4.6"));
        check("claude", 1.0, 0.1, Some("anthropic/claude-haiku-4.5"));
        check("Claude", 0.1, 1.0, Some("anthropic/claude-opus-4.6"));
        check("opus", 1.0, 0.0, Some("anthropic/claude-opus-4.6"));
        check("gpt", 1.0, 1.0, None);
    }

    #[test]
    fn names_may_be_written_in_other_ways() {
        check("claude-haiku-4-5", 0.0, 1.0, Some("anthropic/claude-haiku-4.5"));
        check("Claude Haiku 4.5", 0.0, 1.0, Some("anthropic/claude-haiku-4.5"));
    }
}
