//! What have calls cost, and what did models do in benchmarks?

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{BenchmarkId, ConversationId, Cursor, TurnId};

/// A row of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub tool: String,
    pub conversation: Option<ConversationId>,
    pub turn: Option<TurnId>,
    pub generation: Option<String>,
    pub model: String,
    pub provider: Option<String>,
    pub usage: Usage,
    /// It was the simulator that answered.
    pub simulated: bool,
    /// What many calls were made for together.
    pub run: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub reasoning_tokens: i64,
    pub cached_tokens: i64,
    /// In billionths of a US dollar.
    pub cost: i64,
    pub source: CostSource,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CostSource {
    /// With the answer.
    Reported,
    /// Asked for afterwards.
    Reconciled,
    #[default]
    Estimated,
}

/// What may be used in a day (UTC), in billionths of a US dollar; None: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budgets {
    pub own: Option<i64>,
    pub tenant: Option<i64>,
}

/// An amount that is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation(pub(super) i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    Held(Reservation),
    /// So much was used and set aside before, by the principal or by the tenant, whichever is at its end.
    Over {
        used: i64,
        budget: i64,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupBy {
    #[default]
    Day,
    Model,
    Conversation,
    Tool,
    /// By owner, which is a digest.
    Subject,
}

#[derive(Debug, Clone, Default)]
pub struct UsageWanted {
    pub group_by: GroupBy,
    /// Of the whole tenant, not of the principal alone. Whether it may know is for the caller to decide.
    pub tenant: bool,
    pub conversation: Option<ConversationId>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The costliest so many; by day, the newest.
    pub limit: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub rows: Vec<ReportRow>,
    /// Of all, also of those beyond the limit.
    pub total: ReportRow,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportRow {
    /// Empty where there is none: a call without a conversation, the total.
    pub key: String,
    pub requests: i64,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub reasoning_tokens: i64,
    pub cached_tokens: i64,
    /// In billionths of a US dollar, and how much of it is only estimated.
    pub cost: i64,
    pub estimated: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct NewBenchmark {
    /// Its calls stand in the ledger under it.
    pub id: BenchmarkId,
    pub models: Vec<String>,
    pub body: Value,
}

#[derive(Debug, Clone, Default)]
pub struct BenchmarkWanted {
    pub model: Option<String>,
    pub since: Option<Timestamp>,
    /// 1 to 100.
    pub limit: u32,
    pub cursor: Option<Cursor>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Benchmark {
    pub id: BenchmarkId,
    pub created: Timestamp,
    pub models: Vec<String>,
    /// Null in a list.
    pub body: Value,
}
