//! What is asked of a model?

use serde_json::Value;

use super::media::{self, Medium};
use crate::simulator::{random, refusal::Refusal};

/// A request to `/chat/completions`, read.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The first of these that can be had is to answer.
    pub candidates: Vec<String>,
    pub messages: Vec<Message>,
    pub stream: bool,
    /// How many tokens the answer may have.
    pub cap: Option<u64>,
    pub stops: Vec<String>,
    /// Whether to think first; nothing if nothing was said of it.
    pub thinks: Option<bool>,
    pub hides_reasoning: bool,
    pub temperature: f64,
    pub seed: Option<i64>,
    pub functions: Vec<Function>,
    /// A tool has to be called: this one, or any.
    pub must_call: Option<String>,
    /// What the tools count as.
    pub tool_tokens: u64,
    pub search: bool,
    pub format: Format,
    /// Whether to leave out what does not fit; nothing if nothing was said of it.
    pub compress: Option<bool>,
    pub picture: bool,
    pub echo: bool,
    /// The provider is to keep the prompt for the next request.
    pub keeps_prompt: bool,
    pub provider: Value,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub role: String,
    pub text: String,
    pub media: Vec<Medium>,
    pub tokens: u64,
    /// Stands for all of the message.
    pub fingerprint: u64,
    /// Hashes of files that an earlier answer has already read.
    pub files_read: Vec<String>,
    canonical: String,
}

#[derive(Debug, Clone)]
pub struct Function {
    pub name: String,
    pub parameters: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    Text,
    Object,
    Schema(Value),
}

/// `cache_control` for all of it, or at a part of a message.
fn keeps_prompt(body: &Value) -> bool {
    let messages = body["messages"].as_array().into_iter().flatten();
    let mut parts = messages.flat_map(|message| message["content"].as_array().into_iter().flatten());
    body["cache_control"].is_object() || parts.any(|part| part["cache_control"].is_object())
}

impl Ask {
    pub fn read(body: &Value) -> Result<Self, Refusal> {
        let listed = body["messages"].as_array().filter(|listed| !listed.is_empty());
        let listed =
            listed.ok_or_else(|| Refusal::invalid("messages has to be a list with at least one message"))?;
        let messages = listed.iter().map(Message::read).collect::<Result<Vec<_>, _>>()?;
        let mut candidates: Vec<String> = body["model"].as_str().map(str::to_owned).into_iter().collect();
        candidates.extend(strings(&body["models"]));
        if candidates.is_empty() {
            candidates.push("openrouter/auto".to_owned());
        }
        let (functions, searches) = tools(&body["tools"])?;
        let plugin = |id: &str| {
            let mut plugins = body["plugins"].as_array().into_iter().flatten();
            plugins.find(|plugin| plugin["id"] == id).map(|plugin| plugin["enabled"] != false)
        };
        let online = candidates.first().is_some_and(|id| id.ends_with(":online"));
        let middle_out = strings(&body["transforms"]).iter().any(|name| name == "middle-out").then_some(true);
        let choice = &body["tool_choice"];
        let named = choice["function"]["name"].as_str().map(str::to_owned);
        let stops =
            body["stop"].as_str().map_or_else(|| strings(&body["stop"]), |stop| vec![stop.to_owned()]);
        Ok(Self {
            candidates,
            messages,
            stream: body["stream"] == true,
            cap: cap(body)?,
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            thinks: thinks(body),
            hides_reasoning: body["reasoning"]["exclude"] == true || body["include_reasoning"] == false,
            temperature: between(body, "temperature", 0.0, 2.0)?.unwrap_or(0.0),
            seed: body["seed"].as_i64(),
            functions: if choice == "none" { Vec::new() } else { functions },
            must_call: named.or_else(|| (choice == "required").then(String::new)),
            tool_tokens: if body["tools"].is_array() { super::tokens(&body["tools"].to_string()) } else { 0 },
            search: searches || online || plugin("web") == Some(true),
            format: match body["response_format"]["type"].as_str() {
                Some("json_object") => Format::Object,
                Some("json_schema") => {
                    Format::Schema(body["response_format"]["json_schema"]["schema"].clone())
                }
                _ => Format::Text,
            },
            compress: plugin("context-compression").or(middle_out),
            picture: strings(&body["modalities"]).iter().any(|modality| modality == "image"),
            echo: body["debug"]["echo_upstream_body"] == true,
            keeps_prompt: keeps_prompt(body),
            provider: body["provider"].clone(),
        })
    }

    /// How many tokens the messages are.
    pub fn text_tokens(&self) -> u64 {
        3 + self.messages.iter().map(|message| message.tokens).sum::<u64>()
    }

    pub fn prompt(&self) -> u64 {
        self.text_tokens() + self.tool_tokens
    }

