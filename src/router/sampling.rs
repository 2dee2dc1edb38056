//! Who writes the texts of a model that a backend asks for, where its client has no model?
//!
//! Where the configuration names a sampler, a backend is told that it may ask for such texts whatever
//! its client can do. What the client can answer goes to the client all the same. The rest becomes
//! calls of the sampler's tool by the caller whose call it is, which pass all stages like any other:
//! rules, limits, budgets and the audit trail are theirs. With the answers the call goes on; a client
//! learns of none of this.
//!
//! What one round asks of both waits for the client: what the model wrote meanwhile goes along in the
//! sealed state, as does how much was asked for, so that no round begins to count anew.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

mod held; // from one round to the next
mod way; //  past all stages

pub use way::{Known, Way};

use held::{Held, Wrote};

use super::{Parts, Router, view::Upstream};
use crate::{
    backend::{
        Ask,
        openrouter::sampling::{Question, Refusal, SHORTEST, TOOL, Written},
        sampler::Settings,
    },
    call::{Answer, Call, Caller, Client, Event, Events, Given, Reply, Replying, Scope, Stage},
    error::{Error, Result},
    wire::{
        capability::{Capabilities, SAMPLE, method_and_params},
        json::{self, Limits},
        mcp::{Era, Method, Revision},
        message::{Message, object_with},
        progress::Progress,
        question,
    },
};

/// A call whose backend may ask for texts of a model.
struct Rounds {
    router: Router,
    upstream: Arc<Upstream>,
    sampler: Settings,
    /// The call, for further rounds; the client can be asked all that the backend was told.
    ask: Ask,
    /// What the client itself can be asked.
    own: Capabilities,
    /// Of the present round.
    events: Events,
    held: Held,
    /// What a model is still to be asked in this round.
    asked: VecDeque<(String, Bytes)>,
    /// What it is asked just now.
    asking: Option<(String, Question, Events)>,
    /// What the backend asks in this round, until it goes to the client or the next round begins.
    open: Option<Message>,
    /// The task that the backend has made of the call.
    task: Option<String>,
    progress: Progress,
}

impl Router {
    /// Shows it the way that calls take, for those that it makes.
    pub fn sample_by(&self, stages: impl Stage) -> Way {
        self.0.way.learn(stages)
    }

    /// May a caller have texts of this sampler's models?
    async fn may_sample(&self, caller: &Caller, sampler: &Settings) -> bool {
        let scope = Scope::One(sampler.backend.as_str().into());
        let may = || self.0.lets_sample(caller, &scope);
        may() || (self.0.catalog.first_heard(&scope, Method::ToolsCall, TOOL, may).await && may())
    }

    /// Has a backend answer that may ask for texts of a model.
    pub(super) async fn sampled(
        &self,
        upstream: &Arc<Upstream>,
        sampler: &Settings,
        mut ask: Ask,
    ) -> Result<Reply> {
        let held = ask.call.given.as_mut().map(Held::opened).unwrap_or_default();
        if !self.may_sample(&ask.call.caller, sampler).await {
            return upstream.backend.answer(ask).await;
        }
        let own = ask.call.client.capabilities;
        ask.call.client.capabilities = own.with_sampling();
        let task = ask.call.given.as_ref().and_then(|given| given.task.clone());
        let again = ask.clone();
        let events = match upstream.backend.answer(ask).await? {
            Reply::Whole(asks @ Answer::Asks(_)) => stream::iter([Ok(Event::Answer(asks))]).boxed(),
            Reply::Stream(events) => events,
            whole => return Ok(whole),
        };
        let (router, upstream, sampler) = (self.clone(), Arc::clone(upstream), sampler.clone());
        let (asked, asking, open, progress) = (VecDeque::new(), None, None, Progress::default());
        let rounds = Rounds {
            router,
            upstream,
            sampler,
            ask: again,
            own,
            events,
            held,
            asked,
            asking,
            open,
            task,
            progress,
        };
        Ok(Reply::Stream(rounds.events()))
    }
}

impl Parts {
    fn lets_sample(&self, caller: &Caller, sampler: &Scope) -> bool {
        let view = self.catalog.snapshot().seen(sampler, caller, &*self.permit);
        view.is_some_and(|view| view.route(Method::ToolsCall, TOOL).is_some())
    }

