//! What is a turn made of?

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Conversation, ConversationId, Entry, Message, MessageId, NewConversation, Reservation, TurnId};

/// What begins a turn.
#[derive(Debug, Clone)]
pub struct NewTurn {
    pub place: Place,
    pub said: Said,
    /// The message that is answered, if it is not the head: a branch, which waits for no other turn.
    pub parent: Option<MessageId>,
    pub expected_version: Option<i64>,
    /// The same key and fingerprint give the same turn.
    pub key: Option<String>,
    /// A digest of what was asked for.
    pub fingerprint: String,
    /// The model that is asked first.
    pub model: String,
    /// Becomes the conversation's.
    pub system_prompt: Option<String>,
    /// What the turn is expected to cost at most, in billionths of a US dollar: counted if it is never known.
    pub estimate: i64,
}

#[derive(Debug, Clone)]
pub enum Place {
    New(NewConversation),
    In(ConversationId),
}

#[derive(Debug, Clone)]
pub enum Said {
    Message {
        text: String,
        extras: Option<Value>,
        tokens: i64,
    },
    /// The last failed or incomplete turn's message, once more.
    Again,
}

/// What has become of a wish to begin.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    Begun(Box<Begun>),
    /// The turn of this key has ended: its answer, as far as there is one.
    Replay(Box<Turn>),
    /// The turn of this key is still at work.
    Running(Box<Turn>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    pub lease: Lease,
    /// As it is with this turn.
    pub conversation: Conversation,
    /// What the user says. The path to tell the model is that of its parent; without one, there is none.
    pub message: Message,
}

/// The right to write to a turn. Each time that another takes the turn over, the epoch rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub turn: TurnId,
    pub epoch: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnState {
    /// Nothing has been sent.
    Pending,
    Running,
    Completed,
    Incomplete,
    Failed,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub id: TurnId,
    pub conversation: ConversationId,
    pub state: TurnState,
    pub user_message: MessageId,
    pub answer: Option<Message>,
    pub model_requested: String,
    pub model_used: Option<String>,
    pub provider: Option<String>,
    pub generation: Option<String>,
    pub finish_reason: Option<String>,
    pub incomplete_reason: Option<String>,
    pub error: Option<String>,
    /// What the caller was told besides, as it was given to [`Finish`].
    pub result: Option<Value>,
    pub created: Timestamp,
    pub finished: Option<Timestamp>,
}

impl Turn {
    /// Has it not ended yet?
    pub fn is_at_work(&self) -> bool {
        matches!(self.state, TurnState::Pending | TurnState::Running)
    }
}

/// How a turn ends that has an answer.
#[derive(Debug, Clone)]
pub struct Finish {
    /// None: the answer is whole.
    pub incomplete_reason: Option<String>,
    /// None: nothing was said before it was cut short.
    pub answer: Option<Answer>,
    pub finish_reason: Option<String>,
    /// What the caller is told besides, to be told again when it asks again.
    pub result: Option<Value>,
    /// Its conversation and turn are filled in.
    pub entry: Entry,
    pub reservation: Option<Reservation>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub text: String,
    pub extras: Option<Value>,
    pub tokens: i64,
    pub tokens_reported: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    pub assistant_message: Option<MessageId>,
    pub version: i64,
    /// The conversation was to be deleted meanwhile: it is gone.
    pub deleted: bool,
}

/// How a turn ends that has no answer.
#[derive(Debug, Clone)]
pub struct Failed {
    pub code: String,
    /// Where it has cost something all the same.
    pub entry: Option<Entry>,
    pub reservation: Option<Reservation>,
}

/// What was ended because nobody worked at it any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub failed: Vec<TurnId>,
    pub incomplete: Vec<TurnId>,
}

/// A turn whose real cost is to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    pub turn: TurnId,
    pub generation: String,
    pub finished: Timestamp,
    /// How often it was asked for.
    pub tries: u32,
}

/// What was removed because its time was over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub conversations: u64,
    pub more: bool,
}
