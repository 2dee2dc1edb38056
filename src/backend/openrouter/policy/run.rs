//! How does one call come to its answer?
//!
//! One request after the other: each is tried, what came of it is judged, and the next is made by
//! what was decided.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    super::upstream::{ChatRequest, Code, Completion, Event, Failure, Overflow, Phase, Status, Usage},
    Attempt, Call, Chat, Policy, Refit, Told,
    breaker::{Open, Try},
    decide::{self, Most, Next, Terms, Tried},
    extend,
    free::is_free,
    joint::Joint,
};

/// How long free calls are given up for where it is not said.
const FREE_AGAIN: Duration = Duration::from_secs(3600);

/// A call that is being answered.
pub struct Run<'a> {
    policy: &'a Policy,
    chat: &'a dyn Chat,
    pub request: ChatRequest,
    fallbacks: std::slice::Iter<'a, String>,
    pub terms: Terms,
    refit: Option<Refit<'a>>,
    pub told: Told<'a>,
    pub tried: Tried,
    deadline: Instant,
}

/// A request that brought nothing.
pub struct Failed {
    pub failure: Box<Failure>,
    /// Set where there is nothing left to decide.
    step: Option<Next>,
}

impl From<Box<Failure>> for Failed {
    fn from(failure: Box<Failure>) -> Self {
        Self { failure, step: None }
    }
}

impl<'a> Run<'a> {
    pub fn new(policy: &'a Policy, chat: &'a dyn Chat, call: Call<'a>, mut told: Told<'a>) -> Self {
        let Call { request, principal: _, fallback_models, terms, refit } = call;
        told.report.model.clone_from(&request.model);
        let (tried, deadline) = (Tried::default(), chat.deadline());
        Self { policy, chat, request, fallbacks: fallback_models.iter(), terms, refit, told, tried, deadline }
    }

    /// The answer, or the last failure.
    pub async fn answer(&mut self) -> Result<Completion, Box<Failure>> {
        let mut whole = self.first().await?;
        if self.terms.auto_continue && extend::may_go_on(&self.request, &whole) {
            self.extend(&mut whole).await;
        }
        let wasted = &self.told.report.wasted;
        if *wasted != Usage::default() {
            whole.usage.get_or_insert_default().add(wasted);
        }
        Ok(whole)
    }

    /// The first piece of it, which for most is all.
    async fn first(&mut self) -> Result<Completion, Box<Failure>> {
        loop {
            // Taken out and put back, since attachments make it too large to copy.
            let request = std::mem::take(&mut self.request);
            let outcome = self.once(&request, &mut None).await;
            self.request = request;
            let Failed { failure, step } = match outcome {
                Err(failed) => failed,
                Ok(completion) if !completion.is_empty() => return Ok(completion),
                Ok(nothing) => match self.after_nothing(nothing) {
                    None => continue,
                    Some(failure) => return Err(failure),
                },
            };
            match step.unwrap_or_else(|| self.next(&failure)) {
                Next::Retry { after } => self.wait(failure.code, after).await,
                Next::Cap { tokens } => {
                    self.request.max_completion_tokens = Some(tokens);
                    self.told.status(Status::Capped { tokens });
                }
                Next::Refit => {
                    if !self.refit(&failure.message) {
                        return Err(failure);
                    }
                }
                Next::Fallback => {
                    if !self.fall_back(&failure) {
                        return Err(failure);
                    }
                }
                Next::GiveUp => return Err(failure),
            }
            if let Some(usage) = &failure.partial.usage {
                self.told.report.wasted.add(usage);
            }
        }
    }

    /// What is to be done about a failure.
    pub fn next(&mut self, failure: &Failure) -> Next {
        let most = Most { retries: self.policy.retries, wait: self.policy.max_wait };
        let left = self.deadline.saturating_duration_since(Instant::now());
        decide::next(failure, &mut self.tried, &self.terms, most, left, chance())
    }

    pub async fn wait(&mut self, why: Code, after: Duration) {
        self.told.status(Status::Retrying { why, after });
        tokio::time::sleep(after).await;
    }

