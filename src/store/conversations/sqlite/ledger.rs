//! What has been spent, by whom, and may more be?

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{
    Mine, Outlives,
    rows::{self, Word as _},
};
use crate::store::conversations::{
    Budgets, CostSource, Entry, Error, GroupBy, Ledger, Reply, Report, ReportRow, Reservation, Reserved,
    TurnId, Usage, UsageWanted,
};

const DAY: i64 = 24 * 60 * 60 * 1_000_000;
/// How long an amount is set aside at most, in microseconds: a call that takes longer was forgotten.
const HELD: i64 = 60 * 60 * 1_000_000;
const MOST: u32 = 1000;

impl Ledger for Mine {
    fn reserve(&self, amount: i64, budgets: Budgets, now: Timestamp) -> Reply<'_, Reserved> {
        Box::pin(
            self.write(Outlives::Process, move |db, mine| Box::pin(reserve(db, mine, amount, budgets, now))),
        )
    }

    fn release(&self, reservation: Reservation) -> Reply<'_, ()> {
        Box::pin(
            self.write(Outlives::Process, move |db, mine| {
                Box::pin(end_reservation(db, mine, Some(reservation)))
            }),
        )
    }

    fn record(&self, entry: Entry, reservation: Option<Reservation>, now: Timestamp) -> Reply<'_, ()> {
        Box::pin(self.write(Outlives::Machine, move |db, mine| {
            Box::pin(async move {
                end_reservation(db, mine, reservation).await?;
                insert(db, &mine.tenant, &mine.owner, &entry, now).await
            })
        }))
    }

    fn usage(&self, wanted: UsageWanted) -> Reply<'_, Report> {
        Box::pin(self.read(move |db, mine| Box::pin(usage(db, mine, wanted))))
    }

    fn generation(&self, generation: String) -> Reply<'_, Entry> {
        Box::pin(self.read(move |db, mine| {
            Box::pin(async move {
                let row = sqlx::query(
                    "SELECT * FROM ledger WHERE owner = $1 AND generation = $2 ORDER BY number DESC LIMIT 1",
                );
                let row = row.bind(&mine.owner).bind(generation).fetch_optional(db).await?;
                entry(&row.ok_or(Error::NotFound)?)
            })
        }))
    }
}

async fn reserve(
    db: &mut SqliteConnection,
    mine: &Mine,
    amount: i64,
    budgets: Budgets,
    now: Timestamp,
) -> Result<Reserved, Error> {
    let now = now.as_microsecond();
    let day = now.div_euclid(DAY);
    for (column, whose, budget) in
        [("owner", &mine.owner, budgets.own), ("tenant", &mine.tenant, budgets.tenant)]
    {
        let Some(budget) = budget else { continue };
        let sql = format!(
            "SELECT (SELECT coalesce(sum(cost), 0) FROM ledger WHERE {column} = $1 AND at >= $2 AND at < $3)
                  + (SELECT coalesce(sum(amount), 0) FROM reservation
                     WHERE tenant = $4 AND {column} = $1 AND day = $5 AND until > $6) AS used"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(whose).bind(day * DAY).bind((day + 1) * DAY);
        let row = row.bind(&mine.tenant).bind(day).bind(now).fetch_one(&mut *db).await?;
        let used: i64 = row.try_get("used")?;
        if used.saturating_add(amount) > budget {
            return Ok(Reserved::Over { used, budget });
        }
    }
    let insert = sqlx::query(
        "INSERT INTO reservation (tenant, owner, day, amount, until) VALUES ($1, $2, $3, $4, $5)
         RETURNING number",
    );
    let insert = insert.bind(&mine.tenant).bind(&mine.owner).bind(day).bind(amount).bind(now + HELD);
    Ok(Reserved::Held(Reservation(insert.fetch_one(db).await?.try_get("number")?)))
}

pub async fn end_reservation(
    db: &mut SqliteConnection,
    mine: &Mine,
    reservation: Option<Reservation>,
) -> Result<(), Error> {
    if let Some(Reservation(number)) = reservation {
        let delete = sqlx::query("DELETE FROM reservation WHERE number = $1 AND owner = $2");
        delete.bind(number).bind(&mine.owner).execute(db).await?;
    }
    Ok(())
}

pub async fn insert(
    db: &mut SqliteConnection,
    tenant: &str,
    owner: &str,
    entry: &Entry,
    now: Timestamp,
) -> Result<(), Error> {
    let estimated = if entry.usage.source == CostSource::Estimated { entry.usage.cost } else { 0 };
    add(db, (tenant, owner), entry, (1, estimated), now).await
}

async fn add(
    db: &mut SqliteConnection,
    (tenant, owner): (&str, &str),
    entry: &Entry,
    (requests, estimated): (i64, i64),
    now: Timestamp,
) -> Result<(), Error> {
    let Entry { tool, conversation, turn, generation, model, provider, usage, simulated, run } = entry;
    let insert = sqlx::query(
        "INSERT INTO ledger (at, tenant, owner, tool, conversation, turn, generation, model, provider, requests,
         prompt, completion, reasoning, cached, cost, estimated, source, simulated, run)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
    );
    let insert = insert.bind(now.as_microsecond()).bind(tenant).bind(owner).bind(tool);
    let insert = insert.bind(conversation.map(|id| id.to_string())).bind(turn.map(|id| id.to_string()));
    let insert = insert.bind(generation).bind(model).bind(provider).bind(requests);
    let insert = insert.bind(usage.prompt_tokens).bind(usage.completion_tokens);
    let insert = insert.bind(usage.reasoning_tokens).bind(usage.cached_tokens).bind(usage.cost);
    let insert = insert.bind(estimated).bind(usage.source.word()).bind(simulated).bind(run);
    insert.execute(db).await?;
    Ok(())
}

