//! How do callers say how an answer is to be made?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::backend::openrouter::{
    context::Strategy,
    form::{Form, Schema},
    history::object,
    refused::Refused,
    upstream::Reuse,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseFormat {
    /// text, json_object or json_schema.
    #[serde(rename = "type")]
    pub kind: FormatKind,
    /// A name for the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A JSON Schema that the answer must satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Map<String, Value>>,
    /// Is the provider to refuse what it cannot guarantee? By default it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatKind {
    #[default]
    Text,
    JsonObject,
    JsonSchema,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebSearch {
    /// Is it searched? By default it is.
    pub enabled: Option<bool>,
    /// How many results the model reads.
    #[schemars(range(min = 1, max = 20))]
    pub max_results: Option<u32>,
    /// Only these domains.
    pub allowed_domains: Vec<String>,
    /// None of these domains.
    pub excluded_domains: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderIn {
    /// Providers to ask first, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<String>,
    /// Only these providers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// None of these providers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// May others answer if those cannot?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_fallbacks: Option<bool>,
    /// Only providers that know all parameters of the request?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_parameters: Option<bool>,
    /// May providers keep what they are sent? allow or deny.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_collection: Option<DataCollection>,
    /// Only providers that keep nothing?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zdr: Option<bool>,
    /// What to choose by: price, throughput or latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort: Option<ProviderSort>,
    /// The highest price for a million tokens read, in US dollars.
    #[serde(skip_serializing)]
    pub max_prompt_price_per_m: Option<f64>,
    /// The highest price for a million tokens written, in US dollars.
    #[serde(skip_serializing)]
    pub max_output_price_per_m: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataCollection {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderSort {
    Price,
    Throughput,
    Latency,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContextIn {
    /// window: the oldest turns are left out. summarize: a summary stands for them. compress: OpenRouter shortens. error: nothing is sent.
    pub strategy: Option<Strategy>,
    /// No more of the conversation than so many tokens.
    #[schemars(range(min = 256))]
    pub max_input_tokens: Option<u64>,
    /// No more of the conversation than so many turns.
    #[schemars(range(min = 1))]
    pub keep_last_turns: Option<usize>,
}

/// What may be kept for requests to come.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheIn {
    /// Is an answer that OpenRouter gave to the same request as good, and this one kept for that? By default not.
    pub responses: bool,
    /// For how many seconds it is kept.
    #[schemars(range(min = 1, max = 86_400))]
    pub ttl_s: Option<u32>,
    /// Is what was kept not given, but replaced?
    pub clear: bool,
    /// Does the provider keep the prompt for the next turn, where it wants to be told? By default if it is long.
    pub prompt: Option<bool>,
}

impl CacheIn {
    pub fn check(&self) -> Result<(), Refused> {
        if !self.responses && (self.clear || self.ttl_s.is_some()) {
            return Err(Refused::input(
                "cache.ttl_s and cache.clear are about cache.responses; say true there too",
            ));
        }
        match self.ttl_s {
            Some(ttl) if !(1..=86_400).contains(&ttl) => {
                Err(Refused::input(format!("cache.ttl_s is {ttl}; it may be 1 to 86400 seconds")))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub fn reuse(&self) -> Option<Reuse> {
        self.responses.then_some(Reuse { ttl_s: self.ttl_s, clear: self.clear })
    }
}

impl WebSearch {
    pub fn tool(&self) -> Value {
        let list = |all: &[String]| (!all.is_empty()).then(|| json!(all));
        let parameters = object([
            ("max_results", self.max_results.map(Value::from)),
            ("allowed_domains", list(&self.allowed_domains)),
            ("excluded_domains", list(&self.excluded_domains)),
        ]);
        json!({ "type": "openrouter:web_search", "parameters": parameters })
    }
}

impl ResponseFormat {
    /// What the answer is held against.
    pub fn form(&self) -> Result<Form, Refused> {
        match (self.kind, &self.schema) {
            (FormatKind::JsonSchema, Some(schema)) => {
                let schema = Schema::new(Value::Object(schema.clone()));
                let schema = schema
                    .map_err(|why| Refused::input(format!("response_format.schema is no good: {why}")))?;
                Ok(Form::Schema(Box::new(schema)))
            }
            (FormatKind::JsonSchema, None) => Err(Refused::input(
                "response_format.schema is missing; give the JSON Schema, or ask for json_object",
            )),
            (_, Some(_)) => Err(Refused::input(
                "response_format.schema is for the type json_schema; leave it out, or ask for that",
            )),
            (FormatKind::JsonObject, None) => Ok(Form::Object),
            (FormatKind::Text, None) => Ok(Form::Text),
        }
    }

    /// As OpenRouter reads it.
    pub fn written(&self) -> Option<Value> {
        match self.kind {
            FormatKind::Text => None,
            FormatKind::JsonObject => Some(json!({ "type": "json_object" })),
            FormatKind::JsonSchema => {
                let name = self.name.as_deref().unwrap_or("answer");
                let schema = self.schema.clone().unwrap_or_default();
                let strict = self.strict != Some(false);
                Some(
                    json!({ "type": "json_schema", "json_schema": { "name": name, "schema": schema, "strict": strict } }),
                )
            }
        }
    }
}

impl ProviderIn {
    /// As OpenRouter reads it.
    pub fn written(&self) -> Map<String, Value> {
        let mut written =
            serde_json::to_value(self).ok().and_then(|value| value.as_object().cloned()).unwrap_or_default();
        let most = object([
            ("prompt", self.max_prompt_price_per_m.map(Value::from)),
            ("completion", self.max_output_price_per_m.map(Value::from)),
        ]);
        if !most.is_empty() {
            written.insert("max_price".into(), most.into());
        }
        written
    }
}
