//! In which events does an answer come, and where do they go wrong?

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::compose::Answer;
use crate::simulator::{
    play::{COMMENT, Step},
    scenario::Scenario,
};

/// What is the same in all events of an answer, and when they come.
#[derive(Debug)]
pub struct Script<'a> {
    pub id: &'a str,
    pub model: &'a str,
    pub provider: &'a str,
    pub created: u64,
    pub answer: &'a Answer,
    pub usage: &'a Value,
    /// `openrouter_metadata`, where it was asked for.
    pub metadata: Option<Value>,
    /// What went upstream, where it was asked for.
    pub echo: Option<Value>,
    pub hides_reasoning: bool,
    pub scenario: Option<&'a Scenario>,
    pub ttft: Duration,
    pub per_token: Duration,
}

impl Script<'_> {
    fn is(&self, name: &str) -> bool {
        self.scenario.is_some_and(|scenario| scenario.name == name)
    }

    fn number(&self, parameter: &str, usual: u64) -> u64 {
        self.scenario.map_or(usual, |scenario| scenario.number(parameter, usual))
    }

    /// All of the answer, from the first comment to the last line.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..self.number("comments", 2).min(1000) {
            steps.push(comment());
        }
        if self.is("pad") {
            steps.push(text(format!(": {}\n\n", "x".repeat(64 << 10))));
        }
        if self.is("slow-first") {
            let pause = Duration::from_millis(self.number("ms", 1000) / 4);
            steps.extend((0..4).flat_map(|_| [Step::Wait(pause), comment()]));
        }
        steps.push(Step::Wait(self.ttft));
        if let Some(echo) = &self.echo {
            let mut event = self.event(&json!({}), None);
            (event["choices"], event["debug"]) = (json!([]), json!({ "echo_upstream_body": echo }));
            steps.push(self.sent(event, 0));
        }
        let whole = self.body(&mut steps);
        if whole {
            self.tail(&mut steps);
        }
        steps.retain(|step| *step != Step::Wait(Duration::ZERO));
        steps
    }

    /// The tokens, and what happens between them; false if that was the end.
    fn body(&self, steps: &mut Vec<Step>) -> bool {
        let deltas = self.deltas();
        let inside_tool = u64::try_from(deltas.len() / 2 + 1).unwrap_or(0);
        let after = if self.is("truncate-tool") { inside_tool } else { self.number("after", 3) };
        let after = usize::try_from(after).unwrap_or(usize::MAX).min(deltas.len());
        let pace = if self.is("slow-tokens") {
            Duration::from_millis(self.number("ms", 100))
        } else {
            self.per_token
        };
        for (index, delta) in deltas.iter().enumerate() {
            if index == after && !self.interrupted(steps) {
                return false;
            }
            if index == 1 {
                steps.push(comment());
            }
            if self.is("dup-role") {
                steps.push(self.sent(self.event(&json!({ "role": "assistant" }), None), 0));
            }
            steps.push(Step::Wait(pace));
            steps.push(self.sent(self.event(delta, None), 1));
        }
        if after == deltas.len() && !self.interrupted(steps) {
            return false;
        }
        for delta in self.extras() {
            steps.push(self.sent(self.event(&delta, None), 0));
        }
        true
    }

    /// What goes wrong at the place where something is to go wrong; false if that is the end.
    fn interrupted(&self, steps: &mut Vec<Step>) -> bool {
        let Some(scenario) = self.scenario else { return true };
        match scenario.name {
            "midstream" | "choice-error" => {
                let code = self.number("code", 502);
                steps.push(self.sent(self.failure(code.into()), 0));
            }
            "midstream-string" => steps.push(self.sent(self.failure("server_error".into()), 0)),
            "midstream-bare" => {
                let error = self.failure(502.into())["error"].clone();
                steps.push(text(format!("data: {}\n\n", json!({ "error": error }))));
            }
            "truncate" | "truncate-tool" => {}
            "truncate-utf8" => {
                let event = self.event(&json!({ "role": "assistant", "content": " grü" }), None);
                let line = format!("data: {event}");
                // The letter has two bytes, and only the first of them goes out.
                let inside = line.find('ü').map_or(line.len(), |at| at + 1);
                steps.push(Step::Send(Bytes::copy_from_slice(&line.as_bytes()[..inside]), 0));
            }
            "reset" => steps.push(Step::Break),
            "stall" if scenario.text("comments") == Some("off") => steps.push(Step::Hang),
            "stall" => steps.push(Step::Drone(Duration::from_millis(self.number("ms", 200)))),
            "bad-chunk" => {
                steps.push(text(format!(
                    "data: {{\"id\":\"{}\",\"choices\":[{{\"index\":0,\"del\n\n",
                    self.id
                )));
                return true;
            }
            _ => return true,
        }
        false
    }

    /// The error in the middle of a stream.
    fn failure(&self, code: Value) -> Value {
        let kind = self.scenario.and_then(|scenario| scenario.text("type")).unwrap_or("provider_unavailable");
        let mut event = self.event(&json!({ "role": "assistant", "content": "" }), Some(("error", "error")));
        event["error"] = json!({
            "code": code,
            "message": "Provider disconnected unexpectedly",
            "metadata": { "error_type": kind, "provider_code": "upstream_eof" },
        });
        event
    }

    /// Why it ended, what it cost, and that this was all.
    fn tail(&self, steps: &mut Vec<Step>) {
        let finish = Some((self.answer.finish, self.answer.native_finish));
        let nothing = if self.answer.null_content { Value::Null } else { "".into() };
        let mut last = json!({ "role": "assistant", "content": nothing });
        if let Some(refusal) = &self.answer.refusal {
            last["refusal"] = refusal.as_str().into();
        }
        steps.push(self.sent(self.event(&last, finish), 0));
        steps.push(Step::Generated);
        let mut usage = self.event(&json!({ "role": "assistant", "content": "" }), None);
        usage["usage"] = self.usage.clone();
        if self.is("usage-empty") {
            usage["choices"] = json!([]);
        }
        if let Some(metadata) = &self.metadata {
            usage["openrouter_metadata"] = metadata.clone();
        }
        let usage = self.sent(usage, 0);
        let done = text("data: [DONE]\n\n".to_owned());
        steps.extend(match self.scenario.map_or("", |scenario| scenario.name) {
            "no-done" => vec![usage],
            "no-usage" => vec![done],
            "double-usage" => vec![usage.clone(), usage, done],
            "late-usage" => vec![done, usage],
            _ => vec![usage, done],
        });
    }

    /// What each token adds.
    fn deltas(&self) -> Vec<Value> {
        let mut deltas = Vec::new();
        for (index, piece) in self.answer.reasoning.iter().enumerate() {
            let mut delta = json!({ "role": "assistant", "content": "" });
            if !self.hides_reasoning {
                let detail = reasoning_detail(self.answer, piece, index);
                if !self.answer.encrypted {
                    delta["reasoning"] = piece.as_str().into();
                }
                delta["reasoning_details"] = json!([detail]);
            }
            deltas.push(delta);
        }
        for piece in &self.answer.content {
            deltas.push(json!({ "role": "assistant", "content": piece }));
        }
        let call = |delta: Value| json!({ "role": "assistant", "content": null, "tool_calls": [delta] });
        let mut calls: Vec<Vec<Value>> = Vec::new();
        for (index, made) in self.answer.calls.iter().enumerate() {
            let function = json!({ "name": made.name, "arguments": "" });
            let head = json!({ "index": index, "id": made.id, "type": "function", "function": function });
            let piece = |piece: &String| call(json!({ "index": index, "function": { "arguments": piece } }));
            calls.push(std::iter::once(call(head)).chain(made.arguments.iter().map(piece)).collect());
        }
        if self.is("reorder-index") {
            // Now a piece of the one, now of the other, and the second first.
            calls.reverse();
            let longest = calls.iter().map(Vec::len).max().unwrap_or(0);
            deltas.extend(
                (0..longest).flat_map(|at| calls.iter().filter_map(move |pieces| pieces.get(at).cloned())),
            );
        } else {
            deltas.extend(calls.into_iter().flatten());
        }
        deltas
    }

    /// What comes with the answer and is no token.
    fn extras(&self) -> Vec<Value> {
        let mut extras = Vec::new();
        if !self.answer.annotations.is_empty() {
            extras
                .push(json!({ "role": "assistant", "content": "", "annotations": self.answer.annotations }));
        }
        for picture in &self.answer.pictures {
            let image = json!({ "type": "image_url", "image_url": { "url": picture }, "index": 0 });
            extras.push(json!({ "role": "assistant", "content": "", "images": [image] }));
        }
        extras
    }

    fn event(&self, delta: &Value, finish: Option<(&str, &str)>) -> Value {
        json!({
            "id": self.id,
            "provider": self.provider,
            "model": self.model,
            "object": "chat.completion.chunk",
            "created": self.created,
            "choices": [{
                "index": 0,
                "delta": delta,
                "finish_reason": finish.map(|finish| finish.0),
                "native_finish_reason": finish.map(|finish| finish.1),
                "logprobs": null,
            }],
        })
    }

    fn sent(&self, mut event: Value, tokens: u64) -> Step {
        odd(self.scenario, &mut event, "delta");
        Step::Send(Bytes::from(format!("data: {event}\n\n")), tokens)
    }
}

