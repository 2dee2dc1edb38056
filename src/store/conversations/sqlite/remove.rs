//! How does a conversation begin with another's messages, and how does one end?

use jiff::Timestamp;
use sqlx::{Row as _, SqliteConnection};

use super::{
    Mine, path, rows,
    thread::{self, Draft, Thread},
};
use crate::store::conversations::{
    Budget, Conversation, ConversationId, Deletion, Error, Fork, NewConversation, NewSummary, Summary,
    TurnId, seal::Row,
};

/// Summaries of one conversation that are kept.
const SUMMARIES: i64 = 8;

pub async fn fork(
    db: &mut SqliteConnection,
    mine: &Mine,
    id: ConversationId,
    fork: Fork,
    now: Timestamp,
) -> Result<Conversation, Error> {
    let original = thread::readable(db, mine, id).await?;
    let Fork { at, title, model } = fork;
    let at = match at {
        Some(at) => Some(original.spot_of(db, at).await?.seq),
        None => original.head,
    };
    let path = path::path(db, &original, at, Budget { tokens: i64::MAX, messages: u32::MAX }).await?;
    let chat = &original.chat;
    let new = NewConversation {
        title: title.or_else(|| chat.title.clone()),
        system_prompt: chat.system_prompt.clone(),
        model: model.or_else(|| chat.model.clone()),
        tags: chat.tags.clone(),
        settings: chat.settings.clone(),
        retention_days: chat.retention_days,
        visibility: Default::default(), // To share is decided anew.
    };
    let mut copy = thread::create(db, mine, new, now).await?;
    copy.check_messages(&mine.base, path.messages.len() as u64)?;
    let mut parent = None;
    for message in path.messages.iter().rev() {
        let draft = Draft {
            role: message.role,
            text: &message.text,
            extras: message.extras.as_ref(),
            tokens: message.tokens,
            reported: message.tokens_reported,
            parent,
            turn: None,
        };
        parent = Some(copy.add(db, draft, message.created).await?.1);
    }
    copy.head = parent.map(|parent| parent.seq);
    copy.save(db, &mine.base.options, now).await?;
    if original.owner == mine.owner {
        let attach = sqlx::query(
            "INSERT INTO attachment (conversation, blob) SELECT $1, a.blob FROM attachment a
             JOIN blob b ON b.number = a.blob WHERE a.conversation = $2 AND b.owner = $3",
        );
        attach.bind(copy.number).bind(original.number).bind(&mine.owner).execute(&mut *db).await?;
    }
    thread::check_bytes(db, mine).await?;
    copy.shown(db).await
}

pub async fn delete(db: &mut SqliteConnection, mine: &Mine, id: ConversationId) -> Result<Deletion, Error> {
    let thread = thread::own(db, mine, id).await?;
    let running = running(db, &thread).await?;
    if running.is_empty() {
        remove(db, &thread.doomed()).await?;
        return Ok(Deletion::Gone { messages: thread.chat.messages });
    }
    let mark = sqlx::query("UPDATE conversation SET state = 'deleting' WHERE number = $1 AND owner = $2");
    mark.bind(thread.number).bind(&mine.owner).execute(db).await?;
    Ok(Deletion::Waits { running })
}

pub async fn clear(
    db: &mut SqliteConnection,
    mine: &Mine,
    id: ConversationId,
    now: Timestamp,
) -> Result<u64, Error> {
    let mut thread = thread::own(db, mine, id).await?;
    if let Some(turn) = running(db, &thread).await?.first() {
        return Err(Error::Busy { turn: *turn });
    }
    empty(db, &thread.doomed()).await?;
    for table in ["message", "turn", "summary", "attachment"] {
        let delete = format!(
            "DELETE FROM {table} WHERE conversation = (SELECT number FROM conversation
             WHERE number = $1 AND owner = $2)"
        );
        let delete = sqlx::query(sqlx::AssertSqlSafe(delete)).bind(thread.number).bind(&mine.owner);
        delete.execute(&mut *db).await?;
    }
    let removed = std::mem::take(&mut thread.chat.messages);
    (thread.head, thread.bytes, thread.chat.tokens) = (None, 0, 0);
    thread.chat.version += 1;
    // The bytes of the face are counted again from nothing.
    let none =
        sqlx::query("UPDATE conversation SET face = x'', prompt = NULL WHERE number = $1 AND owner = $2");
    none.bind(thread.number).bind(&mine.owner).execute(&mut *db).await?;
    thread.save(db, &mine.base.options, now).await?;
    thread.save_face(db).await?;
    Ok(removed)
}

/// Removes a conversation that is to be deleted, unless a turn of it runs.
pub async fn unless_running(db: &mut SqliteConnection, thread: &Thread) -> Result<bool, Error> {
    let over = running(db, thread).await?.is_empty();
    if over {
        remove(db, &thread.doomed()).await?;
    }
    Ok(over)
}

