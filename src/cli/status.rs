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

A backend of several `urls` has a row for each of them below: `ejected` is one that failed too
often, until a probe is answered, and `returning` one that is just back.

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
    #[serde(default)]
    replicas: Vec<Replica>,
}

/// One of several servers that are the same.
#[derive(Debug, Deserialize)]
struct Replica {
    number: u64,
    group: u64,
    state: String,
    under_way: u64,
    calls: u64,
    failed: u64,
    average_ms: f64,
    problem: Option<String>,
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
    let replicas: Vec<_> = status.backends.iter().flat_map(replicas).collect();
    if !replicas.is_empty() {
        text += "\n";
        let heads = ["REPLICA", "GROUP", "STATE", "UNDER WAY", "CALLS", "FAILED", "AVERAGE"];
        text += &draw(&heads, &replicas);
    }
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

/// A row for each of the servers that a backend is.
fn replicas(backend: &Backend) -> Vec<Vec<String>> {
    let row = |replica: &Replica| {
        let Replica { number, group, state, under_way, calls, failed, average_ms, problem: _ } = replica;
        let counts = [under_way, calls, failed].map(u64::to_string);
        let first = [format!("{} {number}", backend.name), group.to_string(), harmless(state).into_owned()];
        first.into_iter().chain(counts).chain([format!("{average_ms} ms")]).collect()
    };
    backend.replicas.iter().map(row).collect()
}

/// What is wrong with a backend, its later lines below the first.
fn problems(backend: &Backend) -> Vec<String> {
    let said = backend.problem.iter().chain(&backend.faults).map(|problem| (backend.name.clone(), problem));
    let replicas = backend.replicas.iter().filter_map(|replica| {
        Some((format!("{} {}", backend.name, replica.number), replica.problem.as_ref()?))
    });
    said.chain(replicas)
        .map(|(whose, problem)| {
            format!("{whose}: {}\n", harmless(problem.trim_end()).replace('\n', "\n    "))
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
                { "name": "search", "state": "ready", "transport": "http", "revision": "2026-07-28",
                  "tools": 1, "prompts": 0, "resources": 0, "replicas": [
                    { "number": 1, "group": 1, "state": "ready", "under_way": 3, "calls": 120, "failed": 0,
                      "average_ms": 1.25 },
                    { "number": 2, "group": 1, "state": "ejected", "under_way": 0, "calls": 20, "failed": 5,
                      "average_ms": 1000.0, "problem": "no connection" } ] },
            ],
        });
        let expected = "\
waystation 0.1.0 at 127.0.0.1:8080, up 1 h 1 min

BACKEND  STATE        TRANSPORT  REVISION    TOOLS  PROMPTS  RESOURCES
docs     ready        http       2025-11-25     12        0          3
github   down, stale  stdio      -               7        0          0
search   ready        http       2026-07-28      1        0          0

REPLICA   GROUP  STATE    UNDER WAY  CALLS  FAILED  AVERAGE
search 1      1  ready            3    120       0  1.25 ms
search 2      1  ejected          0     20       5  1000 ms

github: exit code 1
    [31mno token
search 2: no connection
";
        assert_eq!(drawn(&serde_json::from_value(status).unwrap()), expected);
    }
}
