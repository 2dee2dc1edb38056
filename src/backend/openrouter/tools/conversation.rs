//! What is a conversation to its owner, and how is it made and changed?

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Effect, Gives, Takes,
    chat::{conversation_id, message_id},
};
use crate::{
    backend::openrouter::{
        Task,
        ask::Used,
        history::{self, Attached},
        refused::Refused,
        summary,
    },
    store::conversations::{
        self as kept, Budget, Changes, Conversation, Deletion, Message, NewConversation, Role, State,
        Visibility,
    },
};

/// A conversation, as callers see it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConversationOut {
    pub conversation_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    pub tags: Vec<String>,
    pub state: StateOut,
    pub visibility: VisibilityIo,
    /// For expected_version.
    pub version: i64,
    pub messages: u64,
    pub tokens: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_message_id: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    /// When it is forgotten, if nobody uses it until then.
    pub expires_at: String,
}

impl From<Conversation> for ConversationOut {
    fn from(one: Conversation) -> Self {
        Self {
            conversation_id: one.id.to_string(),
            title: one.title,
            system_prompt: one.system_prompt,
            model: one.model,
            tags: one.tags,
            state: match one.state {
                State::Active => StateOut::Active,
                State::Archived => StateOut::Archived,
            },
            visibility: match one.visibility {
                Visibility::Private => VisibilityIo::Private,
                Visibility::Tenant => VisibilityIo::Tenant,
            },
            version: one.version,
            messages: one.messages,
            tokens: one.tokens,
            head_message_id: one.head.map(|id| id.to_string()),
            created_at: one.created.to_string(),
            updated_at: one.updated.to_string(),
            expires_at: one.expires.to_string(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateOut {
    Active,
    Archived,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VisibilityIo {
    Private,
    Tenant,
}

impl From<VisibilityIo> for Visibility {
    fn from(one: VisibilityIo) -> Self {
        match one {
            VisibilityIo::Private => Self::Private,
            VisibilityIo::Tenant => Self::Tenant,
        }
    }
}

/// A message, as callers see it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MessageOut {
    pub message_id: String,
    /// Its number in the conversation, from 1.
    pub seq: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_id: Option<String>,
    /// user or assistant.
    pub role: String,
    pub text: String,
    /// The text is longer than is given here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Names and kinds of what was attached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Value>,
    pub tokens: i64,
    pub created_at: String,
    /// The answer that took its place when the turn was run again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
}

impl MessageOut {
    pub fn new(one: &Message, reasoning: bool, inline: usize) -> Self {
        let end = one.text.floor_char_boundary(inline);
        let thought = if reasoning { history::reasoning_of(one) } else { String::new() };
        let attached = |one: Attached| json!({ "kind": one.kind, "name": one.name, "mime_type": one.mime });
        Self {
            message_id: one.id.to_string(),
            seq: one.seq,
            parent_message_id: one.parent.map(|id| id.to_string()),
            turn_id: one.turn.map(|id| id.to_string()),
            role: match one.role {
                Role::User => "user".into(),
                Role::Assistant => "assistant".into(),
            },
            text: one.text[..end].to_owned(),
            truncated: end < one.text.len(),
            reasoning: (!thought.is_empty()).then_some(thought),
            attachments: history::attachments_of(one).into_iter().map(attached).collect(),
            tokens: one.tokens,
            created_at: one.created.to_string(),
            superseded_by: one.superseded_by.map(|id| id.to_string()),
        }
    }
}

/// A conversation and nothing else.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OneOut {
    conversation: ConversationOut,
}

impl Gives for OneOut {}

fn one(conversation: Conversation) -> OneOut {
    OneOut { conversation: conversation.into() }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub struct Create {
    /// What it is called.
    #[schemars(length(max = 200))]
    title: Option<String>,
    /// What models are told before anything is said.
    #[schemars(length(max = 100_000))]
    system_prompt: Option<String>,
    /// The model that is asked where a turn names none.
    #[schemars(length(max = 200))]
    model: Option<String>,
    /// Words to find it by.
    #[schemars(length(max = 20))]
    tags: Vec<String>,
    /// It is forgotten after so many days without use, if that is earlier than usual.
    #[schemars(range(min = 1, max = 3650))]
    retention_days: Option<u32>,
    /// tenant: others in the tenant may read it. By default private.
    visibility: Option<VisibilityIo>,
}

impl Takes for Create {
    const NAME: &'static str = "conversation_create";
    const TITLE: &'static str = "Begin a conversation";
    const DESCRIPTION: &'static str = "Makes a conversation without saying anything in it. chat makes one by itself; this is for a title, tags or a system prompt.";
    const EFFECT: Effect = Effect::WRITES;
    type Gives = OneOut;

    async fn run(self, task: Arc<Task>) -> Result<OneOut, Refused> {
        if let Some(model) = &self.model {
            task.choose(Some(model)).await?;
        }
        let new = NewConversation {
            title: self.title,
            system_prompt: self.system_prompt,
            model: self.model,
            tags: self.tags,
            settings: json!({}),
            retention_days: self.retention_days,
            visibility: self.visibility.map(Into::into).unwrap_or_default(),
        };
        Ok(one(task.own.create(new, Timestamp::now()).await?))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Which conversation.
    conversation_id: String,
    /// Fails with conversation_conflict if the conversation has changed since.
    #[serde(default)]
    expected_version: Option<i64>,
    /// What it is called from now on.
    #[serde(default)]
    #[schemars(length(max = 200))]
    title: Option<String>,
    /// What models are told before anything is said, from now on.
    #[serde(default)]
    #[schemars(length(max = 100_000))]
    system_prompt: Option<String>,
    /// The model that is asked where a turn names none.
    #[serde(default)]
    #[schemars(length(max = 200))]
    model: Option<String>,
    /// All of its tags.
    #[serde(default)]
    #[schemars(length(max = 20))]
    tags: Option<Vec<String>>,
    /// archived conversations are not listed unless asked for.
    #[serde(default)]
    state: Option<StateOut>,
    /// It is forgotten after so many days without use, if that is earlier than usual.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3650))]
    retention_days: Option<u32>,
    /// tenant: others in the tenant may read it.
    #[serde(default)]
    visibility: Option<VisibilityIo>,
}

impl Takes for Update {
    const NAME: &'static str = "conversation_update";
    const TITLE: &'static str = "Rename, tag or archive a conversation";
    const DESCRIPTION: &'static str = "Changes what is given and leaves the rest as it is.";
    const EFFECT: Effect = Effect { idempotent: true, ..Effect::WRITES };
    type Gives = OneOut;

    async fn run(self, task: Arc<Task>) -> Result<OneOut, Refused> {
        let id = conversation_id(&self.conversation_id)?;
        if let Some(model) = &self.model {
            task.choose(Some(model)).await?;
        }
        let changes = Changes {
            expected_version: self.expected_version,
            title: self.title,
            system_prompt: self.system_prompt,
            model: self.model,
            tags: self.tags,
            settings: None,
            state: self
                .state
                .map(|state| if state == StateOut::Active { State::Active } else { State::Archived }),
            retention_days: self.retention_days,
            visibility: self.visibility.map(Into::into),
        };
        let changed = task.own.change(id, changes, Timestamp::now()).await?;
        task.changed(id);
        Ok(one(changed))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// Which conversation.
    conversation_id: String,
    /// The last message that the new one has. By default all of them.
    #[serde(default)]
    at_message_id: Option<String>,
    /// What the new one is called.
    #[serde(default)]
    #[schemars(length(max = 200))]
    title: Option<String>,
    /// The model of the new one.
    #[serde(default)]
    #[schemars(length(max = 200))]
    model: Option<String>,
}

impl Takes for Fork {
    const NAME: &'static str = "conversation_fork";
    const TITLE: &'static str = "Fork a conversation";
    const DESCRIPTION: &'static str =
        "Makes a new conversation that begins like another one, up to a message; the other stays as it is.";
    const EFFECT: Effect = Effect::WRITES;
    type Gives = OneOut;

    async fn run(self, task: Arc<Task>) -> Result<OneOut, Refused> {
        let id = conversation_id(&self.conversation_id)?;
        if let Some(model) = &self.model {
            task.choose(Some(model)).await?;
        }
        let at = self.at_message_id.as_deref().map(message_id).transpose()?;
        let fork = kept::Fork { at, title: self.title, model: self.model };
        Ok(one(task.own.fork(id, fork, Timestamp::now()).await?))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summarize {
    /// Which conversation.
    conversation_id: String,
    /// How many of the newest messages are left out of the summary. By default 4.
    #[serde(default)]
    keep_last: Option<usize>,
    /// The model that summarizes. By default the conversation's, else the server's.
    #[serde(default)]
    model: Option<String>,
    /// Nothing is sent if it may cost more than this.
    #[serde(default)]
    max_cost_usd: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Summarized {
    summary: String,
    /// How many messages it stands for.
    covered_messages: usize,
    usage: Used,
}

impl Gives for Summarized {
    const SHOWN: Option<&'static str> = Some("summary");

    fn text(&self) -> Option<String> {
        Some(self.summary.clone())
    }

    fn used(&self) -> Option<&Used> {
        Some(&self.usage)
    }
}

impl Takes for Summarize {
    const NAME: &'static str = "conversation_summarize";
    const TITLE: &'static str = "Summarize a conversation";
    const DESCRIPTION: &'static str = "Has a model summarize the older part of a conversation. The summary is kept, and stands for \
        that part where context.strategy is summarize.";
    const EFFECT: Effect = Effect::COSTS;
    type Gives = Summarized;

    async fn run(self, task: Arc<Task>) -> Result<Summarized, Refused> {
        let id = conversation_id(&self.conversation_id)?;
        let conversation = task.own.conversation(id).await?;
        let budget = Budget { tokens: i64::MAX, messages: 4_000 };
        let path = task.own.path(id, None, budget).await?;
        let covered: Vec<_> = path.messages.iter().skip(self.keep_last.unwrap_or(4)).collect();
        let words = |message: &&Message| {
            let who = if message.role == Role::User { "User" } else { "Assistant" };
            (message.id, format!("{who}: {}", message.text))
        };
        let turns: Vec<_> = covered.iter().rev().map(words).collect();
        let model = self.model.or(conversation.model);
        let model = model.as_deref().unwrap_or(task.work.settings.usual_model());
        let made = summary::summarize(&task, id, model, &turns, self.max_cost_usd).await?;
        let (_, summary, usage) = made
            .ok_or_else(|| Refused::input("there is nothing to summarize yet; give a smaller keep_last"))?;
        Ok(Summarized { summary, covered_messages: turns.len(), usage })
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Which conversation.
    conversation_id: String,
    /// Removes the messages and keeps the conversation with its title and settings.
    #[serde(default)]
    keep_conversation: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Deleted {
    deleted: bool,
    messages_removed: u64,
}

impl Gives for Deleted {}

impl Takes for Delete {
    const NAME: &'static str = "conversation_delete";
    const TITLE: &'static str = "Delete a conversation";
    const DESCRIPTION: &'static str =
        "Removes a conversation with all that is in it, for good. What it cost stays in the usage report.";
    const EFFECT: Effect = Effect::REMOVES;
    type Gives = Deleted;

    async fn run(self, task: Arc<Task>) -> Result<Deleted, Refused> {
        let id = conversation_id(&self.conversation_id)?;
        if self.keep_conversation {
            let messages_removed = task.own.clear(id, Timestamp::now()).await?;
            task.changed(id);
            return Ok(Deleted { deleted: false, messages_removed });
        }
        let messages = task.own.conversation(id).await?.messages;
        let deletion = task.own.delete(id).await?;
        task.changed(id);
        match deletion {
            Deletion::Gone { messages: messages_removed } => Ok(Deleted { deleted: true, messages_removed }),
            Deletion::Waits { running } => {
                for turn in running {
                    if let Some(making) = task.work.making.get(&turn) {
                        making.unwanted.cancel();
                    }
                }
                Ok(Deleted { deleted: true, messages_removed: messages })
            }
        }
    }
}
