//! When is a request sent again, and how many are sent at once?
//!
//! This is the one layer that sends again: a second one below or above it would pay twice. What is
//! done about a failure is decided in [`decide`], which is a pure function; here is only the waiting
//! and the sending. Every decision is told as a [`Status`] and kept as a warning.
//!
//! Whatever has once been said to the sink stays said: after the first piece of an answer nothing is
//! sent again, except to go on where a limit cut the answer off.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::upstream::{
    ChatRequest, Completion, Event, Failure, Message, Overflow, Sink, Status, Upstream, Usage,
};
use crate::settings;

mod breaker; // what fails is left alone for a while
mod decide; //  what is done about a failure
mod extend; //  answers that were cut off go on
mod free; //    when there are free calls again
mod joint; //   where two pieces of an answer overlap
mod queue; //   how many at once
mod run; //     one request after the other, until there is an answer

use breaker::Breakers;
pub use decide::Terms;
use free::Free;
pub use queue::Held;
use queue::Queue;
use run::Run;

/// How requests are sent again, left alone and lined up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How often a request is sent again after a failure that may pass, besides the waits that the
    /// upstream itself asks for.
    pub retries: u32,
    /// How long a call waits in all because it was told to.
    pub max_wait: settings::Duration,
    /// After so many failures within `breaker_window` a model, or the whole upstream, is left alone
    /// for `breaker_rest`. 0 is never.
    pub breaker_failures: u32,
    pub breaker_window: settings::Duration,
    pub breaker_rest: settings::Duration,
    /// Requests under way at the same time, in all.
    pub at_once: usize,
    /// The same for each caller.
    pub at_once_per_caller: usize,
    /// How many more of each caller's may wait.
    pub queue_per_caller: usize,
    /// How long they may wait.
    pub queue_wait: settings::Duration,
}

impl Default for Settings {
    /// Enough to get over a hiccup, and too little to make an outage worse.
    fn default() -> Self {
        Self {
            retries: 2,
            max_wait: settings::Duration::seconds(20),
            breaker_failures: 5,
            breaker_window: settings::Duration::seconds(30),
            breaker_rest: settings::Duration::seconds(15),
            at_once: 256,
            at_once_per_caller: 8,
            queue_per_caller: 32,
            queue_wait: settings::Duration::seconds(30),
        }
    }
}

/// Something that sends a request once: [`Upstream`], or a stand-in for it.
pub trait Chat: Send + Sync {
    /// What fails together, by its address.
    fn base_url(&self) -> &str;

    /// Who pays.
    fn account(&self) -> u64;

    /// Until when an answer that is begun now must be there.
    fn deadline(&self) -> Instant;

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        deadline: Instant,
        sink: Sink<'a>,
    ) -> BoxFuture<'a, Result<Completion, Box<Failure>>>;
}

impl Chat for Upstream {
    fn base_url(&self) -> &str {
        self.base_url()
    }

    fn account(&self) -> u64 {
        self.account()
    }

    fn deadline(&self) -> Instant {
        self.deadline()
    }

    fn chat<'a>(
        &'a self,
        request: &'a ChatRequest,
        deadline: Instant,
        sink: Sink<'a>,
    ) -> BoxFuture<'a, Result<Completion, Box<Failure>>> {
        Box::pin(self.chat(request, deadline, sink))
    }
}

/// Makes a request smaller that was too large after all. None if it cannot.
pub type Refit<'a> = &'a (dyn Fn(&str, Overflow) -> Option<Smaller> + Send + Sync);

/// What of a conversation is sent instead.
#[derive(Debug, Clone)]
pub struct Smaller {
    pub messages: Vec<Message>,
    pub max_completion_tokens: Option<u64>,
}

/// One call for an answer.
pub struct Call<'a> {
    pub request: ChatRequest,
    /// Who asks, so that nobody keeps others waiting.
    pub principal: &'a str,
    /// Asked in this order if the one before fails without having said anything.
    pub fallback_models: &'a [String],
    pub terms: Terms,
    /// Told the model that was asked, and what it said about the length.
    pub refit: Option<Refit<'a>>,
}

/// A whole answer, however many requests it took.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Of all pieces. What was used is the sum over all requests.
    pub completion: Completion,
    pub report: Report,
}

/// No answer, or a part of one.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{failure}")]
pub struct Unanswered {
    pub failure: Box<Failure>,
    pub report: Report,
}

/// One request, and how it went.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub model: String,
    pub ok: bool,
    /// When its first word came, after it was sent.
    pub first: Option<Duration>,
    pub total: Duration,
    /// Of the answer, as far as they were reported.
    pub tokens: u64,
}

/// What it took.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub warnings: Vec<Status>,
    /// Requests that were sent.
    pub requests: u32,
    /// How often an answer that was cut off went on.
    pub continuations: u32,
    /// Of all requests that got one, in order.
    pub generation_ids: Vec<String>,
    /// Of requests whose answers were of no use, and which are paid for all the same.
    pub wasted: Usage,
    /// Those of them that say something about the model that was asked.
    pub attempts: Vec<Attempt>,
    /// The model that was asked last.
    pub model: String,
}

/// Sends requests as the settings say.
#[derive(Debug)]
pub struct Policy {
    retries: u32,
    max_wait: Duration,
    queue: Arc<Queue>,
    breakers: Breakers,
    free: Free,
}

impl Policy {
    pub fn new(settings: &Settings) -> Self {
        let Settings {
            retries,
            max_wait,
            breaker_failures,
            breaker_window,
            breaker_rest,
            at_once,
            at_once_per_caller,
            queue_per_caller,
            queue_wait,
        } = settings;
        let queue = Queue::new(*at_once, *at_once_per_caller, *queue_per_caller, queue_wait.0);
        let breakers = Breakers::new(*breaker_failures, breaker_window.0, breaker_rest.0);
        Self { retries: *retries, max_wait: max_wait.0, queue, breakers, free: Free::default() }
    }

    /// Waits for a place among the requests under way, for those that are no chats.
    pub async fn enter(&self, principal: &str) -> Result<Held, Box<Failure>> {
        self.queue.enter(principal).await
    }

    /// What is left alone now: models, or the upstream by its address.
    pub fn resting(&self) -> Vec<String> {
        self.breakers.open(Instant::now())
    }

    /// Answers a call, with as many requests as that takes and the settings allow.
    pub async fn run(
        &self,
        chat: &dyn Chat,
        call: Call<'_>,
        sink: Sink<'_>,
    ) -> Result<Answer, Box<Unanswered>> {
        let mut told = Told { sink, report: Report::default() };
        let held = match self.queue.try_enter(call.principal) {
            Some(held) => Ok(held),
            None => {
                told.status(Status::Queued);
                self.queue.enter(call.principal).await
            }
        };
        let mut run = Run::new(self, chat, call, told);
        let outcome = match held {
            Ok(_held) => run.answer().await,
            Err(failure) => Err(failure),
        };
        let report = run.told.report;
        match outcome {
            Ok(completion) => Ok(Answer { completion, report }),
            Err(failure) => Err(Box::new(Unanswered { failure, report })),
        }
    }
}

/// The sink, and what is remembered of what it was told.
struct Told<'a> {
    sink: Sink<'a>,
    report: Report,
}

impl Told<'_> {
    fn status(&mut self, status: Status) {
        if status.is_warning() {
            tracing::info!(%status, "a model's answer takes more");
            self.report.warnings.push(status.clone());
        }
        (self.sink)(Event::Status(status));
    }

    fn delta(&mut self, text: String) {
        (self.sink)(Event::Delta(text));
    }
}

#[cfg(test)]
mod tests;
