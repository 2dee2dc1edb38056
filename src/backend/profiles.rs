//! Which connection does a call take, by what its client can be asked?
//!
//! A server of the legacy era hears once what its client can do, and asks accordingly. So there
//! is one connection for each different answer to that, made when it is first needed; clients
//! that can be asked nothing share one with the gateway itself. A server of the modern era
//! hears it with every request, and needs only one.
//!
//! Where a question does not say which call it belongs to, a connection has one call at a time.
//! A call that finds it taken gets another connection, up to a few; one after the other they use
//! the same, so that a server which remembers things remembers them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use super::{
    Ask, Backend, EraKind, Notice, Offer, Status,
    server::{Parts, Server, Turn},
};
use crate::{
    call::{Call, Reply},
    error::Result,
    wire::{capability::Capabilities, mcp::Era},
};

/// Connections for one set of capabilities.
const MOST: usize = 8;
/// After this long without a call a connection for clients that can be asked is ended.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// One server, over as many connections as it takes.
#[derive(Debug)]
pub struct Profiles {
    parts: Parts,
    /// For everybody who can be asked nothing.
    plain: Arc<Server>,
    others: Mutex<Others>,
}

/// By what their clients can be asked, each with when it was last used.
type Others = HashMap<Capabilities, Vec<(Arc<Server>, Instant)>>;

impl Profiles {
    pub fn new(parts: Parts) -> Arc<Self> {
        let plain = Server::new(parts.clone(), Capabilities::NONE);
        Arc::new(Self { parts, plain, others: Mutex::default() })
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().expect("no code panics while it holds this lock")
    }

    /// The connection for a call, and the right to be the only one there, where that is needed
    /// and could be had at once.
    async fn choose(&self, call: &Call) -> Result<(Arc<Server>, Option<Turn>)> {
        let wanted = call.client.capabilities.of_a_handshake();
        if wanted == Capabilities::NONE || self.plain.era().await? == Era::Modern {
            return Ok((Arc::clone(&self.plain), None));
        }
        let mut others = self.others();
        others.retain(|_, servers| {
            servers.retain(keep);
            !servers.is_empty()
        });
        let servers = others.entry(wanted).or_default();
        let given = call.given.as_ref();
        let earlier =
            servers.iter().position(|(server, _)| given.is_some_and(|given| server.has_begun(given)));
        let free = || {
            servers.iter().enumerate().find_map(|(at, (server, _))| Some((at, server.reserve(call).ok()?)))
        };
        let (at, turn) = match earlier {
            Some(at) => (at, None),
            None => free().unwrap_or_else(|| (if servers.len() < MOST { servers.len() } else { 0 }, None)),
        };
        if at == servers.len() {
            servers.push((self.another(wanted), Instant::now()));
        }
        let (server, used) = &mut servers[at];
        *used = Instant::now();
        Ok((Arc::clone(server), turn))
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

/// Ends a connection that was idle too long. A call that waits for its first message holds it.
fn keep((server, used): &(Arc<Server>, Instant)) -> bool {
    let keep = used.elapsed() < IDLE || server.is_busy() || Arc::strong_count(server) > 1;
    if !keep {
        let server = Arc::clone(server);
        tokio::spawn(async move { server.close().await });
    }
    keep
}

impl Backend for Profiles {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Reply>> {
        if ask.call.client.capabilities == Capabilities::NONE {
            return self.plain.answer(ask);
        }
        Box::pin(async move {
            let (server, turn) = self.choose(&ask.call).await?;
            server.ask(ask, turn).await
        })
    }

    fn status(&self) -> Status {
        let mut status = self.plain.status();
        let others = self.others();
        status.connections +=
            others.values().flatten().map(|(server, _)| server.status().connections).sum::<u64>();
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
            let others: Vec<_> = self.others().drain().flat_map(|(_, servers)| servers).collect();
            let closing = others.iter().map(|(server, _)| server.close()).chain([self.plain.close()]);
            futures_util::future::join_all(closing).await;
        })
    }
}
