//! Who asks?
//!
//! A request says it with a token of an issuer's, or with a key of the gateway's own, and each
//! request anew: no session and no handle stands for it. What was verified is remembered for a
//! while, so that most requests cost one look into a table. There is no answer that means "nobody,
//! go on": where identity is configured, a request without a good token is refused, unless strangers
//! are let in, and then it is a stranger's. (2026-07-28 "Authorization"; RFC 6750; RFC 9728.)

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use dashmap::DashMap;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod discovery; // where its keys are
mod held; //      keys that the gateway gave out itself
mod issuer; //    how fresh its keys are
mod keys; //      of one issuer
mod token; //     believed or not

pub use issuer::Settings as IssuerSettings;

use crate::{
    call::{Caller, Denied, Identity},
    store::Store,
    weaken::is,
};
use held::Held;
use issuer::{Edition, Issuer, Unavailable};
use token::{Claims, LEEWAY, LONGEST, Unverified};

/// `[identify]`: who may come in. Without this table everybody who can reach the gateway may, and
/// then only loopback addresses are listened on.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What stands in the `aud` of tokens that are meant for this gateway: the address by which
    /// clients reach it, such as `https://mcp.example.com/mcp`.
    pub audience: Option<String>,
    /// The address by which clients reach the gateway, where its issuer calls it something else in
    /// the `aud` of tokens. What `audience` says by default.
    pub resource: Option<String>,
    /// The scopes that clients are to ask the issuer for; some issuers give no token without.
    pub scopes: Vec<String>,
    /// Who issues tokens.
    pub issuer: Vec<IssuerSettings>,
    /// Are keys taken that were made with `waystation key new`? They are kept in the database, as
    /// digests. Rules know their callers by the issuer `waystation` and the key's name as subject.
    pub keys: bool,
    /// Are requests without a token let in, as strangers that are told apart by their address?
    pub anonymous: bool,
}

/// Verified tokens that are remembered.
const REMEMBERED: usize = 20_000;

/// Knows callers by their tokens.
#[derive(Debug)]
pub struct Identify {
    audience: String,
    resource: String,
    scopes: Vec<String>,
    issuers: Vec<Arc<Issuer>>,
    takes_keys: bool,
    /// None until the store is open.
    held: Option<Arc<Held>>,
    anonymous: bool,
    http: reqwest::Client,
    /// By the whole token.
    remembered: DashMap<Box<str>, Verified, foldhash::fast::RandomState>,
    /// When those that hold no more were last taken out, in seconds since 1970.
    swept: AtomicU64,
}

/// Whom a token was found to be of.
#[derive(Debug)]
struct Verified {
    identity: Arc<Identity>,
    /// Seconds since 1970.
    until: u64,
    issuer: Arc<Issuer>,
    /// Of the keys it was verified with: in another edition its key may be missing.
    edition: Edition,
}

impl Identify {
    /// None where nothing is configured. Reads key files, and connects nowhere.
    pub fn new(settings: &Settings) -> Result<Option<Self>, Vec<String>> {
        let Settings { audience, resource, scopes, issuer, keys, anonymous } = settings;
        if *settings == Settings::default() {
            return Ok(None);
        }
        let mut faults = Vec::new();
        if issuer.is_empty() && !anonymous && !keys {
            faults.push(
                "nobody could come in; add an [[identify.issuer]], `keys = true` or `anonymous = true`"
                    .to_owned(),
            );
        }
        if audience.as_deref().unwrap_or_default().is_empty() && !issuer.is_empty() && !is("defaults-open") {
            faults.push(
                "`audience` is missing, so tokens made for other services would be taken; write the address that \
                 clients use for this gateway, such as https://mcp.example.com/mcp"
                    .to_owned(),
            );
        }
        if resource.as_ref().is_some_and(|address| !is_address(address)) {
            faults.push(
                "`resource` is no address; write the one that clients use, such as https://mcp.example.com/mcp"
                    .to_owned(),
            );
        }
        // They stand in a header, in quotes and between spaces.
        if scopes.iter().any(|one| one.is_empty() || !one.bytes().all(is_of_scope)) {
            faults.push(
                "one of `scopes` is none; write visible letters without spaces, quotes and backslashes, such as \
                 \"tools.read\""
                    .to_owned(),
            );
        }
        let mut issuers: Vec<Arc<Issuer>> = Vec::new();
        for settings in issuer {
            match Issuer::new(settings) {
                Ok(one) if issuers.iter().any(|other| other.name == one.name) => {
                    faults
                        .push(format!("the issuer {:?} stands there twice; leave one of them out", one.name));
                }
                Ok(one) if one.name == held::ISSUER => faults.push(format!(
                    "the issuer {:?} has the name of the gateway's own keys; have it sign as another",
                    one.name
                )),
                Ok(one) => issuers.push(Arc::new(one)),
                Err(why) => faults.push(why),
            }
        }
        match discovery::http() {
            Ok(http) if faults.is_empty() => Ok(Some(Self {
                audience: audience.clone().unwrap_or_default(),
                resource: resource.as_ref().or(audience.as_ref()).cloned().unwrap_or_default(),
                scopes: scopes.clone(),
                issuers,
                takes_keys: *keys,
                held: None,
                anonymous: *anonymous,
                http,
                remembered: DashMap::default(),
                swept: AtomicU64::new(0),
            })),
            Ok(_) => Err(faults),
            Err(why) => Err(vec![why]),
        }
    }

