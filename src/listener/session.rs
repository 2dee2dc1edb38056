//! What do clients older than 2026-07-28 expect us to remember?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::Duration;

/// `[session]`: what is kept for clients that speak a revision older than 2026-07-28.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether each client has a session of its own, or clients that bring no session id share
    /// one that begins anew when it was idle. The latter is for a gateway embedded behind a
    /// service that speaks for one client.
    pub mode: Mode,
    /// After how long without a request a session ends.
    pub idle: Duration,
    /// How many sessions there may be. One more is refused with 503.
    pub max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Each client has a session of its own.
    #[default]
    PerClient,
    /// Clients that bring no session id share one.
    Single,
}

impl Default for Settings {
    fn default() -> Self {
        Self { mode: Mode::PerClient, idle: Duration::seconds(30 * 60), max: 10_000 }
    }
}
