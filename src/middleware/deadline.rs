//! How long may a call take?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::Duration;

/// `[deadline]`: how long a call may take.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a backend may give no sign of life. Progress and log messages are signs.
    pub idle: Duration,
    /// How long a call may take in all, whatever the signs.
    pub total: Duration,
    /// Other times for some tools, by their name here; `*` stands for any letters.
    pub tools: BTreeMap<String, Times>,
}

/// Other times than the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// How long the backend may give no sign of life; as for all tools where it is not said.
    pub idle: Option<Duration>,
    /// How long the call may take in all; as for all tools where it is not said.
    pub total: Option<Duration>,
}

impl Default for Settings {
    /// As official clients wait, and long enough for a model or a build in all.
    fn default() -> Self {
        Self { idle: Duration::seconds(60), total: Duration::seconds(600), tools: BTreeMap::new() }
    }
}
