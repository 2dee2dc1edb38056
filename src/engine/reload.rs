//! What changes while the gateway runs?
//!
//! All that decides about calls: who comes in, what they may do, how often, and which replies are
//! used again; and the backends, of which those that do not differ are left alone. The new parts are built before the first of them is put in its place, so a
//! configuration with anything wrong in it changes nothing; and when the reload is acknowledged, the
//! next request is decided by the new ones. What is kept (sessions, what was used of limits, replies)
//! stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use serde::Serialize;

use super::{
    Fault, Plan, Waystation,
    sources::{Supplies, source},
};
use crate::{
    backend,
    config::Config,
    listener::{
        guard::{Guard, Inner},
        resource::About,
    },
    middleware::{identify::Identify, permit},
    router::{catalog::Source, view::Upstream},
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
    /// What backends are given.
    supplies: Supplies,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    /// As it is obeyed now. Held while a new one is taken over.
    pub config: Mutex<Config>,
}

impl Live {
    pub async fn start(
        identify: Option<Identify>,
        store: Store,
        rules: Arc<permit::Rules>,
        supplies: Supplies,
        config: Config,
    ) -> Arc<Self> {
        let (guard, identity) = (Guard::new(None), ArcSwapOption::empty());
        let (config, reloading) = (Mutex::new(config), tokio::sync::Mutex::default());
        let live = Self { guard, identify: identity, store, rules, supplies, reloading, config };
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

/// How long calls under way at a backend that is not there any more may take.
const LAST_CALLS: Duration = Duration::from_secs(600);

/// What came of a new configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Tables that are obeyed from now on.
    pub changed: Vec<&'static str>,
    /// Tables that differ too, and will be obeyed after a restart.
    pub needs_restart: Vec<&'static str>,
    /// Backends that were begun, begun anew or ended. All others were left alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<String>,
}

impl Waystation {
    /// The configuration that is obeyed now.
    pub fn config(&self) -> Config {
        self.live.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Obeys a new configuration from the next request on, as far as that can be done while it runs.
    pub async fn reload(&self, new: Config) -> Result<Reloaded, Vec<Fault>> {
        let _alone = self.live.reloading.lock().await;
        // To check is to build: what can be built can be put in its place.
        let Plan { identify, rules, config: new, .. } = Plan::build(new)?;
        if identify.is_none() && !self.listen.address.ip().to_canonical().is_loopback() {
            let why = format!(
                "without it everybody who can reach {} could call every tool; restart with a loopback address",
                self.listen.address
            );
            return Err(vec![Fault { at: "identify".to_owned(), why }]);
        }
        let others = self.other_backends(&new.backends)?;
        let guarded = identify.is_some();
        put("audit", self.policy.audit.replace(&new.audit, guarded))?;
        put("limit", self.policy.limit.replace(&new.limit))?;
        self.policy.cache.replace(&new.cache);
        let identify = self.live.started(identify).await;
        let reloaded = self.put_in_place(new, rules, identify, &others.names);
        // Last, so that nobody finds new ones by rules of earlier.
        self.replace_backends(others).await;
        Ok(reloaded)
    }

    /// What decides about calls, without a moment in which only some of it is new.
    fn put_in_place(
        &self,
        new: Config,
        rules: permit::Policy,
        identify: Option<Arc<Identify>>,
        backends: &BTreeSet<String>,
    ) -> Reloaded {
        let guarded = identify.is_some();
        let mut old = self.live.config.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = [
            ("identify", new.identify != old.identify),
            ("audit", new.audit != old.audit),
            ("limit", new.limit != old.limit),
            ("cache", new.cache != old.cache),
            ("backends", !backends.is_empty()),
            ("permit", (&new.permit, &new.sets) != (&old.permit, &old.sets)),
        ];
        // Before anybody else is let in, who would else find the rules of earlier, or none.
        if tables.contains(&("permit", true)) && !weaken::is("permit-reload") {
            self.catalog.rules_changed(self.live.rules.put(rules));
        }
        // Even where the table is the same: keys that it speaks of may be others.
        self.live.stand(identify);
        self.policy.settle(guarded);
        let needs_restart = at_a_restart(&old, &new);
        if old.listen.tls.is_some() && new.listen.tls.is_some() {
            old.listen.tls.clone_from(&new.listen.tls);
        }
        let Config { identify, permit, sets, audit, limit, cache, backends: all, .. } = new;
        *old = Config {
            identify,
            permit,
            sets,
            audit,
            limit,
            cache,
            backends: all,
            ..std::mem::take(&mut *old)
        };
        Reloaded { changed: names(&tables), needs_restart, backends: backends.iter().cloned().collect() }
    }

    /// Those backends that differ from what there is, ready to begin.
    fn other_backends(&self, new: &Backends) -> Result<Others, Vec<Fault>> {
        let old = self.config().backends;
        let all: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
        let names: BTreeSet<_> =
            all.into_iter().filter(|name| there(&old, name) != there(new, name)).collect();
        let (mut sources, mut faults) = (Vec::new(), Vec::new());
        for (name, settings) in names.iter().filter_map(|name| Some((name, there(new, name)?))) {
            match source(name, settings.clone(), &self.live.supplies) {
                Ok(source) => sources.push(source),
                Err(why) => faults.push(Fault { at: format!("backends.{name}"), why }),
            }
        }
        if faults.is_empty() { Ok(Others { names, sources }) } else { Err(faults) }
    }

    /// Puts other backends into the place of those of their names, and leaves all others alone.
    async fn replace_backends(&self, Others { names, sources }: Others) {
        if names.is_empty() {
            return;
        }
        let begun: Vec<_> = sources.iter().map(|source| Arc::clone(&source.upstream)).collect();
        let left = self.catalog.replace(&names, sources).await;
        begun.iter().for_each(|upstream| self.subscriptions.moved(upstream));
        left.into_iter().for_each(|upstream| drop(tokio::spawn(end(upstream))));
        self.own.connects(self.live.supplies.desk.is_needed());
        self.http.look_again();
    }
}

/// Backends that differ, by their names, and those that begin.
struct Others {
    names: BTreeSet<String>,
    sources: Vec<Source>,
}

type Backends = BTreeMap<String, backend::Settings>;

/// A backend of the configuration that is not left out.
pub(super) fn there<'a>(backends: &'a Backends, name: &str) -> Option<&'a backend::Settings> {
    backends.get(name).filter(|settings| settings.enabled != Some(false))
}

