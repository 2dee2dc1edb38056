//! What do others use, and what have others measured?

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Effect, Gives, Takes};
use crate::backend::openrouter::{Task, refused::Refused};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rankings {
    /// models_daily: tokens by model. apps: who uses most. benchmarks: indexes of models. tasks: what for.
    kind: KindIn,
    /// The day, such as 2026-11-20. By default the last there is.
    #[serde(default)]
    #[schemars(length(max = 10))]
    date: Option<String>,
    /// Only of this category, where there are any.
    #[serde(default)]
    #[schemars(length(max = 100))]
    category: Option<String>,
    /// How many rows. By default 20.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum KindIn {
    ModelsDaily,
    Apps,
    Benchmarks,
    Tasks,
}

impl KindIn {
    /// Where it is asked for.
    const fn path(self) -> &'static [&'static str] {
        match self {
            Self::ModelsDaily => &["datasets", "rankings-daily"],
            Self::Apps => &["datasets", "app-rankings"],
            Self::Benchmarks => &["benchmarks"],
            Self::Tasks => &["classifications", "task"],
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Ranked {
    /// As OpenRouter writes them, the first first.
    rows: Vec<Map<String, Value>>,
    /// Who says so.
    source: String,
    /// Of which time it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
}

impl Gives for Ranked {}

impl Takes for Rankings {
    const NAME: &'static str = "rankings";
    const TITLE: &'static str = "See what others use and measured";
    const DESCRIPTION: &'static str =
        "Gives OpenRouter's public tables: models and apps by use, benchmarks of models, shares of tasks.";
    const EFFECT: Effect = Effect::ASKS;
    type Gives = Ranked;

    async fn run(self, task: Arc<Task>) -> Result<Ranked, Refused> {
        let limit = self.limit.unwrap_or(20).clamp(1, 100);
        let mut query = Vec::new();
        if let Some(date) = &self.date {
            // A day of tokens, and the last day of apps.
            query.extend([("start_date", date.as_str()), ("end_date", date.as_str())]);
        }
        query.extend(self.category.as_deref().map(|category| ("category", category)));
        let most = limit.to_string();
        query.push((if self.kind == KindIn::Benchmarks { "max_results" } else { "limit" }, &most));
        let answer = task.work.upstream.get(self.kind.path(), &query).await;
        let mut answer = answer.map_err(|failure| Refused::new(failure.code, failure.message.clone()))?;
        let (data, meta) = (answer["data"].take(), answer["meta"].take());
        let list = if self.kind == KindIn::Tasks { &data["classifications"] } else { &data };
        let rows = list.as_array().into_iter().flatten().filter_map(|row| row.as_object().cloned());
        let in_category = |row: &Map<String, Value>| {
            let own = row.get("macro_category").and_then(Value::as_str);
            own.is_none_or(|own| self.category.as_deref().is_none_or(|category| category == own))
        };
        let said =
            |name: &str| [&meta, &data].iter().find_map(|part| Some(part.get(name)?.as_str()?.to_owned()));
        Ok(Ranked {
            rows: rows.filter(in_category).take(limit).collect(),
            source: said("source").unwrap_or_else(|| "openrouter".into()),
            as_of: said("as_of"),
        })
    }
}
