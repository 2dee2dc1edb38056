//! How is one message of a conversation answered, so that nothing is lost and nothing is paid twice?
//!
//! A turn is made by a task of its own, which outlives its caller long enough to keep what there is:
//! 1. the message and the right to answer it are on disk,
//! 2. that the model is being asked is on disk, and then it is asked,
//! 3. what comes is kept every few seconds,
//! 4. the answer and its cost are on disk, and then the caller is told.
//!
//! A turn of which it is not known whether the model was asked is never begun again by itself.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, interval_at},
};

use super::{
    Task,
    ask::{Chosen, Used, Wishes, kept, spent},
    context::Fitted,
    feed::Feed,
    history,
    money::Money,
    policy::{self, Answer, Smaller, Unanswered},
    refused::Refused,
    upstream::{Code, Completion, Event, Overflow},
};
use crate::store::conversations::{
    self as kept_as, Begun, ConversationId, Entry, Failed, Finish, NewTurn, Reservation, Turn, TurnId,
    TurnState, Usage,
};

/// How often what has come of an answer is kept, and after how much of it.
const KEPT_EVERY: Duration = Duration::from_secs(2);
const KEPT_AFTER: usize = 4 << 10;

/// The making of a turn's answer, and what came of it.
pub type Making = Feed<Outcome>;
pub type Outcome = Result<Arc<Ended>, Refused>;
type Made = Result<Ended, Refused>;

/// A turn that has ended with something.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub turn: TurnId,
    pub conversation: ConversationId,
    pub text: String,
    pub reasoning: String,
    pub model_requested: String,
    pub model_used: String,
    pub provider: Option<String>,
    pub generation: Option<String>,
    pub finish_reason: Option<String>,
    /// None: the answer is whole.
    pub incomplete: Option<String>,
    pub used: Used,
    /// What was told besides; kept with the turn, so that it can be told again.
    pub besides: Value,
    pub user_message: Option<String>,
    pub assistant_message: Option<String>,
    pub version: Option<i64>,
    /// It was answered before, and nothing was asked now.
    pub replayed: bool,
}

/// What is to be answered.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub new: NewTurn,
    pub chosen: Chosen,
    pub wishes: Wishes,
    pub fitting: history::Fitting,
    /// The message as it is sent now, with its attachments; none to run an earlier one again.
    pub message: Option<history::Said>,
}

impl Task {
    /// Has a task of its own make the answer. Nobody else says anything meanwhile who would need the floor.
    pub fn make(
        self: &Arc<Self>,
        begun: Begun,
        wanted: Arc<Wanted>,
        floor: Option<Arc<OwnedSemaphorePermit>>,
    ) -> Arc<Making> {
        let feed = Making::new();
        let id = begun.lease.turn;
        self.work.making.insert(id, Arc::clone(&feed));
        let (task, making) = (Arc::clone(self), Arc::clone(&feed));
        tokio::spawn(async move {
            let conversation = begun.conversation.id;
            let outcome = Maker { task: &task, begun, wanted, feed: &making }.make().await;
            task.work.making.remove(&id);
            task.changed(conversation);
            drop(floor); // Whoever is next finds the turn ended.
            making.end(outcome.map(Arc::new).map_err(|refused| refused.of_turn(conversation, id)));
        });
        feed
    }
}

impl Ended {
    /// Of a turn that ended before.
    pub fn again(turn: &Turn) -> Outcome {
        if turn.state == TurnState::Failed {
            let code = turn.error.as_deref().and_then(Code::named).unwrap_or(Code::Internal);
            let mut refused = Refused::new(code, format!("this turn came to nothing: {}", code.meaning()));
            refused.retryable = true;
            return Err(refused.of_turn(turn.conversation, turn.id));
        }
        let besides = turn.result.clone().unwrap_or_default();
        let used = besides.get("usage").cloned().and_then(|used| serde_json::from_value(used).ok());
        Ok(Arc::new(Self {
            turn: turn.id,
            conversation: turn.conversation,
            text: turn.answer.as_ref().map(|answer| answer.text.clone()).unwrap_or_default(),
            reasoning: turn.answer.as_ref().map(history::reasoning_of).unwrap_or_default(),
            model_requested: turn.model_requested.clone(),
            model_used: turn.model_used.clone().unwrap_or_else(|| turn.model_requested.clone()),
            provider: turn.provider.clone(),
            generation: turn.generation.clone(),
            finish_reason: turn.finish_reason.clone(),
            incomplete: turn.incomplete_reason.clone(),
            used: used.unwrap_or_default(),
            besides,
            user_message: Some(turn.user_message.to_string()),
            assistant_message: turn.answer.as_ref().map(|answer| answer.id.to_string()),
            version: None,
            replayed: true,
        }))
    }
}

