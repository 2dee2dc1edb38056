//! What is heard while an answer is being made?

use std::{fmt, time::Duration};

use super::failure::Code;

/// Said as it happens. All [`Event::Delta`]s in a row are the text of the answer, whatever is tried
/// again in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request was accepted, under this name if it has one. Comes again for each request that one
    /// answer takes.
    Opened {
        generation_id: Option<String>,
    },
    Delta(String),
    Reasoning(String),
    /// A piece of a call: the name comes with the first, the arguments in any number of pieces.
    ToolCall {
        index: usize,
        id: Option<String>,
        name: Option<String>,
        arguments: String,
    },
    Status(Status),
}

/// Takes events at once: it must not block, nor may it be slow.
pub type Sink<'a> = &'a mut (dyn FnMut(Event) + Send);

/// What is being waited for, or what was decided: for people, and never a part of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The upstream is alive, but has no news.
    Working,
    /// Too many calls are under way.
    Queued,
    Retrying {
        why: Code,
        after: Duration,
    },
    FellBack {
        from: String,
        to: String,
        why: Code,
    },
    /// The account could not pay for as long an answer as was asked for.
    Capped {
        tokens: u64,
    },
    /// The conversation was too long for the model after all.
    Refitted {
        limit: Option<u64>,
    },
    /// A provider gave nothing.
    Elsewhere {
        without: Option<String>,
    },
    /// All was spent on reasoning.
    MoreRoom {
        tokens: u64,
    },
    /// The answer was cut off and goes on.
    Continued {
        round: u32,
    },
    /// The answer was cut off and did not go on.
    NotContinued {
        why: Code,
    },
}

impl Status {
    /// Is it worth telling after all is done, too?
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::Working | Self::Queued)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Working => f.write_str("waiting for the model"),
            Self::Queued => f.write_str("queued behind other calls"),
            Self::Retrying { why, after } => {
                write!(f, "trying again in {:.1} s: {}", after.as_secs_f64(), why.meaning())
            }
            Self::FellBack { from, to, why } => write!(f, "fell back from {from} to {to}: {}", why.meaning()),
            Self::Capped { tokens } => {
                write!(f, "the account can pay for {tokens} tokens of answer only, so no more were asked for")
            }
            Self::Refitted { limit: Some(limit) } => {
                write!(f, "the model's window is only {limit} tokens, so less of the conversation was sent")
            }
            Self::Refitted { limit: None } => {
                f.write_str("the conversation was too long for the model, so less of it was sent")
            }
            Self::Elsewhere { without: Some(provider) } => {
                write!(f, "{provider} gave an empty answer, so another provider was asked")
            }
            Self::Elsewhere { without: None } => {
                f.write_str("the answer was empty, so it was asked for again")
            }
            Self::MoreRoom { tokens } => {
                write!(f, "all tokens were spent on reasoning, so {tokens} were allowed")
            }
            Self::Continued { round } => write!(f, "resumed after the length limit (round {round})"),
            Self::NotContinued { why } => {
                write!(f, "the answer was cut off and could not be resumed: {}", why.meaning())
            }
        }
    }
}
