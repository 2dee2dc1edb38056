//! The Rust client `rmcp`, driven by a plan: `rmcp-client PLAN.json` prints a report as one line of JSON.
//!
//! Plan and report are described in `../clients/python.py`. One thing more is in a plan for this client: `ask`,
//! the revision to ask for in the legacy era, because this client can ask for any of them.

use std::{
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient,
    model::{
        CallToolRequestParams, ClientConfig, GetPromptRequestParams, JsonObject, ProgressNotificationParam,
        ProtocolVersion, ReadResourceRequestParams, ResourceContents,
    },
    service::{NotificationContext, RunningService},
    transport::{StreamableHttpClientTransport, TokioChildProcess},
};
use serde::Deserialize;
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;
type Connection = RunningService<RoleClient, Ear>;

#[derive(Deserialize)]
struct Plan {
    url: Option<String>,
    command: Option<Vec<String>>,
    era: Era,
    ask: Option<ProtocolVersion>,
    calls: Vec<Wanted>,
    prompts: Vec<Wanted>,
    resources: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Era {
    Legacy,
    Auto,
    Modern,
}

#[derive(Deserialize)]
struct Wanted {
    name: String,
    arguments: JsonObject,
}

/// Hears progress, and counts it.
#[derive(Clone)]
struct Ear {
    revision: ProtocolVersion,
    progress: Arc<AtomicUsize>,
}

impl ClientHandler for Ear {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::default().with_protocol_version(self.revision.clone())
    }

    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let file = env::args().nth(1).ok_or("usage: rmcp-client PLAN.json")?;
    let plan: Plan = serde_json::from_slice(&fs::read(file)?)?;
    let mut client = connect(&plan).await?;
    println!("{}", report(&client, &plan).await?);
    client.close().await?;
    Ok(())
}

async fn connect(plan: &Plan) -> Result<Connection, Failure> {
    let modern = vec![ProtocolVersion::V_2026_07_28];
    let legacy = plan.ask.clone().unwrap_or(ProtocolVersion::V_2025_11_25);
    let ear = Ear { revision: legacy.clone(), progress: Arc::default() };
    let lifecycle = match plan.era {
        Era::Legacy => ClientLifecycleMode::Initialize,
        Era::Auto => ClientLifecycleMode::Auto { preferred_versions: modern, legacy_version: Some(legacy) },
        Era::Modern => ClientLifecycleMode::Discover { preferred_versions: modern },
    };
    if let Some(url) = &plan.url {
        let transport = StreamableHttpClientTransport::from_uri(url.as_str());
        return Ok(ear.serve_with_lifecycle(transport, lifecycle).await?);
    }
    let words = plan.command.as_deref().unwrap_or_default();
    let (program, arguments) = words.split_first().ok_or("neither url nor command in the plan")?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments);
    Ok(ear.serve_with_lifecycle(TokioChildProcess::new(command)?, lifecycle).await?)
}

async fn report(client: &Connection, plan: &Plan) -> Result<Value, Failure> {
    let tools = client.list_all_tools().await?;
    let names: Vec<_> = tools.iter().map(|tool| &tool.name).collect();
    let (mut calls, mut prompts, mut resources) = (Vec::new(), Vec::new(), Vec::new());
    for wanted in &plan.calls {
        calls.push(call(client, wanted).await?);
    }
    for wanted in &plan.prompts {
        prompts.push(prompt(client, wanted).await?);
    }
    for uri in &plan.resources {
        resources.push(resource(client, uri).await?);
    }
    let server = client.peer_info().ok_or("no server information after the handshake")?;
    Ok(json!({
        "revision": server.protocol_version,
        "tools": names,
        "calls": calls,
        "prompts": prompts,
        "resources": resources,
    }))
}

async fn call(client: &Connection, wanted: &Wanted) -> Result<Value, Failure> {
    let heard = &client.service().progress;
    heard.store(0, Ordering::Relaxed);
    let asked = CallToolRequestParams::new(wanted.name.clone());
    let result = client.call_tool(asked.with_arguments(wanted.arguments.clone())).await?;
    // A notification is handled in a task of its own, which may come after the result.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let texts: Vec<_> = result.content.iter().filter_map(|part| part.as_text()).collect();
    Ok(json!({
        "text": texts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join("\n"),
        "structured": result.structured_content,
        "isError": result.is_error.unwrap_or(false),
        "progress": heard.load(Ordering::Relaxed),
    }))
}

async fn prompt(client: &Connection, wanted: &Wanted) -> Result<String, Failure> {
    let asked = GetPromptRequestParams::new(wanted.name.clone());
    let result = client.get_prompt(asked.with_arguments(wanted.arguments.clone())).await?;
    let texts = result.messages.iter().filter_map(|message| message.content.as_text());
    Ok(texts.map(|part| part.text.as_str()).collect::<Vec<_>>().join("\n"))
}

async fn resource(client: &Connection, uri: &str) -> Result<String, Failure> {
    let result = client.read_resource(ReadResourceRequestParams::new(uri)).await?;
    let texts = result.contents.iter().filter_map(|part| match part {
        ResourceContents::TextResourceContents { text, .. } => Some(text.as_str()),
        _ => None,
    });
    Ok(texts.collect::<Vec<_>>().join("\n"))
}
