//! How is a client of the legacy era asked what a backend wants to know?
//!
//! Inside the gateway a question ends a round of the call. Such a client knows no rounds: it is
//! asked while its call is open, on the stream of that very call, and its answers begin the
//! next round. (2025-11-25 "Elicitation", "Sampling", "Roots"; 2026-07-28 "Multi Round-Trip
//! Requests".)

use std::{borrow::Cow, collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::json;

use super::{
    Front,
    session::{Question, Session},
};
use crate::{
    call::{Answer, Call, Event, Events, Given, Reply, Replying, Stage},
    error::{Error, Result},
    wire::{
        capability::{Capabilities, ELICIT, method_and_params},
        json,
        mcp::{Era, Revision, code},
        message::Message,
        progress::Progress,
        question,
    },
};

/// Rounds that one call may take.
const ROUNDS: usize = 10;
/// How long a client may take for an answer. Official SDKs wait as long.
const PATIENCE: Duration = Duration::from_secs(600);
/// The pause before a round in which nothing is asked.
const PAUSE: Duration = Duration::from_millis(50);

impl<S: Stage> Front<S> {
    /// Runs a call of a session, putting its backend's questions to the client.
    pub fn run_asking(&self, session: &Arc<Session>, call: Call) -> Replying {
        if call.client.capabilities == Capabilities::NONE {
            return self.run(call);
        }
        let (front, session, again) = (self.clone(), Arc::clone(session), call.clone());
        let reply = self.run(call);
        Box::pin(async move {
            let events = match reply.await? {
                Reply::Whole(question @ Answer::Asks(_)) => {
                    stream::iter([Ok(Event::Answer(question))]).boxed()
                }
                Reply::Stream(events) => events,
                whole => return Ok(whole),
            };
            let (asked, given) = (VecDeque::new(), Given::default());
            let (progress, pages, last) = (Progress::default(), Vec::new(), None);
            let rounds =
                Rounds { front, session, call: again, events, asked, given, count: 0, progress, pages, last };
            Ok(Reply::Stream(rounds.events()))
        })
    }
}

/// A call that may take several rounds.
struct Rounds<S: Stage> {
    front: Front<S>,
    session: Arc<Session>,
    call: Call,
    /// Of the present round.
    events: Events,
    /// What was asked and not answered yet.
    asked: VecDeque<Asked>,
    /// The answers so far, and the state that goes with them.
    given: Given,
    count: usize,
    progress: Progress,
    /// Pages that were visited for a backend which will not say when a visit is over.
    pages: Vec<String>,
    /// What comes when all else has been said.
    last: Option<Event>,
}

/// A backend that waits for an answer learns that there will be none.
impl<S: Stage> Drop for Rounds<S> {
    fn drop(&mut self) {
        if self.given.state.is_none() {
            return;
        }
        let given = Given { gone: true, ..std::mem::take(&mut self.given) };
        let run = self.front.run(Call { given: Some(given), ..self.call.clone() });
        // Outside of a runtime the process is ending, and its connections with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(run);
        }
    }
}

struct Asked {
    key: String,
    method: String,
    /// The request, until it has been sent.
    text: Option<Bytes>,
    answer: Question,
    /// The id of a page that the gateway has named.
    page: Option<String>,
}

