//! What has the gateway to prove itself with at servers?
//!
//! Texts that were sealed before they came here: the database alone gives nobody a token.

use sqlx::{Row as _, sqlite::SqliteRow};

use super::{Error, Store};

/// One caller's account at one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedAccount {
    pub backend: String,
    pub caller: String,
    pub sealed: Vec<u8>,
}

impl Store {
    /// All accounts that were kept.
    pub async fn accounts(&self) -> Vec<SealedAccount> {
        let rows = sqlx::query("SELECT backend, caller, sealed FROM account").fetch_all(&self.pool).await;
        let rows = rows.inspect_err(|why| tracing::warn!(%why, "accounts of earlier cannot be read"));
        let account = |row: &SqliteRow| {
            Some(SealedAccount {
                backend: row.try_get("backend").ok()?,
                caller: row.try_get("caller").ok()?,
                sealed: row.try_get("sealed").ok()?,
            })
        };
        rows.unwrap_or_default().iter().filter_map(account).collect()
    }

    /// Keeps an account in place of an earlier one; it is on disk when this is done.
    pub async fn keep_account(&self, account: &SealedAccount) -> Result<(), Error> {
        let kept = sqlx::query(
            "INSERT INTO account (backend, caller, sealed) VALUES ($1, $2, $3)
             ON CONFLICT (backend, caller) DO UPDATE SET sealed = $3, saved_at = unixepoch()",
        )
        .bind(&account.backend)
        .bind(&account.caller)
        .bind(&account.sealed)
        .execute(&self.pool)
        .await;
        kept.map(drop).map_err(|why| Error { file: "of accounts".into(), why: why.to_string() })
    }

    pub async fn forget_account(&self, backend: &str, caller: &str) {
        let forgotten = sqlx::query("DELETE FROM account WHERE backend = $1 AND caller = $2");
        if let Err(why) = forgotten.bind(backend).bind(caller).execute(&self.pool).await {
            tracing::warn!(%why, "an account cannot be forgotten");
        }
    }

    /// As what the gateway is registered with an issuer.
    pub async fn registration(&self, issuer: &str) -> Option<Vec<u8>> {
        let row = sqlx::query("SELECT sealed FROM registration WHERE issuer = $1").bind(issuer);
        let row = row.fetch_optional(&self.pool).await;
        let row = row.inspect_err(|why| tracing::warn!(%why, "a registration cannot be read"));
        row.ok()??.try_get("sealed").ok()
    }

    pub async fn keep_registration(&self, issuer: &str, sealed: &[u8]) {
        let kept = sqlx::query(
            "INSERT INTO registration (issuer, sealed) VALUES ($1, $2)
             ON CONFLICT (issuer) DO UPDATE SET sealed = $2, saved_at = unixepoch()",
        );
        if let Err(why) = kept.bind(issuer).bind(sealed).execute(&self.pool).await {
            tracing::warn!(%why, "a registration cannot be kept; the gateway registers anew after a restart");
        }
    }

    pub async fn forget_registration(&self, issuer: &str) {
        let forgotten = sqlx::query("DELETE FROM registration WHERE issuer = $1").bind(issuer);
        if let Err(why) = forgotten.execute(&self.pool).await {
            tracing::warn!(%why, "a registration cannot be forgotten");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_caller_has_one_account_at_a_backend() {
        let store = Store::in_memory().await.unwrap();
        let account = |caller: &str, sealed: &[u8]| SealedAccount {
            backend: "issues".into(),
            caller: caller.into(),
            sealed: sealed.into(),
        };
        for one in [account("ada", b"1"), account("bob", b"2"), account("ada", b"3")] {
            store.keep_account(&one).await.unwrap();
        }
        store.forget_account("issues", "bob").await;
        assert_eq!(store.accounts().await, [account("ada", b"3")]);
    }

    #[tokio::test]
    async fn a_registration_is_kept_by_its_issuer() {
        let store = Store::in_memory().await.unwrap();
        store.keep_registration("https://a.example", b"1").await;
        store.keep_registration("https://a.example", b"2").await;
        assert_eq!(store.registration("https://a.example").await.as_deref(), Some(&b"2"[..]));
        assert_eq!(store.registration("https://b.example").await, None);
        store.forget_registration("https://a.example").await;
        assert_eq!(store.registration("https://a.example").await, None);
    }
}
