//! Which models and apps are used, and how good are they said to be?

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::{
    catalogue::{Catalogue, Model, Query},
    clock,
};

const DAY: u64 = 86_400_000;

/// As `/benchmarks` answers.
pub fn benchmarks(catalogue: &Catalogue, query: &Query, now: u64) -> Value {
    let most = query.get("max_results").and_then(|most| most.parse().ok()).unwrap_or(100);
    let known = catalogue.models.iter().filter(|model| model.alias_of.is_none());
    let known = known.filter_map(|model| Some((model, model.benchmarks?)));
    let items: Vec<_> = known
        .take(most)
        .map(|(model, [intelligence, coding, agentic])| {
            let prices = model.prices();
            json!({
                "source": "artificial-analysis",
                "display_name": model.name,
                "model_permaslug": model.canonical,
                "intelligence_index": intelligence,
                "coding_index": coding,
                "agentic_index": agentic,
                "pricing": {
                    "prompt": prices.prompt.to_string(),
                    "completion": prices.completion.to_string(),
                },
            })
        })
        .collect();
    let meta = json!({
        "as_of": clock::moment(now),
        "citation": null,
        "model_count": items.len(),
        "source": "artificial-analysis",
        "source_url": null,
        "task_type": null,
        "version": "v1",
    });
    json!({ "data": items, "meta": meta })
}

fn popular(catalogue: &Catalogue) -> Vec<&Model> {
    let mut models: Vec<_> = catalogue.models.iter().filter(|model| model.alias_of.is_none()).collect();
    models.sort_by_key(|model| Reverse(model.traffic));
    models
}

fn span(first: u64, last: u64) -> Value {
    let (start, end) = (clock::date(first), clock::date(last));
    json!({ "as_of": clock::moment(last + DAY), "start_date": start, "end_date": end, "version": "v1" })
}

/// As `/datasets/rankings-daily` answers: yesterday's fifty, and all others as one.
pub fn rankings(catalogue: &Catalogue, now: u64) -> Value {
    let yesterday = now.saturating_sub(DAY);
    let row = |name: &str, tokens: u64| json!({ "date": clock::date(yesterday), "model_permaslug": name, "total_tokens": tokens.to_string() });
    let models = popular(catalogue);
    let mut rows: Vec<_> = models.iter().take(50).map(|model| row(&model.canonical, model.traffic)).collect();
    rows.push(row("other", models.iter().skip(50).map(|model| model.traffic).sum()));
    json!({ "data": rows, "meta": span(yesterday, yesterday) })
}

/// As `/datasets/app-rankings` answers.
pub fn apps(query: &Query, now: u64) -> Value {
    const APPS: [&str; 8] =
        ["Synthetic Coder", "Paper Crane", "Lighthouse", "Tin Whistle", "Orchard", "Ferry", "Slate", "Kiln"];
    let number = |name, usual| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (limit, offset) = (number("limit", 50), number("offset", 0));
    let rows = APPS.iter().enumerate().skip(offset).take(limit).map(|(index, name)| {
        let share = 8 - index;
        json!({
            "app_id": index + 1,
            "app_name": name,
            "rank": index + 1,
            "total_requests": share * 1_000_000,
            "total_tokens": (share * 3_000_000_000).to_string(),
        })
    });
    let yesterday = now.saturating_sub(DAY);
    json!({ "data": rows.collect::<Vec<_>>(), "meta": span(yesterday, yesterday) })
}

/// As `/classifications/task` answers.
pub fn tasks(catalogue: &Catalogue, now: u64) -> Value {
    const TASKS: [(&str, &str, &str, f64); 4] = [
        ("code_generation", "Code generation", "coding", 0.4),
        ("debugging", "Debugging", "coding", 0.2),
        ("summarization", "Summarization", "writing", 0.3),
        ("translation", "Translation", "writing", 0.1),
    ];
    let models: Vec<_> = popular(catalogue)
        .iter()
        .take(3)
        .map(|model| json!({ "id": model.id, "tag_token_share": 0.2, "tag_usage_share": 0.2 }))
        .collect();
    let classifications = TASKS.map(|(tag, name, category, share)| {
        json!({
            "tag": tag,
            "display_name": name,
            "macro_category": category,
            "usage_share": share,
            "token_share": share,
            "category_usage_share": share,
            "category_token_share": share,
            "models": models,
        })
    });
    let categories = [("coding", "Coding", 0.6), ("writing", "Writing", 0.4)].map(|(key, label, share)| {
        json!({ "key": key, "label": label, "usage_share": share, "token_share": share })
    });
    json!({ "data": {
        "as_of": clock::moment(now),
        "classifications": classifications,
        "macro_categories": categories,
        "window_days": 7,
    } })
}
