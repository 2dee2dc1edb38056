//! Who hears of which changes?
//!
//! A client subscribes by keeping a `subscriptions/listen` open; a session of the legacy era
//! does so for each resource through the listener. Backends are told once of each resource that
//! anybody watches, and told again when nobody does. (2026-07-28 "Subscriptions"; 2025-11-25
//! "Resources", "Subscriptions".)

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{
    catalog::Change,
    sight::Sight,
    view::{Upstream, View},
};
use crate::{
    call::{Answer, Call, Event, Events, Kind},
    error::{Error, Result},
    weaken,
    wire::{
        json,
        mcp::{Era, INTRODUCTION, List, meta},
    },
};

/// Resources that one subscription may name.
const MOST: usize = 1024;

/// A resource that its backend says has changed.
#[derive(Debug, Clone)]
pub struct Updated {
    pub backend: Arc<str>,
    /// As the backend spells it. It may be one below a resource that is watched.
    pub uri: String,
    /// Whose it is, if it is one caller's.
    pub caller: Option<String>,
}

/// Takes what backends say of their resources.
pub type Updates = broadcast::Sender<Updated>;

/// The watched resources of all backends, and how many watch each.
#[derive(Debug)]
pub struct Subscriptions {
    updates: Updates,
    watched: Mutex<BTreeMap<Arc<str>, Watched>>,
    /// Ends all subscriptions in good order.
    pub closing: CancellationToken,
}

/// Of one backend.
#[derive(Debug)]
struct Watched {
    /// Which may be another one of its name than when it was first watched.
    upstream: Arc<Upstream>,
    uris: BTreeMap<String, usize>,
}

impl Subscriptions {
    pub fn new(updates: Updates) -> Arc<Self> {
        Arc::new(Self { updates, watched: Mutex::default(), closing: CancellationToken::new() })
    }

    /// Watches a resource of a backend's until the guard is dropped.
    fn watch(self: &Arc<Self>, upstream: &Arc<Upstream>, uri: &str, shown: &str) -> Watch {
        let mut watched = self.watched();
        let unheard = || Watched { upstream: Arc::clone(upstream), uris: BTreeMap::new() };
        let of = watched.entry(Arc::clone(&upstream.name)).or_insert_with(unheard);
        of.count(uri, |count| count + 1);
        let (hub, backend) = (Arc::clone(self), Arc::clone(&upstream.name));
        Watch { hub, backend, uri: uri.to_owned(), shown: shown.to_owned() }
    }

    /// Another backend has a name from now on, and is to be told what is watched.
    pub fn moved(&self, upstream: &Arc<Upstream>) {
        if let Some(watched) = self.watched().get_mut(&upstream.name) {
            watched.upstream = Arc::clone(upstream);
            watched.tell();
        }
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Watched>> {
        self.watched.lock().expect("no code panics while it holds this lock")
    }
}

impl Watched {
    fn count(&mut self, uri: &str, change: impl FnOnce(usize) -> usize) {
        let before = self.uris.get(uri).copied().unwrap_or_default();
        let after = change(before);
        if after == 0 {
            self.uris.remove(uri);
        } else {
            self.uris.insert(uri.to_owned(), after);
        }
        if (before == 0) != (after == 0) {
            self.tell();
        }
    }

    /// Under the lock, so that the backend hears of changes in their order.
    fn tell(&self) {
        self.upstream.backend.watch(self.uris.keys().cloned().collect());
    }
}

/// One resource that one subscription names.
struct Watch {
    hub: Arc<Subscriptions>,
    backend: Arc<str>,
    /// As the backend spells it, and as the client does.
    uri: String,
    shown: String,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.hub.watched();
        let Some(of) = watched.get_mut(&self.backend) else { return };
        of.count(&self.uri, |count| count.saturating_sub(1));
        if of.uris.is_empty() {
            watched.remove(&self.backend);
        }
    }
}

