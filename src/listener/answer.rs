//! Does an answer go out as one text or as a stream, and what if the client goes away?
//!
//! One text, if the response is all there is; a stream, if something comes before it or it
//! takes long. In the modern era a client that goes away has cancelled its request. In the
//! legacy era it has not: the work goes on, and the rest of a stream can be had later.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use http::Response;

use super::{
    body::{self, Body},
    legacy::{Asking, pump},
    session::Session,
    stream as replay,
    write::Asked,
};
use crate::{
    call::{Event, Reply},
    error::Result,
    wire::{mcp::Revision, sse},
};

/// After this long without an answer the client gets a stream, whose comments keep the
/// connection from being taken for dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// The answer to a request that speaks for itself. A client that goes away drops this future
/// or the stream it gave, and with it the call.
pub async fn modern(
    asked: Asked,
    mut run: BoxFuture<'static, Result<Reply>>,
    takes_events: bool,
) -> Response<Body> {
    if !takes_events {
        return whole(&asked, run.await).await;
    }
    match tokio::time::timeout(PATIENCE, &mut run).await {
        Ok(Ok(Reply::Whole(answer))) => {
            let (status, text) = asked.response(Ok(answer));
            body::json(status, text)
        }
        Ok(Ok(Reply::Stream(events))) => body::events(written(asked, events).boxed(), || {}),
        Ok(Err(error)) => {
            let (status, text) = asked.response(Err(&error));
            body::json(status, text)
        }
        Err(_) => {
            let events = run.map(|reply| match reply {
                Ok(Reply::Whole(answer)) => stream::iter([Ok(Event::Answer(answer))]).boxed(),
                Ok(Reply::Stream(events)) => events,
                Err(error) => stream::iter([Err(error)]).boxed(),
            });
            body::events(written(asked, events.flatten_stream().boxed()).boxed(), || {})
        }
    }
}

/// The events of a modern reply: notifications, then the response.
fn written(asked: Asked, events: crate::call::Events) -> impl futures_util::Stream<Item = Bytes> + Send {
    events.map(move |event| match event {
        Ok(Event::Notification(text)) => sse::message(None, &text),
        Ok(Event::Answer(answer)) => sse::message(None, &asked.response(Ok(answer)).1),
        Err(error) => sse::message(None, &asked.response(Err(&error)).1),
    })
}

/// The response to a client that takes no events: what comes before it is left out.
async fn whole(asked: &Asked, reply: Result<Reply>) -> Response<Body> {
    let answer = match reply {
        Ok(Reply::Whole(answer)) => Ok(answer),
        Ok(Reply::Stream(mut events)) => loop {
            match events.next().await {
                Some(Ok(Event::Notification(_))) => {}
                Some(Ok(Event::Answer(answer))) => break Ok(answer),
                Some(Err(error)) => break Err(error),
                None => return cancelled(),
            }
        },
        Err(error) => Err(error),
    };
    let (status, text) = asked.response(answer.as_ref().map(Clone::clone));
    body::json(status, text)
}

/// A request that its client has cancelled gets no response, but the HTTP exchange has to end.
fn cancelled() -> Response<Body> {
    body::events(stream::empty().boxed(), || {})
}

/// The answer to a request on a session. A client that goes away does not cancel it: it may
/// come back for the rest of a stream, and has a message of its own for cancelling.
pub async fn legacy(asking: Asking, session: &Arc<Session>, events: bool) -> Response<Body> {
    let Asking { asked, reply } = asking;
    if !events {
        let work = async move {
            match reply.await {
                Some(reply) => whole(&asked, reply).await,
                None => cancelled(),
            }
        };
        return detached(work).await;
    }
    let mut reply = Detached(Some(reply));
    let first = tokio::time::timeout(PATIENCE, &mut reply).await;
    let rest = match first {
        Ok(None) => return cancelled(),
        Ok(Some(Ok(Reply::Stream(events)))) => std::future::ready(Some(Ok(Reply::Stream(events)))).boxed(),
        Ok(Some(Ok(Reply::Whole(answer)))) => {
            let (status, text) = asked.response(Ok(answer));
            return body::json(status, text);
        }
        Ok(Some(Err(error))) => {
            let (status, text) = asked.response(Err(&error));
            return body::json(status, text);
        }
        Err(_) => match reply.0.take() {
            Some(rest) => rest,
            None => return cancelled(),
        },
    };
    let stream = session.open_stream();
    let opening = asked.client.revision >= Revision::V2025_11_25;
    let asking = Asking { asked, reply: rest };
    let writer = Arc::clone(&stream);
    tokio::spawn(async move {
        pump(asking, &writer).await;
        writer.end();
    });
    let first = stream::iter(opening.then(|| stream.opening()));
    let session = Arc::clone(session);
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
