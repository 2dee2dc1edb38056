//! Which of several servers that are the same takes a call?
//!
//! They stand in groups, in order of preference; a later group gets calls only while nobody in an
//! earlier one is of use. Within a group two are drawn by lot, and the better one of them takes the
//! call: that is nearly as good as the best of all, and does not send everybody to the same one.
//!
//! Where servers keep sessions, a caller's session lives at one of them, so the caller stays there for
//! as long as it is of use. What continues an earlier call goes where that was begun. The gateway
//! reads lists at one of them, since pages of a list are one server's.
//!
//! A call that did not reach a server, or does no harm a second time, is made once more elsewhere, as
//! far as the [`Budget`] goes. If all are ejected, they are asked all the same: the guess that one of
//! them works is better than a refusal.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, Either, select},
    stream,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tokio::time::Instant;

mod health; //  is one of use?
mod load; //    how busy is it, and how fast?
mod replica; // one of them

use self::replica::Replica;
use super::{
    Ask, Backend, Offer, Place, State, Status,
    budget::Budget,
    owner::Owner,
    profiles::{Profiles, Sharing},
};
use crate::{
    call::{Event, Events, Reply},
    error::{Error, Fate, Result},
    wire::mcp::Era,
};

/// Callers whose replica is remembered.
const MOST_HOMES: usize = 10_000;

/// An address, or several that are as good as each other.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "write an address, or a list of addresses that are as good as each other")]
pub enum Group {
    One(String),
    Several(Vec<String>),
}

impl Group {
    pub fn addresses(&self) -> &[String] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Several(addresses) => addresses,
        }
    }
}

/// By what the better one of two replicas is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// By how long a call would have to wait there: the time that calls take, times those under way.
    #[default]
    Fastest,
    /// By the calls under way.
    LeastLoaded,
}

/// Several servers that are the same.
#[derive(Debug)]
pub struct Replicas {
    me: Weak<Self>,
    /// In the order of their groups.
    all: Vec<Arc<Replica>>,
    sharing: Sharing,
    balance: Balance,
    hedge: Option<Duration>,
    calls: AtomicU64,
    budget: Budget,
    homes: Mutex<HashMap<Owner, Home>>,
    dice: AtomicU64,
}

/// Where an owner's session is, and since when nobody has asked for it.
#[derive(Debug)]
struct Home {
    at: usize,
    used: Instant,
}

