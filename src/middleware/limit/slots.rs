//! How many calls may be under way at once, and who is next when there is room?
//!
//! Of each caller, to each backend and in all only so many. A call for which there is no room waits
//! a moment, and callers take turns: whoever sends ten times as much as others gets what the others
//! leave, and waits behind his own calls. Where the queue is full, the longest line loses its last,
//! so nobody can keep others out by filling it.
//!
//! One lock, held for a few lookups. Going through the lines costs as much as there are callers who
//! wait, and they are bounded.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use crate::{call::Caller, weaken};

/// How many of each there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    pub all: usize,
    pub per_caller: usize,
    pub per_backend: usize,
    /// Calls that may wait.
    pub queue: usize,
}

/// What there was no room in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    Caller,
    Backend,
    All,
}

/// All calls under way, and those that wait.
#[derive(Debug)]
pub struct Slots(Mutex<State>);

#[derive(Debug)]
struct State {
    most: Most,
    running: usize,
    waiting: usize,
    lines: HashMap<Caller, Line, RandomState>,
    /// Callers with calls that wait, in the order of their turns.
    turns: VecDeque<Caller>,
    backends: HashMap<Arc<str>, usize, RandomState>,
    last_ticket: u64,
}

/// One caller's calls.
#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: VecDeque<Waiter>,
    /// How many calls go when it is this caller's turn, and how many of them have still to go.
    share: u32,
    left: u32,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    backend: Option<Arc<str>>,
    go: oneshot::Sender<Held>,
}

/// A call under way, until this is dropped.
#[derive(Debug)]
pub struct Held {
    slots: Arc<Slots>,
    caller: Caller,
    backend: Option<Arc<str>>,
}

/// A place in a line, until this is dropped.
#[derive(Debug)]
pub struct Waiting {
    slots: Arc<Slots>,
    caller: Caller,
    ticket: u64,
    /// Comes when it is this call's turn; closed if it lost its place.
    pub turn: oneshot::Receiver<Held>,
    pub full: Full,
}

impl Slots {
    pub fn new(most: Most) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            most,
            running: 0,
            waiting: 0,
            lines: HashMap::default(),
            turns: VecDeque::new(),
            backends: HashMap::default(),
            last_ticket: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// From now on there may be so many. What is under way stays.
    pub fn replace(self: &Arc<Self>, most: Most) {
        let mut state = self.state();
        state.most = most;
        let unwanted = state.let_in(self);
        drop(state);
        drop(unwanted);
    }

    /// A slot at once, or a place in the caller's line, or none where there is no room for that.
    pub fn enter(
        self: &Arc<Self>,
        caller: &Caller,
        backend: Option<&Arc<str>>,
        share: u32,
    ) -> Result<Held, Result<Waiting, Full>> {
        let mut state = self.state();
        let Some(full) = state.full(caller, backend) else {
            return Ok(state.hold(self, caller, backend));
        };
        if state.waiting >= state.most.queue && !state.push_out(caller, share) {
            return Err(Err(full));
        }
        let (go, turn) = oneshot::channel();
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        state.waiting += 1;
        let line = state.lines.entry(caller.clone()).or_default();
        line.share = share.max(1);
        line.waiting.push_back(Waiter { ticket, backend: backend.cloned(), go });
        if line.waiting.len() == 1 || weaken::is("limit-queue-in-order") {
            line.left = line.share;
            state.turns.push_back(caller.clone());
        }
        Err(Ok(Waiting { slots: Arc::clone(self), caller: caller.clone(), ticket, turn, full }))
    }

    /// How many calls of a caller are under way.
    pub fn of(&self, caller: &Caller) -> usize {
        self.state().lines.get(caller).map_or(0, |line| line.running)
    }
}

impl State {
    /// What there is no room in for such a call.
    fn full(&self, caller: &Caller, backend: Option<&Arc<str>>) -> Option<Full> {
        let backend = backend.and_then(|backend| self.backends.get(backend)).copied().unwrap_or(0);
        if self.running >= self.most.all || weaken::is("limit-no-room") {
            Some(Full::All)
        } else if self.lines.get(caller).is_some_and(|line| line.running >= self.most.per_caller) {
            Some(Full::Caller)
        } else {
            (backend >= self.most.per_backend).then_some(Full::Backend)
        }
    }

