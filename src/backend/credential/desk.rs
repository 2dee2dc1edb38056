//! Where do callers connect their accounts?
//!
//! A link is made for one caller and one server, works once and for ten minutes, and leads to a
//! page of the gateway's that says for whom and for what it is. Only then the browser is sent to the
//! authorization server, with a cookie; what comes back must come with it. So nobody can have a
//! stranger's browser finish what they have begun, unless that stranger has seen the page and agreed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, Weak},
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::{Url, form_urlencoded};

use super::{
    account::Account,
    door::Door,
    egress::{Egress, System, origin_of},
    flow::{Flow, Home, LIFETIME},
    vault::{Record, Vault},
};
use crate::{
    call::{Consent, Leave, Wish},
    store::Store,
    weaken,
};

/// Links and browsers under way; more are refused.
const MOST: usize = 10_000;

/// `[connect]`: how callers connect their accounts at servers that want OAuth.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where browsers reach the gateway: scheme, host and port, such as `https://mcp.example.com`.
    /// By default that of `identify.audience`, else `http://` and `listen.address`.
    pub url: Option<String>,
    /// Origins that servers may name though they are on this machine or its network, such as
    /// `http://127.0.0.1:9000`. All others must be reached over https and be public. What stands in
    /// a backend's table need not be named again, and a server on this machine may name others there.
    pub allow_private: Vec<String>,
}

/// All accounts, and who is about to connect one.
#[derive(Debug)]
pub struct Desk {
    home: Home,
    egress: Egress,
    vault: OnceLock<Vault>,
    doors: Mutex<HashMap<String, Weak<Door>>>,
    accounts: Mutex<HashMap<(String, String), Arc<Account>>>,
    links: Mutex<HashMap<String, Link>>,
    browsers: Mutex<HashMap<String, Browser>>,
}

/// A link that was given out.
#[derive(Debug)]
struct Link {
    account: Weak<Account>,
    challenge: Option<String>,
    made: Instant,
}

/// A browser that was sent away, by the state that it comes back with.
#[derive(Debug)]
struct Browser {
    account: Arc<Account>,
    flow: Flow,
    cookie: String,
    left: Instant,
}

const LOCK: &str = "no code panics while it holds this lock";

impl Desk {
    /// `usual` is where browsers reach the gateway if nothing is said.
    pub fn new(settings: &Settings, usual: &str) -> Result<Arc<Self>, Vec<String>> {
        let Settings { url, allow_private } = settings;
        let mut faults = Vec::new();
        let origin = url.as_deref().unwrap_or(usual);
        let parsed = Url::parse(origin).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if parsed.as_ref().is_none_or(|url| url.path() != "/" || url.query().is_some()) {
            faults.push(format!("url {origin:?} is not where browsers could go; write scheme and host, such as https://mcp.example.com"));
        }
        for origin in allow_private {
            if Url::parse(origin).ok().is_none_or(|url| origin_of(&url) != *origin) {
                faults.push(format!("allow_private: {origin:?} is no origin; write scheme, host and port alone, such as http://127.0.0.1:9000"));
            }
        }
        let egress = Egress::new(allow_private, Arc::new(System)).map_err(|why| vec![why])?;
        let Some(url) = parsed.filter(|_| faults.is_empty()) else { return Err(faults) };
        let home = Home { origin: origin_of(&url) };
        let (vault, doors, accounts, links, browsers) = Default::default();
        Ok(Arc::new(Self { home, egress, vault, doors, accounts, links, browsers }))
    }

    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Is there a server at which callers connect accounts?
    pub fn is_needed(&self) -> bool {
        let doors = self.doors.lock().expect(LOCK);
        doors.values().any(|door| door.strong_count() > 0)
    }

    pub fn add(&self, door: &Arc<Door>) {
        self.doors.lock().expect(LOCK).insert(door.name().to_string(), Arc::downgrade(door));
    }

    fn door(&self, name: &str) -> Option<Arc<Door>> {
        self.doors.lock().expect(LOCK).get(name)?.upgrade()
    }

    /// Reads the accounts of earlier. `secret` stays the same over restarts.
    pub async fn open(&self, store: Store, secret: &[u8]) {
        let vault = self.vault.get_or_init(|| Vault::new(secret, store));
        for (backend, caller, record) in vault.accounts().await {
            let Some(door) = self.door(&backend) else { continue };
            let account = door.new_account(caller.clone());
            // What was consented to at another issuer than the one that is written down by now.
            let other = account.terms.issuer.as_ref().is_some_and(|issuer| *issuer != record.issuer);
            if other || account.take(record).is_err() {
                continue;
            }
            self.accounts().insert((backend, caller), account);
        }
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Account>>> {
        self.accounts.lock().expect(LOCK)
    }

    /// A caller's account at a backend, made if it is the first time.
    pub fn account(
        &self,
        backend: &str,
        caller: String,
        make: impl FnOnce() -> Arc<Account>,
    ) -> Arc<Account> {
        Arc::clone(self.accounts().entry((backend.to_owned(), caller)).or_insert_with(make))
    }

    /// Any account at a backend that is connected.
    pub fn connected(&self, backend: &str) -> Option<Arc<Account>> {
        let accounts = self.accounts();
        let mut own = accounts.values().filter(|account| *account.backend == *backend);
        own.find(|account| account.is_connected()).cloned()
    }

    pub async fn keep(&self, account: &Account, record: &Record) {
        if let Some(vault) = self.vault.get() {
            vault.keep(&account.backend, &account.caller, record).await;
        }
    }

    pub async fn forget(&self, account: &Account) {
        if let Some(vault) = self.vault.get() {
            vault.forget(&account.backend, &account.caller).await;
        }
    }

    fn links(&self) -> MutexGuard<'_, HashMap<String, Link>> {
        let mut links = self.links.lock().expect(LOCK);
        links.retain(|_, link| link.made.elapsed() < LIFETIME);
        links
    }

