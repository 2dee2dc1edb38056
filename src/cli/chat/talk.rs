//! What is a gateway asked to hold a conversation?

use std::collections::HashMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json, value::to_raw_value};

use crate::{
    backend::Mirrored,
    cli::{
        client::{Client, Progress, ToolCall},
        gateway::Asked,
    },
    wire::mcp::List,
};

/// What a piece of progress says of itself stands under this in its `_meta`.
const META: &str = "io.waystation/chat";

/// A backend that keeps conversations.
#[derive(Debug)]
pub struct Talk {
    client: Client,
    /// What its tools are called after, with the underscores.
    prefix: String,
    schemas: HashMap<String, Value>,
}

/// The arguments of `chat`.
#[derive(Debug, Serialize)]
pub struct Request {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Value>,
}

/// What is heard while an answer is made.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Of the answer itself.
    Text(String),
    Status {
        text: String,
        conversation_id: Option<String>,
    },
}

/// An answer.
#[derive(Debug, Deserialize)]
pub struct Said {
    /// completed or incomplete.
    pub status: String,
    pub conversation_id: String,
    pub model_used: String,
    pub incomplete_reason: Option<String>,
    pub usage: Usage,
    #[serde(default)]
    pub simulated: bool,
    #[serde(default)]
    pub replayed: bool,
    #[serde(default)]
    pub warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    cost_usd: String,
    source: String,
}

#[derive(Debug, Deserialize)]
pub struct Conversation {
    pub conversation_id: String,
    pub title: Option<String>,
    pub messages: u64,
    pub updated_at: String,
}

#[derive(Debug, Deserialize)]
pub struct Got {
    pub conversation: Conversation,
    pub messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
pub struct Message {
    pub role: String,
    pub text: String,
    #[serde(default)]
    pub truncated: bool,
    pub superseded_by: Option<String>,
}

impl Said {
    /// What it was, in one line.
    pub fn summary(&self) -> String {
        let Usage { prompt_tokens, completion_tokens, cost_usd, source } = &self.usage;
        let about = if source == "estimated" { "about " } else { "" };
        let mut line = format!(
            "{} · {prompt_tokens} tokens read, {completion_tokens} written · {about}${cost_usd}",
            self.model_used
        );
        let reason =
            self.incomplete_reason.as_ref().map(|why| format!("incomplete: {why}; /retry runs it again"));
        let simulated = self.simulated.then(|| "simulated".to_owned());
        let replayed = self.replayed.then(|| "answered before".to_owned());
        for remark in [reason, simulated, replayed].into_iter().flatten() {
            line.push_str(" · ");
            line.push_str(&remark);
        }
        line
    }
}

impl Talk {
    /// The backend that is meant, or the only one that there is.
    pub async fn find(asked: &Asked, backend: Option<&str>) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Tool {
            name: String,
            #[serde(default, rename = "inputSchema")]
            schema: Value,
        }
        let client =
            Client::new(asked.url.clone(), asked.token.clone()).map_err(|fault| fault.to_string())?;
        let tools = client.list(List::Tools).await.map_err(|fault| fault.to_string())?;
        let tools = tools.iter().filter_map(|tool| serde_json::from_str::<Tool>(tool.get()).ok());
        let schemas: HashMap<_, _> = tools.map(|tool| (tool.name, tool.schema)).collect();
        // At a backend's own address its tools have their own names.
        let prefix = |name: &String| name.strip_suffix("chat").map(str::to_owned);
        let mut found: Vec<_> = schemas
            .keys()
            .filter_map(prefix)
            .filter(|prefix| prefix.is_empty() || prefix.ends_with("__"))
            .filter(|prefix| schemas.contains_key(&format!("{prefix}conversation_get")))
            .collect();
        found.sort();
        let names = || found.iter().map(|one| one.trim_end_matches('_')).collect::<Vec<_>>().join(", ");
        let prefix = match (backend, &found[..]) {
            (None, []) => {
                let why = "no backend keeps conversations; write `[backends.chat]` with `openrouter = {}` in \
                           routes.toml (docs/openrouter.md), or ask for tools named …__chat to be permitted";
                return Err(why.into());
            }
            (None, [only]) => only.clone(),
            (None, _) => {
                return Err(format!(
                    "several backends keep conversations: {}; say which with --backend",
                    names()
                ));
            }
            (Some(name), _) => {
                let wanted = format!("{name}__");
                let known = found.contains(&wanted);
                let which =
                    if found.is_empty() { "none does".into() } else { format!("these do: {}", names()) };
                known
                    .then_some(wanted)
                    .ok_or_else(|| format!("no backend {name:?} keeps conversations; {which}"))?
            }
        };
        Ok(Self { client, prefix, schemas })
    }

