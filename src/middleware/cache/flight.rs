//! How do many who ask for the same at the same time share one call?
//!
//! The first of them makes the call, and the others wait for its reply. Whoever waits keeps it
//! going, the first one or not: it is cancelled when nobody is left. Progress is for the first one
//! alone, under whose token it comes.
//!
//! A reply is for those who wait as far as it would be if it were kept: what is private is for
//! nobody else's authorization. Of what is not kept only errors are shared, and these only with the
//! same authorization; whoever is left then makes the call itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Shared, WeakShared},
    stream,
};
use tokio::{sync::mpsc, time::Instant};

use super::{
    kept::{Kept, first_hand, has_failed},
    key::Key,
    shelf::{Asking, Found, Shelf},
};
use crate::{
    call::{Answer, Event, Events, Reply, Replying},
    error::{Error, Result},
    weaken,
    wire::mcp::Era,
};

/// How many notifications may wait for a slow caller. More are dropped, as others wait too.
const UNHEARD: usize = 256;

/// A call that several wait for.
pub type Flight = Shared<BoxFuture<'static, Arc<Landing>>>;

/// Whose call it is, as far as that says who may have the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whose {
    pub context: Key,
    pub era: Era,
}

/// How a call ended.
#[derive(Debug)]
pub struct Landing {
    whose: Whose,
    end: End,
}

#[derive(Debug)]
enum End {
    /// With a reply that holds for a while, and the answer as it came.
    Kept(Arc<Kept>, Answer),
    /// With one that is kept from before, since there is no better.
    Old(Arc<Kept>),
    /// With an error, ours or the backend's.
    Failed(Result<Answer>),
    /// With something that is its caller's only.
    Own(Answer),
}

impl Landing {
    /// For the caller whose call it was.
    fn for_itself(&self) -> Result<Answer> {
        match &self.end {
            End::Kept(_, answer) | End::Own(answer) => Ok(answer.clone()),
            End::Old(kept) => Ok(kept.answer(self.whose.era, Instant::now())),
            End::Failed(failed) => failed.clone(),
        }
    }

    /// For another who waited, if it is for them at all.
    pub fn for_another(&self, another: Whose) -> Option<Result<Answer>> {
        match &self.end {
            End::Kept(kept, _) | End::Old(kept) if kept.shared || self.whose.context == another.context => {
                Some(Ok(kept.answer(another.era, Instant::now())))
            }
            End::Failed(failed) if self.whose == another => Some(failed.clone()),
            End::Kept(..) | End::Old(_) | End::Failed(_) | End::Own(_) => None,
        }
    }
}

/// The calls under way that may be waited for.
#[derive(Debug, Default)]
pub struct Flights(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    under_way: HashMap<Key, UnderWay>,
    last: u64,
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    begun: u64,
    flight: WeakShared<BoxFuture<'static, Arc<Landing>>>,
}

/// How one is part of a call.
pub enum Part {
    /// It is one's own, and this is what is heard of it meanwhile.
    Leads(Flight, mpsc::Receiver<Heard>),
    Waits(Flight),
}

/// What the first caller hears before the end.
pub enum Heard {
    /// The reply is a stream, though nothing has come of it yet.
    Begun,
    Notification(Bytes),
}

/// Takes a call from the table when it has ended, or when nobody waits for it any more.
struct Ending {
    flights: Arc<Flights>,
    key: Key,
    number: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut table = self.flights.table();
        if table.under_way.get(&self.key).is_some_and(|under_way| under_way.number == self.number) {
            table.under_way.remove(&self.key);
        }
    }
}

