//! Who answers: MCP servers behind connections of several kinds, and the gateway's own tools.
//!
//! There is one method, because MCP already says the rest: a backend's tools are its reply to
//! `tools/list`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    call::{Call, Reply},
    error::Result,
    settings::{Duration, Text},
    wire::{
        capability::Capabilities,
        mcp::{Era, List, Revision},
    },
};

mod answered; //      what came over HTTP
mod apart; //         questions that come apart from their call
mod budget; //        calls that are made again
mod cancel; //        a call that nobody waits for any more
pub mod credential; // what the gateway proves itself with
mod events; //        answers that come as event streams
mod exchange; //      what comes back for a call
pub mod guardian; //  the end of child processes when the gateway is killed
mod handshake; //     which era a server speaks, and what it offers
mod headers; //       headers that a configuration may set
mod http; //          Streamable HTTP
mod http1; //         one exchange, byte by byte
mod mailbox; //       what waits for a slow caller
mod mirror; //        arguments that stand in headers too
mod mux; //           one stream, many requests
pub mod openrouter; // models, over OpenRouter
mod owner; //         whose a connection is
mod parking; //       calls that wait for their client
mod personal; //      who has an account of their own
mod pool; //          connections to an HTTP server
mod profiles; //      who shares a connection
mod replicas; //      several servers that are the same
pub mod sampler; //   who answers for a client that has no model
mod server; //        an MCP server, over any of these
mod sse; //           HTTP+SSE
mod stdio; //         child processes
pub mod transport; // what a connection must be able to do
mod visits; //        pages that clients were sent to

pub use mirror::Mirrored;
pub use replicas::{Balance, Group};

/// Something that answers calls.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Reply>>;

    /// How it is, for people.
    fn status(&self) -> Status;

    /// What the server said it can do, once it has been reached.
    fn offer(&self) -> Option<Arc<Offer>>;

    /// Tells which era it spoke in an earlier run. Only a hint: if it does not hold, the backend
    /// is asked again.
    fn expect(&self, _era: Era) {}

    /// Tells of changes of these resources from now on, as [`Notice::Updated`], and of no others.
    fn watch(&self, _uris: BTreeSet<String>) {}

    /// Sees to it that the caller has an account here, where each needs one.
    fn connect(&self, _call: Box<Call>) -> BoxFuture<'_, Result<Connected>> {
        Box::pin(std::future::ready(Ok(Connected::Needless)))
    }

    /// Ends connections and children in good order.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Has a caller an account at a backend?
#[derive(Debug)]
pub enum Connected {
    Yes,
    /// The backend asks nobody for one, or only for some calls.
    Needless,
    /// The caller is to be asked this first.
    Asks(Reply),
}

/// A call with the name its backend knows for the target.
#[derive(Debug, Clone)]
pub struct Ask {
    /// In a box, since it is handed on often and large.
    pub call: Box<Call>,
    pub target: Option<Arc<str>>,
    /// Arguments that the tool wants repeated in `Mcp-Param-…` headers.
    pub mirrored: Arc<[Mirrored]>,
    /// The tool's output schema was wrapped for clients of the legacy era.
    pub wrapped: bool,
    pub task_support: TaskSupport,
    /// It does no harm to run it a second time.
    pub repeatable: bool,
    /// It changes nothing.
    pub read_only: bool,
}

/// May calls of a tool be made as tasks, or must they (2025-11-25, `execution.taskSupport`)?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TaskSupport {
    #[default]
    None,
    Optional,
    Required,
}

impl Ask {
    /// A call whose target is called the same by the backend.
    pub fn as_is(call: Call) -> Self {
        let (call, task_support) = (Box::new(call), TaskSupport::None);
        Self {
            call,
            target: None,
            mirrored: Arc::default(),
            wrapped: false,
            task_support,
            repeatable: true,
            read_only: true,
        }
    }
}

