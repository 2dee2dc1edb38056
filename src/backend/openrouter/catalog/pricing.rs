//! What does the use of a model cost?

use serde_json::Value;

use super::super::money::{Amount, Money, Price};

/// Prices per token and per thing. One that is not known is no price; one that is not named is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pricing {
    pub prompt: Option<Price>,
    pub completion: Option<Price>,
    pub request: Option<Price>,
    pub image: Option<Price>,
    pub web_search: Option<Price>,
    pub input_cache_read: Option<Price>,
    pub input_cache_write: Option<Price>,
    overrides: Vec<Override>,
}

/// Prices that hold from some length on, or at some hours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Override {
    min_prompt_tokens: u64,
    prompt: Option<Price>,
    completion: Option<Price>,
}

/// What a call will use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub images: u64,
    pub web_searches: u64,
    /// The provider keeps what it reads for the next call, which may cost more than reading it.
    pub keeps_prompt: bool,
}

impl Pricing {
    /// Both prices must be there, even if they say that they vary.
    pub(super) fn read(value: &Value) -> Option<Self> {
        value.get("prompt").and_then(written)?;
        value.get("completion").and_then(written)?;
        let price = |value: &Value, name: &str| Price::parse(&value.get(name).and_then(written)?);
        let optional = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Some(Price::FREE),
            Some(_) => price(value, name),
        };
        let overrides = value.get("overrides").and_then(Value::as_array).into_iter().flatten();
        let overrides = overrides.map(|one| Override {
            min_prompt_tokens: one.get("min_prompt_tokens").and_then(Value::as_u64).unwrap_or(0),
            prompt: price(one, "prompt"),
            completion: price(one, "completion"),
        });
        Some(Self {
            prompt: price(value, "prompt"),
            completion: price(value, "completion"),
            request: optional("request"),
            image: optional("image"),
            web_search: optional("web_search"),
            input_cache_read: price(value, "input_cache_read"),
            input_cache_write: price(value, "input_cache_write"),
            overrides: overrides.collect(),
        })
    }

    /// Does all of it cost nothing?
    pub fn is_free(&self) -> bool {
        let free = |price: Option<Price>| price.is_some_and(Price::is_free);
        free(self.prompt) && free(self.completion) && free(self.request) && self.overrides.is_empty()
    }

    /// The most that such a use costs; none if it is not known. What depends on the hour counts as if
    /// it were that hour.
    pub fn estimate(&self, used: Use) -> Option<Money> {
        let (mut prompt, mut completion) = (self.prompt?, self.completion?);
        for one in self.overrides.iter().filter(|one| one.min_prompt_tokens <= used.prompt_tokens) {
            prompt = prompt.max(one.prompt.unwrap_or(prompt));
            completion = completion.max(one.completion.unwrap_or(completion));
        }
        if used.keeps_prompt {
            prompt = prompt.max(self.input_cache_write.unwrap_or(prompt));
        }
        let things = [(self.image, used.images), (self.web_search, used.web_searches), (self.request, 1)];
        let things = things.into_iter().filter(|(_, count)| *count > 0);
        let things: Amount = things.map(|(price, count)| Some(price?.times(count))).sum::<Option<_>>()?;
        Some((prompt.times(used.prompt_tokens) + completion.times(used.output_tokens) + things).round_up())
    }
}

/// A price as it is written: a text, or a number.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOKENS: Use =
        Use { prompt_tokens: 100_000, output_tokens: 1000, images: 0, web_searches: 0, keeps_prompt: false };

    fn cost(pricing: Value, used: Use) -> Option<String> {
        Some(Pricing::read(&pricing)?.estimate(used)?.to_string())
    }

    #[test]
    fn a_use_costs_what_its_parts_cost() {
        let pricing = json!({"prompt": "0.0000015", "completion": "0.000006", "request": "0.001", "image": "0.002", "web_search": "0.01"});
        assert_eq!(cost(pricing.clone(), TOKENS).unwrap(), "0.157");
        let used = Use { images: 2, web_searches: 1, ..TOKENS };
        assert_eq!(cost(pricing, used).unwrap(), "0.171");
    }

    #[test]
    fn long_prompts_may_cost_more() {
        let pricing = json!({"prompt": "0.000001", "completion": "0", "overrides": [{"min_prompt_tokens": 200_000, "prompt": "0.000002"}, {"utc_start": 9, "completion": "0.000001"}]});
        assert_eq!(cost(pricing.clone(), TOKENS).unwrap(), "0.101");
        assert_eq!(cost(pricing, Use { prompt_tokens: 200_000, ..TOKENS }).unwrap(), "0.401");
    }

    #[test]
    fn to_have_a_prompt_kept_may_cost_more() {
        let pricing = json!({"prompt": "0.000001", "completion": "0", "input_cache_write": "0.00000125"});
        assert_eq!(cost(pricing.clone(), TOKENS).unwrap(), "0.1");
        assert_eq!(cost(pricing, Use { keeps_prompt: true, ..TOKENS }).unwrap(), "0.125");
    }

    #[test]
    fn a_price_that_varies_is_not_known() {
        let auto = Pricing::read(&json!({"prompt": "-1", "completion": "-1"})).unwrap();
        assert_eq!((auto.estimate(TOKENS), auto.is_free()), (None, false));
        let searching = json!({"prompt": "0", "completion": "0", "web_search": "-1"});
        assert_eq!(cost(searching.clone(), TOKENS).unwrap(), "0");
        assert_eq!(cost(searching, Use { web_searches: 1, ..TOKENS }), None);
        assert_eq!(Pricing::read(&json!({"prompt": "0"})), None);
        assert!(Pricing::read(&json!({"prompt": 0, "completion": 0.0})).unwrap().is_free());
    }
}
