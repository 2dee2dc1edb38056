//! What is a conversation made of?

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{ConversationId, Cursor, MessageId, Order, TurnId};

#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    pub id: ConversationId,
    pub title: Option<String>,
    pub system_prompt: Option<String>,
    pub model: Option<String>,
    pub tags: Vec<String>,
    /// Whatever the backend wants to know again, as JSON.
    pub settings: Value,
    pub state: State,
    pub visibility: Visibility,
    pub retention_days: Option<u32>,
    /// Rises with each turn that begins and each change.
    pub version: i64,
    pub messages: u64,
    /// Of all its messages, as they were counted or estimated.
    pub tokens: i64,
    /// The newest message of the main line.
    pub head: Option<MessageId>,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub expires: Timestamp,
    /// False if another of the tenant has shared it.
    pub own: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewConversation {
    pub title: Option<String>,
    pub system_prompt: Option<String>,
    pub model: Option<String>,
    pub tags: Vec<String>,
    pub settings: Value,
    /// Only shortens how long it is kept.
    pub retention_days: Option<u32>,
    pub visibility: Visibility,
}

/// What is to be different; what is None stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    pub expected_version: Option<i64>,
    pub title: Option<String>,
    pub system_prompt: Option<String>,
    pub model: Option<String>,
    pub tags: Option<Vec<String>>,
    pub settings: Option<Value>,
    pub state: Option<State>,
    pub retention_days: Option<u32>,
    pub visibility: Option<Visibility>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    #[default]
    Active,
    Archived,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    #[default]
    Private,
    /// Others in the tenant may read it, if they may read what is shared at all.
    Tenant,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// The one that was used last comes first.
    #[default]
    Updated,
    /// The newest comes first.
    Created,
}

/// Which conversations are wanted.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// A part of the title, in any case.
    pub title: Option<String>,
    /// All of them.
    pub tags: Vec<String>,
    pub model: Option<String>,
    /// None: in any.
    pub state: Option<State>,
    pub updated_after: Option<Timestamp>,
    pub sort: Sort,
    /// 1 to 100.
    pub limit: u32,
    pub cursor: Option<Cursor>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    User,
    Assistant,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub id: MessageId,
    /// Its number in the conversation, from 1 and without gaps.
    pub seq: i64,
    /// What it answers or follows.
    pub parent: Option<MessageId>,
    /// None in a fork, for what was said before it.
    pub turn: Option<TurnId>,
    pub role: Role,
    pub text: String,
    /// Reasoning, annotations, references of attachments, as JSON.
    pub extras: Option<Value>,
    pub tokens: i64,
    /// Were the tokens reported by the upstream, or are they estimated?
    pub tokens_reported: bool,
    pub created: Timestamp,
    /// The answer that took its place when the turn was run again.
    pub superseded_by: Option<MessageId>,
}

/// Which messages are wanted.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    pub turn: Option<TurnId>,
    pub order: Order,
    /// 1 to 200.
    pub limit: u32,
    pub cursor: Option<Cursor>,
}

/// How far back a path is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Until messages of so many tokens are there; the one that goes beyond is still given.
    pub tokens: i64,
    pub messages: u32,
}

/// The messages that lead to one, without what they say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// Newest first.
    pub steps: Vec<Step>,
}

/// A message on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub role: Role,
    pub tokens: i64,
    /// How many messages the path has from its newest to this one, those that nothing answers too.
    pub nth: u32,
}

/// The messages that lead to one.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// Newest first.
    pub messages: Vec<Message>,
    /// How many messages there are on the whole path, those beyond the budget too.
    pub whole: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Words that are all to be found.
    pub query: String,
    pub conversation: Option<ConversationId>,
    pub role: Option<Role>,
    pub after: Option<Timestamp>,
    pub before: Option<Timestamp>,
    /// 1 to 100.
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub hits: Vec<Hit>,
    /// There were more messages than could be looked through.
    pub truncated: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub conversation: ConversationId,
    pub message: MessageId,
    pub role: Role,
    /// The words with what stands around them.
    pub snippet: String,
    /// Higher is better.
    pub score: f64,
    pub created: Timestamp,
}

#[derive(Debug, Clone, Default)]
pub struct Fork {
    /// The last message that the fork has; the head where None.
    pub at: Option<MessageId>,
    /// As the original where None.
    pub title: Option<String>,
    pub model: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    Gone {
        messages: u64,
    },
    /// These turns are to be cancelled; the conversation goes with the last of them.
    Waits {
        running: Vec<TurnId>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSummary {
    /// The last message that it covers.
    pub upto: MessageId,
    pub model: String,
    pub text: String,
    pub tokens: i64,
    /// A digest of what it was made from.
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub upto: MessageId,
    pub model: String,
    pub text: String,
    pub tokens: i64,
    pub source: String,
    pub created: Timestamp,
}
