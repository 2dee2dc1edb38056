//! What do all tools of a backend work with, and who keeps it in order?

use std::{
    fmt,
    net::Ipv4Addr,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use dashmap::DashMap;
use jiff::Timestamp;
use tokio::{task::AbortHandle, time::sleep};

use super::{
    catalog::Catalog,
    learned::Lessons,
    line::Line,
    money::Money,
    policy::Policy,
    settings::{Resolved, Settings},
    turn::Making,
    upstream::{Key, Keys, Upstream},
    watched::Watched,
};
use crate::{
    simulator::{self, Simulator},
    store::{
        Store,
        conversations::{self, Budgets, ConversationId, Conversations, CostSource, TurnId, Usage},
    },
};

/// How often is looked for turns that nobody works at any more, and for costs that are not known; oftener
/// where such turns are given up sooner.
const RECOVERED: Duration = Duration::from_secs(15);
/// How often old conversations are removed.
const SWEPT: Duration = Duration::from_secs(60);
/// Costs that are asked for at a time.
const ASKED: u32 = 16;
/// How long is waited before a cost is asked for again: as long as this at first, and twice as long
/// each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// How long keeping what is under way may take at the end.
const CLOSED: Duration = Duration::from_secs(5);
/// Tries after which an estimate stays one: about a day of them.
const TRIES: u32 = 150;

/// One backend at work.
pub struct Work {
    pub name: Arc<str>,
    pub settings: Settings,
    pub resolved: Resolved,
    pub upstream: Upstream,
    pub policy: Policy,
    pub catalog: Arc<Catalog>,
    pub conversations: Arc<dyn Conversations>,
    /// It is the simulator that answers.
    pub simulated: bool,
    /// Turns that are answered here now.
    pub making: DashMap<TurnId, Arc<Making>>,
    /// Who waits to say something in which conversation.
    pub lines: DashMap<ConversationId, Arc<Line>>,
    pub lessons: Lessons,
    pub watched: Arc<Watched>,
    store: Store,
    #[expect(dead_code, reason = "held for its end")]
    simulator: Option<Simulator>,
    tended: Mutex<Option<AbortHandle>>,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Work {
    /// Opens what is needed; with the reason where it cannot be had.
    pub async fn open(
        (name, watched): (Arc<str>, Arc<Watched>),
        settings: Settings,
        resolved: Resolved,
        store: &Store,
    ) -> Result<Arc<Self>, String> {
        let simulated = settings.is_simulated();
        let mut simulator = None;
        let (mut way, mut keys) = (settings.upstream.clone(), resolved.keys.clone());
        if simulated {
            let started =
                Simulator::start(simulator::Settings::demo(), (Ipv4Addr::LOCALHOST, 0).into()).await;
            let started = started.map_err(|why| format!("the simulator cannot listen: {why}"))?;
            way.base_url = started.base_url();
            let key = |text| Key::new(text).map(Some);
            keys = Keys { inference: key(simulator::KEY)?, management: key(simulator::MANAGEMENT_KEY)? };
            simulator = Some(started);
            tracing::warn!(
                backend = &*name,
                "no api_key is set: a simulator answers, and every answer says so"
            );
        }
        let upstream = Upstream::new(&way, keys)?;
        let all = upstream.clone();
        let fetch = move || -> futures_util::future::BoxFuture<'static, _> {
            let all = all.clone();
            Box::pin(async move {
                all.models(&[("output_modalities", "all")]).await.map_err(|why| why.to_string())
            })
        };
        let catalog = Catalog::open(settings.catalog.clone(), Arc::new(fetch)).await;
        let conversations = conversations::open(store, resolved.options.clone()).await;
        let conversations = conversations.map_err(|why| match why {
            conversations::Error::Unavailable(why) => format!("conversations cannot be kept: {why}"),
            why => why.to_string(),
        })?;
        let lessons = Lessons::open(store, &name).await;
        let work = Arc::new(Self {
            policy: Policy::new(&settings.retry),
            name,
            settings,
            resolved,
            upstream,
            catalog,
            conversations,
            simulated,
            making: DashMap::new(),
            lines: DashMap::new(),
            lessons,
            watched,
            store: store.clone(),
            simulator,
            tended: Mutex::default(),
        });
        let tended = tokio::spawn(tend(Arc::downgrade(&work))).abort_handle();
        *work.tended.lock().expect("no code panics while it holds this lock") = Some(tended);
        Ok(work)
    }

    pub fn budgets(&self) -> Budgets {
        let nanos = |money: Option<Money>| money.map(Money::nanos);
        Budgets { own: nanos(self.resolved.daily_budget), tenant: nanos(self.resolved.tenant_daily_budget) }
    }

    /// Ends turns that nobody works at, and asks what they have cost.
    async fn recover(&self) -> Result<(), conversations::Error> {
        let now = Timestamp::now();
        let recovered = self.conversations.recover(now).await?;
        if !recovered.failed.is_empty() || !recovered.incomplete.is_empty() {
            tracing::warn!(
                backend = &*self.name,
                failed = recovered.failed.len(),
                incomplete = recovered.incomplete.len(),
                "turns were ended that another process had left"
            );
        }
        for unsettled in self.conversations.unsettled(now, ASKED).await? {
            let known = self.upstream.generation(&unsettled.generation).await.ok().flatten();
            let Some(known) = known.filter(|known| known.total_cost.is_some()) else {
                let pause = FIRST_PAUSE.saturating_mul(1 << unsettled.tries.min(16)).min(LONGEST_PAUSE);
                let again =
                    (unsettled.tries < TRIES).then(|| Timestamp::now().checked_add(pause).ok()).flatten();
                self.conversations.postpone(unsettled.turn, again).await?;
                continue;
            };
            let count =
                |tokens: Option<u64>| tokens.and_then(|tokens| i64::try_from(tokens).ok()).unwrap_or(0);
            let usage = Usage {
                prompt_tokens: count(known.native_tokens_prompt),
                completion_tokens: count(known.native_tokens_completion),
                reasoning_tokens: count(known.native_tokens_reasoning),
                cached_tokens: count(known.native_tokens_cached),
                cost: known.total_cost.map_or(0, Money::nanos),
                source: CostSource::Reconciled,
            };
            self.conversations.reconcile(unsettled.turn, usage, Timestamp::now()).await?;
        }
        Ok(())
    }

    /// Ends what is being answered, and waits until it is kept.
    pub async fn close(&self) {
        self.making.iter().for_each(|making| making.unwanted.cancel());
        let kept = async {
            while !self.making.is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(CLOSED, kept).await.is_err() {
            tracing::warn!(backend = &*self.name, "answers could not be kept in time");
        }
        self.lessons.keep(&self.store, &self.name).await;
    }

    async fn sweep(&self) -> Result<(), conversations::Error> {
        while self.conversations.sweep(Timestamp::now()).await?.more {}
        while self.conversations.rewrap(100).await? > 0 {}
        self.lines.retain(|_, line| Arc::strong_count(line) > 1);
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Ok(Some(tended)) = self.tended.get_mut().map(Option::take) {
            tended.abort();
        }
    }
}

/// Keeps what is kept in order, as long as somebody works with it.
async fn tend(work: Weak<Work>) {
    let mut since_sweep = SWEPT;
    loop {
        let Some(work) = work.upgrade() else { return };
        let mut done = work.recover().await;
        work.lessons.keep(&work.store, &work.name).await;
        if since_sweep >= SWEPT {
            since_sweep = Duration::ZERO;
            done = done.and(work.sweep().await);
        }
        if let Err(why) = done {
            tracing::warn!(backend = &*work.name, ?why, "conversations could not be kept in order");
        }
        let pause = RECOVERED.min(work.settings.lease.0);
        drop(work);
        sleep(pause).await;
        since_sweep += pause;
    }
}
