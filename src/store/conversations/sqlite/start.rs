//! How does a turn begin?
//!
//! In one transaction: the turn, its key and its lease, the user's message, the conversation where it is new.
//! Whoever comes with a key that is known gets the turn of that key, whoever comes while another turn of the
//! main line runs is told which.

use jiff::{SignedDuration, Timestamp};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Mine, Outlives, end, rows,
    thread::{self, Draft, Spot, Thread},
};
use crate::store::conversations::{
    Begun, ConversationId, Error, Failed, Finish, Finished, Lease, Message, NewTurn, Place, Quota, Reply,
    Role, Said, Start, Turn, TurnId, TurnState, Turns, seal::Row,
};

impl Turns for Mine {
    fn begin(&self, turn: NewTurn, now: Timestamp) -> Reply<'_, Start> {
        Box::pin(self.write(Outlives::Machine, move |db, mine| Box::pin(begin(db, mine, turn, now))))
    }

    fn sent(&self, lease: Lease, generation: Option<String>, now: Timestamp) -> Reply<'_, ()> {
        Box::pin(
            self.write(Outlives::Machine, move |db, mine| {
                Box::pin(end::sent(db, mine, lease, generation, now))
            }),
        )
    }

    fn checkpoint(&self, lease: Lease, text: String, now: Timestamp) -> Reply<'_, ()> {
        Box::pin(
            self.write(Outlives::Process, move |db, mine| {
                Box::pin(end::checkpoint(db, mine, lease, text, now))
            }),
        )
    }

    fn renew(&self, lease: Lease, now: Timestamp) -> Reply<'_, ()> {
        Box::pin(self.write(Outlives::Process, move |db, mine| Box::pin(end::renew(db, mine, lease, now))))
    }

    fn finish(&self, lease: Lease, finish: Finish, now: Timestamp) -> Reply<'_, Finished> {
        Box::pin(
            self.write(Outlives::Machine, move |db, mine| {
                Box::pin(end::finish(db, mine, lease, finish, now))
            }),
        )
    }

    fn fail(&self, lease: Lease, failed: Failed, now: Timestamp) -> Reply<'_, ()> {
        Box::pin(
            self.write(Outlives::Machine, move |db, mine| Box::pin(end::fail(db, mine, lease, failed, now))),
        )
    }

    fn turn(&self, id: TurnId) -> Reply<'_, Turn> {
        Box::pin(self.read(move |db, mine| {
            Box::pin(async move {
                let row = sqlx::query("SELECT * FROM turn WHERE id = $1 AND owner = $2");
                let row = row.bind(id.to_string()).bind(&mine.owner).fetch_optional(&mut *db).await?;
                read(db, mine, &row.ok_or(Error::NotFound)?).await
            })
        }))
    }

    fn turns(&self, id: ConversationId, limit: u32) -> Reply<'_, Vec<Turn>> {
        Box::pin(self.read(move |db, mine| {
            Box::pin(async move {
                let thread = thread::readable(db, mine, id).await?;
                let turns = sqlx::query(
                    "SELECT * FROM turn WHERE conversation = $1 AND owner = $2 ORDER BY number DESC LIMIT $3",
                );
                let turns = turns.bind(thread.number).bind(&thread.owner).bind(limit);
                let mut read = Vec::new();
                for row in turns.fetch_all(&mut *db).await? {
                    read.push(in_thread(db, &thread, &row).await?);
                }
                Ok(read)
            })
        }))
    }
}

/// What the turn of a key says about a wish to begin.
enum Keyed {
    New,
    Known(Start),
    /// It came to nothing: it is run again, with the message that is there already.
    Again {
        thread: Box<Thread>,
        question: i64,
        branch: bool,
    },
}