/// What a server offers, as its handshake or discovery said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub era: Era,
    pub revision: Revision,
    /// A JSON object.
    pub capabilities: String,
    /// A JSON object with the server's name and version.
    pub server_info: String,
    pub instructions: Option<String>,
}

/// What a backend tells the catalog of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A connection was made; everything may have changed while there was none.
    Connected,
    Changed(List),
    /// A resource that is watched has changed, or one below it.
    Updated(String),
    /// The same of a resource that is one caller's, who alone is told: by [`Caller::name`](crate::call::Caller::name).
    UpdatedOf {
        caller: String,
        uri: String,
    },
    /// The connection or the child has ended.
    Lost,
}

/// Takes a backend's notices.
pub type Notices = Arc<dyn Fn(Notice) + Send + Sync>;

/// How a backend is.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub state: State,
    /// What connects us: `stdio`, `http`, `sse`, `built-in`.
    pub transport: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Why it is not ready, and the last lines its child wrote to the error output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Connections made, or children started, since the gateway started.
    pub connections: u64,
    /// Where it is several servers that are the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<Part>,
    #[serde(skip)]
    pub since: SystemTime,
}

/// How one of several servers is that are the same. Told by its number, since not everybody who may
/// see this may know addresses.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Its place in `urls`, from 1 on.
    pub number: usize,
    /// That of its group.
    pub group: usize,
    pub state: Place,
    pub under_way: usize,
    pub calls: u64,
    pub failed: u64,
    pub average_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Nobody has asked it anything yet.
    Starting,
    Ready,
    Down,
    /// It failed too often, and is probed until it answers.
    Ejected,
    /// It was ejected, and gets its part of the calls by and by.
    Returning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody has asked it anything yet, or the first connection is being made.
    Starting,
    Ready,
    /// The last attempt failed; the next is made when it is due.
    Down,
    /// Nobody has connected an account yet, without which the server shows nothing.
    NeedsConsent,
}

/// `[backends.NAME]`: an MCP server. Give `command` for a program to start, or `url` for a server
/// that runs already.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A program to start as a child process, which speaks MCP over its standard input and
    /// output. Found on PATH, started without a shell.
    pub command: Option<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, besides PATH, HOME, USER, LANG, LC_ALL, TZ, TMPDIR and TERM, which it
    /// inherits. Nothing else of the gateway's environment reaches it.
    pub env: BTreeMap<String, Text>,
    /// Its working directory; the gateway's own by default.
    pub cwd: Option<PathBuf>,

    /// The address of a server over HTTP.
    pub url: Option<String>,
    /// In place of `url`: the addresses of several servers that are the same, in order of preference. A
    /// later one gets calls only while those before it are out of use. Several that are as good as each
    /// other stand in a list of their own, and share the calls:
    /// `[["https://a.example.com/mcp", "https://b.example.com/mcp"], "https://far.example.com/mcp"]`.
    pub urls: Vec<Group>,
    /// By what it is decided which of the `urls` that are as good as each other takes a call.
    pub balance: Balance,
    /// After how long without a reply a call that only reads is made at a second one of the `urls`
    /// too, and the first reply taken. Never by default.
    pub hedge: Option<Duration>,
    /// How the server at `url` is spoken to. By default Streamable HTTP is tried first, then
    /// the HTTP+SSE pair of 2024-11-05.
    pub transport: TransportKind,
    /// Headers sent with every request to `url`.
    pub headers: BTreeMap<String, Text>,

    /// How the gateway gets tokens for `url`, if the server wants OAuth.
    pub auth: Option<credential::Settings>,

    /// Which era of the protocol the server speaks. By default it is asked.
    pub era: EraKind,
    /// What its tools and prompts are called after: `<prefix>__<tool>`. By default the name of
    /// this table; `""` leaves the names as they are.
    pub prefix: Option<String>,
    /// How long making a connection may take, the handshake included; 30 seconds by default,
    /// since a package runner may have to fetch the server first.
    pub connect_timeout: Option<Duration>,
    /// Who shares a child process, or a session with a server. Servers of revision 2026-07-28 over
    /// HTTP keep nothing between two requests, so all callers share a connection to them,
    /// whatever is said here.
    pub share: Share,
    /// How many child processes or sessions there may be at the same time, from 2 on; 64 by
    /// default. A call that finds all of them at work waits up to 30 seconds for one.
    pub max_connections: Option<usize>,
    /// After how long without a call a child process or session ends; 10 minutes by default. The
    /// one over which the gateway itself reads what there is stays.
    pub idle: Option<Duration>,
    /// Models of OpenRouter behind tools, with conversations that last: the gateway is the server itself,
    /// so there is neither `command` nor `url`. `openrouter = {}` is enough to try it with a simulator.
    pub openrouter: Option<Box<openrouter::Settings>>,
    /// Has models of OpenRouter answer when the server asks its client for a text of a model
    /// (sampling) and the client has none, at the expense of whoever made the call. Nobody does by
    /// default: then such a server hears that there is no model.
    pub sampler: Option<sampler::Settings>,
    /// `false` leaves the backend out, as if the table were not there.
    pub enabled: Option<bool>,
}

