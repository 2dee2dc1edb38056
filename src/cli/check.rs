//! `waystation check`: is a configuration all right?

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::{Outcome, Sources, complain, fail, print, reload, stop};
use crate::{app, config::Environment};

pub const EXAMPLES: &str = "\
Examples:
  waystation check
  waystation check --config other.toml
  waystation check --diff                          what a reload of the running gateway would change, for whom

Ends with 0 if all is well and with 78 if not. On a terminal each complaint is drawn with its line;
otherwise it is a line of its own: error: FILE:LINE:COLUMN: KEY: what is wrong; what would be right";

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Asks the running gateway what tools, permissions and limits would change for whom, if it read the
    /// files again that it was started with.
    #[arg(long)]
    diff: bool,
}

pub fn check(arguments: Arguments, common: Sources, environment: &Environment) -> Outcome {
    let sources = arguments.sources.or(common);
    let loaded = match sources.load(environment) {
        Ok(loaded) => loaded,
        Err(outcome) => return outcome,
    };
    if let Err(complaints) = app::check(&loaded.config) {
        return complain(&complaints.located(&loaded.source));
    }
    if arguments.diff {
        return difference(loaded.config.listen.admin);
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

/// What the gateway says.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Difference(Difference),
    Refused { error: String },
}

#[derive(Deserialize)]
struct Difference {
    backends: BTreeMap<String, String>,
    callers: Vec<Other>,
    limits: Vec<Limit>,
    needs_restart: Vec<String>,
}

#[derive(Deserialize)]
struct Other {
    who: String,
    gets: Vec<String>,
    loses: Vec<String>,
}

#[derive(Deserialize)]
struct Limit {
    key: String,
    from: Value,
    to: Value,
}

fn difference(admin: SocketAddr) -> Outcome {
    stop::run(|_| async move {
        let asked = async {
            let got = reload::client()?.get(format!("http://{admin}/diff")).send().await?;
            got.json().await
        };
        match asked.await {
            Ok(Answer::Difference(difference)) => print(&told(&difference)),
            Ok(Answer::Refused { error }) => fail(format_args!("a reload would change nothing:\n{error}")),
            Err(why) => fail(format_args!("no gateway answers at {admin}: {why}")),
        }
    })
}

fn told(difference: &Difference) -> String {
    let mut text = String::new();
    for (name, fate) in &difference.backends {
        let _ = writeln!(text, "backend {name}: {}", fate.replace('-', " "));
    }
    for Other { who, gets, loses } in &difference.callers {
        let _ = writeln!(text, "for {who}:");
        let signed = gets.iter().map(|tool| ('+', tool)).chain(loses.iter().map(|tool| ('-', tool)));
        for (sign, tool) in signed {
            let _ = writeln!(text, "  {sign} {tool}");
        }
    }
    let shown = |value: &Value| match value {
        Value::Null => "nothing said".to_owned(),
        other => other.to_string(),
    };
    for Limit { key, from, to } in &difference.limits {
        let _ = writeln!(text, "limit.{key}: {} -> {}", shown(from), shown(to));
    }
    for table in &difference.needs_restart {
        let _ = writeln!(text, "[{table}]: after a restart");
    }
    if text.is_empty() { "no tool, permission or limit would change\n".to_owned() } else { text }
}
