//! How is one request sent to OpenRouter, and what came of it?
//!
//! [`Upstream::chat`] sends a request once and says truthfully how it ended; whether it is sent
//! again is [`policy`](super::policy)'s business. Answers are always streamed, for only a stream can
//! be cancelled without paying for the rest: whoever drops the future closes the connection.
//!
//! Redirects are not followed, since they would carry the key to wherever a server points.

use std::{fmt, time::Duration};

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, REFERER},
};
use reqwest::{Client, Method, Request, Response, Url, redirect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::settings;

mod answers; //    what the other questions are answered with
mod assembly; //   pieces become an answer
mod body; //       reading in pieces, within bounds of time and size
mod cache; //      answers that are given again
mod calls; //      all that is not a chat
pub mod completion; // what a model answered
mod event; //      what is heard meanwhile
mod failure; //    why there was no answer
mod key; //        the key, which nobody sees
mod refusal; //    what an error means
mod request; //    what is sent

pub use completion::{Completion, Reused, Usage};
pub use event::{Event, Sink, Status};
pub use failure::{Code, Failure, Phase};
pub use key::Key;
pub use refusal::{Overflow, affordable};
pub use request::{Audio, ChatRequest, Content, File, ImageUrl, Message, Part, Reuse, Role, VideoUrl};

use assembly::Assembly;
use body::Body;

/// After so much silence the system asks whether the other end is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The header with an answer's name, which comes before the answer.
const GENERATION: &str = "x-generation-id";
/// The largest error that is read.
const LARGEST_ERROR: usize = 256 << 10;

/// The way to OpenRouter.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the API is. Anywhere but on this machine it must be https.
    pub base_url: String,
    /// The site that requests are attributed to (`HTTP-Referer`).
    pub referer: Option<String>,
    /// The name that requests are attributed to (`X-OpenRouter-Title`).
    pub title: Option<String>,
    /// What kind of application it is (`X-OpenRouter-Categories`, separated by commas).
    pub categories: Option<String>,
    /// How long a connection may take.
    pub connect_timeout: settings::Duration,
    /// How long it may take until an answer begins.
    pub headers_timeout: settings::Duration,
    /// How long it may take from there until the model has said something; signs of life are not
    /// enough.
    pub first_token_timeout: settings::Duration,
    /// How long there may be silence.
    pub idle_timeout: settings::Duration,
    /// How long everything may take, all attempts together.
    pub total_timeout: settings::Duration,
    /// The largest piece of an answer; pictures come as one.
    pub max_event: settings::Size,
    /// The largest answer.
    pub max_body: settings::Size,
}

impl Default for Settings {
    /// Patient with models that think, and not with connections.
    fn default() -> Self {
        Self {
            base_url: "https://openrouter.ai/api/v1".into(),
            referer: None,
            title: None,
            categories: None,
            connect_timeout: settings::Duration::seconds(10),
            headers_timeout: settings::Duration::seconds(60),
            first_token_timeout: settings::Duration::seconds(120),
            idle_timeout: settings::Duration::seconds(60),
            total_timeout: settings::Duration::seconds(600),
            max_event: settings::Size(16 << 20),
            max_body: settings::Size(48 << 20),
        }
    }
}

/// The two kinds of key. A management key cannot ask models, and only it can ask about the account.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    pub inference: Option<Key>,
    pub management: Option<Key>,
}

/// Sends requests to one address with one key.
#[derive(Clone)]
pub struct Upstream {
    client: Client,
    base: Url,
    headers: HeaderMap,
    keys: Keys,
    timers: Timers,
    max_event: usize,
    max_body: usize,
}

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
struct Timers {
    headers: Duration,
    first_token: Duration,
    idle: Duration,
    total: Duration,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl Upstream {
    /// The way that these settings describe, or what is wrong with them. Connects nowhere.
    pub fn new(settings: &Settings, keys: Keys) -> Result<Self, String> {
        let Settings {
            base_url,
            referer,
            title,
            categories,
            connect_timeout,
            headers_timeout,
            first_token_timeout,
            idle_timeout,
            total_timeout,
            max_event,
            max_body,
        } = settings;
        let base = base_of(base_url)?;
        let mut client = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("waystation/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect_timeout.0)
            .tcp_keepalive(KEEP_ALIVE);
        if is_local(&base) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|why| format!("the HTTP client cannot be made: {why}"))?;
        let mut headers = HeaderMap::new();
        for (name, key, value) in [
            (REFERER, "referer", referer),
            (http::HeaderName::from_static("x-openrouter-title"), "title", title),
            (http::HeaderName::from_static("x-openrouter-categories"), "categories", categories),
        ] {
            if let Some(value) = value {
                let value = HeaderValue::from_str(value);
                headers
                    .insert(name, value.map_err(|_| format!("`{key}` cannot stand in a header; use ASCII"))?);
            }
        }
        if let Some(referer) = headers.remove(REFERER) {
            headers.insert(http::HeaderName::from_static("http-referer"), referer);
        }
        let timers = Timers {
            headers: headers_timeout.0,
            first_token: first_token_timeout.0,
            idle: idle_timeout.0,
            total: total_timeout.0,
        };
        Ok(Self { client, base, headers, keys, timers, max_event: max_event.0, max_body: max_body.0 })
    }

    /// Where it leads.
    pub fn base_url(&self) -> &str {
        self.base.as_str()
    }

    /// Tells apart who pays, without saying his key.
    pub fn account(&self) -> u64 {
        self.keys.inference.as_ref().map_or(0, Key::fingerprint)
    }

    /// Until when an answer that is begun now must be there.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timers.total
    }

