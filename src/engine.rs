//! COMPOSITION ROOT, and the face for programs that embed the gateway: every part is built
//! here, and the stages are put in their order.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use waystation::{config::Config, engine::Plan};
//!
//! let plan = Plan::build(Config::default()).map_err(|faults| format!("{faults:?}"))?;
//! let gateway = plan.start().await;
//! // `gateway` is a tower Service from HTTP requests to HTTP responses.
//! # drop(gateway); Ok(()) }
//! ```

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio::{
    io::{AsyncBufRead, AsyncWrite},
    sync::mpsc,
};
use tower::Service;

mod difference; // what another configuration would change
mod keep; //   what is noted goes to disk
mod policy; // what decides about calls
mod reload; // what changes while it runs
mod sources; // backends, as the catalog has them

pub use difference::{Difference, Fate, Limit, Other};
pub use reload::Reloaded;

use policy::{Policy, Stack};
use reload::Live;
use sources::{Supplies, built_in, desk, source};

use crate::{
    backend::openrouter::Storeroom,
    call::{Caller, Permit},
    config::Config,
    listener::{self, Front, body::Body, connection, http::Http, saved, session::Sessions, stdio},
    middleware::{audit, cache, identify::Identify, limit, permit, tasks::Tasks as TaskTable},
    router::{
        Router,
        catalog::{Catalog, Source},
        own::Own,
        sampling::Way,
        seal::Seals,
        subscriptions::{Subscriptions, Updates},
    },
    store::{self, Store},
};

/// How many changes of resources a slow subscriber may be behind before it is told that all have
/// changed.
const UPDATES: usize = 1024;

/// What is wrong with a part, and in which table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub at: String,
    pub why: String,
}

/// A gateway with every part built, and nothing started.
#[derive(Debug)]
pub struct Plan {
    sources: Vec<Source>,
    own: Arc<Own>,
    identify: Option<Identify>,
    rules: permit::Policy,
    policy: Policy,
    supplies: Supplies,
    keeps_sessions: bool,
    /// What all of this was made of.
    config: Config,
}

