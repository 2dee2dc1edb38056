//! What does a server tell of its own accord, and what must it be asked to tell?
//!
//! Servers of the legacy era tell of lists unasked, and of a resource after `resources/subscribe`.
//! Servers of the modern era tell what a `subscriptions/listen` names, for as long as it is open;
//! to name something else, another is opened before the first is closed. What changed while
//! there was no connection is not known, so everything is taken to have changed.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use super::{Link, Server};
use crate::{
    backend::{
        Notice, Notices,
        cancel::Guard,
        handshake,
        transport::{Inbox, Incoming, Transport, Trouble},
    },
    error::Error,
    wire::{
        json,
        mcp::{Era, List, Method},
        message::{self, Message},
    },
};

/// The pause after a subscription ended; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Replies to a server's own questions that may be under way at once.
const MOST_REPLIES: usize = 64;

type Wanted = watch::Receiver<BTreeSet<String>>;

impl Server {
    /// What kept it from being connected may be over.
    pub async fn wake(&self) {
        self.making.lock().await.pause = None;
        (self.notices)(Notice::Connected);
    }

    /// What is done with messages that belong to no call: changes are passed on, questions
    /// are answered on the transport that is put into the cell.
    pub(super) fn inbox(&self) -> (Inbox, Arc<OnceLock<Weak<dyn Transport>>>) {
        let cell: Arc<OnceLock<Weak<dyn Transport>>> = Arc::default();
        let (notices, answers) = (Arc::clone(&self.notices), Arc::clone(&cell));
        let visits = Arc::clone(&self.visits);
        let replies = Arc::new(Semaphore::new(MOST_REPLIES));
        let inbox: Inbox = Arc::new(move |message: Message| match message.kind() {
            message::Kind::Request => {
                // Of a server that asks and does not read the answers, some are left alone.
                if let Some(transport) = answers.get().and_then(Weak::upgrade)
                    && let Ok(permit) = Arc::clone(&replies).try_acquire_owned()
                {
                    let reply = transport.notify(reply_to(&message));
                    tokio::spawn(async move {
                        let _ = reply.await; // It may have gone.
                        drop(permit);
                    });
                }
            }
            message::Kind::Notification => match visits.over(&message) {
                Some((session, text)) => session.tell(text),
                None => heard(&message, &notices),
            },
            message::Kind::Response => {}
        });
        (inbox, cell)
    }
}

/// The reply to a question from a server. A ping is answered; all else was not offered.
pub fn reply_to(request: &Message) -> Bytes {
    let id = request.id().unwrap_or(b"0");
    if request.method().as_deref() == Some("ping") {
        return [b"{\"jsonrpc\":\"2.0\",\"id\":", id, b",\"result\":{}}"].concat().into();
    }
    let method = request.method().unwrap_or_default().into_owned();
    Error::UnknownMethod(method).response(Some(id), Era::Legacy).into()
}

/// A message that belongs to no call, as a notice.
pub fn heard(message: &Message, notices: &Notices) {
    let method = message.method().unwrap_or_default();
    if method == "notifications/resources/updated" {
        let uri = message.in_params("uri").and_then(json::string);
        uri.into_iter().for_each(|uri| notices(Notice::Updated(uri.into_owned())));
    }
    List::ALL
        .into_iter()
        .filter(|list| list.changed() == method)
        .for_each(|list| notices(Notice::Changed(list)));
}

/// Keeps a connection told of what is wanted, until it is gone.
pub struct Watching {
    pub link: Weak<Link>,
    pub ids: Arc<AtomicU64>,
    pub notices: Notices,
    pub wanted: Wanted,
    /// There was a connection before this one.
    pub again: bool,
}

impl Watching {
    pub async fn run(mut self) {
        if self.again {
            self.all_updated();
        }
        let Some(link) = self.link.upgrade() else { return };
        let era = link.offer.era;
        drop(link);
        match era {
            Era::Legacy => self.subscribe().await,
            Era::Modern => self.listen().await,
        }
    }

    fn all_updated(&self) {
        for uri in &*self.wanted.borrow() {
            (self.notices)(Notice::Updated(uri.clone()));
        }
    }

    fn id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn transport(&self) -> Option<Arc<dyn Transport>> {
        let link = self.link.upgrade()?;
        link.transport.lost().is_none().then(|| Arc::clone(&link.transport))
    }

    async fn subscribe(&mut self) {
        let mut told = BTreeSet::new();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let gone = told.difference(&wanted).map(|uri| (Method::Unsubscribe, uri));
            let new = wanted.difference(&told).map(|uri| (Method::Subscribe, uri));
            for (method, uri) in gone.chain(new) {
                let Some(transport) = self.transport() else { return };
                let params = json!({ "uri": uri }).to_string();
                if let Err(trouble) = handshake::ask(&*transport, self.id(), method, &params, None).await {
                    tracing::debug!(%trouble, method = method.name(), "a subscription was not taken");
                }
            }
            told = wanted;
            if self.wanted.changed().await.is_err() {
                return;
            }
        }
    }

    async fn listen(&mut self) {
        let mut pause = FIRST_PAUSE;
        let mut open: Option<Listening> = None;
        loop {
            if open.is_none() {
                open = match self.open().await {
                    Ok(Some(listening)) => Some(listening),
                    // The server has no subscriptions, or the connection is gone.
                    Ok(None) => return,
                    Err(trouble) => {
                        tracing::debug!(%trouble, "no subscription");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                };
            }
            let Some(listening) = &mut open else { continue };
            tokio::select! {
                message = listening.messages.next() => match message {
                    Some(Ok(message)) if message.kind() == message::Kind::Notification => {
                        pause = FIRST_PAUSE;
                        heard(&message, &self.notices);
                    }
                    Some(Ok(_) | Err(_)) | None => {
                        open = None;
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        (self.notices)(Notice::Connected);
                        self.all_updated();
                    }
                },
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // The new one is there before the old one goes.
                    if let Ok(Some(new)) = self.open().await {
                        open = Some(new);
                    }
                }
            }
        }
    }

    /// Opens a subscription to what is wanted; none if the server has no such thing.
    async fn open(&mut self) -> Result<Option<Listening>, Trouble> {
        let Some(transport) = self.transport() else { return Ok(None) };
        let uris = self.wanted.borrow_and_update().clone();
        let mut filter = json!({
            "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true,
        });
        if !uris.is_empty() {
            filter["resourceSubscriptions"] = json!(uris);
        }
        let Some(revision) = self.link.upgrade().map(|link| link.offer.revision) else { return Ok(None) };
        let id = self.id();
        let params = json!({ "notifications": filter }).to_string();
        let outgoing = handshake::request(id, Method::Listen, &params, Some(revision));
        let guard = Guard::new(Arc::clone(&transport), id, Era::Modern);
        match transport.request(outgoing).await? {
            // An answer without an acknowledgement is a refusal.
            Incoming::Whole(_) => Ok(None),
            Incoming::Stream(messages) => Ok(Some(Listening { messages, _guard: guard })),
        }
    }
}

/// An open subscription. Its end is the server's to know.
struct Listening {
    messages: BoxStream<'static, Result<Message, Trouble>>,
    _guard: Guard,
}
