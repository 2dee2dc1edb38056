//! What is sent to a model?
//!
//! The body of `POST /chat/completions`, as far as somebody here looks into it; the rest of its
//! members goes along in `extra`, as it was given. What a conversation kept of earlier answers
//! (`reasoning_details`, `annotations`) is replayed unchanged, for providers check it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::completion::ToolCall;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<Message>,
    /// Of the answer, its reasoning included. To leave it out is not neutral: then the account must be
    /// able to pay for the longest answer the model can give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// Which providers may answer: `order`, `only`, `ignore`, `data_collection` and so on.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub provider: Map<String, Value>,
    /// An answer to the same request may be given again. This is said in headers.
    #[serde(skip)]
    pub reuse: Option<Reuse>,
    /// Everything else: `temperature`, `tools`, `reasoning`, `plugins`, `user`, …
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// OpenRouter's cache of answers, which all who use the account's key share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reuse {
    /// For how long the answer is kept, if it is new.
    pub ttl_s: Option<u32>,
    /// What is there is not wanted, but replaced.
    pub clear: bool,
}

impl ChatRequest {
    /// Is the answer to be JSON of a form? Such an answer is never put together from two.
    pub fn wants_json(&self) -> bool {
        let kind =
            self.response_format.as_ref().and_then(|format| format.get("type")).and_then(Value::as_str);
        kind.is_some_and(|kind| kind != "text")
    }

    /// Providers that are not to be asked again.
    pub fn ignore_provider(&mut self, name: &str) {
        let ignored = self.provider.entry("ignore").or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(names) = ignored {
            names.push(Value::from(name));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    #[serde(default)]
    pub content: Content,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool's answer: which call it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// `reasoning_details`, `annotations`, `name`, …
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Message {
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        let (tool_calls, tool_call_id) = (Vec::new(), None);
        Self { role, content: content.into(), tool_calls, tool_call_id, extra: Map::new() }
    }

    /// An answer as it is replayed in later turns.
    pub fn answered(text: &str, reasoning_details: Vec<Value>, annotations: Vec<Value>) -> Self {
        let mut message = Self::new(Role::Assistant, text);
        for (name, values) in [("reasoning_details", reasoning_details), ("annotations", annotations)] {
            if !values.is_empty() {
                message.extra.insert(name.into(), Value::Array(values));
            }
        }
        message
    }
}

/// What a message says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    #[default]
    None,
    Text(String),
    Parts(Vec<Part>),
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<Part>> for Content {
    fn from(parts: Vec<Part>) -> Self {
        Self::Parts(parts)
    }
}

/// A part of what a message says. Text goes first, then pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    Text {
        text: String,
        /// `cache_control` and the like.
        #[serde(flatten)]
        extra: Map<String, Value>,
    },
    ImageUrl {
        image_url: ImageUrl,
    },
    File {
        file: File,
    },
    InputAudio {
        input_audio: Audio,
    },
    VideoUrl {
        video_url: VideoUrl,
    },
    /// One of a kind that is not known here.
    #[serde(untagged)]
    Other(Value),
}

impl Part {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), extra: Map::new() }
    }
}

/// A picture: an `https:` or a `data:` URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUrl {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A document: its data is an `https:` or a `data:` URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_id: Option<String>,
}

/// A recording: base64, and `wav`, `mp3` or the like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audio {
    pub data: String,
    pub format: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoUrl {
    pub url: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_reads_and_writes_the_same() {
        let text = json!({"model":"acme/atlas-70b","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"What is in this picture?","cache_control":{"type":"ephemeral"}},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo=","detail":"low"}},{"type":"hologram","x":1}]},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}],"reasoning_details":[{"type":"reasoning.encrypted","data":"x"}]},{"role":"tool","tool_call_id":"call_1","content":"7"}],"max_completion_tokens":512,"temperature":0.2,"provider":{"data_collection":"deny","sort":"price"},"reasoning":{"effort":"low"},"user":"u-Jw3n0Rk1"});
        let request: ChatRequest = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(&request).unwrap(), text);
        assert!(
            matches!(&request.messages[1].content, Content::Parts(parts) if matches!(parts[2], Part::Other(_)))
        );
    }

    #[test]
    fn providers_to_leave_out_are_added_to_those_that_are() {
        let mut request = ChatRequest::default();
        request.ignore_provider("a");
        request.ignore_provider("b");
        assert_eq!(serde_json::to_value(&request.provider).unwrap(), json!({"ignore": ["a", "b"]}));
    }

    #[test]
    fn an_answer_is_replayed_with_what_providers_check() {
        let details = vec![json!({"type": "reasoning.text", "signature": "s"})];
        let message = serde_json::to_value(Message::answered("Hello", details, Vec::new())).unwrap();
        let expected = json!({"role": "assistant", "content": "Hello", "reasoning_details": [{"type": "reasoning.text", "signature": "s"}]});
        assert_eq!(message, expected);
    }
}
