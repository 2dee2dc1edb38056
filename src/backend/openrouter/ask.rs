//! What becomes of one question to a model, before and after it is sent?
//!
//! The model is looked up and allowed, the cost is estimated and set aside, the request is written,
//! and what was used is noted. Turns of conversations and all other tools that ask models go this
//! way, so none can forget a limit.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Task,
    catalog::{Model, Snapshot, Use},
    context::of_request,
    money::Money,
    owed::Owed,
    policy::{self, Answer, Report, Terms},
    refused::Refused,
    upstream::{ChatRequest, Code, Event, Message, Reuse, Usage},
};
use crate::{
    settings::fits,
    store::conversations::{CostSource, Entry, Reservation, Reserved, Usage as Kept},
};

/// The member of a request that has the provider keep its prompt, up to the last message.
const KEEPS_PROMPT: &str = "cache_control";

/// A model that may be asked.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// As the upstream is asked for it.
    pub id: String,
    /// None of one that is not in the list.
    pub model: Option<Arc<Model>>,
    /// The list in which it was looked up.
    pub models: Arc<Snapshot>,
}

/// What all questions may say of how they are answered.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    pub fallback_models: Vec<String>,
    pub max_output_tokens: Option<u64>,
    pub max_cost_usd: Option<f64>,
    pub response_format: Option<Value>,
    pub provider: Map<String, Value>,
    /// Other members of the request.
    pub extra: Map<String, Value>,
    pub auto_continue: bool,
    /// An answer that OpenRouter has kept is as good.
    pub reuse: Option<Reuse>,
    /// Is the provider to keep the prompt for the next turn? As the settings say where nothing is said.
    pub keeps_prompt: Option<bool>,
}

/// What was used, as callers read it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Used {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub reasoning_tokens: u64,
    pub cached_tokens: u64,
    /// US dollars, as a decimal number.
    pub cost_usd: String,
    /// reported: by OpenRouter; estimated: by the list of prices.
    pub source: Source,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Reported,
    Reconciled,
    #[default]
    Estimated,
}

impl Wishes {
    /// Has the provider keep the prompt, if that is wished, or is usual and nothing else is. Only the author's own
    /// models have to be told; all others do it by themselves or not at all.
    pub fn keep_prompt(&mut self, chosen: &Chosen, usual: bool) {
        let told = chosen.id.trim_start_matches('~').starts_with("anthropic/");
        if told && self.keeps_prompt.unwrap_or(usual) {
            self.extra.insert(KEEPS_PROMPT.into(), serde_json::json!({ "type": "ephemeral" }));
        }
    }
}

impl Used {
    /// Of what is kept of a call.
    pub fn of(kept: &Kept) -> Self {
        let count = |tokens: i64| u64::try_from(tokens).unwrap_or(0);
        Self {
            prompt_tokens: count(kept.prompt_tokens),
            completion_tokens: count(kept.completion_tokens),
            reasoning_tokens: count(kept.reasoning_tokens),
            cached_tokens: count(kept.cached_tokens),
            cost_usd: Money::from_nanos(kept.cost).to_string(),
            source: match kept.source {
                CostSource::Reported => Source::Reported,
                CostSource::Reconciled => Source::Reconciled,
                CostSource::Estimated => Source::Estimated,
            },
        }
    }

    pub fn add(&mut self, other: &Self) {
        let cost = |text: &str| text.parse::<Money>().unwrap_or(Money::ZERO);
        self.cost_usd = (cost(&self.cost_usd) + cost(&other.cost_usd)).to_string();
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
        self.cached_tokens += other.cached_tokens;
    }
}

/// What is kept of what a request used. What was not reported is estimated.
pub fn kept(usage: Option<&Usage>, estimate: Money) -> Kept {
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    let Some(usage) = usage else {
        return Kept { cost: estimate.nanos(), ..Kept::default() };
    };
    Kept {
        prompt_tokens: count(usage.prompt_tokens),
        completion_tokens: count(usage.completion_tokens),
        reasoning_tokens: count(usage.completion_tokens_details.reasoning_tokens),
        cached_tokens: count(usage.prompt_tokens_details.cached_tokens),
        cost: usage.cost.unwrap_or(estimate).nanos(),
        source: if usage.cost.is_some() { CostSource::Reported } else { CostSource::Estimated },
    }
}

impl Task {
    /// The model that is meant, if it may be asked.
    pub async fn choose(&self, name: Option<&str>) -> Result<Chosen, Refused> {
        let settings = &self.work.settings;
        let name = name.unwrap_or(settings.usual_model());
        let mut models = self.work.catalog.get().await;
        if models.resolve(name, &settings.aliases).model.is_none() && !name.starts_with("sim/") {
            models = self.work.catalog.refresh().await;
        }
        let resolved = models.resolve(name, &settings.aliases);
        self.allowed(&resolved.id, resolved.model.as_deref())?;
        Ok(Chosen { id: resolved.id, model: resolved.model, models })
    }

