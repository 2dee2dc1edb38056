//! Where were words said?
//!
//! Messages in clear have an index of words. Sealed ones have none, as it would tell what they say: the owner's
//! own are opened and looked through, newest conversation first, and not more than a search may cost.

use std::time::{Duration, Instant};

use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::{
    Mine,
    rows::{self, Word as _},
    thread::Thread,
};
use crate::store::conversations::{Error, Found, Hit, Message, Search};

/// How much is looked through where there is no index.
const MESSAGES: usize = 20_000;
const BYTES: usize = 64 << 20;
const TIME: Duration = Duration::from_secs(2);
/// Messages that are read together.
const AT_ONCE: i64 = 500;
const MOST: u32 = 100;
/// Letters that a snippet shows on each side of a word.
const AROUND: usize = 80;

pub async fn search(mine: &Mine, search: Search) -> Result<Found, Error> {
    // A control character is in no word, and for SQLite a zero ends the text.
    let words = search.query.split(|letter: char| letter.is_whitespace() || letter.is_control());
    let words = words.map(|word| word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Ok(Found { hits: Vec::new(), truncated: false });
    }
    if mine.base.vault.current().is_none() {
        return mine.read(move |db, mine| Box::pin(indexed(db, mine, search, words))).await;
    }
    let one = mine.base.searches.acquire().await;
    let _one = one.map_err(|_| Error::Unavailable("searches have ended".to_owned()))?;
    mine.read(move |db, mine| Box::pin(scanned(db, mine, search, words))).await
}

async fn indexed(
    db: &mut SqliteConnection,
    mine: &Mine,
    search: Search,
    words: Vec<String>,
) -> Result<Found, Error> {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{}\"*", word.replace('"', "\"\""))).collect();
    // The owner is looked for as a word is, so that what others have said is not even read.
    let wanted = format!("owner : \"{}\" AND body : ({})", mine.owner, quoted.join(" AND "));
    let mut query = QueryBuilder::new(
        "SELECT m.*, bm25(message_text) AS rank FROM message_text
         JOIN message m ON m.number = message_text.rowid JOIN conversation c ON c.number = m.conversation
         WHERE message_text MATCH ",
    );
    query.push_bind(wanted).push(" AND c.state <> 'deleting' AND c.tenant = ").push_bind(&mine.tenant);
    query.push(" AND c.owner = ").push_bind(&mine.owner);
    narrow(&mut query, &search);
    if let Some(id) = search.conversation {
        query.push(" AND c.id = ").push_bind(id.to_string());
    }
    query.push(" ORDER BY rank, m.number DESC LIMIT ").push_bind(search.limit.clamp(1, MOST));
    let mut hits = Vec::new();
    for row in query.build().fetch_all(&mut *db).await? {
        let conversation = row.try_get("conversation")?;
        let thread = super::thread::numbered(db, &mine.base.vault, conversation, &mine.owner).await?;
        let score = -row.try_get::<f64, _>("rank")?;
        hits.push(hit(&thread, rows::message(&row, &thread)?, &words, score));
    }
    Ok(Found { hits, truncated: false })
}

/// Which messages, besides their words. The message is `m`.
fn narrow(query: &mut QueryBuilder<Sqlite>, search: &Search) {
    if let Some(role) = search.role {
        query.push(" AND m.role = ").push_bind(role.word());
    }
    if let Some(after) = search.after {
        query.push(" AND m.created > ").push_bind(after.as_microsecond());
    }
    if let Some(before) = search.before {
        query.push(" AND m.created < ").push_bind(before.as_microsecond());
    }
}