impl Replicas {
    /// Each replica comes with the number of its group, in order.
    pub fn new(
        name: &str,
        members: Vec<(usize, Arc<Profiles>)>,
        sharing: Sharing,
        balance: Balance,
        hedge: Option<Duration>,
    ) -> Arc<Self> {
        let name = Arc::from(name);
        let numbered = members.into_iter().zip(1..);
        let all = numbered.map(|((group, profiles), number)| Replica::new(&name, number, group, profiles));
        let all = all.collect();
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            all,
            sharing,
            balance,
            hedge,
            calls: AtomicU64::new(0),
            budget: Budget::default(),
            homes: Mutex::default(),
            dice: AtomicU64::new(0),
        })
    }

    /// A number from 0 up to 1 that looks like chance (SplitMix64).
    fn roll(&self) -> f64 {
        let seed = self.dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn drawn(&self, from: usize) -> usize {
        ((self.roll() * from as f64) as usize).min(from - 1)
    }

    /// The replica for a call that none of these could answer; none if there is no other.
    fn choose(&self, tried: &[usize]) -> Option<&Arc<Replica>> {
        self.choose_by(tried, |one| one.cost(self.balance))
    }

    /// The same by another measure, of which less is better.
    fn choose_by(&self, tried: &[usize], cost: impl Fn(&Replica) -> f64) -> Option<&Arc<Replica>> {
        let untried = || self.all.iter().filter(|one| !tried.contains(&one.number));
        let in_use: SmallVec<[_; 8]> =
            untried().map(|one| (one, one.part())).filter(|(_, part)| *part > 0.0).collect();
        let Some(group) = in_use.iter().map(|(one, _)| one.group).min() else {
            return untried().next();
        };
        let group: SmallVec<[_; 8]> = in_use.into_iter().filter(|(one, _)| one.group == group).collect();
        // One that is just back has to win a draw first, unless it is alone.
        let ready: SmallVec<[_; 8]> =
            group.iter().filter(|(_, part)| *part == 1.0 || self.roll() < *part).collect();
        let ready = if ready.is_empty() { group.iter().collect() } else { ready };
        let first = self.drawn(ready.len());
        let (one, _) = ready[first];
        if ready.len() == 1 {
            return Some(one);
        }
        let (other, _) = ready[(first + 1 + self.drawn(ready.len() - 1)) % ready.len()];
        Some(if cost(other) < cost(one) { other } else { one })
    }

    /// The replica for a call that is made for the first time.
    fn first(&self, ask: &Ask) -> &Arc<Replica> {
        const SOME: &str = "there is at least one, and none was tried";
        let any = || self.choose(&[]).expect(SOME);
        if let Some(given) = &ask.call.given
            && let Some(begun) = self.all.iter().find(|one| one.profiles.has_begun(given))
        {
            return begun;
        }
        let Some(owner) = Owner::of_session(self.sharing.share, &ask.call) else { return any() };
        let gateway = owner == Owner::Everybody;
        if !gateway && !self.all.iter().any(|one| one.profiles.keeps_state()) {
            return any();
        }
        let mut homes = self.homes.lock().expect("no code panics while it holds this lock");
        if let Some(home) = homes.get_mut(&owner)
            && self.all[home.at].part() > 0.0
        {
            home.used = Instant::now();
            return &self.all[home.at];
        }
        // Sessions last, so it is they that are spread, and not the calls of just now.
        let sessions = |one: &Replica| homes.values().filter(|home| home.at + 1 == one.number).count() as f64;
        let chosen = self.choose_by(&[], sessions).expect(SOME);
        if homes.len() >= MOST_HOMES {
            homes.retain(|owner, home| !owner.is_gone() && home.used.elapsed() < self.sharing.idle);
        }
        if homes.len() < MOST_HOMES {
            homes.insert(owner, Home { at: chosen.number - 1, used: Instant::now() });
        }
        chosen
    }

    async fn take(&self, ask: Ask) -> Result<Reply> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let first = self.first(&ask);
        // What goes on with an earlier call goes on there or nowhere.
        if ask.call.given.is_some() || self.all.len() == 1 {
            return first.ask(ask).await;
        }
        let mut tried = SmallVec::from_slice(&[first.number]);
        let reply = match self.hedge.filter(|_| ask.read_only) {
            None => first.ask(ask.clone()).await,
            Some(after) => self.hedged(first, &ask, after, &mut tried).await,
        };
        let reply = match reply {
            Err(error) => self.again(&ask, error, &mut tried).await,
            reply => reply,
        };
        match reply {
            Ok(Reply::Stream(events)) if ask.repeatable => {
                Ok(Reply::Stream(self.lasting(ask, events, tried)))
            }
            reply => reply,
        }
    }

    /// Another attempt at a call, elsewhere, if it may be made again; else the error.
    async fn again(&self, ask: &Ask, error: Error, tried: &mut Tried) -> Result<Reply> {
        let may = match &error {
            Error::Backend { fate: Fate::NotSent, .. } => true,
            Error::Backend { fate: Fate::Unknown, .. } => ask.repeatable,
            _ => false,
        };
        if !may || tried.len() > 1 {
            return Err(error);
        }
        let Some(other) = self.choose(tried).filter(|_| self.budget.take(self.calls.load(Ordering::Relaxed)))
        else {
            return Err(error);
        };
        tried.push(other.number);
        tracing::debug!(replica = other.number, %error, "a call is made again");
        match other.ask(ask.clone()).await {
            // Of a call that was made twice, what is true of either is true.
            Err(second @ Error::Backend { fate: Fate::NotSent, .. })
                if !matches!(error, Error::Backend { fate: Fate::NotSent, .. }) =>
            {
                tracing::debug!(%second, "and failed again");
                Err(error)
            }
            reply => reply,
        }
    }

    /// The first reply of two, the second of which is asked for if the first takes so long.
    async fn hedged(
        &self,
        first: &Arc<Replica>,
        ask: &Ask,
        after: Duration,
        tried: &mut Tried,
    ) -> Result<Reply> {
        let one = std::pin::pin!(first.ask(ask.clone()));
        let one = match select(one, std::pin::pin!(tokio::time::sleep(after))).await {
            Either::Left((reply, _)) => return reply,
            Either::Right(((), one)) => one,
        };
        let other = self.choose(tried).filter(|_| self.budget.take(self.calls.load(Ordering::Relaxed)));
        let Some(other) = other else { return one.await };
        tried.push(other.number);
        let other = std::pin::pin!(other.ask(ask.clone()));
        match select(one, other).await {
            Either::Left((Ok(reply), _)) | Either::Right((Ok(reply), _)) => Ok(reply),
            Either::Left((Err(_), other)) => other.await,
            Either::Right((Err(_), one)) => one.await,
        }
    }

    /// A stream that goes on elsewhere if it breaks before the answer.
    fn lasting(&self, ask: Ask, events: Events, tried: Tried) -> Events {
        let start = (events, Some((self.me.clone(), ask, tried)));
        let lasting = stream::unfold(start, |(mut events, mut spare)| async {
            loop {
                let error = match events.next().await? {
                    Err(error) => error,
                    event => return Some((event, (events, spare))),
                };
                let Some((me, ask, mut tried)) = spare.take() else {
                    return Some((Err(error), (events, None)));
                };
                let Some(me) = me.upgrade() else { return Some((Err(error), (events, None))) };
                match me.again(&ask, error, &mut tried).await {
                    Ok(Reply::Whole(answer)) => {
                        return Some((Ok(Event::Answer(answer)), (stream::empty().boxed(), None)));
                    }
                    Ok(Reply::Stream(others)) => events = others,
                    Err(error) => return Some((Err(error), (events, None))),
                }
            }
        });
        lasting.boxed()
    }
}

