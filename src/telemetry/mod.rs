//! What is logged, and how?

use std::{any::Any, io};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{filter::LevelFilter, util::SubscriberInitExt as _};

mod line; // one for each event

pub use line::{OneLine, one_line, one_line_of_json};

use crate::weaken;

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
    // Colours only where somebody looks.
    let coloured = io::IsTerminal::is_terminal(&io::stderr());
    if subscriber(settings, io::stderr, coloured).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, "a rule of our own is broken: {}", reason(panic.payload()));
        }));
    }
}

/// What writes the events of a program to a place, a line each.
pub fn subscriber<W: io::Write>(
    settings: &Settings,
    to: impl Fn() -> W + Send + Sync + 'static,
    coloured: bool,
) -> Box<dyn tracing::Subscriber + Send + Sync> {
    let Settings { level, format } = settings;
    let filter = tracing_subscriber::EnvFilter::try_new(level).unwrap_or_else(|_| "info".into());
    // More of this would be the codes that browsers bring, which are good for a token.
    let talks = filter.max_level_hint().is_none_or(|level| level > LevelFilter::INFO);
    let quiet = talks.then(|| "rmcp::transport::auth=info".parse().ok()).flatten();
    let filter = match quiet {
        Some(directive) => filter.add_directive(directive),
        None => filter,
    };
    let json = *format == Format::Json;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    let log = log.with_writer(move || OneLine { to: to(), json, coloured });
    match format {
        Format::Text => Box::new(log.with_ansi(coloured).finish()),
        Format::Json => Box::new(log.json().finish()),
    }
}

/// Why something panicked, as far as it may be seen: a text that was put together may quote what
/// was being worked on, which is somebody's secret perhaps.
fn reason(payload: &(dyn Any + Send)) -> &str {
    let put_together = "the reason is not shown, since it may quote what was worked on";
    match payload.downcast_ref::<String>() {
        Some(text) if weaken::is("secrets-shown") => text,
        _ => payload.downcast_ref::<&'static str>().copied().unwrap_or(put_together),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_panic_quotes_nothing() {
        let secret = "hush";
        let caught = |body: fn(&str)| std::panic::catch_unwind(|| body(secret)).unwrap_err();
        let fixed = caught(|_| panic!("a rule"));
        assert_eq!(reason(&*fixed), "a rule");
        for body in [|secret: &str| panic!("of {secret}"), |secret: &str| drop(secret[1..9].to_owned())] {
            assert!(!reason(&*caught(body)).contains("ush"));
        }
    }
}