/// Makes one answer.
struct Maker<'a> {
    task: &'a Arc<Task>,
    begun: Begun,
    wanted: Arc<Wanted>,
    feed: &'a Arc<Making>,
}

/// A request that is about to be sent.
struct Ready {
    fitted: Fitted,
    /// What the whole conversation is, for another try with less of it.
    history: history::Fittable,
    /// With what follows from what is sent.
    wishes: Wishes,
    estimate: Money,
    reservation: Option<Reservation>,
}

/// How asking the model ended.
enum Asked {
    Answered(Box<Answer>),
    Unanswered(Box<Unanswered>),
    /// Nobody wants it any more; this is what had come.
    Unwanted {
        text: String,
        generation: Option<String>,
    },
}

/// What came of asking, and has to be kept.
struct Came {
    completion: Completion,
    report: policy::Report,
    /// None: the answer is whole.
    incomplete: Option<String>,
    usage: Usage,
}

impl Maker<'_> {
    async fn make(self) -> Made {
        let lease = self.begun.lease;
        let prepared = tokio::select! {
            prepared = self.prepare() => prepared,
            () = self.feed.unwanted.cancelled() => {
                Err(Refused::new(Code::Cancelled, "nobody waits for the answer any more; nothing was sent"))
            }
        };
        let ready = match prepared {
            Ok(ready) => ready,
            Err(refused) => {
                let failed = Failed { code: refused.code.as_str().into(), entry: None, reservation: None };
                self.task.own.fail(lease, failed, Timestamp::now()).await?;
                return Err(refused);
            }
        };
        // From here on it may be that the model was asked.
        self.task.own.sent(lease, None, Timestamp::now()).await?;
        let (estimate, reservation) = (ready.estimate, ready.reservation);
        let estimated = ready.fitted.report.estimated_prompt_tokens;
        let context = ready.fitted.report;
        let asked = self.ask(ready).await;
        match &asked {
            Asked::Answered(answer) => self.task.work.lessons.tried(&answer.report.attempts),
            Asked::Unanswered(unanswered) => self.task.work.lessons.tried(&unanswered.report.attempts),
            Asked::Unwanted { .. } => {}
        }
        if let Asked::Answered(answer) = &asked {
            let reported = answer.completion.usage.as_ref().map_or(0, |usage| usage.prompt_tokens);
            self.task.work.lessons.counted(&self.wanted.chosen.id, reported, estimated);
        }
        self.end(asked, estimate, reservation, &context).await
    }

    /// Chooses what of the conversation is sent, and sets its cost aside.
    async fn prepare(&self) -> Result<Ready, Refused> {
        let Self { task, begun, wanted, .. } = self;
        let history = history::load(task, begun, wanted).await?;
        let fitted = history.fit(task, &wanted.chosen, &wanted.wishes)?;
        let mut wishes = wanted.wishes.clone();
        let least = task.work.settings.prompt_cache_from;
        wishes.keep_prompt(&wanted.chosen, least > 0 && fitted.stable_tokens >= least);
        if fitted.compress {
            let plugin = serde_json::json!({ "id": "context-compression", "engine": "middle-out" });
            wishes.extra.insert("plugins".into(), Value::Array(vec![plugin]));
        }
        let used = task.uses(&wanted.chosen, fitted.report.estimated_prompt_tokens, &wishes);
        let estimate = task.estimate(&wanted.chosen, used, wishes.max_cost_usd)?;
        let reservation = task.reserve(estimate).await?;
        Ok(Ready { fitted, history, wishes, estimate, reservation })
    }

    /// Asks the model, and keeps what comes.
    async fn ask(&self, ready: Ready) -> Asked {
        let Self { task, begun, wanted, feed } = self;
        let Ready { fitted, history, wishes, .. } = ready;
        let session = task.own.alias_of(begun.conversation.id);
        let request = task.request(&wanted.chosen, fitted.messages, &wishes, Some(session));
        let refit = |model: &str, overflow: Overflow| {
            let limit = overflow.limit?;
            task.work.lessons.window_is(model, limit);
            let fitted = history.fit(task, &wanted.chosen, &wanted.wishes).ok()?;
            Some(Smaller { messages: fitted.messages, max_completion_tokens: None })
        };
        let call = policy::Call {
            request,
            principal: &task.who,
            fallback_models: &wanted.wishes.fallback_models,
            terms: task.terms(&wanted.wishes),
            refit: Some(&refit),
        };
        let (opened, mut generations) = mpsc::unbounded_channel();
        let mut sink = |event| match event {
            Event::Opened { generation_id } => drop(opened.send(generation_id)),
            Event::Delta(text) => feed.text(&text),
            Event::Reasoning(text) => feed.reasoning(&text),
            Event::Status(status) => feed.remark(status.to_string()),
            Event::ToolCall { .. } => {}
        };
        let mut generation = None;
        let mut run = std::pin::pin!(task.work.policy.run(&task.work.upstream, call, &mut sink));
        let mut keeping = interval_at(Instant::now() + KEPT_EVERY, KEPT_EVERY);
        let mut kept_to = 0;
        loop {
            tokio::select! {
                biased;
                () = feed.unwanted.cancelled() => {
                    return Asked::Unwanted { text: feed.so_far(), generation };
                }
                asked = &mut run => {
                    return match asked {
                        Ok(answer) => Asked::Answered(Box::new(answer)),
                        Err(unanswered) => Asked::Unanswered(unanswered),
                    };
                }
                Some(id) = generations.recv() => {
                    generation = id.or(generation);
                    self.noted(task.own.sent(begun.lease, generation.clone(), Timestamp::now()).await);
                }
                _ = keeping.tick() => {
                    let text = feed.so_far();
                    let done = if text.len() > kept_to {
                        kept_to = text.len();
                        task.own.checkpoint(begun.lease, text, Timestamp::now()).await
                    } else {
                        task.own.renew(begun.lease, Timestamp::now()).await
                    };
                    self.noted(done);
                }
                () = feed.grows(kept_to + KEPT_AFTER) => {
                    let text = feed.so_far();
                    kept_to = text.len();
                    self.noted(task.own.checkpoint(begun.lease, text, Timestamp::now()).await);
                }
            }
        }
    }

    /// A turn that was taken over need not be answered here any more.
    fn noted(&self, done: Result<(), kept_as::Error>) {
        match done {
            Ok(()) => {}
            Err(kept_as::Error::Fenced) => self.feed.unwanted.cancel(),
            Err(why) => tracing::warn!(?why, "a part of an answer could not be kept"),
        }
    }

    /// What came of it; the failure where nothing did.
    fn came(&self, asked: Asked, estimate: Money) -> Result<Came, Box<Unanswered>> {
        Ok(match asked {
            Asked::Answered(answer) => {
                let Answer { completion, report } = *answer;
                let cut = |reason: &&str| matches!(*reason, "length" | "content_filter");
                let incomplete = completion.finish_reason.as_deref().filter(cut).map(str::to_owned);
                let usage = kept(completion.usage.as_ref(), estimate);
                Came { completion, report, incomplete, usage }
            }
            Asked::Unanswered(unanswered) if unanswered.failure.partial.is_empty() => return Err(unanswered),
            Asked::Unanswered(unanswered) => {
                let usage = wasted(&unanswered, estimate);
                let Unanswered { failure, report } = *unanswered;
                let incomplete = Some(failure.broken_by.as_str().to_owned());
                Came { completion: *failure.partial, report, incomplete, usage }
            }
            Asked::Unwanted { text, generation } => {
                let completion = Completion { text, generation_id: generation, ..Completion::default() };
                let report = policy::Report { model: self.wanted.chosen.id.clone(), ..Default::default() };
                let (incomplete, usage) = (Some("cancelled".to_owned()), kept(None, estimate));
                Came { completion, report, incomplete, usage }
            }
        })
    }

    /// Keeps that nothing came of it, and what that has cost all the same.
    async fn fail(
        &self,
        unanswered: &Unanswered,
        estimate: Money,
        reservation: Option<Reservation>,
    ) -> Refused {
        let Self { task, begun, wanted, .. } = self;
        let Unanswered { failure, report } = unanswered;
        let usage = wasted(unanswered, estimate);
        let entry = (usage.cost > 0 || usage.completion_tokens > 0).then(|| Entry {
            tool: "chat".into(),
            simulated: task.work.simulated,
            model: report.model.clone(),
            generation: failure.partial.generation_id.clone(),
            usage,
            ..Entry::default()
        });
        let failed = Failed { code: failure.code.as_str().into(), entry, reservation };
        match task.own.fail(begun.lease, failed, Timestamp::now()).await {
            Ok(()) => Refused::failed(failure, &wanted.chosen.models, &wanted.chosen.id),
            Err(why) => why.into(),
        }
    }

    /// Keeps what came of it. Only then it is told.
    async fn end(
        &self,
        asked: Asked,
        estimate: Money,
        reservation: Option<Reservation>,
        context: &super::context::Report,
    ) -> Made {
        let Self { task, begun, wanted, feed } = self;
        let Came { completion, report, incomplete, usage } = match self.came(asked, estimate) {
            Ok(came) => came,
            Err(unanswered) => return Err(self.fail(&unanswered, estimate, reservation).await),
        };
        let mut entry = Entry { tool: "chat".into(), simulated: task.work.simulated, ..Entry::default() };
        entry.model = completion.model.clone().unwrap_or_else(|| report.model.clone());
        entry.provider.clone_from(&completion.provider);
        entry.generation.clone_from(&completion.generation_id);
        entry.usage = usage;
        let used = Used::of(&entry.usage);
        let besides = history::besides(task, &completion, &report, context, &used);
        let said = !completion.is_empty();
        let finish = Finish {
            incomplete_reason: incomplete.clone(),
            answer: said.then(|| history::answer(&completion)),
            finish_reason: completion.finish_reason.clone(),
            result: Some(besides.clone()),
            entry: entry.clone(),
            reservation,
        };
        let finished = task.own.finish(begun.lease, finish, Timestamp::now()).await.map_err(unkept)?;
        // A provider that says nothing piece by piece says it at the end.
        let told = feed.so_far();
        if let Some(rest) = completion.text.strip_prefix(&told) {
            feed.text(rest);
        }
        Ok(Ended {
            turn: begun.lease.turn,
            conversation: begun.conversation.id,
            text: completion.text,
            reasoning: completion.reasoning,
            model_requested: wanted.chosen.id.clone(),
            model_used: entry.model,
            provider: entry.provider,
            generation: entry.generation,
            finish_reason: completion.finish_reason,
            incomplete,
            used,
            besides,
            user_message: Some(begun.message.id.to_string()),
            assistant_message: finished.assistant_message.map(|id| id.to_string()),
            version: Some(finished.version),
            replayed: false,
        })
    }
}

/// An answer that came and is not on disk is none: it would not be there when it is asked for again.
fn unkept(why: kept_as::Error) -> Refused {
    let unavailable = matches!(why, kept_as::Error::Unavailable(_));
    let mut refused = Refused::from(why);
    if unavailable {
        refused.message =
            "the model answered, but the answer could not be kept; see conversation_get later".into();
    }
    refused
}

/// What was used by a call that failed. What was said is paid for, also where it is not said how much.
fn wasted(Unanswered { failure, report }: &Unanswered, estimate: Money) -> Usage {
    let partial = &failure.partial;
    match partial.usage.as_ref() {
        None if partial.has_content() => kept(None, estimate),
        usage if partial.has_content() => kept(Some(&spent(usage, report)), estimate),
        usage => kept(Some(&spent(usage, report)), Money::ZERO),
    }
}
