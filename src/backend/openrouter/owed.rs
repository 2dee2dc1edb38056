//! What is owed for a question whose asker has gone before it was answered?
//!
//! What the upstream has taken on is paid for, whoever waits for it: it stands in the ledger as it was
//! estimated. What it has not is free again.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::runtime::Handle;

use super::{Task, ask::kept, money::Money};
use crate::store::conversations::{Entry, Owned, Reservation};

/// Settles a question that is dropped unsettled.
pub struct Owed {
    own: Arc<dyn Owned>,
    /// What is noted then. None once it is settled.
    entry: Option<Entry>,
    reservation: Option<Reservation>,
    taken: bool,
}

impl Owed {
    pub fn new(
        task: &Task,
        tool: &str,
        (model, run): (&str, Option<&str>),
        estimate: Money,
        reservation: Option<Reservation>,
    ) -> Self {
        let entry = Entry {
            tool: tool.to_owned(),
            model: model.to_owned(),
            usage: kept(None, estimate),
            simulated: task.work.simulated,
            run: run.map(str::to_owned),
            ..Entry::default()
        };
        Self { own: Arc::clone(&task.own), entry: Some(entry), reservation, taken: false }
    }

    /// The upstream has begun to answer.
    pub fn taken(&mut self, generation: Option<&str>) {
        self.taken = true;
        if let Some(entry) = &mut self.entry {
            entry.generation = generation.map(str::to_owned);
        }
    }

    /// Its asker sees to it, with what is known by now in place of the estimate.
    pub fn settled(mut self) -> (Entry, Option<Reservation>) {
        (self.entry.take().unwrap_or_default(), self.reservation.take())
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let (Some(entry), Ok(runtime)) = (self.entry.take(), Handle::try_current()) else { return };
        let (own, reservation, taken) = (Arc::clone(&self.own), self.reservation.take(), self.taken);
        runtime.spawn(async move {
            let settled = match reservation {
                reservation if taken => own.record(entry, reservation, Timestamp::now()).await,
                Some(reservation) => own.release(reservation).await,
                None => Ok(()),
            };
            if let Err(why) = settled {
                tracing::warn!(?why, "what an abandoned question has cost could not be noted");
            }
        });
    }
}
