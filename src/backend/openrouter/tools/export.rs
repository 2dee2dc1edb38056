//! How is a conversation written down for people and other programs?

use std::{fmt::Write as _, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Effect, Gives, Takes,
    chat::conversation_id,
    conversation::{ConversationOut, MessageOut},
};
use crate::{
    backend::openrouter::{Task, refused::Refused},
    store::conversations::{ConversationId, Order, Reading},
};

/// What is given at once; all of it is behind the link.
const INLINE: usize = 8 << 10;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// Which conversation.
    conversation_id: String,
    /// markdown, json, or jsonl with a line for each message. By default markdown.
    #[serde(default)]
    format: Option<Format>,
    /// Is what models thought written too?
    #[serde(default)]
    include_reasoning: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Markdown,
    Json,
    Jsonl,
}

impl Format {
    /// What its resource ends with, and its type.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Markdown => ("md", "text/markdown"),
            Self::Json => ("json", "application/json"),
            Self::Jsonl => ("jsonl", "application/x-ndjson"),
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Exported {
    /// The beginning of it.
    text: String,
    format: Format,
    bytes: usize,
    /// There is more than is given here.
    truncated: bool,
    /// All of it.
    uri: String,
}

impl Gives for Exported {
    const SHOWN: Option<&'static str> = Some("text");

    fn text(&self) -> Option<String> {
        Some(self.text.clone())
    }

    fn blocks(&self) -> Vec<Value> {
        let (_, mime) = self.format.words();
        vec![json!({ "type": "resource_link", "uri": self.uri, "name": "transcript", "mimeType": mime })]
    }
}

impl Takes for Export {
    const NAME: &'static str = "conversation_export";
    const TITLE: &'static str = "Export a conversation";
    const DESCRIPTION: &'static str =
        "Writes a conversation as Markdown, JSON or JSON lines: the first 8 KiB, and a link to all of it.";
    const EFFECT: Effect = Effect::READS;
    type Gives = Exported;

    async fn run(self, task: Arc<Task>) -> Result<Exported, Refused> {
        let id = conversation_id(&self.conversation_id)?;
        let format = self.format.unwrap_or(Format::Markdown);
        let whole = written(&task, id, format, self.include_reasoning).await?;
        let end = whole.floor_char_boundary(INLINE);
        let (ending, _) = format.words();
        Ok(Exported {
            text: whole[..end].to_owned(),
            format,
            bytes: whole.len(),
            truncated: end < whole.len(),
            uri: format!("conversation://{id}/transcript.{ending}"),
        })
    }
}

/// All of a conversation, the oldest message first.
pub async fn written(
    task: &Task,
    id: ConversationId,
    format: Format,
    reasoning: bool,
) -> Result<String, Refused> {
    let conversation = task.own.conversation(id).await?;
    let mut messages = Vec::new();
    let mut cursor = None;
    loop {
        let reading = Reading { turn: None, order: Order::OldestFirst, limit: 200, cursor };
        let page = task.own.messages(id, reading).await?;
        messages.extend(page.items.iter().map(|one| MessageOut::new(one, reasoning, usize::MAX)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let conversation = ConversationOut::from(conversation);
    Ok(match format {
        Format::Markdown => markdown(&conversation, &messages),
        Format::Json => {
            let all = json!({ "conversation": conversation, "messages": messages });
            serde_json::to_string_pretty(&all).unwrap_or_default()
        }
        Format::Jsonl => {
            let lines = messages.iter().filter_map(|one| serde_json::to_string(one).ok());
            lines.map(|line| line + "\n").collect()
        }
    })
}

fn markdown(conversation: &ConversationOut, messages: &[MessageOut]) -> String {
    let mut text = format!("# {}\n", conversation.title.as_deref().unwrap_or(&conversation.conversation_id));
    if let Some(prompt) = &conversation.system_prompt {
        let _ = write!(text, "\n> {}\n", prompt.replace('\n', "\n> "));
    }
    for one in messages {
        let who = if one.role == "user" { "User" } else { "Assistant" };
        let _ = write!(text, "\n## {who}, {}\n", one.created_at);
        if let Some(reasoning) = &one.reasoning {
            let _ = write!(text, "\n<details><summary>Reasoning</summary>\n\n{reasoning}\n\n</details>\n");
        }
        for attachment in &one.attachments {
            let _ = write!(text, "\n*attached: {}*\n", attachment["name"].as_str().unwrap_or_default());
        }
        let _ = write!(text, "\n{}\n", one.text);
    }
    text
}
