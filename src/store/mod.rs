//! The only door to the disk.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[store]`: what the gateway keeps on disk, so that lists answer at once after a start.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The database file. By default `waystation/waystation.db` in `$XDG_STATE_HOME`, which is
    /// `~/.local/state` unless set. `":memory:"` keeps nothing.
    pub path: Option<PathBuf>,
}
