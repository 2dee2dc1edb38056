//! How are several models asked at once?
//!
//! What all of it may cost is agreed to before the first is asked. One that fails or takes too long keeps no
//! other from answering. All calls stand in the ledger under one run.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Task,
    ask::{Chosen, Used, Wishes},
    catalog::{Model, Use},
    context::of_request,
    money::Money,
    refused::Refused,
    upstream::{Code, Event, Message},
};

/// How many are asked at the same time.
pub const AT_ONCE: usize = 4;
/// How long a model may take where nothing is said.
const PATIENCE: Duration = Duration::from_secs(180);
/// A question of this size has a price, if anything of the model has.
const USUAL: Use =
    Use { prompt_tokens: 1000, output_tokens: 1000, images: 0, web_searches: 0, keeps_prompt: false };

/// Models that work at one thing together.
pub struct Panel {
    task: Arc<Task>,
    tool: &'static str,
    pub run: String,
    patience: Duration,
    /// Questions that are planned, and those that were answered or not.
    planned: usize,
    done: AtomicUsize,
    used: Mutex<Used>,
}

/// What one model is asked.
#[derive(Debug, Clone)]
pub struct Question {
    pub chosen: Chosen,
    pub messages: Vec<Message>,
    pub wishes: Wishes,
}

/// What it has said.
#[derive(Debug, Clone)]
pub struct Heard {
    pub text: String,
    pub used: Used,
    /// Until the first word. None if there was only a whole answer.
    pub first: Option<Duration>,
    pub total: Duration,
}

/// A model that has given nothing of use.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Absent {
    pub model: String,
    pub error: String,
}

impl Absent {
    pub fn new(model: &Chosen, refused: &Refused) -> Self {
        Self { model: model.id.clone(), error: format!("{}: {}", refused.code, refused.message) }
    }
}

impl Panel {
    pub fn new(
        task: &Arc<Task>,
        tool: &'static str,
        run: String,
        (planned, seconds): (usize, Option<u64>),
    ) -> Self {
        let used = Used { cost_usd: "0".into(), ..Used::default() };
        Self {
            task: Arc::clone(task),
            tool,
            run,
            patience: seconds.map_or(PATIENCE, Duration::from_secs),
            planned,
            done: AtomicUsize::new(0),
            used: Mutex::new(used),
        }
    }

    /// Refused where all questions together, each asked so often, may cost more than the caller agrees to.
    pub fn agree<'a>(
        &self,
        questions: impl IntoIterator<Item = (&'a Question, usize)>,
        max_cost_usd: Option<f64>,
    ) -> Result<(), Refused> {
        let mut all = Money::ZERO;
        for (Question { chosen, messages, wishes }, times) in questions {
            let tokens = self.task.work.lessons.of(&chosen.id).ratio.apply(of_request(messages));
            let used = self.task.uses(chosen, tokens, wishes);
            let estimate = self.task.estimate(chosen, used, max_cost_usd)?;
            all += (0..times).map(|_| estimate).sum::<Money>();
        }
        let most = max_cost_usd.and_then(|most| most.to_string().parse::<Money>().ok());
        match most {
            Some(most) if all > most => Err(Refused::new(
                Code::BudgetExceeded,
                format!(
                    "all questions together may cost up to {all} US dollars, and max_cost_usd is {most}; raise it, ask fewer models, or ask for shorter answers (max_output_tokens)"
                ),
            )),
            Some(_) | None => self.task.agree(all, max_cost_usd),
        }
    }

    /// Asks one model.
    pub async fn ask(&self, question: Question) -> Result<Heard, Refused> {
        let Question { chosen, messages, wishes } = question;
        let (begun, mut first) = (Instant::now(), None);
        let mut sink = |event| {
            if let Event::Delta(_) | Event::Reasoning(_) = event {
                first.get_or_insert_with(|| begun.elapsed());
            }
        };
        let asked = self.task.ask(self.tool, (&chosen, messages), &wishes, Some(&self.run), &mut sink);
        let asked = tokio::time::timeout(self.patience, asked).await.unwrap_or_else(|_| {
            let why = format!("no whole answer within {} s", self.patience.as_secs());
            Err(Refused::new(Code::UpstreamTimeout, why))
        });
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        self.task.tell.done(done, self.planned.max(done));
        let (answer, used) = asked?;
        self.spent(&used);
        Ok(Heard { text: answer.completion.text, used, first, total: begun.elapsed() })
    }

    /// Asks all of them, and gives what they say in the order of the questions.
    pub async fn ask_all(&self, questions: Vec<Question>) -> Vec<(Chosen, Result<Heard, Refused>)> {
        let asking = questions.into_iter().map(|question| async {
            let chosen = question.chosen.clone();
            (chosen, self.ask(question).await)
        });
        stream::iter(asking).buffered(AT_ONCE).collect().await
    }

    pub fn spent(&self, used: &Used) {
        self.used.lock().expect("no code panics while it holds this lock").add(used);
    }

    /// What all answers together have used.
    pub fn used(&self) -> Used {
        self.used.lock().expect("no code panics while it holds this lock").clone()
    }
}

/// Refused where too few have answered.
pub fn enough(answered: usize, least: usize, failed: &[Absent]) -> Result<(), Refused> {
    if answered >= least {
        return Ok(());
    }
    let why: Vec<_> = failed.iter().map(|absent| format!("{}: {}", absent.model, absent.error)).collect();
    let why =
        format!("{answered} models gave an answer that counts, and {least} are needed; {}", why.join("; "));
    let mut refused = Refused::new(Code::UpstreamUnavailable, why);
    refused.retryable = true;
    Err(refused)
}

/// The models that are named, or the most used ones that fit, each of another author, so that one's errors
/// are not another's.
pub async fn members(task: &Task, named: &[String], usual: usize) -> Result<Vec<Chosen>, Refused> {
    let mut members: Vec<Chosen> = Vec::new();
    for name in named {
        let chosen = task.choose(Some(name)).await?;
        if members.iter().any(|member| member.id == chosen.id) {
            return Err(Refused::input(format!("{:?} stands twice among the models", chosen.id)));
        }
        members.push(chosen);
    }
    if !members.is_empty() {
        return Ok(members);
    }
    let members = most_used(task, None, usual).await;
    if members.is_empty() {
        return Err(Refused::input("no model of the list fits by itself; name those to ask in models"));
    }
    Ok(members)
}

/// The most used models that write texts for a known price, each of another author.
pub async fn most_used(task: &Task, among: Option<&HashSet<String>>, count: usize) -> Vec<Chosen> {
    let models = task.work.catalog.get().await;
    let writes = |model: &Model| {
        let is_text = |all: &[String]| all.iter().any(|modality| modality == "text");
        is_text(&model.output_modalities)
            && model.pricing.estimate(USUAL).is_some()
            && model.alias_of.is_none()
    };
    let mut authors = HashSet::new();
    let fitting = models.models.iter().filter(|model| {
        among.is_none_or(|among| among.contains(&model.id))
            && writes(model)
            && !model.pricing.is_free()
            && task.is_allowed(model)
            && authors.insert(model.author().to_owned())
    });
    let chosen = |model: &Arc<Model>| Chosen {
        id: model.id.clone(),
        model: Some(Arc::clone(model)),
        models: Arc::clone(&models),
    };
    fitting.take(count).map(chosen).collect()
}

/// The JSON of an answer, which some models wrap in a fence.
pub fn json_of<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    let inner = text.trim().trim_start_matches("```json").trim_start_matches("```").trim_end_matches("```");
    serde_json::from_str(inner.trim()).ok()
}
