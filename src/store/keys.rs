//! Which keys were given out to callers?
//!
//! What is kept of a key is its digest. A key is 256 random bits, so a plain digest is enough: there
//! is nothing to guess that a slower one would protect. Each gateway that has the same file open
//! hears of changes that another process makes.

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Error, Store};

/// What each key begins with, so that people and scanners know one when they see it.
pub const KEY_PREFIX: &str = "ws_";

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerKey {
    pub name: String,
    pub groups: Vec<String>,
    pub scopes: Vec<String>,
    /// Seconds since 1970.
    pub made_at: i64,
    /// Seconds since 1970; none if it does not expire.
    pub expires_at: Option<i64>,
}

pub type Digest = [u8; 32];

/// What is kept in place of a key.
pub fn digest_of(key: &str) -> Digest {
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

impl Store {
    /// Makes a key and keeps its digest. The key is in nobody's hands but the caller's then. None if
    /// there is one of that name already.
    pub async fn new_caller_key(&self, key: &CallerKey) -> Result<Option<String>, Error> {
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(|why| error(&why))?;
        let text = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let CallerKey { name, groups, scopes, made_at, expires_at } = key;
        let made = sqlx::query(
            "INSERT INTO caller_key (name, digest, groups, scopes, made_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING",
        )
        .bind(name)
        .bind(&digest_of(&text)[..])
        .bind(list(groups))
        .bind(list(scopes))
        .bind(made_at)
        .bind(expires_at)
        .execute(&self.pool)
        .await
        .map_err(|why| error(&why))?;
        Ok((made.rows_affected() == 1).then_some(text))
    }

    /// Forgets a key. Was there one of that name?
    pub async fn revoke_caller_key(&self, name: &str) -> Result<bool, Error> {
        let revoked = sqlx::query("DELETE FROM caller_key WHERE name = $1").bind(name);
        let revoked = revoked.execute(&self.pool).await.map_err(|why| error(&why))?;
        Ok(revoked.rows_affected() == 1)
    }

    /// All keys, by their names in order.
    pub async fn caller_keys(&self) -> Result<Vec<(Digest, CallerKey)>, Error> {
        let rows = sqlx::query("SELECT * FROM caller_key ORDER BY name").fetch_all(&self.reader).await;
        let rows = rows.map_err(|why| error(&why))?;
        rows.iter().map(|row| read(row).map_err(|why| error(&why))).collect()
    }

    /// A number that differs when somebody else has changed the file. It holds for one connection,
    /// of which the store has no more for reading.
    pub async fn version(&self) -> Result<i64, Error> {
        let row = sqlx::query("PRAGMA data_version").fetch_one(&self.reader).await;
        row.and_then(|row| row.try_get(0)).map_err(|why| error(&why))
    }

    pub fn is_closed(&self) -> bool {
        self.pool.is_closed()
    }
}

fn read(row: &SqliteRow) -> Result<(Digest, CallerKey), sqlx::Error> {
    let bad = |what: &str| sqlx::Error::Decode(format!("{what} is not as it was written").into());
    let texts = |column: &str| -> Result<Vec<String>, sqlx::Error> {
        serde_json::from_str(row.try_get(column)?).map_err(|_| bad(column))
    };
    let digest: Vec<u8> = row.try_get("digest")?;
    let key = CallerKey {
        name: row.try_get("name")?,
        groups: texts("groups")?,
        scopes: texts("scopes")?,
        made_at: row.try_get("made_at")?,
        expires_at: row.try_get("expires_at")?,
    };
    Ok((digest.try_into().map_err(|_| bad("digest"))?, key))
}

fn list(texts: &[String]) -> String {
    serde_json::json!(texts).to_string()
}

fn error(why: &dyn std::fmt::Display) -> Error {
    Error { file: "of callers' keys".into(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Settings;

    #[tokio::test]
    async fn a_key_is_kept_as_its_digest_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { path: Some(folder.path().join("a.db")) };
        let (store, other) = (Store::open(&settings).await.unwrap(), Store::open(&settings).await.unwrap());
        let of = |name: &str| CallerKey {
            name: name.into(),
            groups: vec!["ops".into()],
            scopes: Vec::new(),
            made_at: 5,
            expires_at: Some(9),
        };
        let before = store.version().await.unwrap();
        let key = other.new_caller_key(&of("ci")).await.unwrap().expect("the first of its name");
        assert!(key.starts_with("ws_") && key.len() == 46, "{key}");
        assert_eq!(other.new_caller_key(&of("ci")).await.unwrap(), None);
        assert_ne!(store.version().await.unwrap(), before, "another process's change is noticed");
        assert_eq!(store.caller_keys().await.unwrap(), [(digest_of(&key), of("ci"))]);
        let file = std::fs::read(folder.path().join("a.db-wal")).unwrap();
        assert!(
            !file.windows(40).any(|part| part == &key.as_bytes()[3..43]),
            "the key itself is not on disk"
        );
        assert!(store.revoke_caller_key("ci").await.unwrap());
        assert!(!other.revoke_caller_key("ci").await.unwrap());
        assert_eq!(other.caller_keys().await.unwrap(), []);
    }
}