    fn hold(&mut self, slots: &Arc<Slots>, caller: &Caller, backend: Option<&Arc<str>>) -> Held {
        self.running += 1;
        self.lines.entry(caller.clone()).or_default().running += 1;
        if let Some(backend) = backend {
            *self.backends.entry(Arc::clone(backend)).or_default() += 1;
        }
        Held { slots: Arc::clone(slots), caller: caller.clone(), backend: backend.cloned() }
    }

    /// Lets in whoever is next, as long as there is room. Gives back the slots of those that did not
    /// wait any longer, to be dropped when the lock is not held any more.
    fn let_in(&mut self, slots: &Arc<Slots>) -> Vec<Held> {
        let mut unwanted = Vec::new();
        while self.waiting > 0 && self.running < self.most.all {
            let Some((turn, place)) = self.next() else { break };
            let caller = self.turns[turn].clone();
            let Some(line) = self.lines.get_mut(&caller) else { break };
            let Some(waiter) = line.waiting.remove(place) else { break };
            line.left = line.left.saturating_sub(1);
            let over = line.waiting.is_empty();
            if over || line.left == 0 || weaken::is("limit-queue-in-order") {
                line.left = line.share;
                self.turns.remove(turn);
                if !over && !weaken::is("limit-queue-in-order") {
                    self.turns.push_back(caller.clone());
                }
            }
            self.waiting -= 1;
            let held = self.hold(slots, &caller, waiter.backend.as_ref());
            if let Err(held) = waiter.go.send(held) {
                unwanted.push(held);
            }
        }
        unwanted
    }

    /// The next call for which there is room: whose turn, and the how-many-eth of his line.
    fn next(&self) -> Option<(usize, usize)> {
        let fits = |(turn, caller): (usize, &Caller)| {
            let line = self.lines.get(caller)?;
            let place =
                line.waiting.iter().position(|one| self.full(caller, one.backend.as_ref()).is_none())?;
            Some((turn, place))
        };
        self.turns.iter().enumerate().find_map(fits)
    }

    /// Makes room in the queue for one more of a caller's, if there is a longer line than his, each
    /// measured by its share.
    fn push_out(&mut self, caller: &Caller, share: u32) -> bool {
        if weaken::is("limit-queue-in-order") {
            return false;
        }
        let measure = |line: &Line| line.waiting.len() as u64 * 1000 / u64::from(line.share.max(1));
        let own = self.lines.get(caller).map_or(0, |line| line.waiting.len() as u64 + 1).max(1);
        let own = own * 1000 / u64::from(share.max(1));
        let lines = self.turns.iter().filter_map(|name| Some((name, measure(self.lines.get(name)?))));
        let longest = lines.max_by_key(|(_, length)| *length).filter(|(_, length)| *length > own);
        let Some(loser) = longest.map(|(name, _)| name.clone()) else { return false };
        let last = self.lines.get(&loser).and_then(|line| line.waiting.back()).map(|waiter| waiter.ticket);
        last.is_some_and(|ticket| self.leave(&loser, ticket))
    }

    /// Takes a call out of its line.
    fn leave(&mut self, caller: &Caller, ticket: u64) -> bool {
        let Some(line) = self.lines.get_mut(caller) else { return false };
        let Some(place) = line.waiting.iter().position(|waiter| waiter.ticket == ticket) else {
            return false;
        };
        line.waiting.remove(place);
        self.waiting -= 1;
        if line.waiting.is_empty() {
            self.turns.retain(|name| name != caller);
        }
        self.tidy(caller);
        true
    }

