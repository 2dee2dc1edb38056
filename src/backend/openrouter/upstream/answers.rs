//! What are questions other than chats answered with?
//!
//! Only the members that somebody here looks at have names; all others are kept in `other`, and a
//! member of another type than expected counts as absent. What is new in the API so costs nothing.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    super::money::Money,
    completion::{Usage, lenient},
};

/// A model's providers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    #[serde(deserialize_with = "lenient")]
    pub id: String,
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    #[serde(deserialize_with = "each")]
    pub endpoints: Vec<Endpoint>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One provider of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    #[serde(deserialize_with = "lenient")]
    pub provider_name: String,
    #[serde(deserialize_with = "lenient")]
    pub tag: String,
    #[serde(deserialize_with = "lenient")]
    pub context_length: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub max_completion_tokens: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub supported_parameters: Vec<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What the key may do and has spent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyInfo {
    #[serde(deserialize_with = "lenient")]
    pub label: String,
    /// None is no limit.
    #[serde(deserialize_with = "lenient")]
    pub limit: Option<Money>,
    #[serde(deserialize_with = "lenient")]
    pub limit_remaining: Option<Money>,
    #[serde(deserialize_with = "lenient")]
    pub limit_reset: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub usage: Option<Money>,
    #[serde(deserialize_with = "lenient")]
    pub is_free_tier: bool,
    #[serde(deserialize_with = "lenient")]
    pub is_management_key: bool,
    #[serde(deserialize_with = "lenient")]
    pub free_model_daily_requests: Option<FreeCalls>,
    #[serde(deserialize_with = "each")]
    pub budgets: Vec<Budget>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How many free calls of the day there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FreeCalls {
    #[serde(deserialize_with = "lenient")]
    pub used: u64,
    #[serde(deserialize_with = "lenient")]
    pub limit: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub remaining: Option<u64>,
}

/// One of the limits that hold for a key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    #[serde(deserialize_with = "lenient")]
    pub scope: String,
    #[serde(deserialize_with = "lenient")]
    pub limit_usd: Option<Money>,
    #[serde(deserialize_with = "lenient")]
    pub spend_usd: Option<Money>,
    #[serde(deserialize_with = "lenient")]
    pub remaining_usd: Option<Money>,
    #[serde(deserialize_with = "lenient")]
    pub resets_at: Option<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What the account has bought and used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Credits {
    #[serde(deserialize_with = "lenient")]
    pub total_credits: Money,
    #[serde(deserialize_with = "lenient")]
    pub total_usage: Money,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What is on record about one answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generation {
    #[serde(deserialize_with = "lenient")]
    pub id: String,
    #[serde(deserialize_with = "lenient")]
    pub model: String,
    #[serde(deserialize_with = "lenient")]
    pub total_cost: Option<Money>,
    #[serde(deserialize_with = "lenient")]
    pub cancelled: bool,
    #[serde(deserialize_with = "lenient")]
    pub provider_name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub finish_reason: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub native_tokens_prompt: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub native_tokens_completion: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub native_tokens_reasoning: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub native_tokens_cached: Option<u64>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Embeddings {
    #[serde(deserialize_with = "lenient")]
    pub id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub model: String,
    #[serde(deserialize_with = "each")]
    pub data: Vec<Embedding>,
    #[serde(deserialize_with = "lenient")]
    pub usage: Option<Usage>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Embedding {
    #[serde(deserialize_with = "lenient")]
    pub index: u64,
    /// Numbers, for they are asked for as such.
    #[serde(deserialize_with = "lenient")]
    pub embedding: Vec<f64>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Images {
    #[serde(deserialize_with = "each")]
    pub data: Vec<Image>,
    #[serde(deserialize_with = "lenient")]
    pub usage: Option<Usage>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    #[serde(deserialize_with = "lenient")]
    pub b64_json: String,
    #[serde(deserialize_with = "lenient")]
    pub media_type: Option<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rerank {
    #[serde(deserialize_with = "lenient")]
    pub id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub model: String,
    #[serde(deserialize_with = "lenient")]
    pub provider: Option<String>,
    #[serde(deserialize_with = "each")]
    pub results: Vec<Ranked>,
    /// Search units and the like, as each provider counts.
    #[serde(deserialize_with = "lenient")]
    pub usage: Option<Usage>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ranked {
    #[serde(deserialize_with = "lenient")]
    pub index: u64,
    #[serde(deserialize_with = "lenient")]
    pub relevance_score: f64,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A list without the entries that cannot be read.
fn each<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let all: Vec<Value> = lenient(deserializer)?;
    Ok(all.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect())
}