/// The numbers of the replicas that a call was made at.
type Tried = SmallVec<[usize; 2]>;

impl Backend for Replicas {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(self.take(ask))
    }

    /// As good as the best one.
    fn status(&self) -> Status {
        let all: Vec<_> = self.all.iter().map(|one| one.profiles.status()).collect();
        let replicas: Vec<_> = self.all.iter().map(|one| one.status()).collect();
        let rank = |status: &Status| match status.state {
            State::Ready => 0,
            State::Starting => 1,
            State::NeedsConsent => 2,
            State::Down => 3,
        };
        let connections = all.iter().map(|status| status.connections).sum();
        let best = all.into_iter().min_by_key(rank).expect("there is at least one");
        let problem = best.problem.clone().or_else(|| {
            let out = |place| matches!(place, Place::Ejected | Place::Down);
            let out = replicas.iter().filter(|one| out(one.state)).count();
            (out > 0).then(|| format!("{out} of {} replicas are out of use", replicas.len()))
        });
        Status { problem, connections, replicas, ..best }
    }

    fn offer(&self) -> Option<Arc<Offer>> {
        self.all.iter().find_map(|one| one.profiles.offer())
    }

    fn expect(&self, era: Era) {
        self.all.iter().for_each(|one| one.profiles.expect(era));
    }

    /// Each knows only what it has done itself.
    fn watch(&self, uris: std::collections::BTreeSet<String>) {
        self.all.iter().for_each(|one| one.profiles.watch(uris.clone()));
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let closing = futures_util::future::join_all(self.all.iter().map(|one| one.profiles.close()));
        Box::pin(async { drop(closing.await) })
    }
}

#[cfg(test)]
mod tests;
