//! What is logged, and how?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::LevelFilter;

/// `[log]`: what is logged. The log goes to the standard error output.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `waystation=debug,hyper=warn`.
    pub level: String,
    /// How a line looks.
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines, one object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: "info".into(), format: Format::Text }
    }
}

/// Starts the log. Does nothing if there is one already.
pub fn start(settings: &Settings) {
    let Settings { level, format } = settings;
    let filter = tracing_subscriber::EnvFilter::try_new(level).unwrap_or_else(|_| "info".into());
    // More of this would be the codes that browsers bring, which are good for a token.
    let talks = filter.max_level_hint().is_none_or(|level| level > LevelFilter::INFO);
    let quiet = talks.then(|| "rmcp::transport::auth=info".parse().ok()).flatten();
    let filter = match quiet {
        Some(directive) => filter.add_directive(directive),
        None => filter,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours only where somebody looks.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let started = match format {
        Format::Text => log.with_ansi(colours).with_target(false).try_init(),
        Format::Json => log.json().with_target(false).try_init(),
    };
    drop(started);
}
