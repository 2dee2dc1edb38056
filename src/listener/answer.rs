//! Does an answer go out as one text or as a stream, and what if the client goes away?
//!
//! One text, if the response is all there is; a stream, if the reply is one. In the modern era a client that goes away has cancelled its request. In the
//! legacy era it has not: the work goes on, and the rest of a stream can be had later.

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{self, BoxFuture},
    stream,
};
use http::Response;

use super::{
    body::{self, Body},
    guard::Scopes,
    legacy::{Asking, Running, pump},
    refusal::with_headers,
    replay,
    session::Session,
    write::Asked,
};
use crate::{
    call::{Event, Events, Reply, Replying},
    error::{Error, Result},
    wire::{mcp::Revision, sse},
};

/// The answer to a request that speaks for itself. A client that goes away drops this future
/// or the stream it gave, and with it the call.
pub async fn modern(asked: Asked, run: Replying, takes_events: bool) -> Response<Body> {
    match run.await {
        Ok(Reply::Stream(events)) if takes_events => body::events(written(asked, events).boxed(), || {}),
        reply => whole(&asked, reply).await,
    }
}

/// The events of a modern reply: notifications, then the response.
fn written(asked: Asked, events: Events) -> impl futures_util::Stream<Item = Bytes> + Send {
    events.filter_map(move |event| {
        let text = match event {
            Ok(Event::Notification(text)) => text,
            Ok(Event::Task(_) | Event::Alive) => return future::ready(None),
            Ok(Event::Answer(answer)) => asked.response(Ok(answer)).1,
            Err(error) => asked.response(Err(error)).1,
        };
        future::ready(Some(sse::message(None, &text)))
    })
}

/// The response to a client that takes no events: what comes before it is left out.
async fn whole(asked: &Asked, reply: Result<Reply>) -> Response<Body> {
    let answer = match reply {
        Ok(Reply::Whole(answer)) => Ok(answer),
        Ok(Reply::Stream(mut events)) => loop {
            match events.next().await {
                Some(Ok(Event::Notification(_) | Event::Task(_) | Event::Alive)) => {}
                Some(Ok(Event::Answer(answer))) => break Ok(answer),
                Some(Err(error)) => break Err(error),
                None => return cancelled(),
            }
        },
        Err(error) => Err(error),
    };
    if let Ok(answer) = &answer
        && let Some(pieces) = asked.pieces(answer)
    {
        return body::json_in_pieces(pieces);
    }
    let headers = answer.as_ref().err().map(Error::headers).unwrap_or_default();
    let scopes = match &answer {
        Err(Error::NeedsScopes(scopes)) => Some(Scopes(Arc::clone(scopes))),
        _ => None,
    };
    let (status, text) = asked.response(answer);
    let mut response = with_headers(headers, body::json(status, text));
    if let Some(scopes) = scopes {
        response.extensions_mut().insert(scopes);
    }
    response
}

/// A request that its client has cancelled gets no response, but the HTTP exchange has to end.
fn cancelled() -> Response<Body> {
    body::events(stream::empty().boxed(), || {})
}

/// The answer to a request on a session. A client that goes away does not cancel it: it may
/// come back for the rest of a stream, and has a message of its own for cancelling.
pub async fn legacy(asking: Asking, session: &Arc<Session>, takes_events: bool) -> Response<Body> {
    let Asking { asked, reply } = asking;
    let session = Arc::clone(session);
    let work = async move {
        match reply.reply().await {
            None => cancelled(),
            Some(Ok(Reply::Stream(events))) if takes_events => streamed(asked, events, session),
            Some(reply) => whole(&asked, reply).await,
        }
    };
    detached(work).await
}

/// A stream that is written whether or not its client stays to read it.
fn streamed(asked: Asked, events: Events, session: Arc<Session>) -> Response<Body> {
    let stream = session.open_stream(&asked.id);
    let opening = asked.revision >= Revision::V2025_11_25;
    let rest = Running::alone(future::ready(Ok(Reply::Stream(events))));
    let writer = Arc::clone(&stream);
    tokio::spawn(async move {
        pump(Asking { asked, reply: rest }, &writer).await;
        writer.end();
    });
    let first = stream::iter(opening.then(|| stream.opening()));
    body::events(first.chain(stream.events(Some(0))).boxed(), move || session.touch())
}

/// The response to a request of a batch, without what comes before it.
pub async fn last_of(asking: Asking) -> Option<Bytes> {
    let stream = replay::Stream::pipe();
    pump(asking, &stream).await;
    stream.end();
    stream.follow(None).map(|(_, text)| text).collect::<Vec<_>>().await.pop()
}

/// Work that goes on when nobody waits for it any more.
pub struct Detached<T: Send + 'static>(Option<BoxFuture<'static, T>>);

pub fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Detached<T> {
    Detached(Some(work.boxed()))
}

impl<T: Send + 'static> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<T> {
        let work = self.0.as_mut().expect("it is not polled after its end");
        let done = work.poll_unpin(context);
        if done.is_ready() {
            self.0 = None;
        }
        done
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        if let Some(work) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(work.map(drop));
        }
    }
}
