//! Which connection does a call take, by what its client can be asked?
//!
//! A server of the legacy era hears once what its client can do, and asks accordingly. So there
//! is one connection for each different answer to that, made when it is first needed; clients
//! that can be asked nothing share one with the gateway itself. A server of the modern era
//! hears it with every request, and needs only one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use super::{
    Ask, Backend, EraKind, Notice, Offer, Status,
    server::{Parts, Server},
};
use crate::{
    call::{Call, Reply},
    error::Result,
    wire::{capability::Capabilities, mcp::Era},
};

/// After this long without a call a connection for clients that can be asked is ended.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// One server, over as many connections as it takes.
#[derive(Debug)]
pub struct Profiles {
    parts: Parts,
    /// For everybody who can be asked nothing.
    plain: Arc<Server>,
    others: Mutex<HashMap<Capabilities, (Arc<Server>, Instant)>>,
}

impl Profiles {
    pub fn new(parts: Parts) -> Arc<Self> {
        let plain = Server::new(parts.clone(), Capabilities::NONE);
        Arc::new(Self { parts, plain, others: Mutex::default() })
    }

    fn others(&self) -> MutexGuard<'_, HashMap<Capabilities, (Arc<Server>, Instant)>> {
        self.others.lock().expect("no code panics while it holds this lock")
    }

    async fn choose(&self, call: &Call) -> Result<Arc<Server>> {
        let wanted = call.capabilities();
        if wanted == Capabilities::NONE || self.plain.era().await? == Era::Modern {
            return Ok(Arc::clone(&self.plain));
        }
        let mut others = self.others();
        others.retain(|profile, (server, used)| {
            let keep = *profile == wanted || used.elapsed() < IDLE || server.is_busy();
            if !keep {
                let server = Arc::clone(server);
                tokio::spawn(async move { server.close().await });
            }
            keep
        });
        let (server, used) = others.entry(wanted).or_insert_with(|| (self.another(wanted), Instant::now()));
        *used = Instant::now();
        Ok(Arc::clone(server))
    }

    /// Tells of changed lists as the first one does, but its coming and going is nobody's news.
    fn another(&self, profile: Capabilities) -> Arc<Server> {
        let notices = Arc::clone(&self.parts.notices);
        let parts = Parts {
            era: EraKind::Legacy,
            notices: Arc::new(move |notice| {
                if let Notice::Changed(_) = notice {
                    notices(notice);
                }
            }),
            ..self.parts.clone()
        };
        Server::new(parts, profile)
    }
}

impl Backend for Profiles {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Reply>> {
        if ask.call.capabilities() == Capabilities::NONE {
            return self.plain.answer(ask);
        }
        Box::pin(async move { self.choose(&ask.call).await?.answer(ask).await })
    }

    fn status(&self) -> Status {
        let mut status = self.plain.status();
        status.connections +=
            self.others().values().map(|(server, _)| server.status().connections).sum::<u64>();
        status
    }

    fn offer(&self) -> Option<Arc<Offer>> {
        self.plain.offer()
    }

    fn expect(&self, era: Era) {
        self.plain.expect(era);
    }

    fn watch(&self, uris: BTreeSet<String>) {
        self.plain.watch(uris);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let others: Vec<_> = self.others().drain().map(|(_, (server, _))| server).collect();
            let closing = others.iter().map(|server| server.close()).chain([self.plain.close()]);
            futures_util::future::join_all(closing).await;
        })
    }
}
