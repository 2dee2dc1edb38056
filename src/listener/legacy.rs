//! What do the messages of a session mean (revisions 2024-11-05 to 2025-11-25)?
//!
//! Requests of a session become calls here, and what concerns the session alone is answered
//! here. How the messages came, over HTTP or a pipe, makes no difference.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{
    Front,
    replay::Stream,
    session::{Cancelled, Session, UnderWay},
    write::Asked,
};
use crate::{
    call::{Answer, Call, Client, Event, Progress, Proof, Reply, Replying, Stage},
    error::{Error, Result},
    wire::{
        capability::Capabilities,
        json::{self, Limits},
        mcp::{Era, Level, Method, Revision},
        message::Message,
        trace::Trace,
    },
};

/// A request under way, and how to write its answer.
pub struct Asking {
    pub asked: Asked,
    pub reply: Running,
}

/// A reply to come.
pub struct Running {
    run: Replying,
    /// What the client's cancelling ends, if it can be cancelled.
    under_way: Option<(UnderWay, Cancelled)>,
}

impl Running {
    /// One that its client cannot cancel.
    pub fn alone(run: impl Future<Output = Result<Reply>> + Send + 'static) -> Self {
        Self { run: Box::pin(run), under_way: None }
    }

    /// One that ends when its client cancels it.
    pub fn cancellable(run: Replying, under_way: UnderWay, cancelled: Cancelled) -> Self {
        Self { run, under_way: Some((under_way, cancelled)) }
    }

    /// The reply, or nothing when the client has cancelled the request. The rest of a streamed
    /// reply is under way too.
    pub async fn reply(self) -> Option<Result<Reply>> {
        let Self { run, under_way } = self;
        let Some((under_way, mut cancelled)) = under_way else { return Some(run.await) };
        let reply = tokio::select! {
            biased;
            _ = &mut cancelled => return None,
            reply = run => reply,
        };
        match reply {
            Ok(Reply::Stream(events)) => {
                let ended = async move {
                    let _ = cancelled.await;
                    drop(under_way);
                };
                Some(Ok(Reply::Stream(events.take_until(ended).boxed())))
            }
            other => Some(other),
        }
    }
}

/// What comes with a message, and not in it.
#[derive(Debug, Default)]
pub struct Beside {
    pub trace: Option<Box<Trace>>,
    pub proof: Option<Arc<Proof>>,
}

impl<S: Stage> Front<S> {
    /// Begins a request on a session; `open` says that the client can be asked something while
    /// it is under way. Its answer stays under way until `reply` is dropped.
    pub fn ask(
        &self,
        session: &Arc<Session>,
        message: Message,
        progress: Option<Bytes>,
        beside: Beside,
        open: bool,
    ) -> Result<Asking> {
        let id = message.id_bytes().unwrap_or_default();
        let method = message.known_method().filter(|method| method.exists_in(Era::Legacy));
        if method == Some(Method::Initialize) {
            return self.initialize(session, message, id);
        }
        let client = session.client().cloned();
        let early = || Error::NotRpc { what: "the first request must be `initialize`", id: Some(id.clone()) };
        let client = match client {
            Some(client) => client,
            None if method == Some(Method::Ping) => nobody(Revision::NEWEST_LEGACY),
            None => return Err(early()),
        };
        let unknown = || Error::UnknownMethod(message.method().unwrap_or_default().into_owned());
        let method = method.ok_or_else(unknown)?;
        let asked = Asked { id: id.clone(), method, revision: client.revision };
        let here = match method {
            Method::Ping => Some(Ok(())),
            Method::SetLevel => Some(set_level(session, &message)),
            Method::Subscribe => {
                let watching = self.watch(session, resource(&message)?);
                let done = || Reply::Whole(Answer::Result(Bytes::from_static(b"{}")));
                let reply = Running::alone(async move { watching.await.map(|()| done()) });
                return Ok(Asking { asked, reply });
            }
            Method::Unsubscribe => Some(resource(&message).map(|uri| session.unsubscribe(&uri))),
            _ => None,
        };
        if let Some(done) = here {
            let reply = done.map(|()| Reply::Whole(Answer::Result(Bytes::from_static(b"{}"))));
            return Ok(Asking { asked, reply: Running::alone(std::future::ready(reply)) });
        }
        let (under_way, cancelled) = session.begin(id)?;
        let capabilities = if open { client.capabilities } else { Capabilities::NONE };
        let call = Call {
            caller: session.caller(),
            session: Some(session.mark.clone()),
            scope: session.scope.clone(),
            method,
            message,
            client: Client { capabilities, ..client },
            log_level: session.level(),
            progress: progress.map(Progress::new),
            trace: beside.trace,
            mirrored: None,
            given: None,
            aim: None,
            marks: None,
            asked_by: None,
            proof: beside.proof,
        };
        let reply = Running::cancellable(self.run_asking(session, call), under_way, cancelled);
        Ok(Asking { asked, reply })
    }