    /// Says something. Dropping the future ends the answer.
    pub async fn say(&self, request: &Request, hear: &mut (dyn FnMut(Piece) + Send)) -> Result<Said, String> {
        let mut heard_any = false;
        let mut heard = |progress: Progress| {
            let Some(piece) = piece(progress) else { return };
            heard_any |= matches!(piece, Piece::Text(_));
            hear(piece);
        };
        let answer: Answer = self.call("chat", &json!(request), &mut heard).await?;
        // An answer that was given before comes whole.
        if let (false, Some(text)) = (heard_any, answer.text()) {
            hear(Piece::Text(text));
        }
        answer.read()
    }

    /// The conversations used last.
    pub async fn conversations(&self, limit: u32) -> Result<Vec<Conversation>, String> {
        #[derive(Deserialize)]
        struct Listed {
            conversations: Vec<Conversation>,
        }
        let listed: Listed = self.ask("conversation_list", json!({ "limit": limit })).await?;
        Ok(listed.conversations)
    }

    /// A conversation with its last messages, in the order in which they were said.
    pub async fn conversation(&self, id: &str, limit: u32) -> Result<Got, String> {
        let arguments = json!({ "conversation_id": id, "limit": limit });
        let mut got: Got = self.ask("conversation_get", arguments).await?;
        got.messages.reverse();
        Ok(got)
    }

    pub async fn fork(&self, id: &str) -> Result<Conversation, String> {
        #[derive(Deserialize)]
        struct Forked {
            conversation: Conversation,
        }
        let forked: Forked = self.ask("conversation_fork", json!({ "conversation_id": id })).await?;
        Ok(forked.conversation)
    }

    async fn ask<T: DeserializeOwned>(&self, tool: &str, arguments: Value) -> Result<T, String> {
        self.call(tool, &arguments, &mut |_| {}).await?.read()
    }

    async fn call(
        &self,
        tool: &str,
        arguments: &Value,
        heard: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Answer, String> {
        let name = format!("{}{tool}", self.prefix);
        let schema = self.schemas.get(&name).ok_or_else(|| format!("there is no tool {name:?} here"))?;
        let arguments = to_raw_value(arguments).map_err(|why| why.to_string())?;
        let value = |one: Mirrored| Some((one.header.clone(), one.value(arguments.get().as_bytes())?));
        let mirrored = Mirrored::all(schema)?.into_iter().filter_map(value).collect();
        let call = ToolCall { name: &name, arguments: &arguments, mirrored };
        let result = self.client.call(&call, heard).await.map_err(|fault| fault.to_string())?;
        let answer: Answer = serde_json::from_str(result.get())
            .map_err(|why| format!("the answer of {name} is no result of a tool: {why}"))?;
        if answer.is_error {
            return Err(answer.text().unwrap_or_else(|| format!("{name} failed and does not say why")));
        }
        Ok(answer)
    }
}

/// A tool's result.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    is_error: bool,
    content: Vec<Value>,
    structured_content: Value,
}

impl Answer {
    fn text(&self) -> Option<String> {
        let whole = self.structured_content.get("text").and_then(Value::as_str);
        let first = || self.content.first().and_then(|part| part.get("text")).and_then(Value::as_str);
        whole.or_else(first).map(str::to_owned)
    }

    fn read<T: DeserializeOwned>(self) -> Result<T, String> {
        serde_json::from_value(self.structured_content)
            .map_err(|why| format!("the answer is not as docs/openrouter.md has it: {why}"))
    }
}

fn piece(progress: Progress) -> Option<Piece> {
    let about = progress.meta.get(META)?;
    let text = progress.message.unwrap_or_default();
    match about.get("kind").and_then(Value::as_str) {
        Some("delta") => Some(Piece::Text(text)),
        Some("status") => {
            let conversation_id = about.get("conversation_id").and_then(Value::as_str).map(str::to_owned);
            Some(Piece::Status { text, conversation_id })
        }
        _ => None,
    }
}
