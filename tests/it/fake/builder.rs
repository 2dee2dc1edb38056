//! What a fake is told before it starts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use super::{Era, FAULTS, Fake, OWN_TOOLS, Shared, server, tool};

/// The legacy revisions, oldest first.
pub const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// A fake that is still to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) era: Era,
    pub(super) name: String,
    /// Whether results come as an event stream; else as JSON, without what is sent on the way.
    pub(super) sse: bool,
    pub(super) tools: Vec<Value>,
    pub(super) prompts: Vec<Value>,
    pub(super) resources: Vec<Value>,
    pub(super) templates: Vec<Value>,
    pub(super) skills: Vec<Value>,
    /// Under `capabilities.extensions`.
    pub(super) extensions: Value,
    pub(super) page_size: usize,
    pub(super) cursor: Cursor,
    pub(super) hang: bool,
    pub(super) slow: Option<Duration>,
    /// The newest legacy revision spoken.
    pub(super) newest: &'static str,
    pub(super) sessions: bool,
    pub(super) get_stream: bool,
    pub(super) ttl_ms: u64,
    /// Members of the results of some resources, by URI.
    pub(super) hints: Vec<(String, Value)>,
    pub(super) address: SocketAddr,
}

/// What a cursor is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    Good,
    /// Each page is the first, and names a next.
    Repeats,
    /// The first one used on each list is refused.
    ExpiresOnce,
    /// Each is refused.
    Expires,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            era: Era::Both,
            name: "fake".to_owned(),
            sse: false,
            tools: OWN_TOOLS.iter().map(|name| tool(name)).collect(),
            prompts: Vec::new(),
            resources: Vec::new(),
            templates: Vec::new(),
            skills: Vec::new(),
            extensions: Value::Null,
            page_size: usize::MAX,
            cursor: Cursor::Good,
            hang: false,
            slow: None,
            newest: "2025-11-25",
            sessions: true,
            get_stream: true,
            ttl_ms: 0,
            hints: Vec::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }
}

impl Builder {
    pub fn era(self, era: Era) -> Self {
        Builder { era, ..self }
    }

    /// The name it introduces itself by; `fake` unless told.
    pub fn name(self, name: &str) -> Self {
        Builder { name: name.to_owned(), ..self }
    }

    /// Answers as event stream, else (the default) as JSON, without what is sent on the way.
    pub fn sse(self, sse: bool) -> Self {
        Builder { sse, ..self }
    }

    /// Lists these tools instead of its own ([`OWN_TOOLS`]). A listed one it does not know answers as `echo`
    /// does; its own and the faults can be called whether listed or not.
    pub fn tools(self, tools: Vec<Value>) -> Self {
        Builder { tools, ..self }
    }

    /// Lists the tools of [`FAULTS`] as well.
    pub fn with_faults(mut self) -> Self {
        self.tools.extend(FAULTS.iter().map(|name| tool(name)));
        self
    }

    /// Has these prompts; without any, it has not the capability.
    pub fn prompts(self, prompts: Vec<Value>) -> Self {
        Builder { prompts, ..self }
    }

    /// Has these resources; without any and without templates, it has not the capability.
    pub fn resources(self, resources: Vec<Value>) -> Self {
        Builder { resources, ..self }
    }

    pub fn templates(self, templates: Vec<Value>) -> Self {
        Builder { templates, ..self }
    }

    /// Gives lists in pages of this many.
    pub fn page_size(self, page_size: usize) -> Self {
        Builder { page_size, ..self }
    }

    /// Gives the first page and the same cursor for ever.
    pub fn repeat_cursor(self) -> Self {
        Builder { cursor: Cursor::Repeats, ..self }
    }

    /// Refuses the first cursor used on each list, as if it had expired.
    pub fn expire_cursor_once(self) -> Self {
        Builder { cursor: Cursor::ExpiresOnce, ..self }
    }

    /// Refuses every cursor, as if it had expired.
    pub fn expire_cursor_always(self) -> Self {
        Builder { cursor: Cursor::Expires, ..self }
    }

    /// Accepts, reads, and never answers.
    pub fn hang(self) -> Self {
        Builder { hang: true, ..self }
    }

    /// Thinks so long before each answer.
    pub fn slow(self, pause: Duration) -> Self {
        Builder { slow: Some(pause), ..self }
    }

    /// The newest legacy revision it speaks; `2025-11-25` unless told.
    pub fn newest(self, revision: &'static str) -> Self {
        assert!(LEGACY.contains(&revision), "{revision} is no legacy revision");
        Builder { newest: revision, ..self }
    }

    /// Gives out no `Mcp-Session-Id`, and wants none.
    pub fn without_sessions(self) -> Self {
        Builder { sessions: false, ..self }
    }

    /// Answers GET with 405.
    pub fn without_get_stream(self) -> Self {
        Builder { get_stream: false, ..self }
    }

    /// The `ttlMs` of its lists in 2026-07-28; 0 unless told.
    pub fn ttl_ms(self, ttl_ms: u64) -> Self {
        Builder { ttl_ms, ..self }
    }

    /// Has these members in the result of a resource, in place of its own; null takes one away.
    pub fn hints(mut self, uri: &str, members: Value) -> Self {
        self.hints.push((uri.to_owned(), members));
        self
    }

    /// The extensions it declares, each with its settings.
    pub fn extensions(self, extensions: Value) -> Self {
        Builder { extensions, ..self }
    }

    pub fn skills(self, skills: Vec<Value>) -> Self {
        Builder { skills, ..self }
    }

    /// Listens at this address, for instance one where a fake was stopped before.
    pub fn at(self, address: SocketAddr) -> Self {
        Builder { address, ..self }
    }

    pub async fn start(self) -> Fake {
        let listener = TcpListener::bind(self.address).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::new(self));
        shared.spawn(server::accept(shared.clone(), listener));
        Fake { address, shared }
    }
}
