//! What does a connection's stream tell of its client, and when is it cut?

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{
    head::{Malformed, Scanner},
    limits::Settings,
};
use crate::weaken;

/// What is known of the requests of one HTTP/1.1 connection, beside what hyper knows.
#[derive(Debug)]
pub struct Meter(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    scanner: Scanner,
    /// Has anything of the next request come?
    arrived: bool,
    /// How many requests have been begun to be answered.
    begun: u32,
}

impl Meter {
    pub fn new(settings: &Settings) -> Arc<Self> {
        let inner = Inner { scanner: Scanner::new(settings), arrived: false, begun: 0 };
        Arc::new(Self(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn come(&self, bytes: &[u8]) {
        let mut inner = self.inner();
        inner.arrived = true;
        inner.scanner.come(bytes);
    }

    /// The next request is waited for.
    pub fn rest(&self) {
        let mut inner = self.inner();
        inner.arrived = inner.scanner.rest();
    }

    pub fn has_arrived(&self) -> bool {
        self.inner().arrived
    }

    /// Is the next request refused for its head?
    pub fn next_request(&self) -> Option<Malformed> {
        let mut inner = self.inner();
        let number = inner.begun;
        inner.begun += 1;
        inner.scanner.verdict(number)
    }
}

/// A stream that is cut when its other side takes nothing for too long.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    /// What was read before it was known who is to read it.
    first: Bytes,
    meter: Option<Arc<Meter>>,
    patience: Duration,
    /// Since when nothing is taken; none while all is.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub fn new(stream: S, first: Bytes, meter: Option<Arc<Meter>>, settings: &Settings) -> Self {
        Self { stream, first, meter, patience: settings.write.0, stalled: None }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.stalled = None;
            return done;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if stalled.as_mut().poll(context).is_ready() && !weaken::is("listen-write") {
            let why = "the client has taken nothing for too long (listen.limits.write)";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.first.is_empty() {
            std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        } else {
            let taken = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..taken]);
            this.first.advance(taken);
        }
        if let Some(meter) = &this.meter {
            meter.come(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watch(context, done)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.watch(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_flush(context) {
            // Nothing to flush is no sign that anything was taken.
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => this.watch(context, Poll::Pending),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_shutdown(context);
        this.watch(context, done)
    }
}