async fn running(db: &mut SqliteConnection, thread: &Thread) -> Result<Vec<TurnId>, Error> {
    let rows = sqlx::query(
        "SELECT id FROM turn WHERE owner = $2 AND state IN ('pending', 'running') AND conversation = $1",
    );
    let rows = rows.bind(thread.number).bind(&thread.owner).fetch_all(db).await?;
    rows.iter().map(|row| rows::id(row, "id")).collect()
}

/// What is to be removed. (That it can be opened is not needed for it.)
#[derive(Debug)]
pub struct Doomed<'a> {
    pub number: i64,
    pub id: &'a str,
    pub owner: &'a str,
    /// Its words are in the index.
    pub clear: bool,
}

/// Removes a conversation with its key and all that is in it. What it has cost stays.
pub async fn remove(db: &mut SqliteConnection, doomed: &Doomed<'_>) -> Result<(), Error> {
    empty(db, doomed).await?;
    let delete = sqlx::query("DELETE FROM conversation WHERE number = $1 AND owner = $2");
    delete.bind(doomed.number).bind(doomed.owner).execute(db).await?;
    Ok(())
}

/// Removes what refers to messages without being theirs.
async fn empty(db: &mut SqliteConnection, doomed: &Doomed<'_>) -> Result<(), Error> {
    let forget = sqlx::query(
        "UPDATE ledger SET conversation = NULL, turn = NULL WHERE conversation = $1 AND owner = $2",
    );
    forget.bind(doomed.id).bind(doomed.owner).execute(&mut *db).await?;
    if doomed.clear {
        unindex(db, doomed.number, doomed.owner).await?;
    }
    let blobs = sqlx::query(
        "DELETE FROM blob WHERE owner = $2
         AND number IN (SELECT blob FROM attachment WHERE conversation = $1)
         AND NOT EXISTS (SELECT 1 FROM attachment WHERE blob = blob.number AND conversation <> $1)",
    );
    blobs.bind(doomed.number).bind(doomed.owner).execute(db).await?;
    Ok(())
}

/// Takes the words of a conversation's messages out of the index.
pub async fn unindex(db: &mut SqliteConnection, conversation: i64, owner: &str) -> Result<(), Error> {
    let unindex = sqlx::query(
        "INSERT INTO message_text (message_text, rowid, owner, body)
         SELECT 'delete', m.number, c.owner, CAST(m.body AS TEXT)
         FROM message m JOIN conversation c ON c.number = m.conversation WHERE c.number = $1 AND c.owner = $2",
    );
    unindex.bind(conversation).bind(owner).execute(db).await?;
    Ok(())
}

pub async fn keep_summary(
    db: &mut SqliteConnection,
    mine: &Mine,
    id: ConversationId,
    summary: NewSummary,
    now: Timestamp,
) -> Result<(), Error> {
    let thread = thread::own(db, mine, id).await?;
    let upto = thread.spot_of(db, summary.upto).await?;
    let name = upto.id.to_string();
    let body = thread.seal(summary.text.as_bytes(), Row("summary", &name, upto.seq))?;
    let insert = sqlx::query(
        "INSERT INTO summary (conversation, upto, model, body, tokens, source, created)
         SELECT number, $3, $4, $5, $6, $7, $8 FROM conversation WHERE number = $1 AND owner = $2",
    );
    let insert = insert.bind(thread.number).bind(&mine.owner).bind(&name).bind(&summary.model).bind(body);
    let insert = insert.bind(summary.tokens).bind(&summary.source).bind(now.as_microsecond());
    insert.execute(&mut *db).await?;
    let forget = sqlx::query(
        "DELETE FROM summary WHERE conversation = (SELECT number FROM conversation WHERE number = $1 AND owner = $2)
         AND number NOT IN (SELECT number FROM summary WHERE conversation = $1 ORDER BY number DESC LIMIT $3)",
    );
    forget.bind(thread.number).bind(&mine.owner).bind(SUMMARIES).execute(db).await?;
    Ok(())
}

pub async fn summaries(
    db: &mut SqliteConnection,
    mine: &Mine,
    id: ConversationId,
) -> Result<Vec<Summary>, Error> {
    let thread = thread::readable(db, mine, id).await?;
    let rows = sqlx::query(
        "SELECT s.*, m.seq FROM summary s JOIN conversation c ON c.number = s.conversation
         JOIN message m ON m.id = s.upto
         WHERE c.number = $1 AND c.owner = $2 ORDER BY s.number DESC",
    );
    let rows = rows.bind(thread.number).bind(&thread.owner).fetch_all(db).await?;
    let summary = |row| -> Result<_, Error> {
        let sealed_in = Row("summary", sqlx::Row::try_get(row, "upto")?, sqlx::Row::try_get(row, "seq")?);
        Ok(Summary {
            upto: rows::id(row, "upto")?,
            model: row.try_get("model")?,
            text: rows::text(thread.open(row.try_get("body")?, sealed_in)?)?,
            tokens: row.try_get("tokens")?,
            source: row.try_get("source")?,
            created: rows::time(row, "created")?,
        })
    };
    rows.iter().map(summary).collect()
}
