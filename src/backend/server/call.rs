//! What does one call take, on a server of either era?
//!
//! A connection, an envelope if the era has one, the right to be asked something, and another
//! attempt where nothing of the first can have reached the server.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Hold, Link, Server, Turn, task};
use crate::{
    backend::{
        Ask, Mirrored,
        cancel::Guard,
        exchange::{Place, answer, relay, resume},
        handshake,
        transport::{Incoming, Kind, Outgoing, Trouble},
    },
    call::{Call, Given, Reply},
    error::{Error, Result},
    wire::{
        capability::{Capabilities, may_ask},
        json::{self, Limits},
        mcp::{Era, INTRODUCTION, Level, Method},
        message::Message,
        project::{self, Envelope, Hop},
    },
};
use bytes::Bytes;

/// How long a call waits for a connection, or for its turn on one where only one call at a time
/// may be asked something.
pub const TURN: Duration = Duration::from_secs(30);

impl Server {
    pub async fn ask(&self, mut ask: Ask, hold: Hold) -> Result<Reply> {
        let given = ask.call.given.take();
        if let Some(given) = given {
            return Box::pin(self.next_round(ask, given, hold)).await;
        }
        self.first_round(ask, hold).await
    }

    /// Goes on with a call whose client was asked something.
    async fn next_round(&self, mut ask: Ask, given: Given, hold: Hold) -> Result<Reply> {
        let task = given.task.clone().or_else(|| Self::task_of(given.state.as_deref()));
        if let Some(handle) = task
            && let Some(me) = self.me.upgrade()
        {
            let hidden = !ask.call.client.capabilities.takes_tasks();
            return me.go_on(ask, &given, &handle, hold, hidden).await;
        }
        if given.gone {
            // What is parked ends with this, and the server is told.
            given.state.and_then(|ticket| self.parking.take(&ticket, &ask.call.caller));
            return Err(Error::NoInput);
        }
        if self.era().await? == Era::Modern {
            let refused = given.answers.iter().find_map(|(_, answer)| answer.as_ref().err());
            if let Some(error) = refused {
                // There is no word for a refusal in the modern era: the call ends here.
                let why = json::member(error, "message").and_then(json::string);
                let why = format!("the client refused what it asks for: {}", why.unwrap_or_default());
                return Err(Error::backend(&*self.name, why));
            }
            ask.call.message = repeated(&ask.call.message, &given)?;
            return self.first_round(ask, hold).await;
        }
        let Some(ticket) = given.state.as_deref() else {
            // Answers to nothing, which a server of the legacy era could not read.
            ask.call.message = repeated(&ask.call.message, &Given::default())?;
            return self.first_round(ask, hold).await;
        };
        let parked = self.parking.take(ticket, &ask.call.caller);
        let over = || Error::Params("`requestState` is not one of this call, or not any more".into());
        let parked = parked.ok_or_else(over)?.answer(&given).await;
        resume(parked, &ask)
    }

    async fn first_round(&self, mut ask: Ask, mut hold: Hold) -> Result<Reply> {
        let hidden = !ask.call.client.capabilities.takes_tasks();
        let (mut again, mut may_have_run) = (true, false);
        // Of a call that was made twice, what is true of either is true.
        let error = |trouble: Trouble, may_have_run: bool| {
            let kind = if may_have_run { Kind::Lost } else { trouble.kind };
            self.error(&Trouble { kind, ..trouble })
        };
        loop {
            let link = match self.usable() {
                Some(link) => link,
                None => Box::pin(self.link()).await.map_err(|trouble| error(trouble, may_have_run))?,
            };
            if let Some(level) = ask.call.log_level {
                Box::pin(self.speak_up(&link, level)).await;
            }
            match self.try_once(&link, &ask, &mut hold, hidden).await {
                Err(Trouble { kind: Kind::SessionLost, .. }) if again => again = false,
                Err(Trouble { kind: Kind::NotSent, .. }) if again && self.may_repeat() => again = false,
                Err(Trouble { kind: Kind::Lost, .. })
                    if again && ask.repeatable && !self.spared && self.may_repeat() =>
                {
                    (again, may_have_run) = (false, true);
                }
                Err(trouble) => {
                    // A server that takes its proof no longer is not ready, whatever it was before.
                    if matches!(trouble.kind, Kind::NotSent | Kind::Status(401)) {
                        self.give_up(&link, &trouble);
                    }
                    return Err(error(trouble, may_have_run));
                }
                // A client that can never take tasks need not know of this one.
                Ok(Reply::Whole(answer))
                    if hidden
                        && ask.call.client.revision.era() == Era::Legacy
                        && task::wants_tasks(&answer) =>
                {
                    ask.call.client.capabilities = ask.call.client.capabilities.with_tasks();
                    return self
                        .try_once(&link, &ask, &mut hold, hidden)
                        .await
                        .map_err(|trouble| self.error(&trouble));
                }
                Ok(reply) => return Ok(reply),
            }
        }
    }

    /// Every call has an id, so the ids say how many there were.
    fn may_repeat(&self) -> bool {
        self.budget.take(self.next_id.load(Ordering::Relaxed))
    }

