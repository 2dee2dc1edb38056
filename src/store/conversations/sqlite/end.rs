//! How does a turn go on, and how does it end?
//!
//! Every change names the lease's epoch: whoever has lost the lease changes no row, and is told so. A turn ends
//! in one transaction with its answer and its cost. One that nobody works at any more ends in the same way,
//! after its epoch was raised.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Base, Mine, ledger, remove,
    rows::{self, Word as _},
    thread::{self, Draft, Thread},
};
use crate::store::conversations::{
    Answer, CostSource, Entry, Error, Failed, Finish, Finished, Lease, MessageId, Recovered, Role, TurnId,
    TurnState, Usage, seal::Row,
};

/// Turns that are recovered at once.
const AT_ONCE: i64 = 100;
/// How soon after its end the cost of a turn is asked for that was not told.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);

pub async fn sent(
    db: &mut SqliteConnection,
    mine: &Mine,
    lease: Lease,
    generation: Option<String>,
    now: Timestamp,
) -> Result<(), Error> {
    let update = sqlx::query(
        "UPDATE turn SET state = 'running', generation = coalesce($4, generation), until = $5
         WHERE id = $1 AND owner = $2 AND epoch = $3 AND state IN ('pending', 'running')",
    );
    let update = update.bind(lease.turn.to_string()).bind(&mine.owner).bind(lease.epoch);
    let update = update.bind(generation).bind(mine.base.until(now)).execute(&mut *db).await?;
    if update.rows_affected() > 0 { Ok(()) } else { Err(lost(db, mine, lease).await?) }
}

pub async fn renew(
    db: &mut SqliteConnection,
    mine: &Mine,
    lease: Lease,
    now: Timestamp,
) -> Result<(), Error> {
    let update = sqlx::query(
        "UPDATE turn SET until = $4
         WHERE id = $1 AND owner = $2 AND epoch = $3 AND state IN ('pending', 'running')",
    );
    let update = update.bind(lease.turn.to_string()).bind(&mine.owner).bind(lease.epoch);
    let update = update.bind(mine.base.until(now)).execute(&mut *db).await?;
    if update.rows_affected() > 0 { Ok(()) } else { Err(lost(db, mine, lease).await?) }
}

pub async fn checkpoint(
    db: &mut SqliteConnection,
    mine: &Mine,
    lease: Lease,
    text: String,
    now: Timestamp,
) -> Result<(), Error> {
    let (thread, _) = held(db, mine, lease).await?;
    let partial = thread.seal(text.as_bytes(), Row("partial", &lease.turn.to_string(), 0))?;
    let update = sqlx::query(
        "UPDATE turn SET partial = $4, until = $5, state = 'running' WHERE id = $1 AND owner = $2 AND epoch = $3",
    );
    let update = update.bind(lease.turn.to_string()).bind(&mine.owner).bind(lease.epoch);
    update.bind(partial).bind(mine.base.until(now)).execute(db).await?;
    Ok(())
}

pub async fn finish(
    db: &mut SqliteConnection,
    mine: &Mine,
    lease: Lease,
    finish: Finish,
    now: Timestamp,
) -> Result<Finished, Error> {
    let (thread, row) = held(db, mine, lease).await?;
    ledger::end_reservation(db, mine, finish.reservation).await?;
    let state = if finish.incomplete_reason.is_some() { TurnState::Incomplete } else { TurnState::Completed };
    let ending = Ending {
        state,
        answer: finish.answer,
        finish_reason: finish.finish_reason,
        reason: finish.incomplete_reason,
        result: finish.result,
        entry: Some(finish.entry),
    };
    end(db, &mine.base, thread, &row, ending, now).await
}

pub async fn fail(
    db: &mut SqliteConnection,
    mine: &Mine,
    lease: Lease,
    failed: Failed,
    now: Timestamp,
) -> Result<(), Error> {
    let (thread, row) = held(db, mine, lease).await?;
    let Failed { code, entry, reservation } = failed;
    ledger::end_reservation(db, mine, reservation).await?;
    end(db, &mine.base, thread, &row, Ending { entry, ..Ending::failed(&code) }, now).await?;
    Ok(())
}

