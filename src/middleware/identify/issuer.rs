//! Where do an issuer's keys come from, and how long do they hold?
//!
//! A set is fetched when it is first needed, again when it is old, and once more when a token
//! names a key that is not in it, though not more often than a cooldown allows: else anybody could
//! make us ask, with made-up tokens. When the issuer cannot be reached, known keys hold for a
//! while, and then nothing is accepted. (OpenID Connect Discovery 1.0; RFC 8414.)

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use jsonwebtoken::Algorithm;
use reqwest::{Client, Url, redirect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use super::keys::{Keys, LARGEST_SET};
use crate::{
    weaken,
    wire::json::{self, Limits},
};

/// A set this old is fetched again.
const FRESH: Duration = Duration::from_secs(300);
/// The least time between two fetches.
const COOLDOWN: Duration = Duration::from_secs(30);
/// How long known keys hold while the issuer cannot be reached.
const STALE: Duration = Duration::from_secs(60 * 60);
/// How long one request to an issuer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `[[identify.issuer]]`: who issues tokens that are taken here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The issuer exactly as it stands in the `iss` of its tokens. Its keys are found from there.
    pub issuer: String,
    /// The address of its key set, where it cannot be found (RFC 8414, OpenID Connect Discovery).
    pub jwks_url: Option<String>,
    /// A file with its key set, instead of asking it.
    pub jwks_file: Option<PathBuf>,
    /// The claim that lists a caller's groups; `groups` by default.
    pub groups: Option<String>,
}

/// An issuer and its keys.
#[derive(Debug)]
pub struct Issuer {
    pub name: String,
    pub groups: String,
    source: Source,
    known: ArcSwapOption<Known>,
    /// When keys were last asked for. Held while they are.
    asking: Mutex<Option<Instant>>,
}

#[derive(Debug)]
enum Source {
    /// Read once, when the gateway starts.
    File,
    At(Url),
    /// To be found out from the issuer.
    Discovered(Url),
}

#[derive(Debug)]
struct Known {
    keys: Keys,
    fetched: Instant,
}

/// The keys cannot be had just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

