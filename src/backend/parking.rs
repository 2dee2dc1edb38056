//! Which calls wait for their client, and how do they go on?
//!
//! A server of the legacy era asks in the middle of a call and waits. Inside the gateway a
//! question is the end of a round, so what is left of the call is kept here, under a ticket
//! that stands in the question's `requestState`; the next round brings the answers and goes on
//! with it. Whoever does not come back in time has their call cancelled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;

use super::exchange::Relay;
use crate::{
    call::{Caller, Given},
    error::{Error, Result},
};

/// How long a client may take. As long as the seal on the ticket holds.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Calls that one caller may have waiting on one connection.
const MOST: usize = 256;

/// The calls that wait on one connection.
#[derive(Default)]
pub struct Parking {
    table: Mutex<HashMap<String, Parked>>,
}

/// A call in the middle, with what the server waits for.
pub struct Parked {
    pub relay: Relay,
    pub asked: Vec<Asked>,
    pub caller: Caller,
}

/// One question of a server's.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Stands for it among the `inputRequests`.
    pub key: String,
    /// The id of the server's request, as it wrote it.
    pub id: Bytes,
    /// The request without what belongs to the connection, as JSON.
    pub request: Bytes,
}

impl Parking {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Parked>> {
        self.table.lock().expect("no code panics while it holds this lock")
    }

    /// Keeps a call; gives the ticket for it.
    pub fn park(self: &Arc<Self>, parked: Parked) -> Result<String> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Error::Busy("no random numbers to be had".into()))?;
        let ticket: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut table = self.table();
        if table.values().filter(|other| other.caller == parked.caller).count() >= MOST {
            let why = format!("{MOST} calls wait for answers of this client's, which is the most");
            return Err(Error::Busy(why));
        }
        table.insert(ticket.clone(), parked);
        drop(table);
        let (parking, due) = (Arc::downgrade(self), ticket.clone());
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            if let Some(parking) = parking.upgrade() {
                let forgotten = parking.table().remove(&due);
                drop(forgotten); // Which tells the server.
            }
        });
        Ok(ticket)
    }

    pub fn has(&self, ticket: &str) -> bool {
        self.table().contains_key(ticket)
    }

    /// The call that a ticket stands for, if it is this caller's. A ticket serves once.
    pub fn take(&self, ticket: &str, caller: &Caller) -> Option<Parked> {
        let mut table = self.table();
        table.get(ticket).filter(|parked| parked.caller == *caller)?;
        table.remove(ticket)
    }
}

impl Parked {
    /// Gives the server the answers that have come; what is still unanswered stays.
    pub async fn answer(mut self, given: &Given) -> Self {
        let mut unanswered = Vec::new();
        for asked in self.asked {
            let Some((_, answer)) = given.answers.iter().find(|(key, _)| *key == asked.key) else {
                unanswered.push(asked);
                continue;
            };
            let (member, value) = match answer {
                Ok(result) => (&b",\"result\":"[..], result),
                Err(error) => (&b",\"error\":"[..], error),
            };
            let text = [b"{\"jsonrpc\":\"2.0\",\"id\":", &asked.id[..], member, value, b"}"].concat();
            self.relay.tell(text.into()).await;
        }
        self.asked = unanswered;
        self
    }
}
