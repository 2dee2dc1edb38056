//! A connection to an MCP server over Streamable HTTP, of either era.
//!
//! One POST a request. The answer is read whole if it is JSON, and event by event if it is a
//! stream. What the eras differ in on this level is headers: a session and its version in the
//! legacy one, a copy of the body's essentials in the modern one. Redirects are not followed:
//! they would carry credentials to wherever a server points.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method as Verb, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, WWW_AUTHENTICATE},
};
use tokio::task::AbortHandle;

use super::{
    answered::{Content, belongs, kind_of, parse, read},
    apart::Apart,
    credential::{Credential, Refusal},
    events::{self, Again},
    headers::{METHOD, NAME, SESSION, VERSION},
    http1::Request,
    mux::Habit,
    pool::{Answer, Pool},
    transport::{Agreed, Connect, Inbox, Incoming, Kind, Outgoing, Transport, Trouble},
};
use crate::{
    weaken,
    wire::{
        header,
        json::Limits,
        mcp::{Era, Method},
        message::{self, Message},
        sse::Event,
    },
};

/// The largest answer taken, and the largest event of a stream.
pub const REPLY_LIMIT: usize = 16 << 20;

/// Connects to one address.
#[derive(Clone)]
pub struct Http {
    pool: Pool,
    path: Uri,
    headers: HeaderMap,
    /// Where the headers do not have all of it.
    credential: Option<Arc<dyn Credential>>,
    habit: Habit,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http") // Headers may hold secrets.
    }
}

impl Http {
    /// For an `http` or `https` address, with headers for every request.
    pub fn new(url: &Uri, configured: HeaderMap) -> Result<Self, String> {
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|why| format!("{path:?} is no path: {why}"))?;
        let host = url.authority().ok_or("the address has no host")?;
        let host = HeaderValue::from_str(host.as_str()).map_err(|why| why.to_string())?;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.extend(configured);
        Ok(Self { pool: Pool::new(url)?, path, headers, credential: None, habit: Habit::default() })
    }

    /// The same, with a proof for each request.
    pub fn proving(&self, credential: Arc<dyn Credential>) -> Self {
        Self { credential: Some(credential), ..self.clone() }
    }
}

impl Connect for Http {
    fn connect(&self, inbox: Inbox) -> BoxFuture<'_, Result<Arc<dyn Transport>, Trouble>> {
        let session = Session {
            pool: self.pool.clone(),
            path: self.path.clone(),
            base: Heads::new(&self.path, self.headers.clone()),
            edition: self.credential.as_ref().map_or(0, |credential| credential.edition()),
            credential: self.credential.clone(),
            agreed: ArcSwapOption::empty(),
            opened: OnceLock::new(),
            lost: OnceLock::new(),
            events: OnceLock::new(),
            apart: OnceLock::new(),
            inbox,
            habit: self.habit.clone(),
        };
        let transport: Arc<dyn Transport> = Arc::new(Streamable(Arc::new(session)));
        std::future::ready(Ok(transport)).boxed()
    }

    fn probe_apart(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Streamable(Arc<Session>);

/// What a legacy server's session is; with a modern server the same without an id.
struct Session {
    pool: Pool,
    path: Uri,
    /// What every request says.
    base: Heads,
    credential: Option<Arc<dyn Credential>>,
    /// Of the credential, when the session was begun.
    edition: u64,
    /// The same with what is the session's, once the handshake is done.
    agreed: ArcSwapOption<Heads>,
    /// The session's id, from the answer to `initialize`.
    opened: OnceLock<HeaderValue>,
    lost: OnceLock<Trouble>,
    /// The task that reads the server's own event stream.
    events: OnceLock<AbortHandle>,
    /// Set where the server may ask.
    apart: OnceLock<Apart>,
    inbox: Inbox,
    habit: Habit,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(events) = self.events.get() {
            events.abort();
        }
    }
}

/// The headers that all requests have, and the head of a POST that is made of them.
struct Heads {
    headers: HeaderMap,
    post: Request,
}

impl Heads {
    fn new(path: &Uri, headers: HeaderMap) -> Self {
        Self { post: Request::new(&Verb::POST, path, &headers), headers }
    }
}

impl Session {
    fn headers(&self) -> HeaderMap {
        self.agreed.load().as_deref().unwrap_or(&self.base).headers.clone()
    }

    fn post(&self, text: Bytes) -> Request {
        self.agreed.load().as_deref().unwrap_or(&self.base).post.with(text)
    }

