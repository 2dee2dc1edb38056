//! What decides about calls, and in which order do they pass it?

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::AbortHandle;
use tower::Layer as _;

use crate::{
    middleware::{
        audit::{self, AuditLayer, Audited},
        cache::{self, CacheLayer, Cached},
        deadline::{self, Deadline, DeadlineLayer},
        limit::{self, LimitLayer, Limited},
        tasks::{Tasked, Tasks, TasksLayer},
    },
    router::{
        Router,
        aim::{AimLayer, Aimed},
    },
    store::Store,
};

/// What a call passes on its way to a backend, first to last.
pub type Stack = Aimed<Audited<Limited<Cached<Tasked<Deadline<Router>>>>>>;

/// What decides about calls. Each part lets everything pass where it is not configured, and may be
/// configured later. Clones are the same.
#[derive(Debug, Clone)]
pub struct Policy {
    pub limit: Arc<limit::Limits>,
    pub cache: Arc<cache::Replies>,
    pub audit: Arc<audit::Trail>,
    /// Must it be known beforehand whose a call is?
    aims: Arc<AtomicBool>,
}

impl Policy {
    pub fn new(limit: Arc<limit::Limits>, cache: Arc<cache::Replies>, audit: Arc<audit::Trail>) -> Self {
        Self { limit, cache, audit, aims: Arc::default() }
    }

    /// Calls are decided by what is configured now. `far`: callers come over a network, so limits
    /// hold that nobody wrote.
    pub fn settle(&self, far: bool) {
        let Self { limit, cache, audit, aims } = self;
        aims.store(far || limit.is_on() || cache.is_on() || audit.is_on(), Ordering::Relaxed);
    }

    /// Goes on with what is on disk; what it gives works until it is aborted.
    pub async fn start(&self, store: &Store, router: &Router) -> Vec<AbortHandle> {
        self.limit.restore(store.clone()).await;
        router.explain_with(Arc::clone(&self.limit) as _);
        router.explain_with(Arc::clone(&self.cache) as _);
        let mut tended = vec![tokio::spawn(Arc::clone(&self.limit).tend()).abort_handle()];
        tended.extend(self.audit.start(store));
        tended
    }

    pub fn stack(&self, deadline: deadline::Settings, tasks: &Arc<Tasks>, router: Router) -> Stack {
        let Self { limit, cache, audit, aims } = self.clone();
        let aim = AimLayer { router: router.clone(), wanted: aims };
        // Around all but what outlives it, so that the time spent at a backend counts.
        let next = DeadlineLayer::new(deadline, Some(Arc::clone(tasks))).layer(router);
        let next = TasksLayer(Arc::clone(tasks)).layer(next);
        // A reply that is there already costs nothing but the right to ask.
        let next = CacheLayer(cache).layer(next);
        let next = LimitLayer(limit).layer(next);
        // What is refused is noted as well.
        let next = AuditLayer(audit).layer(next);
        aim.layer(next)
    }
}