    /// An answer that was begun, and is to be continued.
    pub fn begun(&self) -> Option<&str> {
        self.messages
            .last()
            .filter(|message| message.role == "assistant")
            .map(|message| message.text.as_str())
    }

    /// The messages without an answer that was begun.
    pub fn conversation(&self) -> &[Message] {
        match self.begun() {
            Some(_) => &self.messages[..self.messages.len() - 1],
            None => &self.messages,
        }
    }

    /// What all of the conversation comes down to: another one has another digest.
    pub fn digest(&self) -> String {
        let texts: Vec<_> = self.conversation().iter().map(|message| message.canonical.as_str()).collect();
        random::short(format!("[{}]", texts.join(",")).as_bytes())
    }

    pub fn said_by<'a>(&'a self, role: &'a str) -> impl DoubleEndedIterator<Item = &'a Message> {
        self.conversation().iter().filter(move |message| message.role == role)
    }

    /// The last text of the user.
    pub fn last_said(&self) -> &str {
        self.said_by("user").next_back().map_or("", |message| message.text.as_str())
    }
}

impl Message {
    fn read(message: &Value) -> Result<Self, Refusal> {
        let role = message["role"].as_str().unwrap_or_default();
        if !["system", "developer", "user", "assistant", "tool"].contains(&role) {
            return Err(Refusal::invalid(format!("a message has the role {:?}", message["role"])));
        }
        if !(message["content"].is_string() || message["content"].is_array() || message["content"].is_null())
        {
            return Err(Refusal::invalid("content has to be a text, a list of parts or null"));
        }
        if role == "tool" && !message["tool_call_id"].is_string() {
            return Err(Refusal::invalid("a message of a tool has to have a tool_call_id"));
        }
        let parts = message["content"].as_array().into_iter().flatten();
        let media = parts.filter_map(|part| media::read(part).transpose()).collect::<Result<Vec<_>, _>>()?;
        let annotations = message["annotations"].as_array().into_iter().flatten();
        let files = annotations.filter_map(|annotation| annotation["file"]["hash"].as_str());
        let text = super::text_of(&message["content"]);
        let canonical = canonical(message);
        Ok(Self {
            role: role.to_owned(),
            tokens: 4 + super::tokens(&text) + media.iter().map(|medium| medium.tokens).sum::<u64>(),
            text,
            fingerprint: random::number(&[canonical.as_bytes()]),
            files_read: files.map(str::to_owned).collect(),
            media,
            canonical,
        })
    }
}

/// Members in the order of their names, and no blanks.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members
                .iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn between(body: &Value, name: &str, least: f64, most: f64) -> Result<Option<f64>, Refusal> {
    match &body[name] {
        Value::Null => Ok(None),
        value => match value.as_f64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Refusal::invalid(format!("{name} has to be from {least} to {most}, and is {value}"))),
        },
    }
}

fn cap(body: &Value) -> Result<Option<u64>, Refusal> {
    for name in ["max_completion_tokens", "max_tokens"] {
        match &body[name] {
            Value::Null => {}
            value => match value.as_u64().filter(|cap| *cap > 0) {
                Some(cap) => return Ok(Some(cap)),
                None => return Err(Refusal::invalid(format!("{name} has to be 1 or more, and is {value}"))),
            },
        }
    }
    Ok(None)
}

fn thinks(body: &Value) -> Option<bool> {
    let reasoning = &body["reasoning"];
    let effort = reasoning["effort"].as_str().or_else(|| body["reasoning_effort"].as_str());
    match (effort, &reasoning["enabled"]) {
        (Some(effort), _) => Some(effort != "none"),
        (None, Value::Bool(enabled)) => Some(*enabled),
        (None, _) if reasoning["max_tokens"].is_u64() || body["include_reasoning"] == true => Some(true),
        (None, _) => None,
    }
}

/// The functions among the tools, and whether there is web search.
fn tools(tools: &Value) -> Result<(Vec<Function>, bool), Refusal> {
    let (mut functions, mut search) = (Vec::new(), false);
    for tool in tools.as_array().into_iter().flatten() {
        match tool["type"].as_str() {
            Some("function") => {
                let name = tool["function"]["name"].as_str().unwrap_or_default();
                if !(1..=64).contains(&name.len()) {
                    return Err(Refusal::invalid("a function has to have a name of up to 64 letters"));
                }
                functions.push(Function {
                    name: name.to_owned(),
                    parameters: tool["function"]["parameters"].clone(),
                });
            }
            Some("openrouter:web_search") => search = true,
            Some(server) if server.starts_with("openrouter:") => {}
            _ => return Err(Refusal::invalid(format!("there is no tool of the type {}", tool["type"]))),
        }
    }
    Ok((functions, search))
}
