//! Who asks?
//!
//! A request says it with a token, and each request anew: no session and no handle stands for it.
//! What was verified is remembered for a while, so that most requests cost one look into a table.
//! There is no answer that means "nobody, go on": where identity is configured, a request without
//! a good token is refused, unless strangers are let in, and then it is a stranger's.
//! (2026-07-28 "Authorization"; RFC 6750; RFC 9728.)

use std::{
    net::IpAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use dashmap::DashMap;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod issuer; // where its keys come from
mod keys; //   of one issuer
mod token; //  believed or not

pub use issuer::Settings as IssuerSettings;

use crate::call::{Caller, Denied, Identity};
use issuer::{Issuer, Unavailable};
use token::{Claims, LEEWAY, Unverified};

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
    /// Are requests without a token let in, as strangers that are told apart by their address?
    pub anonymous: bool,
}

/// Verified tokens that are remembered.
const REMEMBERED: usize = 20_000;
/// How long, in seconds: then the key may be none of its issuer's any more.
const AGAIN: u64 = 300;

/// Knows callers by their tokens.
#[derive(Debug)]
pub struct Identify {
    audience: String,
    resource: String,
    scopes: Vec<String>,
    issuers: Vec<Issuer>,
    anonymous: bool,
    http: reqwest::Client,
    /// By the whole token, with until when that holds.
    remembered: DashMap<Box<str>, (Arc<Identity>, u64)>,
}

impl Identify {
    /// None where nothing is configured. Reads key files, and connects nowhere.
    pub fn new(settings: &Settings) -> Result<Option<Self>, Vec<String>> {
        let Settings { audience, resource, scopes, issuer, anonymous } = settings;
        if *settings == Settings::default() {
            return Ok(None);
        }
        let mut faults = Vec::new();
        if issuer.is_empty() && !anonymous {
            faults.push("nobody could come in: add an [[identify.issuer]], or `anonymous = true`".to_owned());
        }
        if audience.as_deref().unwrap_or_default().is_empty() && !issuer.is_empty() {
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
        let mut issuers: Vec<Issuer> = Vec::new();
        for settings in issuer {
            match Issuer::new(settings) {
                Ok(one) if issuers.iter().any(|other| other.name == one.name) => {
                    faults.push(format!("the issuer {:?} stands there twice", one.name));
                }
                Ok(one) => issuers.push(one),
                Err(why) => faults.push(why),
            }
        }
        match issuer::http() {
            Ok(http) if faults.is_empty() => {
                let audience = audience.clone().unwrap_or_default();
                let resource = resource.clone().unwrap_or_else(|| audience.clone());
                let (scopes, anonymous, remembered) = (scopes.clone(), *anonymous, DashMap::new());
                Ok(Some(Self { audience, resource, scopes, issuers, anonymous, http, remembered }))
            }
            Ok(_) => Err(faults),
            Err(why) => Err(vec![why]),
        }
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
        let name = unverified.issuer().map_err(refused)?;
        let issuer = self.issuers.iter().find(|issuer| issuer.name == name);
        let issuer = issuer.ok_or_else(|| refused("its issuer is not one of ours"))?;
        let keys = issuer.keys(&self.http, unverified.key_id.as_deref(), unverified.algorithm).await;
        let keys = keys.map_err(|Unavailable| Denied::Unavailable)?;
        let claims = unverified.verify(&keys, &self.audience, now).map_err(refused)?;
        let expires = claims.expires;
        let identity = Arc::new(identity(claims, &issuer.groups));
        if self.remembered.len() >= REMEMBERED {
            self.remembered.retain(|_, (_, until)| *until > now);
        }
        if self.remembered.len() < REMEMBERED {
            let until = (expires + LEEWAY).min(now + AGAIN);
            self.remembered.insert(token.into(), (Arc::clone(&identity), until));
        }
        Ok(identity)
    }
}

impl crate::call::Identify for Identify {
    fn known(&self, authorization: Option<&[u8]>, peer: Option<IpAddr>) -> Option<Result<Caller, Denied>> {
        let Some(authorization) = authorization else {
            let stranger = self.anonymous.then_some(peer).flatten().map(Caller::Stranger);
            return Some(stranger.ok_or(Denied::Missing));
        };
        let Some(token) = bearer(authorization) else { return Some(Err(Denied::Invalid)) };
        let remembered = self.remembered.get(token)?;
        let (identity, until) = &*remembered;
        (*until > now()).then(|| Ok(Caller::Known(Arc::clone(identity))))
    }

    fn ask<'a>(&'a self, authorization: &'a [u8]) -> BoxFuture<'a, Result<Caller, Denied>> {
        Box::pin(async move {
            let token = bearer(authorization).ok_or(Denied::Invalid)?;
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
    let (scheme, token) = std::str::from_utf8(authorization).ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && token.bytes().all(|byte| byte.is_ascii_graphic()))
        .then_some(token)
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
