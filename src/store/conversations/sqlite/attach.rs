//! How are files and runs of benchmarks kept?
//!
//! Each has a key of its own: a file can be attached to several conversations, and goes with the last of them.

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{Mine, Outlives, rows, thread};
use crate::store::conversations::{
    Attachments, Benchmark, BenchmarkId, BenchmarkWanted, Benchmarks, ConversationId, Cursor, Error,
    NewBenchmark, Page, Quota, Reply,
    owner::hex,
    seal::{Place, Row},
};

const MOST: u32 = 100;
/// The list that cursors of benchmarks are of.
const LIST: &str = "benchmarks";

impl Attachments for Mine {
    fn attach(&self, id: ConversationId, mime: String, bytes: Vec<u8>) -> Reply<'_, String> {
        Box::pin(self.write(Outlives::Machine, move |db, mine| Box::pin(attach(db, mine, id, mime, bytes))))
    }

    fn attached(&self, id: ConversationId, name: String) -> Reply<'_, (String, Vec<u8>)> {
        Box::pin(self.read(move |db, mine| Box::pin(attached(db, mine, id, name))))
    }
}

async fn attach(
    db: &mut SqliteConnection,
    mine: &Mine,
    id: ConversationId,
    mime: String,
    bytes: Vec<u8>,
) -> Result<String, Error> {
    let thread = thread::own(db, mine, id).await?;
    let most = mine.base.options.quotas.attachment;
    if bytes.len() as u64 > most {
        return Err(Quota::Attachment(most).into());
    }
    let name = hex(&mine.base.pepper.digest("attachment", &mine.owner, &bytes));
    let place = Place { tenant: &mine.tenant, owner: &mine.owner, thing: &name };
    let known = sqlx::query("SELECT number FROM blob WHERE owner = $1 AND name = $2");
    let number: i64 = match known.bind(&mine.owner).bind(&name).fetch_optional(&mut *db).await? {
        Some(row) => row.try_get("number")?,
        None => {
            let (cipher, wrapped) = mine.base.vault.fresh(place)?;
            let body = cipher.seal(&bytes, place, Row("attachment", &name, 0))?;
            let insert = sqlx::query(
                "INSERT INTO blob (tenant, owner, name, mime, length, kek, dek, body)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING number",
            );
            let insert = insert.bind(&mine.tenant).bind(&mine.owner).bind(&name).bind(mime);
            let insert =
                insert.bind(bytes.len().cast_signed() as i64).bind(wrapped.kek).bind(wrapped.dek).bind(body);
            insert.fetch_one(&mut *db).await?.try_get("number")?
        }
    };
    let attach = sqlx::query(
        "INSERT OR IGNORE INTO attachment (conversation, blob)
         SELECT number, $3 FROM conversation WHERE number = $1 AND owner = $2",
    );
    attach.bind(thread.number).bind(&mine.owner).bind(number).execute(&mut *db).await?;
    thread::check_bytes(db, mine).await?;
    Ok(name)
}

async fn attached(
    db: &mut SqliteConnection,
    mine: &Mine,
    id: ConversationId,
    name: String,
) -> Result<(String, Vec<u8>), Error> {
    let thread = thread::readable(db, mine, id).await?;
    let row = sqlx::query(
        "SELECT b.* FROM blob b JOIN attachment a ON a.blob = b.number
         WHERE a.conversation = $1 AND b.owner = $2 AND b.name = $3",
    );
    let row = row.bind(thread.number).bind(&thread.owner).bind(&name).fetch_optional(db).await?;
    let row = row.ok_or(Error::NotFound)?;
    let place = Place { tenant: &thread.tenant, owner: &thread.owner, thing: &name };
    let cipher = mine.base.vault.open(&rows::wrapped(&row)?, place)?;
    let body = cipher.open(row.try_get("body")?, place, Row("attachment", &name, 0))?;
    Ok((row.try_get("mime")?, body))
}