/// Ends a backend once the calls that are under way there are done.
async fn end(upstream: Arc<Upstream>) {
    let begun = Instant::now();
    // Whoever calls it holds it.
    while Arc::strong_count(&upstream) > 1 && begun.elapsed() < LAST_CALLS {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    upstream.backend.close().await;
}

/// What a part says to its new settings.
fn put(table: &str, replaced: Result<(), Vec<String>>) -> Result<(), Vec<Fault>> {
    let fault = |why| Fault { at: table.to_owned(), why };
    replaced.map_err(|whys| whys.into_iter().map(fault).collect())
}

/// Tables that differ and are looked at when the gateway starts.
pub(super) fn at_a_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut listen = new.listen.clone();
    if old.listen.tls.is_some() && listen.tls.is_some() {
        // Another certificate is obeyed at once.
        listen.tls.clone_from(&old.listen.tls);
    }
    let tables = [
        ("listen", old.listen != listen),
        ("session", old.session != new.session),
        ("deadline", old.deadline != new.deadline),
        ("tasks", old.tasks != new.tasks),
        ("connect", old.connect != new.connect),
        ("store", old.store != new.store),
        ("log", old.log != new.log),
    ];
    names(&tables)
}

/// Those tables that differ.
fn names(tables: &[(&'static str, bool)]) -> Vec<&'static str> {
    tables.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
}