async fn begin(
    db: &mut SqliteConnection,
    mine: &Mine,
    turn: NewTurn,
    now: Timestamp,
) -> Result<Start, Error> {
    end::recover(db, &mine.base, Some(&mine.owner), now).await?;
    let key = turn.key.as_ref().map(|key| mine.digest("key", key));
    let fingerprint = mine.digest("fingerprint", &turn.fingerprint);
    let keyed = match &key {
        Some(key) => keyed(db, mine, key, &fingerprint, now).await?,
        None => Keyed::New,
    };
    let (mut thread, question, branch) = match keyed {
        Keyed::Known(start) => return Ok(start),
        Keyed::Again { thread, question, branch } => (*thread, Question::Asked(question), branch),
        Keyed::New => asked(db, mine, &turn, now).await?,
    };
    check_running(db, mine, &thread, branch).await?;
    let id = TurnId::new()?;
    let message = match question {
        Question::Asked(seq) => thread.message(db, seq).await?,
        Question::New(parent) => ask(db, mine, &mut thread, &turn.said, parent, id, now).await?,
    };
    thread.chat.version += 1;
    thread.save(db, &mine.base.options, now).await?;
    if turn.system_prompt.is_some() {
        thread.chat.system_prompt = turn.system_prompt;
        thread.save_face(db).await?;
    }
    thread::check_bytes(db, mine).await?;
    let insert = sqlx::query(
        "INSERT INTO turn (id, conversation, owner, state, branch, question, requested, key, fingerprint, epoch,
         until, estimate, created) VALUES ($1, $2, $3, 'pending', $4, $5, $6, $7, $8, 1, $9, $10, $11)",
    );
    let insert = insert.bind(id.to_string()).bind(thread.number).bind(&mine.owner).bind(branch);
    let insert = insert.bind(message.seq).bind(&turn.model).bind(key).bind(fingerprint);
    let insert = insert.bind(mine.base.until(now)).bind(turn.estimate).bind(now.as_microsecond());
    insert.execute(&mut *db).await?;
    let conversation = thread.shown(db).await?;
    Ok(Start::Begun(Box::new(Begun { lease: Lease { turn: id, epoch: 1 }, conversation, message })))
}

/// What is to be answered.
enum Question {
    /// A message that is there, by its seq.
    Asked(i64),
    /// A new one, behind this.
    New(Option<Spot>),
}

/// The conversation and what is to be answered in it; and is that beside its main line?
async fn asked(
    db: &mut SqliteConnection,
    mine: &Mine,
    turn: &NewTurn,
    now: Timestamp,
) -> Result<(Thread, Question, bool), Error> {
    let thread = match &turn.place {
        Place::New(new) => thread::create(db, mine, new.clone(), now).await?,
        Place::In(id) => thread::own(db, mine, *id).await?,
    };
    let version = thread.chat.version;
    if turn.expected_version.is_some_and(|expected| expected != version) {
        return Err(Error::Conflict { version });
    }
    if matches!(turn.said, Said::Again) {
        let row = sqlx::query(
            "SELECT question, state, branch FROM turn WHERE conversation = $1 AND owner = $2
             ORDER BY number DESC LIMIT 1",
        );
        let row = row.bind(thread.number).bind(&mine.owner).fetch_optional(&mut *db).await?;
        let row = row.ok_or(Error::NothingToRetry)?;
        return match rows::word(&row, "state")? {
            TurnState::Failed | TurnState::Incomplete => {
                Ok((thread, Question::Asked(row.try_get("question")?), row.try_get("branch")?))
            }
            TurnState::Completed => Err(Error::NothingToRetry),
            // It is to be waited for, as any turn that runs.
            TurnState::Pending | TurnState::Running => Ok((thread, Question::New(None), false)),
        };
    }
    let parent = match (turn.parent, thread.head) {
        (Some(parent), _) => Some(thread.spot_of(db, parent).await?),
        (None, Some(head)) => Some(thread.spot(db, head).await?),
        (None, None) => None,
    };
    let branch = turn.parent.is_some() && parent.map(|parent| parent.seq) != thread.head;
    Ok((thread, Question::New(parent), branch))
}

/// Adds what the user says.
async fn ask(
    db: &mut SqliteConnection,
    mine: &Mine,
    thread: &mut Thread,
    said: &Said,
    parent: Option<Spot>,
    turn: TurnId,
    now: Timestamp,
) -> Result<Message, Error> {
    let Said::Message { text, extras, tokens } = said else { return Err(Error::NothingToRetry) };
    thread.check_messages(&mine.base, 2)?; // With the answer.
    let (extras, tokens, turn) = (extras.as_ref(), *tokens, Some(turn));
    let draft = Draft { role: Role::User, text, extras, tokens, reported: false, parent, turn };
    Ok(thread.add(db, draft, now).await?.0)
}