/// One client's subscription.
struct Listening {
    era: Era,
    /// The id of the request, as the client wrote it.
    id: Bytes,
    lists: BTreeSet<List>,
    watches: Vec<Watch>,
    /// Whose it is: what they may not see any more is not told of.
    sight: Sight,
    changes: broadcast::Receiver<Change>,
    updates: broadcast::Receiver<Updated>,
    closing: CancellationToken,
    ready: VecDeque<Event>,
}

impl Subscriptions {
    /// Answers `subscriptions/listen`: what is honoured of it, then what changes.
    pub fn listen(self: &Arc<Self>, view: &View, call: &Call, sight: Sight) -> Result<Events> {
        let wanted = call.message.in_params("notifications").filter(|wanted| wanted.starts_with(b"{"));
        let wanted = wanted.ok_or_else(|| Error::Params("`notifications` must be an object".into()))?;
        let mut lists = BTreeSet::new();
        let mut watches = Vec::new();
        for member in json::members(wanted) {
            let value = member.value.of(wanted);
            let list = FILTERS.iter().find(|(name, _)| member.is(name, wanted));
            match list {
                Some((_, list)) if value == b"true" => drop(lists.insert(*list)),
                Some(_) => {}
                None if member.is("resourceSubscriptions", wanted) => {
                    watches = self.watches(view, value)?;
                }
                None => {}
            }
        }
        let listening = Listening {
            era: call.client.revision.era(),
            id: Bytes::copy_from_slice(call.message.id().unwrap_or(b"0")),
            changes: sight.changes(),
            sight,
            updates: self.updates.subscribe(),
            closing: self.closing.clone(),
            ready: VecDeque::new(),
            lists,
            watches,
        };
        Ok(listening.events())
    }

    /// Watches those of the resources that can be watched.
    fn watches(self: &Arc<Self>, view: &View, uris: &[u8]) -> Result<Vec<Watch>> {
        let wrong = || Error::Params("`resourceSubscriptions` must be a list of URIs".into());
        if !uris.starts_with(b"[") {
            return Err(wrong());
        }
        let places = json::elements(uris);
        if places.len() > MOST {
            return Err(Error::Params(format!(
                "a subscription may name {MOST} resources, not {}",
                places.len()
            )));
        }
        let mut watches: Vec<Watch> = Vec::new();
        for place in places {
            let shown = json::string(place.of(uris)).ok_or_else(wrong)?;
            if let Some(route) = view.resource(&shown)
                && tells_of_updates(&route.upstream)
                && !watches.iter().any(|watch| watch.shown == shown)
            {
                view.admit(Kind::Resource, &shown, &route, b"{}")?;
                watches.push(self.watch(&route.upstream, &route.target, &shown));
            }
        }
        Ok(watches)
    }
}

/// The members of the filter that concern lists.
const FILTERS: [(&str, List); 3] = [
    ("toolsListChanged", List::Tools),
    ("promptsListChanged", List::Prompts),
    ("resourcesListChanged", List::Resources),
];

/// Does a backend have subscriptions, as far as it is known?
fn tells_of_updates(upstream: &Upstream) -> bool {
    let Some(offer) = upstream.backend.offer() else { return true };
    let resources = json::member(offer.capabilities.as_bytes(), "resources");
    resources.is_some_and(|resources| json::member(resources, "subscribe") == Some(b"true"))
}