impl Plan {
    /// Builds every part before giving up on any, so that all that is wrong comes at once.
    /// Nothing is opened, connected or started.
    pub fn build(config: Config) -> Result<Self, Vec<Fault>> {
        let Config {
            listen,
            identify,
            permit: rules,
            sets,
            limit,
            cache,
            audit,
            connect,
            backends,
            // These are obeyed by what is made at the start, or has been.
            session: _,
            deadline: _,
            tasks: _,
            store: _,
            log: _,
        } = &config;
        let own = Own::new(listen.address.to_string());
        let mut sources = vec![built_in(&own)];
        let updates = Updates::new(UPDATES);
        let mut faults = Vec::new();
        let storeroom = Storeroom::default();
        let desk = desk(connect, identify.audience.as_deref(), listen, &mut faults);
        let identify = part("identify", Identify::new(identify), &mut faults);
        let guarded = identify.is_some();
        let audit = part("audit", audit::Trail::new(audit, guarded).map(Some), &mut faults);
        let limit = part("limit", limit::Limits::new(limit).map(Some), &mut faults);
        let cache = cache::Replies::new(cache);
        let rules = part("permit", permit::Policy::new(rules, sets).map(Some), &mut faults);
        let supplies = desk.map(|desk| Supplies { updates, replies: Arc::clone(&cache), desk, storeroom });
        for (name, settings) in backends {
            if settings.enabled == Some(false) {
                continue;
            }
            // Without a desk there is a fault already.
            let Some(supplies) = &supplies else { continue };
            match source(name, settings.clone(), supplies) {
                Ok(source) => sources.push(source),
                Err(why) => faults.push(Fault { at: format!("backends.{name}"), why }),
            }
        }
        let (Some(audit), Some(limit), Some(rules), Some(supplies)) = (audit, limit, rules, supplies) else {
            return Err(faults);
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        own.connects(supplies.desk.is_needed());
        let policy = Policy::new(limit, cache, audit);
        policy.settle(guarded);
        Ok(Self { sources, own, identify, rules, policy, supplies, keeps_sessions: true, config })
    }

    /// The same, which leaves the sessions and tasks on disk alone: for a gateway that serves one
    /// client for a while, perhaps beside another with the same database.
    pub fn transient(self) -> Self {
        Self { keeps_sessions: false, ..self }
    }

    /// Opens the store and begins to read what the backends offer.
    pub async fn start(self) -> Waystation {
        let Self { sources, own, identify, rules, policy, supplies, keeps_sessions, config } = self;
        let Supplies { updates, replies: _, desk, storeroom } = supplies.clone();
        let Config { listen, session, deadline, tasks, store, .. } = config.clone();
        let store = open(&store).await;
        desk.open(store.clone(), &key_of(&store, "credential").await).await;
        let _ = storeroom.set(store.clone()); // It is new, and started once.
        let key = key_of(&store, "cursor").await;
        let catalog = Catalog::start(sources, store.clone()).await;
        own.watch(&catalog);
        let subscriptions = Subscriptions::new(updates);
        let (used, noted_used) = mpsc::unbounded_channel();
        let seals = Seals::new(&key, store.used().await, used);
        let rules = permit::Rules::new(rules);
        let permit = Arc::clone(&rules) as Arc<dyn Permit>;
        let (seen, heard) = (Arc::clone(&catalog), Arc::clone(&subscriptions));
        let router = Router::new(seen, heard, &key, seals, listen.page_size, permit);
        own.ask_of(&router);
        let tasks = TaskTable::new(tasks, store.clone());
        let runner = router.clone();
        tasks.start(move |call| runner.clone().call(call), keeps_sessions).await;
        let (journal, noted) = saved::journal();
        let sessions = Sessions::new(session, keeps_sessions.then_some(journal));
        let mut tended = policy.start(&store, &router).await;
        let stages = policy.stack(deadline, &tasks, router.clone());
        let way = router.sample_by(stages.clone());
        let front = Front::new(stages, Arc::clone(&sessions));
        if keeps_sessions {
            keep::restore(&store, &front).await;
        }
        tended.extend([
            tokio::spawn(keep::keep(store.clone(), noted, noted_used)).abort_handle(),
            tokio::spawn(sweep(Arc::clone(&sessions))).abort_handle(),
            tokio::spawn(tell(router.clone(), Arc::clone(&sessions))).abort_handle(),
        ]);
        let live = Live::start(identify, store, rules, supplies, config).await;
        let watchman = Arc::clone(&policy.audit) as _;
        let http = Http::new(front.clone(), live.guard.clone(), desk, watchman, &listen);
        let (listen, tasks) = (Arc::new(listen), Arc::new(Tasks(tended, way)));
        Waystation { http, front, catalog, router, subscriptions, own, policy, live, listen, tasks }
    }
}

/// A part, where it is configured; what is wrong with it is added to the faults.
fn part<T>(table: &str, made: Result<Option<T>, Vec<String>>, faults: &mut Vec<Fault>) -> Option<T> {
    made.unwrap_or_else(|whys| {
        faults.extend(whys.into_iter().map(|why| Fault { at: table.to_owned(), why }));
        None
    })
}

/// The store, or one that keeps nothing where no file can be had: the gateway is of use
/// without it, only forgetful.
async fn open(settings: &store::Settings) -> Store {
    match Store::open(settings).await {
        Ok(store) => store,
        Err(why) => {
            tracing::warn!(%why, "nothing will be kept over a restart");
            Store::in_memory().await.expect("a database in memory can be opened")
        }
    }
}

/// A secret that stays the same over restarts, where that can be had.
async fn key_of(store: &Store, name: &'static str) -> Vec<u8> {
    store.key(name).await.unwrap_or_else(|why| {
        tracing::warn!(%why, name, "what is sealed with this key will not outlive this run");
        random_key()
    })
}

fn random_key() -> Vec<u8> {
    let mut key = [0u8; 32];
    getrandom::fill(&mut key).expect("the system has random numbers");
    key.to_vec()
}

async fn sweep(sessions: Arc<Sessions>) {
    let mut every = tokio::time::interval(sessions.sweep_every());
    loop {
        every.tick().await;
        sessions.sweep();
    }
}

/// Tells clients with sessions of changed lists.
async fn tell(router: Router, sessions: Arc<Sessions>) {
    use tokio::sync::broadcast::error::RecvError;
    let mut changes = router.catalog().changes();
    loop {
        match changes.recv().await {
            Ok(change) => {
                let methods: BTreeSet<_> = change.seen.iter().map(|list| list.changed()).collect();
                for method in methods {
                    sessions.tell_all(&listener::changed(method));
                }
                let Some(before) = change.rules else { continue };
                sessions.tell_each(|caller, scope| {
                    let lists = router.sight(caller, scope.clone()).unlike(&*before);
                    let methods: BTreeSet<_> = lists.iter().map(|list| list.changed()).collect();
                    methods.into_iter().map(listener::changed).collect()
                });
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Tasks that end with the gateway, and the way of calls that it makes itself.
#[derive(Debug)]
struct Tasks(Vec<tokio::task::AbortHandle>, #[expect(dead_code, reason = "held for its end")] Way);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

/// A gateway at work. Clones are the same gateway.
#[derive(Debug, Clone)]
pub struct Waystation {
    http: Http<Stack>,
    front: Front<Stack>,
    catalog: Arc<Catalog>,
    router: Router,
    subscriptions: Arc<Subscriptions>,
    own: Arc<Own>,
    policy: Policy,
    live: Arc<Live>,
    listen: Arc<listener::Settings>,
    #[expect(dead_code, reason = "held for its end")]
    tasks: Arc<Tasks>,
}

impl Waystation {
    /// Builds and starts a gateway.
    pub async fn from_config(config: Config) -> Result<Self, Vec<Fault>> {
        Ok(Plan::build(config)?.start().await)
    }

    /// Must a request have its sender's `SocketAddr` among its extensions?
    pub fn tells_strangers_apart(&self) -> bool {
        self.live.guard.lets_strangers_in()
    }

    /// Answers one HTTP request.
    pub fn handle<B>(&self, request: Request<B>) -> impl Future<Output = Response<Body>>
    where
        B: http_body::Body<Data = Bytes, Error: Into<connection::Fault>> + Unpin,
    {
        self.http.handle(request)
    }

    /// Serves one client on a pipe until its input ends.
    pub async fn pipe<R, W>(&self, input: R, output: W) -> std::io::Result<()>
    where
        R: AsyncBufRead + Unpin,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        stdio::serve(&self.front, input, output, self.listen.body_limit.0).await
    }

    /// Waits until every backend has answered or failed once, but no longer than this.
    pub async fn settle(&self, longest: Duration) {
        self.catalog.settle(longest).await;
    }

    /// Is anything known of every backend, if only from an earlier run?
    pub fn is_known(&self) -> bool {
        self.catalog.is_known()
    }

    /// How the gateway and its backends are, as the tool `waystation__status` says it, and its
    /// cache where there is one.
    pub fn status(&self) -> serde_json::Value {
        let mut status = self.own.status();
        if self.policy.cache.is_on() {
            status["cache"] = self.policy.cache.status();
        }
        status
    }

    /// Forgets kept replies of what goes by names that fit, or all; says how many.
    pub fn clear_cache(&self, pattern: Option<&str>) -> usize {
        self.policy.cache.clear(pattern)
    }

    /// Why a tool, a prompt or a resource is there for a caller, or why it is not.
    pub fn explain(&self, caller: &Caller, name: &str) -> serde_json::Value {
        self.router.explain(caller, name)
    }

    /// Whose an `Authorization` header is.
    pub async fn whose(&self, authorization: &[u8]) -> Result<Caller, String> {
        let denied = |_| {
            "the token is not one that this gateway takes; at the log level debug the log says why".to_owned()
        };
        self.live.guard.whose(authorization).await.map_err(denied)
    }

    /// Sees to it that all sessions there are now are on disk.
    pub async fn write_down_sessions(&self) {
        self.front.sessions.kept().await;
    }

    /// Ends what clients have open, so that their connections can close.
    pub fn end_streams(&self) {
        self.subscriptions.closing.cancel();
        self.front.sessions.close_all();
    }

    /// Ends connections to backends, and children, in good order.
    pub async fn close(&self) {
        self.end_streams();
        self.front.sessions.kept().await;
        self.policy.audit.flush().await;
        self.policy.limit.keep().await; // The catalog closes the store.
        self.catalog.close().await;
    }
}

impl<B> Service<Request<B>> for Waystation
where
    B: http_body::Body<Data = Bytes, Error: Into<connection::Fault>> + Unpin + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let http = self.http.clone();
        Box::pin(async move { Ok(http.handle(request).await) })
    }
}