    async fn try_once(
        &self,
        link: &Arc<Link>,
        ask: &Ask,
        hold: &mut Hold,
        hidden: bool,
    ) -> Result<Reply, Trouble> {
        let turn = self.turn(link, &ask.call, hold.turn.take()).await?;
        let id = self.id();
        let call = &ask.call;
        let modern = link.offer.era == Era::Modern;
        let level = match (call.log_level, call.client.revision.era()) {
            (Some(level), _) => Some(level),
            // Clients of the legacy era expect to hear of what happens unless they say how much.
            (None, Era::Legacy) => Some(Level::Info),
            (None, Era::Modern) => None,
        };
        let capabilities = if modern { call.client.capabilities.json() } else { String::new() };
        let envelope = modern.then_some(Envelope {
            revision: link.offer.revision,
            capabilities: &capabilities,
            client_info: INTRODUCTION,
            log_level: level.map(Level::quoted),
        });
        let progress = call.progress.is_some();
        let (target, trace) = (ask.target.as_deref(), call.trace.as_deref());
        let hop = Hop { id, target, progress, envelope, revision: link.offer.revision, trace };
        let augments = !modern && task::augments(link, ask);
        let other = if modern { None } else { task::augmented(&call.message, augments)? };
        let message = other.as_ref().unwrap_or(&call.message);
        let text = Bytes::from(project::request(message, call.method, &hop));
        let followed = augments || (modern && call.client.capabilities.takes_tasks());
        let tasks = if followed { self.me.upgrade().map(|me| (me, hidden)) } else { None };
        let target = call.method.header_target().and(ask.target.clone());
        let outgoing = Outgoing {
            id,
            method: call.method,
            revision: modern.then_some(link.offer.revision),
            target,
            mirrored: mirrored(ask),
            text,
        };
        let mut guard = Guard::new(Arc::clone(&link.transport), id, link.offer.era);
        match link.transport.request(outgoing).await {
            Ok(Incoming::Whole(message)) => {
                guard.disarm();
                if let Some((me, hidden)) = tasks
                    && let Some(task) = task::Told::made(&message, link.offer.era)
                {
                    let hold = Hold { turn, lease: hold.lease.take() };
                    return Ok(Reply::Stream(me.follow(ask.clone(), task, hold, hidden)));
                }
                let answer = answer(message, link.offer.era, ask, &self.visits)?;
                Ok(Reply::Whole(answer))
            }
            Ok(Incoming::Stream(messages)) => {
                let hold = Hold { turn, lease: hold.lease.take() };
                let backend = Arc::clone(&self.name);
                let (parking, visits) = (Arc::clone(&self.parking), Arc::clone(&self.visits));
                let place = Place { backend, parking, visits, hold, tasks };
                Ok(Reply::Stream(relay(messages, guard, place, ask)))
            }
            Err(trouble) => {
                if trouble.kind.is_over() {
                    guard.disarm();
                }
                Err(trouble)
            }
        }
    }

    /// Is a call to be the only one under way, because a question could not be told apart?
    pub(super) fn takes_turns(&self, link: &Link, call: &Call) -> bool {
        self.may_be_asked(call) && link.offer.era == Era::Legacy && !link.transport.tells_origin()
    }

    pub(super) fn may_be_asked(&self, call: &Call) -> bool {
        self.capabilities != Capabilities::NONE && may_ask(call.method)
    }

    pub(super) async fn turn(
        &self,
        link: &Link,
        call: &Call,
        turn: Option<Turn>,
    ) -> Result<Option<Turn>, Trouble> {
        if !self.takes_turns(link, call) {
            return Ok(None);
        }
        if turn.is_some() {
            return Ok(turn);
        }
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turn).acquire_owned()).await;
        let busy = "other calls whose users may be asked something take all connections; try again later";
        turn.ok().and_then(Result::ok).map(Some).ok_or_else(|| Trouble::new(Kind::Busy, busy))
    }

    /// On a legacy connection the log level is the connection's: it is set to the most
    /// talkative one that anybody wants, and what others did not ask for is left out later.
    async fn speak_up(&self, link: &Link, level: Level) {
        let number = level as u8;
        if link.offer.era == Era::Modern || link.level.fetch_min(number, Ordering::Relaxed) <= number {
            return;
        }
        let has_logging = json::member(link.offer.capabilities.as_bytes(), "logging").is_some();
        if has_logging {
            let params = format!("{{\"level\":{}}}", json::quoted(level.name()));
            let _ = handshake::ask(&*link.transport, self.id(), Method::SetLevel, &params, None).await;
        }
    }
}

/// The request of the next round.
fn repeated(message: &Message, given: &Given) -> Result<Message> {
    let answers: Vec<(&str, &[u8])> = given
        .answers
        .iter()
        .filter_map(|(key, answer)| Some((key.as_str(), &answer.as_ref().ok()?[..])))
        .collect();
    let text = project::next_round(message, &answers, given.state.as_deref());
    Ok(Message::parse(text.into(), &Limits::REQUEST)?)
}

/// The arguments that a tool wants repeated in headers, as far as they are there.
fn mirrored(ask: &Ask) -> Vec<(String, String)> {
    if ask.mirrored.is_empty() {
        return Vec::new();
    }
    let arguments = ask.call.message.in_params("arguments").unwrap_or_default();
    let value = |mirrored: &Mirrored| {
        let text = mirrored.value(arguments)?;
        Some((mirrored.header.clone(), text))
    };
    ask.mirrored.iter().filter_map(value).collect()
}