/// A piece of what was thought, as it has to be handed back with the next request.
pub fn reasoning_detail(answer: &Answer, piece: &str, index: usize) -> Value {
    if answer.encrypted {
        let data = format!("c2ltLWVuY3J5cHRlZC0{index:04}");
        let format = "openai-responses-v1";
        return json!({ "type": "reasoning.encrypted", "data": data, "id": "rs_1", "format": format, "index": 0 });
    }
    json!({ "type": "reasoning.text", "text": piece, "format": "unknown", "index": 0 })
}

/// Members that nobody knows, or null wherever it may be. `inner` is `delta` or `message`.
pub fn odd(scenario: Option<&Scenario>, event: &mut Value, inner: &str) {
    let has_choice = event["choices"].get(0).is_some();
    match scenario.map_or("", |scenario| scenario.name) {
        "unknown-fields" => {
            let unknown = json!({ "a": [1, null, { "b": "ü" }] });
            event["x_unknown"] = unknown.clone();
            if has_choice {
                event["choices"][0]["x_unknown"] = unknown.clone();
                event["choices"][0][inner]["x_unknown"] = unknown.clone();
            }
            if event["usage"].is_object() {
                event["usage"]["x_unknown"] = unknown;
            }
        }
        "null-everything" => {
            for name in ["provider", "service_tier", "system_fingerprint", "usage", "error"] {
                if event.get(name).is_none() || name == "provider" {
                    event[name] = Value::Null;
                }
            }
            for name in
                ["refusal", "reasoning", "reasoning_details", "tool_calls", "annotations", "images", "audio"]
            {
                if has_choice && event["choices"][0][inner].get(name).is_none() {
                    event["choices"][0][inner][name] = Value::Null;
                }
            }
        }
        _ => {}
    }
}

