//! Why does the gateway say no, and how does that look from outside?
//!
//! Only our own refusals live here. A backend that answers with a JSON-RPC error has
//! *answered*: that is a [`Reply`](crate::call::Reply), and it goes home as a reply.
//!
//! The message is for its reader: what was wrong and what would be right, and nothing they may
//! not know. An unknown name and a hidden one read alike.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::wire::{
    mcp::{Era, Method, Revision, code},
    message::Malformed,
};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("not a JSON text that every reader reads alike: {0}")]
    NotJson(crate::wire::json::Fault),
    #[error("not a JSON-RPC message: {what}")]
    NotRpc { what: &'static str, id: Option<Bytes> },
    #[error("there is nothing here; the endpoints are /mcp, /mcp/<backend> and /mcp/@<set>")]
    NoEndpoint,
    #[error("there is no method {0:?} here")]
    UnknownMethod(String),
    #[error("there is no tool named {0:?}; tools/list gives the names")]
    UnknownTool(String),
    #[error("there is no prompt named {0:?}; prompts/list gives the names")]
    UnknownPrompt(String),
    #[error("there is no resource {0:?}; resources/list gives their URIs")]
    UnknownResource(String),
    /// What it is for is listed, so there is nothing to hide.
    #[error("these arguments are not allowed for {0:?}; some others are")]
    Arguments(String),
    #[error("this needs a token with {}; ask its issuer for one", scopes(.0))]
    NeedsScopes(std::sync::Arc<[String]>),
    #[error("there is no task {0:?}")]
    UnknownTask(String),
    #[error("this needs a client that declares the extension {0} in its capabilities")]
    NeedsExtension(&'static str),
    /// A call that was under way when something ended, and may have run.
    #[error("{0}")]
    Lost(&'static str),
    #[error("{0}")]
    Params(String),
    /// A list's cursor that we did not give out, or not to this caller or for this list.
    #[error("the cursor is not one of this list; leave it out to begin again")]
    Cursor,
    #[error("{0}")]
    Envelope(String),
    #[error("{0}")]
    Header(String),
    #[error("revision {requested:?} is not spoken here; {} is", Revision::NEWEST)]
    Version { requested: String },
    /// The backend could not be asked, or what it said was no answer.
    #[error("backend {backend}: {why}")]
    Backend { backend: String, why: String, fate: Fate },
    /// The caller has no account at the backend yet, or not for this.
    #[error("backend {backend} wants you to connect your account: open {page} in a browser, then try again")]
    Consent { backend: String, page: String },
    #[error("{target}: no answer and no sign of life for {}; the call may have run", seconds(.after))]
    Idle { target: String, after: std::time::Duration },
    #[error("{target}: not done after {}, which is as long as a call may take; it may have run", seconds(.after))]
    Deadline { target: String, after: std::time::Duration },
    #[error(
        "the gateway was restarted while this call was under way; it may have run, so look before you \
         make it again"
    )]
    Restarted,
    #[error("this asks for the user's or the model's input, which this client cannot be asked for here")]
    NoInput,
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Limited(Box<Reached>),
}

/// How far a call came that its backend did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing of it reached the backend.
    NotSent,
    /// It may have run, or the backend was out of order.
    Unknown,
    /// The backend has said something that is no answer, or has refused it.
    Answered,
}

/// A limit that is reached for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The key of `routes.toml` under which it stands.
    pub limit: String,
    /// What it allows, as it is written there.
    pub says: String,
    /// After this the call fits.
    pub wait: std::time::Duration,
    /// Of limits that are so many in some time.
    pub policy: Option<Policy>,
}

/// So many in so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub count: u64,
    pub window: u64,
}

/// Read by models: what it was, and what helps.
impl std::fmt::Display for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { limit, says, wait, policy: _ } = self;
        let wait = wait.as_millis().div_ceil(100) as f64 / 10.0;
        write!(
            f,
            "too many calls: {limit} allows {says}; the call was not made, wait {wait} s and make it again"
        )
    }
}

impl Reached {
    /// The wait in whole seconds, as headers have it: rounded up, so that whoever waits so long
    /// has waited long enough.
    fn seconds(&self) -> u64 {
        self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0)
    }
}

fn scopes(names: &[String]) -> String {
    format!("the {} {}", if names.len() == 1 { "scope" } else { "scopes" }, names.join(" "))
}

fn seconds(duration: &std::time::Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Json(fault) => Self::NotJson(fault),
            Malformed::Rpc(what, id) => Self::NotRpc { what, id },
        }
    }
}

impl Error {
    pub fn backend(name: impl Into<String>, why: impl ToString) -> Self {
        Self::Backend { backend: name.into(), why: why.to_string(), fate: Fate::Answered }
    }

