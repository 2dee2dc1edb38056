//! What does an HTTP answer of ours consist of: one piece, or events as they come?

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};

use crate::wire::sse;

/// How long a stream may be silent before a comment shows that it is alive. Official SDKs
/// wait as long.
const SILENCE: Duration = Duration::from_secs(15);

/// The body of an answer.
pub enum Body {
    Whole(Bytes),
    /// One text, of which no piece is empty.
    Pieces(VecDeque<Bytes>),
    Events(BoxStream<'static, Bytes>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(text) if text.is_empty() => Poll::Ready(None),
            Self::Whole(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Self::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Self::Events(events) => {
                Pin::new(events).poll_next(context).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(text) => text.is_empty(),
            Self::Pieces(pieces) => pieces.is_empty(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(text) => SizeHint::with_exact(text.len() as u64),
            Self::Pieces(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// A JSON text with its status.
pub fn json(status: u16, text: impl Into<Bytes>) -> Response<Body> {
    as_json(status, Body::Whole(text.into()))
}

/// A JSON text in pieces that follow one another, none of them empty.
pub fn json_in_pieces(pieces: Vec<Bytes>) -> Response<Body> {
    as_json(200, Body::Pieces(pieces.into()))
}

fn as_json(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A plain sentence with its status, for people who come with a browser or curl.
pub fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A stream of events. `alive` is called whenever something was sent.
pub fn events(events: BoxStream<'static, Bytes>, alive: impl Fn() + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::Events(kept_alive(events, alive)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Asks nginx and its like not to hold events back (revision 2026-07-28, "Streaming").
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn kept_alive(
    events: BoxStream<'static, Bytes>,
    alive: impl Fn() + Send + 'static,
) -> BoxStream<'static, Bytes> {
    stream::unfold((events, alive), |(mut events, alive)| async {
        let next = tokio::time::timeout(SILENCE, events.next()).await;
        let event = next.unwrap_or_else(|_| Some(Bytes::from_static(sse::KEEP_ALIVE)))?;
        alive();
        Some((event, (events, alive)))
    })
    .boxed()
}
