//! Who did what, and what came of it?
//!
//! A line for each call, written when its answer has gone out or its client has. Calls do not wait
//! for it: a line is handed to a writer of its own, and where the disk is too slow for that, the
//! trail itself says how many are missing. What a call was asked with and what it was answered are
//! not noted, but for the arguments of tools that are named in the settings, without what looks
//! like a secret.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};
use tower::{Layer, Service};

mod arguments; // as far as they may be seen
mod entry; //     what is noted of a call
mod writer; //    lines to disk

use crate::{
    call::{Call, Denied, Marks, Reply, Replying, Stage, TurnedAway, Watchman},
    error::{Error, Result},
    settings::Duration,
    store::Store,
    weaken,
};
use entry::{Entry, UnderWay};

/// `[audit]`: who did what, line by line. Where `[identify]` says who calls it is kept in the store,
/// if nothing else is said here.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Is it kept in the store, where `waystation audit` reads it? By default where callers are
    /// identified.
    pub store: Option<bool>,
    /// A file that gets each line as a JSON object, for other programs. Nobody but its owner can
    /// read it. Its folder must be there.
    pub file: Option<PathBuf>,
    /// How long lines stay in the store.
    pub keep: Duration,
    /// How many lines there may be in the store; the oldest go first.
    pub rows: usize,
    /// What else is noted of calls of some tools, by their names here; `*` stands for any letters.
    pub tools: BTreeMap<String, Tool>,
}

impl Default for Settings {
    /// As long as most rules for such trails ask, and some 300 MB at the most.
    fn default() -> Self {
        Self {
            store: None,
            file: None,
            keep: Duration::seconds(30 * 24 * 60 * 60),
            rows: 1_000_000,
            tools: BTreeMap::new(),
        }
    }
}

/// What is noted of calls of a tool beside what is noted of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tool {
    /// Are its arguments noted? Up to 4 KiB of them, and never what looks like a secret, or has the
    /// name of one.
    pub arguments: bool,
}

impl Settings {
    /// What makes no sense: the key, what is wrong, and what would be right.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let Self { store: _, file, keep, rows, tools: _ } = self;
        let mut faults = Vec::new();
        if keep.0.is_zero() {
            faults.push(("keep", "nothing would be kept; write a length of time such as \"30d\"".to_owned()));
        }
        if *rows == 0 {
            faults.push(("rows", "nothing would be kept; write 1000000, which is the default".to_owned()));
        }
        if let Some(file) = file {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            if file.as_os_str().is_empty() || file.is_dir() {
                faults.push(("file", "is no file; write a path such as \"audit.jsonl\"".to_owned()));
            } else if folder.is_some_and(|folder| !folder.is_dir()) {
                faults.push(("file", "is in a folder that is not there; make the folder first".to_owned()));
            }
        }
        faults
    }
}

/// Entries that may wait for the writer.
const WAITING: usize = 8192;

/// Notes what was decided and done.
#[derive(Debug)]
pub struct Trail {
    plan: ArcSwap<Plan>,
    entries: mpsc::Sender<Item>,
    /// Until the writer takes it.
    receiver: Mutex<Option<mpsc::Receiver<Item>>>,
    counts: Counts,
    /// Of the next request.
    number: AtomicU64,
}

/// What is to be noted, and where.
#[derive(Debug, Clone, PartialEq)]
struct Plan {
    store: bool,
    settings: Settings,
}

impl Plan {
    fn new(settings: &Settings, guarded: bool) -> Result<Self, Vec<String>> {
        let faults = settings.faults();
        if faults.is_empty() {
            let usual = guarded != weaken::is("defaults-open");
            return Ok(Self { store: settings.store.unwrap_or(usual), settings: settings.clone() });
        }
        Err(faults.into_iter().map(|(key, why)| format!("{key}: {why}")).collect())
    }

    fn is_on(&self) -> bool {
        self.store || self.settings.file.is_some()
    }
}

#[derive(Debug)]
enum Item {
    Entry(Box<Entry>),
    /// All before it has been written.
    Flush(oneshot::Sender<()>),
}

