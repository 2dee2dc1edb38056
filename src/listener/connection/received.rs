//! How does the body of a request come in?

use std::{
    fmt,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{Fault, hush, limits::Pace};
use crate::weaken;

/// The body of a request.
///
/// Whoever takes a piece of it wakes the connection's task, so that the next is read. After the
/// last piece there is none, and the task would look at everything in vain.
#[derive(Debug)]
pub struct Received {
    body: Incoming,
    hushed: bool,
    pace: Pace,
    come: usize,
    /// Runs once the body has been waited for; most come with their heads.
    clock: Option<Box<Clock>>,
}

#[derive(Debug)]
struct Clock {
    begun: Instant,
    sleep: Pin<Box<Sleep>>,
}

/// A body comes too slowly, by what is set with this key.
#[derive(Debug, Clone, Copy)]
pub struct TooSlow(pub &'static str);

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body comes too slowly ({})", self.0)
    }
}

impl std::error::Error for TooSlow {}

impl Received {
    /// `hushed`: it is read within the connection's own task.
    pub fn new(body: Incoming, hushed: bool, pace: Pace) -> Self {
        Self { body, hushed, pace, come: 0, clock: None }
    }

    fn take(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.hushed {
            return Pin::new(&mut self.body).poll_frame(context);
        }
        let (frame, rang) = hush::hushed(|| Pin::new(&mut self.body).poll_frame(context));
        let last = matches!(frame, Poll::Ready(Some(Ok(_)))) && self.body.is_end_stream();
        if let Some(ear) = rang
            && !last
        {
            ear.ring();
        }
        frame
    }

    /// The next piece has been waited for: is that too long?
    fn waited(&mut self, context: &mut Context<'_>) -> Option<TooSlow> {
        let patience = self.pace.patience(self.come);
        let clock = self.clock.get_or_insert_with(|| {
            let begun = Instant::now();
            Box::new(Clock { begun, sleep: Box::pin(tokio::time::sleep_until(begun + patience)) })
        });
        let deadline = clock.begun + patience;
        if clock.sleep.deadline() != deadline {
            clock.sleep.as_mut().reset(deadline);
        }
        let late = clock.sleep.as_mut().poll(context).is_ready() && !weaken::is("listen-body");
        late.then(|| TooSlow(self.pace.key(self.come)))
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.get_mut();
        match this.take(context) {
            Poll::Ready(frame) => {
                if let Some(Ok(frame)) = &frame {
                    this.come += frame.data_ref().map_or(0, Bytes::len);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Fault::from)))
            }
            Poll::Pending => match this.waited(context) {
                Some(late) => Poll::Ready(Some(Err(late.into()))),
                None => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
