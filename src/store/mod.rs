//! The only door to the disk: the last known catalog, and what must outlive a restart.
//!
//! One SQLite file in WAL mode. Nothing else in the gateway knows SQL.

use std::{
    fs::File,
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{
    Row as _, SqlSafeStr, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub mod audit; // who did what
pub mod conversations; // with models: what was said, for whom, and what it cost
mod credentials; // what the gateway proves itself with, sealed
mod keys; //    of callers
mod learned; // of models, by asking them
mod quota; //   what callers have used today
mod streams; // what clients with sessions have missed
mod used; //    states that must not be used twice

pub use credentials::SealedAccount;
pub use keys::{CallerKey, Digest, KEY_PREFIX, digest_of};
pub use quota::Used;
pub use streams::{Change, Stream};
pub use used::UsedState;

use crate::weaken;

/// `[store]`: what the gateway keeps on disk, so that lists answer at once after a start.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The database file. By default `waystation/waystation.db` in `$XDG_STATE_HOME`, which is
    /// `~/.local/state` unless set. `":memory:"` keeps nothing.
    pub path: Option<PathBuf>,
}

impl Settings {
    /// Where the file is, with what is not said filled in.
    pub fn file(&self) -> PathBuf {
        let state = || std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let default = || state().or_else(home).unwrap_or_default().join("waystation/waystation.db");
        self.path.clone().unwrap_or_else(default)
    }
}

/// Waits until no other process makes tables in this folder. It is the folder that is locked: closing the
/// database would end SQLite's own locks on it. Where folders cannot be locked, nobody waits.
async fn turn(folder: &Path) -> Option<File> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = File::open(folder).ok()?;
    let locked = tokio::task::spawn_blocking(move || folder.lock().map(|()| folder)).await;
    locked.ok()?.ok()
}

