//! How is what a server asks of its client's model put to one of ours, and its answer told?
//!
//! The parameters of `sampling/createMessage` become arguments of the tool complete, and its result
//! one of sampling's. Whoever makes the call in between sees to it that it is one of the caller's.
//! (Every revision, "Sampling"; tools since 2025-11-25.)

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value, json};

use super::{
    context::{of_request, of_text},
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

/// How fast a model is (`speedPriority`), the list of models does not say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
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
        let Wanted { hints, cost_priority, intelligence_priority } =
            params.model_preferences.unwrap_or_default();
        let hints: Vec<_> = hints.unwrap_or_default().into_iter().filter_map(|hint| hint.name).collect();
        put("model_hints", (!hints.is_empty()).then(|| json!(hints)));
        put("cost_priority", cost_priority.map(Value::from));
        put("intelligence_priority", intelligence_priority.map(Value::from));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn question(params: &Value) -> Question {
        Question::read(params.to_string().as_bytes()).unwrap()
    }

    fn said(role: &str, content: &Value) -> Value {
        json!({ "role": role, "content": content })
    }

    fn params(messages: &[Value]) -> Value {
        json!({ "messages": messages, "maxTokens": 50 })
    }

    /// The messages as a model gets them.
    #[track_caller]
    fn check(messages: &[Value], expected: &Value) {
        assert_eq!(question(&params(messages)).arguments(1000)["messages"], *expected);
    }

    #[test]
    fn messages_are_written_as_models_read_them() {
        let text = |text: &str| json!({ "type": "text", "text": text });
        check(&[said("user", &text("hello"))], &json!([{ "role": "user", "content": "hello" }]));
        let picture = json!({ "type": "image", "data": "aGk=", "mimeType": "image/png" });
        let sound = json!({ "type": "audio", "data": "aGk=", "mimeType": "audio/mpeg" });
        let parts = json!([
            text("see"), { "type": "image_url", "image_url": { "url": "data:image/png;base64,aGk=" } },
            { "type": "input_audio", "input_audio": { "data": "aGk=", "format": "mp3" } },
        ]);
        check(
            &[said("user", &json!([text("see"), picture, sound]))],
            &json!([{ "role": "user", "content": parts }]),
        );
        let used = json!({ "type": "tool_use", "id": "1", "name": "look", "input": { "at": 0 } });
        let other = json!({ "type": "tool_use", "id": "2", "name": "look", "input": {} });
        let result = |id: &str, more: Value| {
            let mut result = json!({ "type": "tool_result", "toolUseId": id, "content": [] });
            result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            result
        };
        let first = result("1", json!({ "content": [text("a hat")] }));
        let second = result("2", json!({ "structuredContent": { "n": 1 }, "isError": false }));
        let call = |id: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": "look", "arguments": arguments } });
        check(
            &[
                said("user", &text("look")),
                said("assistant", &json!([text("I do"), used, other])),
                said("user", &json!([first, second])),
            ],
            &json!([
                { "role": "user", "content": "look" },
                { "role": "assistant", "content": "I do", "tool_calls": [call("1", "{\"at\":0}"), call("2", "{}")] },
                { "role": "tool", "tool_call_id": "1", "content": "a hat" },
                { "role": "tool", "tool_call_id": "2", "content": "{\"n\":1}" },
            ]),
        );
    }

    #[test]
    fn an_answer_is_no_longer_than_is_asked_for_or_left() {
        let long = |most| {
            question(&params(&[said("user", &json!([]))])).arguments(most)["max_output_tokens"].clone()
        };
        assert_eq!([long(1000), long(20), long(3)], [json!(50), json!(20), json!(16)]);
    }

    #[test]
    fn what_a_model_says_is_a_result_of_sampling() {
        let mut asked = params(&[said("user", &json!({ "type": "text", "text": "?" }))]);
        asked["stopSequences"] = json!(["A", "B", "C", "D", "END"]);
        let plain = question(&asked);
        assert_eq!(plain.arguments(100)["stop"], json!(["A", "B", "C", "D"]));
        let given = |more: Value| {
            let mut given = json!({ "text": "so", "model_used": "m", "usage": { "prompt_tokens": 3, "completion_tokens": 4 } });
            given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "structuredContent": given })
        };
        let written = |question: &Question, more: Value| question.written(&given(more));
        let one = |question: &Question, more: Value| written(question, more).unwrap().result;
        let text = |text: &str| json!({ "type": "text", "text": text });
        for (more, said, reason) in [
            (json!({ "finish_reason": "stop" }), "so", "endTurn"),
            (json!({ "finish_reason": "length" }), "so", "maxTokens"),
            (json!({ "finish_reason": "content_filter" }), "so", "content_filter"),
            (json!({ "text": "so END far" }), "so ", "stopSequence"),
        ] {
            let expected =
                json!({ "role": "assistant", "content": text(said), "model": "m", "stopReason": reason });
            assert_eq!(one(&plain, more), expected);
        }
        assert_eq!(written(&plain, json!({})).unwrap().used, 7);
        assert_eq!(
            one(&plain, json!({ "simulated": true }))["_meta"],
            json!({ "io.waystation/simulated": true })
        );
        asked["tools"] = json!([{ "name": "look", "inputSchema": {} }]);
        let with_tools = question(&asked);
        let call = |arguments: &str| {
            let function = json!({ "name": "look", "arguments": arguments });
            json!({ "text": "", "finish_reason": "tool_calls", "tool_calls": [{ "id": "1", "type": "function", "function": function }] })
        };
        let used = one(&with_tools, call("{\"at\":0}"));
        assert_eq!(
            used["content"],
            json!([{ "type": "tool_use", "id": "1", "name": "look", "input": { "at": 0 } }])
        );
        assert_eq!(one(&with_tools, json!({}))["content"], json!([text("so")]));
        assert_eq!(written(&with_tools, call("{\"at\"")).unwrap_err().code, REJECTED);
    }

    #[test]
    fn what_breaks_the_rules_of_sampling_is_told() {
        let used = json!({ "type": "tool_use", "id": "1", "name": "look", "input": {} });
        let result = json!({ "type": "tool_result", "toolUseId": "1", "content": [] });
        let text = json!({ "type": "text", "text": "so" });
        let unknown = json!({ "type": "hologram" });
        for messages in [
            vec![],
            vec![said("user", &unknown)],
            vec![said("system", &text)],
            vec![said("assistant", &used)],
            vec![said("assistant", &used), said("user", &text)],
            vec![said("assistant", &used), said("user", &json!([result, text]))],
            vec![said("user", &result)],
            vec![said("user", &used), said("user", &result)],
        ] {
            let refusal = Question::read(params(&messages).to_string().as_bytes()).unwrap_err();
            assert_eq!(refusal.code, code::INVALID_PARAMS, "{messages:?}");
            assert!(!refusal.says.is_empty());
        }
    }
}
