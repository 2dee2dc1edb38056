//! How does what is kept of a conversation become what a model is told, and back?

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Task,
    ask::{Chosen, Used, Wishes},
    context::{
        self, Budget, Conversation, Fitted, Item, Limits, Media, Ratio, Report, Strategy, Summary, Turn,
        of_message,
    },
    media::{Attachment, Checked, Kind, Source},
    policy,
    refused::Refused,
    turn::Wanted,
    upstream::{Completion, Content, Message, Part, Role},
};
use crate::store::conversations::{self as kept_as, Answer, Begun, ConversationId, MessageId, Outline};

/// The window of a model that is not in the list.
const UNKNOWN_WINDOW: u64 = 1 << 20;
/// Messages of a conversation whose sizes are looked at, however short they are.
const MESSAGES: u32 = 50_000;
/// How often it is looked whether more can be read, since what was read is less than was thought.
const ROUNDS: usize = 3;
/// Messages that are read where more than their sizes is needed.
const READ: u32 = 4_000;

/// What to do when not all of a conversation fits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fitting {
    pub strategy: Strategy,
    pub max_input_tokens: Option<u64>,
    pub keep_last_turns: Option<usize>,
}

/// What a user says now.
#[derive(Debug, Clone)]
pub struct Said {
    pub text: String,
    pub attached: Vec<Checked>,
}

impl Said {
    /// As it is sent, and what is kept of its attachments.
    pub fn item(&self) -> Item {
        let mut item = Item { message: Message::new(Role::User, &*self.text), tokens: 0, media: Vec::new() };
        if !self.attached.is_empty() {
            let mut parts = vec![Part::text(&*self.text)];
            for one in &self.attached {
                item.media.push(Media { part: parts.len(), ..one.media.clone() });
                parts.push(one.part.clone());
            }
            item.message.content = Content::Parts(parts);
        }
        item.tokens = of_message(&item.message);
        item
    }
}

/// An attachment as it is kept with its message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attached {
    pub kind: Kind,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// Under which name its bytes are kept, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    pub tokens: u64,
}

/// What is kept beside the text of a message.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Extras {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Attached>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasoning_details: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Value>,
}

/// What of a conversation could be sent.
#[derive(Debug, Clone)]
pub struct Fittable {
    system: Option<Item>,
    /// The oldest first, with the last message of each.
    turns: Vec<(MessageId, Turn)>,
    /// Turns before them that were not read, since they do not fit.
    unread: usize,
    current: Turn,
    fitting: Fitting,
    /// What stands for the turns up to a message.
    pub summary: Option<(MessageId, Message)>,
}

/// What is kept of attachments beside the text of a user's message.
pub fn extras(attachments: Vec<Attached>) -> Option<Value> {
    if attachments.is_empty() {
        return None;
    }
    serde_json::to_value(Extras { attachments, ..Extras::default() }).ok()
}

/// An answer as it is kept.
pub fn answer(completion: &Completion) -> Answer {
    let extras = Extras {
        reasoning: completion.reasoning.clone(),
        reasoning_details: completion.reasoning_details.clone(),
        annotations: completion.annotations.clone(),
        ..Extras::default()
    };
    let extras = serde_json::to_value(extras)
        .ok()
        .filter(|extras| extras.as_object().is_some_and(|all| !all.is_empty()));
    let reported =
        completion.usage.as_ref().map(|usage| usage.completion_tokens).filter(|tokens| *tokens > 0);
    let tokens = reported.unwrap_or_else(|| context::of_text(&completion.text));
    Answer {
        text: completion.text.clone(),
        extras,
        tokens: i64::try_from(tokens).unwrap_or(i64::MAX),
        tokens_reported: reported.is_some(),
    }
}

