//! How is a gateway asked? Requests of revision 2026-07-28, each on its own.
//!
//! Results are kept as they were written, so that what is printed is what the server said.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use futures_util::StreamExt as _;
use reqwest::{Response, header::HeaderMap};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use crate::wire::{
    header,
    mcp::{List, Method, Revision, code, meta},
    sse,
};

/// What a reply may have at the most; more is no reply but a mistake.
const LARGEST_REPLY: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// No gateway has so many pages; one that gives new cursors for ever must not keep us.
const MOST_PAGES: usize = 10_000;

/// Says who asks. Nothing shows it.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A gateway, by its address.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<Token>,
}

/// Why a request has no result.
#[derive(Debug)]
pub enum Fault {
    /// Nobody answers at the address.
    Away(String),
    /// The gateway does not know who asks.
    Unknown { url: String, token: bool },
    /// The gateway says no.
    Refused { code: i64, message: String },
    /// What came is no answer.
    Rubbish(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) | Self::Rubbish(why) => f.write_str(why),
            Self::Refused { message, .. } => f.write_str(message),
            Self::Unknown { url, token: false } => write!(
                f,
                "{url} wants to know who asks; set WAYSTATION_TOKEN, or give --token, with a token of its issuer \
                 or a key (`waystation key new NAME`, where the gateway runs)"
            ),
            Self::Unknown { url, token: true } => write!(
                f,
                "{url} does not take this token; it may be over or revoked, or made for another address: ask its \
                 issuer for a new one, or make a key (`waystation key new NAME`, where the gateway runs)"
            ),
        }
    }
}

/// How far a call has come.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Progress {
    #[serde(default)]
    pub progress: f64,
    pub total: Option<f64>,
    pub message: Option<String>,
    #[serde(default, rename = "_meta")]
    pub meta: Value,
}

#[derive(Debug, Serialize)]
struct Request<'a> {
    jsonrpc: &'a str,
    id: u64,
    method: &'a str,
    params: Params<'a>,
}

#[derive(Debug, Default, Serialize)]
struct Params<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    #[serde(rename = "_meta")]
    meta: Value,
}

#[derive(Debug, Deserialize)]
struct Message {
    method: Option<String>,
    params: Option<Value>,
    result: Option<Box<RawValue>>,
    error: Option<ErrorBody>,
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    code: i64,
    message: String,
}

/// A tool to call.
#[derive(Debug)]
pub struct ToolCall<'a> {
    pub name: &'a str,
    pub arguments: &'a RawValue,
    /// `Mcp-Param-…` headers: the name's end, and the value.
    pub mirrored: Vec<(String, String)>,
}

