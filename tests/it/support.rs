//! A gateway in this process, on a port of its own, and the clients that a test asks it with.
//!
//! ```text
//! let gateway = Gateway::with("").backend("files", &fake).start().await;
//! gateway.modern("tools/list", json!({})).send().await.result();
//! ```

#![allow(dead_code, reason = "a test uses the part of the harness that it needs")]

pub mod battery;
pub mod certified;
pub mod http;
pub mod pipe;
pub mod session;
pub mod shipped;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use waystation::{
    app,
    config::{Config, Environment},
    engine::Waystation,
};

use crate::fake::Fake;

pub use http::{Answer, Opened, Post};
pub use session::Session;

pub const MODERN: &str = "2026-07-28";
pub const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
pub const META: &str = "io.modelcontextprotocol/";

/// Lines of `routes.toml` for tests that are about something else and call a lot.
pub const UNLIMITED: &str = "[limit]\nper_caller = \"none\"\nanonymous = \"none\"\ndiscovery = \"none\"\nat_once = 0\nat_once_per_caller = 0\nat_once_per_backend = 0\n";

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until something holds; the test fails if it never does.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks until there is a right answer; the test fails if there never is.
pub async fn until_ok<F: Future<Output = Answer>>(ask: impl Fn() -> F) -> Value {
    let begun = Instant::now();
    loop {
        let answer = ask().await;
        if answer.response().get("error").is_none() {
            return answer.result();
        }
        assert!(begun.elapsed() < PATIENCE, "in vain: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A gateway that is still to be started.
pub struct Setup {
    toml: String,
    folder: TempDir,
    store: Option<PathBuf>,
}

impl Setup {
    /// More of `routes.toml`.
    pub fn lines(mut self, toml: &str) -> Self {
        self.toml.push('\n');
        self.toml.push_str(toml);
        self
    }

    /// With this server behind it.
    pub fn backend(self, name: &str, fake: &Fake) -> Self {
        self.server(name, &fake.url(), "")
    }

    /// With a server at this address behind it, and these lines in its table.
    pub fn server(self, name: &str, url: &str, lines: &str) -> Self {
        self.lines(&format!("[backends.{name}]\nurl = \"{url}\"\n{lines}"))
    }

    /// With the child process `fake_stdio.py` behind it, started with these flags. What it sees
    /// is in [`Gateway::log`].
    pub fn stdio(self, name: &str, flags: &[&str]) -> Self {
        self.child(name, flags, "")
    }

    /// The same, with these lines in its table.
    pub fn child(self, name: &str, flags: &[&str], lines: &str) -> Self {
        let log = self.folder.path().join(name);
        let table = child_table(name, flags, &log);
        self.lines(&format!("{table}\n{lines}"))
    }

    /// Keeps its catalog in this file.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.store = Some(path.into());
        self
    }

    /// Starts it, and waits until each backend has answered or failed once.
    pub async fn start(self) -> Gateway {
        let gateway = self.start_at_once().await;
        gateway.waystation.settle(Duration::from_secs(30)).await;
        gateway
    }

    /// Starts it and waits for nobody.
    pub async fn start_at_once(self) -> Gateway {
        let Self { toml, folder, store } = self;
        let environment: Environment = std::iter::empty::<(&str, &str)>().collect();
        let (mut config, _) =
            Config::parse("routes.toml", &toml, &environment).unwrap_or_else(|why| panic!("{why:?}"));
        config.listen.address = SocketAddr::from(([127, 0, 0, 1], 0));
        config.listen.admin = config.listen.address;
        config.store.path = Some(store.unwrap_or_else(|| ":memory:".into()));
        let sockets = app::Sockets::bind(&config.listen).await.expect("a free port");
        let address = sockets.address().expect("a bound socket has an address");
        let admin = sockets.admin().expect("a bound socket has an address");
        let waystation = Waystation::from_config(config).await.expect("the test's own routes.toml");
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(app::serve_on(waystation.clone(), sockets, None, async {
            let _ = stopped.await; // Dropped, it stops as well.
        }));
        Gateway { waystation, address, admin, folder, stop, served, last_id: AtomicU64::new(0) }
    }
}

/// The table of `routes.toml` for a child process of ours that keeps this log.
pub fn child_table(name: &str, flags: &[&str], log: &std::path::Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake_stdio.py");
    let mut args = vec!["-S", "-E", script];
    args.extend(flags);
    format!("[backends.{name}]\ncommand = \"python3\"\nargs = {args:?}\nenv = {{ FAKE_LOG = {log:?} }}")
}

/// A gateway at work. It stops when this is dropped.
pub struct Gateway {
    pub waystation: Waystation,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    folder: TempDir,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    last_id: AtomicU64,
}

impl Gateway {
    /// With these lines of `routes.toml`, which must end in no table of a backend's.
    pub fn with(toml: &str) -> Setup {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Setup { toml: toml.to_owned(), folder, store: None }
    }

    /// Stops it in good order, and gives back once it has.
    pub async fn stop(self) {
        let Self { stop, served, .. } = self;
        let _ = stop.send(());
        tokio::time::timeout(PATIENCE, served).await.expect("it stops in time").expect("it stops well");
    }

    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A request of the modern era, complete, to `/mcp`.
    pub fn modern(&self, method: &str, params: Value) -> Post {
        modern(self.address, "/mcp", json!(self.next_id()), method, params)
    }

    /// The same at another path.
    pub fn modern_at(&self, path: &str, method: &str, params: Value) -> Post {
        modern(self.address, path, json!(self.next_id()), method, params)
    }

    /// A `tools/call` of the modern era.
    pub fn call(&self, tool: &str, arguments: Value) -> Post {
        self.modern("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// A POST of any body, with the headers of JSON.
    pub fn post(&self, path: &str, body: impl Into<bytes::Bytes>) -> Post {
        Post::new(self.address, path, body)
    }

    pub fn get(&self, path: &str) -> Post {
        Post::new(self.address, path, "").verb("GET").without("content-type")
    }

    pub fn delete(&self, path: &str) -> Post {
        Post::new(self.address, path, "").verb("DELETE").without("content-type")
    }

    /// A session of a legacy revision at `/mcp`.
    pub async fn legacy(&self, revision: &str) -> Session {
        self.legacy_at("/mcp", revision).await
    }

    /// A session of a client that can be asked all there is.
    pub async fn legacy_asked(&self, revision: &str) -> Session {
        let capabilities = json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": {} });
        Session::open_as(self.address, "/mcp", revision, capabilities).await
    }

    pub async fn legacy_at(&self, path: &str, revision: &str) -> Session {
        Session::open(self.address, path, revision).await
    }

    /// The names of all tools, over all pages.
    pub async fn tools(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut params = json!({});
        loop {
            let result = self.modern("tools/list", params).send().await.result();
            names.extend(names_of(&result));
            match result["nextCursor"].as_str() {
                None => return names,
                Some(cursor) => params = json!({ "cursor": cursor }),
            }
        }
    }

    /// What `waystation__status` says.
    pub async fn status(&self) -> Value {
        self.call("waystation__status", json!({})).send().await.result()["structuredContent"].clone()
    }

    /// What `waystation__status` says of one backend.
    pub async fn status_of(&self, backend: &str) -> Value {
        let status = self.status().await;
        let all = status["backends"].as_array().expect("a list of backends");
        all.iter().find(|one| one["name"] == backend).unwrap_or_else(|| panic!("no {backend}")).clone()
    }

    pub async fn explain(&self, tool: &str) -> Value {
        let answer = self.call("waystation__explain", json!({ "tool": tool })).send().await;
        answer.result()["structuredContent"].clone()
    }

    /// The lines that a child process wrote to its log so far.
    pub fn log(&self, backend: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join(backend)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

pub fn names_of(result: &Value) -> Vec<String> {
    let tools = result["tools"].as_array().unwrap_or_else(|| panic!("no tools: {result}"));
    tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
}

/// The `_meta` of a modern request.
pub fn envelope() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
    })
}

/// A request of the modern era as a message; what its `_meta` has already stays.
pub fn modern_message(id: Value, method: &str, mut params: Value) -> Value {
    let mut meta = envelope();
    if let Some(own) = params["_meta"].as_object() {
        own.iter().for_each(|(key, value)| meta[key] = value.clone());
    }
    params["_meta"] = meta;
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// A `tools/call` of the modern era to a gateway anywhere.
pub fn modern_call(address: SocketAddr, tool: &str, arguments: Value) -> Post {
    modern(address, "/mcp", json!(1), "tools/call", json!({ "name": tool, "arguments": arguments }))
}

fn modern(address: SocketAddr, path: &str, id: Value, method: &str, params: Value) -> Post {
    let message = modern_message(id, method, params);
    let mut post = Post::new(address, path, message.to_string())
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", method);
    let target = match method {
        "tools/call" | "prompts/get" => &message["params"]["name"],
        "resources/read" => &message["params"]["uri"],
        "tasks/get" | "tasks/update" | "tasks/cancel" => &message["params"]["taskId"],
        _ => &Value::Null,
    };
    if let Some(target) = target.as_str() {
        post = post.header("mcp-name", target);
    }
    post
}