/// What callers are told of an answer beside its text.
pub fn besides(
    task: &Task,
    completion: &Completion,
    report: &policy::Report,
    context: &Report,
    used: &Used,
) -> Value {
    let mut besides = json!({
        "usage": used,
        "context": context,
        "continuations": report.continuations,
        "warnings": report.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "simulated": task.work.simulated,
    });
    if let Some(attempt) = report.attempts.last().filter(|attempt| attempt.ok) {
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (first, total) = (attempt.first.map(millis), millis(attempt.total));
        besides["timing"] = json!({ "first_token_ms": first, "total_ms": total });
    }
    if let Some(reused) = &completion.reused {
        besides["cache"] = json!(reused);
    }
    let citations: Vec<_> = completion.citations().collect();
    if !citations.is_empty() {
        besides["citations"] = json!(citations);
    }
    if !completion.tool_calls.is_empty() {
        besides["tool_calls"] = json!(completion.tool_calls);
    }
    if let Some(refusal) = &completion.refusal {
        besides["refusal"] = json!(refusal);
    }
    besides
}

/// Reads what leads to the message that is to be answered.
pub async fn load(task: &Task, begun: &Begun, wanted: &Wanted) -> Result<Fittable, Refused> {
    let id = begun.conversation.id;
    let current = match &wanted.message {
        Some(said) => said.item(),
        None => user_item(task, id, &begun.message, true).await?,
    };
    let system = begun.conversation.system_prompt.as_deref().filter(|prompt| !prompt.is_empty());
    let system = system.map(|prompt| item(Message::new(Role::System, prompt)));
    let mut fittable = Fittable {
        system,
        turns: Vec::new(),
        unread: 0,
        current: Turn { items: vec![current] },
        fitting: wanted.fitting,
        summary: None,
    };
    if let Some(parent) = begun.message.parent {
        let window = window(task, &wanted.chosen);
        let tokens = i64::try_from(window.saturating_mul(2)).unwrap_or(i64::MAX);
        if fittable.fitting.strategy == Strategy::Window {
            fittable.read_what_fits(task, (id, parent), wanted, tokens).await?;
        } else {
            let budget = kept_as::Budget { tokens, messages: READ };
            let path = task.own.path(id, Some(parent), budget).await?;
            fittable.turns = in_turns(task, id, path.messages).await?;
        }
    }
    if fittable.fitting.strategy == Strategy::Summarize {
        return super::summary::summarized(task, id, fittable, wanted).await;
    }
    Ok(fittable)
}

/// How much a model reads at the most, by all that is known.
pub fn window(task: &Task, chosen: &Chosen) -> u64 {
    let learned = task.work.lessons.of(&chosen.id).window;
    chosen.model.as_ref().map_or(learned, |model| model.window(learned)).unwrap_or(UNKNOWN_WINDOW)
}

fn item(message: Message) -> Item {
    Item { tokens: of_message(&message), message, media: Vec::new() }
}

/// Messages, the newest first, as turns, the oldest first.
async fn in_turns(
    task: &Task,
    id: ConversationId,
    messages: Vec<kept_as::Message>,
) -> Result<Vec<(MessageId, Turn)>, Refused> {
    let mut turns: Vec<(MessageId, Turn)> = Vec::new();
    let users = messages.iter().filter(|message| message.role == kept_as::Role::User).count();
    let recent = task.work.settings.attachment_turns;
    let mut user = 0;
    for message in messages.iter().rev() {
        if message.role == kept_as::Role::User {
            user += 1;
            let item = user_item(task, id, message, user + recent > users).await?;
            turns.push((message.id, Turn { items: vec![item] }));
        } else {
            let item = assistant_item(message);
            match turns.last_mut() {
                Some((last, turn)) => {
                    *last = message.id;
                    turn.items.push(item);
                }
                // The beginning was not read, so this answers nothing.
                None => turns.push((message.id, Turn { items: vec![item] })),
            }
        }
    }
    Ok(turns)
}

