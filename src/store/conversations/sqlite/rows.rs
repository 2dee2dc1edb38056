//! How are rows read as data?

use std::str::FromStr;

use jiff::Timestamp;
use serde_json::Value;
use sqlx::{Row as _, sqlite::SqliteRow};

use super::thread::Thread;
use crate::store::conversations::{
    CostSource, Error, Id, Message, Role, State, TurnState, Visibility,
    seal::{Row, Wrapped},
};

pub fn broken(why: impl std::fmt::Display) -> Error {
    Error::Unavailable(format!("a row cannot be read: {why}"))
}

/// The id in a column.
pub fn id<const KIND: char>(row: &SqliteRow, column: &str) -> Result<Id<KIND>, Error> {
    Id::from_str(row.try_get::<&str, _>(column)?).map_err(|_| broken(column))
}

pub fn some_id<const KIND: char>(row: &SqliteRow, column: &str) -> Result<Option<Id<KIND>>, Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| Id::from_str(text).map_err(|_| broken(column))).transpose()
}

pub fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, Error> {
    Timestamp::from_microsecond(row.try_get(column)?).map_err(broken)
}

pub fn some_time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, Error> {
    let time: Option<i64> = row.try_get(column)?;
    time.map(|time| Timestamp::from_microsecond(time).map_err(broken)).transpose()
}

pub fn count(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    Ok(row.try_get::<i64, _>(column)?.cast_unsigned())
}

pub fn wrapped(row: &SqliteRow) -> Result<Wrapped, Error> {
    Ok(Wrapped { kek: row.try_get("kek")?, dek: row.try_get("dek")? })
}

pub fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(broken)
}

pub fn json(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(broken)
}

/// A word of ours in a column.
pub fn word<T: Word>(row: &SqliteRow, column: &str) -> Result<T, Error> {
    let text: &str = row.try_get(column)?;
    T::ALL.iter().find(|one| one.word() == text).copied().ok_or_else(|| broken(column))
}

/// One of a few, each kept as a word.
pub trait Word: Copy + 'static {
    const ALL: &'static [Self];

    fn word(self) -> &'static str;
}

impl Word for State {
    const ALL: &'static [Self] = &[Self::Active, Self::Archived];

    fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archived => "archived",
        }
    }
}

impl Word for Visibility {
    const ALL: &'static [Self] = &[Self::Private, Self::Tenant];

    fn word(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Tenant => "tenant",
        }
    }
}

impl Word for Role {
    const ALL: &'static [Self] = &[Self::User, Self::Assistant];

    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl Word for TurnState {
    const ALL: &'static [Self] =
        &[Self::Pending, Self::Running, Self::Completed, Self::Incomplete, Self::Failed];

    fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
        }
    }
}

impl Word for CostSource {
    const ALL: &'static [Self] = &[Self::Reported, Self::Reconciled, Self::Estimated];

    fn word(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Reconciled => "reconciled",
            Self::Estimated => "estimated",
        }
    }
}

/// A message of a thread, from a row with all columns.
pub fn message(row: &SqliteRow, thread: &Thread) -> Result<Message, Error> {
    let id = id(row, "id")?;
    let (name, seq) = (row.try_get::<&str, _>("id")?, row.try_get("seq")?);
    let body = thread.open(row.try_get("body")?, Row("body", name, seq))?;
    let extras: Option<&[u8]> = row.try_get("extras")?;
    let extras = extras.map(|extras| json(&thread.open(extras, Row("extras", name, seq))?)).transpose()?;
    Ok(Message {
        id,
        seq,
        parent: some_id(row, "parent_id")?,
        turn: some_id(row, "turn")?,
        role: word(row, "role")?,
        text: text(body)?,
        extras,
        tokens: row.try_get("tokens")?,
        tokens_reported: row.try_get("reported")?,
        created: time(row, "created")?,
        superseded_by: some_id(row, "superseded_by")?,
    })
}
