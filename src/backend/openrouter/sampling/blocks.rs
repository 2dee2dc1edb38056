//! What are messages made of in MCP, and what is that for a model?

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Refusal;
use crate::backend::openrouter::upstream::{
    Audio, Content, ImageUrl, Message, Part, Role,
    completion::{Function, ToolCall},
};

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Block {
    Text { text: String },
    Image { data: String, mime_type: String },
    Audio { data: String, mime_type: String },
    ToolUse { id: String, name: String, input: Map<String, Value> },
    ToolResult(Outcome),
    ResourceLink { uri: String, name: String },
    Resource { resource: Embedded },
}

/// What came of a tool that a model wanted used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    tool_use_id: String,
    #[serde(default)]
    content: Vec<Block>,
    structured_content: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub struct Embedded {
    uri: String,
    text: Option<String>,
}

impl Block {
    /// The use of a tool whose result this is.
    pub fn is_result_of(&self) -> Option<&str> {
        if let Self::ToolResult(result) = self { Some(&result.tool_use_id) } else { None }
    }

    /// The id of the use that this is.
    pub fn is_use(&self) -> Option<&str> {
        if let Self::ToolUse { id, .. } = self { Some(id) } else { None }
    }

    /// As a part of a message.
    pub fn part(self) -> Result<Part, Refusal> {
        Ok(match self {
            Self::Text { text } => Part::text(text),
            Self::Image { data, mime_type } => {
                let url = format!("data:{mime_type};base64,{data}");
                Part::ImageUrl { image_url: ImageUrl { url, detail: None } }
            }
            Self::Audio { data, mime_type } => {
                Part::InputAudio { input_audio: Audio { data, format: format(&mime_type).to_owned() } }
            }
            Self::ResourceLink { uri, name } => Part::text(format!("{name}: {uri}")),
            Self::Resource { resource: Embedded { text: Some(text), .. } } => Part::text(text),
            Self::Resource { resource: Embedded { uri, .. } } => {
                return Err(Refusal::invalid(format!("{uri} is no text, and cannot be shown to a model")));
            }
            Self::ToolUse { .. } | Self::ToolResult(_) => {
                return Err(Refusal::invalid("uses of tools and their results cannot stand in a result"));
            }
        })
    }
}

impl Outcome {
    /// As a message of its own.
    pub fn message(self) -> Result<Message, Refusal> {
        let mut parts: Vec<_> = self.content.into_iter().map(Block::part).collect::<Result<_, _>>()?;
        if let (true, Some(structured)) = (parts.is_empty(), self.structured_content) {
            parts.push(Part::text(structured.to_string()));
        }
        let content = if parts.is_empty() { Content::Text(String::new()) } else { content(parts) };
        Ok(Message { tool_call_id: Some(self.tool_use_id), ..Message::new(Role::Tool, content) })
    }
}

/// Parts, as plainly as can be.
pub fn content(mut parts: Vec<Part>) -> Content {
    match &mut parts[..] {
        [] => Content::None,
        [Part::Text { text, .. }] => Content::Text(std::mem::take(text)),
        _ => Content::Parts(parts),
    }
}

pub fn call(id: String, name: String, input: &Map<String, Value>) -> ToolCall {
    let arguments = Value::from(input.clone()).to_string();
    ToolCall { id, kind: "function".into(), function: Function { name, arguments } }
}

/// What OpenRouter calls a kind of recording.
fn format(mime_type: &str) -> &str {
    let kind = mime_type.split(';').next().unwrap_or_default().trim();
    let kind = kind.strip_prefix("audio/").unwrap_or(kind);
    match kind.strip_prefix("x-").unwrap_or(kind) {
        "wave" | "vnd.wave" => "wav",
        "mpeg" => "mp3",
        "mp4" => "m4a",
        other => other,
    }
}
