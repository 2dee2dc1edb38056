//! One of several servers that are the same: how are its calls, and does it get more of them?

use std::{
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::{
    Balance,
    health::{Health, Standing},
    load::Load,
};
use crate::{
    backend::{Ask, Backend as _, Part, Place, State, profiles::Profiles},
    call::{Call, Caller, Client, Event, Reply, Scope},
    error::{Error, Fate, Result},
    wire::{
        capability::Capabilities,
        json::Limits,
        mcp::{Method, Revision},
        message::Message,
    },
};

/// A call that was silent for so long and was then given up is a failure; before that, its client
/// may have changed its mind.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a probe may take.
const PROBE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Replica {
    backend_name: Arc<str>,
    /// Its place in the configuration, from 1 on.
    pub number: usize,
    /// Those of a later group get calls only when those of all earlier ones are ejected.
    pub group: usize,
    pub profiles: Arc<Profiles>,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    health: Health,
    load: Load,
    calls: u64,
    failed: u64,
    /// Why the last call failed that did.
    problem: Option<String>,
}

impl Replica {
    pub fn new(name: &Arc<str>, number: usize, group: usize, profiles: Arc<Profiles>) -> Arc<Self> {
        let now = Instant::now();
        let (health, load) = (Health::new(now), Load::new(now));
        let record = Mutex::new(Record { health, load, calls: 0, failed: 0, problem: None });
        Arc::new(Self { backend_name: Arc::clone(name), number, group, profiles, record })
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no code panics while it holds this lock")
    }

    /// What part of its calls it gets, from 0 to 1.
    pub fn part(&self) -> f64 {
        self.record().health.part(Instant::now())
    }

    /// The less, the better it is for another call.
    pub fn cost(&self, balance: Balance) -> f64 {
        let record = self.record();
        match balance {
            Balance::Fastest => record.load.wait(Instant::now()),
            Balance::LeastLoaded => record.load.under_way as f64,
        }
    }

    /// Makes a call here, and notes how it went.
    pub async fn ask(self: &Arc<Self>, ask: Ask) -> Result<Reply> {
        let mut visit = Visit::begin(self);
        match self.profiles.answer(ask).await {
            Ok(Reply::Whole(answer)) => {
                visit.answered();
                Ok(Reply::Whole(answer))
            }
            Ok(Reply::Stream(events)) => {
                let noted = events.map(move |event| {
                    match &event {
                        Ok(Event::Answer(_)) => visit.answered(),
                        Ok(Event::Notification(_) | Event::Task(_) | Event::Alive) => {
                            visit.heard = Instant::now()
                        }
                        Err(error) => visit.failed(error),
                    }
                    event
                });
                Ok(Reply::Stream(noted.boxed()))
            }
            Err(error) => {
                visit.failed(&error);
                Err(error)
            }
        }
    }

    fn failed(self: &Arc<Self>, why: &str) {
        let now = Instant::now();
        let mut record = self.record();
        record.failed += 1;
        record.problem = Some(why.to_owned());
        let ejected = record.health.failed(now);
        drop(record);
        let Some(time) = ejected else { return };
        let (backend, replica) = (&*self.backend_name, self.number);
        tracing::warn!(backend, replica, for_s = time.as_secs(), problem = why, "replica ejected");
        // Outside of a runtime the process is ending.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(probe(Arc::downgrade(self), time));
        }
    }

    /// The least that can be asked.
    async fn answers(&self) -> bool {
        let text = r#"{"jsonrpc":"2.0","id":0,"method":"tools/list","params":{}}"#;
        let message = Message::parse(text.into(), &Limits::REQUEST).expect("a request");
        let client = Client {
            revision: Revision::NEWEST,
            capabilities: Capabilities::NONE,
            info: Bytes::from_static(b"{}"),
        };
        let call = Call::new(Caller::Gateway, Scope::All, Method::ToolsList, message, client);
        let answered = async {
            match self.profiles.answer(Ask::as_is(call)).await {
                Ok(Reply::Whole(_)) => true,
                Ok(Reply::Stream(events)) => {
                    let mut ends = events
                        .filter(|event| std::future::ready(matches!(event, Ok(Event::Answer(_)) | Err(_))));
                    matches!(ends.next().await, Some(Ok(_)))
                }
                Err(_) => false,
            }
        };
        tokio::time::timeout(PROBE, answered).await.unwrap_or(false)
    }

    pub fn status(&self) -> Part {
        let now = Instant::now();
        let status = self.profiles.status();
        let record = self.record();
        let place = match (record.health.standing(now), status.state) {
            (Standing::Ejected(..), _) => Place::Ejected,
            (Standing::Returning(_), _) => Place::Returning,
            (Standing::In, State::Ready) => Place::Ready,
            (Standing::In, State::Starting) => Place::Starting,
            (Standing::In, State::Down | State::NeedsConsent) => Place::Down,
        };
        let problem = if place == Place::Ready { None } else { status.problem.or(record.problem.clone()) };
        Part {
            number: self.number,
            group: self.group + 1,
            state: place,
            under_way: record.load.under_way,
            calls: record.calls,
            failed: record.failed,
            average_ms: (record.load.time(now) * 1e5).round() / 100.0,
            problem,
        }
    }
}

/// Asks an ejected replica, when it is due, until it answers.
async fn probe(replica: Weak<Replica>, mut wait: Duration) {
    loop {
        tokio::time::sleep(wait).await;
        let Some(replica) = replica.upgrade() else { return };
        let answers = replica.answers().await;
        let mut record = replica.record();
        let now = Instant::now();
        if answers {
            record.health.returns(now);
            drop(record);
            tracing::info!(backend = &*replica.backend_name, replica = replica.number, "replica is back");
            return;
        }
        wait = record.health.eject(now);
    }
}

/// A call under way at a replica.
struct Visit {
    replica: Arc<Replica>,
    begun: Instant,
    /// The last sign of life.
    heard: Instant,
    over: bool,
}

impl Visit {
    fn begin(replica: &Arc<Replica>) -> Self {
        let mut record = replica.record();
        record.calls += 1;
        record.load.under_way += 1;
        drop(record);
        let now = Instant::now();
        Self { replica: Arc::clone(replica), begun: now, heard: now, over: false }
    }

    fn answered(&mut self) {
        let now = Instant::now();
        let mut record = self.replica.record();
        record.load.took(now - self.begun, now);
        record.health.succeeded(now);
        self.over = true;
    }

    /// What the replica has answered, however wrongly, is no reason to think it out of order, and
    /// what is not its doing even less.
    fn failed(&mut self, error: &Error) {
        self.over = true;
        if let Error::Backend { fate: Fate::NotSent | Fate::Unknown, why, .. } = error {
            self.replica.failed(why);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut record = self.replica.record();
        record.load.under_way -= 1;
        if self.over {
            return;
        }
        // Given up: how long it would have taken is not known, but it is no less than this.
        let (took, silent) = (now - self.begun, now - self.heard);
        if took.as_secs_f64() > record.load.time(now) {
            record.load.took(took, now);
        }
        drop(record);
        if silent >= SILENCE {
            self.replica.failed(&format!("no answer and no sign of life for {} s", silent.as_secs()));
        }
    }
}
