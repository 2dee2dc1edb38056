//! What can be read here, and under which URIs?
//!
//! Lists are the same for everybody, since the gateway reads them once for all: what belongs to a caller is
//! found by templates, and by the tools that list it. What is another's reads as what is not there.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Task, history,
    refused::Refused,
    settings::Pack,
    tools::{
        account::{Account, UsageReport},
        benchmark,
        conversation::{ConversationOut, MessageOut},
        export::{self, Format},
        models::ModelOut,
    },
    upstream::Code,
};
use crate::{
    error::{Error, Result},
    store::conversations::{ConversationId, Cursor, Message, MessageId, Order, Reading},
};

/// Messages on a page of a conversation.
const PAGE: u32 = 200;
/// For how many milliseconds what was read holds.
const PUBLISHED: u64 = 300_000;
const UNCHANGING: u64 = 3_600_000;
const SUMS: u64 = 5_000;

/// What there is, by pack: URI or template, name, title, type.
type Entry = (Pack, &'static str, &'static str, &'static str, &'static str);

const FIXED: [Entry; 2] = [
    (Pack::Account, "openrouter://usage", "usage", "What you have used and spent", "application/json"),
    (Pack::Account, "openrouter://account", "account", "What the key may still spend", "application/json"),
];

const TEMPLATES: [Entry; 5] = [
    (
        Pack::Core,
        "conversation://{conversation_id}{?cursor}",
        "conversation",
        "A conversation of yours",
        "application/json",
    ),
    (
        Pack::Core,
        "conversation://{conversation_id}/transcript.{format}",
        "transcript",
        "All of a conversation, as md, json or jsonl",
        "text/markdown",
    ),
    (
        Pack::Core,
        "conversation://{conversation_id}/messages/{message_id}",
        "message",
        "A message with what was attached to it",
        "text/plain",
    ),
    (
        Pack::Catalog,
        "openrouter://models/{+model_id}",
        "model",
        "What is known of a model",
        "application/json",
    ),
    (
        Pack::Benchmark,
        "benchmark://{run_id}/report.{format}",
        "report",
        "A benchmark of yours, as md, csv or json",
        "text/markdown",
    ),
];

/// The result of `resources/list`.
pub fn list(packs: &[Pack]) -> String {
    listed("resources", "uri", packs, &FIXED)
}

/// The result of `resources/templates/list`.
pub fn templates(packs: &[Pack]) -> String {
    listed("resourceTemplates", "uriTemplate", packs, &TEMPLATES)
}

fn listed(member: &str, key: &str, packs: &[Pack], entries: &[Entry]) -> String {
    let there = entries.iter().filter(|(pack, ..)| packs.contains(pack));
    let entries: Vec<_> = there
        .map(
            |(_, uri, name, title, mime)| json!({ key: uri, "name": name, "title": title, "mimeType": mime }),
        )
        .collect();
    json!({ "resultType": "complete", "ttlMs": PUBLISHED, "cacheScope": "public", member: entries })
        .to_string()
}

/// What was read.
#[derive(Debug)]
pub struct Read {
    pub contents: Vec<Content>,
    ttl: u64,
    public: bool,
}

#[derive(Debug)]
pub struct Content {
    pub uri: String,
    pub mime: String,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    Text(String),
    Bytes(Vec<u8>),
}

impl Read {
    fn text(uri: &str, mime: &str, text: String, ttl: u64) -> Self {
        let content = Content { uri: uri.to_owned(), mime: mime.to_owned(), body: Body::Text(text) };
        Self { contents: vec![content], ttl, public: false }
    }

    fn json(uri: &str, value: &impl Serialize, ttl: u64) -> Self {
        Self::text(uri, "application/json", serde_json::to_string_pretty(value).unwrap_or_default(), ttl)
    }
}

impl Content {
    pub fn written(&self) -> Value {
        let mut written = json!({ "uri": self.uri, "mimeType": self.mime });
        match &self.body {
            Body::Text(text) => written["text"] = text.as_str().into(),
            Body::Bytes(bytes) => written["blob"] = STANDARD.encode(bytes).into(),
        }
        written
    }
}

/// The result of `resources/read`.
pub async fn reply(task: &Task, uri: &str) -> Result<String> {
    let read = read(task, uri).await.map_err(|refused| match refused.code {
        Code::ConversationNotFound | Code::ModelNotFound => Error::UnknownResource(uri.to_owned()),
        Code::InvalidInput => Error::Params(refused.message.clone()),
        _ => Error::backend(&*task.work.name, &refused.message),
    })?;
    let contents: Vec<_> = read.contents.iter().map(Content::written).collect();
    let scope = if read.public { "public" } else { "private" };
    let result =
        json!({ "resultType": "complete", "ttlMs": read.ttl, "cacheScope": scope, "contents": contents });
    Ok(result.to_string())
}

