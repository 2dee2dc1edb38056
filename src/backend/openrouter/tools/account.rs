//! What is there to spend, what was spent, and does all of it work?

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Effect, Gives, Takes, models::age};
use crate::{
    backend::openrouter::{
        Task,
        money::Money,
        refused::Refused,
        upstream::{Code, Failure},
    },
    store::conversations::{self, GroupBy, ReportRow, UsageWanted},
};

fn refused(failure: Box<Failure>) -> Refused {
    let mut refused = Refused::new(failure.code, failure.message.clone());
    refused.retryable = failure.retryable;
    refused
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccountStatus {}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Account {
    /// The key's label, limits and use, as OpenRouter says them.
    key: Map<String, Value>,
    /// Credits bought and used. Only with a management key.
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<Map<String, Value>>,
}

impl Gives for Account {}

impl Takes for AccountStatus {
    const NAME: &'static str = "account_status";
    const TITLE: &'static str = "Look at the account";
    const DESCRIPTION: &'static str =
        "Says what the key at OpenRouter may still spend, and how many free calls of the day are left.";
    const EFFECT: Effect = Effect::ASKS;
    type Gives = Account;

    async fn run(self, task: Arc<Task>) -> Result<Account, Refused> {
        Account::of(&task).await
    }
}

impl Account {
    pub async fn of(task: &Task) -> Result<Self, Refused> {
        if !task.is_admin {
            let why = "the account is the operator's; usage_report shows what you have used";
            return Err(Refused::new(Code::InvalidInput, why));
        }
        let key = task.work.upstream.key().await.map_err(refused)?;
        let credits = task.work.upstream.credits().await.ok();
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let mut key = object(json!(key));
        // Whose account it is, is nobody's business.
        key.remove("creator_user_id");
        Ok(Self { key, credits: credits.map(|credits| object(json!(credits))) })
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UsageReport {
    /// Added up by day, model, conversation, tool, or subject for all callers. By default day.
    group_by: Option<GroupIn>,
    /// Only in this conversation.
    conversation_id: Option<String>,
    /// Only from this time on, such as 2026-11-21T00:00:00Z.
    since: Option<String>,
    /// Only before this time.
    until: Option<String>,
    /// How many rows. By default 50.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum GroupIn {
    Day,
    Model,
    Conversation,
    Tool,
    Subject,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Reported {
    rows: Vec<RowOut>,
    /// Of all, also of what is beyond the limit.
    total: RowOut,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RowOut {
    key: String,
    requests: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    reasoning_tokens: i64,
    cached_tokens: i64,
    cost_usd: String,
    /// How much of the cost is estimated, from 0 to 1.
    estimated_share: f64,
}

impl From<ReportRow> for RowOut {
    fn from(row: ReportRow) -> Self {
        let estimated_share = if row.cost > 0 { row.estimated as f64 / row.cost as f64 } else { 0.0 };
        Self {
            key: row.key,
            requests: row.requests,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
            reasoning_tokens: row.reasoning_tokens,
            cached_tokens: row.cached_tokens,
            cost_usd: Money::from_nanos(row.cost).to_string(),
            estimated_share,
        }
    }
}

impl Gives for Reported {}

impl Takes for UsageReport {
    const NAME: &'static str = "usage_report";
    const TITLE: &'static str = "See what was used and spent";
    const DESCRIPTION: &'static str = "Adds up requests, tokens and dollars of your calls here.";
    const EFFECT: Effect = Effect::READS;
    type Gives = Reported;

    async fn run(self, task: Arc<Task>) -> Result<Reported, Refused> {
        self.of(&task).await
    }
}

impl UsageReport {
    pub async fn of(self, task: &Task) -> Result<Reported, Refused> {
        if self.group_by == Some(GroupIn::Subject) && !task.is_admin {
            let why = "what others have used is for callers with the scope usage:admin; group by another";
            return Err(Refused::input(why));
        }
        let time = |name: &str, text: &Option<String>| {
            let wrong =
                |_| Refused::input(format!("{name} is no time; write for instance 2026-11-21T00:00:00Z"));
            text.as_ref().map(|text| text.parse::<Timestamp>().map_err(wrong)).transpose()
        };
        let conversation = self.conversation_id.as_deref().map(super::chat::conversation_id).transpose()?;
        if let Some(id) = conversation {
            task.own.conversation(id).await?; // One that is not there is not one that cost nothing.
        }
        let wanted = UsageWanted {
            group_by: match self.group_by {
                None | Some(GroupIn::Day) => GroupBy::Day,
                Some(GroupIn::Model) => GroupBy::Model,
                Some(GroupIn::Conversation) => GroupBy::Conversation,
                Some(GroupIn::Tool) => GroupBy::Tool,
                Some(GroupIn::Subject) => GroupBy::Subject,
            },
            tenant: self.group_by == Some(GroupIn::Subject),
            conversation,
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            limit: self.limit.unwrap_or(50).clamp(1, 500),
        };
        let report = task.own.usage(wanted).await?;
        Ok(Reported { rows: report.rows.into_iter().map(Into::into).collect(), total: report.total.into() })
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerationGet {
    /// The generation_id of one of your answers.
    generation_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct GenerationGot {
    /// What is on record about it at OpenRouter; missing until it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<Map<String, Value>>,
    model: String,
    tool: String,
}

impl Gives for GenerationGot {}

impl Takes for GenerationGet {
    const NAME: &'static str = "generation_get";
    const TITLE: &'static str = "Look up an answer";
    const DESCRIPTION: &'static str =
        "Gives what OpenRouter has on record about one of your answers: provider, times, tokens, cost.";
    const EFFECT: Effect = Effect::ASKS;
    type Gives = GenerationGot;

    async fn run(self, task: Arc<Task>) -> Result<GenerationGot, Refused> {
        let entry = task.own.generation(self.generation_id.clone()).await.map_err(|why| match why {
            conversations::Error::NotFound => Refused::input("there is no such answer of yours"),
            why => why.into(),
        })?;
        let known = task.work.upstream.generation(&self.generation_id).await.map_err(refused)?;
        let mut generation = known.and_then(|known| json!(known).as_object().cloned());
        if let Some(members) = &mut generation {
            for operators in
                ["external_user", "app_id", "http_referer", "user_agent", "session_id", "workspace_id"]
            {
                members.remove(operators);
            }
        }
        Ok(GenerationGot { generation, model: entry.model, tool: entry.tool })
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {}

#[derive(Debug, Serialize, JsonSchema)]
pub struct HealthOut {
    /// Does OpenRouter answer?
    reachable: bool,
    /// openrouter, or simulator.
    mode: String,
    models: usize,
    catalog_age_s: u64,
    catalog_stale: bool,
    /// Models, or the whole upstream, that are left alone for a while after failures.
    resting: Vec<String>,
    /// Answers that are being made now.
    turns_running: usize,
    version: String,
}

impl Gives for HealthOut {}

impl Takes for Health {
    const NAME: &'static str = "health";
    const TITLE: &'static str = "Is everything well?";
    const DESCRIPTION: &'static str =
        "Says whether models can be reached, and how old the list of models is.";
    const EFFECT: Effect = Effect::ASKS;
    type Gives = HealthOut;

    async fn run(self, task: Arc<Task>) -> Result<HealthOut, Refused> {
        let models = task.work.catalog.get().await;
        let reachable = task.work.upstream.key().await.is_ok();
        Ok(HealthOut {
            reachable,
            mode: if task.work.simulated { "simulator".into() } else { "openrouter".into() },
            models: models.len(),
            catalog_age_s: age(&models),
            catalog_stale: models.stale,
            resting: task.work.policy.resting(),
            turns_running: task.work.making.len(),
            version: env!("CARGO_PKG_VERSION").into(),
        })
    }
}