impl Flights {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// Joins the call that is under way, unless it began before something made its reply untrue;
    /// or begins one.
    pub fn take_part(
        shelf: &Arc<Shelf>,
        key: Key,
        asking: &Asking,
        call: impl FnOnce() -> Replying + Send + 'static,
    ) -> Part {
        let flights = &shelf.flights;
        let mut table = flights.table();
        let under_way = table.under_way.get(&key).filter(|one| one.begun >= shelf.oldest(&asking.aim));
        if let Some(flight) = under_way.and_then(|under_way| under_way.flight.upgrade()) {
            return Part::Waits(flight);
        }
        table.last += 1;
        let (number, begun) = (table.last, shelf.stamps.now());
        let ending = Ending { flights: Arc::clone(flights), key, number };
        let (say, hear) = mpsc::channel(UNHEARD);
        let (shelf, asking) = (Arc::clone(shelf), asking.clone());
        let flight = async move {
            let _ending = ending;
            let whose = asking.whose;
            // The call before may have ended since it was looked for.
            if let Found::Fresh(kept) = shelf.find(&asking, Instant::now()) {
                return Arc::new(Landing { whose, end: End::Old(kept) });
            }
            let ended = answer(call(), say).await;
            Arc::new(Landing { whose, end: land(&shelf, &asking, begun, ended) })
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            table.under_way.insert(key, UnderWay { number, begun, flight: weak });
        }
        if weaken::is("cache-abandon") {
            tokio::spawn(flight.clone());
        }
        Part::Leads(flight, hear)
    }

    /// Is a call under way that could be joined?
    pub fn is_under_way(&self, key: &Key) -> bool {
        self.table().under_way.contains_key(key)
    }
}

/// What a call comes to. What comes before is said.
async fn answer(reply: Replying, say: mpsc::Sender<Heard>) -> Result<Answer> {
    let mut events = match reply.await? {
        Reply::Whole(answer) => return Ok(answer),
        Reply::Stream(events) => events,
    };
    let _ = say.try_send(Heard::Begun); // Fails if the first caller has gone.
    while let Some(event) = events.next().await {
        match event? {
            Event::Answer(answer) => return Ok(answer),
            Event::Notification(text) => {
                let _ = say.try_send(Heard::Notification(text));
                // So that it is heard before the next comes.
                tokio::task::yield_now().await;
            }
            Event::Task(_) | Event::Alive => {}
        }
    }
    Err(Error::Busy("the answer was cut off".to_owned()))
}

fn land(shelf: &Shelf, asking: &Asking, begun: u64, ended: Result<Answer>) -> End {
    let now = Instant::now();
    let answer = match ended {
        Ok(answer) => answer,
        Err(error) => {
            let away = matches!(
                error,
                Error::Backend { .. } | Error::Idle { .. } | Error::Deadline { .. } | Error::Busy(_)
            );
            let old = away.then(|| shelf.last_resort(asking, now)).flatten();
            return old.map_or(End::Failed(Err(error)), End::Old);
        }
    };
    match &answer {
        Answer::Response { message, .. } if has_failed(message) => return End::Failed(Ok(answer)),
        Answer::Response { .. } | Answer::Asks(_) | Answer::Result(_) => {}
    }
    match shelf.keep(asking, begun, &answer, now) {
        Some(kept) => {
            let answer = first_hand(answer, &kept);
            End::Kept(kept, answer)
        }
        None => End::Own(answer),
    }
}

/// The reply for the caller whose call it is.
pub async fn lead(flight: Flight, mut hear: mpsc::Receiver<Heard>) -> Result<Reply> {
    let first = tokio::select! {
        biased;
        Some(first) = hear.recv() => first,
        landing = flight.clone() => return landing.for_itself().map(Reply::Whole),
    };
    let first = match first {
        Heard::Begun => None,
        Heard::Notification(text) => Some(Ok(Event::Notification(text))),
    };
    Ok(Reply::Stream(stream::iter(first).chain(rest(flight, hear)).boxed()))
}

fn rest(flight: Flight, hear: mpsc::Receiver<Heard>) -> Events {
    let events = stream::unfold(Some((flight, hear)), |state| async {
        let (flight, mut hear) = state?;
        loop {
            tokio::select! {
                biased;
                Some(heard) = hear.recv() => if let Heard::Notification(text) = heard {
                    return Some((Ok(Event::Notification(text)), Some((flight, hear))));
                },
                landing = flight.clone() => return Some((landing.for_itself().map(Event::Answer), None)),
            }
        }
    });
    events.boxed()
}