impl Issuer {
    /// Reads files, and connects nowhere.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let Settings { issuer, jwks_url, jwks_file, groups } = settings;
        let name = issuer.clone();
        if name.is_empty() {
            return Err("`issuer` is missing; write it as it stands in the `iss` of its tokens".into());
        }
        let known = ArcSwapOption::empty();
        let source = match (jwks_url, jwks_file) {
            (Some(_), Some(_)) => return Err("give `jwks_url` or `jwks_file`, not both".into()),
            (None, Some(file)) => {
                let text = std::fs::read(file)
                    .map_err(|why| format!("the key set {} cannot be read: {why}", file.display()))?;
                let keys =
                    Keys::read(&text).map_err(|why| format!("the key set {} {why}", file.display()))?;
                known.store(Some(Arc::new(Known { keys, fetched: Instant::now() })));
                Source::File
            }
            (Some(url), None) => Source::At(trustworthy(url)?),
            (None, None) => Source::Discovered(trustworthy(&name)?),
        };
        let groups = groups.clone().unwrap_or_else(|| "groups".into());
        Ok(Self { name, groups, source, known, asking: Mutex::new(None) })
    }

    /// Its keys, if they are fresh and have the one that is asked for: without waiting.
    pub fn ready(&self, key: Option<&str>, algorithm: Algorithm) -> Option<Keys> {
        let known = self.known.load();
        let known = known.as_ref()?;
        let fresh = matches!(self.source, Source::File) || known.fetched.elapsed() < FRESH;
        (fresh && known.keys.find(key, algorithm).is_some()).then(|| known.keys.clone())
    }

    /// Its keys, asked for if need be. All who wait share one request.
    pub async fn keys(
        &self,
        http: &Client,
        key: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Keys, Unavailable> {
        if let Some(keys) = self.ready(key, algorithm) {
            return Ok(keys);
        }
        let mut asked = self.asking.lock().await;
        if let Some(keys) = self.ready(key, algorithm) {
            return Ok(keys); // Fetched while we waited.
        }
        let cooled = asked.is_none_or(|last| last.elapsed() >= COOLDOWN);
        if cooled && !matches!(self.source, Source::File) {
            *asked = Some(Instant::now());
            match self.fetch(http).await {
                Ok(keys) => self.known.store(Some(Arc::new(Known { keys, fetched: Instant::now() }))),
                Err(why) => tracing::warn!(issuer = self.name, why, "the keys of an issuer cannot be had"),
            }
        }
        let known = self.known.load();
        let known = known.as_ref().ok_or(Unavailable)?;
        let holds = matches!(self.source, Source::File) || known.fetched.elapsed() < STALE;
        if holds { Ok(known.keys.clone()) } else { Err(Unavailable) }
    }

    async fn fetch(&self, http: &Client) -> Result<Keys, String> {
        let set = match &self.source {
            Source::At(url) => url.clone(),
            Source::Discovered(issuer) => self.discover(http, issuer).await?,
            Source::File => return Err("it is a file".into()),
        };
        Keys::read(&get(http, set).await?).map_err(|why| format!("the key set {why}"))
    }

    async fn discover(&self, http: &Client, issuer: &Url) -> Result<Url, String> {
        let mut last = String::new();
        for address in well_known(issuer) {
            let found = match get(http, address).await {
                Ok(text) => self.key_set_of(&text),
                Err(why) => Err(why),
            };
            match found {
                Ok(url) => return Ok(url),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// The address of the key set, by a document that must be this issuer's own.
    fn key_set_of(&self, document: &[u8]) -> Result<Url, String> {
        json::check(document, &Limits::REQUEST)
            .map_err(|why| format!("its metadata is not strict JSON: {why}"))?;
        let document: Value = serde_json::from_slice(document).map_err(|why| why.to_string())?;
        if document["issuer"].as_str() != Some(&self.name) {
            return Err("its metadata is another issuer's".into());
        }
        trustworthy(document["jwks_uri"].as_str().ok_or("its metadata names no key set")?)
    }
}

/// Where an issuer's metadata may be, in the order of the specification.
fn well_known(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    let (oauth, openid) = (".well-known/oauth-authorization-server", ".well-known/openid-configuration");
    if path.is_empty() {
        return vec![at(oauth.into()), at(openid.into())];
    }
    vec![at(format!("{oauth}/{path}")), at(format!("{openid}/{path}")), at(format!("{path}/{openid}"))]
}

/// An address whose answer can be believed: over TLS, or on this machine.
fn trustworthy(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| format!("{text:?} is no address"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if here => Ok(url),
        _ => Err(format!("{text:?} must begin with https://, or anybody on the way could forge keys")),
    }
}

/// For asking issuers: follows nobody elsewhere, and waits for nobody long.
pub fn http() -> Result<Client, String> {
    let client = Client::builder().redirect(redirect::Policy::none()).timeout(TIMEOUT).https_only(false);
    client.build().map_err(|why| format!("no HTTP client can be made: {why}"))
}

/// The address without what may be a key to it.
fn shown(mut url: Url) -> Url {
    if !weaken::is("secrets-shown") {
        url.set_query(None);
        // Both fail for addresses that have no place for them.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
    }
    url
}

async fn get(http: &Client, url: Url) -> Result<Vec<u8>, String> {
    let place = shown(url.clone());
    let said = |why: &dyn std::fmt::Display| format!("{place}: {why}");
    let response = http.get(url).header("accept", "application/json").send().await;
    let mut response = response.map_err(|why| said(&why.without_url()))?;
    if response.status() != 200 {
        return Err(said(&response.status()));
    }
    let mut text = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|why| said(&why.without_url()))? {
        text.extend_from_slice(&part);
        if text.len() > LARGEST_SET {
            return Err(said(&format!("is over {LARGEST_SET} bytes")));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_the_specification_puts_it() {
        let paths = |issuer: &str| {
            let all = well_known(&Url::parse(issuer).unwrap());
            all.iter().map(|url| url.path().to_owned()).collect::<Vec<_>>()
        };
        let (oauth, openid) =
            ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration");
        assert_eq!(paths("https://a.example"), [oauth, openid]);
        let tenant = paths("https://a.example/tenant/");
        assert_eq!(
            tenant,
            [format!("{oauth}/tenant"), format!("{openid}/tenant"), format!("/tenant{openid}")]
        );
    }

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for right in
            ["https://a.example/keys", "http://127.0.0.1:8/keys", "http://localhost/k", "http://[::1]/k"]
        {
            assert!(trustworthy(right).is_ok(), "{right}");
        }
        for wrong in ["http://a.example/keys", "ftp://a.example", "keys", "http://localhost.evil.example/k"] {
            assert!(trustworthy(wrong).is_err(), "{wrong}");
        }
    }
}
