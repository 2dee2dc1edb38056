//! Which connection does a call take, and who else takes it?
//!
//! One is always there: over it the gateway reads what the server offers. Whoever may share it
//! and can be asked nothing uses it too, so one person's gateway has one child process for a
//! server. The others belong to a caller, to a client's session, or to a single call, as
//! `share` says. They are made when they are first needed, and end when they have been idle,
//! when their session or call is over, or when room is needed for another.
//!
//! A server of the legacy era hears once what its client can do, and asks accordingly. So there
//! is one connection for each different answer to that. Where a question does not say which
//! call it belongs to, a connection has one call at a time; a call that finds it taken gets
//! another, up to a few. A server of the modern era hears all this with every request, and over
//! HTTP it keeps nothing between two of them: it needs one connection, whatever is set.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use futures_util::future::BoxFuture;
use tokio::{sync::Notify, time::Instant};

use super::{
    Ask, Backend, Connected, EraKind, Notice, Offer, Share, State, Status,
    credential::{Asker, asks_to_visit},
    owner::Owner,
    personal::Personal,
    server::{Hold, Parts, Server, TURN},
};
use crate::{
    call::{Answer, Call, Caller, Given, Reply},
    error::{Error, Result},
    wire::{
        capability::Capabilities,
        json::Limits,
        mcp::{Era, Method},
        message::Message,
    },
};

/// Connections of one owner for one set of capabilities.
const MOST: usize = 8;

/// How connections are shared, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct Sharing {
    pub share: Share,
    /// Connections at the same time, with the one that is always there.
    pub most: usize,
    /// How long another one is kept without a call.
    pub idle: Duration,
    /// What a server is told that it may ask where the gateway reads what it offers: some list a
    /// tool only for clients that they may ask for a text of a model.
    pub usual: Capabilities,
}

/// One server, over as many connections as it takes.
#[derive(Debug)]
pub struct Profiles {
    parts: Parts,
    sharing: Sharing,
    /// Each caller has an account of their own, and so connections.
    personal: Option<Personal>,
    /// The one that is always there.
    plain: Arc<Server>,
    others: Arc<Others>,
    last_call: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    owner: Owner,
    /// What a server of the legacy era was told that it may ask.
    capabilities: Capabilities,
}

/// All connections but the one that is always there.
#[derive(Debug, Default)]
struct Others {
    table: Mutex<Table>,
    /// Somebody who waits may find a connection now.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    connections: HashMap<Key, Vec<Connection>, RandomState>,
    last_number: u64,
    /// Connections that are not used any more, and have not quite ended.
    ending: usize,
    /// Connections that were made by servers which are not in the table any more.
    made: u64,
    /// There is a task that looks for idle ones.
    swept: bool,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    server: Arc<Server>,
    /// Calls under way, or waiting for their clients.
    calls: usize,
    /// When the last call ended.
    used: Instant,
}

/// A call's part in a connection, until the call has ended.
#[derive(Debug)]
pub struct Lease {
    others: Weak<Others>,
    key: Key,
    number: u64,
}

impl Profiles {
    pub fn new(parts: Parts, sharing: Sharing, personal: Option<Personal>) -> Arc<Self> {
        let plain = Server::new(parts.clone(), sharing.usual);
        if let Some(Personal { door, .. }) = &personal {
            let plain = Arc::downgrade(&plain);
            door.on_consent(move || {
                if let Some(plain) = plain.upgrade() {
                    tokio::spawn(async move { plain.wake().await });
                }
            });
        }
        Arc::new(Self {
            parts,
            sharing,
            personal,
            plain,
            others: Arc::default(),
            last_call: AtomicU64::new(0),
        })
    }

    /// Was a call begun here that goes on with this?
    pub fn has_begun(&self, given: &Given) -> bool {
        self.plain.has_begun(given) || self.others.table().begun(given).is_some()
    }

    /// Does the server remember its clients, as far as is known?
    pub fn keeps_state(&self) -> bool {
        self.plain.keeps_state()
    }

