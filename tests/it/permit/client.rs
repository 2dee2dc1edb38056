//! Clients with tokens: one way to ask, whatever the transport and the revision.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Answer, Gateway, MODERN, Opened, Post, UNLIMITED, modern_message, pipe::Pipe, session::initialize,
};

pub const AUDIENCE: &str = "https://mcp.example.com/mcp";
const ISSUER: &str = "https://login.example.com";

/// Issues tokens.
pub struct Issuer {
    key: Ed25519KeyPair,
    folder: TempDir,
}

impl Issuer {
    pub fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let issuer = Self { key, folder: tempfile::tempdir().unwrap() };
        let x = B64.encode(issuer.key.public_key());
        let keys = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x }] });
        std::fs::write(issuer.folder.path().join("keys.json"), keys.to_string()).unwrap();
        issuer
    }

    /// A good token that says this, too.
    pub fn token(&self, more: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims =
            json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 3600 });
        more.as_object().unwrap().iter().for_each(|(name, value)| claims[name] = value.clone());
        let signed =
            format!("{}.{}", B64.encode(r#"{"alg":"EdDSA","kid":"ed"}"#), B64.encode(claims.to_string()));
        format!("{signed}.{}", B64.encode(self.key.sign(signed.as_bytes())))
    }

    /// The tables of routes.toml that believe it, and let strangers in.
    pub fn tables(&self) -> String {
        let file = self.folder.path().join("keys.json");
        format!(
            "{UNLIMITED}[identify]\naudience = \"{AUDIENCE}\"\nanonymous = true\n[[identify.issuer]]\nissuer = \"{ISSUER}\"\njwks_file = {file:?}\n"
        )
    }
}

/// What carries requests to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Http,
    /// The HTTP+SSE pair of 2024-11-05.
    Pair,
    Stdio,
}

pub const TRANSPORTS: [Transport; 3] = [Transport::Http, Transport::Pair, Transport::Stdio];

/// A client that is connected.
pub struct Client<'a> {
    gateway: &'a Gateway,
    path: &'static str,
    pub revision: &'static str,
    token: Option<String>,
    line: Line,
}

enum Line {
    /// Of a session, unless it is of the modern era.
    Http(Option<String>),
    Pair(Box<Opened>, String),
    Stdio(Box<Pipe>),
}

impl<'a> Client<'a> {
    /// `path` is that of Streamable HTTP.
    pub async fn open(
        gateway: &'a Gateway,
        transport: Transport,
        revision: &'static str,
        path: &'static str,
        token: Option<&str>,
    ) -> Self {
        let line = match transport {
            Transport::Http => Line::Http(None),
            Transport::Stdio => Line::Stdio(Box::new(Pipe::open(&gateway.waystation))),
            Transport::Pair => {
                let path = path.replacen("/mcp", "/sse", 1);
                let get = with(gateway.get(&path).header("accept", "text/event-stream"), token);
                let mut stream = get.open().await;
                let endpoint = stream.event().await.expect("an endpoint");
                let endpoint = String::from_utf8(endpoint.data.to_vec()).unwrap();
                Line::Pair(Box::new(stream), endpoint)
            }
        };
        let mut client = Self { gateway, path, revision, token: token.map(str::to_owned), line };
        if revision != MODERN {
            let hello = initialize(revision);
            if let Line::Http(session) = &mut client.line {
                let answer = with(gateway.post(path, hello.to_string()), token).send().await;
                let id = answer.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
                *session = Some(id.unwrap_or_default());
            } else {
                client.exchange(&hello).await;
            }
        }
        client
    }