    fn allowed(&self, id: &str, model: Option<&Model>) -> Result<(), Refused> {
        let (settings, limits) = (&self.work.settings, &self.work.resolved);
        let base = id.split_once(':').map_or(id, |(base, _)| base);
        let is_in = |patterns: &[String]| patterns.iter().any(|one| fits(one, id) || fits(one, base));
        if (!settings.allow.is_empty() && !is_in(&settings.allow)) || is_in(&settings.deny) {
            let why = format!("the model {id:?} may not be used here; models_search lists those that may");
            return Err(Refused::new(Code::ModelNotAllowed, why));
        }
        let pricing = model.map(|model| &model.pricing);
        for (most, price, what) in [
            (limits.max_prompt_price, pricing.and_then(|pricing| pricing.prompt), "reading"),
            (limits.max_output_price, pricing.and_then(|pricing| pricing.completion), "writing"),
        ] {
            let Some(most) = most else { continue };
            if price.is_some_and(|price| price > most) || (price.is_none() && !settings.allow_unknown_price) {
                let why = format!(
                    "the model {id:?} costs more for {what} than is allowed here; choose a cheaper one"
                );
                return Err(Refused::new(Code::ModelNotAllowed, why));
            }
        }
        Ok(())
    }

    /// Is a model one that models_search may show?
    pub fn is_allowed(&self, model: &Model) -> bool {
        // Another name for a model is as good as the model, as it is when it is chosen.
        self.allowed(model.alias_of.as_deref().unwrap_or(&model.id), Some(model)).is_ok()
    }

    /// What a request with so many tokens uses at the most.
    pub fn uses(&self, chosen: &Chosen, prompt_tokens: u64, wishes: &Wishes) -> Use {
        let tools = wishes.extra.get("tools").and_then(Value::as_array).into_iter().flatten();
        Use {
            prompt_tokens,
            output_tokens: self.output_limit(chosen, wishes),
            web_searches: tools.filter(|tool| tool["type"] == "openrouter:web_search").count() as u64,
            keeps_prompt: wishes.extra.contains_key(KEEPS_PROMPT),
            ..Use::default()
        }
    }

    /// What that costs; refused where it is more than the caller agrees to.
    pub fn estimate(&self, chosen: &Chosen, used: Use, max_cost_usd: Option<f64>) -> Result<Money, Refused> {
        let estimate = chosen.model.as_ref().and_then(|model| model.pricing.estimate(used));
        let limited = max_cost_usd.is_some()
            || self.work.resolved.confirm_above.is_some()
            || self.work.budgets() != Default::default();
        let Some(estimate) = estimate else {
            if limited && !self.work.settings.allow_unknown_price && !self.work.simulated {
                let why = format!(
                    "what {:?} costs is not known beforehand, and there is a limit on costs; name a model with a price",
                    chosen.id
                );
                return Err(Refused::new(Code::ModelNotAllowed, why));
            }
            return Ok(Money::ZERO);
        };
        let most = max_cost_usd.and_then(|most| most.to_string().parse::<Money>().ok());
        if let Some(most) = most
            && estimate > most
        {
            let why = format!(
                "this may cost up to {estimate} US dollars, and max_cost_usd is {most}; raise it, ask for a shorter answer (max_output_tokens), or choose a cheaper model"
            );
            return Err(Refused::new(Code::BudgetExceeded, why));
        }
        Ok(estimate)
    }

    /// Sets the estimate aside, if there is so much left of the day's budgets.
    pub async fn reserve(&self, estimate: Money) -> Result<Option<Reservation>, Refused> {
        let budgets = self.work.budgets();
        if budgets == Default::default() {
            return Ok(None);
        }
        match self.own.reserve(estimate.nanos(), budgets, Timestamp::now()).await? {
            Reserved::Held(reservation) => Ok(Some(reservation)),
            Reserved::Over { used, budget } => {
                let (used, budget) = (Money::from_nanos(used), Money::from_nanos(budget));
                let why = format!(
                    "{used} of {budget} US dollars are used or set aside today (UTC), and this may cost up to {estimate}; wait for tomorrow, ask for less, or choose a cheaper model"
                );
                Err(Refused::new(Code::BudgetExceeded, why))
            }
        }
    }

