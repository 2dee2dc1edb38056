//! Has a caller agreed to what a call may cost?
//!
//! Where a call may cost more than the operator lets pass unasked, whoever said `max_cost_usd` has agreed up to that.
//! Others are asked, if their client can ask them: the call comes to a question, and is made anew with the answer. The
//! gateway seals what is kept for then, so it comes back for the same call of the same caller, and once.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{Task, money::Money, refused::Refused, upstream::Code};
use crate::{
    call::{Answer, Call, Given},
    error::Result,
    wire::{
        json::{self as text, Limits},
        message::Message,
    },
};

/// The name of the question, and what its state begins with.
const QUESTION: &str = "cost";
const STATE: &str = "cost ";
const ELICIT: &str = "elicitation/create";
/// The same call may be estimated a little higher when it comes again.
const SLACK: i64 = 10;

/// What a caller has said.
#[derive(Debug, Default)]
pub struct Consent {
    said: Said,
    /// It was found that nothing need be asked, or that it was agreed to.
    settled: AtomicBool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Said {
    #[default]
    Nothing,
    Yes(Money),
    No,
}

impl Consent {
    pub fn of(given: Option<&Given>) -> Self {
        let said = given.and_then(|given| {
            let asked = given.state.as_deref()?.strip_prefix(STATE)?.parse().ok()?;
            let answer = given.answers.iter().find(|(key, _)| key == QUESTION);
            let agrees = answer.and_then(|(_, answer)| answer.as_ref().ok()).is_some_and(|answer| {
                let agreed =
                    text::member(answer, "content").and_then(|content| text::member(content, "agree"));
                let accepts =
                    text::member(answer, "action").is_some_and(|one| text::is_string(one, "accept"));
                accepts && agreed == Some(b"true")
            });
            Some(if agrees { Said::Yes(asked) } else { Said::No })
        });
        Self { said: said.unwrap_or_default(), settled: AtomicBool::new(false) }
    }
}

impl Task {
    /// Does the caller agree that all of this call may cost so much? To be asked once for the whole of it, before
    /// anything is kept or sent.
    pub fn agree(&self, estimate: Money, max_cost_usd: Option<f64>) -> std::result::Result<(), Refused> {
        let Some(above) = self.work.resolved.confirm_above else { return Ok(()) };
        if self.consent.settled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let agreed = match self.consent.said {
            Said::Yes(most) => estimate.nanos() <= most.nanos().saturating_add(most.nanos() / SLACK),
            Said::No => {
                let why = "its cost was not agreed to, so nothing was sent";
                return Err(Refused::new(Code::ConfirmationRequired, why));
            }
            Said::Nothing => max_cost_usd.is_some(),
        };
        if estimate <= above || agreed {
            self.consent.settled.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let why = format!(
            "this may cost up to {estimate} US dollars, which has to be agreed to; say max_cost_usd {estimate} or more, or ask for a shorter answer (max_output_tokens) or a cheaper model"
        );
        let mut refused = Refused::new(Code::ConfirmationRequired, why);
        refused.estimate = Some(estimate);
        Err(refused)
    }
}

/// Can whoever calls be asked?
pub fn can_be_asked(call: &Call) -> bool {
    call.client.capabilities.allow(ELICIT, br#"{"mode":"form"}"#)
}

/// The question, in place of a refusal.
pub fn question(tool: &str, estimate: Money) -> Result<Answer> {
    let message = format!("{tool} may cost up to {estimate} US dollars. Is it to be done?");
    let agree = json!({ "type": "boolean", "title": "Yes, for up to this much" });
    let schema = json!({ "type": "object", "properties": { "agree": agree }, "required": ["agree"] });
    let params: Value = json!({ "mode": "form", "message": message, "requestedSchema": schema });
    let requests = json!({ QUESTION: { "method": ELICIT, "params": params } });
    let state = format!("{STATE}{estimate}");
    let result = json!({ "resultType": "input_required", "inputRequests": requests, "requestState": state });
    let whole = format!("{{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{result}}}");
    Ok(Answer::Asks(Message::parse(whole.into(), &Limits::REPLY)?))
}
