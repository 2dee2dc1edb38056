//! What has one caller at one server, and is it still good?
//!
//! A token is used until shortly before its end, then a fresh one is fetched by one request for all
//! that wait. When there is none to be had, the caller is asked; the gateway never asks twice for
//! what it was given and the server refuses all the same.

use std::{
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use oauth2::TokenResponse as _;
use tokio::sync::watch;

use super::{
    Credential, Refusal, bearer,
    desk::Desk,
    exchange,
    flow::{self, Terms},
    vault::Record,
};
use crate::{
    backend::transport::{Kind, Trouble},
    call::Proof,
};

/// Seconds before its end at which a token is replaced.
const AHEAD: u64 = 60;
/// A token that was refused this soon after it was made is not replaced by another of its kind.
const YOUNG: Duration = Duration::from_secs(10);
/// How often a caller is asked for more, and for how long that is counted.
const MOST_UPS: u32 = 3;
const UPS_COUNT: Duration = Duration::from_secs(10 * 60);

/// One caller's account.
pub struct Account {
    pub backend: Arc<str>,
    /// The caller, as handles are bound to them.
    pub caller: String,
    /// The caller in words for people, once one has come in this run.
    shown: OnceLock<String>,
    /// The link that was last made for it.
    pub link: Mutex<Option<String>>,
    pub terms: Arc<Terms>,
    desk: Weak<Desk>,
    /// The caller's own token is what tokens are had for.
    exchanged: bool,
    held: ArcSwapOption<Held>,
    renewing: tokio::sync::Mutex<()>,
    edition: watch::Sender<u64>,
    ups: Mutex<(u32, Instant)>,
    /// The token of a call that is under way.
    subject: Mutex<Weak<Proof>>,
}

struct Held {
    proof: HeaderValue,
    /// In seconds since 1970.
    until: Option<u64>,
    made: Instant,
    /// None of a token that was had by exchange: it is made anew when it is needed.
    record: Option<Record>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("backend", &self.backend)
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

impl Account {
    pub fn new(
        (backend, terms, exchanged): (&Arc<str>, &Arc<Terms>, bool),
        caller: String,
        desk: Weak<Desk>,
    ) -> Self {
        Self {
            backend: Arc::clone(backend),
            caller,
            shown: OnceLock::new(),
            link: Mutex::default(),
            terms: Arc::clone(terms),
            desk,
            exchanged,
            held: ArcSwapOption::empty(),
            renewing: tokio::sync::Mutex::default(),
            edition: watch::Sender::new(0),
            ups: Mutex::new((0, Instant::now())),
            subject: Mutex::default(),
        }
    }

    pub fn show(&self, shown: &str) {
        self.shown.get_or_init(|| shown.to_owned());
    }

    pub fn shown(&self) -> &str {
        self.shown.get().map_or("a caller of earlier", String::as_str)
    }

    pub fn is_connected(&self) -> bool {
        self.held.load().is_some()
    }

    /// What the caller has consented to.
    pub fn record(&self) -> Option<Record> {
        self.held.load().as_ref()?.record.clone()
    }

    /// Takes what was consented to, now or in an earlier run.
    pub fn take(&self, record: Record) -> Result<(), String> {
        let held = Held::of(record)?;
        self.held.store(Some(Arc::new(held)));
        self.edition.send_modify(|edition| *edition += 1);
        Ok(())
    }

    /// The caller's own token may be used as long as a call holds it.
    pub fn lend(&self, proof: &Arc<Proof>) {
        *self.subject.lock().expect(LOCK) = Arc::downgrade(proof);
    }

    /// Waits until the caller has consented anew since this edition, but no longer than this.
    pub async fn consented(&self, since: u64, longest: Duration) {
        let mut edition = self.edition.subscribe();
        let changed = edition.wait_for(|edition| *edition > since);
        let _ = tokio::time::timeout(longest, changed).await; // Then it is tried all the same.
    }

    /// A token that is good for a while. Only one request fetches one.
    async fn renew(&self, refused: Option<&HeaderValue>) -> Result<(), Trouble> {
        let _turn = self.renewing.lock().await;
        let held = self.held.load_full();
        if held.as_ref().is_some_and(|held| held.is_fresh() && Some(&held.proof) != refused) {
            return Ok(()); // Somebody else was first.
        }
        if self.exchanged {
            return self.exchange().await;
        }
        let Some((held, record)) = held.and_then(|held| Some((Arc::clone(&held), held.record.clone()?)))
        else {
            return Ok(());
        };
        let Some(desk) = self.desk.upgrade() else { return Ok(()) };
        match flow::refreshed(&self.terms, desk.home(), &record).await {
            Ok(Some(tokens)) => {
                let record = Record { tokens, ..record };
                desk.keep(self, &record).await;
                let held = Held::of(record).map_err(|why| Trouble::new(Kind::NotSent, why))?;
                self.held.store(Some(Arc::new(held)));
            }
            Ok(None) if held.is_over() || refused.is_some() => self.lose(&desk).await,
            Err(why) if held.is_over() || refused.is_some() => {
                tracing::warn!(backend = &*self.backend, %why, "a token cannot be refreshed");
                return Err(Trouble::new(Kind::NotSent, format!("its token cannot be refreshed: {why}")));
            }
            Ok(None) | Err(_) => {} // It is good for a moment longer.
        }
        Ok(())
    }

    async fn exchange(&self) -> Result<(), Trouble> {
        let subject = self.subject.lock().expect(LOCK).upgrade();
        let Some(subject) = subject else {
            self.held.store(None);
            return Ok(());
        };
        let token = exchange::exchanged(&self.terms, &subject).await.map_err(|why| {
            tracing::warn!(backend = &*self.backend, %why, "a caller's token was not exchanged");
            Trouble::new(Kind::NotSent, format!("your token was not exchanged for one of its own: {why}"))
        })?;
        let proof = bearer(&token.text).map_err(|why| Trouble::new(Kind::NotSent, why))?;
        let until = token.lifetime.map(|seconds| now().saturating_add(seconds));
        self.held.store(Some(Arc::new(Held { proof, until, made: Instant::now(), record: None })));
        Ok(())
    }

    /// What was consented to holds no longer.
    async fn lose(&self, desk: &Desk) {
        self.held.store(None);
        desk.forget(self).await;
    }

    /// May the caller be asked for more?
    fn may_ask_again(&self) -> bool {
        let mut ups = self.ups.lock().expect(LOCK);
        if ups.1.elapsed() >= UPS_COUNT {
            *ups = (0, Instant::now());
        }
        ups.0 += 1;
        ups.0 <= MOST_UPS
    }

    async fn refusal(&self, refusal: &Refusal, mine: bool) -> Result<(), Trouble> {
        let held = self.held.load_full();
        let same = held.as_ref().is_some_and(|held| Some(&held.proof) == refusal.sent.as_ref());
        if let Some(wanted) = refusal.wants(&self.terms.server) {
            let asked = self.record().map(|record| record.scopes).unwrap_or_default();
            if self.exchanged
                || wanted.iter().all(|scope| asked.contains(scope))
                || !mine
                || !self.may_ask_again()
            {
                return Err(refusal.trouble("a token with all the scopes that it asked for"));
            }
            return Err(self.asks(refusal));
        }
        if refusal.status != 401 {
            return Err(refusal.trouble("this account for that"));
        }
        if refusal.sent.is_some() && !same && held.is_some() && !refusal.again {
            return Ok(()); // There is another by now.
        }
        let renewable = self.exchanged || held.as_ref().is_some_and(|held| held.is_renewable());
        let young = same && held.as_ref().is_some_and(|held| held.made.elapsed() < YOUNG);
        if renewable && !refusal.again && !young {
            self.renew(refusal.sent.as_ref()).await?;
            if self.is_connected() {
                return Ok(());
            }
        }
        if self.exchanged {
            return Err(refusal.trouble("the token that yours was exchanged for"));
        }
        Err(if mine { self.asks(refusal) } else { refusal.trouble("the account of any caller") })
    }

    /// The caller has to agree first.
    fn asks(&self, refusal: &Refusal) -> Trouble {
        let page = self.desk.upgrade().and_then(|desk| desk.link(self, refusal.challenge.clone()));
        match page {
            Some(page) => Trouble::consent(page),
            None => {
                Trouble::new(Kind::Busy, "too many accounts are being connected just now; try again later")
            }
        }
    }
}

const LOCK: &str = "no code panics while it holds this lock";

impl Held {
    fn of(record: Record) -> Result<Self, String> {
        let response = record.tokens.token_response.as_ref().ok_or("there is no token")?;
        let proof = bearer(response.access_token().secret())?;
        let lifetime = response.expires_in().map(|lifetime| lifetime.as_secs());
        let until = lifetime
            .zip(record.tokens.token_received_at)
            .map(|(lifetime, from)| from.saturating_add(lifetime));
        Ok(Self { proof, until, made: Instant::now(), record: Some(record) })
    }

    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| until > now() + AHEAD)
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= now())
    }

    fn is_renewable(&self) -> bool {
        let response = self.record.as_ref().and_then(|record| record.tokens.token_response.as_ref());
        response.is_some_and(|response| response.refresh_token().is_some())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Credential for Account {
    fn proof(&self) -> BoxFuture<'_, Result<Option<HeaderValue>, Trouble>> {
        Box::pin(async {
            let stale = match &*self.held.load() {
                Some(held) => !held.is_fresh() && (self.exchanged || held.is_renewable() || held.is_over()),
                None => self.exchanged,
            };
            if stale {
                self.renew(None).await?;
            }
            Ok(self.held.load().as_ref().map(|held| held.proof.clone()))
        })
    }

    fn refused<'a>(&'a self, refusal: &'a Refusal) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(self.refusal(refusal, true))
    }

    fn edition(&self) -> u64 {
        *self.edition.borrow()
    }
}

