//! When is a connection's task woken in vain, and how is that left out?
//!
//! Whoever takes a piece of a request's body wakes the task of its connection, though it is mostly
//! that very task which takes it.

use std::{
    cell::Cell,
    sync::Arc,
    task::{Wake, Waker},
};

/// Hears what happens on a connection, and wakes its task, except for what is [`hushed`].
pub struct Ear(Waker);

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

impl Ear {
    pub fn of(task: Waker) -> Arc<Self> {
        Arc::new(Self(task))
    }

    pub fn ring(&self) {
        self.0.wake_by_ref();
    }
}

impl Wake for Ear {
    fn wake(self: Arc<Self>) {
        match HUSH.take() {
            Hush::Off => self.ring(),
            Hush::On | Hush::Rang(_) => HUSH.set(Hush::Rang(self)),
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Arc::clone(self).wake();
    }
}

/// Does something without waking a connection's task, and says whose it would have been.
pub fn hushed<T>(something: impl FnOnce() -> T) -> (T, Option<Arc<Ear>>) {
    HUSH.set(Hush::On);
    let done = something();
    match HUSH.take() {
        Hush::Rang(ear) => (done, Some(ear)),
        Hush::Off | Hush::On => (done, None),
    }
}