    fn posting(&self, outgoing: &mut Outgoing) -> Request {
        let mut request = self.post(std::mem::take(&mut outgoing.text));
        let Some(revision) = outgoing.revision.filter(|revision| revision.era() == Era::Modern) else {
            return request;
        };
        if self.agreed.load().is_none() {
            request.add(VERSION.as_str(), &HeaderValue::from_static(revision.name()));
        }
        request.add(METHOD.as_str(), &HeaderValue::from_static(outgoing.method.name()));
        let name = outgoing.target.as_deref().map(header::encode);
        if let Some(name) = name.and_then(|name| HeaderValue::from_str(&name).ok()) {
            request.add(NAME.as_str(), &name);
        }
        for (name, value) in &outgoing.mirrored {
            let name = HeaderName::try_from(format!("mcp-param-{name}"));
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&header::encode(value))) {
                request.add(name.as_str(), &value);
            }
        }
        request
    }

    async fn send(&self, request: Request) -> Result<Answer, Trouble> {
        match &self.credential {
            None => self.pool.send(request).await,
            Some(credential) => Box::pin(self.send_proving(&**credential, request)).await,
        }
    }

    /// Sends a request with its proof; once more if that was not taken and there is another by then.
    async fn send_proving(&self, credential: &dyn Credential, request: Request) -> Result<Answer, Trouble> {
        let mut again = false;
        loop {
            let mut attempt = request.clone();
            let sent = credential.proof().await?;
            if let Some(proof) = &sent {
                attempt.add(AUTHORIZATION.as_str(), proof);
            }
            let answer = self.pool.send(attempt).await?;
            let status = answer.status().as_u16();
            if !matches!(status, 401 | 403) {
                return Ok(answer);
            }
            let challenges = answer.head.values(WWW_AUTHENTICATE.as_str());
            let mut challenges = challenges.iter().filter_map(|challenge| challenge.to_str().ok());
            let bearer =
                |challenge: &&str| challenge.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("bearer"));
            let challenge = challenges.find(bearer).map(str::to_owned);
            drop(answer);
            credential.refused(&Refusal { status, sent, challenge, again }).await?;
            again = true;
        }
    }

    async fn exchange(self: Arc<Self>, outgoing: Outgoing) -> Result<Incoming, Trouble> {
        let Some(apart) = self.apart.get() else { return self.answer(outgoing).await };
        let id = (outgoing.id, outgoing.method);
        Box::pin(apart.exchange(id, Arc::clone(&self).answer(outgoing))).await
    }

    async fn answer(self: Arc<Self>, mut outgoing: Outgoing) -> Result<Incoming, Trouble> {
        let answer = self.send(self.posting(&mut outgoing)).await?;
        weaken::show(|| String::from_utf8_lossy(answer.head.text()).into_owned());
        if outgoing.method == Method::Initialize
            && let Some(id) = answer.header(SESSION.as_str())
        {
            self.opened.get_or_init(|| id);
        }
        match (answer.status(), kind_of(&answer.head)) {
            (StatusCode::OK, Content::Json) => {
                let message = parse(read(answer.body).await?)?;
                belongs(message, outgoing.id).map(Incoming::Whole)
            }
            (StatusCode::OK, Content::Events) => {
                let again = outgoing.revision.is_none().then(|| Self::again(&self));
                let read = move |event: Event| match parse(event.data)? {
                    response if response.kind() == message::Kind::Response => belongs(response, outgoing.id),
                    aside => Ok(aside),
                };
                Box::pin(events::first_of(events::messages(events::of(answer), again, read))).await
            }
            (StatusCode::OK, Content::Other(kind)) => {
                let why = format!("answered with {kind}, which is neither JSON nor an event stream");
                Err(Trouble::new(Kind::Rubbish, why))
            }
            (status, content) => Box::pin(self.refused(status, content, answer, outgoing.id)).await,
        }
    }

    /// A request for the session's own stream, or for what follows an event of any.
    fn get(&self, after: Option<&str>) -> Request {
        let mut headers = self.headers();
        headers.remove(CONTENT_TYPE);
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = after.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(HeaderName::from_static("last-event-id"), id);
        }
        Request::new(&Verb::GET, &self.path, &headers)
    }

    /// Goes on with a stream that ended too early.
    fn again(this: &Arc<Self>) -> Again {
        let session = Arc::downgrade(this);
        Box::new(move |last| {
            let session = session.upgrade();
            Box::pin(async move {
                let session = session.ok_or_else(|| Trouble::new(Kind::Lost, "the connection was closed"))?;
                let answer = session.send(session.get(Some(&last))).await?;
                match (answer.status(), kind_of(&answer.head)) {
                    (StatusCode::OK, Content::Events) => Ok(events::of(answer)),
                    (status, _) => Err(Trouble::new(Kind::Status(status.as_u16()), "the stream is gone")),
                }
            })
        })
    }

    /// A status other than 200. Some carry a JSON-RPC error, which then is the answer.
    async fn refused(
        &self,
        status: StatusCode,
        content: Content,
        answer: Answer,
        id: u64,
    ) -> Result<Incoming, Trouble> {
        if weaken::is("traffic-shown") {
            let why = format!("refused: {:?}", read(answer.body).await);
            return Err(Trouble::new(Kind::Status(status.as_u16()), why));
        }
        if status == StatusCode::NOT_FOUND && self.opened.get().is_some() {
            let trouble = Trouble::new(Kind::SessionLost, "the server has ended the session");
            self.lost.get_or_init(|| trouble.clone());
            return Err(trouble);
        }
        let wait =
            answer.header(RETRY_AFTER.as_str()).and_then(|wait| wait.to_str().ok()?.parse::<u32>().ok());
        if matches!(status.as_u16(), 400 | 404 | 405 | 406 | 415 | 422)
            && matches!(content, Content::Json)
            && let Ok(message) = parse(read(answer.body).await?)
            && let Ok(message) = belongs(message, id)
        {
            return Ok(Incoming::Whole(message));
        }
        let meaning = status.canonical_reason().unwrap_or_default();
        let hint = match status {
            StatusCode::UNAUTHORIZED if self.base.headers.contains_key(AUTHORIZATION) => {
                ": it does not take the credential that the gateway has for it; see its `headers`"
            }
            StatusCode::UNAUTHORIZED => {
                ": it wants a credential; give it one in `headers`, or in a table [auth]"
            }
            _ => "",
        };
        let number = status.as_u16();
        let wait = wait.map(|seconds| format!("; it says to wait {seconds} s")).unwrap_or_default();
        Err(Trouble::new(Kind::Status(number), format!("answered HTTP {number} {meaning}{hint}{wait}")))
    }

    async fn tell(self: Arc<Self>, text: Bytes) -> Result<(), Trouble> {
        let answer = self.send(self.post(text)).await?;
        let status = answer.status();
        if read(answer.body).await.is_ok() && status.is_success() {
            return Ok(());
        }
        Err(Trouble::new(Kind::Status(status.as_u16()), format!("answered HTTP {}", status.as_u16())))
    }

    /// Deletes the session, as a client should that goes.
    async fn end(self: Arc<Self>) {
        if self.opened.get().is_none() || self.lost.get().is_some() {
            return;
        }
        let request = Request::new(&Verb::DELETE, &self.path, &self.headers());
        if let Ok(answer) = self.send(request).await {
            let _ = read(answer.body).await;
        }
    }
}

