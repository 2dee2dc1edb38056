//! How is a caller told that a tool did not do what it was asked for?
//!
//! With a sentence that a model can act upon, and beside it, in `_meta`, the same for programs.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::{
    catalog::Snapshot,
    context::TooLarge,
    media::Rejected,
    money::Money,
    upstream::{Code, Failure},
};
use crate::store::conversations::{self, ConversationId, TurnId};

/// Where the machine-readable part stands in `_meta`.
pub const META: &str = "io.waystation/error";
/// The longest time that a caller may be told to wait and still be told to retry.
const SOON: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no result.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused(Box<Reason>);

#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    pub code: Code,
    /// For a model: what was wrong, and what would be right.
    pub message: String,
    pub retryable: bool,
    pub retry_after: Option<Duration>,
    pub http_status: Option<u16>,
    pub error_type: Option<String>,
    pub limit_source: Option<String>,
    pub conversation: Option<ConversationId>,
    pub turn: Option<TurnId>,
    /// What it may cost, where that has to be agreed to.
    pub estimate: Option<Money>,
    /// Models that could be meant, or used instead.
    pub suggestions: Vec<String>,
}

impl Deref for Refused {
    type Target = Reason;

    fn deref(&self) -> &Reason {
        &self.0
    }
}

impl DerefMut for Refused {
    fn deref_mut(&mut self) -> &mut Reason {
        &mut self.0
    }
}

impl Refused {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Reason {
            code,
            message: message.into(),
            retryable: matches!(code, Code::ConversationBusy | Code::StorageUnavailable),
            retry_after: None,
            http_status: None,
            error_type: None,
            limit_source: None,
            conversation: None,
            turn: None,
            estimate: None,
            suggestions: Vec::new(),
        }))
    }

    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidInput, message)
    }

    /// What an upstream's failure is to the caller. Models that could be used instead are looked for
    /// where there are any.
    pub fn failed(failure: &Failure, models: &Snapshot, model: &str) -> Self {
        let mut refused = Self::new(failure.code, failure.message.clone());
        refused.retryable = failure.retryable;
        refused.retry_after = failure.retry_after.filter(|after| *after <= SOON);
        refused.http_status = failure.http_status;
        refused.error_type.clone_from(&failure.error_type);
        refused.limit_source.clone_from(&failure.limit_source);
        refused.suggestions.clone_from(&failure.availability.fallback_models);
        if refused.suggestions.is_empty() && failure.code == Code::ModelNotFound {
            refused.suggestions = models.suggestions(model, 5);
        }
        if let (false, Some(first)) = (refused.suggestions.is_empty(), refused.suggestions.first()) {
            refused.message = format!("{}; {first:?} could be used instead", refused.message);
        }
        refused
    }

    pub fn of_turn(mut self, conversation: ConversationId, turn: TurnId) -> Self {
        (self.conversation, self.turn) = (Some(conversation), Some(turn));
        self
    }

    /// The object for `_meta`.
    fn meta(&self) -> Value {
        let mut meta = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                meta.insert(name.to_owned(), value);
            }
        };
        put("code", self.code.as_str().into());
        put("retryable", self.retryable.into());
        put("retry_after_s", self.retry_after.map(|after| after.as_secs_f64().ceil()).into());
        put("http_status", self.http_status.into());
        put("error_type", self.error_type.clone().into());
        put("limit_source", self.limit_source.clone().into());
        put("conversation_id", self.conversation.map(|id| id.to_string()).into());
        put("turn_id", self.turn.map(|id| id.to_string()).into());
        put("estimate_usd", self.estimate.map(|estimate| estimate.to_string()).into());
        if !self.suggestions.is_empty() {
            put("suggestions", self.suggestions.clone().into());
        }
        meta.into()
    }

    /// The result of a `tools/call`.
    pub fn result(&self) -> Value {
        json!({
            "isError": true,
            "content": [{ "type": "text", "text": format!("{}: {}", self.code, self.message) }],
            "_meta": { META: self.meta() },
        })
    }
}

impl From<conversations::Error> for Refused {
    fn from(why: conversations::Error) -> Self {
        use conversations::Error;
        match why {
            Error::NotFound => Self::new(
                Code::ConversationNotFound,
                "there is no such conversation of yours, or no such message or turn in it; conversation_list shows those there are",
            ),
            Error::Conflict { version } => Self::new(
                Code::ConversationConflict,
                format!(
                    "the conversation is at version {version} by now; read it with conversation_get, and give that as expected_version"
                ),
            ),
            Error::Busy { turn } => {
                let mut busy = Self::new(
                    Code::ConversationBusy,
                    format!("{turn} of this conversation is still being answered; try again when it is done"),
                );
                busy.turn = Some(turn);
                busy
            }
            Error::Mismatch => Self::new(
                Code::IdempotencyMismatch,
                "this idempotency_key was used with other arguments; use another key for another request",
            ),
            Error::NothingToRetry => {
                Self::input("there is no failed or incomplete turn to run again; send a message instead")
            }
            Error::Quota(quota) => Self::new(Code::QuotaExceeded, quota.to_string()),
            Error::Cursor => Self::input("the cursor is not one of this list; begin again without one"),
            Error::Fenced => Self::new(
                Code::Internal,
                "the turn was taken over by another gateway; ask again with the same idempotency_key",
            ),
            Error::Unavailable(why) => {
                tracing::error!(why, "conversations cannot be kept or read");
                Self::new(
                    Code::StorageUnavailable,
                    "conversations cannot be kept or read now; nothing was sent to a model",
                )
            }
            Error::UnknownKey(_) => {
                tracing::error!(%why, "conversations cannot be opened");
                Self::new(
                    Code::StorageUnavailable,
                    "conversations cannot be opened here; whoever runs the gateway finds the reason in its log",
                )
            }
        }
    }
}

impl From<TooLarge> for Refused {
    fn from(why: TooLarge) -> Self {
        Self::new(Code::ContextTooLarge, why.to_string())
    }
}

impl From<Rejected> for Refused {
    fn from(why: Rejected) -> Self {
        Self::new(why.code(), why.to_string())
    }
}
