//! How is one client's connection served?
//!
//! HTTP/1.1 by hyper's own server, and HTTP/2 where the client begins with it. What is done here
//! beside that saves work on every request: one timer for all heads of a connection, and no
//! waking where nothing has happened.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::{
    body::Incoming,
    rt::{Sleep, Timer},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::body::Body;

/// How long a client may take to send the head of a request.
pub const HEAD: Duration = Duration::from_secs(10);
/// How an HTTP/2 connection begins, and no HTTP/1.1 request.
const HTTP2: &[u8] = b"PRI ";
/// The largest head, and how much is read at once.
const BUFFER: usize = 64 << 10;

/// Why a connection ended early.
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Serves a connection until its client closes it, or until it is at rest after `closing`.
pub async fn serve<A, F>(stream: TcpStream, closing: Arc<Closing>, answer: A) -> Result<(), Fault>
where
    A: Fn(Request<Received>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    stream.set_nodelay(true).ok();
    let mut first = [0; HTTP2.len()];
    let read = tokio::select! {
        read = tokio::time::timeout(HEAD, stream.peek(&mut first)) => read??,
        () = closing.token.cancelled() => return Ok(()),
    };
    if read == 0 {
        return Ok(());
    }
    if HTTP2.starts_with(&first[..read]) {
        let service = service_fn(move |request: Request<Incoming>| {
            answer(request.map(|body| Received { body, hushed: false })).map(Ok::<_, Infallible>)
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(HeadTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
        server.http2().timer(TokioTimer::new()).max_concurrent_streams(100);
        let connection = pin!(server.serve_connection(TokioIo::new(stream), service).into_owned());
        return until_closed(connection, &closing).await;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        answer(request.map(|body| Received { body, hushed: true })).map(Ok::<_, Infallible>)
    });
    let mut server = http1::Builder::new();
    server.timer(HeadTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    let connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    until_closed(connection, &closing).await.map_err(Fault::from)
}

/// Tells connections that it is time to close.
#[derive(Debug, Default)]
pub struct Closing {
    begun: AtomicBool,
    token: CancellationToken,
}

impl Closing {
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.token.cancel();
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
            let ear = Arc::new(Ear(context.waker().clone()));
            task = Some((context.waker().clone(), ear.into()));
            let _ = cancelled.as_mut().poll(context);
        }
        if !told && closing.begun.load(Ordering::Acquire) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        let (_, ear) = task.as_ref().expect("it was set above");
        connection.as_mut().poll(&mut Context::from_waker(ear))
    })
    .await
}

/// Hears what happens on a connection, and wakes its task, except for a [`Hush`].
struct Ear(Waker);

thread_local! {
    static HUSH: Cell<Hush> = const { Cell::new(Hush::Off) };
}

/// Is this thread taking a piece of a body?
#[derive(Default)]
enum Hush {
    #[default]
    Off,
    On,
    /// Yes, and that has woken the connection's task.
    Rang(Arc<Ear>),
}

impl Wake for Ear {
    fn wake(self: Arc<Self>) {
        match HUSH.take() {
            Hush::Off => self.0.wake_by_ref(),
            Hush::On | Hush::Rang(_) => HUSH.set(Hush::Rang(self)),
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Arc::clone(self).wake();
    }
}

/// The body of a request.
///
/// Whoever takes a piece of it wakes the connection's task, so that the next is read. After the
/// last piece there is none, and the task would look at everything in vain.
#[derive(Debug)]
pub struct Received {
    body: Incoming,
    hushed: bool,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if !this.hushed {
            return Pin::new(&mut this.body).poll_frame(context);
        }
        HUSH.set(Hush::On);
        let frame = Pin::new(&mut this.body).poll_frame(context);
        let hush = HUSH.take();
        let last = matches!(frame, Poll::Ready(Some(Ok(_)))) && this.body.is_end_stream();
        if let Hush::Rang(ear) = hush
            && !last
        {
            ear.0.wake_by_ref();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// hyper's timer for one connection. hyper asks for a new deadline with every request; here they
/// share one timer, which is set again only when it has gone off for an earlier deadline.
struct HeadTimer(Arc<Mutex<Pin<Box<tokio::time::Sleep>>>>);

impl HeadTimer {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Box::pin(tokio::time::sleep(HEAD)))))
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadDeadline { deadline: deadline.into(), shared: Arc::clone(&self.0) })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

/// One deadline of a connection. Later ones are never earlier.
struct HeadDeadline {
    deadline: tokio::time::Instant,
    shared: Arc<Mutex<Pin<Box<tokio::time::Sleep>>>>,
}

impl Sleep for HeadDeadline {}

impl Future for HeadDeadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.shared.lock().expect("no code panics while it holds this lock");
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(self.deadline);
        }
        Poll::Pending
    }
}