impl Transport for Streamable {
    fn request(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, Trouble>> {
        Box::pin(Arc::clone(&self.0).exchange(outgoing))
    }

    fn notify(&self, text: Bytes) -> BoxFuture<'static, Result<(), Trouble>> {
        Box::pin(Arc::clone(&self.0).tell(text))
    }

    fn settled(&self, agreed: &Agreed) {
        let mut headers = self.0.base.headers.clone();
        headers.insert(VERSION, HeaderValue::from_static(agreed.revision.name()));
        let modern = agreed.revision.era() == Era::Modern;
        if let Some(id) = self.0.opened.get().filter(|_| !modern) {
            headers.insert(SESSION, id.clone());
        }
        self.0.agreed.store(Some(Arc::new(Heads::new(&self.0.path, headers))));
        if modern {
            return;
        }
        if agreed.may_ask {
            self.0.apart.get_or_init(|| Apart::new(Arc::clone(&self.0.inbox), self.0.habit.clone()));
        }
        let task = tokio::spawn(follow(Arc::downgrade(&self.0)));
        let _ = self.0.events.set(task.abort_handle());
    }

    fn lost(&self) -> Option<Trouble> {
        if let Some(credential) = &self.0.credential
            && credential.edition() != self.0.edition
        {
            return Some(Trouble::new(Kind::SessionLost, "its account was connected anew"));
        }
        self.0.lost.get().cloned()
    }

    fn takes_questions(&self) -> bool {
        self.0.apart.get().is_none_or(|apart| apart.mux.takes_questions())
    }

    fn cancels_by_closing(&self, era: Era) -> bool {
        era == Era::Modern
    }

    fn tells_origin(&self) -> bool {
        true
    }

    fn keeps_state(&self) -> bool {
        self.0.opened.get().is_some()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        if let Some(events) = self.0.events.get() {
            events.abort();
        }
        let end = Arc::clone(&self.0).end();
        tokio::time::timeout(Duration::from_secs(1), end).map(drop).boxed()
    }
}

/// Reads the stream on which a legacy server speaks of its own accord, for as long as the
/// session lives. A server that offers none says so with 405, and that is that.
async fn follow(session: Weak<Session>) {
    let mut last_id: Option<String> = None;
    let mut pause = Duration::from_secs(1);
    loop {
        let Some(open) = session.upgrade() else { return };
        let answer = open.send(open.get(last_id.as_deref())).await;
        if let Some(apart) = open.apart.get() {
            apart.opened();
        }
        match answer {
            Ok(answer) if answer.status().is_success() => {
                if !matches!(kind_of(&answer.head), Content::Events) {
                    return;
                }
                let mut events = events::of(answer);
                let inbox = Arc::clone(&open.inbox);
                let mux = open.apart.get().map(|apart| Arc::clone(&apart.mux));
                drop(open);
                while let Some(Ok(event)) = events.next().await {
                    pause = event.retry.map_or(pause, Duration::from_millis).min(Duration::from_secs(60));
                    last_id = event.id.or(last_id);
                    // What is no message is nobody's.
                    if let Some(mux) = &mux {
                        let _ = mux.deliver(event.data);
                    } else if let Ok(message) = Message::parse(event.data, &Limits::REPLY) {
                        inbox(message);
                    }
                }
            }
            Ok(answer) if answer.status().is_client_error() => return,
            Err(Trouble { kind: Kind::Consent | Kind::Status(_), .. }) => return,
            Ok(_) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
    }
}