/// A user's message as it is sent again. Only of recent ones are the attachments read.
async fn user_item(
    task: &Task,
    id: ConversationId,
    message: &kept_as::Message,
    recent: bool,
) -> Result<Item, Refused> {
    let extras = extras_of(message);
    let mut said = Said { text: message.text.clone(), attached: Vec::new() };
    for one in extras.attachments {
        let source = match (&one.kept, &one.url) {
            (Some(kept), _) if recent => {
                let (_, bytes) = task.own.attached(id, kept.clone()).await?;
                Some(Source::Bytes(bytes))
            }
            (None, Some(url)) if recent => Some(Source::Url(url.clone())),
            _ => None,
        };
        let Some(source) = source else {
            said.text.push_str(&format!("\n[{} sent earlier]", one.name));
            continue;
        };
        let (kind, mime_type, name, detail) = (one.kind, one.mime, Some(one.name), one.detail);
        said.attached.push(
            task.work.settings.media.check(Attachment { kind, source, mime_type, name, detail }, None)?,
        );
    }
    Ok(said.item())
}

fn assistant_item(message: &kept_as::Message) -> Item {
    let Extras { reasoning_details, annotations, .. } = extras_of(message);
    let replayed = Message::answered(&message.text, reasoning_details, annotations);
    let reported = u64::try_from(message.tokens).ok().filter(|_| message.tokens_reported);
    let tokens = reported.map_or_else(|| of_message(&replayed), |tokens| tokens + 4);
    Item { message: replayed, tokens, media: Vec::new() }
}

fn extras_of(message: &kept_as::Message) -> Extras {
    message.extras.as_ref().and_then(|extras| serde_json::from_value(extras.clone()).ok()).unwrap_or_default()
}

/// The attachments of a message.
pub fn attachments_of(message: &kept_as::Message) -> Vec<Attached> {
    extras_of(message).attachments
}

/// The reasoning of an answer.
pub fn reasoning_of(message: &kept_as::Message) -> String {
    extras_of(message).reasoning
}

impl Fittable {
    /// Chooses by the sizes of messages alone, and reads no others.
    async fn read_what_fits(
        &mut self,
        task: &Task,
        (id, parent): (ConversationId, MessageId),
        wanted: &Wanted,
        tokens: i64,
    ) -> Result<(), Refused> {
        let budget = kept_as::Budget { tokens, messages: MESSAGES };
        let outline = task.own.outline(id, Some(parent), budget).await?;
        let ratio = task.work.lessons.of(&wanted.chosen.id).ratio;
        let sized = Sized::new(&outline, ratio);
        let fixed = self.system.iter().chain(&self.current.items).map(|item| ratio.apply(item.tokens)).sum();
        let room = budget_of(task, &wanted.chosen, &wanted.wishes, self.fitting).tokens;
        let mut saved = 0;
        for _ in 0..ROUNDS {
            let begins = context::begins(&sized.turns, fixed, room.saturating_add(saved));
            let most = self.fitting.keep_last_turns.unwrap_or(usize::MAX);
            self.unread = begins.max(sized.turns.len().saturating_sub(most));
            let messages = sized.messages_from(self.unread);
            self.turns.clear();
            if messages > 0 {
                let budget = kept_as::Budget { tokens: i64::MAX, messages };
                let path = task.own.path(id, Some(parent), budget).await?;
                self.turns = in_turns(task, id, path.messages).await?;
            }
            // What was attached long ago is counted with its message and is not sent, which makes room for more.
            let sent = self.turns.iter().map(|(_, turn)| ratio.apply(turn.tokens())).sum();
            let more = sized.turns[self.unread..].iter().sum::<u64>().saturating_sub(sent);
            if self.unread == 0 || more <= saved {
                break;
            }
            saved = more;
        }
        Ok(())
    }

    /// The turns from the first on, each as text, with the last message of each.
    pub fn transcript(&self) -> impl Iterator<Item = (MessageId, String)> {
        self.turns.iter().map(|(id, turn)| {
            let words =
                turn.items.iter().map(|item| format!("{:?}: {}", item.message.role, text_of(&item.message)));
            (*id, words.collect::<Vec<_>>().join("\n"))
        })
    }

