//! When are there free calls again?
//!
//! The free calls of an account come back at a time that its refusal names. Until then asking again
//! is no use, and counts against the limit all the same.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::SystemTime,
};

/// Accounts whose free calls are used up.
#[derive(Debug, Default)]
pub struct Free(Mutex<HashMap<u64, SystemTime>>);

/// Does a model cost nothing, by its name?
pub fn is_free(model: &str) -> bool {
    model.ends_with(":free") || model == "openrouter/free"
}

impl Free {
    fn used_up(&self) -> MutexGuard<'_, HashMap<u64, SystemTime>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    /// There are none until then.
    pub fn note(&self, account: u64, until: SystemTime) {
        self.used_up().insert(account, until);
    }

    /// Until when there are none, if there are none now.
    pub fn until(&self, account: u64, now: SystemTime) -> Option<SystemTime> {
        let mut used_up = self.used_up();
        used_up.retain(|_, until| *until > now);
        used_up.get(&account).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn free_calls_come_back_for_each_account_by_itself() {
        let (free, now) = (Free::default(), SystemTime::now());
        let until = now + Duration::from_secs(60);
        free.note(1, until);
        assert_eq!((free.until(1, now), free.until(2, now)), (Some(until), None));
        assert_eq!(free.until(1, until), None);
    }

    #[test]
    fn names_say_what_is_free() {
        assert!(is_free("acme/atlas-8b:free") && is_free("openrouter/free") && !is_free("acme/free-7b"));
    }
}
