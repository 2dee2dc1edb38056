//! How does a stream of pieces become an answer?
//!
//! A body that ends without a finish reason was cut off, however cleanly it ended: that alone tells
//! a whole answer from the beginning of one. What was used comes after the finish reason, with one
//! choice or with none, so reading goes on until the end is said.

use http::HeaderMap;
use serde_json::Value;

use super::{
    completion::{Completion, Reused, ToolCall},
    event::{Event, Sink},
    failure::{Break, Code, Failure, Phase},
    refusal,
};

/// The most calls in one answer; more than any model makes, and a bound on what an index can cost.
const MOST_CALLS: usize = 256;

/// An answer that is being put together.
#[derive(Debug, Default)]
pub struct Assembly {
    so_far: Completion,
    /// The one choice that is read, whatever its number.
    choice: Option<u64>,
    /// The numbers of the calls, in the order in which they began.
    calls: Vec<u64>,
    done: bool,
}

impl Assembly {
    pub fn new(generation_id: Option<String>, reused: Option<Reused>) -> Self {
        let so_far = Completion { generation_id, reused, ..Completion::default() };
        Self { so_far, ..Self::default() }
    }

    /// Has the end been said?
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Has the model said its last word? What may follow is what it cost.
    pub fn is_finished(&self) -> bool {
        self.so_far.finish_reason.is_some()
    }

    pub fn has_content(&self) -> bool {
        self.so_far.has_content()
    }

