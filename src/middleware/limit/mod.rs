//! How often may a caller do what?
//!
//! Three questions, in this order: has he called too often, has he used too much today, and is there
//! room for one more call just now? A call that any of them refuses costs nothing of the others.
//! Whom a call is counted for is who sent it, never the session that it came in: opening another
//! gains nothing.
//!
//! Lists and the like are counted apart, so that a client which called too often can still connect.
//! Notifications do not come by here at all, and what the gateway itself asks is free.

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use futures_util::{FutureExt as _, StreamExt as _};
use tower::{Layer, Service};

mod cells; //    what is left of a limit, for each caller
mod daily; //    what was used today
mod rate; //     how a limit is written
mod rules; //    which limits speak of a call
mod settings; // what can be said
mod slots; //    how many calls at once
mod usage; //    what a call has cost

pub use cells::MOST;
pub use rate::{Per, Rate, Rates};
pub use settings::Settings;

use crate::{
    call::{Aim, Answer, Call, Caller, Event, Reply, Replying, Stage},
    error::{Error, Reached, Result},
    store::Store,
    weaken,
    wire::mcp::Method,
};
use daily::{Counted, Daily};
use rules::{Rules, Taken, whose};
use slots::{Full, Held, Slots};
use usage::Usage;

/// How often what is full again is forgotten, and what was used is kept.
const TEND: Duration = Duration::from_secs(1);
/// What is waited before a call is made again for which there was no room.
const LATER: Duration = Duration::from_secs(1);

/// The limits, and what has been used of them.
#[derive(Debug)]
pub struct Limits {
    obeyed: ArcSwap<Obeyed>,
    slots: Arc<Slots>,
    daily: Daily,
    store: OnceLock<Store>,
}

/// What the settings say.
#[derive(Debug)]
struct Obeyed {
    settings: Settings,
    rules: Rules,
    most_a_day: daily::Most,
}

impl Limits {
    pub fn new(settings: &Settings) -> Result<Arc<Self>, Vec<String>> {
        let obeyed = Obeyed::new(settings, None)?;
        let slots = Slots::new(settings.slots());
        let (obeyed, daily) = (ArcSwap::from_pointee(obeyed), Daily::default());
        Ok(Arc::new(Self { obeyed, slots, daily, store: OnceLock::new() }))
    }

    /// Obeys other settings from the next call on. What was used of limits that stay the same stays
    /// used, and so does what was used today.
    pub fn replace(&self, settings: &Settings) -> Result<(), Vec<String>> {
        let obeyed = Obeyed::new(settings, Some(&self.obeyed.load().rules))?;
        self.obeyed.store(Arc::new(obeyed));
        self.slots.replace(settings.slots());
        Ok(())
    }

    /// Does anything written decide by whose a call is?
    pub fn is_on(&self) -> bool {
        self.obeyed.load().settings != Settings::default()
    }

    /// Goes on with what was used earlier today.
    pub async fn restore(&self, store: Store) {
        self.daily.restore(&store, SystemTime::now()).await;
        let _ = self.store.set(store); // There is one for all time.
    }

    /// Forgets what is full again and keeps what was used, for ever.
    pub async fn tend(self: Arc<Self>) {
        let mut every = tokio::time::interval(TEND);
        loop {
            every.tick().await;
            self.obeyed.load().rules.sweep();
            self.keep().await;
        }
    }

    /// Writes what was used today to disk.
    pub async fn keep(&self) {
        if let Some(store) = self.store.get() {
            self.daily.keep(store, SystemTime::now()).await;
        }
    }

    /// What is left for a caller, in lines such as `limit.per_caller 600/min: 59 left`; where an aim is
    /// given, with the limits of its backend and tool.
    pub fn describe(&self, caller: &Caller, aim: Option<&Aim>) -> Vec<String> {
        let obeyed = self.obeyed.load();
        let mut lines = obeyed.rules.describe(caller, aim);
        lines.extend(self.daily.describe(caller, &obeyed.most_a_day, SystemTime::now()));
        if obeyed.counts_at_once(caller) {
            let most = obeyed.settings.slots().per_caller;
            let left = most.saturating_sub(self.slots.of(&whose(caller)));
            lines.extend(
                (most < usize::MAX).then(|| format!("limit.at_once_per_caller {most} at once: {left} left")),
            );
        }
        lines
    }

