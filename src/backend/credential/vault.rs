//! How are tokens kept, so that the database alone gives nobody one?
//!
//! Sealed with a key that the store made for this, and bound to whom and what they are for: a row
//! that is put in another's place opens for nobody.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, hmac,
};
use rmcp::transport::auth::{AuthorizationMetadata, StoredCredentials};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::store::{SealedAccount, Store};

/// What a caller has consented to.
#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    /// Who gave the tokens. They are shown to nobody else but the server they are for.
    pub issuer: String,
    /// What they are for, as the server calls itself.
    pub resource: String,
    pub metadata: AuthorizationMetadata,
    pub client: Client,
    pub tokens: StoredCredentials,
    /// What was asked for, whether it was granted or not.
    pub scopes: Vec<String>,
}

/// As what the gateway is known to an issuer.
#[derive(Clone, Serialize, Deserialize)]
pub struct Client {
    pub id: String,
    pub secret: Option<String>,
}

/// Keeps what must not be read.
pub struct Vault {
    key: LessSafeKey,
    store: Store,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault") // It holds a key.
    }
}

impl Vault {
    /// `secret` stays the same over restarts.
    pub fn new(secret: &[u8], store: Store) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = hmac::sign(&secret, b"waystation credentials 1");
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref())
            .expect("an HMAC-SHA256 is 32 bytes, as AES-256 has keys");
        Self { key: LessSafeKey::new(key), store }
    }

    /// All accounts that can be opened: backend, caller, record.
    pub async fn accounts(&self) -> Vec<(String, String, Record)> {
        let all = self.store.accounts().await.into_iter();
        let opened = all.filter_map(|SealedAccount { backend, caller, sealed }| {
            let record = self.open(&["account", &backend, &caller], sealed);
            if record.is_none() {
                tracing::warn!(backend, "an account cannot be opened; its caller has to connect it again");
            }
            Some((backend, caller, record?))
        });
        opened.collect()
    }

    pub async fn keep(&self, backend: &str, caller: &str, record: &Record) {
        let Some(sealed) = self.seal(&["account", backend, caller], record) else { return };
        let account = SealedAccount { backend: backend.to_owned(), caller: caller.to_owned(), sealed };
        if let Err(why) = self.store.keep_account(&account).await {
            tracing::warn!(backend, %why, "an account cannot be kept; its caller connects it again after a restart");
        }
    }

    pub async fn forget(&self, backend: &str, caller: &str) {
        self.store.forget_account(backend, caller).await;
    }

    /// As what the gateway was registered with an issuer, for browsers that come back to this address.
    pub async fn client(&self, issuer: &str, redirect: &str) -> Option<Client> {
        let sealed = self.store.registration(issuer).await?;
        self.open(&["registration", issuer, redirect], sealed)
    }

    pub async fn keep_client(&self, issuer: &str, redirect: &str, client: &Client) {
        if let Some(sealed) = self.seal(&["registration", issuer, redirect], client) {
            self.store.keep_registration(issuer, &sealed).await;
        }
    }

    pub async fn forget_client(&self, issuer: &str) {
        self.store.forget_registration(issuer).await;
    }

    fn seal(&self, bound: &[&str], value: &impl Serialize) -> Option<Vec<u8>> {
        let mut text = serde_json::to_vec(value).ok()?;
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let to_seal = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(to_seal, aad(bound), &mut text).ok()?;
        Some([&nonce[..], &text].concat())
    }

    fn open<T: DeserializeOwned>(&self, bound: &[&str], mut sealed: Vec<u8>) -> Option<T> {
        let (nonce, text) = sealed.split_first_chunk_mut::<NONCE_LEN>()?;
        let text = self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad(bound), text).ok()?;
        serde_json::from_slice(text).ok()
    }
}

fn aad(bound: &[&str]) -> Aad<digest::Digest> {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in bound {
        // Each part ends where its length says, so no two rows of parts read alike.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    Aad::from(context.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_opens_for_whom_it_was_kept_and_is_not_to_be_read() {
        let store = Store::in_memory().await.unwrap();
        let vault = Vault::new(b"secret", store.clone());
        let client = Client { id: "me".into(), secret: Some("hush".into()) };
        vault.keep_client("https://a.example", "https://me/back", &client).await;
        let sealed = store.registration("https://a.example").await.unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"hush"));
        assert!(vault.client("https://a.example", "https://me/back").await.is_some());
        assert!(vault.client("https://a.example", "https://other/back").await.is_none());
        let other = Vault::new(b"other", store.clone());
        assert!(other.client("https://a.example", "https://me/back").await.is_none());
        // A row in another's place.
        store.keep_registration("https://b.example", &sealed).await;
        assert!(vault.client("https://b.example", "https://me/back").await.is_none());
    }
}
