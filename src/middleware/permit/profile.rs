//! What do the rules say of one caller, and of all who are like them to the rules?

use std::sync::Arc;

use cel::common::value::Val;

use super::{
    condition::{Scene, Truth},
    new_id,
    policy::{Ready, Side},
    value,
};
use crate::{
    call::{Grant, Thing, Verdict},
    weaken,
};

/// The rules that speak of a caller, in their order.
#[derive(Debug)]
pub struct Profile {
    id: u64,
    pub(super) rules: Arc<[Ready]>,
    pub(super) entries: Vec<Entry>,
    /// What their conditions look at of a caller for each thing.
    caller: Option<Box<dyn Val>>,
}

/// A rule that speaks of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    pub rule: usize,
    /// What its condition says of the caller alone could not be evaluated.
    pub unknown: bool,
    /// The caller's token has not all scopes that it needs.
    pub lacks: bool,
}

impl Profile {
    pub fn new(rules: Arc<[Ready]>, entries: Vec<Entry>, caller: Option<Box<dyn Val>>) -> Self {
        Self { id: new_id(), rules, entries, caller }
    }

    /// The verdict, and the entry that has the last word if one has.
    pub(super) fn decide(
        &self,
        thing: &Thing<'_>,
        arguments: Option<&[u8]>,
    ) -> (Verdict, Option<(Entry, Side)>) {
        if weaken::is("permit-nothing") {
            return (Verdict::Denied, None);
        }
        // Whether an earlier rule has said something for some arguments, and whether that was yes.
        let (mut open, mut may) = (false, None);
        for entry in &self.entries {
            let ready = &self.rules[entry.rule];
            let Some(side) = ready.side(thing) else { continue };
            let last = match (side, self.truth(*entry, thing, arguments)) {
                (_, Truth::No) | (Side::Allow, Truth::Unknown) => continue,
                (side, Truth::Open) => {
                    open = true;
                    if side == Side::Allow {
                        may = may.or(Some((*entry, side)));
                    }
                    continue;
                }
                (Side::Deny, Truth::Yes | Truth::Unknown) => match may {
                    None => Verdict::Denied,
                    Some(_) => Verdict::WithSome,
                },
                (Side::Allow, Truth::Yes) if open => Verdict::WithSome,
                (Side::Allow, Truth::Yes) if entry.lacks => Verdict::Needs(Arc::clone(&ready.needs)),
                (Side::Allow, Truth::Yes) => Verdict::Allowed,
            };
            return (last, Some((*entry, side)));
        }
        match may {
            Some(first) => (Verdict::WithSome, Some(first)),
            None if weaken::is("permit-default") => (Verdict::Allowed, None),
            None => (Verdict::Denied, None),
        }
    }

    fn truth(&self, entry: Entry, thing: &Thing<'_>, arguments: Option<&[u8]>) -> Truth {
        let Some(condition) = &self.rules[entry.rule].condition else { return Truth::Yes };
        if weaken::is("permit-when") {
            return Truth::Yes;
        }
        let target = condition.asks_for_target().then(|| value::of(&value::target(thing)).ok()).flatten();
        let mut scene = Scene::new(self.caller.as_deref(), target);
        let of_caller = if entry.unknown { Truth::Unknown } else { Truth::Yes };
        of_caller.and(condition.of_thing(&mut scene, arguments))
    }
}

impl Grant for Profile {
    fn id(&self) -> u64 {
        self.id
    }

    fn verdict(&self, thing: &Thing<'_>, arguments: Option<&[u8]>) -> Verdict {
        self.decide(thing, arguments).0
    }

    fn explain(&self, thing: &Thing<'_>) -> crate::call::Explained {
        super::explain::explain(self, thing)
    }
}