fn comment() -> Step {
    Step::Send(Bytes::from_static(COMMENT.as_bytes()), 0)
}

fn text(text: String) -> Step {
    Step::Send(Bytes::from(text), 0)
}

/// The same bytes, or nearly, in other writes.
pub fn framed(steps: Vec<Step>, framing: &str) -> Vec<Step> {
    match framing {
        "crlf" => steps
            .into_iter()
            .map(|step| match step {
                // Texts inside of JSON have no line ends, so these are all ours.
                Step::Send(text, tokens) => {
                    let lines = String::from_utf8_lossy(&text).replace('\n', "\r\n");
                    Step::Send(Bytes::from(lines), tokens)
                }
                other => other,
            })
            .collect(),
        "split" => steps
            .into_iter()
            .flat_map(|step| match step {
                Step::Send(text, tokens) => {
                    let last = text.len().saturating_sub(1);
                    let bytes = (0..text.len())
                        .map(|at| Step::Send(text.slice(at..=at), if at == last { tokens } else { 0 }));
                    bytes.collect()
                }
                other => vec![other],
            })
            .collect(),
        "multi" => {
            let mut merged: Vec<Step> = Vec::new();
            for step in steps {
                match (merged.last_mut(), step) {
                    (Some(Step::Send(before, held)), Step::Send(text, tokens)) => {
                        *before = Bytes::from([&before[..], &text[..]].concat());
                        *held += tokens;
                    }
                    (_, step) => merged.push(step),
                }
            }
            merged
        }
        _ => steps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sends(texts: &[&str]) -> Vec<Step> {
        texts.iter().map(|text| Step::Send(Bytes::copy_from_slice(text.as_bytes()), 1)).collect()
    }

    fn bytes(steps: &[Step]) -> (Vec<u8>, u64) {
        let mut all = (Vec::new(), 0);
        for step in steps {
            if let Step::Send(text, tokens) = step {
                all.0.extend_from_slice(text);
                all.1 += tokens;
            }
        }
        all
    }

    #[test]
    fn framings_change_writes_and_neither_text_nor_tokens() {
        let steps = sends(&["data: ü\n\n", "data: b\n\n"]);
        let split = framed(steps.clone(), "split");
        assert_eq!((split.len(), bytes(&split)), (19, bytes(&steps)));
        let multi = framed(steps.clone(), "multi");
        assert_eq!((multi.len(), bytes(&multi)), (1, bytes(&steps)));
        let (text, tokens) = bytes(&framed(steps, "crlf"));
        assert_eq!(
            (String::from_utf8(text).unwrap().as_str(), tokens),
            ("data: ü\r\n\r\ndata: b\r\n\r\n", 2)
        );
    }
}
