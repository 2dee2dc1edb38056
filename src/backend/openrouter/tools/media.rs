//! What is in a picture, a document or a recording, and how do they get here?

use std::{path::Path, sync::Arc};

use rustix::fs::{Mode, OFlags, openat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use super::{Effect, Gives, Takes};
use crate::{
    backend::openrouter::{
        Task,
        ask::{Chosen, Used, Wishes},
        history::{Attached, Said, bytes_of},
        media::{Attachment, Checked, Kind, Source},
        refused::Refused,
        resources::{self, Body},
        upstream::{Code, Message},
    },
    store::conversations::ConversationId,
};

/// An attachment: exactly one of `url`, `data`, `resource_uri` and `path`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachmentIn {
    /// What it is.
    pub kind: Kind,
    /// An https: or data: address. It is passed on, not fetched here.
    #[serde(default)]
    pub url: Option<String>,
    /// Its bytes as base64.
    #[serde(default)]
    pub data: Option<String>,
    /// A resource of this server, such as conversation://… or benchmark://….
    #[serde(default)]
    pub resource_uri: Option<String>,
    /// A file of this machine, in a folder that is allowed; over standard input only.
    #[serde(default)]
    pub path: Option<String>,
    /// Its type, such as image/png. Held against its first bytes.
    #[serde(default)]
    pub mime_type: Option<String>,
    /// What it is called.
    #[serde(default)]
    pub name: Option<String>,
    /// How closely a picture is looked at: auto, low or high.
    #[serde(default)]
    pub detail: Option<Detail>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    Auto,
    Low,
    High,
}

impl Detail {
    const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Low => "low",
            Self::High => "high",
        }
    }
}

/// What is attached, with what it was given as.
#[derive(Debug, Clone)]
pub struct Given {
    pub checked: Checked,
    kind: Kind,
    url: Option<String>,
    detail: Option<String>,
}

/// Checks attachments for a model, before anything is sent.
pub async fn given(
    task: &Task,
    chosen: &Chosen,
    attachments: &[AttachmentIn],
) -> Result<Vec<Given>, Refused> {
    let mut all = Vec::with_capacity(attachments.len());
    for one in attachments {
        let source = match (&one.url, &one.data, &one.resource_uri, &one.path) {
            (Some(url), None, None, None) => Source::Url(url.clone()),
            (None, Some(data), None, None) => Source::Base64(data.clone()),
            (None, None, Some(uri), None) => Source::Bytes(resource(task, uri, one.kind).await?),
            (None, None, None, Some(path)) => Source::Bytes(file(task, path).await?),
            _ => {
                let why = "an attachment has exactly one of url, data, resource_uri and path";
                return Err(Refused::new(Code::MediaRejected, why));
            }
        };
        let detail = one.detail.map(|detail| detail.word().to_owned());
        let url = one.url.clone().filter(|url| !url.starts_with("data:"));
        let attachment = Attachment {
            kind: one.kind,
            source,
            mime_type: one.mime_type.clone(),
            name: one.name.clone(),
            detail: detail.clone(),
        };
        let checked = task.work.settings.media.check(attachment, chosen.model.as_deref())?;
        all.push(Given { checked, kind: one.kind, url, detail });
    }
    Ok(all)
}

/// Keeps attachments with a conversation, so that later turns have them.
pub async fn keep(task: &Task, id: ConversationId, all: &[Given]) -> Result<Vec<Attached>, Refused> {
    let mut kept = Vec::with_capacity(all.len());
    for Given { checked, kind, url, detail } in all {
        let mime = checked.format.map(|format| format.mime().to_owned());
        let bytes = if url.is_some() { None } else { bytes_of(&checked.part) };
        let name = match bytes {
            Some(bytes) => {
                let mime = mime.clone().unwrap_or_else(|| "application/octet-stream".into());
                Some(task.own.attach(id, mime, bytes).await?)
            }
            None => None,
        };
        kept.push(Attached {
            kind: *kind,
            name: checked.media.name.clone(),
            mime,
            kept: name,
            url: url.clone(),
            detail: detail.clone(),
            tokens: checked.media.tokens,
        });
    }
    Ok(kept)
}

/// The bytes of what a resource has of this kind.
async fn resource(task: &Task, uri: &str, kind: Kind) -> Result<Vec<u8>, Refused> {
    let read = resources::read(task, uri).await?;
    let found = read.contents.into_iter().find_map(|content| match content.body {
        Body::Text(text) => (kind == Kind::Text).then(|| text.into_bytes()),
        Body::Bytes(bytes) => kind.is_of(&content.mime).then_some(bytes),
    });
    found.ok_or_else(|| {
        Refused::new(Code::MediaRejected, format!("{uri}: nothing of the kind {} is there", kind.called()))
    })
}