    fn browsers(&self) -> MutexGuard<'_, HashMap<String, Browser>> {
        let mut browsers = self.browsers.lock().expect(LOCK);
        browsers.retain(|_, browser| browser.left.elapsed() < LIFETIME);
        browsers
    }

    /// The address of the page on which a caller agrees. One that was given out and not used is
    /// given again.
    pub fn link(&self, account: &Account, challenge: Option<String>) -> Option<String> {
        let known = self.accounts().get(&(account.backend.to_string(), account.caller.clone())).cloned()?;
        let mut links = self.links();
        let mut last = account.link.lock().expect(LOCK);
        if let Some((id, link)) = last.as_ref().and_then(|id| Some((id, links.get_mut(id)?))) {
            link.challenge = challenge; // What is wanted now.
            return Some(self.page(id));
        }
        if links.len() >= MOST {
            return None;
        }
        let id = random()?;
        links.insert(id.clone(), Link { account: Arc::downgrade(&known), challenge, made: Instant::now() });
        let page = self.page(&id);
        *last = Some(id);
        Some(page)
    }

    fn page(&self, id: &str) -> String {
        format!("{}/connect/{id}", self.home.origin)
    }

    async fn leave(&self, id: &str) -> Result<Leave, String> {
        let link = if weaken::is("connect-once") {
            self.links().get(id).map(|link| Link {
                account: link.account.clone(),
                challenge: link.challenge.clone(),
                ..*link
            })
        } else {
            self.links().remove(id)
        };
        let gone = || "This link was used already, or is more than ten minutes old. Make the call again for another.";
        let Link { account, challenge, .. } = link.ok_or_else(gone)?;
        let account = account.upgrade().ok_or_else(gone)?;
        let before = account.record();
        let begun =
            Flow::begin(&account.terms, &self.home, self.vault.get(), challenge.as_deref(), before.as_ref())
                .await;
        let flow = begun.inspect_err(
            |why| tracing::warn!(backend = &*account.backend, %why, "no consent can be asked for"),
        )?;
        let cookie = random().ok_or("There are no random numbers to be had; try again.")?;
        let mut browsers = self.browsers();
        if browsers.len() >= MOST {
            return Err("Too many accounts are being connected just now; try again later.".into());
        }
        let leave = Leave { to: flow.to.clone(), cookie: cookie.clone() };
        browsers.insert(flow.state.clone(), Browser { account, flow, cookie, left: Instant::now() });
        Ok(leave)
    }

    async fn back(&self, query: &str, cookie: Option<&str>) -> Result<Wish, String> {
        let state = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "state");
        let state = state.map(|(_, state)| state.into_owned()).unwrap_or_default();
        let browser = self.browsers().remove(&state);
        let unknown = "This page was not expected: it was opened already, or too late, or does not belong to this gateway.";
        let Browser { account, flow, cookie: wanted, .. } = browser.ok_or(unknown)?;
        if cookie != Some(&wanted) && !weaken::is("connect-cookie") {
            return Err(
                "This is not the browser in which the account was to be connected. Make the call again."
                    .into(),
            );
        }
        let record = flow.end(&account.terms, self.vault.get(), query).await;
        let record = record.inspect_err(
            |why| tracing::warn!(backend = &*account.backend, %why, "no account was connected"),
        )?;
        self.keep(&account, &record).await;
        account.take(record)?;
        tracing::info!(backend = &*account.backend, "a caller has connected an account");
        if let Some(door) = self.door(&account.backend) {
            door.consented();
        }
        Ok(wish(&account))
    }
}

fn wish(account: &Account) -> Wish {
    Wish {
        caller: account.shown().to_owned(),
        backend: account.backend.to_string(),
        server: origin_of(&account.terms.server),
    }
}

/// A text that nobody guesses.
fn random() -> Option<String> {
    let mut random = [0; 24];
    getrandom::fill(&mut random).ok()?;
    Some(URL_SAFE_NO_PAD.encode(random))
}

impl Consent for Desk {
    fn wish(&self, link: &str) -> Option<Wish> {
        let account = self.links().get(link)?.account.upgrade()?;
        Some(wish(&account))
    }

    fn begin<'a>(&'a self, link: &'a str) -> BoxFuture<'a, Result<Leave, String>> {
        Box::pin(self.leave(link))
    }

    fn end<'a>(&'a self, query: &'a str, cookie: Option<&'a str>) -> BoxFuture<'a, Result<Wish, String>> {
        Box::pin(self.back(query, cookie))
    }

    fn document(&self) -> Option<String> {
        let id = self.home.document()?;
        let document = json!({
            "client_id": id,
            "client_name": "Waystation",
            "client_uri": self.home.origin,
            "redirect_uris": [self.home.redirect()],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "application_type": self.home.kind(),
        });
        Some(document.to_string())
    }

    fn is_secure(&self) -> bool {
        self.home.is_secure()
    }

    fn exchanges(&self) -> bool {
        let doors = self.doors.lock().expect(LOCK);
        doors.values().filter_map(Weak::upgrade).any(|door| door.exchanges())
    }
}
