//! Why does the store of conversations say no?

use super::TurnId;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is none, or it is another's: nobody learns which.
    #[error("there is no such conversation, turn, message or run")]
    NotFound,
    #[error("the conversation has changed: it is at version {version}")]
    Conflict { version: i64 },
    #[error("{turn} of this conversation still runs")]
    Busy { turn: TurnId },
    #[error("this idempotency key was used for another request")]
    Mismatch,
    #[error("there is no failed or incomplete turn to run again")]
    NothingToRetry,
    #[error("{0}")]
    Quota(Quota),
    /// Another has taken the turn over since: nothing was changed.
    #[error("the lease of this turn was lost")]
    Fenced,
    #[error("the cursor is not one of this list")]
    Cursor,
    /// The disk is full, read-only or locked; or what is there cannot be opened with the key. The reason is
    /// for the log.
    #[error("conversations cannot be kept or read now")]
    Unavailable(String),
    /// Only when the store is opened.
    #[error(
        "conversations are sealed with a key that is not configured ({0}); configure it, or move them away"
    )]
    UnknownKey(String),
}

/// What there is too much of, and how much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Quota {
    #[error("there are {0} conversations, as many as may be; delete some that are not needed")]
    Conversations(u64),
    #[error("the conversation has {0} messages, as many as may be; fork it or begin another")]
    Messages(u64),
    #[error("more than {0} bytes would be kept; delete conversations that are not needed")]
    Bytes(u64),
    #[error("an attachment may have {0} bytes")]
    Attachment(u64),
    #[error("{0} turns run at once, as many as may be; wait for one to end")]
    Turns(u64),
}

impl From<Quota> for Error {
    fn from(quota: Quota) -> Self {
        Self::Quota(quota)
    }
}

impl From<sqlx::Error> for Error {
    fn from(why: sqlx::Error) -> Self {
        Self::Unavailable(why.to_string())
    }
}