impl Client {
    pub fn new(url: String, token: Option<Token>) -> Result<Self, Fault> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("waystation/", env!("CARGO_PKG_VERSION")));
        let parsed =
            reqwest::Url::parse(&url).map_err(|why| Fault::Rubbish(format!("{url} is no URL: {why}")))?;
        if matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|why| Fault::Rubbish(cause(&why)))?;
        Ok(Self { http, url, token })
    }

    /// A whole list, page after page.
    pub async fn list(&self, list: List) -> Result<Vec<Box<RawValue>>, Fault> {
        let mut entries = Vec::new();
        let mut cursor: Option<String> = None;
        let mut seen = HashSet::new();
        for _ in 0..MOST_PAGES {
            let params = Params { cursor: cursor.as_deref(), ..Params::default() };
            let result = self.ask(list.method(), params, HeaderMap::new(), &mut |_| {}).await?;
            let page: HashMap<String, &RawValue> = parse(result.get())?;
            let page_entries = page.get(list.member());
            let page_entries = page_entries.ok_or_else(|| {
                Fault::Rubbish(format!("the answer to {} has no {:?}", list.method().name(), list.member()))
            })?;
            entries.extend(parse::<Vec<Box<RawValue>>>(page_entries.get())?);
            let next = page.get("nextCursor").map(|next| parse::<Option<String>>(next.get())).transpose()?;
            let Some(next) = next.flatten() else { return Ok(entries) };
            if !seen.insert(next.clone()) {
                break;
            }
            cursor = Some(next);
        }
        Err(Fault::Rubbish(format!(
            "{} never ends: the gateway gives one cursor again and again",
            list.method().name()
        )))
    }

    /// The same, where a gateway without such a list has an empty one.
    pub async fn list_if_any(&self, list: List) -> Result<Vec<Box<RawValue>>, Fault> {
        match self.list(list).await {
            Err(Fault::Refused { code: code::METHOD_NOT_FOUND, .. }) => Ok(Vec::new()),
            other => other,
        }
    }

    /// A tool's result. Dropping the future cancels the call.
    pub async fn call(
        &self,
        call: &ToolCall<'_>,
        heard: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Box<RawValue>, Fault> {
        let mut headers = HeaderMap::new();
        let mut insert = |name: &str, value: &str| {
            let name = reqwest::header::HeaderName::from_bytes(name.as_bytes());
            let value = header::encode(value).parse();
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.insert(name, value);
            }
        };
        insert("mcp-name", call.name);
        for (name, value) in &call.mirrored {
            insert(&format!("mcp-param-{name}"), value);
        }
        let params = Params { name: Some(call.name), arguments: Some(call.arguments), ..Params::default() };
        self.ask(Method::ToolsCall, params, headers, heard).await
    }

    async fn ask(
        &self,
        method: Method,
        mut params: Params<'_>,
        headers: HeaderMap,
        heard: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Box<RawValue>, Fault> {
        params.meta = json!({
            meta::PROTOCOL_VERSION: Revision::NEWEST.name(),
            meta::CLIENT_CAPABILITIES: {},
            meta::CLIENT_INFO: { "name": "waystation", "title": "Waystation's command line", "version": env!("CARGO_PKG_VERSION") },
        });
        if method == Method::ToolsCall {
            params.meta[meta::PROGRESS_TOKEN] = json!(1);
        }
        let request = Request { jsonrpc: "2.0", id: 1, method: method.name(), params };
        let body = serde_json::to_vec(&request).expect("a request of texts and JSON can be written");
        let post = self.http.post(&self.url).headers(headers).body(body);
        let post = post
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", Revision::NEWEST.name())
            .header("mcp-method", method.name());
        let post = match &self.token {
            Some(Token(token)) => post.bearer_auth(token),
            None => post,
        };
        let response = post.send().await.map_err(|why| self.unanswered(&why))?;
        if response.status() == 401 {
            return Err(Fault::Unknown { url: self.url.clone(), token: self.token.is_some() });
        }
        let kind =
            response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("text/event-stream") {
            self.read_stream(response, heard).await
        } else {
            self.read_body(response).await
        }
    }

    fn unanswered(&self, why: &reqwest::Error) -> Fault {
        let text = format!("{} does not answer: {}", self.url, cause(why));
        if why.is_connect() { Fault::Away(text) } else { Fault::Rubbish(text) }
    }

    async fn read_body(&self, response: Response) -> Result<Box<RawValue>, Fault> {
        let status = response.status();
        let mut text = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            text.extend_from_slice(&chunk.map_err(|why| self.unanswered(&why))?);
            if text.len() > LARGEST_REPLY {
                return Err(too_large());
            }
        }
        match serde_json::from_slice(&text) {
            Ok(message) => outcome(message),
            Err(_) if status == 503 => Err(Fault::Rubbish(format!(
                "{} cannot say just now who asks (HTTP 503); try again in a while",
                self.url
            ))),
            Err(_) => {
                Err(Fault::Rubbish(format!("what answers at {} is no MCP server (HTTP {status})", self.url)))
            }
        }
    }

    async fn read_stream(
        &self,
        response: Response,
        heard: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Box<RawValue>, Fault> {
        let mut decoder = sse::Decoder::new(LARGEST_REPLY);
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|why| self.unanswered(&why))?;
            for event in decoder.push(&chunk).map_err(|_| too_large())? {
                if event.data.is_empty() {
                    continue;
                }
                let message: Message = parse(&String::from_utf8_lossy(&event.data))?;
                match &message.method {
                    None => return outcome(message),
                    Some(method) if method == "notifications/progress" => {
                        let progress = message.params.and_then(|params| serde_json::from_value(params).ok());
                        progress.into_iter().for_each(&mut *heard);
                    }
                    Some(_) => {}
                }
            }
        }
        Err(Fault::Rubbish(format!("{} ended the answer before its end", self.url)))
    }
}

fn outcome(message: Message) -> Result<Box<RawValue>, Fault> {
    match (message.result, message.error) {
        (Some(result), None) => Ok(result),
        (_, Some(ErrorBody { code, message })) => Err(Fault::Refused { code, message }),
        (None, None) => Err(Fault::Rubbish("the answer has neither result nor error".into())),
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Fault> {
    serde_json::from_str(text)
        .map_err(|why| Fault::Rubbish(format!("the answer is not as MCP has it: {why}")))
}

fn too_large() -> Fault {
    Fault::Rubbish(format!("the answer is over {} MiB", LARGEST_REPLY >> 20))
}

/// What is at the bottom of an error; what reqwest puts on top of it says the URL again.
fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
