//! From what a call says to an HTTP body: one JSON text, or an event stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode, header};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

pub type Body = UnsyncBoxBody<Bytes, io::Error>;
pub type Answered = Response<Body>;

pub const JSON: &str = "application/json";
pub const EVENTS: &str = "text/event-stream";

/// What a call says.
#[derive(Debug)]
pub enum Said {
    /// On the way to its answer; not heard where the answer comes as JSON.
    Aside(Bytes),
    /// Its answer.
    Last(Bytes),
}

/// Where a call says it.
pub type Outlet = UnboundedSender<Said>;

/// A call at work: what it says, and its end when nobody listens any more.
#[derive(Debug)]
pub struct Work {
    pub said: UnboundedReceiver<Said>,
    /// Ends the work with its listener, as 2026-07-28 has it; absent where a lost connection cancels nothing.
    pub bound: Option<Bound>,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub struct Bound(pub JoinHandle<()>);

impl Drop for Bound {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Work {
    /// The answer as JSON. A call that falls silent leaves its connection open, as the common servers do.
    pub async fn into_json(mut self, status: StatusCode) -> Answered {
        while let Some(said) = self.said.recv().await {
            if let Said::Last(answer) = said {
                return full(status, JSON, answer);
            }
        }
        std::future::pending().await
    }

    /// All it says, as events; the stream ends with the call.
    pub fn into_events(self) -> Answered {
        let Work { said, bound } = self;
        let events = Receiver(said).map(|said| match said {
            Said::Aside(message) | Said::Last(message) => Ok(event(&message)),
        });
        streamed(EVENTS, Held { inner: events, _held: bound })
    }
}

/// One message as an event. Line ends inside become lines of data, which is what they are to the reader.
pub fn event(message: &[u8]) -> Bytes {
    let mut event = b"event: message\n".to_vec();
    for line in lines(message) {
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(line);
        event.push(b'\n');
    }
    event.push(b'\n');
    event.into()
}

/// Split at LF, CR, or both together.
fn lines(message: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = message;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        lines.push(&rest[..end]);
        let width = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + width..];
    }
    lines.push(rest);
    lines
}

/// A stream of events, to be written to from elsewhere; it ends when the last sender is gone, and `held` with it.
pub fn events_from_outside(
    first: Option<Bytes>,
    held: impl Send + Unpin + 'static,
) -> (UnboundedSender<Bytes>, Answered) {
    let (sender, receiver) = unbounded_channel();
    let inner = stream::iter(first).chain(Receiver(receiver)).map(Ok);
    (sender, streamed(EVENTS, Held { inner, _held: held }))
}

pub fn streamed(kind: &str, bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Answered {
    let body = StreamBody::new(bytes.map(|bytes| bytes.map(Frame::data)));
    answered(StatusCode::OK, kind, body.boxed_unsync())
}

pub fn full(status: StatusCode, kind: &str, bytes: impl Into<Bytes>) -> Answered {
    let body = Full::new(bytes.into()).map_err(|never| match never {});
    answered(status, kind, body.boxed_unsync())
}

pub fn json(status: StatusCode, message: &Value) -> Answered {
    full(status, JSON, message.to_string())
}

pub fn empty(status: StatusCode) -> Answered {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn answered(status: StatusCode, kind: &str, body: Body) -> Answered {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    response.body(body).expect("a content type")
}

/// A channel's receiving end as a stream.
struct Receiver<T>(UnboundedReceiver<T>);

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}

/// A stream, and what is dropped with it.
struct Held<S, H> {
    inner: S,
    _held: H,
}

impl<S: Stream + Unpin, H: Unpin> Stream for Held<S, H> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.inner.poll_next_unpin(context)
    }
}
