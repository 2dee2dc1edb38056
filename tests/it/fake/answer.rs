//! The methods a server has, but for its tools.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::builder::{Cursor, LEGACY};
use super::session::Session;
use super::stream::{Outlet, Said};
use super::{Shared, lock, tool};

pub const MODERN: &str = "2026-07-28";

/// A request to be answered.
#[derive(Debug)]
pub struct Call {
    pub shared: Arc<Shared>,
    /// Absent in 2026-07-28.
    pub session: Option<Arc<Session>>,
    pub id: Value,
    pub method: String,
    pub params: Value,
    /// The whole message, byte for byte.
    pub raw: Bytes,
    pub say: Outlet,
}

/// What comes of it.
#[derive(Debug)]
pub enum Answer {
    Result(Value),
    /// The result's text, right or wrong.
    Raw(Bytes),
    /// The whole message, right or wrong.
    Message(Value),
    Error {
        code: i64,
        message: String,
        data: Option<Value>,
    },
    /// Nothing, ever: the call was cancelled.
    Silence,
}

impl Answer {
    pub fn error(code: i64, message: impl Into<String>) -> Self {
        Answer::Error { code, message: message.into(), data: None }
    }
}

impl Call {
    pub fn is_modern(&self) -> bool {
        self.session.is_none()
    }

    pub async fn run(self) {
        let answer = self.answer().await;
        if let Some(message) = self.worded(answer) {
            // Whoever does not listen any more does not hear it.
            let _ = self.say.send(Said::Last(message));
        }
    }

    /// Says something on the way.
    pub fn aside(&self, message: &Value) {
        let _ = self.say.send(Said::Aside(message.to_string().into()));
    }

