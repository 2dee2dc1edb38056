//! How fast, how dear and how good were models?
//!
//! Only what was measured is said: a percentile that so few runs cannot show, and the quality that nobody
//! judged, are missing.

use std::{fmt::Write as _, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ask::Used, money::Money, votes::mean};

/// Fewer runs than this say nothing of the slowest.
const FEWEST: usize = 3;

/// A benchmark that was run, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub prompts: Vec<String>,
    /// How often each model was asked each prompt, besides once to warm up.
    pub runs: usize,
    pub judge_model: Option<String>,
    pub weights: Weights,
    /// The best first.
    pub ranking: Vec<Scores>,
    pub usage: Used,
    pub simulated: bool,
}

/// What counts how much in the ranking.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    /// Of a short time until all is there.
    pub speed: f64,
    /// Of a low cost.
    pub cost: f64,
    /// Of what the judge says.
    pub quality: f64,
    /// Of many tokens in a second.
    pub throughput: f64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { speed: 1.0, cost: 1.0, quality: 2.0, throughput: 1.0 }
    }
}

/// One answer, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub first: Option<Duration>,
    pub total: Duration,
    pub completion_tokens: u64,
    pub cost: Money,
}

/// What one model was measured at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Scores {
    pub model: String,
    /// How many answers were measured.
    pub answers: usize,
    /// Answers to questions, from 0 to 1.
    pub ok_rate: f64,
    /// Milliseconds until the first word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<Spread>,
    /// Milliseconds until the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<Spread>,
    /// Tokens in a second, from the first word on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tok_s: Option<f64>,
    /// Of one answer, in US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<String>,
    /// As judged, from 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    /// By the weights, from 0 to 1.
    pub score: f64,
    /// Why it failed, the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    pub p50: f64,
    /// Of three answers or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95: Option<f64>,
}

impl Spread {
    /// By nearest rank.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| values.get((values.len() * percent).div_ceil(100).max(1) - 1).copied();
        Some(Self { p50: rank(50)?, p95: if values.len() >= FEWEST { rank(95) } else { None } })
    }
}

impl Scores {
    pub fn of(
        model: String,
        samples: &[Sample],
        asked: usize,
        quality: Option<f64>,
        error: Option<String>,
    ) -> Self {
        let millis = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
        let speed = |sample: &Sample| {
            let seconds = (sample.total - sample.first?).as_secs_f64();
            (seconds > 0.0 && sample.completion_tokens > 0).then(|| sample.completion_tokens as f64 / seconds)
        };
        let speeds: Vec<f64> = samples.iter().filter_map(speed).collect();
        let count = i64::try_from(samples.len()).unwrap_or(i64::MAX).max(1);
        let cost: Money = samples.iter().map(|sample| sample.cost).sum();
        let answered = !samples.is_empty();
        Self {
            model,
            answers: samples.len(),
            ok_rate: if asked > 0 { samples.len() as f64 / asked as f64 } else { 0.0 },
            ttft_ms: Spread::of(samples.iter().filter_map(|sample| sample.first.map(millis)).collect()),
            total_ms: Spread::of(samples.iter().map(|sample| millis(sample.total)).collect()),
            tok_s: (!speeds.is_empty()).then(|| (mean(&speeds) * 10.0).round() / 10.0),
            cost_usd: answered.then(|| Money::from_nanos(cost.nanos() / count).to_string()),
            quality,
            score: 0.0,
            error,
        }
    }

    fn cost(&self) -> Option<f64> {
        self.cost_usd.as_ref()?.parse().ok()
    }
}