    fn owner(&self, call: &Call) -> Owner {
        let with_gateway = self.personal.is_none() && matches!(call.caller, Caller::Local | Caller::Gateway);
        match (self.sharing.share, &call.session) {
            _ if call.caller == Caller::Gateway => Owner::Everybody,
            // Nobody's account is anybody else's.
            (Share::All, _) if self.personal.is_some() => Owner::Caller(call.caller.clone()),
            (Share::All, _) => Owner::Everybody,
            (Share::Session, Some(session)) => Owner::Session(session.clone()),
            (Share::Session, None) | (Share::Caller, _) if with_gateway => Owner::Everybody,
            (Share::Session, None) | (Share::Caller, _) => Owner::Caller(call.caller.clone()),
            (Share::Call, _) => Owner::Call(self.last_call.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// The connection for a call that does not go without saying, and what it has of it.
    async fn choose(&self, owner: Owner, call: &Call) -> Result<(Arc<Server>, Hold)> {
        let asked = call.client.capabilities.of_a_handshake();
        if self.personal.is_some() {
            // The gateway itself may have no way to find out the era.
            return self.turn(Key { owner, capabilities: asked }, Era::Legacy, call).await;
        }
        let era = self.plain.era().await?;
        let capabilities = if era == Era::Modern { Capabilities::NONE } else { asked };
        // What was told that it may ask, and may not in this call, is not the connection for it.
        let told = if era == Era::Modern { Capabilities::NONE } else { self.sharing.usual };
        let unasked = [capabilities, told] == [Capabilities::NONE; 2];
        let stateless = era == Era::Modern && self.parts.kind != "stdio";
        if stateless || (owner == Owner::Everybody && unasked) {
            return Ok((Arc::clone(&self.plain), Hold::default()));
        }
        if let Some(given) = call.given.as_ref() {
            // A call that goes on does so where it was begun, and has its part of that already.
            let begun = self.others.table().begun(given);
            let nowhere = era == Era::Legacy && given.state.is_some() && given.task.is_none();
            // Any server says that there is none.
            let begun = begun.or_else(|| nowhere.then(|| Arc::clone(&self.plain)));
            if let Some(server) = begun {
                return Ok((server, Hold::default()));
            }
        }
        self.turn(Key { owner, capabilities }, era, call).await
    }

    /// A connection of this kind, when there is room for one.
    async fn turn(&self, key: Key, era: Era, call: &Call) -> Result<(Arc<Server>, Hold)> {
        if self.personal.is_some()
            && let Some(given) = call.given.as_ref()
            && let Some(begun) = self.others.table().begun(given)
        {
            return Ok((begun, Hold::default()));
        }
        if let Some(found) = self.take(&key, era, call, true)? {
            return Ok(found);
        }
        let until = Instant::now() + TURN;
        loop {
            let mut freed = std::pin::pin!(self.others.freed.notified());
            freed.as_mut().enable(); // What is freed from now on is not missed.
            if let Some(found) = self.take(&key, era, call, false)? {
                return Ok(found);
            }
            tokio::time::timeout_at(until, freed).await.map_err(|_| self.busy())?;
        }
    }

    fn busy(&self) -> Error {
        let why = "other calls take all connections that this one could use; try again later";
        Error::Busy(format!("backend {}: {why}", self.parts.name))
    }

    /// A connection that can be had at once. Who asks for the `first` time may have an idle one
    /// of somebody else's ended to make room.
    fn take(&self, key: &Key, era: Era, call: &Call, first: bool) -> Result<Option<(Arc<Server>, Hold)>> {
        let mut table = self.others.table();
        // Where nobody knows any more who is asked, nobody can be.
        let is_unclear = |one: &Connection| one.calls == 0 && one.server.is_unclear();
        if table.connections.get(key).is_some_and(|own| own.iter().any(is_unclear)) {
            self.others.end(&mut table, |other, one| other == key && is_unclear(one));
        }
        let own = table.connections.get_mut(key).map(Vec::as_mut_slice).unwrap_or_default();
        let free = own.iter_mut().find_map(|one| Some((one.server.reserve(call).ok()?, one)));
        if let Some((turn, connection)) = free {
            connection.calls += 1;
            let lease = Some(self.lease(key, connection.number));
            return Ok(Some((Arc::clone(&connection.server), Hold { turn, lease })));
        }
        if own.len() >= MOST {
            return Ok(None);
        }
        if table.count() + 1 >= self.sharing.most {
            if first || table.ending == 0 {
                self.others.make_room(&mut table);
            }
            return Ok(None);
        }
        let server = self.another(era, key.capabilities, call)?;
        table.last_number += 1;
        let number = table.last_number;
        let connection = Connection { number, server: Arc::clone(&server), calls: 1, used: Instant::now() };
        table.connections.entry(key.clone()).or_default().push(connection);
        if !std::mem::replace(&mut table.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.others), self.sharing.idle));
        }
        let turn = server.reserve(call).ok().flatten();
        let connection = (server, Hold { turn, lease: Some(self.lease(key, number)) });
        Ok(Some(connection))
    }

    fn lease(&self, key: &Key, number: u64) -> Arc<Lease> {
        Arc::new(Lease { others: Arc::downgrade(&self.others), key: key.clone(), number })
    }