/// Adds what the real cost of a turn differs by from what was entered.
pub async fn reconcile(
    db: &mut SqliteConnection,
    turn: TurnId,
    real: Usage,
    now: Timestamp,
) -> Result<(), Error> {
    let id = turn.to_string();
    let settled =
        sqlx::query("UPDATE turn SET settle = NULL WHERE id = $1 AND settle IS NOT NULL RETURNING owner");
    let settled = settled.bind(&id).fetch_optional(&mut *db).await?;
    let owner: String = settled.ok_or(Error::NotFound)?.try_get("owner")?;
    let rows = sqlx::query("SELECT * FROM ledger WHERE owner = $1 AND turn = $2 ORDER BY number");
    let rows = rows.bind(&owner).bind(&id).fetch_all(&mut *db).await?;
    let mut sum = ReportRow::default();
    for row in &rows {
        sum.add(&report_row(row, "turn")?);
    }
    let Some(last) = rows.last() else { return Err(Error::NotFound) };
    let difference = Usage {
        prompt_tokens: real.prompt_tokens - sum.prompt_tokens,
        completion_tokens: real.completion_tokens - sum.completion_tokens,
        reasoning_tokens: real.reasoning_tokens - sum.reasoning_tokens,
        cached_tokens: real.cached_tokens - sum.cached_tokens,
        cost: real.cost - sum.cost,
        source: CostSource::Reconciled,
    };
    let correction = Entry { usage: difference, ..entry(last)? };
    let tenant: &str = last.try_get("tenant")?;
    // On the day of the call, whose budget it is.
    let at = rows::time(last, "at")?.min(now);
    add(db, (tenant, &owner), &correction, (0, -sum.estimated), at).await
}

fn entry(row: &SqliteRow) -> Result<Entry, Error> {
    Ok(Entry {
        tool: row.try_get("tool")?,
        conversation: rows::some_id(row, "conversation")?,
        turn: rows::some_id(row, "turn")?,
        generation: row.try_get("generation")?,
        model: row.try_get("model")?,
        provider: row.try_get("provider")?,
        usage: Usage {
            prompt_tokens: row.try_get("prompt")?,
            completion_tokens: row.try_get("completion")?,
            reasoning_tokens: row.try_get("reasoning")?,
            cached_tokens: row.try_get("cached")?,
            cost: row.try_get("cost")?,
            source: rows::word(row, "source")?,
        },
        simulated: row.try_get("simulated")?,
        run: row.try_get("run")?,
    })
}

async fn usage(db: &mut SqliteConnection, mine: &Mine, wanted: UsageWanted) -> Result<Report, Error> {
    let UsageWanted { group_by, tenant, conversation, since, until, limit } = wanted;
    let key = match group_by {
        GroupBy::Day => "date(at / 1000000, 'unixepoch')",
        GroupBy::Model => "model",
        GroupBy::Conversation => "coalesce(conversation, '')",
        GroupBy::Tool => "tool",
        GroupBy::Subject => "owner",
    };
    let mut query = QueryBuilder::<Sqlite>::new(format!(
        "SELECT {key} AS key, sum(requests) AS requests, sum(prompt) AS prompt, sum(completion) AS completion,
         sum(reasoning) AS reasoning, sum(cached) AS cached, sum(cost) AS cost, sum(estimated) AS estimated
         FROM ledger WHERE "
    ));
    if tenant {
        query.push("tenant = ").push_bind(&mine.tenant);
    } else {
        query.push("owner = ").push_bind(&mine.owner);
    }
    if let Some(id) = conversation {
        query.push(" AND conversation = ").push_bind(id.to_string());
    }
    if let Some(since) = since {
        query.push(" AND at >= ").push_bind(since.as_microsecond());
    }
    if let Some(until) = until {
        query.push(" AND at < ").push_bind(until.as_microsecond());
    }
    query.push(" GROUP BY 1 ORDER BY ");
    query.push(if group_by == GroupBy::Day { "1 DESC" } else { "sum(cost) DESC, 1" });
    let rows = query.build().fetch_all(db).await?;
    let mut report = Report::default();
    for row in &rows {
        let row = report_row(row, "key")?;
        report.total.add(&row);
        report.rows.push(row);
    }
    report.rows.truncate(limit.clamp(1, MOST) as usize);
    Ok(report)
}

fn report_row(row: &SqliteRow, key: &str) -> Result<ReportRow, Error> {
    Ok(ReportRow {
        key: row.try_get(key)?,
        requests: row.try_get("requests")?,
        prompt_tokens: row.try_get("prompt")?,
        completion_tokens: row.try_get("completion")?,
        reasoning_tokens: row.try_get("reasoning")?,
        cached_tokens: row.try_get("cached")?,
        cost: row.try_get("cost")?,
        estimated: row.try_get("estimated")?,
    })
}

impl ReportRow {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
        self.cached_tokens += other.cached_tokens;
        self.cost = self.cost.saturating_add(other.cost);
        self.estimated = self.estimated.saturating_add(other.estimated);
    }
}