    /// Counts a call for the day and finds room for it, or refuses it.
    async fn admit(&self, call: &Call, obeyed: &Obeyed, taken: Taken) -> Result<Admitted> {
        let counted = match self.count(call, obeyed) {
            Ok(counted) => counted,
            Err(refusal) => {
                taken.give_back();
                return Err(Error::Limited(refusal));
            }
        };
        let held = match self.room(call, obeyed).await {
            Ok(held) => held,
            Err(refusal) => {
                taken.give_back();
                counted.iter().for_each(|counted| self.daily.give_back(counted));
                return Err(Error::Limited(refusal));
            }
        };
        Ok(Admitted { counted, held })
    }

    fn count(&self, call: &Call, obeyed: &Obeyed) -> Result<Option<Counted>, Box<Reached>> {
        if obeyed.most_a_day.is_nothing() || goes_on(call) {
            return Ok(None);
        }
        self.daily.reserve(&call.caller, &obeyed.most_a_day, SystemTime::now()).map(Some)
    }

    /// A slot for a call, now or in a moment.
    async fn room(&self, call: &Call, obeyed: &Obeyed) -> Result<Option<Held>, Box<Reached>> {
        // What a backend asks in the middle of a call has the room of that call.
        let has_room = call.asked_by.is_some();
        if has_room || !obeyed.counts_at_once(&call.caller) || weaken::is("limit-slots") {
            return Ok(None);
        }
        let backend = call.aim.as_ref().map(|aim| &aim.backend);
        let share = obeyed.settings.share(&call.caller);
        let full = match self.slots.enter(&whose(&call.caller), backend, share) {
            Ok(held) => return Ok(Some(held)),
            Err(Err(full)) => full,
            Err(Ok(mut waiting)) => {
                match tokio::time::timeout(obeyed.settings.wait.0, &mut waiting.turn).await {
                    Ok(Ok(held)) => return Ok(Some(held)),
                    Ok(Err(_)) | Err(_) => waiting.full,
                }
            }
        };
        Err(Box::new(obeyed.no_room(full)))
    }
}

impl Obeyed {
    fn new(settings: &Settings, earlier: Option<&Rules>) -> Result<Self, Vec<String>> {
        let faults = settings.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let rules = Rules::new(settings, earlier);
        Ok(Self { settings: settings.clone(), rules, most_a_day: settings.daily() })
    }

    /// Whoever started the gateway himself is limited only where that is written.
    fn counts_at_once(&self, caller: &Caller) -> bool {
        *caller != Caller::Local || self.settings.slots_are_for_all()
    }

    /// Is there nothing to ask of a call beside how often it comes?
    fn lets_all_in(&self, caller: &Caller) -> bool {
        self.most_a_day.is_nothing() && !self.counts_at_once(caller)
    }

    fn no_room(&self, full: Full) -> Reached {
        let most = self.settings.slots();
        let (limit, most) = match full {
            Full::Caller => ("limit.at_once_per_caller", most.per_caller),
            Full::Backend => ("limit.at_once_per_backend", most.per_backend),
            Full::All => ("limit.at_once", most.all),
        };
        Reached { limit: limit.to_owned(), says: format!("{most} at once"), wait: LATER, policy: None }
    }
}

