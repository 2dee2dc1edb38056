//! Which conversations are there, and what was said in them?

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Effect, Gives, Takes,
    chat::conversation_id,
    conversation::{ConversationOut, MessageOut},
};
use crate::{
    backend::openrouter::{Task, refused::Refused},
    store::conversations::{self as kept, Cursor, Listing, Order, Reading, Role, Sort, State},
};

/// Text of a message that is given in a list; the whole of it is behind its link.
const INLINE: usize = 16 << 10;

/// A time as callers write it.
pub fn time(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Refused> {
    let wrong = |_| Refused::input(format!("{name} is no time; write for instance 2026-11-21T12:00:00Z"));
    text.map(|text| text.parse().map_err(wrong)).transpose()
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
    /// updated: the one used last. created: the newest. By default updated.
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