/// Puts the best first. Each measure goes from the worst of the models (0) to the best (1); what was not
/// measured of a model counts as the worst, and what was measured of none not at all. Who answers only half
/// the time is worth half.
pub fn rank(all: &mut [Scores], weights: Weights) {
    type Measure = fn(&Scores) -> Option<f64>;
    let measures: [(f64, Measure); 4] = [
        (weights.speed, |one| one.total_ms.map(|spread| -spread.p50)),
        (weights.cost, |one| one.cost().map(|cost| -cost)),
        (weights.quality, |one| one.quality),
        (weights.throughput, |one| one.tok_s),
    ];
    let mut scores = vec![0.0; all.len()];
    let mut weighed = 0.0;
    for (weight, measure) in measures {
        let values: Vec<_> = all.iter().map(measure).collect();
        let known = values.iter().copied().flatten();
        let (low, high) = known
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if weight <= 0.0 || low > high {
            continue;
        }
        weighed += weight;
        for (score, value) in scores.iter_mut().zip(values) {
            let share =
                value.map_or(0.0, |value| if high > low { (value - low) / (high - low) } else { 1.0 });
            *score += weight * share;
        }
    }
    for (one, score) in all.iter_mut().zip(scores) {
        let share = if weighed > 0.0 { score / weighed } else { 0.0 };
        one.score = (share * one.ok_rate * 1000.0).round() / 1000.0;
    }
    all.sort_by(|one, other| other.score.total_cmp(&one.score));
}

const COLUMNS: [&str; 13] = [
    "rank",
    "model",
    "answers",
    "ok_rate",
    "ttft_p50_ms",
    "ttft_p95_ms",
    "total_p50_ms",
    "total_p95_ms",
    "tok_s",
    "cost_usd",
    "quality",
    "score",
    "error",
];

impl Run {
    /// The values of a model, in the order of the columns.
    fn row(rank: usize, one: &Scores) -> [String; 13] {
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let p50 = |spread: Option<Spread>| number(spread.map(|spread| spread.p50));
        let p95 = |spread: Option<Spread>| number(spread.and_then(|spread| spread.p95));
        [
            rank.to_string(),
            one.model.clone(),
            one.answers.to_string(),
            one.ok_rate.to_string(),
            p50(one.ttft_ms),
            p95(one.ttft_ms),
            p50(one.total_ms),
            p95(one.total_ms),
            number(one.tok_s),
            one.cost_usd.clone().unwrap_or_default(),
            number(one.quality),
            one.score.to_string(),
            one.error.clone().unwrap_or_default(),
        ]
    }

    fn rows(&self) -> impl Iterator<Item = [String; 13]> {
        self.ranking.iter().enumerate().map(|(at, one)| Self::row(at + 1, one))
    }