    /// The HTTP status and the JSON-RPC code of every refusal: the one table.
    ///
    /// Fixed by the specification: `mcp-eras` tables of codes (2026-07-28, "Status codes"). Codes
    /// of our own stay outside JSON-RPC's reserved range and repeat the HTTP status they
    /// resemble. On a legacy session every answer to a well-formed request is a 200, since a
    /// client takes 404 there for the end of its session.
    pub fn codes(&self, era: Era) -> (u16, i64) {
        let modern = |status| if era == Era::Modern { status } else { 200 };
        match self {
            Self::NotJson(_) => (400, code::PARSE_ERROR),
            Self::NotRpc { .. } => (400, code::INVALID_REQUEST),
            Self::NoEndpoint => (404, code::METHOD_NOT_FOUND),
            Self::UnknownMethod(_) => (modern(404), code::METHOD_NOT_FOUND),
            Self::UnknownResource(_) if era == Era::Legacy => (200, code::RESOURCE_NOT_FOUND),
            Self::UnknownTool(_) | Self::UnknownPrompt(_) | Self::UnknownResource(_) => {
                (200, code::INVALID_PARAMS)
            }
            Self::Params(_) | Self::Cursor | Self::UnknownTask(_) => (200, code::INVALID_PARAMS),
            Self::NeedsExtension(_) => (modern(400), code::MISSING_CAPABILITY),
            Self::Arguments(_) => (200, 403),
            // Also on a session: the status is what clients go by to get another token.
            Self::NeedsScopes(_) => (403, 403),
            Self::Lost(_) => (200, 502),
            Self::Envelope(_) => (400, code::INVALID_PARAMS),
            Self::Header(_) => (400, code::HEADER_MISMATCH),
            Self::Version { .. } => (400, code::UNSUPPORTED_VERSION),
            Self::Backend { .. } => (200, 502),
            Self::Consent { .. } => (200, 401),
            Self::Idle { .. } | Self::Deadline { .. } => (200, 504),
            Self::Restarted => (200, 500),
            Self::NoInput => (200, code::INTERNAL_ERROR),
            Self::Busy(_) => (503, 503),
            Self::Limited(_) => (modern(429), 429),
        }
    }

    /// What an HTTP answer says beside the body. (RFC 9110 `Retry-After`;
    /// draft-ietf-httpapi-ratelimit-headers.)
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let Self::Limited(limited) = self else { return Vec::new() };
        let (seconds, limit) = (limited.seconds(), limited.limit.replace(['"', '\\'], "_"));
        let mut headers = vec![("retry-after", seconds.to_string())];
        if let Some(Policy { count, window }) = limited.policy {
            headers.push(("ratelimit", format!("\"{limit}\";r=0;t={seconds}")));
            headers.push(("ratelimit-policy", format!("\"{limit}\";q={count};w={window}")));
        }
        headers
    }

    /// What the specification wants beside code and message.
    fn data(&self) -> Option<Value> {
        match self {
            Self::UnknownResource(uri) => Some(json!({ "uri": uri })),
            Self::NeedsScopes(scopes) => Some(json!({ "requiredScopes": **scopes })),
            Self::Version { requested } => {
                Some(json!({ "supported": [Revision::NEWEST.name()], "requested": requested }))
            }
            Self::NeedsExtension(name) => {
                Some(json!({ "requiredCapabilities": { "extensions": { *name: {} } } }))
            }
            Self::Limited(limited) => {
                let wait = u64::try_from(limited.wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
                Some(json!({ "limit": limited.limit, "retryAfterMs": wait }))
            }
            _ => None,
        }
    }

    /// The response as JSON-RPC has it. Without an id the member is left out, as MCP's schema
    /// allows and JSON-RPC's `null` would not be.
    pub fn response(&self, id: Option<&[u8]>, era: Era) -> Vec<u8> {
        let mut error = json!({ "code": self.codes(era).1, "message": self.to_string() });
        if let Some(data) = self.data() {
            error["data"] = data;
        }
        let mut out = b"{\"jsonrpc\":\"2.0\",".to_vec();
        if let Some(id) = id {
            out.extend_from_slice(b"\"id\":");
            out.extend_from_slice(id);
            out.push(b',');
        }
        out.extend_from_slice(format!("\"error\":{error}}}").as_bytes());
        out
    }

    /// The refusal of a target that is unknown, or that this caller may not know of.
    pub fn unknown(method: Method, target: &str) -> Self {
        match method {
            Method::PromptsGet => Self::UnknownPrompt(target.to_owned()),
            Method::ResourcesRead | Method::SkillsGet | Method::DirectoryRead => {
                Self::UnknownResource(target.to_owned())
            }
            _ => Self::UnknownTool(target.to_owned()),
        }
    }
}