    /// Ready to be asked. What was known of issuers before goes on; keys in files and in the store
    /// are as they are now.
    pub async fn start(mut self, store: &Store, before: Option<&Self>) -> Self {
        for issuer in &mut self.issuers {
            let earlier = before.into_iter().flat_map(|before| &before.issuers);
            let mut earlier = earlier.filter(|earlier| earlier.goes_on());
            if let Some(same) = earlier.find(|earlier| earlier.settings == issuer.settings) {
                *issuer = Arc::clone(same);
            }
        }
        if self.takes_keys {
            self.held = Some(Held::start(store).await);
        }
        self
    }

    /// Whom clients are to ask for a token.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(|issuer| &*issuer.name)
    }

    pub fn lets_strangers_in(&self) -> bool {
        self.anonymous
    }

    /// What tokens must be issued for.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The address that clients use.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The scopes that clients are to ask for.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    async fn verified(&self, token: &str, now: u64) -> Result<Arc<Identity>, Denied> {
        let refused = |why| {
            tracing::debug!(why, "a token was refused");
            Denied::Invalid
        };
        let unverified = Unverified::read(token).map_err(refused)?;
        let issuer = self.issuer_of(&unverified).ok_or_else(|| refused("its issuer is not one of ours"))?;
        let (key, algorithm) = (unverified.key_id.clone(), unverified.algorithm);
        let plausible = unverified.plausible(&self.audience, now).map_err(refused)?;
        let known = issuer.keys(&self.http, key.as_deref(), algorithm).await;
        let known = known.map_err(|Unavailable| Denied::Unavailable)?;
        let claims = plausible.verify(&known.keys).map_err(refused)?;
        if is("identify-nobody") {
            return Err(Denied::Invalid);
        }
        let until = claims.expires + LEEWAY;
        let identity = Arc::new(identity(claims, &issuer.groups));
        if self.remembered.len() >= REMEMBERED && self.swept.swap(now, Ordering::Relaxed) != now {
            self.remembered.retain(|_, one| one.holds(now));
        }
        if self.remembered.len() < REMEMBERED {
            let (identity, issuer) = (Arc::clone(&identity), Arc::clone(issuer));
            self.remembered
                .insert(token.into(), Verified { identity, until, issuer, edition: known.edition });
        }
        Ok(identity)
    }

    fn issuer_of(&self, token: &Unverified<'_>) -> Option<&Arc<Issuer>> {
        let name = token.issuer().unwrap_or_default();
        let issuer = self.issuers.iter().find(|issuer| issuer.name == name);
        if is("identify-issuer") { issuer.or(self.issuers.first()) } else { issuer }
    }
}

impl Verified {
    fn holds(&self, now: u64) -> bool {
        self.until > now && self.issuer.stands_by(&self.edition)
    }
}

impl crate::call::Identify for Identify {
    fn known(&self, authorization: Option<&[u8]>, peer: Option<IpAddr>) -> Option<Result<Caller, Denied>> {
        let Some(authorization) = authorization else {
            let stranger = self.anonymous.then_some(peer).flatten().map(Caller::Stranger);
            return Some(stranger.ok_or(Denied::Missing));
        };
        let Some(token) = bearer(authorization) else { return Some(Err(Denied::Invalid)) };
        // One that is remembered was looked at letter by letter before.
        if let Some(remembered) = self.remembered.get(token) {
            return remembered.holds(now()).then(|| Ok(Caller::Known(Arc::clone(&remembered.identity))));
        }
        if !is_visible(token) {
            return Some(Err(Denied::Invalid));
        }
        if !held::is_key(token) {
            return None;
        }
        let caller = self.held.as_ref().and_then(|held| held.find(token, now()));
        Some(caller.map(Caller::Known).ok_or(Denied::Invalid))
    }

    fn ask<'a>(&'a self, authorization: &'a [u8]) -> BoxFuture<'a, Result<Caller, Denied>> {
        Box::pin(async move {
            let token = bearer(authorization).filter(|token| is_visible(token)).ok_or(Denied::Invalid)?;
            self.verified(token, now()).await.map(Caller::Known)
        })
    }
}

fn is_address(text: &str) -> bool {
    let url = reqwest::Url::parse(text);
    url.is_ok_and(|url| url.has_host() && matches!(url.scheme(), "http" | "https"))
}

/// May this byte stand in a scope (RFC 6749, section 3.3)?
fn is_of_scope(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')
}

/// The token of an `Authorization` header.
fn bearer(authorization: &[u8]) -> Option<&str> {
    const SCHEME: &str = "Bearer ";
    // Before anything else, so that one that is too long costs nothing.
    if authorization.len() > LONGEST + SCHEME.len() && !is("identify-length") {
        return None;
    }
    let (scheme, token) = authorization.split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME.as_bytes());
    std::str::from_utf8(token).ok().filter(|_| is_bearer)
}

/// Has it only letters that a token can have?
fn is_visible(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn identity(claims: Claims, groups: &str) -> Identity {
    let groups = match claims.all.get(groups) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => all.iter().filter_map(|one| Some(one.as_str()?.to_owned())).collect(),
        _ => Vec::new(),
    };
    let Claims { issuer, subject, scopes, all, .. } = claims;
    Identity { issuer, subject, groups, scopes, claims: all }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