impl Benchmarks for Mine {
    fn keep_benchmark(&self, run: NewBenchmark, now: Timestamp) -> Reply<'_, BenchmarkId> {
        Box::pin(self.write(Outlives::Machine, move |db, mine| Box::pin(keep(db, mine, run, now))))
    }

    fn benchmarks(&self, wanted: BenchmarkWanted) -> Reply<'_, Page<Benchmark>> {
        Box::pin(self.read(move |db, mine| Box::pin(list(db, mine, wanted))))
    }

    fn benchmark(&self, id: BenchmarkId) -> Reply<'_, Benchmark> {
        Box::pin(self.read(move |db, mine| {
            Box::pin(async move {
                let row = sqlx::query("SELECT * FROM benchmark WHERE id = $1 AND owner = $2");
                let name = id.to_string();
                let row =
                    row.bind(&name).bind(&mine.owner).fetch_optional(db).await?.ok_or(Error::NotFound)?;
                let place = Place { tenant: &mine.tenant, owner: &mine.owner, thing: &name };
                let cipher = mine.base.vault.open(&rows::wrapped(&row)?, place)?;
                let body = cipher.open(row.try_get("body")?, place, Row("benchmark", &name, 0))?;
                Ok(Benchmark { body: rows::json(&body)?, ..benchmark(&row)? })
            })
        }))
    }
}

async fn keep(
    db: &mut SqliteConnection,
    mine: &Mine,
    run: NewBenchmark,
    now: Timestamp,
) -> Result<BenchmarkId, Error> {
    let id = run.id;
    let name = id.to_string();
    let place = Place { tenant: &mine.tenant, owner: &mine.owner, thing: &name };
    let (cipher, wrapped) = mine.base.vault.fresh(place)?;
    let body = cipher.seal(run.body.to_string().as_bytes(), place, Row("benchmark", &name, 0))?;
    let models = serde_json::to_string(&run.models).map_err(rows::broken)?;
    let insert = sqlx::query(
        "INSERT INTO benchmark (id, tenant, owner, created, models, kek, dek, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    let insert = insert.bind(&name).bind(&mine.tenant).bind(&mine.owner).bind(now.as_microsecond());
    insert.bind(models).bind(wrapped.kek).bind(wrapped.dek).bind(body).execute(db).await?;
    Ok(id)
}

async fn list(
    db: &mut SqliteConnection,
    mine: &Mine,
    wanted: BenchmarkWanted,
) -> Result<Page<Benchmark>, Error> {
    let BenchmarkWanted { model, since, limit, cursor } = wanted;
    let limit = limit.clamp(1, MOST);
    let mut query =
        QueryBuilder::<Sqlite>::new("SELECT number, id, created, models FROM benchmark WHERE owner = ");
    query.push_bind(&mine.owner);
    if let Some(model) = model {
        query.push(" AND EXISTS (SELECT 1 FROM json_each(models) WHERE value = ").push_bind(model).push(")");
    }
    if let Some(since) = since {
        query.push(" AND created >= ").push_bind(since.as_microsecond());
    }
    if let Some(cursor) = cursor {
        let (created, number) = cursor.place(LIST)?;
        query.push(" AND (created, number) < (").push_bind(created).push(", ").push_bind(number).push(")");
    }
    query.push(" ORDER BY created DESC, number DESC LIMIT ").push_bind(limit + 1);
    let rows = query.build().fetch_all(db).await?;
    let shown = &rows[..rows.len().min(limit as usize)];
    let next = match shown.last() {
        Some(last) if rows.len() > shown.len() => {
            Some(Cursor::behind(LIST, last.try_get("created")?, last.try_get("number")?))
        }
        _ => None,
    };
    Ok(Page { items: shown.iter().map(benchmark).collect::<Result<_, _>>()?, next })
}

fn benchmark(row: &SqliteRow) -> Result<Benchmark, Error> {
    Ok(Benchmark {
        id: rows::id(row, "id")?,
        created: rows::time(row, "created")?,
        models: serde_json::from_str(row.try_get("models")?).map_err(rows::broken)?,
        body: serde_json::Value::Null,
    })
}
