//! When has a client been silent for too long, between two requests or in the middle of a head?
//!
//! hyper asks for a new deadline with every request. Here they share one timer, which is set again
//! only when it has gone off for an earlier deadline.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};

use super::{limits::Settings, watched::Meter};
use crate::weaken;

/// hyper's timer for one connection. The deadlines that hyper asks for are those of rest.
pub struct HeadTimer(Arc<Shared>);

struct Shared {
    timer: Mutex<Pin<Box<tokio::time::Sleep>>>,
    meter: Arc<Meter>,
    head: Duration,
}

impl HeadTimer {
    pub fn new(meter: Arc<Meter>, settings: &Settings) -> Self {
        let head = settings.head.0;
        let timer = Mutex::new(Box::pin(tokio::time::sleep(head)));
        Self(Arc::new(Shared { timer, meter, head }))
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.meter.rest();
        Box::pin(Deadline { idle: deadline.into(), head: None, shared: Arc::clone(&self.0) })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

/// Until when the next head must have come.
struct Deadline {
    /// If nothing of it has come.
    idle: tokio::time::Instant,
    /// If some of it has, since it was first found to be incomplete.
    head: Option<tokio::time::Instant>,
    shared: Arc<Shared>,
}

impl Sleep for Deadline {}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (head, arrived) = (self.shared.head, self.shared.meter.has_arrived());
        let deadline = match arrived && !weaken::is("listen-head") {
            true => *self.head.get_or_insert_with(|| tokio::time::Instant::now() + head),
            false => self.idle,
        };
        let mut timer = self.shared.timer.lock().expect("no code panics while it holds this lock");
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
