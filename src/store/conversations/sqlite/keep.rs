//! What is done for all owners from time to time?
//!
//! Costs are asked for again, what is past its time is removed, keys are wrapped anew. All of it in small
//! batches: the writer is for those who wait.

use jiff::{SignedDuration, Timestamp};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Base,
    remove::{self, Doomed},
    rows,
};
use crate::store::conversations::{
    Error, Swept, TurnId, Unsettled,
    seal::{Cipher, Place, Row, Vault},
};

/// Conversations that are removed or sealed together.
const AT_ONCE: i64 = 20;

/// The tables whose rows have keys, and what a row is called in each.
const KEYED: [(&str, &str); 3] = [("conversation", "id"), ("blob", "name"), ("benchmark", "id")];

/// Refuses if there is something that none of the keys opens.
pub async fn check_keys(db: &mut SqliteConnection, vault: &Vault) -> Result<(), Error> {
    for (table, _) in KEYED {
        let rows = format!("SELECT DISTINCT kek FROM {table} WHERE kek IS NOT NULL");
        for row in sqlx::query(sqlx::AssertSqlSafe(rows)).fetch_all(&mut *db).await? {
            let kek: String = row.try_get("kek")?;
            if !vault.knows(&kek) {
                return Err(Error::UnknownKey(kek));
            }
        }
    }
    Ok(())
}

