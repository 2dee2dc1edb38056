//! What do several models say to the same?

use std::{sync::Arc, time::Instant};

use futures_util::{StreamExt as _, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Effect, Gives, Takes,
    chat::chosen,
    media::{AttachmentIn, given},
};
use crate::backend::openrouter::{
    Task,
    ask::{Chosen, Used, Wishes},
    context::of_request,
    history::{Said, object},
    money::Money,
    refused::Refused,
    upstream::{Event, Message, Role},
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareModels {
    /// The models that are asked.
    #[schemars(length(min = 2, max = 8))]
    models: Vec<String>,
    /// What they are asked.
    #[schemars(length(min = 1, max = 400_000))]
    prompt: String,
    /// What they are told beforehand.
    #[serde(default)]
    system_prompt: Option<String>,
    /// Pictures, PDFs, recordings, videos or texts that belong to the prompt.
    #[serde(default)]
    #[schemars(length(max = 10))]
    attachments: Vec<AttachmentIn>,
    /// The longest answer of each, in tokens.
    #[serde(default)]
    #[schemars(range(min = 16, max = 131_072))]
    max_output_tokens: Option<u64>,
    /// How freely the models choose their words.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2))]
    temperature: Option<f64>,
    /// How many are asked at the same time. By default 3.
    #[serde(default)]
    #[schemars(range(min = 1, max = 4))]
    concurrency: Option<usize>,
    /// A model is not asked if its answer may cost more than this.
    #[serde(default)]
    max_cost_usd: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Compared {
    /// In the order of the models.
    results: Vec<One>,
    usage: Used,
}

#[derive(Debug, Serialize, JsonSchema)]
struct One {
    model: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Used>,
    /// Milliseconds until the first word.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<u64>,
    total_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Gives for Compared {
    fn used(&self) -> Option<&Used> {
        Some(&self.usage)
    }
}

impl Takes for CompareModels {
    const NAME: &'static str = "compare_models";
    const TITLE: &'static str = "Ask several models the same";
    const DESCRIPTION: &'static str = "Sends one prompt to 2 to 8 models and gives their answers side by side, with time and cost. \
        One that fails does not keep the others from answering.";
    const EFFECT: Effect = Effect::COSTS;
    type Gives = Compared;

    async fn run(self, task: Arc<Task>) -> Result<Compared, Refused> {
        if !(2..=8).contains(&self.models.len()) {
            return Err(Refused::input("models names 2 to 8 models"));
        }
        let models = chosen(&task, &self.models).await?;
        self.agree(&task, &models).await?;
        let concurrency = self.concurrency.unwrap_or(3).clamp(1, 4);
        let (all, mut done) = (models.len(), 0);
        let this = Arc::new(self);
        let asking = models.into_iter().enumerate().map(|(index, model)| {
            let (task, this) = (Arc::clone(&task), Arc::clone(&this));
            async move { (index, this.one(&task, &model).await) }
        });
        let mut answers = stream::iter(asking).buffer_unordered(concurrency);
        let mut results: Vec<Option<One>> = (0..all).map(|_| None).collect();
        while let Some((index, one)) = answers.next().await {
            done += 1;
            task.tell.done(done, all);
            results[index] = Some(one);
        }
        drop(answers);
        let results: Vec<_> = results.into_iter().flatten().collect();
        let mut usage = Used { cost_usd: "0".into(), ..Used::default() };
        results.iter().filter_map(|one| one.usage.as_ref()).for_each(|used| usage.add(used));
        Ok(Compared { results, usage })
    }
}

impl CompareModels {
    /// What each model is asked.
    async fn question(&self, task: &Task, model: &Chosen) -> Result<(Vec<Message>, Wishes), Refused> {
        let attached = given(task, model, &self.attachments).await?;
        let attached = attached.into_iter().map(|one| one.checked).collect();
        let said = Said { text: self.prompt.clone(), attached }.item().message;
        let system = self.system_prompt.as_deref().map(|prompt| Message::new(Role::System, prompt));
        let wishes = Wishes {
            max_output_tokens: self.max_output_tokens,
            max_cost_usd: self.max_cost_usd,
            extra: object([("temperature", self.temperature.map(Value::from))]),
            ..Wishes::default()
        };
        Ok((system.into_iter().chain([said]).collect(), wishes))
    }

    /// Does the caller agree to what all of them may cost together?
    async fn agree(&self, task: &Task, models: &[Chosen]) -> Result<(), Refused> {
        if task.work.resolved.confirm_above.is_none() {
            return Ok(());
        }
        let mut all = Money::ZERO;
        for model in models {
            // What cannot be asked of one costs nothing there, and is told with its answer.
            let Ok((messages, wishes)) = self.question(task, model).await else { continue };
            let tokens = task.work.lessons.of(&model.id).ratio.apply(of_request(&messages));
            all += task.estimate(model, task.uses(model, tokens, &wishes), None)?;
        }
        task.agree(all, self.max_cost_usd)
    }

    async fn one(&self, task: &Arc<Task>, model: &Chosen) -> One {
        let begun = Instant::now();
        let millis = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut first = None;
        let asked = async {
            let (messages, wishes) = self.question(task, model).await?;
            let mut sink = |event| {
                if let Event::Delta(_) | Event::Reasoning(_) = event {
                    first.get_or_insert_with(|| millis(begun));
                }
            };
            task.ask(Self::NAME, (model, messages), &wishes, None, &mut sink).await
        };
        let asked = asked.await;
        let (model, total_ms) = (model.id.clone(), millis(begun));
        match asked {
            Ok((answer, used)) => One {
                model,
                ok: true,
                text: Some(answer.completion.text),
                usage: Some(used),
                ttft_ms: first,
                total_ms,
                error: None,
            },
            Err(refused) => One {
                model,
                ok: false,
                text: None,
                usage: None,
                ttft_ms: first,
                total_ms,
                error: Some(format!("{}: {}", refused.code, refused.message)),
            },
        }
    }
}