/// Is there room for one more turn that runs, for the owner and in the conversation?
async fn check_running(
    db: &mut SqliteConnection,
    mine: &Mine,
    thread: &Thread,
    branch: bool,
) -> Result<(), Error> {
    let running = sqlx::query(
        "SELECT id, conversation, branch FROM turn WHERE owner = $1 AND state IN ('pending', 'running')",
    );
    let running = running.bind(&mine.owner).fetch_all(db).await?;
    for row in &running {
        let main_line = row.try_get::<i64, _>("conversation")? == thread.number && !row.try_get("branch")?;
        if main_line && !branch {
            return Err(Error::Busy { turn: rows::id(row, "id")? });
        }
    }
    let most = mine.base.options.quotas.turns;
    if running.len() as u64 >= most { Err(Quota::Turns(most).into()) } else { Ok(()) }
}

async fn keyed(
    db: &mut SqliteConnection,
    mine: &Mine,
    key: &[u8],
    fingerprint: &[u8],
    now: Timestamp,
) -> Result<Keyed, Error> {
    let replay = SignedDuration::try_from(mine.base.options.replay).unwrap_or(SignedDuration::MAX);
    let oldest = now.checked_sub(replay).unwrap_or(Timestamp::MIN).as_microsecond();
    let forget = sqlx::query("UPDATE turn SET key = NULL WHERE owner = $1 AND key = $2 AND created < $3");
    forget.bind(&mine.owner).bind(key).bind(oldest).execute(&mut *db).await?;
    let row = sqlx::query("SELECT * FROM turn WHERE owner = $1 AND key = $2");
    let Some(row) = row.bind(&mine.owner).bind(key).fetch_optional(&mut *db).await? else {
        return Ok(Keyed::New);
    };
    if row.try_get::<&[u8], _>("fingerprint")? != fingerprint {
        return Err(Error::Mismatch);
    }
    let number = row.try_get("conversation")?;
    let thread = thread::numbered(db, &mine.base.vault, number, &mine.owner).await?;
    if thread.deleting {
        return Err(Error::NotFound);
    }
    let turn = in_thread(db, &thread, &row).await?;
    Ok(match turn.state {
        TurnState::Pending | TurnState::Running => Keyed::Known(Start::Running(Box::new(turn))),
        // Whether an incomplete one was paid for is not known: it is told, and never begun again by itself.
        TurnState::Failed => {
            let forget = sqlx::query("UPDATE turn SET key = NULL WHERE owner = $1 AND key = $2");
            forget.bind(&mine.owner).bind(key).execute(&mut *db).await?;
            let (question, branch): (i64, bool) = (row.try_get("question")?, row.try_get("branch")?);
            // Where others have spoken meanwhile, it is asked anew behind them.
            if !branch && thread.spot(db, question).await?.parent != thread.head {
                return Ok(Keyed::New);
            }
            Keyed::Again { thread: Box::new(thread), question, branch }
        }
        _ => Keyed::Known(Start::Replay(Box::new(turn))),
    })
}

/// A turn of an owner, from a row with all columns.
async fn read(db: &mut SqliteConnection, mine: &Mine, row: &SqliteRow) -> Result<Turn, Error> {
    let thread = thread::numbered(db, &mine.base.vault, row.try_get("conversation")?, &mine.owner).await?;
    if thread.deleting { Err(Error::NotFound) } else { in_thread(db, &thread, row).await }
}

async fn in_thread(db: &mut SqliteConnection, thread: &Thread, row: &SqliteRow) -> Result<Turn, Error> {
    let result: Option<&[u8]> = row.try_get("result")?;
    let result = result.map(|sealed| rows::json(&thread.open(sealed, Row("result", row.try_get("id")?, 0))?));
    let answer: Option<i64> = row.try_get("answer")?;
    let answer = match answer {
        Some(seq) => Some(thread.message(db, seq).await?),
        None => None,
    };
    Ok(Turn {
        id: rows::id(row, "id")?,
        conversation: thread.chat.id,
        state: rows::word(row, "state")?,
        user_message: thread.spot(db, row.try_get("question")?).await?.id,
        answer,
        model_requested: row.try_get("requested")?,
        model_used: row.try_get("used")?,
        provider: row.try_get("provider")?,
        generation: row.try_get("generation")?,
        finish_reason: row.try_get("finish_reason")?,
        incomplete_reason: row.try_get("incomplete_reason")?,
        error: row.try_get("error")?,
        result: result.transpose()?,
        created: rows::time(row, "created")?,
        finished: rows::some_time(row, "finished")?,
    })
}

impl Mine {
    /// A digest of something of this owner's that is not to be kept in clear.
    fn digest(&self, purpose: &str, of: &str) -> Vec<u8> {
        self.base.pepper.digest(purpose, &self.owner, of.as_bytes())
    }
}
