//! What can be said in a conversation, and what comes of it?

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Effect, Gives, Takes,
    free::{Needs, free},
    media::{AttachmentIn, given, keep},
    wishes::{CacheIn, ContextIn, Effort, FormatKind, ProviderIn, ResponseFormat, WebSearch},
};
use crate::{
    backend::openrouter::{
        Task,
        ask::{Chosen, Used, Wishes},
        context::{of_message, of_text},
        form::{self, Form},
        history::{self, Fitting, Said, object},
        line::Turning,
        money::Money,
        refused::Refused,
        turn::{Ended, Wanted},
    },
    store::conversations::{
        Conversation, ConversationId, MessageId, NewConversation, NewTurn, Place, Said as Kept,
    },
};

/// What a message is beside its text, in tokens; rather more.
const PER_MESSAGE: u64 = 8;
/// Text that is given at once; the rest is behind the link.
pub const INLINE: usize = 32 << 10;

#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Chat {
    /// What the user says in this turn. Left out only with retry.
    #[schemars(length(min = 1, max = 400_000))]
    pub message: Option<String>,
    /// Continues this conversation. Without it a new one is created.
    pub conversation_id: Option<String>,
    /// An OpenRouter model id, such as anthropic/claude-sonnet-4.6. By default the conversation's, else the server's.
    pub model: Option<String>,
    /// Models that are asked in this order if the first fails before it has said anything.
    #[schemars(length(max = 5))]
    pub fallback_models: Vec<String>,
    /// auto: OpenRouter picks the model. free: only models that cost nothing, those that answer best here first.
    pub route: Option<Route>,
    /// The system prompt of the conversation, from this turn on.
    #[schemars(length(max = 100_000))]
    pub system_prompt: Option<String>,
    /// Pictures, PDFs, recordings, videos or texts that belong to the message.
    #[schemars(length(max = 10))]
    pub attachments: Vec<AttachmentIn>,
    /// The longest answer, in tokens.
    #[schemars(range(min = 16, max = 131_072))]
    pub max_output_tokens: Option<u64>,
    /// How freely the model chooses its words.
    #[schemars(range(min = 0, max = 2))]
    pub temperature: Option<f64>,
    /// Of how much of what is likely the model chooses.
    #[schemars(range(min = 0, max = 1))]
    pub top_p: Option<f64>,
    /// The same seed gives the same answer, where the provider can.
    pub seed: Option<i64>,
    /// Texts at which the answer ends.
    #[schemars(length(max = 4))]
    pub stop: Vec<String>,
    /// How much the model thinks before it answers.
    pub reasoning_effort: Option<Effort>,
    /// Is what the model thought given too?
    pub include_reasoning: bool,
    /// The form of the answer: text, any JSON, or JSON of a schema.
    pub response_format: Option<ResponseFormat>,
    /// Has the model search the web.
    pub web_search: Option<WebSearch>,
    /// Which providers may answer.
    pub provider: Option<ProviderIn>,
    /// What to do when the conversation no longer fits the model. By default the oldest turns are left out.
    pub context: Option<ContextIn>,
    /// What is kept at OpenRouter and providers, to be cheaper.
    pub cache: Option<CacheIn>,
    /// Does an answer go on that was cut off by the output limit? By default it does.
    pub auto_continue: Option<bool>,
    /// Nothing is sent if it may cost more than this.
    pub max_cost_usd: Option<f64>,
    /// Runs the last failed or incomplete turn again, without a message.
    pub retry: bool,
    /// Answers from this message instead of the end, which makes a branch.
    pub parent_message_id: Option<String>,
    /// The same key gives the first result again for 24 hours, and is charged once.
    #[schemars(length(min = 8, max = 128))]
    pub idempotency_key: Option<String>,
    /// Fails with conversation_conflict if the conversation has changed since.
    pub expected_version: Option<i64>,
    /// Tags of a new conversation.
    #[schemars(length(max = 20))]
    pub tags: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    Model,
    Auto,
    Free,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Chatted {
    /// completed, or incomplete if the answer was cut short.
    pub status: StatusOut,
    pub text: String,
    pub conversation_id: String,
    pub turn_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assistant_message_id: Option<String>,
    /// Of the conversation, for expected_version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    pub model_requested: String,
    pub model_used: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Why the answer is incomplete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete_reason: Option<String>,
    pub usage: Used,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The answer as JSON of the form that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parsed: Option<Value>,
    /// Why the answer is not of the form that was asked for; then there is no parsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format_error: Option<String>,
    /// This result was given before; nothing was asked or charged again.
    pub replayed: bool,
    /// `context`, `timing`, `cache`, `citations`, `tool_calls`, `continuations`, `warnings`.
    #[serde(flatten)]
    pub besides: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StatusOut {
    Completed,
    Incomplete,
}

impl Gives for Chatted {
    const SHOWN: Option<&'static str> = Some("text");

    fn text(&self) -> Option<String> {
        if self.text.len() <= INLINE {
            return Some(self.text.clone());
        }
        let end = self.text.floor_char_boundary(INLINE);
        Some(format!(
            "{}\n[… the rest: conversation_get with this conversation_id and turn_id]",
            &self.text[..end]
        ))
    }

    fn blocks(&self) -> Vec<Value> {
        let link = |uri: String, name: &str, mime: &str| json!({ "type": "resource_link", "uri": uri, "name": name, "mimeType": mime });
        let whole = self.assistant_message_id.as_ref().filter(|_| self.text.len() > INLINE);
        let conversation = format!("conversation://{}", self.conversation_id);
        let whole = whole.map(|id| link(format!("{conversation}/messages/{id}"), "answer", "text/plain"));
        let mut blocks = vec![link(conversation, "conversation", "application/json")];
        blocks.extend(whole);
        blocks
    }

    fn used(&self) -> Option<&Used> {
        // What was charged before is not charged again.
        (!self.replayed).then_some(&self.usage)
    }
}

impl Takes for Chat {
    const NAME: &'static str = "chat";
    const TITLE: &'static str = "Chat with a model, which remembers the conversation";
    const DESCRIPTION: &'static str = "Sends one message and gives the answer. Without conversation_id a new conversation is created and its id \
        given; pass that id to continue. Conversations belong to whoever asks, outlive restarts, and are forgotten \
        after a time without use. Costs money with each call.";
    const EFFECT: Effect = Effect::COSTS;
    type Gives = Chatted;

    async fn run(self, task: Arc<Task>) -> Result<Chatted, Refused> {
        let form = self.response_format.as_ref().map_or(Ok(Form::Text), ResponseFormat::form)?;
        self.cache.as_ref().map_or(Ok(()), CacheIn::check)?;
        let wanted = self.wanted(&task).await?;
        let include_reasoning = self.include_reasoning;
        let model = wanted.chosen.id.clone();
        let Turning { turn, conversation, mut listener, new } = task.begin(wanted).await?;
        let turn = turn.to_string();
        task.tell.begun(&turn, &conversation.to_string(), &model);
        let ended = loop {
            let (news, end) = listener.news();
            if !news.text.is_empty() {
                task.tell.text(&turn, news.text);
            }
            if include_reasoning && !news.reasoning.is_empty() {
                task.tell.reasoning(&turn, news.reasoning);
            }
            news.remarks.into_iter().for_each(|remark| task.tell.remark(remark));
            match end {
                Some(end) => break end?,
                None => listener.changed().await,
            }
        };
        let mut chatted = chatted(&ended, include_reasoning, &form);
        chatted.replayed |= !new;
        Ok(chatted)
    }
}

fn chatted(ended: &Ended, include_reasoning: bool, form: &Form) -> Chatted {
    let mut besides = ended.besides.as_object().cloned().unwrap_or_default();
    besides.remove("usage");
    besides.remove("simulated");
    let (parsed, format_error) = form::told(form.read(&ended.text));
    Chatted {
        status: if ended.incomplete.is_none() { StatusOut::Completed } else { StatusOut::Incomplete },
        text: ended.text.clone(),
        conversation_id: ended.conversation.to_string(),
        turn_id: ended.turn.to_string(),
        user_message_id: ended.user_message.clone(),
        assistant_message_id: ended.assistant_message.clone(),
        version: ended.version,
        model_requested: ended.model_requested.clone(),
        model_used: ended.model_used.clone(),
        provider: ended.provider.clone(),
        generation_id: ended.generation.clone(),
        finish_reason: ended.finish_reason.clone(),
        incomplete_reason: ended.incomplete.clone(),
        usage: ended.used.clone(),
        reasoning: (include_reasoning && !ended.reasoning.is_empty()).then(|| ended.reasoning.clone()),
        parsed,
        format_error,
        replayed: ended.replayed,
        besides,
    }
}

impl Chat {
    /// Everything checked and looked up, before anything is written or sent.
    async fn wanted(&self, task: &Task) -> Result<Wanted, Refused> {
        let said = self.message.as_deref().filter(|message| !message.is_empty());
        if self.retry == said.is_some() {
            return Err(Refused::input(if self.retry {
                "retry runs the last message again; leave message out, or retry"
            } else {
                "message is missing; write what the user says"
            }));
        }
        let id = self.conversation_id.as_deref().map(conversation_id).transpose()?;
        if self.retry && id.is_none() {
            return Err(Refused::input("retry needs the conversation_id whose last turn is to run again"));
        }
        let conversation = match id {
            Some(id) => Some(task.own.conversation(id).await?),
            None => None,
        };
        if conversation.as_ref().is_some_and(|conversation| !conversation.own) {
            return Err(Refused::input("this conversation is another's; fork it to go on with it"));
        }
        let usual = conversation.as_ref().and_then(|conversation| conversation.model.as_deref());
        let (chosen, fallback_models) = self.models(task, usual).await?;
        let attached = given(task, &chosen, &self.attachments).await?;
        let wishes = self.wishes(fallback_models);
        let own: u64 = attached.iter().map(|one| one.checked.media.tokens).sum();
        self.agree(task, (&chosen, &wishes), own, conversation.as_ref())?;
        let place = self.place(task, id, !attached.is_empty()).await?;
        let extras = match &place {
            Place::In(id) => history::extras(keep(task, *id, &attached).await?),
            Place::New(_) => None,
        };
        let attached = attached.into_iter().map(|one| one.checked).collect();
        let message = said.map(|text| Said { text: text.to_owned(), attached });
        let tokens = message.as_ref().map_or(0, |said| of_message(&said.item().message));
        // Counted if this process dies. What else is sent is known, and looked at, later.
        let estimate = task.estimate(&chosen, task.uses(&chosen, tokens, &wishes), None);
        let new = NewTurn {
            place,
            said: match &message {
                Some(said) => Kept::Message {
                    text: said.text.clone(),
                    extras,
                    tokens: i64::try_from(tokens).unwrap_or(i64::MAX),
                },
                None => Kept::Again,
            },
            parent: self.parent_message_id.as_deref().map(message_id).transpose()?,
            expected_version: self.expected_version,
            key: self.idempotency_key.clone(),
            fingerprint: self.fingerprint(),
            model: chosen.id.clone(),
            system_prompt: self.system_prompt.clone(),
            estimate: estimate.map_or(0, Money::nanos),
        };
        Ok(Wanted { new, chosen, wishes, fitting: self.fitting(), message })
    }

    /// Where it is said. What is attached needs a conversation to be kept with.
    async fn place(&self, task: &Task, id: Option<ConversationId>, attaches: bool) -> Result<Place, Refused> {
        let new = || NewConversation {
            system_prompt: self.system_prompt.clone(),
            model: self.model.clone(),
            tags: self.tags.clone(),
            settings: json!({}),
            title: self.message.as_deref().map(title),
            ..NewConversation::default()
        };
        Ok(match id {
            Some(id) => Place::In(id),
            None if attaches => Place::In(task.own.create(new(), jiff::Timestamp::now()).await?.id),
            None => Place::New(new()),
        })
    }

    fn fitting(&self) -> Fitting {
        let context = self.context.clone().unwrap_or_default();
        let strategy = context.strategy.unwrap_or_default();
        Fitting {
            strategy,
            max_input_tokens: context.max_input_tokens,
            keep_last_turns: context.keep_last_turns,
        }
    }

    /// The model that is asked, and those that are if it fails.
    async fn models(&self, task: &Task, usual: Option<&str>) -> Result<(Chosen, Vec<String>), Refused> {
        let named = match self.route {
            Some(Route::Free) => {
                let modalities: Vec<_> =
                    self.attachments.iter().filter_map(|attached| attached.kind.needs()).collect();
                let schema =
                    self.response_format.as_ref().is_some_and(|format| format.kind == FormatKind::JsonSchema);
                let named = self.model.iter().chain(&self.fallback_models);
                return free(task, named, Needs { modalities: &modalities, schema }).await;
            }
            Some(Route::Auto) => Some("openrouter/auto"),
            Some(Route::Model) | None => self.model.as_deref().or(usual),
        };
        let chosen = task.choose(named).await?;
        for model in &self.fallback_models {
            task.choose(Some(model)).await?;
        }
        let mut fallback_models = self.fallback_models.clone();
        if fallback_models.is_empty() && self.model.is_none() {
            fallback_models.clone_from(&task.work.settings.fallback_models);
        }
        Ok((chosen, fallback_models))
    }

    /// Does the caller agree to what this turn may cost? All of the conversation is counted, as much as can be read.
    fn agree(
        &self,
        task: &Task,
        (chosen, wishes): (&Chosen, &Wishes),
        attached: u64,
        conversation: Option<&Conversation>,
    ) -> Result<(), Refused> {
        if task.work.resolved.confirm_above.is_none() {
            return Ok(());
        }
        let of = |text: Option<&str>| text.map_or(0, of_text);
        let of_one = |one: &Conversation| u64::try_from(one.tokens).unwrap_or(0) + one.messages * PER_MESSAGE;
        let before = conversation.map_or(PER_MESSAGE, of_one);
        let system =
            self.system_prompt.as_deref().or(conversation.and_then(|one| one.system_prompt.as_deref()));
        let tokens = before + of(system) + of(self.message.as_deref()) + attached + 4 * PER_MESSAGE;
        let tokens = task.work.lessons.of(&chosen.id).ratio.apply(tokens).min(history::window(task, chosen));
        let estimate = task.estimate(chosen, task.uses(chosen, tokens, wishes), self.max_cost_usd)?;
        task.agree(estimate, self.max_cost_usd)
    }

    fn wishes(&self, fallback_models: Vec<String>) -> Wishes {
        let mut extra = object([
            ("temperature", self.temperature.map(Value::from)),
            ("top_p", self.top_p.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("stop", (!self.stop.is_empty()).then(|| json!(self.stop))),
            ("reasoning", self.reasoning_effort.map(|effort| json!({ "effort": effort }))),
        ]);
        if let Some(search) = self.web_search.as_ref().filter(|search| search.enabled != Some(false)) {
            extra.insert("tools".into(), json!([search.tool()]));
        }
        Wishes {
            fallback_models,
            max_output_tokens: self.max_output_tokens,
            max_cost_usd: self.max_cost_usd,
            response_format: self.response_format.as_ref().and_then(ResponseFormat::written),
            provider: self.provider.as_ref().map(ProviderIn::written).unwrap_or_default(),
            extra,
            auto_continue: self.auto_continue != Some(false),
            reuse: self.cache.as_ref().and_then(CacheIn::reuse),
            keeps_prompt: self.cache.as_ref().and_then(|cache| cache.prompt),
        }
    }

    /// The same for the same request, whatever its key.
    fn fingerprint(&self) -> String {
        let same = Self { idempotency_key: None, ..self.clone() };
        serde_json::to_string(&same).unwrap_or_default()
    }
}

/// The id of a conversation, as callers write it.
pub fn conversation_id(text: &str) -> Result<ConversationId, Refused> {
    text.parse().map_err(|_| Refused::from(crate::store::conversations::Error::NotFound))
}

pub fn message_id(text: &str) -> Result<MessageId, Refused> {
    text.parse().map_err(|_| Refused::from(crate::store::conversations::Error::NotFound))
}

/// The first words of a message.
fn title(message: &str) -> String {
    const LETTERS: usize = 60;
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    match line.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

/// Models that a tool names, looked up.
pub async fn chosen(task: &Task, names: &[String]) -> Result<Vec<Chosen>, Refused> {
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        all.push(task.choose(Some(name)).await?);
    }
    Ok(all)
}
