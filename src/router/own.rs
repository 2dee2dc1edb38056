//! What can a client ask the gateway itself?
//!
//! The backend `waystation`: three tools that say what is connected, how it is, and why a tool
//! is there or is not. It answers like any other backend, so every client can use it.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::{Parts, Router, catalog::Catalog};
use crate::{
    backend::{Ask, Backend, Connected, Offer, State, Status},
    call::{Answer, Reply, Scope},
    error::{Error, Result},
    wire::{
        json,
        mcp::{Era, INTRODUCTION, Method, Revision},
    },
};

/// The name of this backend; no other may have it.
pub const NAME: &str = "waystation";

/// What an operator wants to know of the gateway as a whole.
#[derive(Debug)]
pub struct Own {
    started: Instant,
    since: SystemTime,
    address: String,
    catalog: OnceLock<Weak<Catalog>>,
    router: OnceLock<Weak<Parts>>,
    /// There are backends at which callers connect accounts.
    connects: AtomicBool,
}

impl Own {
    /// `address` is where clients connect.
    pub fn new(address: String) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            since: SystemTime::now(),
            address,
            catalog: OnceLock::new(),
            router: OnceLock::new(),
            connects: AtomicBool::new(false),
        })
    }

    /// Has it offer to connect accounts, or no longer.
    pub fn connects(&self, connects: bool) {
        self.connects.store(connects, Ordering::Relaxed);
    }

    /// Shows it the catalog, which it is itself in.
    pub fn watch(&self, catalog: &Arc<Catalog>) {
        let _ = self.catalog.set(Arc::downgrade(catalog));
    }

    /// Shows it who decides about calls, its own among them.
    pub fn ask_of(&self, router: &Router) {
        let _ = self.router.set(Arc::downgrade(&router.0));
    }

    fn catalog(&self) -> Option<Arc<Catalog>> {
        self.catalog.get()?.upgrade()
    }

    /// How the gateway and its backends are.
    pub fn status(&self) -> Value {
        let reports = self.catalog().map(|catalog| catalog.reports()).unwrap_or_default();
        let ready = reports.iter().filter(|report| report.status.state == State::Ready).count();
        let stale: Vec<_> = reports.iter().filter(|report| report.stale).map(|report| &report.name).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "address": self.address,
            "uptime_s": self.started.elapsed().as_secs(),
            "ready": ready,
            "tools": reports.iter().map(|report| report.tools).sum::<usize>(),
            "stale": stale,
            "backends": reports,
        })
    }

    fn backends(&self) -> Value {
        let Some(catalog) = self.catalog() else { return json!({ "backends": [] }) };
        let snapshot = catalog.snapshot();
        let mut tools: Vec<_> =
            snapshot.view(&Scope::All).into_iter().flat_map(|view| view.tools()).collect();
        tools.sort_unstable_by_key(|(name, _)| *name);
        let backends = catalog.reports().into_iter().map(|report| {
            let own = tools.iter().filter(|(_, route)| *route.upstream.name == *report.name);
            let names: Vec<_> = own.map(|(name, _)| name).collect();
            json!({ "name": report.name, "state": report.status.state, "stale": report.stale, "tools": names })
        });
        json!({ "backends": backends.collect::<Vec<_>>() })
    }

    fn call(&self, ask: &Ask) -> Result<Reply> {
        let arguments = ask.call.message.in_params("arguments").unwrap_or(b"{}");
        let value = match ask.target.as_deref().unwrap_or_default() {
            "status" => self.status(),
            "backends" => self.backends(),
            "explain" => {
                let tool = json::member(arguments, "tool").and_then(json::string);
                let missing = || Error::Params("explain wants the argument `tool`, a tool's name".into());
                let tool = tool.ok_or_else(missing)?;
                let parts = self.router.get().and_then(Weak::upgrade);
                let told = parts.map(|parts| parts.explain(&ask.call.caller, &tool));
                told.unwrap_or_else(|| json!({ "tool": tool, "found": false }))
            }
            other => return Err(Error::UnknownTool(other.to_owned())),
        };
        let text = serde_json::to_string_pretty(&value).expect("a JSON value can be written");
        Ok(self.result(json!({ "content": [{ "type": "text", "text": text }], "structuredContent": value })))
    }

    /// Sees to it that the caller has an account at a backend.
    async fn connect(&self, ask: Ask) -> Result<Reply> {
        let arguments = ask.call.message.in_params("arguments").unwrap_or(b"{}");
        let server = json::member(arguments, "server").and_then(json::string);
        let server = server.ok_or_else(|| {
            Error::Params(
                "connect wants the argument `server`, a name that waystation__backends lists".into(),
            )
        })?;
        let backend = self.catalog().and_then(|catalog| catalog.backend(&server));
        let backend = backend.ok_or_else(|| {
            Error::Params(format!("there is no server {server:?}; waystation__backends lists their names"))
        })?;
        let text = match backend.connect(ask.call.clone()).await? {
            Connected::Asks(reply) => return Ok(reply),
            Connected::Yes => format!("Your account at {server} is connected."),
            Connected::Needless => format!("{server} has not asked for an account. Call one of its tools."),
        };
        Ok(self.result(json!({ "content": [{ "type": "text", "text": text }] })))
    }

    fn result(&self, mut result: Value) -> Reply {
        // Written in words of the modern era, and projected like any other backend's.
        result["resultType"] = "complete".into();
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{result}}}");
        let message = crate::wire::message::Message::parse(text.into(), &json::Limits::REPLY);
        let message = message.expect("what we wrote is a message");
        Reply::Whole(Answer::Response { message, written_in: Era::Modern, wrapped: false })
    }
}

