//! The clients of a crowd: each numbers its requests 0, 1, 2, and looks at everything it is sent.
//!
//! Each uses its request ids as progress tokens, so that tokens are as much alike as ids are. A call that is to be
//! aborted is marked as such before its server can possibly hear of it.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use waystation::wire::sse;

use super::{
    between, has,
    http1::{Connection, Head},
    number_after, scatter,
    server::Kind,
};

/// No call takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client of an HTTP+SSE pair has under way at a time.
const AT_ONCE: u64 = 4;

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Modern,
    Legacy(&'static str),
    /// HTTP+SSE, of this revision.
    Pair(&'static str),
}

impl Speaks {
    /// So many of each, in turn.
    pub fn of(client: u64) -> Self {
        match client % 8 {
            0..=2 => Self::Modern,
            3 => Self::Legacy("2025-11-25"),
            4 => Self::Legacy("2025-06-18"),
            5 => Self::Legacy("2025-03-26"),
            6 => Self::Legacy("2024-11-05"),
            _ => Self::Pair("2024-11-05"),
        }
    }
}

/// What all clients do.
#[derive(Debug, Clone)]
pub struct Habits {
    pub clients: u64,
    /// Of each client.
    pub requests: u64,
    /// Of a hundred calls, how many are aborted in the middle.
    pub aborts: u64,
    /// Of a hundred calls, how many are of the tool `look`.
    pub looks: u64,
    /// A call that begins this long after its server was killed must be answered.
    pub grace: Duration,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: AtomicU64,
    pub answers: AtomicU64,
    pub errors: AtomicU64,
    pub progress: AtomicU64,
    pub logs: AtomicU64,
    /// Calls aborted by `notifications/cancelled`.
    pub cancelled: AtomicU64,
    /// Calls aborted by the end of a connection.
    pub dropped: AtomicU64,
    /// Servers that were killed.
    pub kills: AtomicU64,
    /// Answers that crossed with the cancellation of their own call.
    pub crossed: AtomicU64,
    /// Milliseconds that the slowest answer or error took.
    pub slowest: AtomicU64,
    /// Milliseconds after a kill that the latest call was begun that could not be answered because of it.
    pub latest_error: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            (&self.requests, "requests"),
            (&self.answers, "answers"),
            (&self.errors, "errors"),
            (&self.progress, "of progress"),
            (&self.logs, "log messages"),
            (&self.cancelled, "cancelled"),
            (&self.dropped, "dropped"),
            (&self.crossed, "answered all the same"),
            (&self.kills, "kills"),
            (&self.slowest, "ms for the slowest answer"),
            (&self.latest_error, "ms after a kill the latest call began that failed"),
        ];
        let counts = counts.map(|(count, what)| format!("{} {what}", get(count)));
        write!(f, "{}, {} wrong", counts.join(", "), self.all_wrong().len())
    }
}

impl Tally {
    pub fn wrong(&self, what: impl Into<String>) {
        self.wrong.lock().expect("no panic").push(what.into());
    }

    pub fn all_wrong(&self) -> Vec<String> {
        self.wrong.lock().expect("no panic").clone()
    }
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[derive(Debug)]
pub struct Crowd {
    address: SocketAddr,
    habits: Habits,
    pub tally: Tally,
    cancelled: Mutex<HashSet<String>>,
    /// When each server was killed last.
    killed: Mutex<HashMap<&'static str, Instant>>,
    /// The errors that calls ended with, by marker.
    failed: Mutex<HashMap<String, String>>,
    answered: Mutex<Vec<String>>,
    stopped: std::sync::atomic::AtomicBool,
}

/// How a call is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    Cancelled,
    /// Its connection is.
    Dropped,
}

/// A call as it was planned, and what has come of it.
#[derive(Debug)]
struct Call {
    id: u64,
    marker: String,
    backend: Kind,
    end: End,
    wants_progress: bool,
    arguments: String,
    log: bool,
    /// How many steps of progress have come, and log messages.
    steps: u64,
    logs: u64,
    most_logs: u64,
    most_steps: u64,
    begun: Instant,
}