    /// The request for some messages. `session` groups requests at the upstream.
    pub fn request(
        &self,
        chosen: &Chosen,
        messages: Vec<Message>,
        wishes: &Wishes,
        session: Option<String>,
    ) -> ChatRequest {
        let settings = &self.work.settings;
        let mut request = ChatRequest {
            model: chosen.id.clone(),
            messages,
            max_completion_tokens: Some(self.output_limit(chosen, wishes)),
            response_format: wishes.response_format.clone(),
            provider: wishes.provider.clone(),
            reuse: wishes.reuse,
            extra: wishes.extra.clone(),
        };
        if settings.zdr {
            request.provider.insert("zdr".into(), true.into());
            request.provider.insert("data_collection".into(), "deny".into());
        }
        request.extra.insert("user".into(), self.own.alias().into());
        if let Some(trace) = &self.trace {
            request.extra.insert("trace".into(), serde_json::json!({ "trace_id": trace }));
        }
        if let Some(session) = session {
            request.extra.insert("session_id".into(), session.into());
        }
        request
    }

    /// How long an answer is asked for at the most. To say nothing would be to ask for the longest.
    pub fn output_limit(&self, chosen: &Chosen, wishes: &Wishes) -> u64 {
        let usual = self.work.settings.max_output_tokens;
        let least =
            if chosen.model.as_ref().is_some_and(|model| model.reasons()) { usual.max(4096) } else { usual };
        let wanted = wishes.max_output_tokens.unwrap_or(least).max(16);
        chosen
            .model
            .as_ref()
            .and_then(|model| model.longest_answer())
            .map_or(wanted, |most| wanted.min(most.max(16)))
    }

    pub fn terms(&self, wishes: &Wishes) -> Terms {
        let usual = Terms::default();
        Terms {
            min_output_tokens: wishes.max_output_tokens,
            auto_continue: wishes.auto_continue,
            max_total_output: usual.max_total_output.max(wishes.max_output_tokens.unwrap_or(0)),
            ..usual
        }
    }

    /// Asks a model something that belongs to no conversation, and notes what it has cost.
    pub async fn ask(
        &self,
        tool: &str,
        (chosen, messages): (&Chosen, Vec<Message>),
        wishes: &Wishes,
        run: Option<&str>,
        sink: &mut (dyn FnMut(Event) + Send),
    ) -> Result<(Answer, Used), Refused> {
        let estimated = self.work.lessons.of(&chosen.id).ratio.apply(of_request(&messages));
        let mut wishes = wishes.clone();
        wishes.keep_prompt(chosen, false);
        let wishes = &wishes;
        let estimate = self.estimate(chosen, self.uses(chosen, estimated, wishes), wishes.max_cost_usd)?;
        self.agree(estimate, wishes.max_cost_usd)?;
        let reservation = self.reserve(estimate).await?;
        let request = self.request(chosen, messages, wishes, None);
        let call = policy::Call {
            request,
            principal: &self.who,
            fallback_models: &wishes.fallback_models,
            terms: self.terms(wishes),
            refit: None,
        };
        let mut owed = Owed::new(self, tool, (&chosen.id, run), estimate, reservation);
        let mut heard = |event: Event| {
            if let Event::Opened { generation_id } = &event {
                owed.taken(generation_id.as_deref());
            }
            sink(event);
        };
        let asked = self.work.policy.run(&self.work.upstream, call, &mut heard).await;
        let (begun, reservation) = owed.settled();
        let (completion, report) = match &asked {
            Ok(Answer { completion, report }) => (completion, report),
            Err(unanswered) => (&*unanswered.failure.partial, &unanswered.report),
        };
        self.work.lessons.tried(&report.attempts);
        let usage = completion.usage.as_ref();
        let cost = match &asked {
            Ok(_) => kept(usage, estimate),
            Err(_) => kept(Some(&spent(usage, report)), Money::ZERO),
        };
        let entry = Entry {
            generation: completion.generation_id.clone(),
            model: completion.model.clone().unwrap_or_else(|| report.model.clone()),
            provider: completion.provider.clone(),
            usage: cost,
            ..begun
        };
        if asked.is_ok() || cost.cost > 0 || cost.completion_tokens > 0 {
            self.own.record(entry, reservation, Timestamp::now()).await?;
        } else if let Some(reservation) = reservation {
            self.own.release(reservation).await?;
        }
        match asked {
            Ok(answer) => {
                let reported = answer.completion.usage.as_ref().map_or(0, |usage| usage.prompt_tokens);
                self.work.lessons.counted(&chosen.id, reported, estimated);
                Ok((answer, Used::of(&cost)))
            }
            Err(unanswered) => Err(Refused::failed(&unanswered.failure, &chosen.models, &chosen.id)),
        }
    }
}

/// What was used in all by a call that failed, also by requests that were of no use, as far as it was said.
/// (An answer's own usage is of all requests.)
pub fn spent(usage: Option<&Usage>, report: &Report) -> Usage {
    let mut spent = report.wasted.clone();
    if let Some(usage) = usage {
        spent.add(usage);
    }
    spent
}