    fn message(&self, method: &str, params: Value) -> Value {
        let id = json!(self.gateway.next_id());
        match self.revision {
            MODERN => modern_message(id, method, params),
            _ => json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }),
        }
    }

    /// A request over HTTP.
    pub fn post(&self, method: &str, params: Value) -> Post {
        let Line::Http(session) = &self.line else { panic!("this is no client over HTTP") };
        let post = match session {
            None => self.gateway.modern_at(self.path, method, params),
            Some(id) => {
                let post = self.gateway.post(self.path, self.message(method, params).to_string());
                let post = post.header("mcp-session-id", id);
                if self.revision >= "2025-06-18" {
                    post.header("mcp-protocol-version", self.revision)
                } else {
                    post
                }
            }
        };
        with(post, self.token.as_deref())
    }

    pub async fn answer(&self, method: &str, params: Value) -> Answer {
        self.post(method, params).send().await
    }

    /// The response to a request, without its id.
    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        let mut response = match &self.line {
            Line::Http(_) => {
                let answer = self.answer(method, params).await;
                let mut response = answer.response();
                response["status"] = json!(answer.status);
                response
            }
            _ => {
                let message = self.message(method, params);
                self.exchange(&message).await
            }
        };
        response.as_object_mut().unwrap().remove("id");
        response
    }

    async fn exchange(&mut self, message: &Value) -> Value {
        match &mut self.line {
            Line::Http(_) => unreachable!("it has answers of its own"),
            Line::Stdio(pipe) => {
                pipe.say(message).await;
                pipe.answer(&message["id"]).await
            }
            Line::Pair(stream, endpoint) => {
                let post = with(self.gateway.post(endpoint, message.to_string()), self.token.as_deref());
                let taken = post.send().await;
                assert_eq!(taken.status, 202, "{}", taken.text());
                loop {
                    let told = stream.message().await.expect("an answer");
                    if told["id"] == message["id"] {
                        return told;
                    }
                }
            }
        }
    }

    /// All names of a list.
    pub async fn names(&mut self, method: &str, member: &str, key: &str) -> Vec<String> {
        let response = self.ask(method, json!({})).await;
        let entries = response["result"][member].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
    }

    /// Is a resource watched, once that was asked for? And what was said if not.
    pub async fn watches(&mut self, uri: &str) -> (bool, Value) {
        if self.revision != MODERN {
            let response = self.ask("resources/subscribe", json!({ "uri": uri })).await;
            return (response.get("result").is_some(), response);
        }
        let filter = json!({ "notifications": { "resourceSubscriptions": [uri] } });
        let honoured = match &mut self.line {
            Line::Http(_) => {
                let mut stream = self.post("subscriptions/listen", filter).open().await;
                match stream.headers["content-type"].to_str().unwrap().starts_with("text/event-stream") {
                    true => stream.message().await.expect("an acknowledgement"),
                    false => return (false, stream.answer().await.response()["error"].clone()),
                }
            }
            Line::Pair(..) | Line::Stdio(_) => {
                let message = self.message("subscriptions/listen", filter);
                self.acknowledgement(&message).await
            }
        };
        if honoured.get("error").is_some() {
            return (false, honoured["error"].clone());
        }
        let honoured = honoured["params"]["notifications"].clone();
        (honoured.get("resourceSubscriptions").is_some(), honoured)
    }

    /// Says a message, and gives the acknowledgement or the refusal.
    async fn acknowledgement(&mut self, message: &Value) -> Value {
        let is_it = |told: &Value| {
            told["method"] == "notifications/subscriptions/acknowledged" || told["id"] == message["id"]
        };
        match &mut self.line {
            Line::Http(_) => unreachable!("its answer is a stream of its own"),
            Line::Stdio(pipe) => {
                pipe.say(message).await;
                loop {
                    let told = pipe.next().await.expect("an acknowledgement");
                    if is_it(&told) {
                        return told;
                    }
                }
            }
            Line::Pair(stream, endpoint) => {
                with(self.gateway.post(endpoint, message.to_string()), self.token.as_deref()).send().await;
                loop {
                    let told = stream.message().await.expect("an acknowledgement");
                    if is_it(&told) {
                        return told;
                    }
                }
            }
        }
    }
}

pub fn with(post: Post, token: Option<&str>) -> Post {
    match token {
        Some(token) => post.header("authorization", format!("Bearer {token}")),
        None => post,
    }
}
