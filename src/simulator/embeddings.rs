//! Where do texts lie in a space in which similar ones lie close together?

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    account::Holder, bill::Bill, chat, play::Watch, random, refusal::Refusal, reply::Reply, route::Asked,
};

const DIMENSIONS: usize = 256;
const MOST_DIMENSIONS: usize = 4096;
const MOST_INPUTS: usize = 2048;

pub fn answer(watch: &mut Watch, asked: &Asked<'_>, body: &Value, holder: Holder) -> Result<Reply, Refusal> {
    let id = body["model"].as_str().ok_or_else(|| Refusal::invalid("model is missing"))?;
    let model = watch.world().catalogue.find(id).ok_or_else(|| Refusal::unknown_model(id))?;
    if !model.outputs.contains(&"embeddings") {
        return Err(Refusal::no_endpoints(id));
    }
    let dimensions = body["dimensions"].as_u64().map_or(Ok(DIMENSIONS), usize::try_from).unwrap_or(0);
    if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
        return Err(Refusal::invalid(format!("dimensions has to be from 1 to {MOST_DIMENSIONS}")));
    }
    let texts = inputs(&body["input"]);
    if texts.is_empty() || texts.len() > MOST_INPUTS {
        return Err(Refusal::invalid(format!("input has to be a text, or from 1 to {MOST_INPUTS} of them")));
    }
    let prompt = texts.iter().map(|text| chat::tokens(text)).sum();
    let now = watch.world().clock.now();
    let enforce = watch.world().settings.enforce_limits;
    watch.world().account().admit(holder, &model, 0, now, enforce)?;
    let bill = Bill {
        holder,
        id: watch.world().generation_id(),
        model,
        prompt,
        cached: 0,
        written: 0,
        source: None,
        searches: 0,
        pictures: 0,
        completion: 0,
        reasoning: 0,
        finish: "stop",
        native_finish: "stop",
        streamed: false,
        begun_ms: now,
        about: asked.about(body, "embeddings"),
    };
    let compact = body["encoding_format"] == "base64";
    let data = texts.iter().enumerate().map(|(index, text)| {
        json!({ "object": "embedding", "index": index, "embedding": written(&vector(text, dimensions), compact) })
    });
    let told = json!({
        "id": bill.id,
        "object": "list",
        "model": id,
        "data": data.collect::<Vec<_>>(),
        "usage": { "prompt_tokens": prompt, "total_tokens": prompt, "cost": bill.cost(0).total().json() },
    });
    let generation = bill.id.clone();
    watch.charge(bill);
    Ok(Reply::generated(&told, 0).header("x-generation-id", generation))
}

/// A text, texts, tokens, lists of tokens, or parts with texts in them: each as one text.
fn inputs(input: &Value) -> Vec<String> {
    let one = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => chat::text_of(&value["content"]),
        other => other.to_string(),
    };
    match input {
        Value::Array(items) if items.iter().all(Value::is_number) && !items.is_empty() => {
            vec![input.to_string()]
        }
        Value::Array(items) => items.iter().map(one).collect(),
        Value::String(text) => vec![text.clone()],
        _ => Vec::new(),
    }
}

/// A vector of length 1. Every word pulls in a direction of its own.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f32; dimensions];
    let lower = text.to_lowercase();
    let words = lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    for word in words.chain(std::iter::once("\0")) {
        let mut random = random::Random::new(0, word);
        for _ in 0..8 {
            let place = random.below(dimensions);
            sums[place] += if random.percent(50) { 1.0 } else { -1.0 };
        }
    }
    let length = sums.iter().map(|sum| sum * sum).sum::<f32>().sqrt();
    if length == 0.0 {
        sums[0] = 1.0;
        return sums;
    }
    sums.iter().map(|sum| sum / length).collect()
}

fn written(vector: &[f32], compact: bool) -> Value {
    if !compact {
        return json!(vector);
    }
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likeness(one: &str, other: &str) -> f32 {
        vector(one, 256).iter().zip(vector(other, 256)).map(|(one, other)| one * other).sum()
    }

    #[test]
    fn similar_texts_lie_closer_than_others() {
        let (cats, dogs, ships) = ("the cat sat on the mat", "the cat lay on the mat", "ships sail far out");
        assert!(likeness(cats, dogs) > 0.5 && likeness(cats, ships) < 0.4);
        for text in [cats, "", "ü", "\0"] {
            assert!((likeness(text, text) - 1.0).abs() < 1e-4, "{text:?}");
        }
    }
}
