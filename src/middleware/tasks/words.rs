//! How is a task said, in the words of either revision?
//!
//! 2025-11-25 has the result apart from the task; the extension of 2026-07-28 has all in one.

use bytes::Bytes;
use serde_json::{Value, json};

use super::task::{Asks, State, Status, Task};
use crate::{
    call::{Answer, Client},
    error::{Error, Result},
    wire::{
        json::{self as text, Limits},
        mcp::{Era, INTRODUCTION, Method, meta},
        message::{Message, Splice, object_with},
        project::{self, Reader},
    },
};

/// How often a task may be asked for, where its backend says nothing, in milliseconds.
const POLL: u64 = 1000;

/// The answer to the call of which a task is made.
pub fn created(task: &Task, era: Era) -> Answer {
    let members = members(task, &task.state(), era);
    match era {
        Era::Modern => complete("task", &members),
        Era::Legacy => Answer::Result(format!("{{\"task\":{{{members}}}}}").into()),
    }
}

/// How a task is, as the answer to `tasks/get`.
pub fn detailed(task: &Task, client: &Client) -> Result<Answer> {
    let era = client.revision.era();
    let text = described(task, client)?;
    Ok(match era {
        Era::Modern => complete("complete", &text),
        Era::Legacy => Answer::Result(format!("{{{text}}}").into()),
    })
}

/// An acknowledgement that says nothing.
pub fn acknowledged() -> Answer {
    complete("complete", "")
}

/// The members that tell all of a task.
pub fn described(task: &Task, client: &Client) -> Result<String> {
    let era = client.revision.era();
    let state = task.state();
    let mut text = members(task, &state, era);
    if era == Era::Legacy {
        return Ok(text);
    }
    if let Some(asks) = &state.asks {
        text.push_str(&format!(",\"inputRequests\":{}", String::from_utf8_lossy(&asks.open())));
    }
    if let Some(answer) = &state.outcome {
        let response = as_read(answer, client)?;
        let (name, place) = match (response.top("result"), response.top("error")) {
            (Some(place), _) => ("result", place),
            (_, Some(place)) => ("error", place),
            _ => return Ok(text),
        };
        text.push_str(&format!(",\"{name}\":{}", String::from_utf8_lossy(place.of(response.text()))));
    }
    Ok(text)
}

/// A response in the words of a client's revision.
fn as_read(answer: &Answer, client: &Client) -> Result<Message> {
    let text = match answer {
        Answer::Response { message, written_in, wrapped } => {
            let reader = Reader {
                revision: client.revision,
                id: b"0",
                server_info: INTRODUCTION,
                method: Method::ToolsCall,
                wrapped: *wrapped,
            };
            project::response(message, *written_in, &reader).into()
        }
        Answer::Result(result) => response(result),
        Answer::Asks(_) => return Err(Error::NoInput),
    };
    Ok(Message::parse(text, &Limits::REPLY)?)
}

/// What the call would have been answered, with the mark of its task, as 2025-11-25 wants it.
pub fn marked(task: &Task, answer: Answer) -> Result<Answer> {
    let mark = json!({ "taskId": task.id }).to_string();
    let mark: [(&str, &[u8]); 1] = [(meta::RELATED_TASK, mark.as_bytes())];
    let (message, written_in, wrapped) = match answer {
        Answer::Response { message, written_in, wrapped } => (message, written_in, wrapped),
        Answer::Result(result) => (Message::parse(response(&result), &Limits::REPLY)?, Era::Legacy, false),
        Answer::Asks(_) => return Err(Error::NoInput),
    };
    let mut splice = Splice::new(message.text());
    if let Some(place) = message.field("_meta") {
        splice.replace(place, object_with(place.of(message.text()), |_| false, &mark));
    } else if let Some(result) = message.top("result") {
        let new = object_with(b"{}", |_| false, &mark);
        let comma = if message.inside("result").is_empty() { "" } else { "," };
        splice.insert(result.start + 1, [b"\"_meta\":", &new[..], comma.as_bytes()].concat());
    }
    let message = Message::parse(splice.finish().into(), &Limits::REPLY)?;
    Ok(Answer::Response { message, written_in, wrapped })
}

/// The questions of a task as a question of `tasks/result`, with the mark of their task.
pub fn asked(task: &Task, asks: &Asks) -> Result<Answer> {
    let open = asks.open();
    let mark = json!({ "taskId": task.id }).to_string();
    let mut requests = Vec::new();
    for member in text::members(&open) {
        let request = member.value.of(&open);
        let params = text::member(request, "params").unwrap_or_default();
        let old = text::member(params, "_meta").unwrap_or_default();
        let new = object_with(old, |_| false, &[(meta::RELATED_TASK, mark.as_bytes())]);
        let params = object_with(params, |_| false, &[("_meta", &new)]);
        let request = object_with(request, |_| false, &[("params", &params)]);
        // A key stands between quotation marks, which its place does not include.
        requests.push([b"\"", member.key.of(&open), b"\":", &request].concat());
    }
    let head = "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{\"resultType\":\"input_required\",\"requestState\":\"\",\"inputRequests\":{";
    let all = [head.as_bytes(), &requests.join(&b','), b"}}}"].concat();
    Ok(Answer::Asks(Message::parse(all.into(), &Limits::REPLY)?))
}

/// The notification of how a task is, for one subscription.
pub fn notification(task: &Task, client: &Client, subscription: &[u8]) -> Result<Bytes> {
    let text = described(task, client)?;
    let id = String::from_utf8_lossy(subscription);
    let tag = format!("\"_meta\":{{\"{}\":{id}}}", meta::SUBSCRIPTION_ID);
    let text =
        format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tasks\",\"params\":{{{text},{tag}}}}}");
    Ok(text.into())
}

fn members(task: &Task, state: &State, era: Era) -> String {
    let (ttl, poll, status) = match era {
        Era::Modern => ("ttlMs", "pollIntervalMs", state.status),
        Era::Legacy => ("ttl", "pollInterval", state.legacy_status()),
    };
    let mut members = json!({
        "taskId": task.id, "status": status, "createdAt": date(task.created), "lastUpdatedAt": date(state.updated),
        ttl: task.ttl, poll: state.poll.unwrap_or(POLL),
    });
    let failure = || (status == Status::Failed).then(|| state.failure()).flatten();
    if let Some(message) = state.message.clone().or_else(failure) {
        members["statusMessage"] = Value::from(message);
    }
    let text = members.to_string();
    text[1..text.len() - 1].to_owned()
}

/// Milliseconds since 1970 as RFC 3339 has it.
fn date(milliseconds: u64) -> String {
    let time = i64::try_from(milliseconds).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or_default())
}

fn response(result: &[u8]) -> Bytes {
    [b"{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":", result, b"}"].concat().into()
}

fn complete(kind: &str, members: &str) -> Answer {
    let comma = if members.is_empty() { "" } else { "," };
    let info = meta::SERVER_INFO;
    let text =
        format!("{{\"resultType\":\"{kind}\",\"_meta\":{{\"{info}\":{INTRODUCTION}}}{comma}{members}}}");
    Answer::Result(text.into())
}