    fn tidy(&mut self, caller: &Caller) {
        if self.lines.get(caller).is_some_and(|line| line.running == 0 && line.waiting.is_empty()) {
            self.lines.remove(caller);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.running -= 1;
        if let Some(line) = state.lines.get_mut(&self.caller) {
            line.running -= 1;
        }
        state.tidy(&self.caller);
        if let Some(backend) = &self.backend
            && let Some(count) = state.backends.get_mut(backend)
        {
            *count -= 1;
            if *count == 0 {
                state.backends.remove(backend);
            }
        }
        let unwanted = state.let_in(&self.slots);
        drop(state);
        drop(unwanted); // Each lets in the next.
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.slots.state().leave(&self.caller, self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { all: 4, per_caller: 3, per_backend: 2, queue: 6 };

    fn caller(number: u8) -> Caller {
        Caller::Stranger([10, 0, 0, number].into())
    }

    /// How many calls are under way, and how many wait.
    fn count(slots: &Slots) -> (usize, usize) {
        let state = slots.state();
        (state.running, state.waiting)
    }

    fn place(entered: Result<Held, Result<Waiting, Full>>) -> Waiting {
        entered.expect_err("there is no room").expect("a place in the line")
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let slots = Slots::new(MOST);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let one = slots.enter(&caller(1), Some(&a), 1).unwrap();
        let _two = slots.enter(&caller(1), Some(&a), 1).unwrap();
        assert_eq!(place(slots.enter(&caller(2), Some(&a), 1)).full, Full::Backend);
        let _three = slots.enter(&caller(1), Some(&b), 1).unwrap();
        assert_eq!(place(slots.enter(&caller(1), None, 1)).full, Full::Caller);
        let _four = slots.enter(&caller(2), None, 1).unwrap();
        assert_eq!(place(slots.enter(&caller(2), None, 1)).full, Full::All);
        assert_eq!(count(&slots), (4, 0), "whoever does not wait any more has no place");
        drop(one);
        assert!(slots.enter(&caller(2), Some(&a), 1).is_ok());
    }

    #[test]
    fn callers_take_turns_by_their_shares() {
        let slots = Slots::new(Most { all: 1, per_caller: 9, per_backend: 9, queue: 99 });
        let mut held = slots.enter(&caller(9), None, 1).unwrap();
        let mut waiting = Vec::new();
        for (who, share) in [(1, 1), (2, 2)] {
            waiting.extend((0..6).map(|_| (who, place(slots.enter(&caller(who), None, share)))));
        }
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(held);
            let next = |(_, waiting): &mut (u8, Waiting)| waiting.turn.try_recv().ok();
            let (place, next) =
                waiting.iter_mut().enumerate().find_map(|(at, one)| Some((at, next(one)?))).unwrap();
            held = next;
            order.push(waiting.remove(place).0);
        }
        assert_eq!(order, [1, 2, 2, 1, 2, 2, 1, 2, 2, 1, 1, 1]);
        drop(held);
        assert_eq!(count(&slots), (0, 0));
        let state = slots.state();
        assert_eq!((state.lines.len(), state.turns.len()), (0, 0));
    }

    #[test]
    fn the_longest_line_makes_room_for_others() {
        let slots = Slots::new(Most { all: 1, per_caller: 9, per_backend: 9, queue: 4 });
        let _held = slots.enter(&caller(9), None, 1).unwrap();
        let mut greedy: Vec<_> = (0..4).map(|_| place(slots.enter(&caller(1), None, 1))).collect();
        assert!(matches!(slots.enter(&caller(1), None, 1), Err(Err(Full::All))));
        let _other = place(slots.enter(&caller(2), None, 1));
        let _again = place(slots.enter(&caller(2), None, 1));
        assert!(matches!(slots.enter(&caller(2), None, 1), Err(Err(Full::All))), "the lines are as long now");
        let lost = |waiting: &mut Waiting| {
            matches!(waiting.turn.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        };
        assert_eq!(greedy.iter_mut().map(lost).collect::<Vec<_>>(), [false, false, true, true]);
    }

    #[test]
    fn a_slot_nobody_waits_for_any_more_goes_to_the_next() {
        let slots = Slots::new(Most { all: 1, per_caller: 9, per_backend: 9, queue: 9 });
        let held = slots.enter(&caller(9), None, 1).unwrap();
        let first = place(slots.enter(&caller(1), None, 1));
        let mut second = place(slots.enter(&caller(2), None, 1));
        drop(held);
        assert!(second.turn.try_recv().is_err());
        drop(first); // With the slot that it was given and never took.
        assert!(second.turn.try_recv().is_ok());
        assert_eq!(count(&slots), (0, 0));
    }

    #[test]
    fn more_room_lets_in_those_who_wait() {
        let slots = Slots::new(Most { all: 1, ..MOST });
        let _held = slots.enter(&caller(1), None, 1).unwrap();
        let mut waiting = place(slots.enter(&caller(2), None, 1));
        slots.replace(MOST);
        assert!(waiting.turn.try_recv().is_ok());
    }
}
