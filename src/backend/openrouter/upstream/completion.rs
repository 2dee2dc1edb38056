//! What did a model answer, and what was used for it?

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::super::money::Money;

/// An answer, or as much of one as came.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    pub text: String,
    pub reasoning: String,
    /// To be replayed unchanged in later turns; pieces of one block are joined.
    pub reasoning_details: Vec<Value>,
    pub tool_calls: Vec<ToolCall>,
    /// Citations, and what was read out of documents.
    pub annotations: Vec<Value>,
    /// Pictures that the model made.
    pub images: Vec<Value>,
    /// What a model says that will not answer.
    pub refusal: Option<String>,
    /// `stop`, `length`, `tool_calls`, `content_filter`, or a word that is new.
    pub finish_reason: Option<String>,
    pub native_finish_reason: Option<String>,
    pub provider: Option<String>,
    /// The model that answered, which is another than was asked for after a fallback.
    pub model: Option<String>,
    pub usage: Option<Usage>,
    pub generation_id: Option<String>,
    /// Where OpenRouter's cache of answers was asked: what it said.
    pub reused: Option<Reused>,
}

/// Was an answer there already?
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reused {
    pub hit: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
}

impl Completion {
    /// Has the model said anything, so that it is billed and must not be asked again?
    pub fn has_content(&self) -> bool {
        !self.reasoning.is_empty() || !self.reasoning_details.is_empty() || !self.is_empty()
    }

    /// Is there nothing in it that anybody could use?
    pub fn is_empty(&self) -> bool {
        self.text.trim().is_empty() && self.tool_calls.is_empty() && self.images.is_empty()
    }

    /// Where on the web it is from.
    pub fn citations(&self) -> impl Iterator<Item = &Value> {
        self.annotations.iter().filter_map(|one| one.get("url_citation"))
    }

    /// Was it cut off by the limit on its length?
    pub fn was_cut(&self) -> bool {
        self.finish_reason.as_deref() == Some("length")
    }
}

/// A function that the model wants called. The arguments are the model's words, JSON if all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolCall {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub function: Function,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Function {
    pub name: String,
    pub arguments: String,
}

/// What a request used, as OpenRouter reports it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    #[serde(deserialize_with = "lenient")]
    pub prompt_tokens: u64,
    #[serde(deserialize_with = "lenient")]
    pub completion_tokens: u64,
    #[serde(deserialize_with = "lenient")]
    pub total_tokens: u64,
    /// Absent is not free: some answers come without.
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    #[serde(deserialize_with = "lenient")]
    pub is_byok: bool,
    #[serde(deserialize_with = "lenient")]
    pub prompt_tokens_details: PromptDetails,
    #[serde(deserialize_with = "lenient")]
    pub completion_tokens_details: CompletionDetails,
    /// `cost_details`, `server_tool_use_details` and whatever else there is.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptDetails {
    #[serde(deserialize_with = "lenient")]
    pub cached_tokens: u64,
    #[serde(deserialize_with = "lenient")]
    pub cache_write_tokens: u64,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompletionDetails {
    #[serde(deserialize_with = "lenient")]
    pub reasoning_tokens: u64,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Usage {
    /// Of two requests for one answer.
    pub fn add(&mut self, other: &Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.total_tokens += other.total_tokens;
        self.cost = match (self.cost, other.cost) {
            (Some(one), Some(two)) => Some(one + two),
            (one, two) => one.or(two),
        };
        self.prompt_tokens_details.cached_tokens += other.prompt_tokens_details.cached_tokens;
        self.prompt_tokens_details.cache_write_tokens += other.prompt_tokens_details.cache_write_tokens;
        self.completion_tokens_details.reasoning_tokens += other.completion_tokens_details.reasoning_tokens;
    }
}

/// A value of the type that is expected, or its default: one odd member must not cost the others.
pub(super) fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_whatever_is_odd_in_it() {
        let text = r#"{"prompt_tokens":21,"completion_tokens":null,"total_tokens":"many","cost":0.0000855,
            "prompt_tokens_details":null,"completion_tokens_details":{"reasoning_tokens":12,"audio_tokens":0},
            "server_tool_use":{"web_search_requests":2},"brand_new":{"x":1}}"#;
        let usage: Usage = serde_json::from_str(text).unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (21, 0));
        assert_eq!(usage.cost.unwrap().to_string(), "0.0000855");
        assert_eq!(usage.completion_tokens_details.reasoning_tokens, 12);
        assert_eq!(usage.other["server_tool_use"]["web_search_requests"], 2);
        assert!(usage.other.contains_key("brand_new"));
    }

    #[test]
    fn what_two_requests_used_is_added_up() {
        let mut one = Usage { prompt_tokens: 3, cost: Some(Money::from_nanos(5)), ..Usage::default() };
        one.add(&Usage { prompt_tokens: 4, cost: None, ..Usage::default() });
        one.add(&Usage { completion_tokens: 1, cost: Some(Money::from_nanos(7)), ..Usage::default() });
        assert_eq!((one.prompt_tokens, one.completion_tokens, one.cost), (7, 1, Some(Money::from_nanos(12))));
    }
}