impl Crowd {
    pub fn new(address: SocketAddr, habits: Habits) -> Arc<Self> {
        Arc::new(Self {
            address,
            habits,
            tally: Tally::default(),
            cancelled: Mutex::default(),
            killed: Mutex::default(),
            failed: Mutex::default(),
            answered: Mutex::default(),
            stopped: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// Lets all clients make their calls.
    pub async fn run(self: &Arc<Self>) {
        let clients = (0..self.habits.clients).map(|client| {
            let crowd = Arc::clone(self);
            tokio::spawn(async move {
                let outcome = match Speaks::of(client) {
                    Speaks::Modern => crowd.modern(client).await,
                    Speaks::Legacy(revision) => crowd.legacy(client, revision).await,
                    Speaks::Pair(revision) => crowd.pair(client, revision).await,
                };
                if let Err(why) = outcome {
                    crowd.tally.wrong(format!("client {client} gave up: {why}"));
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("no panic");
        }
    }

    /// No client begins another call.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Says that a server was killed just now.
    pub fn killed(&self, kind: Kind) {
        one(&self.tally.kills);
        self.killed.lock().expect("no panic").insert(kind.name(), Instant::now());
    }

    /// The markers of calls that were cancelled, so that their servers may hear of it.
    pub fn cancelled(&self) -> HashSet<String> {
        self.cancelled.lock().expect("no panic").clone()
    }

    /// The markers of calls that ended with an error, and the error.
    pub fn failed(&self) -> HashMap<String, String> {
        self.failed.lock().expect("no panic").clone()
    }

    pub fn answered(&self) -> Vec<String> {
        self.answered.lock().expect("no panic").clone()
    }

    fn mark_cancelled(&self, call: &Call) {
        self.cancelled.lock().expect("no panic").insert(call.marker.clone());
    }

    /// The next call of a client, if there is one.
    fn next(&self, client: u64, ids: &AtomicU64) -> Option<Call> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let id = ids.fetch_add(1, Ordering::Relaxed);
        if id >= self.habits.requests {
            return None;
        }
        let chance = scatter(client << 32 | id);
        let of_hundred = |shift: u32| (chance >> shift) % 100;
        let aborted = of_hundred(8) < self.habits.aborts;
        let end = match (aborted, of_hundred(16) < 50) {
            (false, _) => End::Answered,
            (true, true) => End::Cancelled,
            (true, false) => End::Dropped,
        };
        let pause = if aborted { 80 } else { [0, 0, 0, 2, 10, 25][of_hundred(24) as usize % 6] };
        let (steps, logs) = (of_hundred(32) % 3, of_hundred(40) % 3);
        let backend = Kind::ALL[(chance >> 48) as usize % Kind::ALL.len()];
        let tool = if of_hundred(4) < self.habits.looks { "look" } else { "work" };
        let marker = format!("{tool}:{client}:{id}:");
        let deaf = u8::from(of_hundred(44) < 50);
        let arguments =
            format!("{{\"marker\":\"{marker}\",\"p\":{steps},\"l\":{logs},\"ms\":{pause},\"deaf\":{deaf}}}");
        one(&self.tally.requests);
        Some(Call {
            id,
            marker,
            backend,
            end,
            wants_progress: steps > 0,
            arguments,
            log: logs > 0,
            steps: 0,
            logs: 0,
            most_logs: logs,
            most_steps: steps,
            begun: Instant::now(),
        })
    }

    /// Takes a message that came to this call. True if the call is over.
    fn hear(&self, call: &mut Call, text: &[u8]) -> bool {
        let wrong = |what: &str| {
            let text = String::from_utf8_lossy(text);
            self.tally.wrong(format!("{what}, to {} of id {}: {text}", call.marker, call.id));
            true
        };
        let own = has(text, &format!("\"{}\"", call.marker));
        match between(text, "\"method\":\"", "\"") {
            // A heartbeat says nothing new of a call that is open.
            Some(b"notifications/progress")
                if number_after(text, "\"progressToken\":") == Some(call.id)
                    && call.wants_progress
                    && between(text, "\"progress\":", ".")
                        .is_some_and(|whole| whole.iter().all(u8::is_ascii_digit)) =>
            {
                false
            }
            Some(b"notifications/progress") => {
                call.steps += 1;
                let step = number_after(text, "\"progress\":");
                if number_after(text, "\"progressToken\":") != Some(call.id) || !own {
                    return wrong("progress of another call");
                }
                if !call.wants_progress || step != Some(call.steps) || call.steps > call.most_steps {
                    return wrong("progress that never was");
                }
                one(&self.tally.progress);
                false
            }
            Some(b"notifications/message") => {
                call.logs += 1;
                if !own || call.logs > call.most_logs {
                    return wrong("a log message of another call");
                }
                one(&self.tally.logs);
                false
            }
            Some(_) => wrong("a message that nobody expects"),
            None if number_after(text, "\"id\":") != Some(call.id) => wrong("an answer to another id"),
            None if has(text, "\"error\":") => {
                self.fail(call, text);
                true
            }
            None if !own || !has(text, "\"result\":") => wrong("an answer to another call"),
            None => {
                one(&self.tally.answers);
                self.took(call);
                if self.habits.aborts == 0 {
                    self.answered.lock().expect("no panic").push(call.marker.clone());
                }
                true
            }
        }
    }

    fn took(&self, call: &Call) {
        self.tally.slowest.fetch_max(call.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// An error is right while a server is down, if it says which one.
    fn fail(&self, call: &Call, text: &[u8]) {
        one(&self.tally.errors);
        self.took(call);
        let message = between(text, "\"message\":\"", "\"}").unwrap_or_default();
        let message = String::from_utf8_lossy(message).into_owned();
        let name = call.backend.name();
        let killed = self.killed.lock().expect("no panic").get(name).copied();
        let since = killed.map(|killed| call.begun.saturating_duration_since(killed));
        let since = since.map_or(u64::MAX, |since| since.as_millis() as u64);
        if number_after(text, "\"code\":") != Some(502) || !message.starts_with(&format!("backend {name}: "))
        {
            self.tally.wrong(format!("an unclear error: {}", String::from_utf8_lossy(text)));
        } else if since > self.habits.grace.as_millis() as u64 {
            self.tally
                .wrong(format!("an error to a call {since} ms after the last kill of {name}: {message}"));
        }
        self.tally.latest_error.fetch_max(since, Ordering::Relaxed);
        self.failed.lock().expect("no panic").insert(call.marker.clone(), message);
    }

    /// Two calls at a time, each on a connection of its own.
    async fn modern(self: &Arc<Self>, client: u64) -> io::Result<()> {
        let ids = AtomicU64::new(0);
        let lane = || async {
            let mut idle = None;
            while let Some(mut call) = self.next(client, &ids) {
                let mut connection = match idle.take() {
                    Some(connection) => connection,
                    None => Connection::open(self.address).await?,
                };
                let head = format!(
                    "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: {}__{}\r\n",
                    call.backend.name(),
                    call.tool()
                );
                connection.send(&post("/mcp", &head, &call.text(true))).await?;
                if call.end != End::Answered {
                    sleep(Duration::from_millis(3 + call.id % 10)).await;
                    self.mark_cancelled(&call);
                    one(&self.tally.dropped);
                    continue;
                }
                self.exchange(&mut connection, &mut call).await?;
                idle = Some(connection);
            }
            Ok(())
        };
        let (first, second) = tokio::join!(lane(), lane());
        first.and(second)
    }

    /// Reads what comes for a call over Streamable HTTP, to the end.
    async fn exchange(&self, connection: &mut Connection, call: &mut Call) -> io::Result<()> {
        let reading = async {
            let mut head = connection.head().await?;
            let over = self.read(connection, &mut head, call).await?;
            if !over && call.end == End::Answered {
                self.tally.wrong(format!("no answer to {}", call.marker));
            } else if over && call.end == End::Cancelled {
                one(&self.tally.crossed);
            }
            Ok::<_, io::Error>(())
        };
        match timeout(PATIENCE, reading).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                self.tally.wrong(format!("no end of {} of {}", call.marker, call.backend.name()));
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        if self.failed.lock().expect("no panic").contains_key(&call.marker) {
            sleep(Duration::from_millis(10)).await; // As clients should.
        }
        Ok(())
    }

    async fn read(&self, connection: &mut Connection, head: &mut Head, call: &mut Call) -> io::Result<bool> {
        if head.status() != 200 {
            self.tally.wrong(format!("{} for {}", head.line(), call.marker));
            return Ok(true);
        }
        let mut over = false;
        let mut take = |text: &[u8]| {
            if over {
                self.tally.wrong(format!("something after the answer to {}", call.marker));
            }
            over |= self.hear(call, text);
        };
        if head.header("content-type") == Some("application/json") {
            take(&connection.body(head).await?);
            return Ok(over);
        }
        let mut decoder = sse::Decoder::new(1 << 20);
        while let Some(piece) = connection.piece(head).await? {
            let events = decoder.push(&piece).expect("short events");
            events.iter().filter(|event| !event.data.is_empty()).for_each(|event| take(&event.data));
        }
        Ok(over)
    }

    /// Two calls at a time on one session; every other client listens to the session's own stream as well.
    async fn legacy(self: &Arc<Self>, client: u64, revision: &'static str) -> io::Result<()> {
        let mut connection = Connection::open(self.address).await?;
        connection.send(&post("/mcp", "", &initialize(revision))).await?;
        let mut head = connection.head().await?;
        connection.body(&mut head).await?;
        let Some(id) = head.header("mcp-session-id") else { return Err(io::Error::other("no session")) };
        let mut headers = format!("mcp-session-id: {id}\r\n");
        if revision >= "2025-06-18" {
            headers += &format!("mcp-protocol-version: {revision}\r\n");
        }
        Words::open(self.address).await?.tell("/mcp", &headers, INITIALIZED).await?;
        if client.is_multiple_of(2) {
            let level = "{\"jsonrpc\":\"2.0\",\"id\":\"level\",\"method\":\"logging/setLevel\",\"params\":{\"level\":\"info\"}}";
            connection.send(&post("/mcp", &headers, level)).await?;
            let mut head = connection.head().await?;
            connection.body(&mut head).await?;
        }
        let listening =
            client.is_multiple_of(2).then(|| tokio::spawn(Arc::clone(self).listen(headers.clone())));
        let ids = AtomicU64::new(0);
        let lanes = tokio::join!(self.lane(client, &ids, &headers), self.lane(client, &ids, &headers));
        if let Some(listening) = listening {
            listening.abort();
        }
        lanes.0.and(lanes.1)
    }

    async fn lane(&self, client: u64, ids: &AtomicU64, headers: &str) -> io::Result<()> {
        let mut idle = None;
        let mut words = Words::open(self.address).await?;
        while let Some(mut call) = self.next(client, ids) {
            let mut connection = match idle.take() {
                Some(connection) => connection,
                None => Connection::open(self.address).await?,
            };
            connection.send(&post("/mcp", headers, &call.text(false))).await?;
            match call.end {
                End::Answered => {}
                End::Dropped => {
                    // Which in this era cancels nothing.
                    sleep(Duration::from_millis(3 + call.id % 10)).await;
                    one(&self.tally.dropped);
                    continue;
                }
                End::Cancelled => {
                    sleep(Duration::from_millis(3 + call.id % 10)).await;
                    self.mark_cancelled(&call);
                    one(&self.tally.cancelled);
                    words.tell("/mcp", headers, &cancel(call.id)).await?;
                }
            }
            self.exchange(&mut connection, &mut call).await?;
            idle = Some(connection);
        }
        Ok(())
    }

    /// The session's own stream, on which nothing is to come that belongs to a call.
    async fn listen(self: Arc<Self>, headers: String) {
        let listening = async {
            let mut connection = Connection::open(self.address).await?;
            let get =
                format!("GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{headers}\r\n");
            connection.send(get.as_bytes()).await?;
            let mut head = connection.head().await?;
            let mut decoder = sse::Decoder::new(1 << 20);
            while let Some(piece) = connection.piece(&mut head).await? {
                for event in decoder.push(&piece).expect("short events") {
                    if !event.data.is_empty() && !has(&event.data, "/list_changed\"") {
                        let text = String::from_utf8_lossy(&event.data);
                        self.tally.wrong(format!("on a session's own stream: {text}"));
                    }
                }
            }
            Ok::<_, io::Error>(())
        };
        if let Err(why) = listening.await {
            self.tally.wrong(format!("a session's own stream: {why}"));
        }
    }

    /// Some calls at a time, all answered on one stream.
    async fn pair(self: &Arc<Self>, client: u64, revision: &'static str) -> io::Result<()> {
        let ids = AtomicU64::new(0);
        let mut pair = Pair::open(self.address, revision).await?;
        loop {
            let mut open = HashMap::new();
            let calls: Vec<_> = (0..AT_ONCE).map_while(|_| self.next(client, &ids)).collect();
            if calls.is_empty() {
                return Ok(());
            }
            for call in calls {
                pair.words.tell(&pair.endpoint, "", &call.text(false)).await?;
                open.insert(call.id, call);
            }
            if open.values().any(|call| call.end != End::Answered) {
                sleep(Duration::from_millis(3 + client % 10)).await;
            }
            if open.values().all(|call| call.end != End::Answered) {
                // The end of the stream is the end of all its calls.
                for call in open.values() {
                    self.mark_cancelled(call);
                    one(&self.tally.dropped);
                }
                pair = Pair::open(self.address, revision).await?;
                continue;
            }
            let aborted: Vec<_> = open.extract_if(|_, call| call.end != End::Answered).collect();
            for (id, mut call) in aborted {
                call.end = End::Cancelled;
                self.mark_cancelled(&call);
                one(&self.tally.cancelled);
                pair.words.tell(&pair.endpoint, "", &cancel(id)).await?;
                pair.gone.insert(id, call);
            }
            let reading = async {
                while !open.is_empty() {
                    let text = pair.stream.next().await?;
                    self.sort(&mut pair.gone, &mut open, &text);
                }
                Ok::<_, io::Error>(())
            };
            if timeout(PATIENCE, reading).await.is_err() {
                open.values().for_each(|call| self.tally.wrong(format!("no end of {}", call.marker)));
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    /// A message of a pair's stream: whose is it?
    fn sort(&self, gone: &mut HashMap<u64, Call>, open: &mut HashMap<u64, Call>, text: &[u8]) {
        if has(text, "/list_changed\"") {
            return;
        }
        let id = match between(text, "\"method\":\"", "\"") {
            Some(b"notifications/progress") => number_after(text, "\"progressToken\":"),
            // It says only by its marker whose it is, and the marker says which client and which id.
            Some(_) => marked(text),
            None => number_after(text, "\"id\":"),
        };
        let id = id.unwrap_or(u64::MAX);
        if let Some(call) = open.get_mut(&id) {
            if self.hear(call, text) {
                open.remove(&id);
            }
        } else if let Some(call) = gone.get_mut(&id) {
            if self.hear(call, text) {
                one(&self.tally.crossed);
                gone.remove(&id);
            }
        } else {
            let text = String::from_utf8_lossy(text);
            self.tally.wrong(format!("on a stream that has no such call: {text}"));
        }
    }
}

/// The id in a marker.
fn marked(text: &[u8]) -> Option<u64> {
    let data = between(text, "\"data\":\"", "\"")?;
    std::str::from_utf8(data).ok()?.split(':').nth(2)?.parse().ok()
}

impl Call {
    fn tool(&self) -> &str {
        &self.marker[..4]
    }

    /// The request.
    fn text(&self, modern: bool) -> String {
        let mut meta = Vec::new();
        if modern {
            meta.push(ENVELOPE.to_owned());
            if self.log {
                meta.push("\"io.modelcontextprotocol/logLevel\":\"info\"".to_owned());
            }
        }
        if self.wants_progress {
            meta.push(format!("\"progressToken\":{}", self.id));
        }
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"tools/call\",\"params\":{{\"name\":\"{}__{}\",\"arguments\":{},\"_meta\":{{{}}}}}}}",
            self.id,
            self.backend.name(),
            self.tool(),
            self.arguments,
            meta.join(",")
        )
    }
}

const ENVELOPE: &str = "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
    \"io.modelcontextprotocol/clientCapabilities\":{},\
    \"io.modelcontextprotocol/clientInfo\":{\"name\":\"crowd\",\"version\":\"1\"}";
const INITIALIZED: &str = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}";

fn initialize(revision: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":\"hello\",\"method\":\"initialize\",\"params\":{{\"protocolVersion\":\"{revision}\",\"capabilities\":{{}},\"clientInfo\":{{\"name\":\"crowd\",\"version\":\"1\"}}}}}}"
    )
}

fn cancel(id: u64) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{id}}}}}"
    )
}

fn post(path: &str, headers: &str, text: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n{headers}content-length: {}\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

/// A connection for what is accepted, and answered elsewhere or not at all.
struct Words {
    address: SocketAddr,
    connection: Connection,
    used: Instant,
}

impl Words {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { address, connection: Connection::open(address).await?, used: Instant::now() })
    }

    async fn tell(&mut self, path: &str, headers: &str, text: &str) -> io::Result<()> {
        // The gateway closes connections that are idle for long.
        if self.used.elapsed() > Duration::from_secs(2) {
            self.connection = Connection::open(self.address).await?;
        }
        self.connection.send(&post(path, headers, text)).await?;
        let mut head = self.connection.head().await?;
        self.connection.body(&mut head).await?;
        self.used = Instant::now();
        match head.status() {
            202 => Ok(()),
            _ => Err(io::Error::other(format!("{} to {text}", head.line()))),
        }
    }
}

/// A client's session over HTTP+SSE.
struct Pair {
    stream: Stream,
    words: Words,
    endpoint: String,
    /// Calls that were cancelled; an answer that crossed with that may still come.
    gone: HashMap<u64, Call>,
}

/// The stream on which everything comes.
struct Stream {
    connection: Connection,
    head: Head,
    decoder: sse::Decoder,
    waiting: std::collections::VecDeque<Bytes>,
}

impl Stream {
    async fn next(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(text) = self.waiting.pop_front() {
                return Ok(text);
            }
            let piece = self.connection.piece(&mut self.head).await?;
            let piece = piece.ok_or_else(|| io::Error::other("the stream has ended"))?;
            let events = self.decoder.push(&piece).expect("short events");
            self.waiting.extend(events.into_iter().map(|event| event.data).filter(|data| !data.is_empty()));
        }
    }
}

impl Pair {
    async fn open(address: SocketAddr, revision: &str) -> io::Result<Self> {
        let mut connection = Connection::open(address).await?;
        connection.send(b"GET /sse HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n").await?;
        let head = connection.head().await?;
        let waiting = std::collections::VecDeque::new();
        let mut stream = Stream { connection, head, decoder: sse::Decoder::new(1 << 20), waiting };
        let endpoint = String::from_utf8_lossy(&stream.next().await?).into_owned();
        let mut words = Words::open(address).await?;
        words.tell(&endpoint, "", &initialize(revision)).await?;
        let hello = stream.next().await?;
        if !has(&hello, "\"protocolVersion\"") {
            return Err(io::Error::other("no greeting"));
        }
        words.tell(&endpoint, "", INITIALIZED).await?;
        Ok(Self { stream, words, endpoint, gone: HashMap::new() })
    }
}
