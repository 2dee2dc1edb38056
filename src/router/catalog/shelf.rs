//! What is known of one backend?

use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{State, Status},
    router::{
        offering::Offering,
        view::{Snapshot, Upstream},
    },
    store::Store,
    wire::mcp::{Era, List},
};

/// What is known of one backend.
#[derive(Debug)]
pub struct Shelf {
    pub upstream: Arc<Upstream>,
    pub fingerprint: String,
    pub offering: ArcSwap<Offering>,
    reading: Mutex<Reading>,
    /// The backend is not there any more.
    pub gone: CancellationToken,
}

#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// When the lists were last read whole; none if what is shown was kept from earlier.
    pub at: Option<SystemTime>,
    pub problem: Option<String>,
    /// What is shown comes from an earlier run of the gateway.
    pub kept: bool,
    pub settled: bool,
}

/// One backend, for people.
#[derive(Debug, Serialize)]
pub struct Report {
    pub name: String,
    #[serde(flatten)]
    pub status: Status,
    pub tools: usize,
    pub prompts: usize,
    pub resources: usize,
    /// What is listed was last confirmed before the connection was lost, or not at all yet.
    pub stale: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

const LOCK: &str = "no code panics while it holds this lock";

impl Shelf {
    /// With what is known of it from earlier.
    pub async fn new(upstream: Arc<Upstream>, fingerprint: String, store: &Store) -> Arc<Self> {
        let kept = store.catalog(&upstream.name, &fingerprint).await;
        let kept = kept.and_then(|text| Offering::from_json(&text));
        if let Some(era) = kept.as_ref().and_then(|kept| kept.era) {
            upstream.backend.expect(era);
        }
        let reading = Reading { kept: kept.is_some(), ..Reading::default() };
        let offering = ArcSwap::from_pointee(kept.unwrap_or_default());
        Arc::new(Self {
            upstream,
            fingerprint,
            offering,
            reading: Mutex::new(reading),
            gone: CancellationToken::new(),
        })
    }

    /// It has been read, or has failed to be. Was that the first time?
    pub fn settles(&self) -> bool {
        !std::mem::replace(&mut self.reading.lock().expect(LOCK).settled, true)
    }

    pub fn reading(&self) -> Reading {
        self.reading.lock().expect(LOCK).clone()
    }

    pub fn is_modern(&self) -> bool {
        self.upstream.backend.offer().is_some_and(|offer| offer.era == Era::Modern)
    }

    /// Is nothing known of it, because it has not answered or failed yet?
    pub fn is_starting(&self) -> bool {
        let reading = self.reading();
        !reading.kept && !reading.settled && self.upstream.backend.status().state != State::Down
    }

    pub fn set_reading(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.reading.lock().expect(LOCK));
    }

    pub fn report(&self, snapshot: &Snapshot) -> Report {
        let mut status = self.upstream.backend.status();
        let reading = self.reading();
        let offering = self.offering.load();
        if status.problem.is_none() {
            status.problem = reading.problem;
        }
        Report {
            name: self.upstream.name.to_string(),
            stale: reading.at.is_none() || status.state != State::Ready,
            tools: offering.list(List::Tools).len(),
            prompts: offering.list(List::Prompts).len(),
            resources: offering.list(List::Resources).len() + offering.list(List::Templates).len(),
            faults: offering.faults.iter().cloned().chain(left_out(&self.upstream.name, snapshot)).collect(),
            status,
        }
    }
}

/// What a backend offers that is not shown, and why.
pub fn left_out(backend: &str, snapshot: &Snapshot) -> Vec<String> {
    let notes = snapshot.notes.iter();
    let notes = notes.filter(|note| *note.backend == *backend && note.shown_as.is_none());
    notes.map(|note| format!("{:?} is left out: {}", note.name, note.why)).collect()
}
