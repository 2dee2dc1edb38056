//! Which conversations are there, what was said in them, and how are they changed?

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
        self as kept, Budget, Changes, Conversation, Cursor, Deletion, Listing, Message, NewConversation,
        Order, Reading, Role, Sort, State, Visibility,
    },
};

/// Text of a message that is given in a list; the whole of it is behind its link.
const INLINE: usize = 16 << 10;

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

/// A time as callers write it.
pub fn time(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Refused> {
    let wrong = |_| Refused::input(format!("{name} is no time; write for instance 2026-11-21T12:00:00Z"));
    text.map(|text| text.parse().map_err(wrong)).transpose()
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

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// A part of the title.
    query_title: Option<String>,
    /// Only with all of these tags.
    tags: Vec<String>,
    /// Only with this model.
    model: Option<String>,
    /// active, archived or all. By default active.
    state: Option<StateIn>,
    /// Only those used after this time, such as 2026-11-21T12:00:00Z.
    updated_after: Option<String>,
    /// updated: the one used last comes first. created: the newest. By default updated.
    sort: Option<SortIn>,
    /// How many. By default 20.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u32>,
    /// Where to go on: next_cursor of the page before.
    cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum StateIn {
    Active,
    Archived,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SortIn {
    Updated,
    Created,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    conversations: Vec<ConversationOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl Gives for Listed {}

impl Takes for List {
    const NAME: &'static str = "conversation_list";
    const TITLE: &'static str = "List conversations";
    const DESCRIPTION: &'static str = "Lists your conversations, the one used last first.";
    const EFFECT: Effect = Effect::READS;
    type Gives = Listed;

    async fn run(self, task: Arc<Task>) -> Result<Listed, Refused> {
        let listing = Listing {
            updated_after: time("updated_after", self.updated_after.as_deref())?,
            title: self.query_title,
            tags: self.tags,
            model: self.model,
            state: match self.state {
                None | Some(StateIn::Active) => Some(State::Active),
                Some(StateIn::Archived) => Some(State::Archived),
                Some(StateIn::All) => None,
            },
            sort: if self.sort == Some(SortIn::Created) { Sort::Created } else { Sort::Updated },
            limit: self.limit.unwrap_or(20).clamp(1, 100),
            cursor: self.cursor.map(Cursor),
        };
        let page = task.own.list(listing, Timestamp::now()).await?;
        Ok(Listed {
            conversations: page.items.into_iter().map(Into::into).collect(),
            next_cursor: page.next.map(|cursor| cursor.0),
        })
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Get {
    /// Which conversation.
    conversation_id: String,
    /// Only the messages of this turn.
    #[serde(default)]
    turn_id: Option<String>,
    /// How many messages. By default 50.
    #[serde(default)]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
    /// Where to go on: next_cursor of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// newest or oldest first. By default newest.
    #[serde(default)]
    order: Option<OrderIn>,
    /// Is what models thought given too?
    #[serde(default)]
    include_reasoning: bool,
    /// Are the turns given too, with how they ended?
    #[serde(default)]
    include_turns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OrderIn {
    Newest,
    Oldest,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Got {
    conversation: ConversationOut,
    messages: Vec<MessageOut>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    turns: Vec<TurnOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TurnOut {
    turn_id: String,
    /// pending, running, completed, incomplete or failed.
    state: String,
    model_requested: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_used: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    created_at: String,
}

impl Gives for Got {}

impl Takes for Get {
    const NAME: &'static str = "conversation_get";
    const TITLE: &'static str = "Read a conversation";
    const DESCRIPTION: &'static str = "Gives a conversation and a page of its messages.";
    const EFFECT: Effect = Effect::READS;
    type Gives = Got;

    async fn run(self, task: Arc<Task>) -> Result<Got, Refused> {
        let id = conversation_id(&self.conversation_id)?;
        let conversation = task.own.conversation(id).await?;
        let turn = self.turn_id.as_deref().map(str::parse).transpose()?;
        let reading = Reading {
            turn,
            order: if self.order == Some(OrderIn::Oldest) { Order::OldestFirst } else { Order::NewestFirst },
            limit: self.limit.unwrap_or(50).clamp(1, 200),
            cursor: self.cursor.map(Cursor),
        };
        let page = task.own.messages(id, reading).await?;
        let inline = if turn.is_some() { usize::MAX } else { INLINE };
        let mut turns = Vec::new();
        if self.include_turns {
            for turn in task.own.turns(id, 200).await? {
                let state = serde_json::to_value(turn.state).unwrap_or_default();
                turns.push(TurnOut {
                    turn_id: turn.id.to_string(),
                    state: state.as_str().unwrap_or_default().to_owned(),
                    model_requested: turn.model_requested,
                    model_used: turn.model_used,
                    incomplete_reason: turn.incomplete_reason,
                    error: turn.error,
                    created_at: turn.created.to_string(),
                });
            }
        }
        Ok(Got {
            conversation: conversation.into(),
            messages: page
                .items
                .iter()
                .map(|one| MessageOut::new(one, self.include_reasoning, inline))
                .collect(),
            turns,
            next_cursor: page.next.map(|cursor| cursor.0),
        })
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Words that all stand in the message.
    #[schemars(length(min = 1, max = 500))]
    query: String,
    /// Only in this conversation.
    #[serde(default)]
    conversation_id: Option<String>,
    /// Only what the user or the assistant said.
    #[serde(default)]
    role: Option<RoleIn>,
    /// Only after this time, such as 2026-11-21T12:00:00Z.
    #[serde(default)]
    after: Option<String>,
    /// Only before this time.
    #[serde(default)]
    before: Option<String>,
    /// How many. By default 20.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RoleIn {
    User,
    Assistant,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Searched {
    hits: Vec<HitOut>,
    /// There were more messages than could be looked through; narrow the search.
    truncated: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HitOut {
    conversation_id: String,
    message_id: String,
    role: String,
    snippet: String,
    score: f64,
    created_at: String,
}

impl Gives for Searched {}

impl Takes for Search {
    const NAME: &'static str = "conversation_search";
    const TITLE: &'static str = "Search conversations";
    const DESCRIPTION: &'static str = "Finds words in what was said in your conversations.";
    const EFFECT: Effect = Effect::READS;
    type Gives = Searched;

    async fn run(self, task: Arc<Task>) -> Result<Searched, Refused> {
        let conversation = self.conversation_id.as_deref().map(conversation_id).transpose()?;
        if let Some(id) = conversation {
            task.own.conversation(id).await?; // One that is not there is no empty one.
        }
        let search = kept::Search {
            conversation,
            role: self.role.map(|role| if role == RoleIn::User { Role::User } else { Role::Assistant }),
            after: time("after", self.after.as_deref())?,
            before: time("before", self.before.as_deref())?,
            limit: self.limit.unwrap_or(20).clamp(1, 100),
            query: self.query,
        };
        let found = task.own.search(search).await?;
        let hit = |hit: kept::Hit| HitOut {
            conversation_id: hit.conversation.to_string(),
            message_id: hit.message.to_string(),
            role: if hit.role == Role::User { "user".into() } else { "assistant".into() },
            snippet: hit.snippet,
            score: hit.score,
            created_at: hit.created.to_string(),
        };
        Ok(Searched { hits: found.hits.into_iter().map(hit).collect(), truncated: found.truncated })
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
        Ok(one(task.own.change(id, changes, Timestamp::now()).await?))
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
            return Ok(Deleted { deleted: false, messages_removed });
        }
        let messages = task.own.conversation(id).await?.messages;
        match task.own.delete(id).await? {
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