    pub fn notify(&self, method: &str, params: Value) {
        self.aside(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    async fn answer(&self) -> Answer {
        let settings = &self.shared.settings;
        if !serves(&self.shared, self.is_modern(), &self.method) {
            return Answer::error(-32601, format!("Method not found: {}", self.method));
        }
        match self.method.as_str() {
            "initialize" => self.initialize(),
            "server/discover" => self.discover(),
            "tools/list" => self.page("tools", &lock(&self.shared.tools)),
            "prompts/list" => self.page("prompts", &settings.prompts),
            "resources/list" => self.page("resources", &settings.resources),
            "skills/list" => self.page("skills", &settings.skills),
            "skills/get" => self.skill(),
            "resources/directory/read" => Answer::Result(
                self.cacheable(json!({ "resources": [{ "uri": self.params["uri"], "name": "d" }] })),
            ),
            "resources/templates/list" => self.page("resourceTemplates", &settings.templates),
            "tools/call" => tool::call(self).await,
            "prompts/get" => self.prompt(),
            "resources/read" => self.resource(),
            "completion/complete" => self.completion(),
            _ => Answer::Result(json!({})), // ping, logging/setLevel, resources/subscribe and unsubscribe
        }
    }

    fn initialize(&self) -> Answer {
        let requested = self.params["protocolVersion"].as_str().unwrap_or_default();
        let newest = self.shared.settings.newest;
        let spoken = LEGACY.iter().take_while(|revision| **revision <= newest);
        let version = spoken.into_iter().find(|revision| **revision == requested).unwrap_or(&newest);
        Answer::Result(json!({
            "protocolVersion": version,
            "capabilities": capabilities(&self.shared),
            "serverInfo": self.introduction(),
        }))
    }

    fn discover(&self) -> Answer {
        let capabilities = capabilities(&self.shared);
        Answer::Result(self.cacheable(json!({ "supportedVersions": [MODERN], "capabilities": capabilities })))
    }

    fn introduction(&self) -> Value {
        json!({ "name": self.shared.settings.name, "version": "1.0.0" })
    }

    fn page(&self, key: &str, all: &[Value]) -> Answer {
        let kind = self.shared.settings.cursor;
        let begin = match (&self.params["cursor"], kind) {
            (Value::Null, _) | (_, Cursor::Repeats) => Some(0),
            (_, Cursor::Expires) => None,
            (_, Cursor::ExpiresOnce) if lock(&self.shared.expired).insert(self.method.clone()) => None,
            (cursor, Cursor::Good | Cursor::ExpiresOnce) => {
                let begin = cursor.as_str().and_then(|cursor| cursor.strip_prefix("from-"));
                begin.and_then(|begin| begin.parse().ok()).filter(|begin| *begin <= all.len())
            }
        };
        let Some(begin) = begin else {
            return Answer::error(-32602, "Invalid cursor");
        };
        let end = begin.saturating_add(self.shared.settings.page_size).min(all.len());
        let mut result = json!({ key: all[begin..end] });
        if kind == Cursor::Repeats {
            result["nextCursor"] = json!("again");
        } else if end < all.len() {
            result["nextCursor"] = json!(format!("from-{end}"));
        }
        Answer::Result(self.cacheable(result))
    }

    fn prompt(&self) -> Answer {
        let (name, prompts) = (&self.params["name"], &self.shared.settings.prompts);
        if !prompts.iter().any(|prompt| prompt["name"] == *name) {
            return Answer::error(-32602, format!("Unknown prompt: {name}"));
        }
        let text = format!("{} {}", name.as_str().unwrap_or_default(), self.params["arguments"]);
        let content = json!({ "type": "text", "text": text });
        Answer::Result(json!({ "messages": [{ "role": "user", "content": content }] }))
    }

    /// A listed one, or one that begins as a template does.
    fn resource(&self) -> Answer {
        let settings = &self.shared.settings;
        let uri = self.params["uri"].as_str().unwrap_or_default();
        let begins = |template: &Value| {
            let template = template["uriTemplate"].as_str().unwrap_or_default();
            uri.starts_with(template.split('{').next().unwrap_or_default())
        };
        let known = settings.resources.iter().any(|resource| resource["uri"] == uri);
        if !known && !settings.templates.iter().any(begins) {
            let code = if self.is_modern() { -32602 } else { -32002 };
            let data = Some(json!({ "uri": uri }));
            return Answer::Error { code, message: "Resource not found".to_owned(), data };
        }
        let text = format!("{} has {uri}", settings.name);
        let contents = json!([{ "uri": uri, "mimeType": "text/plain", "text": text }]);
        let mut result = self.cacheable(json!({ "contents": contents }));
        let hints = settings.hints.iter().filter(|(of, _)| of == uri);
        for (name, value) in hints.filter_map(|(_, members)| members.as_object()).flatten() {
            result[name] = value.clone();
        }
        if let Some(members) = result.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        Answer::Result(result)
    }

    fn skill(&self) -> Answer {
        let found = self.shared.settings.skills.iter().find(|skill| skill["uri"] == self.params["uri"]);
        match found {
            Some(skill) => Answer::Result(self.cacheable(json!({ "skill": skill }))),
            None => Answer::error(-32602, "Unknown skill"),
        }
    }

    fn completion(&self) -> Answer {
        let begun = self.params["argument"]["value"].as_str().unwrap_or_default();
        let values = [format!("{begun}-one"), format!("{begun}-two")];
        Answer::Result(json!({ "completion": { "values": values, "total": 2, "hasMore": false } }))
    }

    /// With the hints that 2026-07-28 wants.
    fn cacheable(&self, mut result: Value) -> Value {
        if self.is_modern() {
            result["ttlMs"] = json!(self.shared.settings.ttl_ms);
            result["cacheScope"] = json!("private");
        }
        result
    }

    /// The answer as the message it goes out as.
    fn worded(&self, answer: Answer) -> Option<Bytes> {
        let Call { id, .. } = self;
        let message = match answer {
            Answer::Result(mut result) => {
                if self.is_modern() {
                    if result["resultType"].is_null() {
                        result["resultType"] = json!("complete");
                    }
                    let introduction = self.introduction();
                    result["_meta"]["io.modelcontextprotocol/serverInfo"] = introduction;
                }
                json!({ "jsonrpc": "2.0", "id": id, "result": result })
            }
            Answer::Raw(text) => {
                let head = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"#);
                return Some([head.as_bytes(), &text, b"}"].concat().into());
            }
            Answer::Message(message) => message,
            Answer::Error { code, message, data } => {
                let mut error = json!({ "code": code, "message": message });
                if let Some(data) = data {
                    error["data"] = data;
                }
                json!({ "jsonrpc": "2.0", "id": id, "error": error })
            }
            Answer::Silence => return None,
        };
        Some(message.to_string().into())
    }
}

/// Whether there is such a method: what is not advertised is not served.
pub fn serves(shared: &Shared, modern: bool, method: &str) -> bool {
    let settings = &shared.settings;
    match method {
        "server/discover" => modern,
        "initialize" | "ping" | "logging/setLevel" => !modern,
        "tools/list" | "tools/call" | "completion/complete" => true,
        "skills/list" | "skills/get" | "resources/directory/read" => modern && !settings.skills.is_empty(),
        "prompts/list" | "prompts/get" => !settings.prompts.is_empty(),
        "resources/list" | "resources/templates/list" | "resources/read" => has_resources(shared),
        "resources/subscribe" | "resources/unsubscribe" => !modern && has_resources(shared),
        _ => false,
    }
}

fn has_resources(shared: &Shared) -> bool {
    !(shared.settings.resources.is_empty() && shared.settings.templates.is_empty())
}

fn capabilities(shared: &Shared) -> Value {
    let mut capabilities = json!({ "tools": { "listChanged": true }, "completions": {}, "logging": {} });
    if !shared.settings.prompts.is_empty() {
        capabilities["prompts"] = json!({ "listChanged": true });
    }
    if has_resources(shared) {
        capabilities["resources"] = json!({ "listChanged": true, "subscribe": true });
    }
    if !shared.settings.extensions.is_null() {
        capabilities["extensions"] = shared.settings.extensions.clone();
    }
    capabilities
}
