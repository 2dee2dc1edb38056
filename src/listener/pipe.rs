//! How do requests and answers share one stream, as on standard input and output, or on the
//! HTTP+SSE pair of 2024-11-05?
//!
//! Every message that comes in is taken at once and answered when it is done, in any order.
//! Requests of the modern era may come on the same pipe: they speak for themselves.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::Response;

use super::{
    Front,
    body::{self, Body},
    envelope::{self, Envelope},
    legacy::{self, Asking, Beside, Running},
    replay::Stream,
    session::{Session, Sessions},
    write::Asked,
};
use crate::{
    call::{Caller, Scope, Stage},
    error::{Error, Result},
    wire::{
        json::{Limits, quoted},
        mcp::{Era, Revision},
        message::{self, Message},
        sse,
    },
};

/// What became of a message.
pub enum Taken {
    Nothing,
    /// It was answered at once, with an error.
    Answer(Bytes),
    Asking(Asking),
}

/// Takes one text from a pipe; its answers go to the session's own stream.
pub fn receive<S: Stage>(front: &Front<S>, session: &Arc<Session>, text: Bytes) -> Result<()> {
    let batch = message::batch(&text, &Limits::REQUEST)?;
    let has_batches = session.client().is_some_and(|client| client.revision == Revision::V2025_03_26);
    let texts = match batch {
        None => vec![text],
        Some(batch) if has_batches && !batch.is_empty() => batch,
        Some(_) => {
            let what = "a batch of messages is taken only on a session of revision 2025-03-26";
            return Err(Error::NotRpc { what, id: None });
        }
    };
    for text in texts {
        match take(front, session, text, true) {
            Taken::Nothing => {}
            Taken::Answer(text) => session.own.push(text),
            Taken::Asking(asking) => {
                let stream = Arc::clone(&session.own);
                tokio::spawn(async move { legacy::pump(asking, &stream).await });
            }
        }
    }
    Ok(())
}

/// Takes one message; `open` says that the client can be asked something meanwhile.
pub fn take<S: Stage>(front: &Front<S>, session: &Arc<Session>, text: Bytes, open: bool) -> Taken {
    let message = match Message::parse(text, &Limits::REQUEST) {
        Ok(message) => message,
        Err(malformed) => {
            let error = Error::from(malformed);
            let id = if let Error::NotRpc { id, .. } = &error { id.clone() } else { None };
            return Taken::Answer(error.response(id.as_deref(), Era::Legacy).into());
        }
    };
    match message.kind() {
        message::Kind::Notification => {
            legacy::notice(session, &message);
            Taken::Nothing
        }
        message::Kind::Response => {
            session.answered(message);
            Taken::Nothing
        }
        message::Kind::Request => {
            let id = message.id_bytes().unwrap_or_default();
            let envelope = Envelope::read(&message);
            let modern = envelope.is_modern();
            let era = if modern { Era::Modern } else { Era::Legacy };
            let asking = if modern {
                self_contained(front, session, message, envelope)
            } else {
                front.ask(session, message, envelope.progress, Beside::default(), open)
            };
            match asking {
                Ok(asking) => Taken::Asking(asking),
                Err(error) => Taken::Answer(error.response(Some(&id), era).into()),
            }
        }
    }
}

fn self_contained<S: Stage>(
    front: &Front<S>,
    session: &Arc<Session>,
    message: Message,
    envelope: Envelope,
) -> Result<Asking> {
    let id = message.id_bytes().unwrap_or_default();
    let call = envelope::call(message, envelope, session.scope.clone(), session.caller(), None)?;
    let asked = Asked { id: id.clone(), method: call.method, revision: call.client.revision };
    let (under_way, cancelled) = session.begin(id)?;
    Ok(Asking { asked, reply: Running::cancellable(front.run(call), under_way, cancelled) })
}

/// Opens the stream of the old transport; its first event says where to post.
pub fn open_sse<S: Stage>(front: &Front<S>, caller: Caller, scope: Scope) -> Response<Body> {
    let session = match front.sessions.open(caller, scope, Stream::pipe()) {
        Ok(session) => session,
        Err(error) => return body::json(error.codes(Era::Legacy).0, error.response(None, Era::Legacy)),
    };
    let endpoint = Bytes::from(format!("event: endpoint\ndata: /messages?session={}\n\n", session.id));
    let guard = Ending { sessions: Arc::clone(&front.sessions), id: session.id.clone() };
    let messages = session.own.follow(None).map(move |(_, text)| {
        let _ = &guard; // Lives as long as the stream, whose end is the session's.
        sse::message(None, &text)
    });
    let events = stream::once(std::future::ready(endpoint)).chain(messages).boxed();
    body::events(events, move || session.touch())
}

/// Without its stream a session of the old transport is over.
struct Ending {
    sessions: Arc<Sessions>,
    id: String,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.sessions.close(&self.id);
    }
}

/// Waits until a session's requests are answered, but no longer than this.
pub async fn finish(session: &Session, longest: std::time::Duration) {
    let done = async {
        while session.busy() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(longest, done.boxed()).await;
}

/// The notification that a list has changed.
pub fn changed(method: &str) -> Bytes {
    Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"method\":{}}}", quoted(method)))
}