/// What is counted, and noted once a second as a line for each kind.
#[derive(Debug, Default)]
struct Counts {
    /// Lines that are missing, since the writer could not follow.
    lost: AtomicU64,
    door: AtomicU64,
    no_token: AtomicU64,
    bad_token: AtomicU64,
    no_keys: AtomicU64,
    no_endpoint: AtomicU64,
    no_session: AtomicU64,
}

impl Trail {
    /// `guarded`: callers are identified. Opens nothing.
    pub fn new(settings: &Settings, guarded: bool) -> Result<Arc<Self>, Vec<String>> {
        let plan = ArcSwap::from_pointee(Plan::new(settings, guarded)?);
        let (entries, receiver) = mpsc::channel(WAITING);
        let mut random = [0; 8];
        // Numbers of other runs are hit by chance only.
        let begins = getrandom::fill(&mut random).map_or(0, |()| u64::from_le_bytes(random));
        Ok(Arc::new(Self {
            plan,
            entries,
            receiver: Mutex::new(Some(receiver)),
            counts: Counts::default(),
            number: AtomicU64::new(begins),
        }))
    }

    /// Goes on under other settings, and opens the file anew.
    pub fn replace(&self, settings: &Settings, guarded: bool) -> Result<(), Vec<String>> {
        self.plan.store(Arc::new(Plan::new(settings, guarded)?));
        Ok(())
    }

    /// Is anything noted?
    pub fn is_on(&self) -> bool {
        self.plan.load().is_on()
    }