impl Settings {
    /// How long a connection may take where nothing is said: a package runner may have to
    /// fetch the server first.
    pub const CONNECT_TIMEOUT: Duration = Duration::seconds(30);
    /// Of connections where nothing is said.
    pub const MAX_CONNECTIONS: usize = 64;
    /// As long as connections are kept where nothing is said.
    pub const IDLE: Duration = Duration::seconds(10 * 60);

    /// The backend that these settings describe, or what is wrong with them. Connects nowhere.
    pub fn build(
        self,
        name: &str,
        notices: Notices,
        desk: &Arc<credential::Desk>,
        storeroom: &openrouter::Storeroom,
    ) -> Result<Arc<dyn Backend>, String> {
        if let Some(settings) = self.openrouter {
            if self.command.is_some() || self.url.is_some() {
                return Err("a backend is a program, a server, or `openrouter`; leave out the others".into());
            }
            return Ok(openrouter::OpenRouter::new(name, *settings, notices, Arc::clone(storeroom))?);
        }
        let sharing = profiles::Sharing {
            share: self.share,
            most: self.max_connections.unwrap_or(Self::MAX_CONNECTIONS),
            idle: self.idle.unwrap_or(Self::IDLE).0,
            usual: match &self.sampler {
                Some(_) => Capabilities::NONE.with_sampling(),
                None => Capabilities::NONE,
            },
        };
        let timeout = self.connect_timeout.unwrap_or(Self::CONNECT_TIMEOUT).0;
        let kind = if self.transport == TransportKind::Sse { "sse" } else { "http" };
        let parts = |ways, kind| server::Parts {
            name: name.into(),
            ways,
            kind,
            era: self.era,
            timeout,
            notices: Arc::clone(&notices),
            watches: true,
            spared: self.urls.iter().map(|group| group.addresses().len()).sum::<usize>() > 1,
        };
        let mut personal = None;
        let (ways, kind): (Vec<Arc<dyn transport::Connect>>, _) = match (&self.command, &self.url) {
            (None, None) if !self.urls.is_empty() => {
                let member = |group, url: &String| {
                    let ways = over_http(url, self.transport, &self.headers, timeout)?;
                    Ok((group, profiles::Profiles::new(parts(ways, kind), sharing, None)))
                };
                let groups = self.urls.iter().enumerate();
                let members =
                    groups.flat_map(|(at, group)| group.addresses().iter().map(move |url| (at, url)));
                let members =
                    members.map(|(group, url)| member(group, url)).collect::<Result<_, String>>()?;
                let hedge = self.hedge.map(|hedge| hedge.0);
                return Ok(replicas::Replicas::new(name, members, sharing, self.balance, hedge));
            }
            (Some(command), None) => {
                let command = stdio::Command::new(command, &self).map_err(|faults| faults.join("; "))?;
                (vec![Arc::new(stdio::Stdio::new(name, command))], "stdio")
            }
            (None, Some(url)) => match &self.auth {
                None => (over_http(url, self.transport, &self.headers, timeout)?, kind),
                Some(auth) => {
                    let http = http::Http::new(&address(url)?, resolved(&self.headers)?)?;
                    let (way, own) = proving(name, url, http, auth, desk)?;
                    personal = own;
                    (vec![way], kind)
                }
            },
            (Some(_), Some(_)) | (None, None) => return Err("give either `command` or `url`".into()),
        };
        Ok(profiles::Profiles::new(parts(ways, kind), sharing, personal))
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// It is found out.
    #[default]
    Auto,
    /// Streamable HTTP, of either era.
    Streamable,
    /// The two-endpoint transport of 2024-11-05.
    Sse,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// All clients of one caller. Without identities there is one caller, who shares with the
    /// gateway itself, so that one person has one child process for a server.
    #[default]
    Caller,
    /// The requests of one session. A client of revision 2026-07-28 has no sessions; its requests
    /// share as with "caller".
    Session,
    /// Nobody: each call has its own, which ends with it. Where a server of revision 2026-07-28
    /// asks for input, each round is a call.
    Call,
    /// Everybody.
    All,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EraKind {
    /// It is asked.
    #[default]
    Auto,
    /// Revisions 2024-11-05 to 2025-11-25, with a handshake.
    Legacy,
    /// Revision 2026-07-28 and later, without one.
    Modern,
}

fn over_http(
    url: &str,
    transport: TransportKind,
    headers: &BTreeMap<String, Text>,
    timeout: std::time::Duration,
) -> Result<Vec<Arc<dyn transport::Connect>>, String> {
    let parsed = address(url)?;
    let configured = resolved(headers)?;
    let streamable = || {
        Ok::<_, String>(Arc::new(http::Http::new(&parsed, configured.clone())?) as Arc<dyn transport::Connect>)
    };
    let sse = || {
        let sse = sse::Sse::new(&parsed, configured.clone(), timeout)?;
        Ok::<_, String>(Arc::new(sse) as Arc<dyn transport::Connect>)
    };
    Ok(match transport {
        TransportKind::Streamable => vec![streamable()?],
        TransportKind::Sse => vec![sse()?],
        TransportKind::Auto => vec![streamable()?, sse()?],
    })
}

fn address(url: &str) -> Result<::http::Uri, String> {
    let parsed: ::http::Uri = url.parse().map_err(|_| "`url` is no address".to_owned())?;
    match parsed.scheme_str() {
        Some("http" | "https") => Ok(parsed),
        _ => Err("`url` must begin with http:// or https://".into()),
    }
}

/// The headers of a table, with their secrets put in.
fn resolved(headers: &BTreeMap<String, Text>) -> Result<::http::HeaderMap, String> {
    let resolved: Vec<_> = headers
        .iter()
        .map(|(name, text)| Ok((name.as_str(), text.resolve()?)))
        .collect::<Result<_, String>>()?;
    headers::configured(resolved.iter().map(|(name, text)| (*name, text.text.as_str())))
}

/// The gateway's own way to a server that wants OAuth, and those of its callers where each has one.
fn proving(
    name: &str,
    url: &str,
    http: http::Http,
    auth: &credential::Settings,
    desk: &Arc<credential::Desk>,
) -> Result<(Arc<dyn transport::Connect>, Option<personal::Personal>), String> {
    let url = url.parse().map_err(|_| "`url` is no address".to_owned())?;
    Ok(match credential::Source::new(name, &url, auth, desk)? {
        credential::Source::Gateway(account) => (Arc::new(http.proving(account)), None),
        credential::Source::Callers(door) => {
            let own = Arc::new(http.proving(door.own()));
            (own, Some(personal::Personal { door, http }))
        }
    })
}