    /// As RFC 4180 has it.
    pub fn csv(&self) -> String {
        let heads = COLUMNS.map(str::to_owned);
        let lines = std::iter::once(heads).chain(self.rows());
        lines.map(|row| row.map(|cell| field(&cell)).join(",") + "\r\n").collect()
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("# Benchmark\n\n{} prompts, {} runs each", self.prompts.len(), self.runs);
        match &self.judge_model {
            Some(judge) => drop(write!(text, ", judged by {judge}")),
            None => text.push_str(", not judged"),
        }
        text.push_str(if self.simulated { ", by the simulator\n\n" } else { "\n\n" });
        let line = |cells: &[String]| {
            let cells: Vec<_> =
                cells.iter().map(|cell| cell.replace('|', "\\|").replace(['\n', '\r'], " ")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        text.push_str(&line(&COLUMNS.map(str::to_owned)));
        text.push_str(&line(&COLUMNS.map(|_| "---".to_owned())));
        self.rows().for_each(|row| text.push_str(&line(&row)));
        let _ = write!(text, "\nAll of it cost {} US dollars.\n\n## Prompts\n", self.usage.cost_usd);
        for prompt in &self.prompts {
            let _ = write!(text, "\n> {}\n", prompt.replace('\n', "\n> "));
        }
        text
    }
}

/// A field of CSV, of which no spreadsheet makes a formula.
fn field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let guarded = if formula { format!("'{text}") } else { text.to_owned() };
    if guarded.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(first: u64, total: u64, tokens: u64) -> Sample {
        Sample {
            first: Some(Duration::from_millis(first)),
            total: Duration::from_millis(total),
            completion_tokens: tokens,
            cost: Money::from_nanos(1_000),
        }
    }

    fn run(ranking: Vec<Scores>) -> Run {
        let usage = Used { cost_usd: "0.1".into(), ..Used::default() };
        let (prompts, weights) = (vec!["one\ntwo".into()], Weights::default());
        Run { prompts, runs: 3, judge_model: None, weights, ranking, usage, simulated: false }
    }

    #[test]
    fn percentiles_are_by_nearest_rank_and_of_enough_answers_only() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![3.0, 1.0]), Some(Spread { p50: 1.0, p95: None }));
        let hundred = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Spread::of(hundred), Some(Spread { p50: 50.0, p95: Some(95.0) }));
    }

    #[test]
    fn a_model_is_measured_by_its_answers() {
        let samples = [sample(100, 1100, 50), sample(200, 2200, 100)];
        let scores = Scores::of("a/x".into(), &samples, 4, None, Some("gone".into()));
        assert_eq!((scores.answers, scores.ok_rate, scores.tok_s), (2, 0.5, Some(50.0)));
        assert_eq!(scores.cost_usd.as_deref(), Some("0.000001"));
        assert_eq!(scores.quality, None);
        let none = Scores::of("a/x".into(), &[], 4, None, None);
        assert_eq!((none.ttft_ms, none.total_ms, none.tok_s, none.cost_usd), (None, None, None, None));
        // A whole answer at once has no speed, and no division by nothing.
        let at_once = [sample(10, 10, 5)];
        assert_eq!(Scores::of("a/x".into(), &at_once, 1, None, None).tok_s, None);
    }

    #[test]
    fn the_weights_decide_who_is_best() {
        let model = |name: &str, total, quality| {
            let mut scores = Scores::of(name.into(), &[sample(1, total, 10)], 1, Some(quality), None);
            scores.tok_s = None;
            scores
        };
        let order = |weights| {
            let mut all = [
                model("a/fast", 100, 10.0),
                model("b/good", 900, 90.0),
                Scores::of("c/gone".into(), &[], 1, None, None),
            ];
            rank(&mut all, weights);
            all.map(|one| (one.model, one.score))
        };
        let none = Weights { speed: 0.0, cost: 0.0, quality: 0.0, throughput: 0.0 };
        let fast = order(Weights { speed: 1.0, ..none });
        assert_eq!(
            fast.each_ref().map(|(name, score)| (name.as_str(), *score)),
            [("a/fast", 1.0), ("b/good", 0.0), ("c/gone", 0.0)]
        );
        assert_eq!(order(Weights { quality: 1.0, ..none })[0].0, "b/good");
        assert!(order(none).iter().all(|(_, score)| *score == 0.0));
    }

    #[test]
    fn no_field_breaks_the_table_or_becomes_a_formula() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("=1+1", "'=1+1"),
            ("@sum(a,b)", "\"'@sum(a,b)\""),
            ("-2", "'-2"),
            ("+1", "'+1"),
        ] {
            assert_eq!(field(text), expected);
        }
        let error = Some("=cmd|' /C calc'!A0, \"x\"".to_owned());
        let csv = run(vec![Scores::of("a/x".into(), &[], 1, None, error)]).csv();
        let lines: Vec<_> = csv.split("\r\n").collect();
        assert_eq!(lines.len(), 3, "{csv:?}");
        assert!(lines[0].starts_with("rank,model,") && lines[1].starts_with("1,a/x,0,0,,"), "{csv:?}");
        assert!(lines[1].ends_with("\"'=cmd|' /C calc'!A0, \"\"x\"\"\""), "{csv:?}");
    }

    #[test]
    fn a_run_is_read_back_as_it_was_kept() {
        let run = run(vec![Scores::of("a/x".into(), &[sample(1, 2, 3)], 1, Some(7.0), None)]);
        let kept = serde_json::to_value(&run).unwrap();
        assert_eq!(serde_json::from_value::<Run>(kept).unwrap(), run);
        let table = run.markdown();
        assert!(table.contains("| 1 | a/x | 1 | 1 |") && table.contains("> one\n> two"), "{table}");
    }
}
