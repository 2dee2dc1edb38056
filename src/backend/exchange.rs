//! What becomes of the messages that come back for a call?
//!
//! The response is looked at before it goes on: a result of a kind we cannot pass on is an
//! error, never a success. Progress and log messages go to the caller under the caller's own
//! token. A question that a server asks in between ends the round, if it is one that the caller
//! said it may be asked: the rest of the call is parked until the answer comes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    Ask,
    cancel::Guard,
    parking::{Asked, Parked, Parking},
    server::{
        Hold, Server, reply_to,
        task::{Told, unmarked},
    },
    transport::{Kind, Trouble},
    visits::Visits,
};
use crate::{
    call::{Answer, Call, Event, Events, Reply},
    error::{Error, Result},
    wire::{
        capability::{ELICIT, may_ask, method_and_params},
        json::{self, Limits},
        mcp::{Era, Level, code},
        message::{self, Message, object_with},
        project, question,
    },
};

/// Questions that come this soon after one another are put together.
const TOGETHER: Duration = Duration::from_millis(5);

/// A response as an answer, if it is one that can be passed on.
pub fn answer(message: Message, written_in: Era, ask: &Ask, visits: &Visits) -> Result<Answer, Trouble> {
    if written_in == Era::Modern
        && let Some(kind) = message.in_result("resultType")
        && !json::is_string(kind, "complete")
    {
        match json::string(kind).as_deref() {
            Some("input_required") => return input_required(message, &ask.call),
            other => {
                let why =
                    format!("answered with a result of the unknown kind {:?}", other.unwrap_or_default());
                return Err(Trouble::new(Kind::Rubbish, why));
            }
        }
    }
    if message.result().is_some_and(|result| !result.starts_with(b"{")) {
        return Err(Trouble::new(Kind::Rubbish, "answered with a result that is no object"));
    }
    if let Some(question) = pages(&message, &ask.call) {
        return Ok(Answer::Asks(question));
    }
    let message = if written_in == Era::Legacy { unmarked(message) } else { message };
    visits.note_all(&message, &ask.call);
    Ok(Answer::Response { message, written_in, wrapped: ask.wrapped })
}

/// A question of a modern server's, if it asks only what the client said it may.
pub fn input_required(message: Message, call: &Call) -> Result<Answer, Trouble> {
    let wrong = |why: &str| Err(Trouble::new(Kind::Rubbish, why));
    if !may_ask(call.method) {
        return wrong("asks for input where it may not");
    }
    let requests = message.in_result("inputRequests");
    if requests.is_none() && message.field("requestState").is_none() {
        return wrong("asks for input without saying which");
    }
    let capabilities = call.client.capabilities;
    let requests = requests.unwrap_or(b"{}");
    for member in json::members(requests) {
        let request = member.value.of(requests);
        let (method, params) = method_and_params(request);
        if !capabilities.allow(&method, params) {
            return wrong("asks for something that the client did not say it can be asked");
        }
    }
    Ok(Answer::Asks(message))
}

/// An error of 2025-11-25 that says which pages must be visited first, as the input request that
/// it is in the modern era. There is no state: the next round is the same call made anew.
fn pages(message: &Message, call: &Call) -> Option<Message> {
    let code = message.in_error("code")?;
    let required = || code == code::URL_ELICITATION_REQUIRED.to_string().as_bytes();
    if call.client.revision.era() == Era::Legacy || !required() {
        return None;
    }
    let data = message.in_error("data")?;
    let list = json::member(data, "elicitations")?;
    let mut requests = Vec::new();
    for (index, place) in json::elements(list).into_iter().enumerate() {
        let params = object_with(place.of(list), |key| key == "elicitationId", &[]);
        if !call.client.capabilities.allow(ELICIT, &params) {
            return None;
        }
        let head = format!("\"question-{}\":{{\"method\":\"{ELICIT}\",\"params\":", index + 1);
        requests.push([head.as_bytes(), &params, b"}"].concat());
    }
    let head =
        b"{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"resultType\":\"input_required\",\"inputRequests\":{";
    let text = [&head[..], &requests.join(&b','), b"}}}"].concat();
    Message::parse(text.into(), &Limits::REPLY).ok().filter(|_| !requests.is_empty())
}

