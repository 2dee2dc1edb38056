//! How near are texts to one another?

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Effect, Gives, Takes};
use crate::{
    backend::openrouter::{
        Task,
        ask::{Chosen, Used, kept},
        catalog::Use,
        context::of_text,
        refused::Refused,
        upstream::Failure,
    },
    store::conversations::Entry,
};

/// The models that are asked where nothing is said.
const EMBEDS: &str = "openai/text-embedding-3-small";
const SIMULATED_EMBEDS: &str = "acme/embed-small";
const RERANKS: &str = "cohere/rerank-v3.5";
const SIMULATED_RERANKS: &str = "acme/rerank-1";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embed {
    /// The texts.
    #[schemars(length(min = 1, max = 256))]
    input: Vec<String>,
    /// A model for embeddings. By default the server's.
    #[serde(default)]
    model: Option<String>,
    /// How many numbers each text becomes, where the model can choose.
    #[serde(default)]
    #[schemars(range(min = 1, max = 8192))]
    dimensions: Option<u32>,
    /// What the texts are for, such as search_query or search_document, where the model wants to know.
    #[serde(default)]
    input_type: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Embedded {
    /// One for each text, in their order.
    embeddings: Vec<Vec<f64>>,
    model_used: String,
    usage: Used,
}

impl Gives for Embedded {
    const SHOWN: Option<&'static str> = Some("embeddings");

    fn text(&self) -> Option<String> {
        let dimensions = self.embeddings.first().map_or(0, Vec::len);
        Some(format!("{} embeddings of {dimensions} dimensions, in structuredContent", self.embeddings.len()))
    }

    fn used(&self) -> Option<&Used> {
        Some(&self.usage)
    }
}

impl Takes for Embed {
    const NAME: &'static str = "embed";
    const TITLE: &'static str = "Embed texts";
    const DESCRIPTION: &'static str =
        "Turns texts into vectors, of which those of like texts are near to one another.";
    const EFFECT: Effect = Effect::COSTS;
    type Gives = Embedded;

    async fn run(self, task: Arc<Task>) -> Result<Embedded, Refused> {
        if self.input.is_empty() || self.input.len() > 256 {
            return Err(Refused::input("input has 1 to 256 texts"));
        }
        let texts = Texts {
            input: &self.input,
            model: self.model.as_deref(),
            dimensions: self.dimensions,
            input_type: self.input_type.as_deref(),
        };
        let (embeddings, model_used, usage) = texts.embedded(&task, Self::NAME, None).await?;
        Ok(Embedded { embeddings, model_used, usage })
    }
}

/// Texts that are to be vectors.
#[derive(Debug, Default)]
pub struct Texts<'a> {
    pub input: &'a [String],
    pub model: Option<&'a str>,
    pub dimensions: Option<u32>,
    pub input_type: Option<&'a str>,
}

