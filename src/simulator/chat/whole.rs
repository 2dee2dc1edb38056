//! What is an answer that is not streamed?

use bytes::Bytes;
use serde_json::{Value, json};

use super::script::{Script, odd, reasoning_detail};
use crate::simulator::{play::Step, reply::Reply};

impl Script<'_> {
    /// The answer as one text, with what a scenario makes of it.
    pub fn whole(&self) -> Reply {
        let mut told = self.told();
        let scenario = self.scenario.map_or("", |scenario| scenario.name);
        if scenario == "no-usage"
            && let Some(members) = told.as_object_mut()
        {
            members.remove("usage");
        }
        if fails(scenario) {
            let code = if scenario == "midstream-string" { "server_error".into() } else { json!(502) };
            let metadata = json!({ "error_type": "provider_unavailable", "provider_code": "upstream_eof" });
            let choice = &mut told["choices"][0];
            choice["error"] = json!({ "code": code, "message": "Provider disconnected unexpectedly", "metadata": metadata });
            (choice["finish_reason"], choice["native_finish_reason"]) = ("error".into(), "error".into());
        }
        odd(self.scenario, &mut told, "message");
        let text = told.to_string();
        let half = |text: &str| text.floor_char_boundary(text.len() / 2);
        let end = match scenario {
            "truncate-utf8" => text.find('ü').map_or_else(|| half(&text), |at| at + 1),
            _ => half(&text),
        };
        let begun = Step::Send(Bytes::copy_from_slice(&text.as_bytes()[..end]), self.answer.tokens());
        let mut reply = Reply::generated(&told, self.answer.tokens());
        reply.steps = match scenario {
            "truncate" | "truncate-tool" | "truncate-utf8" | "bad-chunk" => vec![begun],
            "reset" => vec![begun, Step::Break],
            "stall" => vec![begun, Step::Hang],
            _ => return reply,
        };
        reply
    }

    fn told(&self) -> Value {
        let answer = self.answer;
        let content = if answer.null_content { Value::Null } else { answer.content.concat().into() };
        let mut message =
            json!({ "role": "assistant", "content": content, "refusal": answer.refusal, "reasoning": null });
        if !answer.reasoning.is_empty() && !self.hides_reasoning {
            let thoughts = answer.reasoning.concat();
            message["reasoning_details"] = json!([reasoning_detail(answer, &thoughts, 0)]);
            if !answer.encrypted {
                message["reasoning"] = thoughts.into();
            }
        }
        if !answer.calls.is_empty() {
            let calls = answer.calls.iter().enumerate().map(|(index, call)| {
                let function = json!({ "name": call.name, "arguments": call.arguments.concat() });
                json!({ "index": index, "id": call.id, "type": "function", "function": function })
            });
            message["tool_calls"] = calls.collect();
        }
        if !answer.annotations.is_empty() {
            message["annotations"] = answer.annotations.clone().into();
        }
        if !answer.pictures.is_empty() {
            let images =
                answer.pictures.iter().map(|url| json!({ "type": "image_url", "image_url": { "url": url } }));
            message["images"] = images.collect();
        }
        let mut told = json!({
            "id": self.id,
            "provider": self.provider,
            "model": self.model,
            "object": "chat.completion",
            "created": self.created,
            "choices": [{
                "logprobs": null,
                "finish_reason": answer.finish,
                "native_finish_reason": answer.native_finish,
                "index": 0,
                "message": message,
            }],
            "system_fingerprint": null,
            "usage": self.usage,
        });
        if let Some(metadata) = &self.metadata {
            told["openrouter_metadata"] = metadata.clone();
        }
        told
    }
}

/// Whether the answer ends in an error beside what there was of it.
pub fn fails(scenario: &str) -> bool {
    matches!(scenario, "midstream" | "midstream-string" | "midstream-bare" | "choice-error")
}