    /// Takes the data of one event.
    pub fn take(&mut self, data: &[u8], sink: Sink<'_>) -> Result<(), Box<Failure>> {
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
        }
        if data.is_empty() || self.done {
            return Ok(());
        }
        match serde_json::from_slice(data) {
            Ok(chunk @ Value::Object(_)) => self.chunk(&chunk, sink),
            Ok(_) | Err(_) => Err(self.broken(Failure::new(
                Code::UpstreamProtocol,
                Phase::Answering,
                "a piece of the answer was not JSON",
            ))),
        }
    }

    /// Takes a chunk, or an answer that came whole.
    pub fn chunk(&mut self, chunk: &Value, sink: Sink<'_>) -> Result<(), Box<Failure>> {
        keep(&mut self.so_far.generation_id, chunk.get("id"));
        keep(&mut self.so_far.provider, chunk.get("provider"));
        keep(&mut self.so_far.model, chunk.get("model"));
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.so_far.usage = serde_json::from_value(usage.clone()).ok();
        }
        let choices = chunk.get("choices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for choice in choices {
            let number = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
            if *self.choice.get_or_insert(number) == number {
                self.choice(choice, sink)?;
            }
        }
        match refusal::read(chunk, None, &HeaderMap::new(), Phase::Answering) {
            Some(failure) => Err(self.broken(failure)),
            None => Ok(()),
        }
    }

    fn choice(&mut self, choice: &Value, sink: Sink<'_>) -> Result<(), Box<Failure>> {
        if let Some(delta) = choice.get("delta").or_else(|| choice.get("message")) {
            self.delta(delta, sink)?;
        }
        keep(&mut self.so_far.native_finish_reason, choice.get("native_finish_reason"));
        if let Some(failure) = refusal::read(choice, None, &HeaderMap::new(), Phase::Answering) {
            return Err(self.broken(failure));
        }
        // "error" comes with an error, as a rule, and is no end of an answer.
        if choice.get("finish_reason").and_then(Value::as_str) != Some("error") {
            keep(&mut self.so_far.finish_reason, choice.get("finish_reason"));
        }
        Ok(())
    }

    fn delta(&mut self, delta: &Value, sink: Sink<'_>) -> Result<(), Box<Failure>> {
        if let Some(text) = text_of(delta.get("reasoning")) {
            self.so_far.reasoning.push_str(&text);
            sink(Event::Reasoning(text));
        }
        if let Some(text) = text_of(delta.get("content")) {
            self.so_far.text.push_str(&text);
            sink(Event::Delta(text));
        }
        if let Some(text) = text_of(delta.get("refusal")) {
            self.so_far.refusal.get_or_insert_default().push_str(&text);
        }
        for detail in list(delta, "reasoning_details") {
            join_detail(&mut self.so_far.reasoning_details, detail);
        }
        self.so_far.annotations.extend(list(delta, "annotations").iter().cloned());
        self.so_far.images.extend(list(delta, "images").iter().cloned());
        for call in list(delta, "tool_calls") {
            self.call(call, sink)?;
        }
        Ok(())
    }

    /// A piece of a call. A new name for a call under an old number is a new call: some providers give
    /// all of them the number 0.
    fn call(&mut self, piece: &Value, sink: Sink<'_>) -> Result<(), Box<Failure>> {
        let number = piece.get("index").and_then(Value::as_u64).unwrap_or(self.calls.len() as u64);
        let id = text_of(piece.get("id"));
        let known = self.calls.iter().rposition(|known| *known == number);
        let known = known.filter(|at| {
            let kept = &self.so_far.tool_calls[*at].id;
            id.as_ref().is_none_or(|id| kept.is_empty() || id == kept)
        });
        let at = match known {
            Some(at) => at,
            None if self.calls.len() >= MOST_CALLS => {
                let why = "the answer has more tool calls than any model makes";
                return Err(self.broken(Failure::new(Code::UpstreamProtocol, Phase::Answering, why)));
            }
            None => {
                self.calls.push(number);
                self.so_far.tool_calls.push(ToolCall { kind: "function".into(), ..ToolCall::default() });
                self.calls.len() - 1
            }
        };
        let function = piece.get("function").unwrap_or(&Value::Null);
        let (name, arguments) = (text_of(function.get("name")), text_of(function.get("arguments")));
        let call = &mut self.so_far.tool_calls[at];
        if let Some(id) = &id {
            call.id.clone_from(id);
        }
        if let Some(name) = &name {
            call.function.name.clone_from(name);
        }
        let arguments = arguments.unwrap_or_default();
        call.function.arguments.push_str(&arguments);
        sink(Event::ToolCall { index: at, id, name, arguments });
        Ok(())
    }

    /// The body has ended: is this an answer?
    pub fn end(&mut self) -> Result<Completion, Box<Failure>> {
        if self.is_finished() {
            return Ok(std::mem::take(&mut self.so_far));
        }
        let why = "the answer was cut off before its end";
        let mut failure = Failure::new(Code::UpstreamUnavailable, Phase::Answering, why);
        failure.broken_by = Break::Truncated;
        Err(self.broken(failure))
    }

    /// The failure, with what had come before it.
    pub fn broken(&mut self, mut failure: Failure) -> Box<Failure> {
        failure.provider = failure.provider.or_else(|| self.so_far.provider.clone());
        failure.partial = Box::new(std::mem::take(&mut self.so_far));
        Box::new(failure)
    }
}

/// Keeps a text if there is one.
fn keep(kept: &mut Option<String>, value: Option<&Value>) {
    if let Some(text) = value.and_then(Value::as_str).filter(|text| !text.is_empty()) {
        *kept = Some(text.to_owned());
    }
}

/// A text that is not empty, be it written as one or as parts.
fn text_of(value: Option<&Value>) -> Option<String> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Joins a piece of a block to the block that is open, or begins one.
fn join_detail(details: &mut Vec<Value>, piece: &Value) {
    let same = |open: &Value, name: &str| open.get(name) == piece.get(name);
    let open = details.last_mut().filter(|open| same(open, "type") && same(open, "index"));
    let grows = ["text", "summary"].iter().find(|name| piece.get(**name).is_some_and(Value::is_string));
    let (Some(Value::Object(open)), Some(grows), Some(piece)) = (open, grows, piece.as_object()) else {
        details.push(piece.clone());
        return;
    };
    for (name, value) in piece {
        match (open.get_mut(name), value) {
            (Some(Value::String(text)), Value::String(more)) if name == grows => text.push_str(more),
            (Some(_), Value::Null) => {}
            _ => drop(open.insert(name.clone(), value.clone())),
        }
    }
}
