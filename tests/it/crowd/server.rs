//! The servers that a crowd shares: one of each kind, in this process or in one that can be killed.
//!
//! They have two tools, `work` and `look`; the latter says that it changes nothing. A call's arguments say what
//! is to happen: its `marker`, so many progress notifications (`p`) and log messages (`l`), half of them
//! before a pause of so many milliseconds (`ms`) and half after it; and whether a cancellation is ignored (`deaf`).
//!
//! Each keeps a journal, a file that outlives it: `start PID`, `session`, `ran MARKER` before anything is said
//! about a call, `cancelled MARKER` when it hears that nobody waits for it any more.

use std::{
    collections::HashMap,
    env,
    fs::File,
    io::{BufRead as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    between, has,
    http1::{Connection, Head, chunk},
    number_after,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ChildOld,
    ChildNew,
    HttpOld,
    HttpNew,
    Pair,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::ChildOld, Kind::ChildNew, Kind::HttpOld, Kind::HttpNew, Kind::Pair];

    /// What the backend is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::ChildOld => "child-old",
            Kind::ChildNew => "child-new",
            Kind::HttpOld => "http-old",
            Kind::HttpNew => "http-new",
            Kind::Pair => "pair",
        }
    }

    fn is_modern(self) -> bool {
        matches!(self, Kind::ChildNew | Kind::HttpNew)
    }

    pub fn is_child(self) -> bool {
        matches!(self, Kind::ChildOld | Kind::ChildNew)
    }

    pub fn url(self, address: SocketAddr) -> String {
        format!("http://{address}/{}", if self == Kind::Pair { "sse" } else { "mcp" })
    }

    /// Its table in `routes.toml`.
    pub fn table(self, address: SocketAddr, journal: &Path) -> String {
        let name = self.name();
        if !self.is_child() {
            return format!("[backends.{name}]\nurl = \"{}\"\n", self.url(address));
        }
        let program = env::current_exe().expect("this program");
        let env: Vec<_> = variables(self, address, journal)
            .into_iter()
            .map(|(name, value)| format!("{name} = {value:?}"))
            .collect();
        format!("[backends.{name}]\ncommand = {program:?}\nargs = {ROLE:?}\nenv = {{ {} }}\n", env.join(", "))
    }
}

// A server as a process of its own: this very program, told by its environment what it is.

const KIND: &str = "CROWD_SERVER";
const ADDRESS: &str = "CROWD_ADDRESS";
const JOURNAL: &str = "CROWD_JOURNAL";
const ROLE: [&str; 4] =
    ["--exact", "crowd::server::a_server_where_the_environment_says_so", "--nocapture", "--quiet"];

fn variables(kind: Kind, address: SocketAddr, journal: &Path) -> [(&'static str, String); 3] {
    [(KIND, kind.name().to_owned()), (ADDRESS, address.to_string()), (JOURNAL, journal.display().to_string())]
}

/// No test: this is where a process that is to be a server begins.
#[test]
fn a_server_where_the_environment_says_so() {
    let Ok(name) = env::var(KIND) else { return };
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).expect("a kind of server");
    let brain = Brain::new(kind, Path::new(&env::var(JOURNAL).expect("a journal")));
    brain.note(&format!("start {}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let address = env::var(ADDRESS).ok().and_then(|text| text.parse().ok()).expect("an address");
    runtime.block_on(async {
        if kind.is_child() {
            brain.on_pipes().await;
        } else {
            Arc::new(brain).accept(listen(address)).await;
        }
    });
    std::process::exit(0);
}

/// A server over HTTP in a process of its own, until this is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    pub fn start(kind: Kind, address: SocketAddr, journal: &Path) -> Self {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(ROLE).envs(variables(kind, address, journal)).stdout(Stdio::null());
        Self(command.spawn().expect("this program starts"))
    }
}

impl Drop for Process {
    /// As `kill -9` does.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server over HTTP in this process. Dropped, it is gone with all its connections.
#[derive(Debug)]
pub struct Local {
    address: SocketAddr,
    kind: Kind,
    journal: PathBuf,
    accepting: JoinHandle<()>,
    end: DropGuard,
}

impl Local {
    pub fn start(kind: Kind, address: SocketAddr, journal: &Path) -> Self {
        let listener = listen(address);
        let address = listener.local_addr().expect("a bound socket has an address");
        let brain = Arc::new(Brain::new(kind, journal));
        let end = brain.end.clone().drop_guard();
        let accepting = tokio::spawn(async move {
            brain.end.clone().run_until_cancelled(brain.accept(listener)).await;
        });
        Self { address, kind, journal: journal.to_owned(), accepting, end }
    }

