//! Which requests came, and what was billed for each?

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// One request. Times are milliseconds since 1970, by the simulator's clock.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Counts from 1.
    pub id: u64,
    pub at_ms: u64,
    pub method: String,
    /// With its query.
    pub path: String,
    /// In lower case, the key masked.
    pub headers: BTreeMap<String, String>,
    /// JSON where it was JSON, else a text; a very long one is left out, and its length said instead.
    pub body: Value,
    /// The fault or oddity that was asked for.
    pub scenario: Option<String>,
    /// 0 until there is an answer.
    pub status: u16,
    pub bytes_sent: u64,
    /// When the answer was complete, or cut off on purpose.
    pub done_at: Option<u64>,
    /// When the client went away before that.
    pub client_gone_at: Option<u64>,
    pub generation_id: Option<String>,
    pub model: Option<String>,
    pub session_id: Option<String>,
    pub user: Option<String>,
    /// Whether this request costs the key's owner anything, be it 0 for a free model.
    pub billed: bool,
    /// USD, as an exact decimal.
    pub cost: String,
}

/// Sums over all requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub requests: u64,
    /// Of which to `/chat/completions`.
    pub chats: u64,
    pub billed: u64,
    pub clients_gone: u64,
    /// Requests without an end so far.
    pub under_way: u64,
    /// USD, as an exact decimal.
    pub cost: String,
}
