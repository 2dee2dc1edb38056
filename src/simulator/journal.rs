//! Which requests came, and what was billed for each?

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::money::Money;

/// How many requests are remembered, and how much of their bodies in all.
const MOST_ENTRIES: usize = 10_000;
const MOST_BYTES: usize = 64 << 20;
/// A longer body is not kept.
const LONGEST: usize = 1 << 20;

/// One request. Times are milliseconds since 1970, by the simulator's clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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
    /// Whether this request was charged for, be it 0 for a free model.
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

/// The last requests, and sums over all.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// With the size of each body. Their ids follow one another.
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    last_id: u64,
    stats: Stats,
    cost: Money,
}

impl Journal {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// Notes a new request, and says under what id.
    pub fn begin(&self, mut entry: Entry) -> u64 {
        let mut kept = self.kept();
        kept.last_id += 1;
        entry.id = kept.last_id;
        entry.cost = Money::ZERO.to_string();
        kept.stats.requests += 1;
        kept.stats.under_way += 1;
        kept.stats.chats += u64::from(entry.path.contains("/chat/completions"));
        kept.entries.push_back((entry, 0));
        kept.shrink();
        kept.last_id
    }

    /// Adds the body to a request.
    pub fn body(&self, id: u64, text: &[u8]) {
        let body = if text.len() > LONGEST {
            json!({ "omitted_bytes": text.len() })
        } else {
            serde_json::from_slice(text).unwrap_or_else(|_| String::from_utf8_lossy(text).into())
        };
        let size = text.len().min(LONGEST);
        let mut kept = self.kept();
        if let Some((entry, held)) = kept.find(id) {
            entry.body = body;
            *held = size;
            kept.bytes += size;
            kept.shrink();
        }
    }

    /// Changes what is known of a request; nothing if it is forgotten by now.
    pub fn note(&self, id: u64, change: impl FnOnce(&mut Entry)) {
        if let Some((entry, _)) = self.kept().find(id) {
            change(entry);
        }
    }

    /// A request was charged for.
    pub fn bill(&self, id: u64, cost: Money) {
        let mut kept = self.kept();
        kept.stats.billed += 1;
        kept.cost += cost;
        if let Some((entry, _)) = kept.find(id) {
            (entry.billed, entry.cost) = (true, cost.to_string());
        }
    }

    /// A request has come to its end, one way or the other.
    pub fn end(&self, id: u64, at_ms: u64, client_gone: bool) {
        let mut kept = self.kept();
        kept.stats.under_way = kept.stats.under_way.saturating_sub(1);
        kept.stats.clients_gone += u64::from(client_gone);
        if let Some((entry, _)) = kept.find(id) {
            if client_gone {
                entry.client_gone_at = Some(at_ms);
            } else {
                entry.done_at = Some(at_ms);
            }
        }
    }

    /// The requests after the one with this id, the oldest first.
    pub fn since(&self, id: u64) -> Vec<Entry> {
        self.kept().entries.iter().map(|(entry, _)| entry).filter(|entry| entry.id > id).cloned().collect()
    }

    pub fn stats(&self) -> Stats {
        let kept = self.kept();
        Stats { cost: kept.cost.to_string(), ..kept.stats.clone() }
    }

    /// Forgets all but the ids and what is under way.
    pub fn clear(&self) {
        let mut kept = self.kept();
        let under_way = kept.stats.under_way;
        let last_id = kept.last_id;
        *kept = Kept { last_id, stats: Stats { under_way, ..Stats::default() }, ..Kept::default() };
    }
}

impl Kept {
    fn find(&mut self, id: u64) -> Option<&mut (Entry, usize)> {
        let first = self.entries.front()?.0.id;
        self.entries.get_mut(usize::try_from(id.checked_sub(first)?).ok()?)
    }

    fn shrink(&mut self) {
        while self.entries.len() > MOST_ENTRIES || self.bytes > MOST_BYTES {
            let Some((_, size)) = self.entries.pop_front() else { break };
            self.bytes -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_requests_are_kept_and_all_are_counted() {
        let journal = Journal::default();
        let first = journal.begin(Entry::default());
        for _ in 0..MOST_ENTRIES {
            journal.begin(Entry::default());
        }
        journal.bill(first, Money::dollars(1));
        journal.end(first, 5, true);
        let entries = journal.since(0);
        assert_eq!((entries.len(), entries[0].id), (MOST_ENTRIES, 2));
        let stats = journal.stats();
        assert_eq!((stats.requests, stats.billed, stats.clients_gone), (10_001, 1, 1));
        assert_eq!((stats.under_way, stats.cost.as_str()), (10_000, "1"));
    }

    #[test]
    fn long_bodies_are_left_out_and_many_push_old_ones_out() {
        let journal = Journal::default();
        let body = vec![b'x'; LONGEST];
        for _ in 0..70 {
            let id = journal.begin(Entry::default());
            journal.body(id, &body);
        }
        assert_eq!(journal.since(0).len(), 64);
        let id = journal.begin(Entry::default());
        journal.body(id, &vec![b'x'; LONGEST + 1]);
        let last = journal.since(id - 1);
        assert_eq!(last[0].body, json!({ "omitted_bytes": LONGEST + 1 }));
    }
}