impl Listening {
    fn events(mut self) -> Events {
        self.ready.push_back(self.acknowledged());
        let events = stream::unfold(Some(self), |listening| async {
            let mut listening = listening?;
            let event = listening.next().await;
            let last = matches!(event, Event::Answer(_));
            Some((Ok(event), (!last).then_some(listening)))
        });
        events.boxed()
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            tokio::select! {
                () = self.closing.cancelled() => return self.result(),
                change = self.changes.recv() => match change {
                    Ok(change) => self.changed(&change),
                    Err(RecvError::Lagged(_)) => self.everything_changed(),
                    Err(RecvError::Closed) => return self.result(),
                },
                updated = self.updates.recv() => match updated {
                    Ok(updated) => self.updated(&updated),
                    Err(RecvError::Lagged(_)) => self.everything_changed(),
                    Err(RecvError::Closed) => return self.result(),
                },
            }
        }
    }

    fn changed(&mut self, change: &Change) {
        let by_rules = change.rules.as_ref().map(|before| self.sight.unlike(&**before)).unwrap_or_default();
        let methods: BTreeSet<_> = change
            .seen
            .iter()
            .chain(&change.told)
            .chain(&by_rules)
            .map(|list| if matches!(list, List::Templates | List::Skills) { List::Resources } else { *list })
            .filter(|list| self.lists.contains(list))
            .map(List::changed)
            .collect();
        for method in methods {
            let event = self.notification(method, "");
            self.ready.push_back(event);
        }
    }

    fn updated(&mut self, updated: &Updated) {
        let concerned = self.watches.iter().filter(|watch| watch.backend == updated.backend);
        let mut concerned = concerned.filter(|watch| updated.uri.starts_with(&watch.uri));
        let foreign = updated.caller.as_ref().is_some_and(|caller| *caller != self.sight.caller.name());
        if foreign {
            return;
        }
        if let Some(watch) = concerned.next()
            && self.sees(&watch.shown)
        {
            // One below what is watched is known under the backend's own spelling only.
            let uri = if updated.uri == watch.uri { &watch.shown } else { &updated.uri };
            let member = format!("\"uri\":{}", json::quoted(uri));
            let event = self.notification(UPDATED, &member);
            self.ready.push_back(event);
        }
    }

    fn sees(&self, uri: &str) -> bool {
        let admitted = |view: &View| {
            view.resource(uri).is_some_and(|route| view.admit(Kind::Resource, uri, &route, b"{}").is_ok())
        };
        self.sight.view().is_some_and(|view| admitted(&view)) || weaken::is("permit-watch")
    }

    /// Something was missed, and it is not known what.
    fn everything_changed(&mut self) {
        let all = Change { seen: self.lists.clone(), ..Change::default() };
        self.changed(&all);
        let seen = self.watches.iter().filter(|watch| self.sees(&watch.shown));
        let members: Vec<_> = seen.map(|watch| format!("\"uri\":{}", json::quoted(&watch.shown))).collect();
        for member in members {
            let event = self.notification(UPDATED, &member);
            self.ready.push_back(event);
        }
    }

    /// The part of the filter that is honoured.
    fn acknowledged(&self) -> Event {
        let mut members: Vec<_> = FILTERS
            .iter()
            .filter(|(_, list)| self.lists.contains(list))
            .map(|(name, _)| format!("\"{name}\":true"))
            .collect();
        if !self.watches.is_empty() {
            let uris: Vec<_> = self.watches.iter().map(|watch| json::quoted(&watch.shown)).collect();
            members.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
        }
        let member = format!("\"notifications\":{{{}}}", members.join(","));
        self.notification("notifications/subscriptions/acknowledged", &member)
    }

    /// A notification with a member, tagged where the era has tags.
    fn notification(&self, method: &str, member: &str) -> Event {
        let tag = match self.era {
            Era::Modern => {
                format!("\"_meta\":{{\"{}\":{}}}", meta::SUBSCRIPTION_ID, String::from_utf8_lossy(&self.id))
            }
            Era::Legacy => String::new(),
        };
        let comma = if tag.is_empty() || member.is_empty() { "" } else { "," };
        let text =
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{{{member}{comma}{tag}}}}}");
        Event::Notification(text.into())
    }

    /// The subscription is over, in good order.
    fn result(&self) -> Event {
        let id = String::from_utf8_lossy(&self.id);
        let text = format!(
            "{{\"resultType\":\"complete\",\"_meta\":{{\"{}\":{id},\"{}\":{INTRODUCTION}}}}}",
            meta::SUBSCRIPTION_ID,
            meta::SERVER_INFO
        );
        Event::Answer(Answer::Result(text.into()))
    }
}

const UPDATED: &str = "notifications/resources/updated";
