//! How is what a server asks of its client's model put to one of ours, and its answer told?
//!
//! The parameters of `sampling/createMessage` become arguments of the tool complete, and its result
//! one of sampling's. Whoever makes the call in between sees to it that it is one of the caller's.
//! (Every revision, "Sampling"; tools since 2025-11-25.)

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value, json};

use super::{
    context::{of_request, of_text},
    preferences::Preferences,
    refused,
    tools::{Takes as _, complete::Complete},
    upstream::{Message, Part, Role, completion::ToolCall},
};
use crate::wire::mcp::code;

mod blocks; // what messages are made of

use blocks::Block;

/// The tool that answers.
pub const TOOL: &str = Complete::NAME;
/// Says in the `_meta` of a result that no model was asked.
const SIMULATED: &str = "io.waystation/simulated";
/// What the user of a client says who does not want a model asked.
const REJECTED: i64 = -1;
/// Texts at which providers let an answer end. At more of them it is cut off here.
const STOPS: usize = 4;
/// Providers take no shorter answers.
pub const SHORTEST: u64 = 16;

/// Why a server gets no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: i64,
    /// For the server, who need not know what its caller has spent.
    pub says: String,
    /// For the caller and the log.
    pub why: String,
}

impl Refusal {
    fn invalid(why: impl Into<String>) -> Self {
        let why = why.into();
        Self { code: code::INVALID_PARAMS, says: why.clone(), why }
    }

    /// The gateway does not have a model asked, or none has answered.
    pub fn refused(says: &str, why: impl Into<String>) -> Self {
        Self { code: REJECTED, says: format!("no model is asked for it: {says}"), why: why.into() }
    }

    /// As the error of a response.
    pub fn error(&self) -> Value {
        json!({ "code": self.code, "message": self.says })
    }
}

/// What a server wants a model to write.
#[derive(Debug, Clone)]
pub struct Question {
    arguments: Map<String, Value>,
    /// Tokens to be read, about.
    pub read: u64,
    /// The longest answer, in tokens.
    pub longest: u64,
    stops: Vec<String>,
    with_tools: bool,
}

/// What a model wrote, as a result of sampling.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub result: Value,
    /// Tokens read and written.
    pub used: u64,
}