/// Ends turns whose leases have expired, of one owner or of all.
pub async fn recover(
    db: &mut SqliteConnection,
    base: &Base,
    owner: Option<&str>,
    now: Timestamp,
) -> Result<Recovered, Error> {
    let mut recovered = Recovered::default();
    let expired = match owner {
        Some(owner) => sqlx::query(
            "SELECT * FROM turn WHERE owner = $3 AND state IN ('pending', 'running') AND until < $1 LIMIT $2",
        )
        .bind(now.as_microsecond())
        .bind(AT_ONCE)
        .bind(owner),
        None => {
            sqlx::query("SELECT * FROM turn WHERE state IN ('pending', 'running') AND until < $1 LIMIT $2")
                .bind(now.as_microsecond())
                .bind(AT_ONCE)
        }
    };
    for row in expired.fetch_all(&mut *db).await? {
        let id: TurnId = rows::id(&row, "id")?;
        let mut savepoint = db.begin().await?;
        let ended = abandoned(&mut savepoint, base, &row, now).await;
        if ended.is_ok() {
            savepoint.commit().await?
        } else {
            savepoint.rollback().await?
        }
        match ended {
            Ok(true) => recovered.incomplete.push(id),
            Ok(false) => recovered.failed.push(id),
            // One that cannot be opened must not keep the others from their end.
            Err(why) => tracing::warn!(turn = %id, ?why, "a turn that nobody works at cannot be ended"),
        }
    }
    Ok(recovered)
}

/// Ends a turn that nobody works at any more. True if something may have been answered.
async fn abandoned(
    db: &mut SqliteConnection,
    base: &Base,
    row: &SqliteRow,
    now: Timestamp,
) -> Result<bool, Error> {
    let (number, owner): (i64, &str) = (row.try_get("number")?, row.try_get("owner")?);
    let thread = thread::numbered(db, &base.vault, row.try_get("conversation")?, owner).await?;
    let partial: Option<&[u8]> = row.try_get("partial")?;
    let partial = partial.map(|partial| thread.open(partial, Row("partial", row.try_get("id")?, 0)));
    let partial = partial.transpose()?.map(rows::text).transpose()?.unwrap_or_default();
    let raise = sqlx::query("UPDATE turn SET epoch = epoch + 1 WHERE number = $1 AND owner = $2");
    raise.bind(number).bind(owner).execute(&mut *db).await?;
    if rows::word::<TurnState>(row, "state")? == TurnState::Pending {
        end(db, base, thread, row, Ending::failed("crashed"), now).await?;
        return Ok(false);
    }
    let tokens = partial.len().div_ceil(4).cast_signed() as i64;
    let usage = Usage { completion_tokens: tokens, cost: row.try_get("estimate")?, ..Usage::default() };
    let entry = Entry {
        tool: "chat".to_owned(),
        generation: row.try_get("generation")?,
        model: row.try_get("requested")?,
        usage,
        ..Entry::default()
    };
    let answer = Answer { text: partial, extras: None, tokens, tokens_reported: false };
    let ending = Ending {
        state: TurnState::Incomplete,
        answer: Some(answer).filter(|answer| !answer.text.is_empty()),
        finish_reason: None,
        reason: Some("crash_recovered".to_owned()),
        result: None,
        entry: Some(entry),
    };
    end(db, base, thread, row, ending, now).await?;
    Ok(true)
}

struct Ending {
    state: TurnState,
    answer: Option<Answer>,
    finish_reason: Option<String>,
    /// Why it is incomplete or has failed.
    reason: Option<String>,
    result: Option<Value>,
    entry: Option<Entry>,
}

impl Ending {
    fn failed(code: &str) -> Self {
        let reason = Some(code.to_owned());
        Self {
            state: TurnState::Failed,
            answer: None,
            finish_reason: None,
            reason,
            result: None,
            entry: None,
        }
    }
}