    fn refit(&mut self, message: &str) -> bool {
        let overflow = Overflow::read(message);
        let Some(smaller) = self.refit.and_then(|refit| refit(&self.request.model, overflow)) else {
            return false;
        };
        self.request.messages = smaller.messages;
        self.request.max_completion_tokens =
            smaller.max_completion_tokens.or(self.request.max_completion_tokens);
        self.told.status(Status::Refitted { limit: overflow.limit });
        true
    }

    /// Goes on with another model, if there is one and it may help.
    fn fall_back(&mut self, failure: &Failure) -> bool {
        if failure.phase == Phase::Connecting && failure.code != Code::ModelUnavailable {
            return false; // No model can be reached then.
        }
        let Some(to) = self.fallbacks.next() else { return false };
        let from = std::mem::replace(&mut self.request.model, to.clone());
        self.told.report.model.clone_from(to);
        self.told.status(Status::FellBack { from, to: to.clone(), why: failure.code });
        true
    }

    /// An answer with nothing in it: goes on, or says why not. Nothing has been said to the sink then
    /// but what the model thought.
    fn after_nothing(&mut self, nothing: Completion) -> Option<Box<Failure>> {
        let blocked = nothing.finish_reason.as_deref() == Some("content_filter") || nothing.refusal.is_some();
        let unsaid = nothing.text.is_empty() && !blocked;
        let usage = nothing.usage.clone().unwrap_or_default();
        let thought = usage.completion_tokens > 0 || nothing.has_content();
        if unsaid && thought && nothing.was_cut() && !std::mem::replace(&mut self.tried.more_room, true) {
            let had = self.request.max_completion_tokens.unwrap_or(usage.completion_tokens);
            let tokens = had.saturating_mul(4).min(self.terms.max_output_tokens);
            if tokens > had {
                self.told.report.wasted.add(&usage);
                self.request.max_completion_tokens = Some(tokens);
                self.told.status(Status::MoreRoom { tokens });
                return None;
            }
        }
        if unsaid && !thought && !std::mem::replace(&mut self.tried.elsewhere, true) {
            self.told.report.wasted.add(&usage);
            if let Some(provider) = &nothing.provider {
                self.request.ignore_provider(provider);
            }
            self.told.status(Status::Elsewhere { without: nothing.provider });
            return None;
        }
        let (code, why) = match &nothing.refusal {
            Some(refusal) => (Code::ContentBlocked, format!("the model refused: {refusal}")),
            None if blocked => (Code::ContentBlocked, "the answer was blocked by the provider".to_owned()),
            None if nothing.was_cut() => {
                let why = "the model spent all its tokens on reasoning; allow a longer answer or less effort";
                (Code::EmptyAnswer, why.to_owned())
            }
            None => (Code::EmptyAnswer, "the model gave an empty answer".to_owned()),
        };
        let mut failure = Failure::new(code, Phase::Answering, why);
        (failure.provider, failure.partial) = (nothing.provider.clone(), Box::new(nothing));
        Some(Box::new(failure))
    }

    /// Sends one request, once. `joint` sees to what an answer that goes on repeats.
    pub async fn once(
        &mut self,
        request: &ChatRequest,
        joint: &mut Option<Joint>,
    ) -> Result<Completion, Failed> {
        let now = Instant::now();
        let breakers = &self.policy.breakers;
        let upstream = breakers.admit(self.chat.base_url(), now).map_err(|open| {
            let why = "the upstream has failed too often and is left alone for a moment";
            Failed { failure: resting(Code::UpstreamUnavailable, why, open, now), step: Some(Next::GiveUp) }
        })?;
        let model = breakers.admit(&request.model, now).map_err(|open| {
            let why = "the model has failed too often and is left alone for a moment";
            Failed { failure: resting(Code::ModelUnavailable, why, open, now), step: Some(Next::Fallback) }
        })?;
        self.has_free_calls(request)?;
        let Told { sink, report } = &mut self.told;
        report.requests += 1;
        let (sent, mut first) = (Instant::now(), None);
        let mut listen = |event: Event| {
            if let Event::Delta(_) | Event::Reasoning(_) | Event::ToolCall { .. } = event {
                first.get_or_insert_with(|| sent.elapsed());
            }
            match (event, joint.as_mut()) {
                (Event::Delta(text), Some(joint)) => {
                    if let Some(text) = joint.push(&text) {
                        sink(Event::Delta(text));
                    }
                }
                (event, _) => {
                    if let Event::Opened { generation_id: Some(id) } = &event {
                        report.generation_ids.push(id.clone());
                    }
                    sink(event);
                }
            }
        };
        let outcome = self.chat.chat(request, self.deadline, &mut listen).await;
        let so_far = outcome.as_ref().unwrap_or_else(|failure| &failure.partial);
        if let Some(id) = so_far.generation_id.as_ref().filter(|id| !report.generation_ids.contains(id)) {
            report.generation_ids.push(id.clone());
        }
        report.attempts.extend(attempt(&request.model, &outcome, first, sent.elapsed()));
        judge(outcome.as_ref().err().map(AsRef::as_ref), upstream, model);
        if let Err(failure) = &outcome
            && failure.is_daily()
        {
            let until = failure.resets_at.unwrap_or_else(|| SystemTime::now() + FREE_AGAIN);
            self.policy.free.note(self.chat.account(), until);
        }
        Ok(outcome?)
    }