    /// Who writes texts of a model for a backend in calls of this caller's, in words for people.
    pub(super) fn explain_sampler(&self, caller: &Caller, upstream: &Upstream) -> Option<String> {
        let Settings { backend, .. } = upstream.sampler.as_ref()?;
        let name = &upstream.name;
        Some(match self.lets_sample(caller, &Scope::One(backend.as_str().into())) {
            true => format!(
                "Where {name} asks for a text of a model that the client cannot give, a model of {backend} writes it."
            ),
            false => {
                format!("{name} gets no texts of models of {backend}: {TOOL} of {backend} may not be called.")
            }
        })
    }
}

/// A backend that waits for an answer learns that there will be none.
impl Drop for Rounds {
    fn drop(&mut self) {
        if self.open.is_none() {
            return;
        }
        let (given, ask, upstream) = (self.given(true), self.ask.clone(), Arc::clone(&self.upstream));
        // Outside of a runtime the process is ending, and its connections with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { upstream.backend.answer(with(ask, given)).await });
        }
    }
}

fn with(mut ask: Ask, given: Given) -> Ask {
    ask.call.given = Some(given);
    ask
}

impl Rounds {
    fn events(self) -> Events {
        let events = stream::unfold(Some(self), |rounds| async {
            let mut rounds = rounds?;
            let event = rounds.next().await;
            let goes_on = !Event::is_last(&event);
            Some((event, goes_on.then_some(rounds)))
        });
        events.boxed()
    }

