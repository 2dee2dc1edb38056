//! What changes while the gateway runs?
//!
//! All that decides about calls: who comes in, what they may do, how often, and which replies are
//! used again. The new parts are built before the first of them is put in its place, so a
//! configuration with anything wrong in it changes nothing; and when the reload is acknowledged, the
//! next request is decided by the new ones. What is kept (sessions, what was used of limits, replies)
//! stays.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use serde::Serialize;

use super::{Fault, Plan, Waystation};
use crate::{
    config::Config,
    listener::{
        guard::{Guard, Inner},
        resource::About,
    },
    middleware::{identify::Identify, permit},
    store::Store,
    weaken,
};

/// What runs, and can be replaced.
#[derive(Debug)]
pub(super) struct Live {
    pub guard: Guard,
    pub rules: Arc<permit::Rules>,
    /// What the guard asks.
    identify: ArcSwapOption<Identify>,
    store: Store,
    /// As it is obeyed now. Held while a new one is taken over.
    pub config: Mutex<Config>,
}

impl Live {
    pub async fn start(
        identify: Option<Identify>,
        store: Store,
        rules: Arc<permit::Rules>,
        config: Config,
    ) -> Arc<Self> {
        let (guard, identity) = (Guard::new(None), ArcSwapOption::empty());
        let live = Self { guard, identify: identity, store, rules, config: Mutex::new(config) };
        live.stand(live.started(identify).await);
        Arc::new(live)
    }

    /// Ready for its first question, with what is known already.
    async fn started(&self, identify: Option<Identify>) -> Option<Arc<Identify>> {
        let before = self.identify.load_full();
        Some(Arc::new(identify?.start(&self.store, before.as_deref()).await))
    }

    /// Lets the next request in, or not, by this.
    fn stand(&self, identify: Option<Arc<Identify>>) {
        self.guard.replace(identify.clone().map(guarding));
        self.identify.store(identify);
    }
}

/// What stands at the door where identity is configured.
fn guarding(identify: Arc<Identify>) -> Inner {
    let about = About {
        address: identify.resource().to_owned(),
        issuers: identify.issuers().map(str::to_owned).collect(),
        scopes: identify.scopes().to_vec(),
    };
    let (audience, strangers) = (identify.audience().to_owned(), identify.lets_strangers_in());
    Inner::new(identify, &audience, about, strangers)
}

/// What came of a new configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Tables that are obeyed from now on.
    pub changed: Vec<&'static str>,
    /// Tables that differ too, and will be obeyed after a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Waystation {
    /// The configuration that is obeyed now.
    pub fn config(&self) -> Config {
        self.live.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Obeys a new configuration from the next request on, as far as that can be done while it runs.
    pub async fn reload(&self, new: Config) -> Result<Reloaded, Vec<Fault>> {
        // To check is to build: what can be built can be put in its place.
        let Plan { identify, rules, config: new, .. } = Plan::build(new)?;
        if identify.is_none() && !self.listen.address.ip().to_canonical().is_loopback() {
            let why = format!(
                "without it everybody who can reach {} could call every tool; restart with a loopback address",
                self.listen.address
            );
            return Err(vec![Fault { at: "identify".to_owned(), why }]);
        }
        let guarded = identify.is_some();
        put("audit", self.policy.audit.replace(&new.audit, guarded))?;
        put("limit", self.policy.limit.replace(&new.limit))?;
        self.policy.cache.replace(&new.cache);
        let identify = self.live.started(identify).await;
        let mut old = self.live.config.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = [
            ("identify", new.identify != old.identify),
            ("audit", new.audit != old.audit),
            ("limit", new.limit != old.limit),
            ("cache", new.cache != old.cache),
            ("permit", (&new.permit, &new.sets) != (&old.permit, &old.sets)),
        ];
        // Before anybody else is let in, who would else find the rules of earlier, or none.
        if tables.contains(&("permit", true)) && !weaken::is("permit-reload") {
            self.catalog.rules_changed(self.live.rules.put(rules));
        }
        // Even where the table is the same: keys that it speaks of may be others.
        self.live.stand(identify);
        self.policy.settle(guarded);
        let reloaded = Reloaded { changed: names(&tables), needs_restart: at_a_restart(&old, &new) };
        let Config { identify, permit, sets, audit, limit, cache, .. } = new;
        *old = Config { identify, permit, sets, audit, limit, cache, ..std::mem::take(&mut *old) };
        Ok(reloaded)
    }
}

/// What a part says to its new settings.
fn put(table: &str, replaced: Result<(), Vec<String>>) -> Result<(), Vec<Fault>> {
    let fault = |why| Fault { at: table.to_owned(), why };
    replaced.map_err(|whys| whys.into_iter().map(fault).collect())
}

/// Tables that differ and are looked at when the gateway starts.
fn at_a_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let tables = [
        ("listen", old.listen != new.listen),
        ("session", old.session != new.session),
        ("deadline", old.deadline != new.deadline),
        ("tasks", old.tasks != new.tasks),
        ("connect", old.connect != new.connect),
        ("store", old.store != new.store),
        ("log", old.log != new.log),
        ("backends", old.backends != new.backends),
    ];
    names(&tables)
}

/// Those tables that differ.
fn names(tables: &[(&'static str, bool)]) -> Vec<&'static str> {
    tables.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}
