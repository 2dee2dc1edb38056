//! `waystation status`: how is the gateway, and how is each backend?

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Outcome, Sources,
    client::{Client, ToolCall},
    fail,
    gateway::{Asked, Target, ask},
    print,
    table::{draw, harmless},
};
use crate::config::Environment;

pub const EXAMPLES: &str = "\
Examples:
  waystation status
  waystation status --json | jq '.backends[] | select(.state != \"ready\")'

A backend is `ready`, `starting`, `down` until its next attempt, or `needs-consent` until a
caller has connected an account. What is `stale` was last confirmed before the connection was
lost.";

const PATIENCE: Duration = Duration::from_secs(5);
/// Answers the same to clients that cannot reach the operators' address.
const TOOL: &str = "waystation__status";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Prints the status as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub fn status(arguments: &Arguments, common: Sources, environment: Environment) -> Outcome {
    ask(&arguments.target, common, environment, async |asked| {
        let status = match from_admin(&asked).await {
            Some(status) => Ok(status),
            None => from_tool(&asked).await,
        };
        match status {
            Ok(status) if arguments.json => print(&format!("{status:#}\n")),
            Ok(status) => match serde_json::from_value::<Status>(status) {
                Ok(status) => print(&drawn(&status)),
                Err(why) => fail(format_args!("the status is not as expected ({why}); --json shows it")),
            },
            Err(why) => fail(harmless(&why)),
        }
    })
}

async fn from_admin(asked: &Asked) -> Option<Value> {
    let url = format!("{}/status", asked.admin.as_ref()?);
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().ok()?;
    let response = http.get(url).send().await.ok()?.error_for_status().ok()?;
    response.json().await.ok()
}

async fn from_tool(asked: &Asked) -> Result<Value, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct CallResult {
        structured_content: Value,
    }
    let client = Client::new(asked.url.clone(), asked.token.clone()).map_err(|fault| fault.to_string())?;
    let nothing: Box<RawValue> = serde_json::from_str("{}").expect("an empty object is JSON");
    let call = ToolCall { name: TOOL, arguments: &nothing, mirrored: Vec::new() };
    let result = client.call(&call, &mut |_| {}).await.map_err(|fault| fault.to_string())?;
    let result: CallResult =
        serde_json::from_str(result.get()).map_err(|_| format!("{TOOL} does not answer with a status"))?;
    Ok(result.structured_content)
}

#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    address: String,
    uptime_s: u64,
    backends: Vec<Backend>,
}

#[derive(Debug, Deserialize)]
struct Backend {
    name: String,
    state: String,
    #[serde(default)]
    transport: String,
    revision: Option<String>,
    #[serde(default)]
    tools: u64,
    #[serde(default)]
    prompts: u64,
    #[serde(default)]
    resources: u64,
    problem: Option<String>,
    #[serde(default)]
    stale: bool,
    #[serde(default)]
    faults: Vec<String>,
}

fn drawn(status: &Status) -> String {
    let mut text = format!(
        "waystation {} at {}, up {}\n\n",
        status.version,
        harmless(&status.address),
        elapsed(status.uptime_s)
    );
    let rows: Vec<_> = status.backends.iter().map(row).collect();
    text += &draw(&["BACKEND", "STATE", "TRANSPORT", "REVISION", "TOOLS", "PROMPTS", "RESOURCES"], &rows);
    let problems: Vec<_> = status.backends.iter().flat_map(problems).collect();
    if !problems.is_empty() {
        text += "\n";
        text += &problems.concat();
    }
    text
}

fn row(backend: &Backend) -> Vec<String> {
    let state = if backend.stale { format!("{}, stale", backend.state) } else { backend.state.clone() };
    let revision = backend.revision.clone().unwrap_or_else(|| "-".into());
    let texts =
        [&backend.name, &state, &backend.transport, &revision].map(|text| harmless(text).into_owned());
    let numbers = [backend.tools, backend.prompts, backend.resources].map(|number| number.to_string());
    texts.into_iter().chain(numbers).collect()
}

/// What is wrong with a backend, its later lines below the first.
fn problems(backend: &Backend) -> Vec<String> {
    let said = backend.problem.iter().chain(&backend.faults);
    said.map(|problem| {
        format!("{}: {}\n", backend.name, harmless(problem.trim_end()).replace('\n', "\n    "))
    })
    .collect()
}

fn elapsed(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn backends_are_drawn_as_a_table_with_their_problems_below() {
        let status = json!({
            "version": "0.1.0", "address": "127.0.0.1:8080", "uptime_s": 3700, "ready": 1,
            "backends": [
                { "name": "docs", "state": "ready", "transport": "http", "revision": "2025-11-25",
                  "tools": 12, "prompts": 0, "resources": 3, "stale": false },
                { "name": "github", "state": "down", "transport": "stdio", "tools": 7, "prompts": 0,
                  "resources": 0, "stale": true, "problem": "exit code 1\n\u{1b}[31mno token\n" },
            ],
        });
        let expected = "\
waystation 0.1.0 at 127.0.0.1:8080, up 1 h 1 min

BACKEND  STATE        TRANSPORT  REVISION    TOOLS  PROMPTS  RESOURCES
docs     ready        http       2025-11-25     12        0          3
github   down, stale  stdio      -               7        0          0

github: exit code 1
    [31mno token
";
        assert_eq!(drawn(&serde_json::from_value(status).unwrap()), expected);
    }
}