    /// Another one after it, at the same address, which knows nothing of it.
    pub async fn killed_for(self, pause: Duration) -> Self {
        let Self { address, kind, journal, accepting, end } = self;
        drop(end);
        accepting.await.expect("no panic");
        tokio::time::sleep(pause).await;
        Self::start(kind, address, &journal)
    }
}

/// A port that is free just now.
pub async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket");
    socket.bind(address).expect("nobody else has the port");
    socket.listen(1024).expect("a bound socket")
}

/// What a server knows between its messages.
#[derive(Debug)]
struct Brain {
    kind: Kind,
    journal: File,
    /// By the id they have here; those that are done stay, so that a late cancellation is known.
    calls: Mutex<HashMap<u64, (String, CancellationToken)>>,
    /// Where messages go on the stream of an HTTP+SSE pair; nowhere for other sessions.
    sessions: Mutex<HashMap<String, Option<UnboundedSender<Bytes>>>>,
    end: CancellationToken,
}

/// What a message leads to.
enum Reaction {
    Nothing,
    Answer(Bytes),
    Work(Work),
}

/// A call of a tool.
struct Work {
    before: Vec<Bytes>,
    pause: Duration,
    after: Vec<Bytes>,
    answer: Bytes,
    marker: String,
    /// Cancelled when the call is; never, where it is deaf.
    stop: CancellationToken,
}

impl Work {
    /// False if it was cancelled.
    async fn rest(&self) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(self.pause) => true,
        }
    }
}

impl Brain {
    fn new(kind: Kind, journal: &Path) -> Self {
        let journal = File::options().append(true).create(true).open(journal).expect("a journal");
        Self {
            kind,
            journal,
            calls: Mutex::default(),
            sessions: Mutex::default(),
            end: CancellationToken::new(),
        }
    }

    /// One write to a file opened for appending: lines of several processes stay whole.
    fn note(&self, line: &str) {
        (&self.journal).write_all(format!("{line}\n").as_bytes()).expect("a journal");
    }