/// What a call has of its connection until its end.
pub struct Place {
    pub backend: Arc<str>,
    pub parking: Arc<Parking>,
    pub visits: Arc<Visits>,
    pub hold: Hold,
    /// Set if the server may make a task of the call: who follows it, and whether the client
    /// need not know.
    pub tasks: Option<(Arc<Server>, bool)>,
}

/// What is left of a call: its messages, and who wants them.
pub struct Relay {
    messages: BoxStream<'static, Result<Message, Trouble>>,
    /// Messages that came while questions were collected.
    early: VecDeque<Result<Message, Trouble>>,
    guard: Guard,
    place: Place,
    ask: Ask,
    questions: usize,
}

/// The caller's view of a request's stream: their notifications, then the answer.
pub fn relay(
    messages: BoxStream<'static, Result<Message, Trouble>>,
    guard: Guard,
    place: Place,
    ask: &Ask,
) -> Events {
    let ask = ask.clone();
    Relay { messages, early: VecDeque::new(), guard, place, ask, questions: 0 }.events()
}

/// Goes on with a call that has waited for its client, unless the server waits for more.
pub fn resume(parked: Parked, ask: &Ask) -> Result<Reply> {
    let Parked { mut relay, asked, caller: _ } = parked;
    relay.ask = ask.clone();
    if asked.is_empty() {
        return Ok(Reply::Stream(relay.events()));
    }
    relay.park(asked).map(Reply::Whole)
}

/// What comes next for a caller.
enum Next {
    Event(Event),
    Question(Message),
    /// The server answers later.
    Task(Events),
}

/// What a stream of events still has to give.
enum Rest {
    Relay(Box<Relay>),
    Task(Events),
    Nothing,
}

impl Relay {
    fn events(self) -> Events {
        let events = stream::unfold(Rest::Relay(Box::new(self)), |rest| async {
            let mut relay = match rest {
                Rest::Relay(relay) => relay,
                Rest::Task(mut events) => return Some((events.next().await?, Rest::Task(events))),
                Rest::Nothing => return None,
            };
            match relay.next().await {
                Ok(Next::Event(event @ Event::Notification(_))) => Some((Ok(event), Rest::Relay(relay))),
                Ok(Next::Event(answer)) => Some((Ok(answer), Rest::Nothing)),
                Ok(Next::Question(first)) => {
                    let asked = relay.questions(first).await;
                    Some((relay.park(asked).map(Event::Answer), Rest::Nothing))
                }
                Ok(Next::Task(mut events)) => Some((events.next().await?, Rest::Task(events))),
                Err(error) => Some((Err(error), Rest::Nothing)),
            }
        });
        events.boxed()
    }

    async fn next(&mut self) -> Result<Next> {
        loop {
            let cut_off = || Err(Trouble::new(Kind::Lost, "the answer was cut off before its end"));
            let message = match self.early.pop_front() {
                Some(message) => message,
                None => self.messages.next().await.unwrap_or_else(cut_off),
            };
            let message = message.map_err(|trouble| self.error(&trouble))?;
            match message.kind() {
                message::Kind::Response => {
                    self.guard.disarm();
                    if let Some((server, hidden)) = self.place.tasks.take()
                        && let Some(task) = Told::made(&message, self.guard.era)
                    {
                        let hold = std::mem::take(&mut self.place.hold);
                        return Ok(Next::Task(server.follow(self.ask.clone(), task, hold, hidden)));
                    }
                    let answer = answer(message, self.guard.era, &self.ask, &self.place.visits);
                    return answer
                        .map(|answer| Next::Event(Event::Answer(answer)))
                        .map_err(|trouble| self.error(&trouble));
                }
                message::Kind::Request if self.guard.era == Era::Modern => {
                    let why = "sent a request, which servers of revision 2026-07-28 may not";
                    return Err(Error::backend(&*self.place.backend, why));
                }
                message::Kind::Request if self.may_be_asked(&message) => return Ok(Next::Question(message)),
                message::Kind::Request => self.tell(reply_to(&message)).await,
                message::Kind::Notification => {
                    if let Some(text) = self.notification(&message) {
                        return Ok(Next::Event(Event::Notification(text)));
                    }
                }
            }
        }
    }