    /// Sends one request, once, and tells the sink what is heard until the answer is whole. Dropping the
    /// future closes the connection.
    pub async fn chat(
        &self,
        request: &ChatRequest,
        deadline: Instant,
        sink: Sink<'_>,
    ) -> Result<Completion, Box<Failure>> {
        let mut body = serde_json::to_value(request).map_err(|why| unwritable(&why))?;
        body["stream"] = Value::Bool(true);
        let mut post = self.request(Method::POST, &["chat", "completions"], false)?;
        post.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        put_json(&mut post, &body)?;
        drop(body);
        if let Some(reuse) = request.reuse {
            cache::ask(post.headers_mut(), reuse);
        }
        let response = self.send(post, deadline).await?;
        let generation = response.headers().get(GENERATION).and_then(|name| name.to_str().ok());
        let generation = generation.map(str::to_owned);
        let kind = kind_of(response.headers());
        sink(Event::Opened { generation_id: generation.clone() });
        let assembly = Assembly::new(generation, cache::answer(response.headers()));
        let body = Body::new(response, self.max_body, self.timers, deadline);
        match kind {
            Kind::Events => body.events(assembly, self.max_event, sink).await,
            Kind::Json => body.whole(assembly, sink).await,
            Kind::Other => {
                let why = "the answer is neither JSON nor a stream of events";
                Err(Box::new(Failure::new(Code::UpstreamProtocol, Phase::Answering, why)))
            }
        }
    }

    /// A request to a path below the base address.
    fn request(&self, method: Method, path: &[&str], manages: bool) -> Result<Request, Box<Failure>> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = Request::new(method, url);
        *request.headers_mut() = self.headers.clone();
        let management = self.keys.management.as_ref().filter(|_| manages);
        if let Some(key) = management.or(self.keys.inference.as_ref()) {
            let unusable =
                || Failure::new(Code::UpstreamAuth, Phase::Connecting, Code::UpstreamAuth.meaning());
            request.headers_mut().insert(AUTHORIZATION, key.header().ok_or_else(unusable)?);
        }
        Ok(request)
    }

    /// Sends it and waits for the head of a successful answer.
    async fn send(&self, request: Request, deadline: Instant) -> Result<Response, Box<Failure>> {
        let patience = deadline.min(Instant::now() + self.timers.headers);
        let response = match tokio::time::timeout_at(patience, self.client.execute(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(why)) => return Err(Box::new(unanswered(&why))),
            Err(_) => {
                let why = "no answer began in time";
                return Err(Box::new(Failure::new(Code::UpstreamTimeout, Phase::Sent, why)));
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(Box::new(self.refused(response, deadline).await))
    }

    async fn refused(&self, response: Response, deadline: Instant) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Body::new(response, LARGEST_ERROR, self.timers, deadline).bytes().await;
        let said = body.ok().and_then(|body| serde_json::from_slice::<Value>(&body).ok());
        let failure =
            said.and_then(|said| refusal::read(&said, Some(status.as_u16()), &headers, Phase::Refused));
        let failure = failure.unwrap_or_else(|| refusal::of_status(status.as_u16(), &headers));
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            tracing::warn!(%status, code = %failure.code, "the upstream does not let us in");
        }
        failure
    }
}

/// The base address, with a path that others can be put below.
fn base_of(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|why| format!("`base_url` is no address: {why}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`base_url` must not have a user in it; the key stands elsewhere".into());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_local(&url) => Ok(url),
        _ => Err("`base_url` must begin with https://, except on this machine".into()),
    }
}

/// Is it on this machine, by what is written alone?
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn put_json(request: &mut Request, body: &impl Serialize) -> Result<(), Box<Failure>> {
    let text = serde_json::to_vec(body).map_err(|why| unwritable(&why))?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *request.body_mut() = Some(text.into());
    Ok(())
}

fn unwritable(why: &serde_json::Error) -> Box<Failure> {
    Box::new(Failure::new(
        Code::InvalidInput,
        Phase::Connecting,
        format!("it cannot be written as JSON: {why}"),
    ))
}

enum Kind {
    Events,
    Json,
    Other,
}

fn kind_of(headers: &HeaderMap) -> Kind {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "text/event-stream" | "" => Kind::Events,
        "application/json" => Kind::Json,
        _ => Kind::Other,
    }
}

/// Why there was no answer at all. The library's own words hold the address.
fn unanswered(why: &reqwest::Error) -> Failure {
    tracing::debug!(%why, "no answer");
    let (phase, code, said) = if why.is_connect() && why.is_timeout() {
        (Phase::Connecting, Code::UpstreamTimeout, "no connection was made in time")
    } else if why.is_connect() {
        (Phase::Connecting, Code::UpstreamUnavailable, "no connection could be made")
    } else {
        (Phase::Sent, Code::UpstreamUnavailable, "the connection broke before an answer began")
    };
    Failure::new(code, phase, said)
}

#[cfg(test)]
mod tests;