async fn scanned(
    db: &mut SqliteConnection,
    mine: &Mine,
    search: Search,
    words: Vec<String>,
) -> Result<Found, Error> {
    let mut query =
        QueryBuilder::new("SELECT c.* FROM conversation c WHERE c.state <> 'deleting' AND c.tenant = ");
    query.push_bind(&mine.tenant).push(" AND c.owner = ").push_bind(&mine.owner);
    if let Some(id) = search.conversation {
        query.push(" AND c.id = ").push_bind(id.to_string());
    }
    query.push(" ORDER BY c.updated DESC, c.number DESC");
    let mut left = Left { messages: MESSAGES, bytes: BYTES, until: Instant::now() + TIME };
    let mut found = Found { hits: Vec::new(), truncated: false };
    let limit = search.limit.clamp(1, MOST) as usize;
    for row in query.build().fetch_all(&mut *db).await? {
        let thread = Thread::read(&row, &mine.base.vault, &mine.owner)?;
        found.truncated = !scan(db, &thread, &search, &words, &mut left, &mut found.hits).await?;
        if found.truncated || found.hits.len() >= limit {
            break;
        }
    }
    found.hits.truncate(limit);
    Ok(found)
}

/// How much may still be looked through.
struct Left {
    messages: usize,
    bytes: usize,
    until: Instant,
}

/// Looks through one conversation. False if no more may be looked through.
async fn scan(
    db: &mut SqliteConnection,
    thread: &Thread,
    search: &Search,
    words: &[String],
    left: &mut Left,
    hits: &mut Vec<Hit>,
) -> Result<bool, Error> {
    let mut before = i64::MAX;
    loop {
        let mut query = QueryBuilder::new(
            "SELECT m.* FROM message m JOIN conversation c ON c.number = m.conversation WHERE c.number = ",
        );
        query.push_bind(thread.number).push(" AND c.owner = ").push_bind(&thread.owner);
        query.push(" AND m.seq < ").push_bind(before);
        narrow(&mut query, search);
        query.push(format_args!(" ORDER BY m.seq DESC LIMIT {AT_ONCE}"));
        let rows = query.build().fetch_all(&mut *db).await?;
        for row in &rows {
            let message = rows::message(row, thread)?;
            before = message.seq;
            if left.messages == 0 || left.bytes < message.text.len() || Instant::now() > left.until {
                return Ok(false);
            }
            left.messages -= 1;
            left.bytes -= message.text.len();
            let text = message.text.to_lowercase();
            if words.iter().all(|word| text.contains(word)) {
                hits.push(hit(thread, message, words, 1.0));
            }
        }
        if (rows.len() as i64) < AT_ONCE || hits.len() >= MOST as usize {
            return Ok(true);
        }
        tokio::task::yield_now().await; // To open so many takes a while.
    }
}

fn hit(thread: &Thread, message: Message, words: &[String], score: f64) -> Hit {
    Hit {
        conversation: thread.chat.id,
        message: message.id,
        role: message.role,
        snippet: snippet(&message.text, words),
        score,
        created: message.created,
    }
}

/// The first of the words that is there, with what stands around it.
fn snippet(text: &str, words: &[String]) -> String {
    let lower = text.to_lowercase();
    let at = words.iter().filter_map(|word| lower.find(word)).min().unwrap_or(0);
    // In letters: those in lower case can have other lengths.
    let at = lower[..at].chars().count();
    let first = at.saturating_sub(AROUND);
    let shown: String = text.chars().skip(first).take(2 * AROUND).collect();
    let (before, after) = (first > 0, text.chars().nth(first + 2 * AROUND).is_some());
    format!("{}{shown}{}", if before { "…" } else { "" }, if after { "…" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snippet_shows_the_word_in_any_text() {
        let long = format!("{}Nadel{}", "ä".repeat(500), "ß".repeat(500));
        let shown = snippet(&long, &["nadel".to_owned()]);
        assert!(shown.contains("Nadel") && shown.starts_with('…') && shown.ends_with('…'), "{shown}");
        assert_eq!(snippet("kurz", &["kurz".to_owned()]), "kurz");
        assert_eq!(snippet("", &["x".to_owned()]), "");
        // Letters that grow in lower case.
        let shown = snippet(&format!("{}nadel", "İ".repeat(60)), &["nadel".to_owned()]);
        assert!(!shown.is_empty());
    }
}
