//! What did backends learn of the models behind them?

use sqlx::{Row as _, sqlite::SqliteRow};

use super::Store;

impl Store {
    /// What a backend has learned, by model.
    pub async fn learned(&self, backend: &str) -> Vec<(String, String)> {
        let rows = sqlx::query("SELECT model, content FROM learned WHERE backend = $1").bind(backend);
        let rows = rows.fetch_all(&self.pool).await;
        let rows = rows.inspect_err(|why| tracing::warn!(backend, %why, "what was learned cannot be read"));
        let pair = |row: &SqliteRow| Some((row.try_get("model").ok()?, row.try_get("content").ok()?));
        rows.unwrap_or_default().iter().filter_map(pair).collect()
    }

    /// Keeps what a backend has learned of some models, in place of what was kept of them.
    pub async fn keep_learned(&self, backend: &str, learned: &[(String, String)]) {
        let kept = async {
            let mut transaction = self.pool.begin().await?;
            for (model, content) in learned {
                let keep = sqlx::query(
                    "INSERT INTO learned (backend, model, content) VALUES ($1, $2, $3)
                     ON CONFLICT (backend, model) DO UPDATE SET content = $3",
                );
                keep.bind(backend).bind(model).bind(content).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        if let Err(why) = kept.await {
            tracing::warn!(backend, %why, "what was learned cannot be kept; it is learned anew after a restart");
        }
    }
}