impl<S: Stage> Rounds<S> {
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
            // All are asked before any answer is waited for.
            if let Some(text) = self.asked.iter_mut().find_map(|asked| asked.text.take()) {
                return Ok(Event::Notification(text));
            }
            if let Some(mut asked) = self.asked.pop_front() {
                let page = asked.page.take();
                let (key, answer) = asked.answered().await?;
                self.pages.extend(page.filter(|_| answer.as_ref().is_ok_and(|answer| accepts(answer))));
                self.given.answers.push((key, answer));
                if self.asked.is_empty() {
                    self.again().await?;
                }
                continue;
            }
            if let Some(last) = self.last.take() {
                return Ok(match self.pages.pop() {
                    Some(page) => {
                        self.last = Some(last);
                        Event::Notification(question::visited(&page).into())
                    }
                    None => last,
                });
            }
            let ended = || Err(Error::NoInput);
            match self.events.next().await.unwrap_or_else(ended)? {
                Event::Answer(Answer::Asks(asks)) => {
                    let state = asks.in_result("requestState").and_then(json::string);
                    self.given.state = state.map(Cow::into_owned);
                    self.ask(&asks)?;
                    if self.asked.is_empty() {
                        tokio::time::sleep(PAUSE).await;
                        self.again().await?;
                    }
                }
                // Only now is it known that a backend of the modern era has seen what it wanted.
                Event::Answer(Answer::Response { message, written_in: Era::Modern, wrapped })
                    if message.result().is_some() =>
                {
                    let written_in = Era::Modern;
                    self.last = Some(Event::Answer(Answer::Response { message, written_in, wrapped }));
                }
                Event::Notification(text) => {
                    if let Some(text) = self.progress.goes_on(text) {
                        return Ok(Event::Notification(text));
                    }
                }
                event => return Ok(event),
            }
        }
    }

    /// Takes a question apart.
    fn ask(&mut self, asks: &Message) -> Result<()> {
        self.count += 1;
        if self.count > ROUNDS {
            return Err(Error::Busy(format!(
                "the backend has asked for input {ROUNDS} times, which is enough"
            )));
        }
        self.progress.new_round();
        let revision = self.call.client.revision;
        let requests = asks.in_result("inputRequests").unwrap_or(b"{}");
        for member in json::members(requests) {
            let request = member.value.of(requests);
            let (method, _) = method_and_params(request);
            let (id, answer) = self.session.question();
            let key = member.key_in(requests).into_owned();
            match question::question(request, id, revision) {
                Ok(text) => {
                    let named = revision == Revision::V2025_11_25 && question::unnamed_page(request);
                    let page = named.then(|| question::page_name(id));
                    self.asked.push_back(Asked { key, method, text: Some(text.into()), answer, page });
                }
                Err(why) => {
                    let error = json!({ "code": code::INVALID_PARAMS, "message": why });
                    self.given.answers.push((key, Err(error.to_string().into())));
                }
            }
        }
        Ok(())
    }

    /// Begins the next round.
    async fn again(&mut self) -> Result<()> {
        let given = std::mem::take(&mut self.given);
        let call = Call { given: Some(given), ..self.call.clone() };
        self.events = match self.front.run(call).await? {
            Reply::Whole(answer) => stream::iter([Ok(Event::Answer(answer))]).boxed(),
            Reply::Stream(events) => events,
        };
        Ok(())
    }
}

impl Asked {
    /// The client's answer under the question's key. Refusing a form is an answer; there is a
    /// word for it. Refusing anything else is an error.
    async fn answered(self) -> Result<(String, Result<Bytes, Bytes>)> {
        let Self { key, method, answer, .. } = self;
        let late = || Error::Idle { target: method.clone(), after: PATIENCE };
        let message = tokio::time::timeout(PATIENCE, answer.map(Result::ok)).await.map_err(|_| late())?;
        let message = message.ok_or(Error::NoInput)?;
        let answer = match (message.top("result"), message.top("error")) {
            (Some(result), _) if message.text()[result.start] == b'{' => Ok(message.slice(result)),
            (_, Some(_)) if method == ELICIT => Ok(Bytes::from_static(b"{\"action\":\"cancel\"}")),
            (_, Some(error)) => Err(message.slice(error)),
            _ => return Err(Error::Params(format!("the answer to {method} has a result that is no object"))),
        };
        Ok((key, answer))
    }
}

/// Does an answer say yes?
fn accepts(answer: &[u8]) -> bool {
    json::member(answer, "action").is_some_and(|action| json::is_string(action, "accept"))
}