/// Changes to the tables, in order; each is made once. (Listed here by hand: the macro that
/// would find them has SQLite compiled a second time, for itself.)
fn migrations() -> Migrator {
    const LIST: [(i64, &str, &str); 10] = [
        (1, "catalog and keys", include_str!("migrations/0001_catalog_and_keys.sql")),
        (2, "sessions", include_str!("migrations/0002_sessions.sql")),
        (3, "streams and used states", include_str!("migrations/0003_streams_and_used_states.sql")),
        (4, "tasks", include_str!("migrations/0004_tasks.sql")),
        (5, "keys of callers", include_str!("migrations/0005_keys_of_callers.sql")),
        (6, "quota", include_str!("migrations/0006_quota.sql")),
        (7, "credentials", include_str!("migrations/0007_credentials.sql")),
        (8, "audit", include_str!("migrations/0008_audit.sql")),
        (9, "conversations", include_str!("migrations/0009_conversations.sql")),
        (10, "learned and paths", include_str!("migrations/0010_learned_and_paths.sql")),
    ];
    let numbered = LIST.into_iter().map(|(number, name, sql)| {
        let sql = SqlSafeStr::into_sql_str(sql);
        Migration::new(number, name.into(), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(numbered.collect())
}

/// How many read at once what is in the file.
const READERS: u32 = 4;

#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
    /// For what must not wait until something is written: a disk can be slow.
    reader: SqlitePool,
    /// What is kept outlives the process.
    lasting: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the database {file}: {why}")]
pub struct Error {
    file: String,
    why: String,
}

impl Store {
    /// Opens the file, making it and its folder where they are missing.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        let file = settings.file();
        let error = |why: String| Error { file: file.display().to_string(), why };
        let memory = file.as_os_str() == ":memory:";
        if let Some(folder) = file.parent().filter(|_| !memory) {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.and_then(|()| private(&file)).map_err(|why| error(why.to_string()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What is deleted is overwritten.
            .pragma("secure_delete", "ON")
            .busy_timeout(Duration::from_secs(5));
        // One connection: SQLite has one writer, and a database in memory is the connection's.
        let one = || SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = one().connect_with(options).await.map_err(|why| error(why.to_string()))?;
        let turn = if memory { None } else { turn(file.parent().unwrap_or(Path::new("."))).await };
        migrations().run(&pool).await.map_err(|why| error(why.to_string()))?;
        drop(turn);
        let reader = if memory {
            pool.clone()
        } else {
            let options = SqliteConnectOptions::new().filename(&file).read_only(true);
            let options = options.busy_timeout(Duration::from_secs(5));
            let several = one().max_connections(READERS);
            several.connect_with(options).await.map_err(|why| error(why.to_string()))?
        };
        Ok(Self { pool, reader, lasting: !memory })
    }

    /// A store that keeps nothing, for when no file can be had.
    pub async fn in_memory() -> Result<Self, Error> {
        Self::open(&Settings { path: Some(":memory:".into()) }).await
    }

    /// What a backend offered when it was last asked, if it was the same backend then.
    pub async fn catalog(&self, backend: &str, fingerprint: &str) -> Option<String> {
        let row = sqlx::query("SELECT content FROM catalog WHERE backend = $1 AND fingerprint = $2")
            .bind(backend)
            .bind(fingerprint)
            .fetch_optional(&self.pool)
            .await;
        match row {
            Ok(row) => row.and_then(|row| row.try_get("content").ok()),
            Err(why) => {
                tracing::warn!(backend, %why, "the last known catalog cannot be read");
                None
            }
        }
    }

    /// Keeps what a backend offers.
    pub async fn keep_catalog(&self, backend: &str, fingerprint: &str, content: &str) {
        let kept = sqlx::query(
            "INSERT INTO catalog (backend, fingerprint, content) VALUES ($1, $2, $3)
             ON CONFLICT (backend) DO UPDATE SET fingerprint = $2, content = $3, saved_at = unixepoch()",
        )
        .bind(backend)
        .bind(fingerprint)
        .bind(content)
        .execute(&self.pool)
        .await;
        if let Err(why) = kept {
            tracing::warn!(backend, %why, "the catalog cannot be kept");
        }
    }

    /// The sessions that were kept, each by its id.
    pub async fn sessions(&self) -> Vec<(String, String)> {
        let rows = sqlx::query("SELECT id, content FROM session").fetch_all(&self.pool).await;
        let rows = rows.inspect_err(|why| tracing::warn!(%why, "sessions of earlier cannot be read"));
        let pair =
            |row: &sqlx::sqlite::SqliteRow| Some((row.try_get("id").ok()?, row.try_get("content").ok()?));
        rows.unwrap_or_default().iter().filter_map(pair).collect()
    }

    /// Keeps sessions, and forgets those that come without content, all at once.
    pub async fn keep_sessions(&self, sessions: &[(String, Option<String>)]) {
        let kept = async {
            let mut transaction = self.pool.begin().await?;
            for (id, content) in sessions {
                let query = match content {
                    Some(content) => sqlx::query(
                        "INSERT INTO session (id, content) VALUES ($1, $2)
                         ON CONFLICT (id) DO UPDATE SET content = $2, saved_at = unixepoch()",
                    )
                    .bind(id)
                    .bind(content),
                    None => sqlx::query("DELETE FROM session WHERE id = $1").bind(id),
                };
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        if let Err(why) = kept.await {
            tracing::warn!(%why, "sessions cannot be kept; their clients begin anew after a restart");
        }
    }

    /// The tasks that were kept, each by its id.
    pub async fn tasks(&self) -> Vec<(String, String)> {
        let rows = sqlx::query("SELECT id, content FROM task").fetch_all(&self.pool).await;
        let rows = rows.inspect_err(|why| tracing::warn!(%why, "tasks of earlier cannot be read"));
        let pair =
            |row: &sqlx::sqlite::SqliteRow| Some((row.try_get("id").ok()?, row.try_get("content").ok()?));
        rows.unwrap_or_default().iter().filter_map(pair).collect()
    }

    /// Keeps the state of a task; it is on disk when this is done.
    pub async fn keep_task(&self, id: &str, content: &str) -> Result<(), Error> {
        let kept = sqlx::query(
            "INSERT INTO task (id, content) VALUES ($1, $2)
             ON CONFLICT (id) DO UPDATE SET content = $2, saved_at = unixepoch()",
        )
        .bind(id)
        .bind(content)
        .execute(&self.pool)
        .await;
        kept.map(drop).map_err(|why| Error { file: "of tasks".into(), why: why.to_string() })
    }

    pub async fn forget_task(&self, id: &str) {
        let forgotten = sqlx::query("DELETE FROM task WHERE id = $1").bind(id).execute(&self.pool).await;
        if let Err(why) = forgotten {
            tracing::warn!(%why, "a task cannot be forgotten");
        }
    }

    /// The key of this name: random, made once, the same after each restart.
    pub async fn key(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut fresh = [0u8; 32];
        let error = |why: &dyn std::fmt::Display| Error { file: "of keys".into(), why: why.to_string() };
        getrandom::fill(&mut fresh).map_err(|why| error(&why))?;
        let row = sqlx::query(
            "INSERT INTO key (name, value) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET name = name RETURNING value",
        )
        .bind(name)
        .bind(&fresh[..])
        .fetch_one(&self.pool)
        .await
        .map_err(|why| error(&why))?;
        row.try_get("value").map_err(|why| error(&why))
    }

    pub async fn close(&self) {
        self.reader.close().await;
        self.pool.close().await;
    }
}

/// The file holds keys; nobody but its owner may read it. What SQLite puts beside it gets the
/// permissions that the file has then, so this comes first.
fn private(file: &Path) -> io::Result<()> {
    let mode = if weaken::is("files-open") { 0o644 } else { 0o600 };
    let private = std::fs::Permissions::from_mode(mode);
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(mode).open(file)?;
    for beside in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(beside);
        if let Err(why) = std::fs::set_permissions(&name, private.clone())
            && why.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = ?name, %why, "the database's permissions cannot be narrowed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { path: Some(folder.path().join("deep/a.db")) };
        let store = Store::open(&settings).await.unwrap();
        let key = store.key("cursor").await.unwrap();
        store.keep_catalog("files", "f1", "{}").await;
        store.keep_catalog("files", "f1", "{\"a\":1}").await;
        store.keep_sessions(&[("a".into(), Some("{}".into())), ("b".into(), Some("{}".into()))]).await;
        store.keep_sessions(&[("a".into(), None), ("b".into(), Some("{\"c\":1}".into()))]).await;
        store.close().await;

        let store = Store::open(&settings).await.unwrap();
        assert_eq!(store.key("cursor").await.unwrap(), key);
        assert_eq!(store.catalog("files", "f1").await.as_deref(), Some("{\"a\":1}"));
        assert_eq!(store.catalog("files", "f2").await, None);
        assert_eq!(store.sessions().await, [("b".to_owned(), "{\"c\":1}".to_owned())]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_several_that_begin_at_once_one_makes_the_tables() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..4 {
            let settings = Settings { path: Some(folder.path().join(format!("{round}.db"))) };
            let opened = (0..4).map(|_| Store::open(&settings));
            for store in futures_util::future::join_all(opened).await {
                store.unwrap();
            }
        }
    }
}