    /// Watches a resource for a session: a subscription of its own, whose notifications go to
    /// the session's stream.
    pub fn watch(
        &self,
        session: &Arc<Session>,
        uri: String,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let text = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"subscriptions/listen\",\"params\":{{\"notifications\":{{\"resourceSubscriptions\":[{}]}}}}}}",
            json::quoted(&uri)
        );
        let message = Message::parse(text.into(), &Limits::REQUEST);
        let call = message.map(|message| {
            Call::new(
                session.caller(),
                session.scope.clone(),
                Method::Listen,
                message,
                session.client().cloned().unwrap_or_else(|| nobody(Revision::NEWEST_LEGACY)),
            )
        });
        let run = call.map(|call| self.run(call));
        let session = Arc::clone(session);
        async move {
            let Reply::Stream(mut events) = run?.await? else { return Err(Error::UnknownResource(uri)) };
            match events.next().await {
                Some(Ok(Event::Notification(text)))
                    if is_watched(&Message::parse(text.clone(), &Limits::REPLY)?) =>
                {
                    session.subscribe(uri, events)
                }
                _ => Err(Error::UnknownResource(uri)),
            }
        }
    }

    fn initialize(&self, session: &Arc<Session>, message: Message, id: Bytes) -> Result<Asking> {
        if session.client().is_some() {
            return Err(Error::NotRpc { what: "this session was initialized before", id: Some(id) });
        }
        let client = introduction(&message)?;
        let asked = Asked { id, method: Method::Initialize, revision: client.revision };
        let call =
            Call::new(session.caller(), session.scope.clone(), Method::Initialize, message, client.clone());
        let (run, session) = (self.run(call), Arc::clone(session));
        let reply = async move {
            let reply = run.await;
            if reply.is_ok() {
                session.introduce(client);
            }
            reply
        };
        Ok(Asking { asked, reply: Running::alone(reply) })
    }
}

/// The resource that a request names.
fn resource(message: &Message) -> Result<String> {
    let uri = message.in_params("uri").and_then(json::string);
    let missing = || Error::Params("the parameter `uri`, a text, is missing".into());
    uri.map(|uri| uri.into_owned()).ok_or_else(missing)
}

/// Does an acknowledgement say that resources are watched?
fn is_watched(acknowledgement: &Message) -> bool {
    let filter = acknowledgement.in_params("notifications").unwrap_or_default();
    json::member(filter, "resourceSubscriptions").is_some()
}

/// A notification of the client's.
pub fn notice(session: &Session, message: &Message) {
    // `initialized` tells us nothing new, and roots are asked for when they are needed.
    if message.method().as_deref() == Some("notifications/cancelled")
        && let Some(id) = message.in_params("requestId")
    {
        session.cancel(id);
    }
}

/// What the client says of itself. A revision we do not know, or one that has no handshake, is
/// answered with our newest that has one, and the client decides whether to go on.
fn introduction(message: &Message) -> Result<Client> {
    let wants = |what: &str| Error::Params(format!("initialize wants {what}"));
    let version = message.in_params("protocolVersion").and_then(json::string);
    let version = version.ok_or_else(|| wants("the parameter `protocolVersion`, a text"))?;
    let revision = Revision::parse(&*version).filter(|revision| revision.era() == Era::Legacy);
    let object = |name: &str| {
        let value = message.in_params(name).filter(|value| value.starts_with(b"{"));
        value.map(Bytes::copy_from_slice).ok_or_else(|| wants(&format!("the parameter `{name}`, an object")))
    };
    let revision = revision.unwrap_or(Revision::NEWEST_LEGACY);
    Ok(Client {
        revision,
        capabilities: Capabilities::of(&object("capabilities")?, revision),
        info: object("clientInfo")?,
    })
}

/// A client that has not introduced itself.
pub fn nobody(revision: Revision) -> Client {
    Client { revision, capabilities: Capabilities::NONE, info: Bytes::from_static(b"{}") }
}

fn set_level(session: &Session, message: &Message) -> Result<()> {
    let level = message.in_params("level").and_then(json::string).and_then(|name| Level::parse(&name));
    let wrong = || {
        Error::Params(
            "`level` must be one of debug, info, notice, warning, error, critical, alert and emergency"
                .into(),
        )
    };
    session.set_level(level.ok_or_else(wrong)?);
    Ok(())
}

/// Writes what is left of an answer to a stream: notifications, then the response. After a
/// cancellation there is none.
pub async fn pump(asking: Asking, stream: &Arc<Stream>) {
    let Asking { asked, reply } = asking;
    let answer = match reply.reply().await {
        None => return,
        Some(Ok(Reply::Whole(answer))) => Ok(answer),
        Some(Ok(Reply::Stream(mut events))) => loop {
            match events.next().await {
                None => return,
                Some(Ok(Event::Task(_) | Event::Alive)) => {}
                Some(Ok(Event::Notification(text))) => stream.push(text),
                Some(Ok(Event::Answer(answer))) => break Ok(answer),
                Some(Err(error)) => break Err(error),
            }
        },
        Some(Err(error)) => Err(error),
    };
    stream.push(asked.response(answer).1);
}