/// Is it a request by which a client finds its way, or asks how something is that it has begun?
fn discovers(method: Method) -> bool {
    match method {
        Method::Initialize
        | Method::Ping
        | Method::Discover
        | Method::Listen
        | Method::SetLevel
        | Method::Subscribe
        | Method::Unsubscribe
        | Method::ToolsList
        | Method::PromptsList
        | Method::ResourcesList
        | Method::TemplatesList
        | Method::SkillsList
        | Method::TasksGet
        | Method::TasksList
        | Method::TasksResult
        | Method::TasksCancel
        | Method::TasksUpdate => true,
        Method::ToolsCall
        | Method::PromptsGet
        | Method::ResourcesRead
        | Method::SkillsGet
        | Method::DirectoryRead
        | Method::Complete => false,
    }
}

/// Is it a further round of a call that was counted? The gateway makes those itself for clients with
/// sessions; others send them as requests of their own, and those count.
fn goes_on(call: &Call) -> bool {
    call.given.is_some() && call.session.is_some()
}

/// Is it only to tell a backend that nobody waits any more?
fn gone(call: &Call) -> bool {
    call.given.as_ref().is_some_and(|given| given.gone)
}

/// Was a call refused here, so that no backend heard of it?
fn came_to_nothing(error: &Error) -> bool {
    matches!(
        error,
        Error::UnknownMethod(_)
            | Error::UnknownTool(_)
            | Error::UnknownPrompt(_)
            | Error::UnknownResource(_)
            | Error::Params(_)
            | Error::NeedsExtension(_)
            | Error::Busy(_)
    )
}

/// A call that was let in.
#[derive(Debug)]
struct Admitted {
    counted: Option<Counted>,
    /// Kept until the last word of the reply.
    held: Option<Held>,
}

impl Admitted {
    /// Watches a reply to its end: what it has cost, and when there is room again.
    fn watch(self, limits: Arc<Limits>, reply: Result<Reply>) -> Result<Reply> {
        let Self { counted, held } = self;
        if let (Some(counted), Err(error)) = (&counted, &reply)
            && came_to_nothing(error)
        {
            limits.daily.give_back(counted);
        }
        let note = move |answer: &Answer| {
            if let (Some(counted), Some(usage)) = (&counted, Usage::of(answer)) {
                limits.daily.add(counted, usage, SystemTime::now());
            }
        };
        Ok(match reply? {
            Reply::Whole(answer) => {
                note(&answer);
                Reply::Whole(answer)
            }
            Reply::Stream(events) => {
                let noted = events.inspect(move |event| {
                    let _under_way = &held;
                    if let Ok(Event::Answer(answer)) = event {
                        note(answer);
                    }
                });
                Reply::Stream(noted.boxed())
            }
        })
    }
}

impl crate::call::Explain for Limits {
    fn explain(&self, caller: &Caller, aim: &Aim) -> Vec<String> {
        self.describe(caller, Some(aim))
    }
}

/// Puts it before a stage.
#[derive(Debug, Clone)]
pub struct LimitLayer(pub Arc<Limits>);

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, next: S) -> Limited<S> {
        Limited { limits: Arc::clone(&self.0), next }
    }
}

/// A stage with it before.
#[derive(Debug, Clone)]
pub struct Limited<S> {
    limits: Arc<Limits>,
    next: S,
}

impl<S: Stage> Service<Call> for Limited<S> {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Replying {
        if call.caller == Caller::Gateway || gone(&call) {
            return self.next.call(call);
        }
        let obeyed = self.limits.obeyed.load();
        let discovers = discovers(call.method) && !weaken::is("limit-no-discovery");
        let taken = match goes_on(&call) {
            true => Taken::default(),
            false => match obeyed.rules.admit(&call, discovers) {
                Ok(taken) => taken,
                Err(refusal) => return std::future::ready(Err(Error::Limited(refusal))).boxed(),
            },
        };
        if discovers || obeyed.lets_all_in(&call.caller) {
            return self.next.call(call);
        }
        let (limits, obeyed, mut next) = (Arc::clone(&self.limits), Arc::clone(&obeyed), self.next.clone());
        Box::pin(async move {
            let admitted = limits.admit(&call, &obeyed, taken).await?;
            let reply = next.call(call).await;
            admitted.watch(limits, reply)
        })
    }
}