    /// Chooses what is sent.
    pub fn fit(&self, task: &Task, chosen: &Chosen, wishes: &Wishes) -> Result<Fitted, Refused> {
        let ratio = task.work.lessons.of(&chosen.id).ratio;
        let counted = |mut item: Item| {
            item.tokens = ratio.apply(item.tokens);
            item.media.iter_mut().for_each(|media| media.tokens = ratio.apply(media.tokens));
            item
        };
        let turn = |turn: &Turn| Turn { items: turn.items.iter().cloned().map(counted).collect() };
        let summary = self.summary.as_ref().and_then(|(upto, message)| {
            let covers = self.turns.iter().position(|(id, _)| id == upto)? + 1;
            Some(Summary { tokens: ratio.apply(of_message(message)), message: message.clone(), covers })
        });
        let conversation = Conversation {
            system: self.system.clone().map(counted),
            tools_tokens: wishes.extra.get("tools").map_or(0, |tools| context::of_text(&tools.to_string())),
            history: self.turns.iter().map(|(_, one)| turn(one)).collect(),
            current: turn(&self.current),
            strategy: self.fitting.strategy,
            keep_last_turns: self.fitting.keep_last_turns,
            attachment_turns: task.work.settings.attachment_turns,
            summary,
        };
        let mut fitted = conversation.fit(budget_of(task, chosen, wishes, self.fitting))?;
        fitted.report.dropped_turns += self.unread;
        Ok(fitted)
    }
}

/// How large the turns of a path are, the oldest first.
struct Sized {
    turns: Vec<u64>,
    /// How many of the newest messages each turn and those after it are.
    messages: Vec<u32>,
}

impl Sized {
    fn new(outline: &Outline, ratio: Ratio) -> Self {
        let (mut turns, mut messages) = (Vec::new(), Vec::new());
        let mut size = 0;
        for step in &outline.steps {
            size += ratio.apply(u64::try_from(step.tokens).unwrap_or(0));
            if step.role == kept_as::Role::User {
                turns.push(std::mem::take(&mut size));
                messages.push(step.nth);
            }
        }
        turns.reverse();
        messages.reverse();
        Self { turns, messages }
    }

    fn messages_from(&self, turn: usize) -> u32 {
        self.messages.get(turn).copied().unwrap_or(0)
    }
}

/// How much there is room for.
fn budget_of(task: &Task, chosen: &Chosen, wishes: &Wishes, fitting: Fitting) -> Budget {
    Budget::new(Limits {
        window: window(task, chosen),
        longest_answer: chosen.model.as_ref().and_then(|model| model.longest_answer()),
        max_output: Some(task.output_limit(chosen, wishes)),
        max_input: fitting.max_input_tokens,
        reasons: chosen.model.as_ref().is_some_and(|model| model.reasons()),
    })
}

fn text_of(message: &Message) -> String {
    match &message.content {
        Content::None => String::new(),
        Content::Text(text) => text.clone(),
        Content::Parts(parts) => {
            let text =
                |part: &Part| if let Part::Text { text, .. } = part { Some(text.clone()) } else { None };
            parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
        }
    }
}

/// The bytes of a checked attachment, as they are in its part.
pub fn bytes_of(part: &Part) -> Option<Vec<u8>> {
    let data = |url: &str| STANDARD.decode(url.split_once(";base64,")?.1).ok();
    match part {
        Part::ImageUrl { image_url } => data(&image_url.url),
        Part::File { file } => data(file.file_data.as_deref()?),
        Part::InputAudio { input_audio } => STANDARD.decode(&input_audio.data).ok(),
        Part::VideoUrl { video_url } => data(&video_url.url),
        Part::Text { .. } | Part::Other(_) => None,
    }
}

/// An object of the members that are there.
pub fn object(members: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Map<String, Value> {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
