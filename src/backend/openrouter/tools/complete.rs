//! What does a model say to messages that belong to no conversation?

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Effect, Gives, Takes,
    wishes::{CacheIn, Effort, ProviderIn, ResponseFormat},
};
use crate::backend::openrouter::{
    Task,
    ask::{Used, Wishes},
    form::{self, Form},
    history::object,
    preferences::Preferences,
    refused::Refused,
    upstream::{Event, Message},
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Complete {
    /// Messages as OpenAI writes them, the last one a user's or a tool's.
    #[schemars(length(min = 1, max = 1000))]
    messages: Vec<Map<String, Value>>,
    /// An OpenRouter model id. By default the server's.
    #[serde(default)]
    model: Option<String>,
    // What a server says of the model it wants, whose sampling ends here. Not in the list, where every
    // word costs a model tokens.
    #[serde(default)]
    #[schemars(skip)]
    model_hints: Vec<String>,
    #[serde(default)]
    #[schemars(skip)]
    cost_priority: Option<f64>,
    #[serde(default)]
    #[schemars(skip)]
    intelligence_priority: Option<f64>,
    /// Asked in this order if the model fails before its first word.
    #[serde(default)]
    #[schemars(length(max = 5))]
    fallback_models: Vec<String>,
    /// The longest answer, in tokens.
    #[serde(default)]
    #[schemars(range(min = 16, max = 131_072))]
    max_output_tokens: Option<u64>,
    /// How freely the model chooses its words.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f64>,
    /// Of how much of what is likely the model chooses.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    top_p: Option<f64>,
    /// The same seed gives the same answer, where the provider can.
    #[serde(default)]
    seed: Option<i64>,
    /// Texts at which the answer ends.
    #[serde(default)]
    #[schemars(length(max = 4))]
    stop: Vec<String>,
    /// Functions as OpenAI writes them. Calls are given back, not run.
    #[serde(default)]
    #[schemars(length(max = 128))]
    tools: Vec<Map<String, Value>>,
    /// Must it call one? auto, none, required, or a function's name.
    #[serde(default)]
    tool_choice: Option<String>,
    /// The form of the answer: text, any JSON, or JSON of a schema.
    #[serde(default)]
    response_format: Option<ResponseFormat>,
    /// How much the model thinks before it answers.
    #[serde(default)]
    reasoning_effort: Option<Effort>,
    /// Which providers may answer.
    #[serde(default)]
    provider: Option<ProviderIn>,
    /// What OpenRouter and providers keep.
    #[serde(default)]
    cache: Option<CacheIn>,
    /// Nothing is sent if it may cost more than this.
    #[serde(default)]
    max_cost_usd: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Completed {
    text: String,
    /// The answer as JSON of the form that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    parsed: Option<Value>,
    /// Why the answer is not of the form that was asked for; then there is no parsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    format_error: Option<String>,
    /// Calls of functions, as OpenAI writes them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason: Option<String>,
    model_used: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_id: Option<String>,
    /// Was the answer there already?
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Value>,
    usage: Used,
    warnings: Vec<String>,
}

impl Gives for Completed {
    const SHOWN: Option<&'static str> = Some("text");

    fn text(&self) -> Option<String> {
        Some(self.text.clone())
    }

    fn used(&self) -> Option<&Used> {
        Some(&self.usage)
    }
}

impl Takes for Complete {
    const NAME: &'static str = "complete";
    const TITLE: &'static str = "Ask a model once";
    const DESCRIPTION: &'static str = "Sends messages to a model and gives its answer. Nothing is remembered but what it cost; \
        chat is for conversations.";
    const EFFECT: Effect = Effect::COSTS;
    type Gives = Completed;

    async fn run(self, task: Arc<Task>) -> Result<Completed, Refused> {
        let messages = read(self.messages)?;
        let form = self.response_format.as_ref().map_or(Ok(Form::Text), ResponseFormat::form)?;
        self.cache.as_ref().map_or(Ok(()), CacheIn::check)?;
        let preferences = Preferences {
            hints: self.model_hints,
            cost: self.cost_priority.unwrap_or(0.0),
            intelligence: self.intelligence_priority.unwrap_or(0.0),
        };
        let chosen = match &self.model {
            Some(model) => task.choose(Some(model)).await?,
            None => task.prefer(&preferences, &messages, !self.tools.is_empty()).await?,
        };
        for model in &self.fallback_models {
            task.choose(Some(model)).await?;
        }
        let extra = object([
            ("temperature", self.temperature.map(Value::from)),
            ("top_p", self.top_p.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("stop", (!self.stop.is_empty()).then(|| json!(self.stop))),
            ("tools", (!self.tools.is_empty()).then(|| json!(self.tools))),
            ("tool_choice", self.tool_choice.map(choice)),
            ("reasoning", self.reasoning_effort.map(|effort| json!({ "effort": effort }))),
        ]);
        let wishes = Wishes {
            fallback_models: self.fallback_models,
            max_output_tokens: self.max_output_tokens,
            max_cost_usd: self.max_cost_usd,
            response_format: self.response_format.as_ref().and_then(ResponseFormat::written),
            provider: self.provider.as_ref().map(ProviderIn::written).unwrap_or_default(),
            extra,
            auto_continue: false,
            reuse: self.cache.as_ref().and_then(CacheIn::reuse),
            keeps_prompt: self.cache.as_ref().and_then(|cache| cache.prompt),
        };
        let tell = task.tell.clone();
        let mut sink = move |event| match event {
            Event::Delta(text) => tell.text("", text),
            Event::Status(status) => tell.remark(status.to_string()),
            Event::Opened { .. } | Event::Reasoning(_) | Event::ToolCall { .. } => {}
        };
        let (answer, usage) = task.ask(Self::NAME, (&chosen, messages), &wishes, None, &mut sink).await?;
        let completion = answer.completion;
        let calls_only = completion.text.is_empty() && !completion.tool_calls.is_empty();
        let formed = if calls_only { None } else { form.read(&completion.text) };
        let (parsed, format_error) = form::told(formed);
        Ok(Completed {
            text: completion.text,
            parsed,
            format_error,
            tool_calls: completion.tool_calls.iter().map(|call| json!(call)).collect(),
            finish_reason: completion.finish_reason,
            model_used: completion.model.unwrap_or(answer.report.model),
            provider: completion.provider,
            generation_id: completion.generation_id,
            cache: completion.reused.map(|reused| json!(reused)),
            usage,
            warnings: answer.report.warnings.iter().map(ToString::to_string).collect(),
        })
    }
}

fn read(messages: Vec<Map<String, Value>>) -> Result<Vec<Message>, Refused> {
    let messages = messages.into_iter().map(|message| serde_json::from_value(Value::Object(message)));
    let messages: Vec<_> = messages
        .collect::<Result<_, _>>()
        .map_err(|why| Refused::input(format!("messages: {why}; each is an object with role and content")))?;
    if messages.is_empty() {
        Err(Refused::input("messages is empty; give at least one"))
    } else {
        Ok(messages)
    }
}

/// As OpenRouter has it.
fn choice(choice: String) -> Value {
    match choice.as_str() {
        "auto" | "none" | "required" => Value::from(choice),
        name => json!({ "type": "function", "function": { "name": name } }),
    }
}
