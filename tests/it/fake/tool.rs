//! The tools a fake has of its own.
//!
//! - `echo` gives its arguments back as text, byte for byte, and as structured content.
//! - `slow` runs until it is cancelled, [`super::Fake::release`]d, or `ms` are over.
//! - `progress` notes `n` steps (3), each with a log message for the first `logs` (all), `every_ms` apart (0);
//!   if it `hangs`, it never answers.
//! - `ask` asks its client for what `method` and `params` say, and answers with what came back, and with the
//!   state it had wanted back, where the era has one. Before that it notes `steps` (0) of progress, in each round.
//!   `also` is asked beside it, and what came back for that is given too. With `times`, it asks so often, one time
//!   after the other. Of the legacy era, `apart` has it ask on the session's own stream, and `wait` once [`super::Fake::let_ask`] was
//!   called, whether it was cancelled meanwhile or not.
//! - `fails_with` answers with the error of `message`.
//! - `raw` answers with the bytes of `hex`, else of [`super::Fake::answer_raw`], in place of a result.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::answer::{Answer, Call};
use super::session::Session;
use super::{Cancelled, How, Shared, fault, lock};

pub const OWN_TOOLS: [&str; 6] = ["echo", "slow", "progress", "ask", "fails_with", "raw"];

/// A tool's listing that takes any arguments.
pub fn tool(name: &str) -> Value {
    json!({
        "name": name,
        "description": format!("The tool {name} of a fake."),
        "inputSchema": { "type": "object" },
    })
}

/// So many tools, `tool_0000` and on.
pub fn numbered(count: usize) -> Vec<Value> {
    (0..count).map(|number| tool(&format!("tool_{number:04}"))).collect()
}

/// A call of `slow` at work.
#[derive(Debug)]
pub struct Running {
    number: u64,
    /// The session and the request id by which it can be cancelled; a modern call's session is empty.
    session: String,
    id: Value,
    arguments: Value,
    end: oneshot::Sender<End>,
}

/// How it comes to its end from outside.
#[derive(Debug)]
pub enum End {
    Released,
    Cancelled,
}

impl Running {
    /// A call that is gone in the meantime needs no end.
    pub fn end(self, how: End) {
        let _ = self.end.send(how);
    }
}

pub async fn call(call: &Call) -> Answer {
    let name = call.params["name"].as_str().unwrap_or_default();
    let arguments = &call.params["arguments"];
    match name {
        "echo" => echo(call),
        "slow" => slow(call).await,
        "progress" => progress(call).await,
        "ask" => ask(call).await,
        "fails_with" => Answer::Message(with_id(&arguments["message"], &call.id)),
        "raw" => raw(call),
        _ => match fault::of_message(call, name, arguments).await {
            Some(answer) => answer,
            None if lock(&call.shared.tools).iter().any(|tool| tool["name"] == name) => echo(call),
            None => Answer::error(-32602, format!("Unknown tool: {name}")),
        },
    }
}

pub fn text(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }] })
}

fn echo(call: &Call) -> Answer {
    let mut result = text(literal_arguments(&call.raw).unwrap_or_default());
    if call.params["arguments"].is_object() {
        result["structuredContent"] = call.params["arguments"].clone();
    }
    Answer::Result(result)
}

/// The arguments as they were written.
fn literal_arguments(message: &[u8]) -> Option<String> {
    let message: HashMap<String, &RawValue> = serde_json::from_slice(message).ok()?;
    let params: HashMap<String, &RawValue> = serde_json::from_str(message.get("params")?.get()).ok()?;
    Some(params.get("arguments")?.get().to_owned())
}

async fn slow(call: &Call) -> Answer {
    let arguments = call.params["arguments"].clone();
    let (end, ended) = oneshot::channel();
    let number = call.shared.next_number();
    let session = call.session.as_ref().map(|session| session.id.clone()).unwrap_or_default();
    let limit = arguments["ms"].as_u64().map(Duration::from_millis);
    let running = Running { number, session, id: call.id.clone(), arguments, end };
    lock(&call.shared.running).push(running);
    call.shared.tell();

    // Dropped before its end, a modern call was cancelled; a legacy one is never dropped.
    let guard = Guard { shared: call.shared.clone(), number };
    let end = tokio::select! {
        end = ended => end.unwrap_or(End::Cancelled),
        () = rest(limit) => End::Released,
    };
    guard.done();
    match end {
        End::Released => Answer::Result(text("done")),
        End::Cancelled => Answer::Silence,
    }
}

