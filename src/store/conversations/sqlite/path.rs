//! Which messages lead to one?
//!
//! A model is told no more of a conversation than fits, and to find out what that is its texts are not needed. So the
//! path can be walked twice: first over an index that has nothing but sizes in it, then for the texts.

use std::cmp::Reverse;

use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    rows::{self, Word as _},
    thread::Thread,
};
use crate::store::conversations::{Budget, Error, Message, Outline, Path, Role, Step};

/// Messages of which the sizes are read at once.
const AT_ONCE: i64 = 4096;

/// The messages that lead to one, which is given by its seq.
pub async fn path(
    db: &mut SqliteConnection,
    thread: &Thread,
    from: Option<i64>,
    budget: Budget,
) -> Result<Path, Error> {
    let rows = sqlx::query(
        "WITH RECURSIVE path (number, parent, tokens, nth) AS (
             SELECT m.number, m.parent, m.tokens, 1
             FROM message m JOIN conversation c ON c.number = m.conversation
             WHERE c.number = $1 AND c.owner = $2 AND m.seq = $3
             UNION ALL
             SELECT m.number, m.parent, path.tokens + m.tokens, path.nth + 1
             FROM path JOIN message m ON m.conversation = $1 AND m.seq = path.parent
             WHERE path.tokens <= $4 AND path.nth < $5
         ) SELECT m.* FROM path JOIN message m ON m.number = path.number",
    );
    let rows = rows.bind(thread.number).bind(&thread.owner).bind(from);
    let mut rows = rows.bind(budget.tokens).bind(budget.messages).fetch_all(db).await?;
    // As they come, as a rule: SQLite would copy all texts to make sure.
    let depth = |row: &SqliteRow| row.try_get::<i64, _>("depth");
    for row in &rows {
        depth(row)?;
    }
    rows.sort_by_key(|row| Reverse(depth(row).unwrap_or_default()));
    let whole = rows.first().map_or(Ok(0), |row| depth(row).map(|depth| depth + 1))?;
    let mut messages: Vec<Message> = Vec::with_capacity(rows.len());
    let mut newer = Role::User;
    for row in &rows {
        let role = rows::word(row, "role")?;
        if is_told(role, newer) {
            messages.push(rows::message(row, thread)?);
        }
        newer = role;
    }
    Ok(Path { messages, whole: whole.cast_unsigned() })
}

/// What was said and never answered would be asked again with what was said next.
fn is_told(role: Role, newer: Role) -> bool {
    role == Role::Assistant || newer == Role::Assistant
}

/// How much each message is that leads to one.
pub async fn outline(
    db: &mut SqliteConnection,
    thread: &Thread,
    from: Option<i64>,
    budget: Budget,
) -> Result<Outline, Error> {
    let mut outline = Outline::default();
    let (mut next, mut newer) = (from, Role::User);
    let (mut tokens, mut nth) = (0_i64, 0);
    while let Some(seq) = next {
        for (at, parent, own, role) in sizes(db, thread, seq).await? {
            // What lies between belongs to branches.
            if next != Some(at) {
                continue;
            }
            if tokens > budget.tokens || nth >= budget.messages {
                return Ok(outline);
            }
            (next, tokens, nth) = (parent, tokens.saturating_add(own), nth + 1);
            if is_told(role, newer) {
                outline.steps.push(Step { role, tokens: own, nth });
            }
            newer = role;
        }
        if next == Some(seq) {
            return Err(Error::NotFound); // There is no such message.
        }
    }
    Ok(outline)
}

/// Seq, parent, tokens and role of the messages before and at one, newest first. In one row, for rows cost more than
/// what is in them.
async fn sizes(
    db: &mut SqliteConnection,
    thread: &Thread,
    seq: i64,
) -> Result<Vec<(i64, Option<i64>, i64, Role)>, Error> {
    let row = sqlx::query(
        "SELECT coalesce(group_concat(seq || ' ' || coalesce(parent, 0) || ' ' || tokens || ' ' || role, ';'), '') AS sizes
         FROM (SELECT m.seq, m.parent, m.tokens, m.role
               FROM conversation c JOIN message m INDEXED BY message_path ON m.conversation = c.number
               WHERE c.number = $1 AND c.owner = $2 AND m.seq <= $3 ORDER BY m.seq DESC LIMIT $4)",
    );
    let row = row.bind(thread.number).bind(&thread.owner).bind(seq).bind(AT_ONCE).fetch_one(db).await?;
    let text: &str = row.try_get("sizes")?;
    let mut all = text.split(';').filter(|one| !one.is_empty()).map(size).collect::<Result<Vec<_>, _>>()?;
    all.sort_by_key(|(seq, ..)| Reverse(*seq));
    Ok(all)
}

fn size(text: &str) -> Result<(i64, Option<i64>, i64, Role), Error> {
    let wrong = || rows::broken("sizes");
    let mut words = text.split(' ');
    let mut number = || words.next().and_then(|word| word.parse::<i64>().ok()).ok_or_else(wrong);
    let (seq, parent, tokens) = (number()?, number()?, number()?);
    let role = words.next().and_then(|word| Role::ALL.iter().find(|role| role.word() == word).copied());
    Ok((seq, (parent > 0).then_some(parent), tokens, role.ok_or_else(wrong)?))
}
