//! Who answers a server that wants a text of a model, where its client has none?
//!
//! The setting. Which question is answered so is decided in `router::sampling`; how it becomes one to
//! a model, and the answer one of MCP's, in [`super::openrouter::sampling`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `sampler = {…}` in `[backends.NAME]`: models that answer what a server asks of its client's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The backend whose models answer: the name of a table with `openrouter`. Callers who may not
    /// call its tool complete have no sampler.
    pub backend: String,
    /// How many texts a server may ask for in one call.
    #[serde(default = "Settings::requests")]
    pub max_requests: u32,
    /// How many tokens may be read and written for one call, in all its texts together.
    #[serde(default = "Settings::tokens")]
    pub max_tokens: u64,
}

impl Settings {
    fn requests() -> u32 {
        10
    }

    fn tokens() -> u64 {
        50_000
    }
}