    /// Are there free calls left, if this is to be one?
    fn has_free_calls(&self, request: &ChatRequest) -> Result<(), Box<Failure>> {
        let now = SystemTime::now();
        let until = self.policy.free.until(self.chat.account(), now).filter(|_| is_free(&request.model));
        let Some(until) = until else { return Ok(()) };
        let why = "the account's free requests of the day are used up";
        let mut failure = Failure::new(Code::RateLimited, Phase::Refused, why);
        failure.limit_source = Some("openrouter_free_tier_daily".into());
        (failure.retryable, failure.resets_at) = (false, Some(until));
        failure.retry_after = until.duration_since(now).ok();
        Err(Box::new(failure))
    }
}

/// How a request went, if that is the model's doing.
fn attempt(
    model: &str,
    outcome: &Result<Completion, Box<Failure>>,
    first: Option<Duration>,
    total: Duration,
) -> Option<Attempt> {
    let (completion, ok) = match outcome {
        Ok(completion) => (completion, !completion.is_empty()),
        Err(failure) if is_the_models(failure) => (&*failure.partial, false),
        Err(_) => return None,
    };
    // What OpenRouter had kept says nothing about the model.
    if completion.reused.as_ref().is_some_and(|reused| reused.hit) {
        return None;
    }
    let tokens = completion.usage.as_ref().map_or(0, |usage| usage.completion_tokens);
    Some(Attempt { model: model.to_owned(), ok, first, total, tokens })
}

/// Would another model have done better? The account, the request and the way there are the same for all.
fn is_the_models(failure: &Failure) -> bool {
    let code = matches!(
        failure.code,
        Code::UpstreamOverloaded
            | Code::UpstreamUnavailable
            | Code::UpstreamTimeout
            | Code::UpstreamProtocol
            | Code::ModelUnavailable
            | Code::RateLimited
            | Code::EmptyAnswer
    );
    code && failure.phase != Phase::Connecting && !failure.is_daily()
}

fn resting(code: Code, why: &str, open: Open, now: Instant) -> Box<Failure> {
    let mut failure = Failure::new(code, Phase::Connecting, why);
    (failure.retryable, failure.retry_after) = (true, Some(open.until.saturating_duration_since(now)));
    Box::new(failure)
}

/// Tells the breakers what came of it. A refusal with a reason is a sign of health of whoever gave it.
fn judge(failure: Option<&Failure>, upstream: Try<'_>, model: Try<'_>) {
    let now = Instant::now();
    let Some(failure) = failure else {
        upstream.worked();
        model.worked();
        return;
    };
    let a_page = failure.phase == Phase::Refused && failure.code == Code::UpstreamProtocol;
    if failure.is_of_connection() || a_page {
        upstream.failed(now);
        return;
    }
    upstream.worked();
    match failure.code {
        Code::UpstreamOverloaded
        | Code::UpstreamUnavailable
        | Code::UpstreamTimeout
        | Code::UpstreamProtocol => model.failed(now),
        _ => drop(model), // Says nothing about its health.
    }
}

/// A number between 0 and 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without chance all come back together, which is no worse than without a policy.
    if getrandom::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
