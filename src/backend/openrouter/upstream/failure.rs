//! Why was there no answer, or only a part of one?

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::completion::Completion;

/// All reasons that callers are told. Some are never an upstream's; they stand here because the set is
/// closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    InvalidInput,
    ConversationNotFound,
    ConversationBusy,
    ConversationConflict,
    IdempotencyMismatch,
    ConfirmationRequired,
    BudgetExceeded,
    QuotaExceeded,
    ModelNotFound,
    ModelUnavailable,
    ModelNotAllowed,
    ContextTooLarge,
    UnsupportedModality,
    MediaRejected,
    PaymentRequired,
    UpstreamAuth,
    RateLimited,
    ContentBlocked,
    UpstreamOverloaded,
    UpstreamUnavailable,
    UpstreamTimeout,
    UpstreamProtocol,
    EmptyAnswer,
    Cancelled,
    StorageUnavailable,
    Internal,
}

impl Code {
    pub const ALL: [Self; 26] = [
        Self::InvalidInput,
        Self::ConversationNotFound,
        Self::ConversationBusy,
        Self::ConversationConflict,
        Self::IdempotencyMismatch,
        Self::ConfirmationRequired,
        Self::BudgetExceeded,
        Self::QuotaExceeded,
        Self::ModelNotFound,
        Self::ModelUnavailable,
        Self::ModelNotAllowed,
        Self::ContextTooLarge,
        Self::UnsupportedModality,
        Self::MediaRejected,
        Self::PaymentRequired,
        Self::UpstreamAuth,
        Self::RateLimited,
        Self::ContentBlocked,
        Self::UpstreamOverloaded,
        Self::UpstreamUnavailable,
        Self::UpstreamTimeout,
        Self::UpstreamProtocol,
        Self::EmptyAnswer,
        Self::Cancelled,
        Self::StorageUnavailable,
        Self::Internal,
    ];

    /// As callers read it, and what it means in a few words.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidInput => ("invalid_input", "the request was not understood"),
            Self::ConversationNotFound => ("conversation_not_found", "there is no such conversation"),
            Self::ConversationBusy => ("conversation_busy", "another turn is being answered"),
            Self::ConversationConflict => ("conversation_conflict", "the conversation has changed"),
            Self::IdempotencyMismatch => ("idempotency_mismatch", "the key was used for another request"),
            Self::ConfirmationRequired => ("confirmation_required", "the cost has to be agreed to"),
            Self::BudgetExceeded => ("budget_exceeded", "the budget here is spent"),
            Self::QuotaExceeded => ("quota_exceeded", "no more is kept for this caller"),
            Self::ModelNotFound => ("model_not_found", "there is no such model"),
            Self::ModelUnavailable => ("model_unavailable", "nobody serves the model now"),
            Self::ModelNotAllowed => ("model_not_allowed", "the model is not allowed here"),
            Self::ContextTooLarge => ("context_too_large", "it is more than the model can read"),
            Self::UnsupportedModality => ("unsupported_modality", "the model cannot read this kind of input"),
            Self::MediaRejected => ("media_rejected", "an attachment cannot be sent"),
            Self::PaymentRequired => ("payment_required", "the account cannot pay for it"),
            Self::UpstreamAuth => ("upstream_auth", "the operator's access to models does not work"),
            Self::RateLimited => ("rate_limited", "too many requests"),
            Self::ContentBlocked => ("content_blocked", "the content was blocked"),
            Self::UpstreamOverloaded => ("upstream_overloaded", "the provider is overloaded"),
            Self::UpstreamUnavailable => ("upstream_unavailable", "the provider failed"),
            Self::UpstreamTimeout => ("upstream_timeout", "it took too long"),
            Self::UpstreamProtocol => ("upstream_protocol", "the provider's answer was not understood"),
            Self::EmptyAnswer => ("empty_answer", "the answer was empty"),
            Self::Cancelled => ("cancelled", "it was cancelled"),
            Self::StorageUnavailable => ("storage_unavailable", "nothing can be kept now"),
            Self::Internal => ("internal", "something went wrong here"),
        }
    }

    pub const fn as_str(self) -> &'static str {
        self.words().0
    }

    /// The code that callers read so.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == word)
    }

    pub const fn meaning(self) -> &'static str {
        self.words().1
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a request got. Decides whether it may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was sent.
    Connecting,
    /// It was sent, or a part of it; whether it was worked on is not known.
    Sent,
    /// It was answered with an error.
    Refused,
    /// An answer had begun, which may be empty so far.
    Answering,
}

/// What broke an answer off. The words are those that callers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    Truncated,
    Upstream,
    Timeout,
}

impl Break {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "stream_truncated",
            Self::Upstream => "upstream_error",
            Self::Timeout => "timeout",
        }
    }
}

/// A request that brought no whole answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    pub code: Code,
    /// For the caller: without secrets, of at most 500 characters.
    pub message: String,
    pub phase: Phase,
    /// Why a part of an answer is only a part.
    pub broken_by: Break,
    /// May the same succeed a little later?
    pub retryable: bool,
    pub retry_after: Option<Duration>,
    /// When the limit that was hit begins anew.
    pub resets_at: Option<SystemTime>,
    pub http_status: Option<u16>,
    /// The error's own code where it is a word, as some are.
    pub upstream_code: Option<String>,
    pub error_type: Option<String>,
    pub limit_source: Option<String>,
    pub provider: Option<String>,
    /// What OpenRouter says about who could have answered.
    pub availability: Availability,
    /// What of an answer had come.
    pub partial: Box<Completion>,
}

/// `error.availability`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Availability {
    pub code: Option<String>,
    pub fallback_models: Vec<String>,
}

impl Failure {
    /// One that may be tried again or not by what its code says.
    pub fn new(code: Code, phase: Phase, message: impl Into<String>) -> Self {
        let retryable = matches!(
            code,
            Code::RateLimited
                | Code::UpstreamOverloaded
                | Code::UpstreamUnavailable
                | Code::UpstreamTimeout
                | Code::UpstreamProtocol
                | Code::EmptyAnswer
                | Code::ConversationBusy
                | Code::StorageUnavailable
        );
        let broken_by = if code == Code::UpstreamTimeout { Break::Timeout } else { Break::Upstream };
        Self {
            code,
            message: message.into(),
            phase,
            broken_by,
            retryable,
            retry_after: None,
            resets_at: None,
            http_status: None,
            upstream_code: None,
            error_type: None,
            limit_source: None,
            provider: None,
            availability: Availability::default(),
            partial: Box::default(),
        }
    }

    /// Was it the account's free calls of the day?
    pub fn is_daily(&self) -> bool {
        self.limit_source.as_deref() == Some("openrouter_free_tier_daily")
    }

    /// Did the end of the way fail, rather than what stands at it?
    pub fn is_of_connection(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Sent)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_differ() {
        let words: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }

    #[test]
    fn only_what_passes_is_retryable() {
        assert!(Failure::new(Code::UpstreamOverloaded, Phase::Refused, "").retryable);
        assert!(!Failure::new(Code::UpstreamAuth, Phase::Refused, "").retryable);
    }
}