pub async fn unsettled(
    db: &mut SqliteConnection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Unsettled>, Error> {
    let rows = sqlx::query("SELECT * FROM turn WHERE settle <= $1 ORDER BY settle LIMIT $2");
    let rows = rows.bind(now.as_microsecond()).bind(limit).fetch_all(db).await?;
    let unsettled = |row: &SqliteRow| {
        Ok(Unsettled {
            turn: rows::id(row, "id")?,
            generation: row.try_get("generation")?,
            finished: rows::time(row, "finished")?,
            tries: row.try_get("tries")?,
        })
    };
    rows.iter().map(unsettled).collect()
}

pub async fn postpone(
    db: &mut SqliteConnection,
    turn: TurnId,
    until: Option<Timestamp>,
) -> Result<(), Error> {
    let update =
        sqlx::query("UPDATE turn SET settle = $2, tries = tries + 1 WHERE id = $1 AND settle IS NOT NULL");
    update.bind(turn.to_string()).bind(until.map(Timestamp::as_microsecond)).execute(db).await?;
    Ok(())
}

pub async fn sweep(db: &mut SqliteConnection, base: &Base, now: Timestamp) -> Result<Swept, Error> {
    let rows = sqlx::query(
        "SELECT * FROM conversation c WHERE expires <= $1 AND NOT EXISTS
         (SELECT 1 FROM turn t WHERE t.conversation = c.number AND t.owner = c.owner
          AND t.state IN ('pending', 'running')) ORDER BY expires LIMIT $2",
    );
    let rows = rows.bind(now.as_microsecond()).bind(AT_ONCE).fetch_all(&mut *db).await?;
    for row in &rows {
        let (number, id, owner) = (row.try_get("number")?, row.try_get("id")?, row.try_get("owner")?);
        let clear = row.try_get::<Option<&str>, _>("kek")?.is_none();
        remove::remove(db, &Doomed { number, id, owner, clear }).await?;
    }
    let replay = SignedDuration::try_from(base.options.replay).unwrap_or(SignedDuration::MAX);
    let oldest = now.checked_sub(replay).unwrap_or(Timestamp::MIN).as_microsecond();
    let keys = sqlx::query("UPDATE turn SET key = NULL WHERE key IS NOT NULL AND created < $1");
    keys.bind(oldest).execute(&mut *db).await?;
    let held = sqlx::query("DELETE FROM reservation WHERE until <= $1");
    held.bind(now.as_microsecond()).execute(db).await?;
    Ok(Swept { conversations: rows.len() as u64, more: rows.len() as i64 == AT_ONCE })
}

pub async fn rewrap(db: &mut SqliteConnection, base: &Base, limit: u32) -> Result<u32, Error> {
    let Some(current) = base.vault.current() else { return Ok(0) };
    let mut done = 0;
    for (table, name) in KEYED {
        let rows = format!(
            "SELECT number, tenant, owner, {name} AS name, kek, dek FROM {table} WHERE kek <> $1 LIMIT $2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(rows)).bind(current).bind(limit - done);
        for row in rows.fetch_all(&mut *db).await? {
            let wrapped = base.vault.rewrap(&rows::wrapped(&row)?, place(&row)?)?;
            let update = format!("UPDATE {table} SET kek = $3, dek = $4 WHERE number = $1 AND owner = $2");
            let update = sqlx::query(sqlx::AssertSqlSafe(update)).bind(row.try_get::<i64, _>("number")?);
            let update = update.bind(row.try_get::<&str, _>("owner")?).bind(wrapped.kek).bind(wrapped.dek);
            update.execute(&mut *db).await?;
            done += 1;
        }
    }
    Ok(done)
}

fn place(row: &SqliteRow) -> Result<Place<'_>, Error> {
    let (tenant, owner) = (row.try_get("tenant")?, row.try_get("owner")?);
    Ok(Place { tenant, owner, thing: row.try_get("name")? })
}

/// Seals a batch of what is in clear, if there is a key; how many things there were.
pub async fn seal_clear(db: &mut SqliteConnection, base: &Base) -> Result<u64, Error> {
    if base.vault.current().is_none() {
        return Ok(0);
    }
    let mut done = 0;
    for (table, name) in KEYED {
        let rows =
            format!("SELECT number, tenant, owner, {name} AS name FROM {table} WHERE kek IS NULL LIMIT $1");
        let rows = sqlx::query(sqlx::AssertSqlSafe(rows)).bind(AT_ONCE).fetch_all(&mut *db).await?;
        for row in &rows {
            let place = place(row)?;
            let number: i64 = row.try_get("number")?;
            let (cipher, wrapped) = base.vault.fresh(place)?;
            let update = format!("UPDATE {table} SET kek = $3, dek = $4 WHERE number = $1 AND owner = $2");
            let update = sqlx::query(sqlx::AssertSqlSafe(update)).bind(number).bind(place.owner);
            update.bind(wrapped.kek).bind(wrapped.dek).execute(&mut *db).await?;
            if table == "conversation" {
                remove::unindex(db, number, place.owner).await?;
            }
            for texts in TEXTS.iter().filter(|texts| texts.of == table) {
                texts.seal(db, number, place, &cipher).await?;
            }
        }
        done += rows.len() as u64;
    }
    Ok(done)
}

/// A column whose texts are sealed, and to what each is bound.
struct Texts {
    /// The table whose rows have the keys.
    of: &'static str,
    table: &'static str,
    column: &'static str,
    kind: &'static str,
    /// The name and the number of the row, as SQL.
    row: (&'static str, &'static str),
}

const TEXTS: [Texts; 9] = [
    Texts::new("conversation", "conversation", "face", "face", ("''", "0")),
    Texts::new("conversation", "conversation", "prompt", "prompt", ("''", "0")),
    Texts::new("conversation", "message", "body", "body", ("id", "seq")),
    Texts::new("conversation", "message", "extras", "extras", ("id", "seq")),
    Texts::new("conversation", "turn", "partial", "partial", ("id", "0")),
    Texts::new("conversation", "turn", "result", "result", ("id", "0")),
    Texts::new(
        "conversation",
        "summary",
        "body",
        "summary",
        ("upto", "(SELECT seq FROM message WHERE id = upto)"),
    ),
    Texts::new("blob", "blob", "body", "attachment", ("name", "0")),
    Texts::new("benchmark", "benchmark", "body", "benchmark", ("id", "0")),
];

impl Texts {
    const fn new(
        of: &'static str,
        table: &'static str,
        column: &'static str,
        kind: &'static str,
        row: (&'static str, &'static str),
    ) -> Self {
        Self { of, table, column, kind, row }
    }

    /// Seals those of one conversation, file or run. Its owner was looked for with its number.
    async fn seal(
        &self,
        db: &mut SqliteConnection,
        of: i64,
        place: Place<'_>,
        cipher: &Cipher,
    ) -> Result<(), Error> {
        let Self { table, column, kind, row: (name, nth), .. } = self;
        let which = if self.table == self.of { "number" } else { "conversation" };
        let rows = format!(
            "SELECT number, {name} AS name, {nth} AS nth, {column} AS text FROM {table}
             WHERE {which} = $1 AND {column} IS NOT NULL"
        );
        let update = format!("UPDATE {table} SET {column} = $2 WHERE number = $1");
        for row in sqlx::query(sqlx::AssertSqlSafe(rows)).bind(of).fetch_all(&mut *db).await? {
            let place_in = Row(kind, row.try_get("name")?, row.try_get("nth")?);
            let sealed = cipher.seal(row.try_get("text")?, place, place_in)?;
            let update =
                sqlx::query(sqlx::AssertSqlSafe(update.clone())).bind(row.try_get::<i64, _>("number")?);
            update.bind(sealed).execute(&mut *db).await?;
        }
        Ok(())
    }
}
