//! A client of the legacy era, over Streamable HTTP.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};

use super::http::{Answer, Opened, Post};

/// The message that opens a session.
pub fn initialize(revision: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": "hello", "method": "initialize",
        "params": {
            "protocolVersion": revision, "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        },
    })
}

/// A session that was opened.
#[derive(Debug)]
pub struct Session {
    address: SocketAddr,
    path: String,
    pub id: String,
    /// What the gateway chose.
    pub revision: String,
    /// The result of `initialize`.
    pub hello: Value,
    last_id: AtomicU64,
}

impl Session {
    /// Begins a session: `initialize`, and word that it was understood.
    pub async fn open(address: SocketAddr, path: &str, revision: &str) -> Self {
        Self::open_as(address, path, revision, json!({})).await
    }

    /// The same of a client that says what it can be asked.
    pub async fn open_as(address: SocketAddr, path: &str, revision: &str, capabilities: Value) -> Self {
        let mut hello = initialize(revision);
        hello["params"]["capabilities"] = capabilities;
        let answer = Post::new(address, path, hello.to_string()).send().await;
        let hello = answer.result();
        let id = answer.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        let session = Self {
            address,
            path: path.to_owned(),
            id: id.unwrap_or_default(),
            revision: hello["protocolVersion"].as_str().expect("a revision").to_owned(),
            hello,
            last_id: AtomicU64::new(0),
        };
        assert_eq!(session.notify("notifications/initialized", json!({})).await.status, 202);
        session
    }

    /// The same with a gateway that was started again.
    pub fn at(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A POST of any body on this session.
    pub fn post(&self, body: impl Into<bytes::Bytes>) -> Post {
        self.named(Post::new(self.address, &self.path, body))
    }

    /// A request with the headers of this session.
    fn named(&self, post: Post) -> Post {
        let post = if self.id.is_empty() { post } else { post.header("mcp-session-id", &self.id) };
        // The header came with 2025-06-18.
        if *self.revision >= *"2025-06-18" {
            post.header("mcp-protocol-version", &self.revision)
        } else {
            post
        }
    }

    pub fn message(&self, id: Value, message: &str, params: Value) -> Post {
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": message, "params": params });
        self.post(message.to_string())
    }

    pub fn request(&self, method: &str, params: Value) -> Post {
        self.message(json!(self.next_id()), method, params)
    }

    pub fn call(&self, tool: &str, arguments: Value) -> Post {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    pub async fn notify(&self, method: &str, params: Value) -> Answer {
        self.post(json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()).send().await
    }

    pub async fn cancel(&self, id: impl Into<Value>) -> Answer {
        let id: Value = id.into();
        self.notify("notifications/cancelled", json!({ "requestId": id, "reason": "a test" })).await
    }

    /// The session's own stream, or one that goes on after an event.
    pub async fn stream(&self, after: Option<&str>) -> Opened {
        let mut get = self.named(Post::new(self.address, &self.path, ""));
        get = get.verb("GET").without("content-type").header("accept", "text/event-stream");
        if let Some(after) = after {
            get = get.header("last-event-id", after);
        }
        get.open().await
    }

    /// The same client with another session id.
    pub fn with_id(&self, id: &str) -> Self {
        Self {
            address: self.address,
            path: self.path.clone(),
            id: id.to_owned(),
            revision: self.revision.clone(),
            hello: self.hello.clone(),
            last_id: AtomicU64::new(0),
        }
    }

    pub async fn delete(&self) -> Answer {
        self.named(Post::new(self.address, &self.path, "").verb("DELETE").without("content-type"))
            .send()
            .await
    }
}