    /// Tells of changed lists as the first one does, but its coming and going is nobody's news.
    fn another(&self, era: Era, capabilities: Capabilities, call: &Call) -> Result<Arc<Server>> {
        let notices = Arc::clone(&self.parts.notices);
        let (ways, era) = match &self.personal {
            Some(personal) => (personal.ways(&call.caller)?, self.parts.era),
            None => {
                let era = if era == Era::Modern { EraKind::Modern } else { EraKind::Legacy };
                (self.parts.ways.clone(), era)
            }
        };
        let parts = Parts {
            ways,
            era,
            notices: Arc::new(move |notice| {
                if let Notice::Changed(_) = notice {
                    notices(notice);
                }
            }),
            watches: false,
            ..self.parts.clone()
        };
        Ok(Server::new(parts, capabilities))
    }

    /// A call to a server at which its caller has, or is to have, an account.
    async fn answer_as(&self, owner: Owner, personal: &Personal, mut ask: Ask) -> Result<Reply> {
        let account = personal.door.account(&ask.call.caller)?;
        if let Some(proof) = &ask.call.proof {
            account.lend(proof);
        }
        let heard = personal.door.heard(&mut ask.call, &account).await?;
        let asker = Asker::of(&ask.call, heard);
        let reply = match self.choose(owner, &ask.call).await {
            Ok((server, hold)) => server.ask(ask, hold).await,
            Err(error) => Err(error),
        };
        asks_to_visit(reply, &asker, &account)
    }
}

impl Others {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics while it holds this lock")
    }

    /// Ends the connection that has been idle longest, if one is.
    fn make_room(self: &Arc<Self>, table: &mut Table) {
        let all = table.connections.values().flatten();
        let idle = all.filter(|one| one.calls == 0).min_by_key(|one| one.used).map(|one| one.number);
        self.end(table, |_, one| Some(one.number) == idle);
    }

    /// Ends the connections that this is true of.
    fn end(self: &Arc<Self>, table: &mut Table, is_over: impl Fn(&Key, &Connection) -> bool) {
        let mut over = Vec::new();
        table.connections.retain(|key, connections| {
            over.extend(connections.extract_if(.., |one| is_over(key, one)));
            !connections.is_empty()
        });
        for Connection { server, .. } in over {
            table.made += server.status().connections;
            // Outside of a runtime the process is ending, and its connections with it.
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
            table.ending += 1;
            let others = Arc::downgrade(self);
            runtime.spawn(async move {
                server.close().await;
                if let Some(others) = others.upgrade() {
                    others.table().ending -= 1;
                    others.freed.notify_waiters();
                }
            });
        }
    }
}

impl Table {
    fn count(&self) -> usize {
        self.connections.values().map(Vec::len).sum::<usize>() + self.ending
    }

    /// The server with which a call was begun that goes on with this.
    fn begun(&self, given: &Given) -> Option<Arc<Server>> {
        let mut all = self.connections.values().flatten();
        all.find(|one| one.server.has_begun(given)).map(|one| Arc::clone(&one.server))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(others) = self.others.upgrade() else { return };
        let mut table = others.table();
        let own = table.connections.get_mut(&self.key).map(Vec::as_mut_slice).unwrap_or_default();
        let Some(connection) = own.iter_mut().find(|one| one.number == self.number) else { return };
        connection.calls -= 1;
        connection.used = Instant::now();
        if self.key.owner.is_gone() {
            others.end(&mut table, |_, one| one.number == self.number && one.calls == 0);
        }
        drop(table);
        others.freed.notify_waiters();
    }
}