/// The parameters. `includeContext` is left aside, as it may be: the gateway shows no server what others
/// said. So is `metadata`, which is for one provider or another.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    messages: Vec<Said>,
    max_tokens: f64,
    system_prompt: Option<String>,
    temperature: Option<f64>,
    stop_sequences: Option<Vec<String>>,
    model_preferences: Option<Wanted>,
    tools: Option<Vec<Offered>>,
    tool_choice: Option<Choice>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Wanted {
    hints: Option<Vec<Hint>>,
    cost_priority: Option<f64>,
    intelligence_priority: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Hint {
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Offered {
    name: String,
    description: Option<String>,
    input_schema: Value,
}

#[derive(Debug, Deserialize)]
struct Choice {
    mode: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Said {
    role: Speaker,
    #[serde(deserialize_with = "one_or_many")]
    content: Vec<Block>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Speaker {
    User,
    Assistant,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Block>, D::Error> {
    let blocks = match Value::deserialize(deserializer)? {
        Value::Array(blocks) => blocks,
        one => vec![one],
    };
    blocks.into_iter().map(|block| serde_json::from_value(block).map_err(D::Error::custom)).collect()
}

impl Question {
    /// Reads the parameters of a request.
    pub fn read(params: &[u8]) -> Result<Self, Refusal> {
        let params: Params = serde_json::from_slice(params).map_err(|why| {
            Refusal::invalid(format!("the parameters of sampling are not as they must be: {why}"))
        })?;
        if params.max_tokens.is_nan() || params.max_tokens < 1.0 {
            return Err(Refusal::invalid("`maxTokens` must be 1 or more"));
        }
        if params.messages.is_empty() {
            return Err(Refusal::invalid("`messages` is empty; there must be at least one"));
        }
        let system = params.system_prompt.map(|text| Message::new(Role::System, text));
        let mut messages: Vec<_> = system.into_iter().collect();
        in_order(&params.messages)?;
        for said in params.messages {
            said.put(&mut messages)?;
        }
        let stops = params.stop_sequences.unwrap_or_default();
        let tools: Vec<_> = params.tools.unwrap_or_default().into_iter().map(Offered::written).collect();
        let with_tools = !tools.is_empty();
        let tools = Value::from(tools);
        let read = of_request(&messages) + if with_tools { of_text(&tools.to_string()) } else { 0 };
        let mut arguments = Map::new();
        arguments.insert("messages".into(), json!(messages));
        let mut put =
            |name: &str, value: Option<Value>| value.map(|value| arguments.insert(name.into(), value));
        put("temperature", params.temperature.map(Value::from));
        put("stop", (!stops.is_empty()).then(|| json!(stops.iter().take(STOPS).collect::<Vec<_>>())));
        put("model_preferences", params.model_preferences.map(|wanted| json!(wanted.read())));
        if with_tools {
            put("tools", Some(tools));
            put("tool_choice", params.tool_choice.and_then(|choice| choice.mode).map(Value::from));
        }
        Ok(Self { arguments, read, longest: params.max_tokens as u64, stops, with_tools })
    }

    /// The arguments of a call of [`TOOL`], whose answer is to have no more than so many tokens.
    pub fn arguments(&self, most: u64) -> Value {
        let mut arguments = self.arguments.clone();
        arguments.insert("max_output_tokens".into(), self.longest.min(most).max(SHORTEST).into());
        arguments.into()
    }

    /// The result of sampling, by the result of the tool.
    pub fn written(&self, result: &Value) -> Result<Written, Refusal> {
        if result["isError"] == true {
            let code = result["_meta"][refused::META]["code"].as_str().unwrap_or("internal");
            let why = result["content"][0]["text"].as_str().unwrap_or(code);
            return Err(Refusal::refused(code, why));
        }
        let given = &result["structuredContent"];
        let text = given["text"].as_str().unwrap_or_default();
        let end =
            self.stops.iter().filter_map(|stop| text.find(stop.as_str()).filter(|_| !stop.is_empty())).min();
        let text = &text[..end.unwrap_or(text.len())];
        let calls = given["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        let calls = if self.with_tools && end.is_none() { calls } else { &[] };
        let mut content: Vec<_> = calls.iter().map(called).collect::<Result<_, _>>()?;
        if content.is_empty() || !text.is_empty() {
            content.insert(0, json!({ "type": "text", "text": text }));
        }
        let reason = match given["finish_reason"].as_str() {
            _ if end.is_some() => "stopSequence",
            Some("stop") | None => "endTurn",
            Some("length") => "maxTokens",
            Some("tool_calls") => "toolUse",
            Some(other) => other,
        };
        let content = match &mut content[..] {
            // Servers before 2025-11-25 know no lists.
            [one] if !self.with_tools => one.take(),
            _ => Value::from(content),
        };
        let mut result = json!({
            "role": "assistant", "content": content, "model": given["model_used"], "stopReason": reason,
        });
        if given["simulated"] == true {
            result["_meta"] = json!({ SIMULATED: true });
        }
        let tokens = |name: &str| given["usage"][name].as_u64().unwrap_or(0);
        Ok(Written { result, used: tokens("prompt_tokens") + tokens("completion_tokens") })
    }
}

impl Wanted {
    /// How fast a model is, the list of models does not say.
    fn read(self) -> Preferences {
        Preferences {
            hints: self.hints.unwrap_or_default().into_iter().filter_map(|hint| hint.name).collect(),
            cost: self.cost_priority.unwrap_or(0.0),
            intelligence: self.intelligence_priority.unwrap_or(0.0),
        }
    }
}

impl Offered {
    /// As OpenAI writes it.
    fn written(self) -> Value {
        let Self { name, description, input_schema } = self;
        let mut function = json!({ "name": name, "parameters": input_schema });
        if let Some(description) = description {
            function["description"] = description.into();
        }
        json!({ "type": "function", "function": function })
    }
}

/// A call that a model wants made, as MCP writes it.
fn called(call: &Value) -> Result<Value, Refusal> {
    let call: ToolCall = serde_json::from_value(call.clone()).unwrap_or_default();
    let arguments = if call.function.arguments.trim().is_empty() { "{}" } else { &call.function.arguments };
    let input: Map<String, Value> = serde_json::from_str(arguments).map_err(|why| {
        Refusal::refused("upstream_protocol", format!("the model wrote arguments that are no object: {why}"))
    })?;
    Ok(json!({ "type": "tool_use", "id": call.id, "name": call.function.name, "input": input }))
}

/// Does each message with calls of tools stand before the one with their results, and nowhere else?
fn in_order(messages: &[Said]) -> Result<(), Refusal> {
    let mut open: Vec<&str> = Vec::new();
    for Said { role, content } in messages {
        let results: Vec<_> = content.iter().filter_map(Block::is_result_of).collect();
        if !results.is_empty() && (*role != Speaker::User || results.len() < content.len()) {
            let why = "results of tools stand in messages of the user's that hold nothing else";
            return Err(Refusal::invalid(why));
        }
        let missing = open.iter().find(|id| !results.contains(id));
        if missing.is_some() || results.iter().any(|id| !open.contains(id)) {
            let why = "each use of a tool must be followed by a message with its result, and no other result";
            return Err(Refusal::invalid(why));
        }
        open = content.iter().filter_map(Block::is_use).collect();
        if !open.is_empty() && *role != Speaker::Assistant {
            return Err(Refusal::invalid("uses of tools stand in messages of the assistant's"));
        }
    }
    if open.is_empty() { Ok(()) } else { Err(Refusal::invalid("the result of a tool's use is missing")) }
}

impl Said {
    /// Adds the message as OpenAI writes it: results of tools are messages of their own there.
    fn put(self, messages: &mut Vec<Message>) -> Result<(), Refusal> {
        let role = if self.role == Speaker::User { Role::User } else { Role::Assistant };
        let (mut parts, mut calls) = (Vec::<Part>::new(), Vec::new());
        for block in self.content {
            match block {
                Block::ToolUse { id, name, input } => calls.push(blocks::call(id, name, &input)),
                Block::ToolResult(result) => messages.push(result.message()?),
                block => parts.push(block.part()?),
            }
        }
        if parts.is_empty() && calls.is_empty() {
            return Ok(());
        }
        messages.push(Message { tool_calls: calls, ..Message::new(role, blocks::content(parts)) });
        Ok(())
    }
}
