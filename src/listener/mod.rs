//! How calls arrive: over HTTP in either era, over the old HTTP+SSE pair, over standard input.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::Size;

pub mod session; // what clients older than 2026-07-28 expect to be kept

/// `[listen]`: where clients reach the gateway, and what it takes from them.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where clients connect: `/mcp`, `/mcp/<backend>`, `/sse` for the oldest clients, and
    /// `/health`. Only loopback addresses are accepted while no identity is configured.
    pub address: SocketAddr,
    /// Where `/health` and `/status` are answered for operators. Never make it public.
    pub admin: SocketAddr,
    /// Names under which clients may reach the gateway, besides its own address and
    /// `localhost`. A request for any other host is refused (DNS rebinding).
    pub hosts: Vec<String>,
    /// Origins of web pages that may call the gateway, such as `https://app.example.com`.
    /// Pages of the hosts above may anyway.
    pub origins: Vec<String>,
    /// The largest request taken.
    pub body_limit: Size,
    /// How many entries one page of a list has at the most.
    pub page_size: usize,
}

impl Default for Settings {
    /// This machine alone, and the limits that official SDKs have too.
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8081)),
            hosts: Vec::new(),
            origins: Vec::new(),
            body_limit: Size(4 << 20),
            page_size: 1000,
        }
    }
}