    /// Did the client of this very call say that it can be asked this?
    fn may_be_asked(&self, request: &Message) -> bool {
        let call = &self.ask.call;
        let params = request.top("params").map_or(&b"{}"[..], |place| place.of(request.text()));
        may_ask(call.method) && call.client.capabilities.allow(&request.method().unwrap_or_default(), params)
    }

    /// The first question with those that follow at once, so that they are put together.
    async fn questions(&mut self, first: Message) -> Vec<Asked> {
        let mut asked = vec![self.asked(&first)];
        while let Ok(Some(message)) = tokio::time::timeout(TOGETHER, self.messages.next()).await {
            match message {
                Ok(message) if message.kind() == message::Kind::Request && self.may_be_asked(&message) => {
                    asked.push(self.asked(&message));
                }
                other => {
                    self.early.push_back(other);
                    break;
                }
            }
        }
        asked
    }

    fn asked(&mut self, request: &Message) -> Asked {
        self.questions += 1;
        let key = format!("question-{}", self.questions);
        let id = request.id_bytes().unwrap_or_default();
        let page = self.place.visits.name(request, &self.ask.call);
        let text = question::embedded(request, page.as_deref());
        Asked { key, id: Bytes::copy_from_slice(&id), request: text.into() }
    }

    /// Puts the call aside until its client has answered.
    fn park(self, asked: Vec<Asked>) -> Result<Answer> {
        let id = self.guard.id;
        let requests: Vec<_> = asked
            .iter()
            .map(|one| [json::quoted(&one.key).as_bytes(), b":", &one.request].concat())
            .collect();
        let parking = Arc::clone(&self.place.parking);
        let caller = self.ask.call.caller.clone();
        let ticket = parking.park(Parked { relay: self, asked, caller })?;
        let head = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"input_required\",\"requestState\":\"{ticket}\",\"inputRequests\":{{"
        );
        let text = [head.as_bytes(), &requests.join(&b','), b"}}}"].concat();
        Ok(Answer::Asks(Message::parse(text.into(), &Limits::REPLY)?))
    }

    /// Sends the server a response of ours or of the client's.
    pub fn tell(&self, text: Bytes) -> impl Future<Output = ()> + use<> {
        let (telling, backend) = (self.guard.transport.notify(text), Arc::clone(&self.place.backend));
        async move {
            if let Err(trouble) = telling.await {
                tracing::debug!(backend = &*backend, %trouble, "an answer could not be given");
            }
        }
    }

    fn error(&self, trouble: &Trouble) -> Error {
        trouble.error(&self.place.backend)
    }

    /// A notification as the caller wants it, if they want it.
    fn notification(&self, message: &Message) -> Option<Bytes> {
        let call = &self.ask.call;
        match &*message.method()? {
            "notifications/progress" => {
                let ours = message.in_params("progressToken")? == self.guard.id.to_string().as_bytes();
                let progress = call.progress.as_ref().filter(|_| ours)?;
                Some(project::progress(message, &progress.token).into())
            }
            "notifications/message" => {
                let level = message.param("level").and_then(|span| json::string(span.of(message.text())));
                let level = Level::parse(&level?)?;
                let wanted = match (call.log_level, call.client.revision.era()) {
                    (Some(least), _) => level >= least,
                    (None, Era::Legacy) => true,
                    (None, Era::Modern) => false,
                };
                wanted.then(|| message.text().clone())
            }
            _ => {
                let (session, text) = self.place.visits.over(message)?;
                if call.session.as_ref() == Some(&session) {
                    return Some(text);
                }
                session.tell(text);
                None
            }
        }
    }
}