/// The bytes of a file in one of the allowed folders. Links are not followed, on no part of the way.
async fn file(task: &Task, path: &str) -> Result<Vec<u8>, Refused> {
    let refused = |why: String| Refused::new(Code::MediaRejected, format!("{path}: {why}"));
    if !task.is_local {
        return Err(refused("files are taken by path over standard input only; send them as data".into()));
    }
    let wanted = Path::new(path);
    let folders = &task.work.settings.folders;
    let found = folders.iter().find_map(|folder| Some((folder, wanted.strip_prefix(folder).ok()?)));
    let Some((folder, below)) = found else {
        return Err(refused("it is in none of the folders that are allowed (openrouter.folders)".into()));
    };
    let most = task.work.settings.media.max_size.0;
    let opened = {
        let (folder, below) = (folder.clone(), below.to_owned());
        tokio::task::spawn_blocking(move || open_below(&folder, &below)).await
    };
    let opened = opened.map_err(|why| refused(why.to_string()))?.map_err(|why| refused(why.to_string()))?;
    let mut bytes = Vec::new();
    let read = tokio::fs::File::from_std(opened).take(most as u64 + 1).read_to_end(&mut bytes).await;
    read.map_err(|why| refused(why.to_string()))?;
    if bytes.len() > most {
        return Err(refused(format!("it has more than the {most} bytes that may be attached")));
    }
    Ok(bytes)
}

/// Opens a regular file, step by step down from a folder.
fn open_below(folder: &Path, below: &Path) -> std::io::Result<std::fs::File> {
    let no_file = || std::io::Error::other("it is no regular file");
    let step = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut at = rustix::fs::open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut parts = below.components().peekable();
    while let Some(part) = parts.next() {
        let std::path::Component::Normal(name) = part else { return Err(no_file()) };
        let kind = if parts.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
        at = openat(&at, name, step | kind | OFlags::RDONLY, Mode::empty())?;
    }
    let file = std::fs::File::from(at);
    if file.metadata()?.is_file() { Ok(file) } else { Err(no_file()) }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnalyzeMedia {
    /// What is to be looked at.
    #[schemars(length(min = 1, max = 10))]
    attachments: Vec<AttachmentIn>,
    /// What is asked about it. By default: what it is.
    #[serde(default)]
    question: Option<String>,
    /// A model that can read it. By default the server's.
    #[serde(default)]
    model: Option<String>,
    /// The longest answer, in tokens.
    #[serde(default)]
    #[schemars(range(min = 16, max = 131_072))]
    max_output_tokens: Option<u64>,
    /// Nothing is sent if it may cost more than this.
    #[serde(default)]
    max_cost_usd: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Analyzed {
    text: String,
    model_used: String,
    usage: Used,
    warnings: Vec<String>,
}

impl Gives for Analyzed {
    const SHOWN: Option<&'static str> = Some("text");

    fn text(&self) -> Option<String> {
        Some(self.text.clone())
    }

    fn used(&self) -> Option<&Used> {
        Some(&self.usage)
    }
}

impl Takes for AnalyzeMedia {
    const NAME: &'static str = "analyze_media";
    const TITLE: &'static str = "Look at pictures, documents and recordings";
    const DESCRIPTION: &'static str =
        "Asks a model about attachments, without a conversation. Nothing is kept but what it cost.";
    const EFFECT: Effect = Effect::COSTS;
    type Gives = Analyzed;

    async fn run(self, task: Arc<Task>) -> Result<Analyzed, Refused> {
        if self.attachments.is_empty() {
            return Err(Refused::input("attachments is empty; give at least one"));
        }
        let chosen = task.choose(self.model.as_deref()).await?;
        let attached = given(&task, &chosen, &self.attachments).await?;
        let attached = attached.into_iter().map(|one| one.checked).collect();
        let text = self.question.unwrap_or_else(|| "Describe what this is and what is in it.".into());
        let message: Message = Said { text, attached }.item().message;
        let wishes = Wishes {
            max_output_tokens: self.max_output_tokens,
            max_cost_usd: self.max_cost_usd,
            auto_continue: true,
            ..Wishes::default()
        };
        let (answer, usage) =
            task.ask(Self::NAME, (&chosen, vec![message]), &wishes, None, &mut |_| {}).await?;
        Ok(Analyzed {
            text: answer.completion.text,
            model_used: answer.completion.model.unwrap_or(answer.report.model),
            usage,
            warnings: answer.report.warnings.iter().map(ToString::to_string).collect(),
        })
    }
}