impl Texts<'_> {
    /// Their vectors in their order, of which model they are, and what that has cost.
    pub async fn embedded(
        &self,
        task: &Task,
        tool: &str,
        run: Option<&str>,
    ) -> Result<(Vec<Vec<f64>>, String, Used), Refused> {
        let usual = if task.work.simulated { SIMULATED_EMBEDS } else { EMBEDS };
        let chosen = task.choose(Some(self.model.unwrap_or(usual))).await?;
        let mut body = json!({ "model": chosen.id, "input": self.input, "encoding_format": "float", "user": task.own.alias() });
        put(&mut body, "dimensions", self.dimensions.map(Value::from));
        put(&mut body, "input_type", self.input_type.map(Value::from));
        let tokens = self.input.iter().map(|text| of_text(text)).sum();
        let used = Use { prompt_tokens: tokens, ..Use::default() };
        let estimate = task.estimate(&chosen, used, None)?;
        let reservation = task.reserve(estimate).await?;
        let done = async {
            let _held = task.work.policy.enter(&task.who).await?;
            task.work.upstream.embeddings(&body).await
        };
        let done = done.await.map_err(|failure| refused(&failure, &chosen));
        let embeddings = settled(task, reservation, done).await?;
        let entry = Entry {
            tool: tool.into(),
            generation: embeddings.id.clone(),
            model: chosen.id.clone(),
            usage: kept(embeddings.usage.as_ref(), estimate),
            simulated: task.work.simulated,
            run: run.map(str::to_owned),
            ..Entry::default()
        };
        let usage = Used::of(&entry.usage);
        task.own.record(entry, reservation, Timestamp::now()).await?;
        let mut data = embeddings.data;
        data.sort_by_key(|one| one.index);
        Ok((data.into_iter().map(|one| one.embedding).collect(), chosen.id, usage))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rerank {
    /// What is looked for.
    #[schemars(length(min = 1))]
    query: String,
    /// Where it is looked for.
    #[schemars(length(min = 1, max = 1000))]
    documents: Vec<String>,
    /// A model for reranking. By default the server's.
    #[serde(default)]
    model: Option<String>,
    /// How many of the best are given. By default all.
    #[serde(default)]
    #[schemars(range(min = 1))]
    top_n: Option<usize>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Reranked {
    /// The best first.
    results: Vec<RankOut>,
    model_used: String,
    usage: Used,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RankOut {
    /// Which document, from 0.
    index: usize,
    relevance_score: f64,
    document: String,
}

impl Gives for Reranked {
    fn used(&self) -> Option<&Used> {
        Some(&self.usage)
    }
}

impl Takes for Rerank {
    const NAME: &'static str = "rerank";
    const TITLE: &'static str = "Rank documents by a query";
    const DESCRIPTION: &'static str = "Sorts documents by how well they answer a query.";
    const EFFECT: Effect = Effect::COSTS;
    type Gives = Reranked;

    async fn run(self, task: Arc<Task>) -> Result<Reranked, Refused> {
        if self.documents.is_empty() {
            return Err(Refused::input("documents is empty; give at least one"));
        }
        let usual = if task.work.simulated { SIMULATED_RERANKS } else { RERANKS };
        let chosen = task.choose(Some(self.model.as_deref().unwrap_or(usual))).await?;
        let mut body = json!({ "model": chosen.id, "query": self.query, "documents": self.documents });
        put(&mut body, "top_n", self.top_n.map(Value::from));
        let tokens = of_text(&self.query) + self.documents.iter().map(|text| of_text(text)).sum::<u64>();
        let used = Use { prompt_tokens: tokens, ..Use::default() };
        let estimate = task.estimate(&chosen, used, None)?;
        let reservation = task.reserve(estimate).await?;
        let done = async {
            let _held = task.work.policy.enter(&task.who).await?;
            task.work.upstream.rerank(&body).await
        };
        let done = done.await.map_err(|failure| refused(&failure, &chosen));
        let ranked = settled(&task, reservation, done).await?;
        let entry = Entry {
            tool: Self::NAME.into(),
            generation: ranked.id.clone(),
            model: chosen.id.clone(),
            provider: ranked.provider.clone(),
            usage: kept(ranked.usage.as_ref(), estimate),
            simulated: task.work.simulated,
            ..Entry::default()
        };
        let used = Used::of(&entry.usage);
        task.own.record(entry, reservation, Timestamp::now()).await?;
        let documents = &self.documents;
        let results = ranked.results.iter().filter_map(|one| {
            let index = usize::try_from(one.index).ok()?;
            let document = documents.get(index)?.clone();
            Some(RankOut { index, relevance_score: one.relevance_score, document })
        });
        Ok(Reranked { results: results.collect(), model_used: chosen.id, usage: used })
    }
}

pub fn put(body: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        body[name] = value;
    }
}

pub fn refused(failure: &Failure, chosen: &Chosen) -> Refused {
    Refused::failed(failure, &chosen.models, &chosen.id)
}

/// What was asked for, or the refusal; then what was set aside is given back.
pub async fn settled<T>(
    task: &Task,
    reservation: Option<crate::store::conversations::Reservation>,
    done: Result<T, Refused>,
) -> Result<T, Refused> {
    if let (Err(_), Some(reservation)) = (&done, reservation) {
        task.own.release(reservation).await?;
    }
    done
}
