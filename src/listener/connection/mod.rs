//! How is one client's connection served?
//!
//! HTTP/1.1 by hyper's own server, and HTTP/2 where the client begins with it. What is done here
//! beside that saves work on every request (one timer for all heads of a connection, and no
//! waking where nothing has happened), and cuts clients that take more than their share.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulConnection};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_util::sync::CancellationToken;

mod head; //       how a head is written
mod http2;
mod hush; //       waking in vain
pub mod limits; // [listen.limits]
mod received; //   bodies of requests
mod refuse; //     what is not taken
pub mod seats; //  how many there may be
mod timer; //      heads and rest
mod watched; //    the stream

pub use received::{Received, TooSlow};

use super::body::Body;
use hush::Ear;
use limits::{Pace, Settings};
use timer::HeadTimer;
use watched::{Meter, Watched};

/// How an HTTP/2 connection begins, and no HTTP/1.1 request.
const HTTP2: &[u8] = b"PRI ";
/// How much is read at once.
const BUFFER: usize = 64 << 10;
/// How many headers hyper finds room for without asking for memory.
const USUAL_HEADERS: usize = 100;

/// Why a connection ended early.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Serves a connection until its client closes it, or until it is at rest after `closing`.
pub async fn serve<S, A, F>(
    mut stream: S,
    settings: Arc<Settings>,
    closing: Arc<Closing>,
    answer: A,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Received>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let first = tokio::select! {
        first = tokio::time::timeout(settings.head.0, begun(&mut stream)) => first??,
        () = closing.token.cancelled() => return Ok(()),
    };
    if first.is_empty() {
        return Ok(());
    }
    if first.starts_with(HTTP2) {
        let stream = Watched::new(stream, first, None, &settings);
        return http2::serve(stream, &closing, &settings, answer).await;
    }
    let meter = Meter::new(&settings);
    let stream = Watched::new(stream, first, Some(Arc::clone(&meter)), &settings);
    let mut server = http1::Builder::new();
    server
        .timer(HeadTimer::new(Arc::clone(&meter), &settings))
        .header_read_timeout(settings.idle.0)
        .max_header_size(settings.head_size.0)
        .max_buf_size(BUFFER.max(settings.head_size.0));
    if settings.headers > USUAL_HEADERS {
        server.max_headers(settings.headers);
    }
    let (pace, headers, ending) = (Pace::of(&settings), settings.headers, Arc::clone(&closing));
    let service = service_fn(move |request: Request<Incoming>| {
        let last = ending.has_begun();
        let refused = meter.next_request().and_then(refuse::malformed);
        let answered = match refused.or_else(|| refuse::too_much(request.headers(), headers)) {
            Some(refused) => std::future::ready(refused).left_future(),
            None => answer(request.map(|body| Received::new(body, true, pace))).right_future(),
        };
        answered.map(move |mut response| {
            if last {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        })
    });
    let connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    until_closed(connection, &closing).await.map_err(Fault::from)
}

/// Reads until it is known whether it is HTTP/2.
async fn begun<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<Bytes> {
    let mut first = BytesMut::with_capacity(4 << 10);
    while stream.read_buf(&mut first).await? > 0 {
        if first.len() >= HTTP2.len() || !HTTP2.starts_with(&first) {
            return Ok(first.freeze());
        }
    }
    Ok(Bytes::new())
}

/// Tells connections that it is time to close.
#[derive(Debug, Default)]
pub struct Closing {
    begun: AtomicBool,
    gently: CancellationToken,
    token: CancellationToken,
}

impl Closing {
    /// The next answer on each connection is its last. A client that sends a request just now gets it
    /// answered.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.gently.cancel();
    }

    /// Connections at rest are closed.
    pub fn rest(&self) {
        self.begin();
        self.token.cancel();
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }
}

async fn until_closed<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    closing: &Closing,
) -> Result<(), C::Error> {
    let mut cancelled = pin!(closing.token.cancelled());
    let mut task: Option<(Waker, Waker)> = None;
    let mut told = false;
    poll_fn(|context| {
        // Asking to be woken once is enough, for as long as it is the same task.
        if task.as_ref().is_none_or(|(task, _)| !task.will_wake(context.waker())) {
            task = Some((context.waker().clone(), Ear::of(context.waker().clone()).into()));
            let _ = cancelled.as_mut().poll(context);
        }
        if !told && closing.has_begun() && closing.token.is_cancelled() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        let (_, ear) = task.as_ref().expect("it was set above");
        connection.as_mut().poll(&mut Context::from_waker(ear))
    })
    .await
}
