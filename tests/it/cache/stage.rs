//! The cache before a stage that does as a test tells it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tower::{Layer as _, Service};
use waystation::{
    call::{Aim, Answer, Call, Caller, Client, Event, Hints, Identity, Progress, Reply, Replying, Scope},
    config::{Config, Environment},
    error::{Error, Result},
    middleware::cache::{CacheLayer, Cached, Replies, Settings},
    wire::{
        capability::Capabilities,
        json::Limits,
        mcp::{Era, Method, Revision},
        message::Message,
    },
};

/// What the stage behind the cache answers, as the result of a response.
type Says = dyn Fn(&Call) -> Result<Value> + Send + Sync;

/// The stage behind the cache.
#[derive(Clone)]
pub struct Inner(Arc<Shared>);

struct Shared {
    says: Mutex<Arc<Says>>,
    calls: AtomicUsize,
    running: AtomicUsize,
    /// Calls wait here while it is closed.
    gate: Semaphore,
}

impl Inner {
    pub fn new(says: impl Fn(&Call) -> Result<Value> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            says: Mutex::new(Arc::new(says)),
            calls: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }))
    }

    pub fn says(&self, says: impl Fn(&Call) -> Result<Value> + Send + Sync + 'static) {
        *self.0.says.lock().unwrap() = Arc::new(says);
    }

    /// How many calls have come so far, since the last time this was asked.
    pub fn calls(&self) -> usize {
        self.0.calls.swap(0, SeqCst)
    }

    pub fn running(&self) -> usize {
        self.0.running.load(SeqCst)
    }

    pub fn hold(&self) {
        self.0.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn let_go(&self) {
        self.0.gate.add_permits(Semaphore::MAX_PERMITS);
    }
}

struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Service<Call> for Inner {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Replying {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            shared.calls.fetch_add(1, SeqCst);
            shared.running.fetch_add(1, SeqCst);
            let running = Running(Arc::clone(&shared));
            let says = Arc::clone(&shared.says.lock().unwrap());
            let said = says(&call);
            drop(shared.gate.acquire().await.unwrap());
            drop(running);
            said.map(|said| Reply::Whole(answer(said)))
        })
    }
}

/// A result, an error (`error`), or a question (`resultType`), as a backend of the modern era says it.
fn answer(said: Value) -> Answer {
    let member = if said.get("code").is_some() { "error" } else { "result" };
    let text = json!({ "jsonrpc": "2.0", "id": 0, member: said }).to_string();
    let message = Message::parse(text.into(), &Limits::REPLY).unwrap();
    match said["resultType"] == "input_required" {
        true => Answer::Asks(message),
        false => Answer::Response { message, written_in: Era::Modern, wrapped: false },
    }
}

/// The cache before that stage.
pub struct Before {
    pub replies: Arc<Replies>,
    pub inner: Inner,
    stage: Cached<Inner>,
}

/// What `[cache]` says, beside a backend `docs` and one `notes`.
pub fn settings(toml: &str) -> Settings {
    let backends = "[backends.docs]\nurl = \"http://127.0.0.1:1/mcp\"\n[backends.notes]\nurl = \"http://127.0.0.1:1/mcp\"\n";
    let parsed = Config::parse("routes.toml", &format!("{toml}\n{backends}"), &Environment::default());
    parsed.unwrap_or_else(|why| panic!("{why}")).0.cache
}

impl Before {
    pub fn new(toml: &str, says: impl Fn(&Call) -> Result<Value> + Send + Sync + 'static) -> Self {
        let (replies, inner) = (Replies::new(&settings(toml)), Inner::new(says));
        let stage = CacheLayer(Arc::clone(&replies)).layer(inner.clone());
        Self { replies, inner, stage }
    }

    pub fn ask(&self, call: Call) -> impl Future<Output = Result<Value>> + Send + use<> {
        let reply = self.stage.clone().call(call);
        async move { last(reply.await?).await }
    }

    pub fn spawn(&self, call: Call) -> tokio::task::JoinHandle<Result<Value>> {
        tokio::spawn(self.ask(call))
    }
}

/// The response of a reply, as JSON: a result, or `{"error": …}`.
async fn last(reply: Reply) -> Result<Value> {
    let answer = match reply {
        Reply::Whole(answer) => answer,
        Reply::Stream(mut events) => loop {
            match events.next().await.expect("a last event")? {
                Event::Answer(answer) => break answer,
                Event::Notification(_) | Event::Task(_) | Event::Alive => {}
            }
        },
    };
    let message = match answer {
        Answer::Response { message, .. } | Answer::Asks(message) => message,
        Answer::Result(text) => return Ok(serde_json::from_slice(&text).unwrap()),
    };
    let message: Value = serde_json::from_slice(message.text()).unwrap();
    Ok(if message["error"].is_null() { message["result"].clone() } else { message })
}

/// What a hit says of itself; null if it is none.
pub fn hit(result: &Value) -> &Value {
    &result["_meta"]["io.waystation/cache"]
}

pub fn is_hit(result: &Result<Value>) -> bool {
    result.as_ref().is_ok_and(|result| hit(result)["hit"] == true)
}

/// Somebody with a token that says this.
pub fn known(issuer: &str, subject: &str, scopes: &[&str], claims: Value) -> Caller {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let claims: Map<_, _> = claims.as_object().unwrap().clone();
    let groups = claims.get("groups").and_then(Value::as_array).into_iter().flatten();
    let groups = groups.filter_map(|group| Some(group.as_str()?.to_owned())).collect();
    let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
    Caller::Known(Arc::new(Identity { issuer, subject, groups, scopes: texts(scopes), claims }))
}

pub fn somebody(subject: &str) -> Caller {
    known("https://a.example", subject, &[], json!({}))
}

/// A call of a method of the backend `docs`.
pub fn call(caller: &Caller, method: Method, own: &str, params: Value) -> Call {
    call_of("docs", caller, method, own, params)
}

pub fn call_of(backend: &str, caller: &Caller, method: Method, own: &str, mut params: Value) -> Call {
    if let Some(member) = method.target() {
        params[member] = own.into();
    }
    let text = json!({ "jsonrpc": "2.0", "id": 1, "method": method.name(), "params": params }).to_string();
    let hints = Hints { read_only: true, ..Hints::default() };
    Call {
        aim: Some(Arc::new(Aim { backend: backend.into(), own: own.into(), hints })),
        ..Call::new(
            caller.clone(),
            Scope::All,
            method,
            Message::parse(text.into(), &Limits::REQUEST).unwrap(),
            Client {
                revision: Revision::NEWEST,
                capabilities: Capabilities::NONE,
                info: Bytes::from_static(b"{}"),
            },
        )
    }
}

/// A call of the tool `search`.
pub fn search(caller: &Caller, what: &str) -> Call {
    call(caller, Method::ToolsCall, "search", json!({ "arguments": { "q": what } }))
}

pub fn read(caller: &Caller, uri: &str) -> Call {
    call(caller, Method::ResourcesRead, uri, json!({}))
}

pub fn with_progress(call: Call, token: usize) -> Call {
    Call { progress: Some(Progress::new(token.to_string().into())), ..call }
}

pub fn older(call: Call) -> Call {
    let client = Client { revision: Revision::V2025_11_25, ..call.client };
    Call { client, ..call }
}