/// Ends connections that have been idle too long, or whose sessions have ended, until there are
/// none.
async fn sweep(others: Weak<Others>, idle: Duration) {
    let every = (idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
    loop {
        tokio::time::sleep(every).await;
        let Some(others) = others.upgrade() else { return };
        let mut table = others.table();
        let too_long = |one: &Connection| one.used.elapsed() >= idle;
        others.end(&mut table, |key, one| one.calls == 0 && (too_long(one) || key.owner.is_gone()));
        if table.connections.is_empty() {
            table.swept = false;
            return;
        }
    }
}

impl Backend for Profiles {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Reply>> {
        let owner = self.owner(&ask.call);
        if let Some(personal) = &self.personal
            && ask.call.caller != Caller::Gateway
        {
            return Box::pin(self.answer_as(owner, personal, ask));
        }
        let unasked = [ask.call.client.capabilities, self.sharing.usual] == [Capabilities::NONE; 2];
        if ask.call.caller == Caller::Gateway || (owner == Owner::Everybody && unasked) {
            return self.plain.answer(ask);
        }
        Box::pin(async move {
            let (server, hold) = self.choose(owner, &ask.call).await?;
            server.ask(ask, hold).await
        })
    }

    fn status(&self) -> Status {
        let mut status = self.plain.status();
        if let Some(Personal { door, .. }) = &self.personal
            && status.state != State::Ready
            && door.connected().is_none()
        {
            status.state = State::NeedsConsent;
            status.problem = Some(
                "no caller has connected an account yet; the tool waystation__connect gives the link".into(),
            );
        }
        let table = self.others.table();
        let others = table.connections.values().flatten();
        status.connections += table.made + others.map(|one| one.server.status().connections).sum::<u64>();
        status
    }

    fn connect(&self, mut call: Box<Call>) -> BoxFuture<'_, Result<Connected>> {
        Box::pin(async move {
            let Some(personal) = &self.personal else { return Ok(Connected::Needless) };
            let account = personal.door.account(&call.caller)?;
            let heard = personal.door.heard(&mut call, &account).await?;
            if let Some(proof) = &call.proof {
                account.lend(proof);
            }
            let asker = Asker::of(&call, heard);
            // The least that can be asked.
            let text = r#"{"jsonrpc":"2.0","id":0,"method":"tools/list","params":{}}"#;
            call.message = Message::parse(text.into(), &Limits::REQUEST)?;
            call.method = Method::ToolsList;
            let reply = match self.choose(self.owner(&call), &call).await {
                Ok((server, hold)) => server.ask(Ask::as_is(*call), hold).await,
                Err(error) => Err(error),
            };
            Ok(match asks_to_visit(reply, &asker, &account)? {
                asks @ Reply::Whole(Answer::Asks(_)) => Connected::Asks(asks),
                _ if account.is_connected() => {
                    if self.plain.status().state != State::Ready {
                        self.plain.wake().await;
                    }
                    Connected::Yes
                }
                _ => Connected::Needless,
            })
        })
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
            let others: Vec<_> = self.others.table().connections.drain().flat_map(|(_, all)| all).collect();
            let closing = others.iter().map(|one| one.server.close()).chain([self.plain.close()]);
            futures_util::future::join_all(closing).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        backend::transport::{Connect, Inbox, Incoming, Outgoing, Transport, Trouble},
        call::{Client, Scope},
        wire::mcp::Revision,
    };

    /// A server that greets, and answers nothing else.
    #[derive(Debug)]
    struct Silent;

    impl Connect for Silent {
        fn connect(&self, _: Inbox) -> BoxFuture<'_, Result<Arc<dyn Transport>, Trouble>> {
            Box::pin(async { Ok(Arc::new(Self) as Arc<dyn Transport>) })
        }

        fn probe_apart(&self) -> bool {
            false
        }
    }

    impl Transport for Silent {
        fn request(&self, request: Outgoing) -> BoxFuture<'static, Result<Incoming, Trouble>> {
            let (id, initialize) = (request.id, request.method == Method::Initialize);
            let result = "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{}}";
            let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}");
            Box::pin(async move {
                if !initialize {
                    std::future::pending::<()>().await;
                }
                Ok(Incoming::Whole(Message::parse(text.into(), &Limits::REPLY).unwrap()))
            })
        }

        fn notify(&self, _: Bytes) -> BoxFuture<'static, Result<(), Trouble>> {
            Box::pin(async { Ok(()) })
        }

        fn lost(&self) -> Option<Trouble> {
            None
        }

        fn close(&self) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }

    fn call() -> Ask {
        let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
        let client = Client {
            revision: Revision::NEWEST,
            capabilities: Capabilities::NONE,
            info: Bytes::from_static(b"{}"),
        };
        Ask::as_is(Call::new(
            Caller::Local,
            Scope::All,
            Method::ToolsCall,
            Message::parse(text.into(), &Limits::REQUEST).unwrap(),
            client,
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_a_connection_in_vain_is_told_so() {
        let parts = Parts {
            name: "one".into(),
            ways: vec![Arc::new(Silent)],
            kind: "stdio",
            era: EraKind::Legacy,
            timeout: Duration::from_secs(1),
            notices: Arc::new(|_| {}),
            watches: true,
            spared: false,
        };
        let sharing =
            Sharing { share: Share::Call, most: 3, idle: Duration::from_secs(60), usual: Capabilities::NONE };
        let profiles = Profiles::new(parts, sharing, None);
        let (first, second) = (profiles.answer(call()), profiles.answer(call()));
        let mut both = futures_util::future::join(first, second);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut both).await.is_err());
        let begun = Instant::now();
        let error = profiles.answer(call()).await.unwrap_err();
        assert!(matches!(error, Error::Busy(_)) && error.to_string().contains("one"), "{error}");
        assert_eq!(begun.elapsed(), TURN);
        drop(both);
        let third = profiles.answer(call());
        let why = "there is room, and so it waits for its answer";
        assert!(tokio::time::timeout(TURN * 2, third).await.is_err(), "{why}");
        profiles.close().await;
        assert_eq!(profiles.status().connections, 4);
    }
}
