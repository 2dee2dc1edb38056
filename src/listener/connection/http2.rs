//! How is a connection of HTTP/2 served, and when is one of its streams cut?
//!
//! A client of HTTP/2 can take nothing of one answer while the connection goes on, by giving it no
//! window, and hyper waits. So each stream has its own watch. hyper runs a stream in a task of its
//! own, which asks the answer for its next piece once the one before may be sent: a piece that was
//! given out, and none asked for since, is a stream that stands still. Its task is ended, which
//! resets the stream.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Closing, Fault,
    limits::{Pace, Settings},
    received::Received,
    refuse,
    watched::Watched,
};
use crate::{listener::body::Body, weaken};

/// How much of an answer is given out at once.
const PIECE: usize = 32 << 10;
/// What a client may send ahead, on one stream and on all.
const WINDOWS: [u32; 2] = [64 << 10, 1 << 20];
/// How long a client that is told to go may take.
const GOING: Duration = Duration::from_secs(1);

pub async fn serve<S, A, F>(
    stream: Watched<S>,
    closing: &Closing,
    settings: &Settings,
    answer: A,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Received>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let pace = Pace::of(settings);
    let under_way = UnderWay::new();
    let open = Arc::clone(&under_way);
    let (headers, header_size) = (settings.headers, settings.header_size.0);
    let service = service_fn(move |request: Request<Incoming>| {
        let visit = Visit::begin(&open);
        let refused = refuse::too_much(request.headers(), headers)
            .or_else(|| refuse::too_long(request.headers(), header_size));
        let answered = match refused {
            Some(refused) => std::future::ready(refused).left_future(),
            None => answer(request.map(|body| Received::new(body, false, pace))).right_future(),
        };
        answered.map(|response| Ok::<_, Infallible>(response.map(|body| Sent::new(body, visit))))
    });
    let mut server = http2::Builder::new(Streams { patience: settings.write.0 });
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams)
        .initial_stream_window_size(WINDOWS[0])
        .initial_connection_window_size(WINDOWS[1])
        .max_header_list_size(u32::try_from(settings.head_size.0).unwrap_or(u32::MAX));
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        done = connection.as_mut() => return done.map_err(Fault::from),
        () = closing.gently.cancelled() => connection.as_mut().graceful_shutdown(),
        () = under_way.at_rest(settings) => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GOING, connection).await;
            return Ok(());
        }
    }
    connection.await.map_err(Fault::from)
}

/// The requests of one connection that have not been answered to the end.
struct UnderWay(Mutex<Count>);

struct Count {
    open: usize,
    /// Has there been any?
    any: bool,
    /// Since when there is none.
    since: Instant,
}

impl UnderWay {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Count { open: 0, any: false, since: Instant::now() })))
    }

    /// Waits until there has been none for too long.
    async fn at_rest(&self, settings: &Settings) {
        loop {
            let until = {
                let count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let patience = if count.any { settings.idle.0 } else { settings.head.0 };
                let (now, end) = (Instant::now(), count.since + patience);
                let idle = count.open == 0 && !weaken::is("listen-idle");
                if idle && end <= now {
                    return;
                }
                // A first request may come meanwhile, from which on it is another time.
                let again = now + settings.idle.0;
                if idle { end.min(again) } else { again }
            };
            sleep_until(until).await;
        }
    }
}

/// One request under way, until this is dropped.
struct Visit(Arc<UnderWay>);

impl Visit {
    fn begin(under_way: &Arc<UnderWay>) -> Self {
        let mut count = under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        (count.open, count.any) = (count.open + 1, true);
        Self(Arc::clone(under_way))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        count.open -= 1;
        count.since = Instant::now();
    }
}

thread_local! {
    /// Of the stream that this thread works on.
    static ASKED: Cell<Asked> = const { Cell::new(Asked { pieces: 0, given: false }) };
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Asked {
    /// How many pieces it was asked for.
    pieces: u64,
    /// Has it given out something, and not been asked for more?
    given: bool,
}

fn asked_for(given: bool) {
    ASKED.with(|asked| asked.set(Asked { pieces: asked.get().pieces + 1, given }));
}

/// The body of an answer, in pieces.
struct Sent {
    body: Body,
    rest: Bytes,
    _visit: Visit,
}

impl Sent {
    fn new(body: Body, visit: Visit) -> Self {
        // An answer of which nothing is asked for is one that may not be sent.
        ASKED.set(Asked { pieces: 0, given: true });
        Self { body, rest: Bytes::new(), _visit: visit }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            asked_for(false);
            let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(never)) => match never {},
                None => return Poll::Ready(None),
            }
        }
        asked_for(true);
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        // Not before it has been asked for: an answer whose last piece is not sent is not done.
        self.rest.is_empty() && matches!(&self.body, Body::Whole(text) if text.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// Runs streams, and ends those that stand still.
#[derive(Debug, Clone)]
struct Streams {
    patience: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let patience = self.patience;
        tokio::spawn(async move {
            let mut stream = pin!(stream);
            let mut last = Asked::default();
            let mut stalled: Pin<Box<Option<tokio::time::Sleep>>> = Box::pin(None);
            poll_fn(|context| {
                ASKED.set(last);
                let done = stream.as_mut().poll(context).is_ready();
                let asked = ASKED.replace(Asked::default());
                if done {
                    return Poll::Ready(());
                }
                if asked != last || !asked.given {
                    stalled.set(asked.given.then(|| sleep(patience)));
                    last = asked;
                }
                match stalled.as_mut().as_pin_mut() {
                    Some(stalled) if !weaken::is("listen-write") => stalled.poll(context),
                    _ => Poll::Pending,
                }
            })
            .await;
        });
    }
}