    /// Begins to write.
    pub fn start(self: &Arc<Self>, store: &Store) -> Option<AbortHandle> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let writer = writer::Writer::new(Arc::downgrade(self), store.clone());
        Some(tokio::spawn(writer.run(receiver)).abort_handle())
    }

    /// Waits until all that was noted has been written.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.entries.send(Item::Flush(done)).await.is_ok() {
            let _ = flushed.await; // The writer has gone, and with it what it could write.
        }
    }

    fn begin(self: &Arc<Self>, call: &mut Call) -> UnderWay {
        let marks = Arc::new(Marks::default());
        call.marks = Some(Arc::clone(&marks));
        let plan = self.plan.load();
        let message = (call.aim.is_none() || !plan.settings.tools.is_empty()).then(|| call.message.clone());
        let entry = Entry {
            number: self.number.fetch_add(1, Ordering::Relaxed),
            at: SystemTime::now(),
            caller: call.caller.clone(),
            scope: call.scope.clone(),
            method: call.method,
            client: call.client.info.clone(),
            aim: call.aim.clone(),
            message,
            marks,
            asked_by: call.asked_by.clone(),
            end: None,
        };
        UnderWay::new(Arc::clone(self), entry, Instant::now(), call.client.revision.era())
    }

    fn note(&self, entry: Box<Entry>) {
        if self.entries.try_send(Item::Entry(entry)).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Watchman for Trail {
    fn turned_away(&self, why: TurnedAway) {
        let counts = &self.counts;
        let count = match why {
            TurnedAway::Door => &counts.door,
            TurnedAway::NotLetIn(Denied::Missing) => &counts.no_token,
            TurnedAway::NotLetIn(Denied::Invalid) => &counts.bad_token,
            TurnedAway::NotLetIn(Denied::Unavailable) => &counts.no_keys,
            TurnedAway::NoEndpoint => &counts.no_endpoint,
            TurnedAway::NoSession => &counts.no_session,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Puts it before a stage.
#[derive(Debug, Clone)]
pub struct AuditLayer(pub Arc<Trail>);

impl<S> Layer<S> for AuditLayer {
    type Service = Audited<S>;

    fn layer(&self, next: S) -> Audited<S> {
        Audited { trail: Arc::clone(&self.0), next }
    }
}

/// A stage whose calls are noted.
#[derive(Debug, Clone)]
pub struct Audited<S> {
    trail: Arc<Trail>,
    next: S,
}

impl<S: Stage> Service<Call> for Audited<S> {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call) -> Replying {
        if !self.trail.is_on() {
            return self.next.call(call);
        }
        let under_way = self.trail.begin(&mut call);
        let reply = self.next.call(call);
        Box::pin(async move { under_way.answered(reply.await) })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        call::{Aim, Answer, Caller, Client, Event, Identity, Scope},
        wire::{
            capability::Capabilities,
            json::Limits,
            mcp::{Era, Method, Revision},
            message::Message,
        },
    };

    fn call(name: &str, arguments: &Value, aimed: bool) -> Call {
        let params = json!({ "name": name, "arguments": arguments });
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let identity = Identity {
            issuer: "https://a.example".into(),
            subject: "ada".into(),
            groups: Vec::new(),
            scopes: Vec::new(),
            claims: serde_json::Map::new(),
        };
        Call {
            aim: aimed.then(|| {
                let (backend, own) = name.split_once("__").unwrap();
                Arc::new(Aim { backend: backend.into(), own: own.into(), hints: Default::default() })
            }),
            ..Call::new(
                Caller::Known(Arc::new(identity)),
                Scope::All,
                Method::ToolsCall,
                Message::parse(text.into(), &Limits::REQUEST).unwrap(),
                Client {
                    revision: Revision::NEWEST,
                    capabilities: Capabilities::NONE,
                    info: Bytes::from_static(b"{\"name\":\"test\",\"version\":\"1\"}"),
                },
            )
        }
    }

    /// A backend's response with this result.
    fn response(result: &Value) -> Answer {
        let text = json!({ "jsonrpc": "2.0", "id": 1, "result": result }).to_string();
        let message = Message::parse(text.into(), &Limits::REPLY).unwrap();
        Answer::Response { message, written_in: Era::Modern, wrapped: false }
    }

    fn to_file(file: &Path) -> Settings {
        Settings { file: Some(file.to_owned()), ..Settings::default() }
    }

    /// The trail's lines after all of this has been noted.
    async fn lines(trail: &Trail, file: &Path) -> Vec<Value> {
        trail.flush().await;
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn answered(
        trail: &Arc<Trail>,
        call: Call,
        reply: impl Fn() -> Result<Reply> + Clone + Send + Sync + 'static,
    ) {
        let next = tower::service_fn(move |call: Call| {
            call.marks.unwrap().from_cache.store(true, Ordering::Relaxed);
            let reply = reply();
            Box::pin(async move { reply }) as Replying
        });
        let reply = AuditLayer(Arc::clone(trail)).layer(next).oneshot(call).await;
        if let Ok(Reply::Stream(events)) = reply {
            events.collect::<Vec<_>>().await;
        }
    }

    #[tokio::test]
    async fn each_end_of_a_call_is_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let trail = Trail::new(&to_file(&file), false).unwrap();
        trail.start(&Store::in_memory().await.unwrap());
        let ask = |name| call(name, &json!({}), true);
        let whole = |answer: Value| move || Ok(Reply::Whole(response(&answer)));
        answered(
            &trail,
            ask("time__now"),
            whole(json!({ "content": [], "_meta": { "usage": { "cost": 1 } } })),
        )
        .await;
        answered(&trail, ask("time__now"), whole(json!({ "isError": true }))).await;
        answered(&trail, ask("time__now"), || Err(Error::backend("time", "away"))).await;
        let unknown = call("nothing", &json!({ "password": "hush" }), false);
        answered(&trail, unknown, || Err(Error::UnknownTool("nothing".into()))).await;
        let streamed = || Ok(Reply::Stream(stream::iter([Ok(Event::Answer(response(&json!({}))))]).boxed()));
        answered(&trail, ask("time__now"), streamed).await;
        let dropped = || Ok(Reply::Stream(stream::iter([Ok(Event::Notification(Bytes::new()))]).boxed()));
        answered(&trail, ask("time__now"), dropped).await;

        let lines = lines(&trail, &file).await;
        let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["ok", "tool-error", "failed", "unknown", "ok", "cancelled"]);
        let mut first = lines[0].clone();
        for changing in ["time", "request", "took_us"] {
            assert!(first.as_object_mut().unwrap().remove(changing).is_some(), "{changing}");
        }
        let expected = json!({
            "who": "ada", "issuer": "https://a.example", "client": "test/1", "endpoint": "/mcp", "method": "tools/call",
            "backend": "time", "target": "now", "outcome": "ok", "cached": true, "usage": { "cost": 1 },
        });
        assert_eq!(first, expected);
        assert_eq!((&lines[2]["code"], &lines[3]["target"]), (&json!(502), &json!("nothing")));
        assert!(lines.iter().all(|line| line.get("arguments").is_none()));
    }

    #[tokio::test]
    async fn settings_are_replaced_while_calls_come_and_the_file_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (file, moved) = (folder.path().join("a"), folder.path().join("b"));
        let trail = Trail::new(&Settings::default(), false).unwrap();
        trail.start(&Store::in_memory().await.unwrap());
        assert!(!trail.is_on());
        let mut settings = to_file(&file);
        trail.replace(&settings, false).unwrap();
        let reply = || Ok(Reply::Whole(response(&json!({}))));
        let next = tower::service_fn(move |_: Call| Box::pin(async move { reply() }) as Replying);
        let stage = AuditLayer(Arc::clone(&trail)).layer(next);
        let ask = async || drop(stage.clone().oneshot(call("pay__now", &json!({ "to": "bob" }), true)).await);
        ask().await;
        assert_eq!(lines(&trail, &file).await.len(), 1);
        fs::rename(&file, &moved).unwrap();
        settings.tools.insert("pay__*".into(), Tool { arguments: true });
        trail.replace(&settings, false).unwrap();
        ask().await;
        assert_eq!(lines(&trail, &file).await[0]["arguments"], json!({ "to": "bob" }));
        assert_eq!(fs::read_to_string(&moved).unwrap().lines().count(), 1);
        settings.rows = 0;
        assert_eq!(trail.replace(&settings, false).unwrap_err().len(), 1);
        trail.replace(&Settings::default(), true).unwrap();
        assert!(trail.is_on(), "it is kept where callers are known");
    }

    #[tokio::test]
    async fn what_the_writer_could_not_follow_is_counted_in_the_trail() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let trail = Trail::new(&to_file(&file), false).unwrap();
        let next = tower::service_fn(|_: Call| Box::pin(async { Err(Error::NoInput) }) as Replying);
        let stage = AuditLayer(Arc::clone(&trail)).layer(next);
        for _ in 0..WAITING + 70 {
            let _ = stage.clone().oneshot(call("time__now", &json!({}), true)).await;
        }
        trail.turned_away(TurnedAway::NotLetIn(Denied::Invalid));
        trail.turned_away(TurnedAway::NotLetIn(Denied::Invalid));
        trail.start(&Store::in_memory().await.unwrap());
        let lines = lines(&trail, &file).await;
        let of =
            |outcome: &str| lines.iter().find(|line| line["outcome"] == outcome).unwrap()["count"].clone();
        assert_eq!((lines.len(), of("lost"), of("denied")), (WAITING + 2, json!(70), json!(2)));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_counted_when_something_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let away = folder.path().join("away");
        fs::create_dir(&away).unwrap();
        let trail = Trail::new(&to_file(&away.join("audit.jsonl")), false).unwrap();
        trail.start(&Store::in_memory().await.unwrap());
        fs::remove_dir(&away).unwrap();
        for _ in 0..3 {
            answered(&trail, call("time__now", &json!({}), true), || Err(Error::NoInput)).await;
        }
        trail.flush().await;
        fs::create_dir(&away).unwrap();
        answered(&trail, call("time__now", &json!({}), true), || Err(Error::NoInput)).await;
        let lines = lines(&trail, &away.join("audit.jsonl")).await;
        assert_eq!((lines.len(), &lines[1]["outcome"], &lines[1]["count"]), (2, &json!("lost"), &json!(3)));
    }
}
