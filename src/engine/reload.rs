//! What changes while the gateway runs?
//!
//! All that decides about calls: who comes in, what they may do, how often, and which replies are
//! used again. The new parts are built before the first of them is put in its place, so a
//! configuration with anything wrong in it changes nothing; and when the reload is acknowledged, the
//! next request is decided by the new ones. What is kept (sessions, what was used of limits, replies)
//! stays.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::{Fault, Waystation, guarding, part};
use crate::{config::Config, listener::guard::Guard, middleware::identify::Identify};

/// What runs, and can be replaced.
#[derive(Debug)]
pub(super) struct Live {
    pub guard: Guard,
    /// As it is obeyed now. Held while a new one is taken over.
    pub config: Mutex<Config>,
}

/// What came of a new configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// Tables that are obeyed from now on.
    pub changed: Vec<&'static str>,
    /// Tables that differ too, and will be obeyed after a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Waystation {
    /// The configuration that is obeyed now.
    pub fn config(&self) -> Config {
        self.live.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Obeys a new configuration from the next request on, as far as that can be done while it runs.
    pub fn reload(&self, new: Config) -> Result<Reloaded, Vec<Fault>> {
        let mut old = self.live.config.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = Vec::new();
        let identify = part("identify", Identify::new(&new.identify), &mut faults);
        if identify.is_none() && faults.is_empty() && !self.listen.address.ip().to_canonical().is_loopback() {
            let why = format!(
                "without it everybody who can reach {} could call every tool; restart with a loopback address",
                self.listen.address
            );
            faults.push(Fault { at: "identify".to_owned(), why });
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut reloaded = Reloaded::default();
        if new.identify != old.identify {
            self.live.guard.replace(identify.map(guarding));
            reloaded.changed.push("identify");
        }
        reloaded.needs_restart = at_a_restart(&old, &new);
        let Config { identify, .. } = new;
        old.identify = identify;
        Ok(reloaded)
    }
}

/// Tables that differ and are looked at when the gateway starts.
fn at_a_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let tables = [
        ("listen", old.listen != new.listen),
        ("session", old.session != new.session),
        ("deadline", old.deadline != new.deadline),
        ("tasks", old.tasks != new.tasks),
        ("connect", old.connect != new.connect),
        ("store", old.store != new.store),
        ("log", old.log != new.log),
        ("backends", old.backends != new.backends),
    ];
    tables.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}
