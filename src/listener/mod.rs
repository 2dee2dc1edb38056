//! How calls arrive: over HTTP in either era, over the old HTTP+SSE pair, over standard input.
//!
//! What is common to all of them is in [`Front`]: it makes a call of a request and sends it
//! through the stages. The era is told apart request by request, by the body.

use std::{net::SocketAddr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    call::{Call, Replying, Stage},
    settings::Size,
    weaken,
};

mod answer; //      one text or a stream
mod asking; //      a backend's questions, put to a legacy client
pub mod body; //    what an HTTP answer consists of
mod connect; //     pages for browsers
pub mod connection; // one client's connection
mod cors; //        what pages of other origins may
pub mod doors; //   who may reach the gateway, by host and origin
mod endpoint; //    what is at which path
pub mod guard; //   who asks
mod envelope; //    the modern era's requests
mod heads; //       what a request's headers say
pub mod http; //    POST /mcp and its neighbours
mod intake; //      bodies that are taken
pub mod kept; //    streams that outlive a restart
mod legacy; //      the legacy era's requests
mod pipe; //        requests and answers on one stream
pub mod saved; //   sessions that outlive a restart
mod refusal; //     what a refusal looks like
pub mod resource; // what clients are told about tokens
pub mod session; // what clients older than 2026-07-28 expect to be kept
pub mod stdio; //   a line in, a line out
mod replay; //      what was sent, and could be sent again
pub mod sender; //  from where
pub mod tls; //     what clients know the gateway by
mod write; //       what an answer looks like

/// `[listen]`: where clients reach the gateway, and what it takes from them.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where clients connect: `/mcp`, `/mcp/<backend>`, `/mcp/@<set>`, `/sse` for the oldest clients,
    /// and `/health`. Only loopback addresses are accepted while no identity is configured.
    pub address: SocketAddr,
    /// Where `/health`, `/status` and `/explain` are answered for operators. Never make it public.
    pub admin: SocketAddr,
    /// Names under which clients may reach the gateway, besides its own address and
    /// `localhost`. A request for any other host is refused (DNS rebinding).
    pub hosts: Vec<String>,
    /// Origins of web pages that may call the gateway, such as `https://app.example.com`.
    /// Pages of the hosts above may anyway.
    pub origins: Vec<String>,
    /// Proxies in front of the gateway, by address or network, such as `10.0.0.0/8`. From these, and
    /// from nobody else, `X-Forwarded-For` or `Forwarded` is believed, which tells strangers apart.
    pub trusted_proxies: Vec<sender::Network>,
    /// The largest request taken.
    pub body_limit: Size,
    /// How many entries one page of a list has at the most.
    pub page_size: usize,
    pub limits: connection::limits::Settings,
    pub tls: Option<tls::Settings>,
}

impl Default for Settings {
    /// This machine alone, and the limits that official SDKs have too.
    fn default() -> Self {
        let open = weaken::is("defaults-open");
        let here = if open { [0, 0, 0, 0] } else { [127, 0, 0, 1] };
        Self {
            address: SocketAddr::from((here, 8080)),
            admin: SocketAddr::from((here, 8081)),
            hosts: Vec::new(),
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            body_limit: Size(if open { 64 << 20 } else { 4 << 20 }),
            page_size: 1000,
            limits: Default::default(),
            tls: None,
        }
    }
}

impl Settings {
    /// How an address of clients begins.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

pub use pipe::changed;

/// The stages, seen from where calls come in.
#[derive(Debug, Clone)]
pub struct Front<S> {
    stage: S,
    pub sessions: Arc<session::Sessions>,
}

impl<S: Stage> Front<S> {
    pub fn new(stage: S, sessions: Arc<session::Sessions>) -> Self {
        Self { stage, sessions }
    }

    /// Goes on with a session of an earlier run.
    pub fn restore(&self, id: String, record: &saved::Record, streams: Vec<kept::Kept>) {
        let Some(session) = self.sessions.restore(id, record, streams) else { return };
        for uri in record.watched.iter().cloned() {
            let watching = self.watch(&session, uri);
            tokio::spawn(async move {
                if let Err(why) = watching.await {
                    tracing::debug!(%why, "a resource is not watched any more");
                }
            });
        }
    }

    /// Sends a call through the stages. Dropping the future cancels the call.
    fn run(&self, call: Call) -> Replying {
        self.stage.clone().call(call)
    }
}
