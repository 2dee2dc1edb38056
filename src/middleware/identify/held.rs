//! Whose is a key that the gateway gave out itself?
//!
//! The digests of all keys are held in memory, so that a request with a key costs no look at the
//! disk. They are read anew when the file says that another process has changed it, which is how
//! the command line's `waystation key revoke` comes to be obeyed within a second.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use serde_json::json;

use crate::{
    call::Identity,
    store::{self, CallerKey, Digest, KEY_PREFIX, Store, digest_of},
};

/// Who gives out such keys, as rules name it. No issuer of tokens may go by this name.
pub const ISSUER: &str = "waystation";
/// How often the file is asked whether it has changed.
const EVERY: Duration = Duration::from_millis(500);

/// All keys that are good.
#[derive(Debug, Default)]
pub struct Held(ArcSwap<HashMap<Digest, Key>>);

#[derive(Debug)]
struct Key {
    identity: Arc<Identity>,
    /// Seconds since 1970.
    expires: Option<u64>,
}

impl Held {
    /// Reads them, and reads them again whenever they change.
    pub async fn start(store: &Store) -> Arc<Self> {
        let held = Arc::new(Self::default());
        let mut seen = None;
        let failing = complained(held.look(store, &mut seen).await, false);
        tokio::spawn(watch(Arc::downgrade(&held), store.clone(), seen, failing));
        held
    }

    /// Whose key this is; nobody's if it was revoked or has expired.
    pub fn find(&self, key: &str, now: u64) -> Option<Arc<Identity>> {
        let keys = self.0.load();
        let key = keys.get(&digest_of(key))?;
        let good = key.expires.is_none_or(|expires| now < expires);
        good.then(|| Arc::clone(&key.identity))
    }

    /// Reads them if the file is another than was seen last.
    async fn look(&self, store: &Store, seen: &mut Option<i64>) -> Result<(), store::Error> {
        // First, so that what changes meanwhile is noticed the next time.
        let version = store.version().await?;
        if *seen != Some(version) {
            let keys = store.caller_keys().await?;
            let keys = keys.into_iter().map(|(digest, key)| (digest, Key::of(key)));
            self.0.store(Arc::new(keys.collect()));
            *seen = Some(version);
        }
        Ok(())
    }
}

impl Key {
    fn of(key: CallerKey) -> Self {
        let CallerKey { name, groups, scopes, made_at: _, expires_at } = key;
        let claims = json!({ "iss": ISSUER, "sub": name, "groups": groups, "scope": scopes.join(" ") });
        let claims = claims.as_object().cloned().unwrap_or_default();
        let identity = Identity { issuer: ISSUER.to_owned(), subject: name, groups, scopes, claims };
        let expires = expires_at.map(|at| u64::try_from(at).unwrap_or(0));
        Self { identity: Arc::new(identity), expires }
    }
}

/// Is this one of our own keys, by its looks?
pub fn is_key(text: &str) -> bool {
    text.starts_with(KEY_PREFIX)
}

/// Reads the keys again when another process has changed the file, as long as they are wanted.
async fn watch(held: Weak<Held>, store: Store, mut seen: Option<i64>, mut failing: bool) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(held) = held.upgrade().filter(|_| !store.is_closed()) else { return };
        failing = complained(held.look(&store, &mut seen).await, failing);
    }
}

/// Tells the log of a failure, once for those in a row. Is it one?
fn complained(looked: Result<(), store::Error>, failing: bool) -> bool {
    if let Err(why) = &looked
        && !failing
    {
        tracing::warn!(%why, "keys of callers cannot be read; those that are known hold");
    }
    looked.is_err()
}