    fn react(&self, text: &[u8]) -> Reaction {
        let method = between(text, "\"method\":\"", "\"").unwrap_or_default();
        let Some(id) = number_after(text, "\"id\":") else {
            if method == b"notifications/cancelled" {
                number_after(text, "\"requestId\":").into_iter().for_each(|id| self.cancel(id));
            }
            return Reaction::Nothing;
        };
        let modern = self.kind.is_modern();
        let capabilities = "\"capabilities\":{\"tools\":{},\"logging\":{}}";
        let result = match method {
            b"tools/call" => return Reaction::Work(self.begin(id, text)),
            b"initialize" if !modern => format!(
                "\"protocolVersion\":\"2025-11-25\",{capabilities},\"serverInfo\":{{\"name\":\"crowd\",\"version\":\"1\"}}"
            ),
            b"server/discover" if modern => format!("\"supportedVersions\":[\"2026-07-28\"],{capabilities}"),
            b"tools/list" => format!("\"tools\":[{},{}]", tool("work", false), tool("look", true)),
            b"ping" | b"logging/setLevel" if !modern => String::new(),
            _ => {
                let error = "{\"code\":-32601,\"message\":\"Method not found\"}";
                return Reaction::Answer(
                    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}").into(),
                );
            }
        };
        Reaction::Answer(self.response(id, &result, ",\"ttlMs\":0,\"cacheScope\":\"private\""))
    }

    fn response(&self, id: u64, result: &str, hints: &str) -> Bytes {
        let more = match (self.kind.is_modern(), result.is_empty()) {
            (true, _) => format!(",\"resultType\":\"complete\"{hints}"),
            (false, _) => String::new(),
        };
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{{result}{more}}}}}").into()
    }

    fn begin(&self, id: u64, text: &[u8]) -> Work {
        let marker = between(text, "\"marker\":\"", "\"").expect("every call has a marker");
        let marker = String::from_utf8_lossy(marker).into_owned();
        self.note(&format!("ran {marker}"));
        let number = |name: &str| number_after(text, &format!("\"{name}\":")).unwrap_or(0);
        let mut asides = Vec::new();
        if let Some(token) = number_after(text, "\"progressToken\":") {
            asides.extend((1..=number("p")).map(|step| progress(token, step, &marker)));
        }
        if !self.kind.is_modern() || has(text, "/logLevel\":") {
            asides.extend((0..number("l")).map(|_| log(&marker)));
        }
        let after = asides.split_off(asides.len() / 2);
        let stop = CancellationToken::new();
        let heard = if number("deaf") == 1 { CancellationToken::new() } else { stop.clone() };
        self.calls.lock().expect("no panic").insert(id, (marker.clone(), heard));
        let content = format!("\"content\":[{{\"type\":\"text\",\"text\":\"{marker}\"}}]");
        let answer = self.response(id, &content, "");
        Work { before: asides, pause: Duration::from_millis(number("ms")), after, answer, marker, stop }
    }

    fn cancel(&self, id: u64) {
        let calls = self.calls.lock().expect("no panic");
        if let Some((marker, stop)) = calls.get(&id) {
            self.note(&format!("cancelled {marker}"));
            stop.cancel();
        }
    }

    /// Where all messages go out on one stream.
    fn react_on(self: &Arc<Self>, text: &[u8], out: &UnboundedSender<Bytes>) {
        match self.react(text) {
            Reaction::Nothing => {}
            Reaction::Answer(answer) => drop(out.send(answer)),
            Reaction::Work(work) => {
                let (out, end) = (out.clone(), self.end.clone());
                tokio::spawn(async move {
                    end.run_until_cancelled(async {
                        work.before.iter().for_each(|text| drop(out.send(text.clone())));
                        if work.pause.is_zero() || work.rest().await {
                            work.after.iter().for_each(|text| drop(out.send(text.clone())));
                            let _ = out.send(work.answer);
                        }
                    })
                    .await
                });
            }
        }
    }

    /// Until standard input ends.
    async fn on_pipes(self) {
        let (sender, mut lines) = unbounded_channel();
        std::thread::spawn(move || {
            let lines = std::io::stdin().lock().lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        let (out, mut said) = unbounded_channel::<Bytes>();
        let brain = Arc::new(self);
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some(line) => brain.react_on(line.as_bytes(), &out),
                    None => return,
                },
                Some(text) = said.recv() => {
                    let mut batch = [&text[..], b"\n"].concat();
                    while let Ok(text) = said.try_recv() {
                        batch.extend_from_slice(&text);
                        batch.push(b'\n');
                    }
                    let mut stdout = std::io::stdout().lock();
                    if stdout.write_all(&batch).and_then(|()| stdout.flush()).is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let brain = Arc::clone(&self);
            tokio::spawn(async move {
                let end = brain.end.clone();
                // A client that goes is not our failure.
                let _ = end.run_until_cancelled(brain.converse(Connection::of(stream))).await;
            });
        }
    }

    async fn converse(self: Arc<Self>, mut connection: Connection) -> std::io::Result<()> {
        loop {
            let mut head = connection.head().await?;
            let text = connection.body(&mut head).await?;
            if self.end.is_cancelled() {
                return Ok(()); // The dead hear nothing, even where their end has not come to be known.
            }
            let verb = head.line().split(' ').next().unwrap_or_default();
            match (self.kind, verb) {
                (Kind::Pair, "GET") => return self.hold_pair(connection).await,
                (Kind::Pair, _) => self.post_to_pair(&mut connection, &head, &text).await?,
                (Kind::HttpOld, "GET") => {
                    connection.send(EVENTS.as_bytes()).await?;
                    connection.closed().await;
                    return Ok(());
                }
                (_, "POST") => self.post(&mut connection, &head, &text).await?,
                _ => connection.send(&whole("405 Method Not Allowed", "", b"")).await?,
            }
        }
    }

    fn new_session(&self, stream: Option<UnboundedSender<Bytes>>) -> String {
        // Another server gives other ids, in this process and in others.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = format!("session-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        self.sessions.lock().expect("no panic").insert(id.clone(), stream);
        self.note("session");
        id
    }

    async fn hold_pair(&self, mut connection: Connection) -> std::io::Result<()> {
        let (out, mut said) = unbounded_channel();
        let id = self.new_session(Some(out));
        connection.send(EVENTS.as_bytes()).await?;
        connection
            .send(&chunk(format!("event: endpoint\ndata: /messages?session={id}\n\n").as_bytes()))
            .await?;
        loop {
            let text = tokio::select! {
                text = said.recv() => text,
                () = connection.closed() => None,
            };
            let Some(text) = text else {
                self.sessions.lock().expect("no panic").remove(&id);
                return Ok(());
            };
            connection.send(&chunk(&event(&text))).await?;
        }
    }

    async fn post_to_pair(
        self: &Arc<Self>,
        connection: &mut Connection,
        head: &Head,
        text: &[u8],
    ) -> std::io::Result<()> {
        let id = between(head.line().as_bytes(), "session=", " ").unwrap_or_default();
        let stream =
            self.sessions.lock().expect("no panic").get(&*String::from_utf8_lossy(id)).cloned().flatten();
        let Some(stream) = stream else { return connection.send(&whole("404 Not Found", "", b"")).await };
        self.react_on(text, &stream);
        connection.send(&whole("202 Accepted", "", b"")).await
    }

    async fn post(
        self: &Arc<Self>,
        connection: &mut Connection,
        head: &Head,
        text: &[u8],
    ) -> std::io::Result<()> {
        let mut headers = String::new();
        if self.kind == Kind::HttpOld {
            if has(text, "\"method\":\"initialize\"") {
                headers = format!("mcp-session-id: {}\r\n", self.new_session(None));
            } else {
                // Whoever asks for the era has no session yet.
                let id = head.header("mcp-session-id").unwrap_or_default();
                let known =
                    has(text, "server/discover") || self.sessions.lock().expect("no panic").contains_key(id);
                if !known {
                    return connection.send(&whole("404 Not Found", "", b"")).await;
                }
            }
        }
        match self.react(text) {
            Reaction::Nothing => connection.send(&whole("202 Accepted", "", b"")).await,
            Reaction::Answer(answer) => connection.send(&whole("200 OK", &headers, &answer)).await,
            Reaction::Work(work) => self.work(connection, work).await,
        }
    }

    async fn work(&self, connection: &mut Connection, work: Work) -> std::io::Result<()> {
        let streams = !(work.before.is_empty() && work.after.is_empty());
        if streams {
            let asides: Vec<u8> = work.before.iter().flat_map(|text| chunk(&event(text))).collect();
            connection.send(&[EVENTS.as_bytes(), &asides].concat()).await?;
        }
        if !work.pause.is_zero() {
            // In the modern era a client that goes has cancelled its call, in the legacy era it has not.
            let gone = async {
                if self.kind.is_modern() {
                    connection.closed().await;
                } else {
                    std::future::pending().await
                }
            };
            let done = tokio::select! {
                biased;
                done = work.rest() => done,
                () = gone => {
                    self.note(&format!("cancelled {}", work.marker));
                    false
                }
            };
            if !done {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
        }
        if !streams {
            return connection.send(&whole("200 OK", "", &work.answer)).await;
        }
        let rest = work.after.iter().chain([&work.answer]);
        let mut rest: Vec<u8> = rest.flat_map(|text| chunk(&event(text))).collect();
        rest.extend_from_slice(b"0\r\n\r\n");
        connection.send(&rest).await
    }
}

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn whole(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    let head = format!("HTTP/1.1 {status}\r\n{kind}{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn event(text: &[u8]) -> Vec<u8> {
    [b"event: message\ndata: ", text, b"\n\n"].concat()
}

fn tool(name: &str, changes_nothing: bool) -> String {
    format!(
        "{{\"name\":\"{name}\",\"inputSchema\":{{\"type\":\"object\"}},\"annotations\":{{\"readOnlyHint\":{changes_nothing},\"idempotentHint\":{changes_nothing}}}}}"
    )
}

fn progress(token: u64, step: u64, marker: &str) -> Bytes {
    let params = format!("{{\"progressToken\":{token},\"progress\":{step},\"message\":\"{marker}\"}}");
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{params}}}").into()
}

fn log(marker: &str) -> Bytes {
    let params = format!("{{\"level\":\"info\",\"data\":\"{marker}\"}}");
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{params}}}").into()
}

/// A journal, read.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap_or_default()
    }

    /// What was noted under this word, in order.
    pub fn all(&self, word: &str) -> Vec<String> {
        let text = self.text();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(first, _)| *first == word).map(|(_, rest)| rest.to_owned()).collect()
    }

    pub fn sessions(&self) -> usize {
        self.text().lines().filter(|line| *line == "session").count()
    }

    /// The process that was started last.
    pub fn process(&self) -> Option<i32> {
        self.all("start").pop()?.parse().ok()
    }
}
