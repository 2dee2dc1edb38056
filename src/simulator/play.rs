//! How does an answer go out: what, when, and what if nobody is there any more?
//!
//! An answer is made whole, as a list of steps, before its first byte goes out. So it is the same each
//! time, and what was delivered when the client went away is a matter of counting.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::{bill::Bill, world::World};

/// What is said while nothing is to say.
pub const COMMENT: &str = ": OPENROUTER PROCESSING\n\n";

/// One thing that an answer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sends this, which holds so many tokens.
    Send(Bytes, u64),
    Wait(Duration),
    /// Nothing more is generated from here on; what comes is about it.
    Generated,
    /// Comments as often as that, for ever.
    Drone(Duration),
    /// Silence for ever.
    Hang,
    /// The connection breaks.
    Break,
}

/// One request as it is answered. Whatever happens to it is noted, also when the client goes away: then
/// this is dropped before its end.
#[derive(Debug)]
pub struct Watch {
    world: Arc<World>,
    request: u64,
    bill: Option<Bill>,
    tokens: u64,
    generated: bool,
    ended: bool,
}

impl Watch {
    pub fn new(world: Arc<World>, request: u64) -> Self {
        Self { world, request, bill: None, tokens: 0, generated: false, ended: false }
    }

    /// For what is not in the journal.
    pub fn unseen(world: Arc<World>) -> Self {
        Self { world, request: 0, bill: None, tokens: 0, generated: false, ended: true }
    }

    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    pub fn request(&self) -> u64 {
        self.request
    }

    /// From now on there is something to pay for.
    pub fn charge(&mut self, bill: Bill) {
        let (id, model) = (bill.id.clone(), bill.model.id.clone());
        let (session, user) = (bill.about.session.clone(), bill.about.user.clone());
        self.world.journal.note(self.request, |entry| {
            (entry.generation_id, entry.model) = (Some(id), Some(model));
            (entry.session_id, entry.user) = (session, user);
        });
        self.bill = Some(bill);
    }

    fn sent(&mut self, bytes: usize, tokens: u64) {
        self.tokens += tokens;
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.world.journal.note(self.request, |entry| entry.bytes_sent += bytes);
    }

    fn end(&mut self, client_gone: bool) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(bill) = self.bill.take() {
            // What is not a stream cannot be stopped, and some providers stop for nobody.
            let unstoppable = client_gone && !(bill.streamed && bill.model.provider().cancels);
            let tokens = if unstoppable { bill.completion } else { self.tokens };
            // An answer of nothing is not charged for, unless it was meant to be nothing.
            let charge = tokens > 0 || (self.generated && bill.finish != "error");
            let cancelled = client_gone && !self.generated;
            self.world.settle(self.request, &bill, tokens, charge, cancelled);
        }
        self.world.journal.end(self.request, self.world.clock.now(), client_gone);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end(true);
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct Play {
    steps: VecDeque<Step>,
    watch: Watch,
    /// Tells the connection to end in a reset, where that is how streams break.
    reset: Option<Arc<AtomicBool>>,
    pause: Option<Pin<Box<Sleep>>>,
    /// What was sent last goes out before anything else is said, or many writes would become one.
    breathe: bool,
    length: Option<u64>,
}

impl Play {
    pub fn new(steps: Vec<Step>, watch: Watch, reset: Option<Arc<AtomicBool>>) -> Self {
        let length = match steps.as_slice() {
            [] => Some(0),
            // A text is followed by nothing but the note that it is whole.
            [Step::Send(text, _)] | [Step::Generated, Step::Send(text, _)] => u64::try_from(text.len()).ok(),
            _ => None,
        };
        let mut play = Self { steps: steps.into(), watch, reset, pause: None, breathe: false, length };
        if play.length == Some(0) {
            play.watch.end(false);
        }
        play
    }

    fn wait(&mut self, length: Duration) {
        self.pause = (!length.is_zero()).then(|| Box::pin(sleep(length)));
    }
}

impl http_body::Body for Play {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let play = self.get_mut();
        if std::mem::take(&mut play.breathe) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if let Some(pause) = &mut play.pause {
                ready!(pause.as_mut().poll(context));
                play.pause = None;
            }
            match play.steps.pop_front() {
                None => {
                    play.watch.end(false);
                    return Poll::Ready(None);
                }
                Some(Step::Send(text, tokens)) => {
                    play.watch.sent(text.len(), tokens);
                    play.breathe = true;
                    // Of an answer that says its length nobody asks for more than that.
                    if play.steps.is_empty() && play.length.is_some() {
                        play.watch.end(false);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(text))));
                }
                Some(Step::Wait(length)) => play.wait(length),
                Some(Step::Generated) => play.watch.generated = true,
                Some(Step::Drone(every)) => {
                    play.wait(every.max(Duration::from_millis(1)));
                    play.steps.push_front(Step::Drone(every));
                    play.steps.push_front(Step::Send(Bytes::from_static(COMMENT.as_bytes()), 0));
                }
                Some(Step::Hang) => {
                    play.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
                Some(Step::Break) => {
                    play.watch.end(false);
                    if let Some(reset) = &play.reset {
                        reset.store(true, Relaxed);
                    }
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
