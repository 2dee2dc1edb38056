//! How is the older part of a conversation said in short?

use aws_lc_rs::digest;
use jiff::Timestamp;

use super::{
    Task,
    ask::{Used, Wishes},
    context::of_text,
    history::Fittable,
    refused::Refused,
    turn::Wanted,
    upstream::{Message, Role},
};
use crate::store::conversations::{ConversationId, MessageId, NewSummary};

/// The longest summary, in tokens.
const LONGEST: u64 = 1024;
/// What a model is asked for.
const PROMPT: &str = "Summarize the conversation below for somebody who has to go on with it. Keep every fact, name, \
    number, decision and open question; leave out greetings and repetitions. Write only the summary.";

/// A summary as it stands in a conversation.
pub fn message(text: &str) -> Message {
    Message::new(Role::System, format!("Summary of the conversation so far:\n{text}"))
}

/// With a summary of what does not fit, kept or made now. Where none can be had, the oldest turns are
/// left out instead.
pub async fn summarized(
    task: &Task,
    id: ConversationId,
    mut fittable: Fittable,
    wanted: &Wanted,
) -> Result<Fittable, Refused> {
    for kept in task.own.summaries(id).await? {
        if fittable.transcript().any(|(last, _)| last == kept.upto) {
            fittable.summary = Some((kept.upto, message(&kept.text)));
            break;
        }
    }
    let fitted = fittable.fit(task, &wanted.chosen, &wanted.wishes)?;
    let Some(turns) = fitted.wants_summary_of else { return Ok(fittable) };
    let covered: Vec<_> = fittable.transcript().take(turns).collect();
    match summarize(task, id, &wanted.chosen.id, &covered, None).await {
        Ok(Some((upto, text, _))) => fittable.summary = Some((upto, message(&text))),
        Ok(None) => {}
        Err(refused) => task.tell.remark(format!(
            "the older turns could not be summarized and were left out: {}",
            refused.message
        )),
    }
    Ok(fittable)
}

/// Has a model summarize some turns, and keeps what it says. None where there are no turns.
pub async fn summarize(
    task: &Task,
    id: ConversationId,
    model: &str,
    turns: &[(MessageId, String)],
    max_cost_usd: Option<f64>,
) -> Result<Option<(MessageId, String, Used)>, Refused> {
    let Some((upto, _)) = turns.last() else { return Ok(None) };
    let text: Vec<&str> = turns.iter().map(|(_, text)| text.as_str()).collect();
    let text = text.join("\n\n");
    let chosen = task.choose(Some(model)).await?;
    let messages = vec![Message::new(Role::System, PROMPT), Message::new(Role::User, &*text)];
    let wishes = Wishes { max_output_tokens: Some(LONGEST), max_cost_usd, ..Wishes::default() };
    let (answer, used) =
        task.ask("conversation_summarize", (&chosen, messages), &wishes, None, &mut |_| {}).await?;
    let said = answer.completion.text;
    let source: String = digest::digest(&digest::SHA256, text.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let summary = NewSummary {
        upto: *upto,
        model: chosen.id,
        tokens: i64::try_from(of_text(&said)).unwrap_or(i64::MAX),
        text: said.clone(),
        source,
    };
    task.own.keep_summary(id, summary, Timestamp::now()).await?;
    Ok(Some((*upto, said, used)))
}
