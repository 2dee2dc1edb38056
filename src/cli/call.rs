//! `waystation call`: what does a tool answer?

use std::{io, io::Write as _, time};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{
    Outcome, Sources, arguments,
    client::{Client, Fault, Progress, ToolCall},
    fail,
    gateway::{Asked, Target, ask},
    print,
    table::{for_output, harmless, shortened},
};
use crate::{
    backend::Mirrored,
    config::{Environment, did_you_mean},
    settings::Duration,
    wire::mcp::List,
};

pub const EXAMPLES: &str = "\
Examples:
  waystation call waystation__status
  waystation call time__get_current_time --arg timezone=Europe/Berlin
  waystation call files__write --json '{\"path\": \"a.txt\", \"content\": \"hello\"}'

Texts of the answer go to standard output, the rest of it with --raw. An error that the tool
reports goes to standard error, and the command then ends with 1. Ctrl-C cancels the call.";

#[derive(Debug, Args)]
pub struct Arguments {
    /// The tool, as `waystation list` has it.
    tool: String,
    /// An argument. Numbers, truths, lists and objects are written as in JSON.
    #[arg(long = "arg", short, value_name = "NAME=VALUE", conflicts_with = "json")]
    arguments: Vec<String>,
    /// All arguments at once.
    #[arg(long, value_name = "OBJECT")]
    json: Option<String>,
    /// How long to wait, such as 30s or 5m; the call is cancelled then.
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    timeout: Option<time::Duration>,
    /// Prints the whole result as JSON.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    target: Target,
}

pub fn call(arguments: &Arguments, common: Sources, environment: Environment) -> Outcome {
    ask(&arguments.target, common, environment, async |asked| {
        let called = called(&asked, arguments);
        let result = match arguments.timeout {
            None => called.await,
            Some(timeout) => tokio::time::timeout(timeout, called).await.unwrap_or_else(|_| {
                Err(format!("no answer after {}; the call was cancelled", Duration(timeout)))
            }),
        };
        match result {
            Ok(result) => show(&result, arguments.raw),
            Err(why) => fail(harmless(&why)),
        }
    })
}

async fn called(asked: &Asked, arguments: &Arguments) -> Result<Box<RawValue>, String> {
    let client = Client::new(asked.url.clone(), asked.token.clone()).map_err(|fault| fault.to_string())?;
    let schema = schema(&client, &arguments.tool).await?;
    let given = match &arguments.json {
        Some(text) => arguments::from_json(text)?,
        None => arguments::from_pairs(&arguments.arguments, &schema)?,
    };
    let mirrored = Mirrored::all(&schema)?;
    let value = |one: Mirrored| Some((one.header.clone(), one.value(given.get().as_bytes())?));
    let mirrored = mirrored.into_iter().filter_map(value).collect();
    let call = ToolCall { name: &arguments.tool, arguments: &given, mirrored };
    let bar = Bar::default();
    client.call(&call, &mut |progress| bar.show(&progress)).await.map_err(|fault| fault.to_string())
}

/// The schema of the tool's arguments: it says what values mean, and which of them stand in
/// headers too.
async fn schema(client: &Client, tool: &str) -> Result<Value, String> {
    #[derive(Deserialize)]
    struct Tool {
        name: String,
        #[serde(default, rename = "inputSchema")]
        schema: Value,
    }
    let tools = client.list(List::Tools).await.map_err(|fault: Fault| fault.to_string())?;
    let tools: Vec<Tool> = tools.iter().filter_map(|tool| serde_json::from_str(tool.get()).ok()).collect();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
    let unknown = match did_you_mean(tool, &names) {
        hint if hint.starts_with("did") => hint,
        _ => "`waystation list` has them all".to_owned(),
    };
    let found = tools.iter().find(|one| one.name == tool);
    found.map(|tool| tool.schema.clone()).ok_or_else(|| format!("there is no tool {tool:?}; {unknown}"))
}

/// How far the call has come, on standard error if that is a terminal.
#[derive(Debug)]
struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        // indicatif draws nothing where standard error is no terminal.
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(time::Duration::from_millis(100));
        Self(bar)
    }
}

impl Bar {
    fn show(&self, progress: &Progress) {
        // Finer than what is counted, since some servers count from 0 to 1.
        const FINE: f64 = 1000.0;
        if let Some(total) = progress.total.filter(|total| *total > 0.0) {
            if self.0.length().is_none() {
                let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {elapsed}  {msg}");
                self.0.set_style(style.expect("the template is one that indicatif knows"));
            }
            self.0.set_length((total * FINE) as u64);
        }
        self.0.set_position((progress.progress.max(0.0) * FINE) as u64);
        if let Some(message) = &progress.message {
            self.0.set_message(shortened(message, 80));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CallResult {
    result_type: Option<String>,
    is_error: bool,
    content: Vec<Value>,
    structured_content: Option<Value>,
}

fn show(result: &RawValue, raw: bool) -> Outcome {
    let parsed: CallResult = match serde_json::from_str(result.get()) {
        Ok(parsed) => parsed,
        Err(why) => return fail(format_args!("the answer is no result of a tool: {why}")),
    };
    if raw {
        let printed = print(&format!("{}\n", result.get()));
        return if parsed.is_error { Outcome::Failed } else { printed };
    }
    if parsed.result_type.as_deref().is_some_and(|kind| kind != "complete") {
        return fail(
            "the tool asks for more than its arguments, which this command cannot give; --raw shows what it asks",
        );
    }
    let text = texts(&parsed);
    if parsed.is_error {
        let _ = write!(io::stderr(), "{}", harmless(&text));
        return Outcome::Failed;
    }
    print(&for_output(&text))
}

/// What can be read of a result; a note says what else there is.
fn texts(result: &CallResult) -> String {
    let mut text = String::new();
    for part in &result.content {
        match readable(part) {
            Ok(part) => {
                text.push_str(part);
                if !part.ends_with('\n') {
                    text.push('\n');
                }
            }
            Err(what) => super::note(format_args!("{} is left out; --raw shows it", harmless(&what))),
        }
    }
    if let (true, Some(structured)) = (result.content.is_empty(), &result.structured_content) {
        text = format!("{structured:#}\n");
    }
    text
}

/// The text of a part, or what it is instead.
fn readable(part: &Value) -> Result<&str, String> {
    let member = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let kind = member(part, "type").unwrap_or_default();
    let text = match kind.as_str() {
        "text" => part.get("text"),
        "resource" => part.get("resource").and_then(|resource| resource.get("text")),
        "resource_link" => part.get("uri"),
        _ => None,
    };
    text.and_then(Value::as_str).ok_or_else(|| {
        let mime = member(part, "mimeType").map(|mime| format!(" ({mime})")).unwrap_or_default();
        format!("a part of type {kind:?}{mime}")
    })
}
