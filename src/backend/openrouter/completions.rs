//! What may the beginning of an argument become?

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Task;
use crate::{
    call::Call,
    error::{Error, Result},
    store::conversations::{self, BenchmarkWanted, Conversation, ConversationId, Listing, Order, Reading},
};

/// The most values that may be given.
const MOST: usize = 100;

/// What fits, and how much there is in all, if that is known.
type Values = (Vec<String>, Option<usize>);

/// The result of `completion/complete`.
pub async fn complete(task: &Task, call: &Call) -> Result<String> {
    let argument = call.message.in_params("argument").unwrap_or(b"{}");
    let argument: Value = serde_json::from_slice(argument).unwrap_or_default();
    let (Some(name), Some(begun)) = (argument["name"].as_str(), argument["value"].as_str()) else {
        return Err(Error::Params("`argument` wants a `name` and a `value`".into()));
    };
    let context: Value =
        serde_json::from_slice(call.message.in_params("context").unwrap_or(b"{}")).unwrap_or_default();
    let found = match name {
        "model" | "model_id" => Ok(models(task, begun).await),
        "conversation_id" => conversations(task, begun).await,
        "message_id" => messages(task, begun, context["arguments"]["conversation_id"].as_str()).await,
        "run_id" => benchmarks(task, begun).await,
        "format" => Ok(formats(begun, call.message.in_params("ref").unwrap_or_default())),
        _ => Ok((Vec::new(), Some(0))),
    };
    let (mut values, total) = found.map_err(|why| Error::backend(&*task.work.name, why))?;
    let more = values.len() > MOST || total.is_some_and(|total| total > values.len());
    values.truncate(MOST);
    let mut completion = json!({ "values": values, "hasMore": more });
    if let Some(total) = total {
        completion["total"] = total.into();
    }
    Ok(json!({ "resultType": "complete", "completion": completion }).to_string())
}

/// Models whose ids begin so, then those that have it in them; the most used first.
async fn models(task: &Task, begun: &str) -> Values {
    let models = task.work.catalog.get().await;
    let begun = begun.to_lowercase();
    let allowed = || models.models.iter().filter(|model| task.is_allowed(model)).map(|model| &model.id);
    let aliases = task.work.settings.aliases.keys().filter(|alias| alias.to_lowercase().starts_with(&begun));
    let first = allowed().filter(|id| id.to_lowercase().starts_with(&begun));
    let within = |id: &&String| id.to_lowercase().find(&begun).is_some_and(|at| at > 0);
    let values: Vec<_> = aliases.chain(first).chain(allowed().filter(within)).cloned().collect();
    let total = values.len();
    (values.into_iter().take(MOST).collect(), Some(total))
}

/// The caller's own conversations, by their titles or ids.
async fn conversations(task: &Task, begun: &str) -> std::result::Result<Values, conversations::Error> {
    let title = Some(begun.to_owned()).filter(|begun| !begun.is_empty() && !begun.starts_with("cnv_"));
    let by_id = title.is_none();
    let listing = Listing { title, limit: 100, ..Listing::default() };
    let page = task.own.list(listing, Timestamp::now()).await?;
    let total = page.next.is_none();
    let ids = page.items.iter().map(|one: &Conversation| one.id.to_string());
    let values: Vec<_> = ids.filter(|id| !by_id || id.starts_with(begun)).collect();
    let total = total.then_some(values.len());
    Ok((values, total))
}

/// The newest messages of the conversation that was chosen before.
async fn messages(
    task: &Task,
    begun: &str,
    conversation: Option<&str>,
) -> std::result::Result<Values, conversations::Error> {
    let id = conversation.and_then(|id| id.parse::<ConversationId>().ok());
    let Some(id) = id else { return Ok((Vec::new(), Some(0))) };
    let reading = Reading { turn: None, order: Order::NewestFirst, limit: 100, cursor: None };
    let page = match task.own.messages(id, reading).await {
        Err(conversations::Error::NotFound) => return Ok((Vec::new(), Some(0))),
        page => page?,
    };
    let ids = page.items.iter().map(|one| one.id.to_string());
    Ok((ids.filter(|id| id.starts_with(begun)).collect(), None))
}

async fn benchmarks(task: &Task, begun: &str) -> std::result::Result<Values, conversations::Error> {
    let wanted = BenchmarkWanted { limit: 100, ..BenchmarkWanted::default() };
    let page = task.own.benchmarks(wanted).await?;
    let ids = page.items.iter().map(|one| one.id.to_string());
    Ok((ids.filter(|id| id.starts_with(begun)).collect(), None))
}

/// What reports and transcripts may end with.
fn formats(begun: &str, of: &[u8]) -> Values {
    let report = memchr::memmem::find(of, b"benchmark://").is_some();
    let all = if report { ["md", "csv", "json"] } else { ["md", "json", "jsonl"] };
    let values: Vec<_> = all.into_iter().filter(|one| one.starts_with(begun)).map(str::to_owned).collect();
    let total = values.len();
    (values, Some(total))
}