/// An account as the gateway itself uses it: nobody is asked.
#[derive(Debug)]
pub struct Borrowed {
    door: Weak<super::Door>,
    /// The one that is used at present.
    lent: Mutex<Option<Arc<Account>>>,
    edition: AtomicU64,
}

impl Borrowed {
    pub fn new(door: Weak<super::Door>) -> Self {
        Self { door, lent: Mutex::default(), edition: AtomicU64::new(0) }
    }

    fn account(&self) -> Option<Arc<Account>> {
        let mut lent = self.lent.lock().expect(LOCK);
        if lent.as_ref().is_some_and(|account| account.is_connected()) {
            return lent.clone();
        }
        let next = self.door.upgrade().and_then(|door| door.connected());
        if lent.is_some() || next.is_some() {
            self.edition.fetch_add(1, Ordering::Relaxed);
        }
        lent.clone_from(&next);
        next
    }
}

impl Credential for Borrowed {
    fn proof(&self) -> BoxFuture<'_, Result<Option<HeaderValue>, Trouble>> {
        Box::pin(async {
            match self.account() {
                Some(account) => account.proof().await,
                None => Ok(None),
            }
        })
    }

    fn refused<'a>(&'a self, refusal: &'a Refusal) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async {
            match self.account() {
                Some(account) if refusal.sent.is_some() => account.refusal(refusal, false).await,
                Some(_) if !refusal.again => Ok(()),
                _ => Err(Trouble::new(
                    Kind::Status(refusal.status),
                    "no caller has an account here yet; the tool waystation__connect gives the link to connect one",
                )),
            }
        })
    }

    fn edition(&self) -> u64 {
        let inner = self.account().map_or(0, |account| account.edition());
        (self.edition.load(Ordering::Relaxed) << 32) + inner
    }
}
