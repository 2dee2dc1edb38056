//! `waystation check`: is a configuration all right?

use super::{Outcome, Sources, complain, print};
use crate::{app, config::Environment};

pub const EXAMPLES: &str = "\
Examples:
  waystation check
  waystation check --config other.toml

Ends with 0 if all is well and with 78 if not. On a terminal each complaint is drawn with its line;
otherwise it is a line of its own: error: FILE:LINE:COLUMN: KEY: what is wrong; what would be right";

pub fn check(sources: &Sources, environment: &Environment) -> Outcome {
    let loaded = match sources.load(environment) {
        Ok(loaded) => loaded,
        Err(outcome) => return outcome,
    };
    if let Err(complaints) = app::check(&loaded.config) {
        return complain(&complaints.located(&loaded.source));
    }
    let backends = loaded.config.backends.iter().filter(|(_, settings)| settings.enabled != Some(false));
    let names: Vec<_> = backends.map(|(name, _)| name.as_str()).collect();
    let backends = match names.len() {
        0 => "no backends".to_owned(),
        1 => format!("1 backend, {}", names[0]),
        number => format!("{number} backends, {}", names.join(", ")),
    };
    print(&format!("{} is all right: {backends}\n", loaded.source.name()))
}
