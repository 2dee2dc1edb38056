//! Whose vote counts how much?

use crate::{
    backend::openrouter::{Task, ask::Chosen, bench::Run, refused::Refused, votes},
    store::conversations::BenchmarkWanted,
};

/// Of how many of the caller's last benchmarks the quality is taken.
const LOOKED_AT: u32 = 20;

/// The weights of models, from 0 to 1: their quality in the caller's own benchmarks, otherwise how
/// intelligent others have measured them to be, otherwise the mean of those that are known.
pub async fn measured(task: &Task, models: impl Iterator<Item = &Chosen>) -> Result<Vec<f64>, Refused> {
    let wanted = BenchmarkWanted { limit: LOOKED_AT, ..BenchmarkWanted::default() };
    let mut runs: Vec<Run> = Vec::new();
    for kept in task.own.benchmarks(wanted).await?.items {
        runs.extend(serde_json::from_value(task.own.benchmark(kept.id).await?.body));
    }
    let known = |chosen: &Chosen| {
        let scores = runs.iter().flat_map(|run| &run.ranking).filter(|scores| scores.model == chosen.id);
        let own: Vec<f64> = scores.filter_map(|scores| scores.quality).collect();
        let index = || chosen.model.as_ref().and_then(|model| model.index("intelligence"));
        let of_a_hundred = if own.is_empty() { index() } else { Some(votes::mean(&own)) };
        of_a_hundred.map(|quality| (quality / 100.0).clamp(0.01, 1.0))
    };
    let weights: Vec<Option<f64>> = models.map(known).collect();
    let measured: Vec<f64> = weights.iter().copied().flatten().collect();
    let usual = if measured.is_empty() { 1.0 } else { votes::mean(&measured) };
    Ok(weights.into_iter().map(|weight| weight.unwrap_or(usual)).collect())
}