async fn end(
    db: &mut SqliteConnection,
    base: &Base,
    mut thread: Thread,
    row: &SqliteRow,
    ending: Ending,
    now: Timestamp,
) -> Result<Finished, Error> {
    let (number, id): (i64, TurnId) = (row.try_get("number")?, rows::id(row, "id")?);
    let Ending { state, answer, finish_reason, reason, result, entry } = ending;
    let answer = match answer {
        Some(answer) => Some(reply(db, &mut thread, row.try_get("question")?, id, &answer, now).await?),
        None => None,
    };
    let (mut used, mut provider, mut generation, mut settle) = (None, None, None, None);
    if let Some(mut entry) = entry {
        entry.conversation = Some(thread.chat.id);
        entry.turn = Some(id);
        entry.generation = entry.generation.or(row.try_get("generation")?);
        ledger::insert(db, &thread.tenant, &thread.owner, &entry, now).await?;
        if entry.generation.is_some() && entry.usage.source == CostSource::Estimated {
            settle = now.checked_add(SETTLE).ok().map(Timestamp::as_microsecond);
        }
        (used, provider, generation) = (Some(entry.model), entry.provider, entry.generation);
    }
    let result =
        result.map(|result| thread.seal(result.to_string().as_bytes(), Row("result", &id.to_string(), 0)));
    let update = sqlx::query(
        "UPDATE turn SET state = $3, answer = $4, used = $5, provider = $6,
         generation = coalesce($7, generation), partial = NULL, finish_reason = $8, incomplete_reason = $9,
         error = $10, result = $11, settle = $12, finished = $13 WHERE number = $1 AND owner = $2",
    );
    let failed = state == TurnState::Failed;
    let update = update.bind(number).bind(&thread.owner).bind(state.word()).bind(answer.map(|(_, seq)| seq));
    let update = update.bind(used).bind(provider).bind(generation).bind(finish_reason);
    let update = update.bind(reason.as_ref().filter(|_| !failed)).bind(reason.as_ref().filter(|_| failed));
    let update = update.bind(result.transpose()?).bind(settle).bind(now.as_microsecond());
    update.execute(&mut *db).await?;
    thread.save(db, &base.options, now).await?;
    let deleted = thread.deleting && remove::unless_running(db, &thread).await?;
    Ok(Finished { assistant_message: answer.map(|(id, _)| id), version: thread.chat.version, deleted })
}

/// Adds the answer to a question, in place of answers that were cut short. It is the head from then on.
async fn reply(
    db: &mut SqliteConnection,
    thread: &mut Thread,
    question: i64,
    turn: TurnId,
    answer: &Answer,
    now: Timestamp,
) -> Result<(MessageId, i64), Error> {
    let question = thread.spot(db, question).await?;
    let draft = Draft {
        role: Role::Assistant,
        text: &answer.text,
        extras: answer.extras.as_ref(),
        tokens: answer.tokens,
        reported: answer.tokens_reported,
        parent: Some(question),
        turn: Some(turn),
    };
    let (message, spot) = thread.add(db, draft, now).await?;
    let supersede = sqlx::query(
        "UPDATE message SET superseded_by = $4 WHERE conversation = (SELECT number FROM conversation
         WHERE number = $1 AND owner = $2) AND seq <> $3 AND superseded_by IS NULL AND role = 'assistant'
         AND seq IN (SELECT answer FROM turn WHERE conversation = $1 AND owner = $2 AND question = $5)",
    );
    let supersede = supersede.bind(thread.number).bind(&thread.owner).bind(spot.seq);
    supersede.bind(message.id.to_string()).bind(question.seq).execute(db).await?;
    thread.head = Some(spot.seq);
    Ok((message.id, spot.seq))
}

/// The turn of a lease, and its conversation.
async fn held(db: &mut SqliteConnection, mine: &Mine, lease: Lease) -> Result<(Thread, SqliteRow), Error> {
    let row = sqlx::query(
        "SELECT * FROM turn WHERE id = $1 AND owner = $2 AND epoch = $3 AND state IN ('pending', 'running')",
    );
    let row = row.bind(lease.turn.to_string()).bind(&mine.owner).bind(lease.epoch);
    let Some(row) = row.fetch_optional(&mut *db).await? else { return Err(lost(db, mine, lease).await?) };
    let thread = thread::numbered(db, &mine.base.vault, row.try_get("conversation")?, &mine.owner).await?;
    Ok((thread, row))
}

/// Why a lease changes nothing: another has the turn, or there is none.
async fn lost(db: &mut SqliteConnection, mine: &Mine, lease: Lease) -> Result<Error, Error> {
    let row = sqlx::query("SELECT 1 FROM turn WHERE id = $1 AND owner = $2");
    let row = row.bind(lease.turn.to_string()).bind(&mine.owner).fetch_optional(db).await?;
    Ok(if row.is_some() { Error::Fenced } else { Error::NotFound })
}

impl Base {
    /// Until when a turn is held that gives a sign of life now.
    pub fn until(&self, now: Timestamp) -> i64 {
        let lease = SignedDuration::try_from(self.options.lease).unwrap_or(SignedDuration::MAX);
        now.checked_add(lease).unwrap_or(Timestamp::MAX).as_microsecond()
    }
}