async fn rest(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Notes the end of a call whose listener has gone.
struct Guard {
    shared: Arc<Shared>,
    number: u64,
}

impl Guard {
    fn done(self) {
        lock(&self.shared.running).retain(|running| running.number != self.number);
        self.shared.tell();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let is_this = |running: &mut Running| running.number == self.number;
        let ended: Vec<_> = lock(&self.shared.running).extract_if(.., is_this).collect();
        ended.into_iter().for_each(|running| self.shared.note_cancelled(running, How::Closed));
    }
}

/// `notifications/cancelled`: ends the call with this id, if it is of this session.
pub fn cancel(shared: &Shared, session: &Session, id: &Value) {
    let is_it = |running: &mut Running| running.session == session.id && running.id == *id;
    let ended: Vec<_> = lock(&shared.running).extract_if(.., is_it).collect();
    ended.into_iter().for_each(|running| shared.note_cancelled(running, How::Notification));
}

impl Shared {
    fn note_cancelled(&self, running: Running, how: How) {
        lock(&self.cancelled).push(Cancelled {
            id: running.id.clone(),
            arguments: running.arguments.clone(),
            how,
            at: Instant::now(),
        });
        running.end(End::Cancelled);
        self.tell();
    }
}

async fn progress(call: &Call) -> Answer {
    let arguments = &call.params["arguments"];
    let number = |name: &str, absent| arguments[name].as_u64().unwrap_or(absent);
    let steps = number("n", 3);
    let logs = if wants_log(call) { number("logs", steps) } else { 0 };
    let pause = Duration::from_millis(number("every_ms", 0));
    let token = &call.params["_meta"]["progressToken"];
    for step in 1..=steps {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if !token.is_null() {
            let message = format!("step {step} of {steps}");
            let params =
                json!({ "progressToken": token, "progress": step, "total": steps, "message": message });
            call.notify("notifications/progress", params);
        }
        if step <= logs {
            let name = &call.shared.settings.name;
            let params = json!({ "level": "info", "logger": name, "data": format!("log {step}") });
            call.notify("notifications/message", params);
        }
    }
    if arguments["hangs"] == true {
        std::future::pending::<()>().await;
    }
    Answer::Result(text(format!("{steps} steps")))
}

/// In 2026-07-28 only who asked for it, and for `info` or less, is sent a log.
fn wants_log(call: &Call) -> bool {
    let level = call.params["_meta"]["io.modelcontextprotocol/logLevel"].as_str();
    !call.is_modern() || matches!(level, Some("debug" | "info"))
}

fn with_id(message: &Value, id: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": message["error"] })
}

async fn ask(call: &Call) -> Answer {
    let arguments = &call.params["arguments"];
    let token = &call.params["_meta"]["progressToken"];
    for step in 1..=arguments["steps"].as_u64().filter(|_| !token.is_null()).unwrap_or(0) {
        call.notify("notifications/progress", json!({ "progressToken": token, "progress": step }));
    }
    let mut given = if call.is_modern() {
        let given = &call.params["inputResponses"]["answer"];
        let asked =
            call.params["requestState"].as_str().and_then(|state| state.strip_prefix("asked ")?.parse().ok());
        let (asked, times) = (asked.unwrap_or(0), arguments["times"].as_u64().unwrap_or(0));
        if given.is_null() || asked < times {
            let state = if times > 0 {
                format!("asked {}", asked + 1)
            } else {
                format!("state of {}", arguments["note"])
            };
            let requests = requests(arguments);
            return Answer::Result(json!({
                "resultType": "input_required", "inputRequests": requests, "requestState": state,
            }));
        }
        json!({ "result": given, "also": call.params["inputResponses"]["also"], "state": call.params["requestState"] })
    } else {
        if arguments["wait"] == true {
            let _ = call.shared.may_ask.subscribe().wait_for(|may| *may).await;
        }
        let mut given = json!({});
        for _ in 0..arguments["times"].as_u64().unwrap_or(1) {
            given = asked(call, arguments).await;
        }
        given
    };
    given.as_object_mut().expect("an object").retain(|name, value| name != "also" || !value.is_null());
    Answer::Result(text(given.to_string()))
}

/// What a tool asks, by its keys.
fn requests(arguments: &Value) -> Value {
    let mut requests = json!({ "answer": { "method": arguments["method"], "params": arguments["params"] } });
    if !arguments["also"].is_null() {
        requests["also"] = arguments["also"].clone();
    }
    requests
}

/// Asks a client of the legacy era all of it, and waits.
async fn asked(call: &Call, arguments: &Value) -> Value {
    let mut waiting = Vec::new();
    for (key, request) in requests(arguments).as_object().expect("an object") {
        let id = format!("ask-{}", call.shared.next_number());
        let (answer, answered) = oneshot::channel();
        lock(&call.shared.asked).insert(json!(id).to_string(), answer);
        let mut request = request.clone();
        request["jsonrpc"] = json!("2.0");
        request["id"] = json!(id);
        match &call.session {
            Some(session) if arguments["apart"] == true => session.send(request.to_string().as_bytes()),
            _ => call.aside(&request),
        }
        waiting.push((key.clone(), answered));
    }
    let mut given = json!({});
    for (key, answered) in waiting {
        let response = answered.await.unwrap_or_default();
        if key == "answer" {
            given["result"] = response["result"].clone();
            given["error"] = response["error"].clone();
        } else {
            given[key] = response["result"].clone();
        }
    }
    given
}

fn raw(call: &Call) -> Answer {
    let bytes = call.params["arguments"]["hex"].as_str().map(unhex);
    Answer::Raw(bytes.unwrap_or_else(|| lock(&call.shared.raw).clone()))
}

pub fn unhex(digits: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}
