//! What has each caller used today?

use sqlx::{Row as _, sqlite::SqliteRow};

use super::Store;

/// What a caller has used on one day, or has used more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    pub caller: String,
    pub calls: i64,
    pub tokens: i64,
    /// In billionths of a US dollar.
    pub nano_usd: i64,
}

impl Store {
    /// What all callers have used on a day, which is counted from 1970.
    pub async fn used_on(&self, day: u64) -> Vec<Used> {
        let rows = sqlx::query("SELECT caller, calls, tokens, nano_usd FROM quota WHERE day = $1");
        let rows = rows.bind(day.cast_signed()).fetch_all(&self.pool).await;
        let rows = rows.inspect_err(|why| tracing::warn!(%why, "what was used today cannot be read"));
        let used = |row: &SqliteRow| {
            Some(Used {
                caller: row.try_get("caller").ok()?,
                calls: row.try_get("calls").ok()?,
                tokens: row.try_get("tokens").ok()?,
                nano_usd: row.try_get("nano_usd").ok()?,
            })
        };
        rows.unwrap_or_default().iter().filter_map(used).collect()
    }

    /// Adds to what callers have used on a day, and forgets the days before.
    pub async fn add_used(&self, day: u64, added: &[Used]) {
        let kept = async {
            let mut transaction = self.pool.begin().await?;
            for Used { caller, calls, tokens, nano_usd } in added {
                let add = sqlx::query(
                    "INSERT INTO quota (day, caller, calls, tokens, nano_usd) VALUES ($1, $2, $3, $4, $5)
                     ON CONFLICT (day, caller) DO UPDATE
                     SET calls = calls + $3, tokens = tokens + $4, nano_usd = nano_usd + $5",
                );
                let add = add.bind(day.cast_signed()).bind(caller).bind(calls).bind(tokens).bind(nano_usd);
                add.execute(&mut *transaction).await?;
            }
            let old = sqlx::query("DELETE FROM quota WHERE day < $1").bind(day.cast_signed());
            old.execute(&mut *transaction).await?;
            transaction.commit().await
        };
        if let Err(why) = kept.await {
            tracing::warn!(%why, "what was used cannot be kept; after a restart it counts as not used");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_used_adds_up_and_is_forgotten_the_next_day() {
        let store = Store::in_memory().await.unwrap();
        let used = |calls, tokens| Used { caller: "ada".into(), calls, tokens, nano_usd: 1 };
        store.add_used(7, &[used(2, 10)]).await;
        store.add_used(7, &[used(-1, 5)]).await;
        assert_eq!(store.used_on(7).await, [Used { nano_usd: 2, ..used(1, 15) }]);
        store.add_used(8, &[]).await;
        assert_eq!(store.used_on(7).await, []);
    }
}