/// What stands under a URI, if the caller may read it.
pub async fn read(task: &Task, uri: &str) -> std::result::Result<Read, Refused> {
    let unknown =
        || Refused::new(Code::ConversationNotFound, format!("there is no resource {uri:?} of yours"));
    let (scheme, rest) = uri.split_once("://").ok_or_else(unknown)?;
    let there = |pack: Pack| task.work.settings.packs.contains(&pack).then_some(()).ok_or_else(unknown);
    match scheme {
        "conversation" => {
            there(Pack::Core)?;
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let id = rest[..at].parse::<ConversationId>().map_err(|_| unknown())?;
            conversation(task, uri, id, &rest[at..]).await?.ok_or_else(unknown)
        }
        "benchmark" => {
            there(Pack::Benchmark)?;
            let (id, ending) = rest.split_once("/report.").ok_or_else(unknown)?;
            let (text, mime) = benchmark::report(task, id, ending).await?.ok_or_else(unknown)?;
            Ok(Read::text(uri, mime, text, UNCHANGING))
        }
        "openrouter" if rest == "usage" => {
            there(Pack::Account)?;
            Ok(Read::json(uri, &UsageReport::default().of(task).await?, SUMS))
        }
        "openrouter" if rest == "account" => {
            there(Pack::Account)?;
            Ok(Read::json(uri, &Account::of(task).await?, SUMS))
        }
        "openrouter" => {
            there(Pack::Catalog)?;
            let name = rest.strip_prefix("models/").ok_or_else(unknown)?;
            let models = task.work.catalog.get().await;
            let resolved = models.resolve(name, &task.work.settings.aliases);
            let model = resolved.model.filter(|model| task.is_allowed(model)).ok_or_else(unknown)?;
            let read = Read::json(uri, &ModelOut::new(&model, true), PUBLISHED);
            Ok(Read { public: true, ..read })
        }
        _ => Err(unknown()),
    }
}

/// What of a conversation `rest` names, if anything.
async fn conversation(
    task: &Task,
    uri: &str,
    id: ConversationId,
    rest: &str,
) -> std::result::Result<Option<Read>, Refused> {
    if let Some(ending) = rest.strip_prefix("/transcript.") {
        let formats = [Format::Markdown, Format::Json, Format::Jsonl];
        let Some(format) = formats.into_iter().find(|format| format.words().0 == ending) else {
            return Ok(None);
        };
        let text = export::written(task, id, format, false).await?;
        return Ok(Some(Read::text(uri, format.words().1, text, 0)));
    }
    if let Some(message) = rest.strip_prefix("/messages/") {
        let Ok(message) = message.parse::<MessageId>() else { return Ok(None) };
        let message = task.own.message(id, message).await?;
        return Ok(Some(message_of(task, uri, id, &message).await?));
    }
    let cursor = match rest.strip_prefix("?cursor=") {
        Some(cursor) => Some(Cursor(cursor.to_owned())),
        None if rest.is_empty() => None,
        None => return Ok(None),
    };
    let kept = task.own.conversation(id).await?;
    let reading = Reading { turn: None, order: Order::OldestFirst, limit: PAGE, cursor };
    let page = task.own.messages(id, reading).await?;
    let messages: Vec<_> = page.items.iter().map(|one| MessageOut::new(one, false, usize::MAX)).collect();
    let next = page.next.map(|cursor| format!("conversation://{id}?cursor={}", cursor.0));
    let whole = json!({ "conversation": ConversationOut::from(kept), "messages": messages, "next": next });
    Ok(Some(Read::json(uri, &whole, 0)))
}

/// The text of a message, and the files that came with it.
async fn message_of(
    task: &Task,
    uri: &str,
    id: ConversationId,
    message: &Message,
) -> std::result::Result<Read, Refused> {
    let mut read = Read::text(uri, "text/plain", message.text.clone(), UNCHANGING);
    for (at, attached) in history::attachments_of(message).into_iter().enumerate() {
        if let Some(name) = attached.kept {
            let (mime, bytes) = task.own.attached(id, name).await?;
            let uri = format!("{uri}#{}", at + 1);
            read.contents.push(Content { uri, mime, body: Body::Bytes(bytes) });
        }
    }
    Ok(read)
}
