//! How does the gateway get a token for an account of its own?
//!
//! From the issuer that is written down, with a secret or a key (client credentials). The first
//! request goes without, since only then the server says what it wants.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use tokio::time::{Duration, Instant};
use url::Url;

use super::{
    Credential, Refusal, bearer,
    flow::{self, Secret, Terms},
    token::{Endpoint, Key, Token},
};
use crate::backend::transport::{Kind, Trouble};

/// Before its end a token is replaced.
const AHEAD: Duration = Duration::from_secs(60);
/// Seconds for which a token is used, however long it lasts.
const LONGEST: u64 = 30 * 24 * 60 * 60;

/// An account of the gateway's.
pub struct Machine {
    terms: Terms,
    /// A private key as PEM, where there is no secret.
    key: Option<Key>,
    held: ArcSwapOption<Held>,
    fetching: tokio::sync::Mutex<()>,
    /// What the server said that it wants.
    wanted: Mutex<Wanted>,
}

#[derive(Debug, Clone, Default)]
struct Wanted {
    challenge: Option<String>,
    scopes: Vec<String>,
}

struct Held {
    proof: HeaderValue,
    until: Option<Instant>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("terms", &self.terms).finish_non_exhaustive()
    }
}

impl Machine {
    pub fn new(terms: Terms, key: Option<Secret>) -> Result<Self, String> {
        let key = key.as_ref().map(Key::read).transpose()?;
        let (held, fetching, wanted) = Default::default();
        Ok(Self { terms, key, held, fetching, wanted })
    }

    fn wanted(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.wanted.lock().expect("no code panics while it holds this lock")
    }

    /// A token, unless somebody else has fetched one in place of this meanwhile.
    async fn fetch(&self, instead_of: Option<&HeaderValue>) -> Result<(), Trouble> {
        let _turn = self.fetching.lock().await;
        if self.held.load().as_ref().is_some_and(|held| held.is_fresh() && Some(&held.proof) != instead_of) {
            return Ok(());
        }
        let wanted = self.wanted().clone();
        match self.token(&wanted).await {
            Ok(held) => {
                self.held.store(Some(Arc::new(held)));
                Ok(())
            }
            Err(why) => {
                tracing::warn!(server = %self.terms.server.host_str().unwrap_or_default(), %why, "no token for the gateway");
                Err(Trouble::new(Kind::NotSent, format!("the gateway gets no token for it: {why}")))
            }
        }
    }

    async fn token(&self, wanted: &Wanted) -> Result<Held, String> {
        let (manager, metadata, issuer) = flow::discovered(&self.terms, wanted.challenge.as_deref()).await?;
        let mut scopes = manager.select_initial_scopes(&[]).await;
        // It is for people who are away.
        scopes.retain(|scope| scope != "offline_access");
        for scope in self.terms.scopes.iter().chain(&wanted.scopes) {
            if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        let scopes = scopes.join(" ");
        let mut form = vec![("grant_type", "client_credentials"), ("resource", self.terms.server.as_str())];
        if !scopes.is_empty() {
            form.push(("scope", &scopes));
        }
        let methods = metadata.additional_fields.get("token_endpoint_auth_methods_supported");
        let endpoint = Endpoint {
            issuer,
            address: Url::parse(&metadata.token_endpoint).map_err(|why| why.to_string())?,
            methods: methods.and_then(|methods| serde_json::from_value(methods.clone()).ok()),
        };
        let Token { text, lifetime } = endpoint.ask(&self.terms, self.key.as_ref(), &form).await?;
        let until = lifetime.map(|seconds| Instant::now() + Duration::from_secs(seconds.min(LONGEST)));
        Ok(Held { proof: bearer(&text)?, until })
    }
}

impl Held {
    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| until > Instant::now() + AHEAD)
    }
}

impl Credential for Machine {
    fn proof(&self) -> BoxFuture<'_, Result<Option<HeaderValue>, Trouble>> {
        Box::pin(async {
            let old =
                self.held.load().as_ref().filter(|held| !held.is_fresh()).map(|held| held.proof.clone());
            if old.is_some() {
                self.fetch(old.as_ref()).await?;
            }
            Ok(self.held.load().as_ref().map(|held| held.proof.clone()))
        })
    }

    fn refused<'a>(&'a self, refusal: &'a Refusal) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async {
            let more = refusal.wants(&self.terms.server);
            if refusal.again || (refusal.status != 401 && more.is_none()) {
                return Err(refusal.trouble("the gateway's own account"));
            }
            {
                let mut wanted = self.wanted();
                wanted.challenge.clone_from(&refusal.challenge);
                for scope in more.into_iter().flatten() {
                    if !wanted.scopes.contains(&scope) {
                        wanted.scopes.push(scope);
                    }
                }
            }
            self.fetch(refusal.sent.as_ref()).await
        })
    }

    fn edition(&self) -> u64 {
        0
    }
}
