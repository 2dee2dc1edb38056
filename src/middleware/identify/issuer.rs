//! How fresh are the keys of an issuer?
//!
//! A set is fetched when the first token of its issuer comes, and from then on anew before it is
//! five minutes old, without anybody waiting for that: a key that its issuer withdraws is none here
//! soon after, and an issuer that hangs delays nobody whose key is known. Only a token that names a
//! key which is not in the set waits until that was fetched once more, all such tokens for the same
//! fetch, and not more often than a cooldown allows: else anybody could make us ask, with made-up
//! tokens. When the issuer cannot be reached, known keys hold for an hour, and then nothing is
//! accepted.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest;
use jsonwebtoken::Algorithm;
use reqwest::{Client, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, time::Instant};

use super::{
    discovery::{self, trustworthy},
    keys::Keys,
};
use crate::weaken::is;

/// A set is fetched again at this age, so that none in use is older than five minutes.
const FRESH: Duration = Duration::from_secs(300 - 2 * discovery::TIMEOUT.as_secs());
/// The least time between two fetches.
const COOLDOWN: Duration = Duration::from_secs(30);
/// How long known keys hold while the issuer cannot be reached.
const STALE: Duration = Duration::from_secs(60 * 60);

/// `[[identify.issuer]]`: who issues tokens that are taken here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The issuer exactly as it stands in the `iss` of its tokens. Its keys are found from there.
    pub issuer: String,
    /// The address of its key set, where it cannot be found (RFC 8414, OpenID Connect Discovery).
    pub jwks_url: Option<String>,
    /// A file with its key set, instead of asking it. Read at the start and at a reload.
    pub jwks_file: Option<PathBuf>,
    /// The claim that lists a caller's groups; `groups` by default.
    pub groups: Option<String>,
}

/// An issuer and its keys.
#[derive(Debug)]
pub struct Issuer {
    pub name: String,
    pub groups: String,
    pub settings: Settings,
    source: Source,
    known: ArcSwapOption<Known>,
    /// When keys were last asked for. Held while they are.
    asked: Mutex<Option<Instant>>,
    /// Somebody sees to it that the keys stay fresh.
    kept: AtomicBool,
}

#[derive(Debug)]
enum Source {
    /// Read already.
    File,
    At(Url),
    /// To be found out from the issuer.
    Discovered(Url),
}

/// The keys of an issuer as they were at one moment.
#[derive(Debug)]
pub struct Known {
    pub keys: Keys,
    /// Of the text of the set: another text, another edition.
    pub edition: Edition,
    fetched: Instant,
}

pub type Edition = [u8; 32];

/// The keys cannot be had just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unavailable;

impl Known {
    fn read(text: &[u8]) -> Result<Self, String> {
        let keys = Keys::read(text)?;
        let edition = digest::digest(&digest::SHA256, text);
        let edition = edition.as_ref().try_into().expect("SHA-256 has 32 bytes");
        Ok(Self { keys, edition, fetched: Instant::now() })
    }
}

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
                let read = Known::read(&text);
                let read = read.map_err(|why| format!("the key set {} {why}", file.display()))?;
                known.store(Some(Arc::new(read)));
                Source::File
            }
            (Some(url), None) => Source::At(trustworthy(url)?),
            (None, None) => Source::Discovered(trustworthy(&name)?),
        };
        let groups = groups.clone().unwrap_or_else(|| "groups".into());
        let (asked, kept) = (Mutex::new(None), AtomicBool::new(false));
        Ok(Self { name, groups, settings: settings.clone(), source, known, asked, kept })
    }

    /// Can it stand for another one with the same settings? What a file says may have changed.
    pub fn goes_on(&self) -> bool {
        !matches!(self.source, Source::File)
    }

    fn believes(&self, known: &Known) -> bool {
        matches!(self.source, Source::File) || known.fetched.elapsed() < STALE || is("identify-stale")
    }

    /// Its keys, as far as they can be believed.
    fn held(&self) -> Option<Arc<Known>> {
        self.known.load_full().filter(|known| self.believes(known))
    }

    /// Does what was verified with this edition of its keys still hold?
    pub fn stands_by(&self, edition: &Edition) -> bool {
        let known = self.known.load();
        let same = |known: &Known| known.edition == *edition || is("identify-editions");
        known.as_ref().is_some_and(|known| self.believes(known) && same(known))
    }

    /// Its keys, the one that is asked for among them if it has it. Waits only where that is not known.
    pub async fn keys(
        self: &Arc<Self>,
        http: &Client,
        key: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Arc<Known>, Unavailable> {
        let old = |known: &Known| is("identify-impatience") && known.fetched.elapsed() > FRESH;
        let sufficient = |known: &Arc<Known>| known.keys.find(key, algorithm).is_some() && !old(known);
        if let Some(known) = self.held().filter(sufficient) {
            return Ok(known);
        }
        // Whoever waits may go away; what was begun is for all.
        let (issuer, http) = (Arc::clone(self), http.clone());
        if self.may_ask() && !(is("identify-rotation") && self.held().is_some()) {
            if !self.kept.swap(true, Ordering::Relaxed) {
                tokio::spawn(keep(Arc::downgrade(self), http.clone()));
            }
            let _ = tokio::spawn(async move { issuer.ask(&http).await }).await;
        }
        self.held().ok_or(Unavailable)
    }

    /// Is there somebody to ask, who is being asked already or was not asked just now?
    fn may_ask(&self) -> bool {
        !matches!(self.source, Source::File) && self.asked.try_lock().map_or(true, |asked| cooled(*asked))
    }

    /// Fetches the keys, unless that was tried just now. All who come meanwhile wait for the same.
    async fn ask(&self, http: &Client) {
        let mut asked = self.asked.lock().await;
        if !cooled(*asked) {
            return;
        }
        *asked = Some(Instant::now());
        let text = match &self.source {
            Source::At(set) => discovery::fetch(http, set).await,
            Source::Discovered(at) => discovery::discover(http, &self.name, at).await,
            Source::File => return,
        };
        match text.and_then(|text| Known::read(&text).map_err(|why| format!("the key set {why}"))) {
            Ok(known) => self.known.store(Some(Arc::new(known))),
            Err(why) => tracing::warn!(issuer = self.name, why, "the keys of an issuer cannot be had"),
        }
    }

    /// When the keys are to be fetched again.
    async fn due(&self) -> Instant {
        let asked = *self.asked.lock().await;
        let fetched = self.known.load().as_ref().map(|known| known.fetched + FRESH);
        let allowed = asked.map(|asked| asked + COOLDOWN);
        fetched.max(allowed).unwrap_or_else(Instant::now)
    }
}

fn cooled(asked: Option<Instant>) -> bool {
    is("identify-cooldown") || asked.is_none_or(|last| last.elapsed() >= COOLDOWN)
}

/// Keeps an issuer's keys fresh, as long as there is a gateway that takes its tokens.
async fn keep(issuer: std::sync::Weak<Issuer>, http: Client) {
    loop {
        // Let go of while this sleeps, or it would keep the issuer itself.
        let due = match issuer.upgrade() {
            Some(issuer) => issuer.due().await,
            None => return,
        };
        tokio::time::sleep_until(due).await;
        let Some(issuer) = issuer.upgrade() else { return };
        if is("identify-refresh") {
            return;
        }
        issuer.ask(&http).await;
    }
}
