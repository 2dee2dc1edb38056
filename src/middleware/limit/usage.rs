//! What does a backend say that a call has cost?
//!
//! In the `_meta` of a result: `io.waystation/usage` with `inputTokens`, `outputTokens` and `costUsd`,
//! or `usage` as chat services write it, with `prompt_tokens`, `completion_tokens` or
//! `total_tokens`, and `cost` in US dollars. What is missing counts as nothing, and so does what is no
//! number or below zero.

use crate::{
    call::Answer,
    wire::{json, message::Message},
};

/// Ours; it is looked at before the other.
const OWN: &str = "io.waystation/usage";
const COMMON: &str = "usage";

/// A billionth of a dollar: a token of a small model costs some of them.
const NANOS: f64 = 1e9;

/// No call costs more tokens, or billionths of a dollar: what says so is a mistake, and counts as this.
const MOST: f64 = 1e15;

/// What one call has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub tokens: u64,
    /// In billionths of a US dollar.
    pub nano_usd: u64,
}

impl Usage {
    /// What the answer says of itself, if it says anything.
    pub fn of(answer: &Answer) -> Option<Self> {
        match answer {
            Answer::Response { message, .. } | Answer::Asks(message) => Self::reported(message),
            Answer::Result(_) => None,
        }
    }

    fn reported(message: &Message) -> Option<Self> {
        let meta = message.in_result("_meta")?;
        let (usage, [tokens, input, output, cost]) = match json::member(meta, OWN) {
            Some(usage) => (usage, ["", "inputTokens", "outputTokens", "costUsd"]),
            None => {
                let names = ["total_tokens", "prompt_tokens", "completion_tokens", "cost"];
                (json::member(meta, COMMON)?, names)
            }
        };
        if !usage.starts_with(b"{") {
            return None;
        }
        let number = |name: &str| number(json::member(usage, name)?);
        let sum = || number(input).unwrap_or(0.0) + number(output).unwrap_or(0.0);
        let tokens = number(tokens).unwrap_or_else(sum);
        let nano_usd = (number(cost).unwrap_or(0.0) * NANOS).round();
        Some(Self { tokens: tokens.min(MOST) as u64, nano_usd: nano_usd.min(MOST) as u64 })
    }
}

/// A number from zero on.
fn number(json: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(json).ok()?.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::json::Limits;

    #[track_caller]
    fn check(meta: &str, expected: Option<(u64, u64)>) {
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"content\":[],\"_meta\":{meta}}}}}");
        let message = Message::parse(Bytes::from(text), &Limits::REPLY).unwrap();
        let usage = Usage::reported(&message).map(|usage| (usage.tokens, usage.nano_usd));
        assert_eq!(usage, expected, "{meta}");
    }

    #[test]
    fn what_a_call_has_cost_is_read_in_both_spellings() {
        let own = |usage: &str| format!("{{\"a\":1,\"io.waystation/usage\":{usage}}}");
        check(&own(r#"{"inputTokens":10,"outputTokens":5,"costUsd":0.000123}"#), Some((15, 123_000)));
        check(&own(r#"{"costUsd":1e-05}"#), Some((0, 10_000)));
        check(&own(r#"{"inputTokens":"10","costUsd":-1}"#), Some((0, 0)));
        check(&own(r#"{"costUsd":1e300}"#), Some((0, 1_000_000_000_000_000)));
        check(&own("7"), None);
        check(r#"{"usage":{"prompt_tokens":3,"completion_tokens":4,"cost":0.5}}"#, Some((7, 500_000_000)));
        check(r#"{"usage":{"total_tokens":9,"prompt_tokens":3}}"#, Some((9, 0)));
        check(r#"{"usage":{"total_tokens":9},"io.waystation/usage":{"inputTokens":1}}"#, Some((1, 0)));
        check("{}", None);
        check("null", None);
    }
}
