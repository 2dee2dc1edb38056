//! How does an answer go on that a limit cut off?
//!
//! What there is of it is sent back as the beginning of the answer, which most models continue. Some
//! refuse to; they are told to go on instead.

use super::{
    super::upstream::{ChatRequest, Code, Completion, Message, Role, Status},
    decide::Next,
    joint::Joint,
    run::{Failed, Run},
};

/// How often one answer goes on.
const MOST_ROUNDS: u32 = 3;
/// Some providers refuse to answer in less.
const LEAST_TOKENS: u64 = 16;
/// For models that do not take the beginning of an answer. It is no part of the conversation.
const GO_ON: &str = "Continue exactly where you stopped. Do not repeat anything and do not comment on it.";

/// Was it cut off where it can go on? JSON of a form cannot: no model counts its own brackets.
pub fn may_go_on(request: &ChatRequest, completion: &Completion) -> bool {
    completion.was_cut()
        && !completion.text.trim().is_empty()
        && completion.tool_calls.is_empty()
        && !request.wants_json()
}

impl Run<'_> {
    /// Adds to an answer until it has an end, or may not become longer. What is there stays in any
    /// case.
    pub async fn extend(&mut self, whole: &mut Completion) {
        let mut told_to = false;
        let mut round = 1;
        while round <= MOST_ROUNDS && may_go_on(&self.request, whole) {
            // Without a report, by the rule of thumb that four letters are a token.
            let used = whole.usage.as_ref().map(|usage| usage.completion_tokens).filter(|tokens| *tokens > 0);
            let used = used.unwrap_or(whole.text.len() as u64 / 4);
            let left = self.terms.max_total_output.saturating_sub(used);
            if left < LEAST_TOKENS {
                return;
            }
            let request = continued(&self.request, &whole.text, told_to, left);
            let mut joint = Some(Joint::new(&whole.text));
            self.told.status(Status::Continued { round });
            let outcome = self.once(&request, &mut joint).await;
            let mut said = String::new();
            if let Some(joint) = joint {
                said = joint.end(|text| self.told.delta(text));
            }
            match outcome {
                Ok(piece) => {
                    let nothing_new = said.is_empty();
                    add(whole, piece, &said);
                    self.told.report.continuations += 1;
                    round += 1;
                    if nothing_new {
                        return;
                    }
                }
                Err(Failed { failure, .. }) => {
                    let (code, nothing) = (failure.code, !failure.partial.has_content());
                    if nothing && code == Code::InvalidInput && !told_to {
                        told_to = true;
                        continue;
                    }
                    if nothing && let Next::Retry { after } = self.next(&failure) {
                        self.wait(code, after).await;
                        continue;
                    }
                    // It stays cut off, by the limit or by this.
                    let finish = whole.finish_reason.clone();
                    add(whole, *failure.partial, &said);
                    whole.finish_reason = finish;
                    self.told.status(Status::NotContinued { why: code });
                    return;
                }
            }
        }
    }
}

/// The same request with what there is of the answer. White space at its end is left off, for some
/// providers refuse it.
fn continued(request: &ChatRequest, text: &str, told_to: bool, left: u64) -> ChatRequest {
    let mut request = request.clone();
    request.messages.push(Message::new(Role::Assistant, text.trim_end()));
    if told_to {
        request.messages.push(Message::new(Role::User, GO_ON));
    }
    request.max_completion_tokens = Some(request.max_completion_tokens.map_or(left, |most| most.min(left)));
    request
}

fn add(whole: &mut Completion, piece: Completion, said: &str) {
    whole.text.push_str(said);
    whole.reasoning.push_str(&piece.reasoning);
    whole.reasoning_details.extend(piece.reasoning_details);
    whole.annotations.extend(piece.annotations);
    whole.images.extend(piece.images);
    whole.tool_calls.extend(piece.tool_calls);
    whole.finish_reason = piece.finish_reason;
    whole.native_finish_reason = piece.native_finish_reason;
    whole.provider = piece.provider.or_else(|| whole.provider.take());
    whole.model = piece.model.or_else(|| whole.model.take());
    if let Some(usage) = &piece.usage {
        whole.usage.get_or_insert_default().add(usage);
    }
}