    async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some((_, _, events)) = &mut self.asking {
                match events.next().await.unwrap_or(Err(Error::NoInput)) {
                    // Whoever measures silence hears that something goes on.
                    Ok(Event::Notification(_) | Event::Task(_) | Event::Alive) => return Ok(Event::Alive),
                    Ok(Event::Answer(answer)) => self.answered(&Ok(answer))?,
                    Err(error) => self.answered(&Err(error))?,
                }
            } else if let Some((key, params)) = self.asked.pop_front() {
                self.put(key, &params)?;
            } else if let Some(open) = self.open.take() {
                if let Some(asks) = self.left(&open)? {
                    return Ok(Event::Answer(asks));
                }
                self.again().await?;
            } else {
                match self.events.next().await.unwrap_or(Err(Error::NoInput))? {
                    Event::Answer(Answer::Asks(asks)) => self.sort(asks),
                    Event::Notification(text) => {
                        if let Some(text) = self.progress.goes_on(text) {
                            return Ok(Event::Notification(text));
                        }
                    }
                    Event::Task(news) => {
                        self.task = Some(news.handle.clone());
                        return Ok(Event::Task(news));
                    }
                    event => return Ok(event),
                }
            }
        }
    }

    /// Sees which of a round's questions are for a model of ours.
    fn sort(&mut self, asks: Message) {
        let requests = asks.in_result("inputRequests").unwrap_or(b"{}");
        for member in json::members(requests) {
            let request = member.value.of(requests);
            if !self.is_for_client(request) {
                let (_, params) = method_and_params(request);
                self.asked.push_back((member.key_in(requests).into_owned(), Bytes::copy_from_slice(params)));
            }
        }
        self.held.state = asks.in_result("requestState").and_then(json::string).map(Cow::into_owned);
        self.open = Some(asks);
    }

    /// Can the client answer this, and be told it in its own words?
    fn is_for_client(&self, request: &[u8]) -> bool {
        let (method, params) = method_and_params(request);
        let revision = self.ask.call.client.revision;
        let sayable = || revision.era() == Era::Modern || question::question(request, 0, revision).is_ok();
        method != SAMPLE || (self.own.allow(&method, params) && sayable())
    }

    /// Has a model asked what a backend wants to know.
    fn put(&mut self, key: String, params: &[u8]) -> Result<()> {
        let question = match self.question(params) {
            Ok(question) => question,
            Err(refusal) => return self.refused(key, &refusal),
        };
        self.held.requests += 1;
        let left = self.sampler.max_tokens - self.held.tokens - question.read;
        let arguments = question.arguments(left);
        let params = json!({ "name": TOOL, "arguments": arguments });
        let text = json!({ "jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": params }).to_string();
        let message = match Message::parse(text.into(), &Limits::REPLY) {
            Ok(message) => message,
            Err(why) => {
                return self.refused(key, &Refusal::refused("too_large", Error::from(why).to_string()));
            }
        };
        let call = &self.ask.call;
        let client = Client {
            revision: Revision::NEWEST,
            capabilities: Capabilities::NONE,
            info: call.client.info.clone(),
        };
        let scope = Scope::One(self.sampler.backend.as_str().into());
        let call = Call {
            trace: call.trace.clone(),
            asked_by: Some(Arc::clone(&self.upstream.name)),
            ..Call::new(call.caller.clone(), scope, Method::ToolsCall, message, client)
        };
        let reply = self.router.0.way.take(call).ok_or(Error::NoInput)?;
        self.asking = Some((key, question, events(reply)));
        Ok(())
    }

    /// What is to be asked, if the call may ask for so much.
    fn question(&self, params: &[u8]) -> Result<Question, Refusal> {
        let Settings { backend: _, max_requests, max_tokens } = self.sampler;
        if self.held.requests >= max_requests {
            let why =
                format!("the call has asked a model {max_requests} times, which is the most (max_requests)");
            return Err(Refusal::refused("too_many_requests", why));
        }
        let question = Question::read(params)?;
        let least = self.held.tokens.saturating_add(question.read).saturating_add(SHORTEST);
        if least > max_tokens {
            let why = format!(
                "the call would use {least} tokens of models or more, and may use {max_tokens} (max_tokens)"
            );
            return Err(Refusal::refused("too_many_tokens", why));
        }
        Ok(question)
    }

    /// Notes what the model said that was asked.
    fn answered(&mut self, answer: &Result<Answer>) -> Result<()> {
        let Some((key, question, _)) = self.asking.take() else { return Ok(()) };
        let written = match answer {
            Ok(Answer::Response { message, .. }) => {
                let result = message.result().and_then(|result| serde_json::from_slice::<Value>(result).ok());
                result.ok_or_else(|| "the sampler answered with an error".to_owned())
            }
            Ok(Answer::Result(_) | Answer::Asks(_)) => Err("the sampler gave no answer".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let written = written.map_err(|why| Refusal::refused("refused", why));
        match written.and_then(|result| question.written(&result)) {
            Ok(Written { result, used }) => {
                self.held.tokens = self.held.tokens.saturating_add(used);
                self.held.written.push(Wrote { key, answer: Ok(result) });
                Ok(())
            }
            Err(refusal) => self.refused(key, &refusal),
        }
    }

    /// Tells a backend that it gets no text. In the modern era there is no word for that, and the call
    /// ends here, as it does where a client refuses.
    fn refused(&mut self, key: String, refusal: &Refusal) -> Result<()> {
        let Refusal { code, says: _, why } = refusal;
        tracing::debug!(
            backend = &*self.upstream.name,
            sampler = self.sampler.backend,
            code,
            why,
            "no model is asked"
        );
        let modern = self.upstream.backend.offer().is_some_and(|offer| offer.era == Era::Modern);
        if modern {
            return Err(Error::backend(
                &*self.upstream.name,
                format!("no model wrote what it asks for: {why}"),
            ));
        }
        self.held.written.push(Wrote { key, answer: Err(refusal.error()) });
        Ok(())
    }

    /// What of a round's questions is left for the client; nothing if a model had all the answers.
    fn left(&self, open: &Message) -> Result<Option<Answer>> {
        let requests = open.in_result("inputRequests").unwrap_or(b"{}");
        let left = object_with(requests, |key| self.held.has(key), &[]);
        if left == b"{}" && !self.held.written.is_empty() {
            return Ok(None);
        }
        let state = json::quoted(&self.held.sealable());
        let mut put = vec![("requestState", state.as_bytes())];
        if left != b"{}" {
            put.push(("inputRequests", &left));
        }
        let result = object_with(open.result().unwrap_or(b"{}"), |_| false, &put);
        let text = [b"{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":", &result[..], b"}"].concat();
        Ok(Some(Answer::Asks(Message::parse(text.into(), &Limits::REPLY)?)))
    }

    /// Begins the next round.
    async fn again(&mut self) -> Result<()> {
        self.progress.new_round();
        let ask = with(self.ask.clone(), self.given(false));
        self.events = match self.upstream.backend.answer(ask).await? {
            Reply::Whole(answer) => stream::iter([Ok(Event::Answer(answer))]).boxed(),
            Reply::Stream(events) => events,
        };
        Ok(())
    }

    /// What the backend gets in the next round.
    fn given(&mut self, gone: bool) -> Given {
        let task = self.task.clone();
        Given { state: self.held.state.take(), answers: self.held.taken().collect(), gone, task }
    }
}

/// A reply as the stream of what comes of it.
fn events(reply: Replying) -> Events {
    let events = stream::once(reply).map(|reply| match reply {
        Ok(Reply::Whole(answer)) => stream::iter([Ok(Event::Answer(answer))]).boxed(),
        Ok(Reply::Stream(events)) => events,
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    events.flatten().boxed()
}