fn tools() -> Value {
    let nothing = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let reading = json!({ "readOnlyHint": true, "openWorldHint": false });
    json!([
        {
            "name": "backends", "title": "Backends and their tools",
            "description": "Lists the servers behind this gateway, the state of each, and the names of its tools.",
            "inputSchema": nothing, "annotations": reading,
        },
        {
            "name": "explain", "title": "Why is a tool there, or not?",
            "description": "Says which backend a tool belongs to, how it is called there, and which rule lets you call it or does not; or why there is no such tool.",
            "inputSchema": {
                "type": "object", "required": ["tool"], "additionalProperties": false,
                "properties": { "tool": { "type": "string", "description": "A tool's name, such as files__read_file." } },
            },
            "annotations": reading,
        },
        {
            "name": "status", "title": "Status of the gateway",
            "description": "Says how the gateway and each server behind it are: connected or not and why, protocol revision, number of tools.",
            "inputSchema": nothing, "annotations": reading,
        },
    ])
}

fn connect() -> Value {
    json!({
        "name": "connect", "title": "Connect an account",
        "description": "Connects the user's own account at a server that wants one; its tools are listed from then on. \
                        The user has to open a page in a browser.",
        "inputSchema": {
            "type": "object", "required": ["server"], "additionalProperties": false,
            "properties": { "server": { "type": "string", "description": "The server's name, as the tool backends lists it." } },
        },
        "annotations": { "readOnlyHint": false, "destructiveHint": false, "openWorldHint": true },
    })
}

impl Backend for Own {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Reply>> {
        let reply = match ask.call.method {
            Method::ToolsList => {
                let mut tools = tools();
                if let (true, Value::Array(tools)) = (self.connects.load(Ordering::Relaxed), &mut tools) {
                    tools.push(connect());
                }
                Ok(Reply::Whole(Answer::Result(Bytes::from(json!({ "tools": tools }).to_string()))))
            }
            Method::ToolsCall if ask.target.as_deref() == Some("connect") => {
                return Box::pin(self.connect(ask));
            }
            Method::ToolsCall => self.call(&ask),
            other => Err(Error::UnknownMethod(other.name().to_owned())),
        };
        Box::pin(std::future::ready(reply))
    }

    fn status(&self) -> Status {
        Status {
            state: State::Ready,
            transport: "built-in",
            revision: Some(Revision::NEWEST.to_string()),
            problem: None,
            connections: 0,
            replicas: Vec::new(),
            since: self.since,
        }
    }

    fn offer(&self) -> Option<Arc<Offer>> {
        Some(Arc::new(Offer {
            era: Era::Modern,
            revision: Revision::NEWEST,
            capabilities: "{\"tools\":{}}".into(),
            server_info: INTRODUCTION.to_owned(),
            instructions: None,
        }))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
