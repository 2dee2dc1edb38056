//! Which documents are about a question?

use std::{cmp::Ordering, collections::BTreeSet};

use serde_json::{Value, json};

use super::{account::Holder, bill::Bill, chat, play::Watch, refusal::Refusal, reply::Reply, route::Asked};

const MOST_DOCUMENTS: usize = 1000;

pub fn answer(watch: &mut Watch, asked: &Asked<'_>, body: &Value, holder: Holder) -> Result<Reply, Refusal> {
    let id = body["model"].as_str().ok_or_else(|| Refusal::invalid("model is missing"))?;
    let query = body["query"].as_str().ok_or_else(|| Refusal::invalid("query is missing"))?;
    let documents: Vec<_> = body["documents"].as_array().into_iter().flatten().map(text).collect();
    if documents.is_empty() || documents.len() > MOST_DOCUMENTS {
        return Err(Refusal::invalid(format!("documents has to be from 1 to {MOST_DOCUMENTS} texts")));
    }
    let model = watch.world().catalogue.find(id).ok_or_else(|| Refusal::unknown_model(id))?;
    if !model.outputs.contains(&"rerank") {
        return Err(Refusal::no_endpoints(id));
    }
    let prompt = documents.iter().map(|document| chat::tokens(document)).sum::<u64>() + chat::tokens(query);
    let now = watch.world().clock.now();
    let enforce = watch.world().settings.enforce_limits;
    watch.world().account().admit(holder, &model, 0, now, enforce)?;
    let provider = model.provider().name;
    let bill = Bill {
        holder,
        id: watch.world().generation_id().replacen("gen-", "gen-rerank-", 1),
        model,
        prompt,
        cached: 0,
        written: 0,
        source: None,
        // A search is what is paid for.
        searches: 1,
        pictures: 0,
        completion: 0,
        reasoning: 0,
        finish: "stop",
        native_finish: "stop",
        streamed: false,
        begun_ms: now,
        about: asked.about(body, "rerank"),
    };
    let most = body["top_n"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(documents.len());
    let results = ranked(query, &documents).into_iter().take(most).map(|(index, score)| {
        json!({ "index": index, "relevance_score": score, "document": { "text": documents[index] } })
    });
    let told = json!({
        "id": bill.id,
        "model": id,
        "provider": provider,
        "results": results.collect::<Vec<_>>(),
        "usage": { "search_units": 1, "total_tokens": prompt, "cost": bill.cost(0).total().json() },
    });
    let generation = bill.id.clone();
    watch.charge(bill);
    Ok(Reply::generated(&told, 0).header("x-generation-id", generation))
}

fn text(document: &Value) -> String {
    document.as_str().or_else(|| document["text"].as_str()).unwrap_or_default().to_owned()
}

/// Documents by the share of the question's words that they have; equals keep their order.
fn ranked(query: &str, documents: &[String]) -> Vec<(usize, f64)> {
    let words = |text: &str| -> BTreeSet<String> {
        let lower = text.to_lowercase();
        let words = lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let wanted = words(query);
    let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    let score = |document: &String| {
        let shared = words(document).intersection(&wanted).count();
        count(shared) / count(wanted.len().max(1))
    };
    let mut scored: Vec<_> = documents.iter().map(score).enumerate().collect();
    scored.sort_by(|one, other| other.1.partial_cmp(&one.1).unwrap_or(Ordering::Equal));
    scored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_share_words_come_first_and_equals_keep_their_order() {
        let documents =
            ["Berlin is in Germany.", "Paris is the capital of France.", "no", "nil"].map(str::to_owned);
        let order: Vec<_> = ranked("capital of France", &documents).iter().map(|(index, _)| *index).collect();
        assert_eq!(order, [1, 0, 2, 3]);
    }
}
