//! Which sealed states have been used, so that none is taken twice?

use sqlx::{Row as _, sqlite::SqliteRow};

use super::Store;

/// A state that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedState {
    pub nonce: [u8; 12],
    /// When it expires, in seconds since 1970.
    pub until: u64,
}

impl Store {
    /// Keeps states as used until they expire.
    pub async fn keep_used(&self, states: &[UsedState]) {
        let kept = async {
            let mut transaction = self.pool.begin().await?;
            for UsedState { nonce, until } in states {
                let insert = sqlx::query("INSERT OR IGNORE INTO used_state (nonce, until) VALUES ($1, $2)");
                let insert = insert.bind(&nonce[..]).bind(until.cast_signed());
                insert.execute(&mut *transaction).await?;
            }
            let expired = sqlx::query("DELETE FROM used_state WHERE until < unixepoch()");
            expired.execute(&mut *transaction).await?;
            transaction.commit().await
        };
        if let Err(why) = kept.await {
            tracing::warn!(%why, "used states cannot be kept; after a restart they could be used again");
        }
    }

    /// The states that were used and have not expired.
    pub async fn used(&self) -> Vec<UsedState> {
        let rows = sqlx::query("SELECT nonce, until FROM used_state WHERE until >= unixepoch()");
        let rows = rows.fetch_all(&self.pool).await;
        let rows = rows.inspect_err(|why| tracing::warn!(%why, "used states of earlier cannot be read"));
        let state = |row: &SqliteRow| {
            let nonce: &[u8] = row.try_get("nonce").ok()?;
            let until: i64 = row.try_get("until").ok()?;
            Some(UsedState { nonce: nonce.try_into().ok()?, until: until.cast_unsigned() })
        };
        rows.unwrap_or_default().iter().filter_map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn used_states_are_kept_until_they_expire() {
        let store = Store::in_memory().await.unwrap();
        let valid = UsedState { nonce: [1; 12], until: u64::from(u32::MAX) };
        let expired = UsedState { nonce: [2; 12], until: 1 };
        store.keep_used(&[valid, expired]).await;
        store.keep_used(&[valid]).await;
        assert_eq!(store.used().await, [valid]);
        let rows = sqlx::query("SELECT * FROM used_state").fetch_all(&store.pool).await.unwrap();
        assert_eq!(rows.len(), 1, "what has expired takes no place");
    }
}
