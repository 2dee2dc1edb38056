//! What does a picture look like that nobody painted? Of one colour, which the prompt decides.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::{Compression, Crc, write::ZlibEncoder};
use serde_json::{Value, json};

use super::{
    account::Holder,
    bill::Bill,
    chat,
    play::{Step, Watch},
    random,
    refusal::Refusal,
    reply::Reply,
    route::Asked,
};

const SIDE: u32 = 64;
/// What one picture counts as.
const TOKENS: u64 = 1024;

pub fn answer(watch: &mut Watch, asked: &Asked<'_>, body: &Value, holder: Holder) -> Result<Reply, Refusal> {
    let id = body["model"].as_str().ok_or_else(|| Refusal::invalid("model is missing"))?;
    let prompt = body["prompt"].as_str().ok_or_else(|| Refusal::invalid("prompt is missing"))?;
    let count = body["n"].as_u64().unwrap_or(1);
    if !(1..=10).contains(&count) {
        return Err(Refusal::invalid("n has to be from 1 to 10"));
    }
    let model = watch.world().catalogue.find(id).ok_or_else(|| Refusal::unknown_model(id))?;
    if !model.outputs.contains(&"image") {
        return Err(Refusal::no_endpoints(id));
    }
    let now = watch.world().clock.now();
    let enforce = watch.world().settings.enforce_limits;
    watch.world().account().admit(holder, &model, 0, now, enforce)?;
    let streamed = body["stream"] == true;
    let bill = Bill {
        holder,
        id: watch.world().generation_id(),
        model,
        prompt: chat::tokens(prompt),
        cached: 0,
        written: 0,
        source: None,
        searches: 0,
        pictures: count,
        completion: TOKENS * count,
        reasoning: 0,
        finish: "stop",
        native_finish: "stop",
        streamed,
        begun_ms: now,
        about: asked.about(body, "images"),
    };
    let mut usage = bill.usage();
    if let Some(members) = usage.as_object_mut() {
        members.retain(|name, _| {
            matches!(name.as_str(), "prompt_tokens" | "completion_tokens" | "total_tokens" | "cost")
        });
    }
    let generation = bill.id.clone();
    watch.charge(bill);
    let pictures = (0..count).map(|index| STANDARD.encode(png(&format!("{prompt} {index}"))));
    let reply = if streamed {
        Reply::events(events(pictures, &usage))
    } else {
        let data = pictures.map(|picture| json!({ "b64_json": picture, "media_type": "image/png" }));
        let told = json!({ "created": now / 1000, "data": data.collect::<Vec<_>>(), "usage": usage });
        Reply::generated(&told, TOKENS * count)
    };
    Ok(reply.header("x-generation-id", generation))
}

/// Each picture first as a sketch, which is the same picture, and then whole.
fn events(pictures: impl Iterator<Item = String>, usage: &Value) -> Vec<Step> {
    let event = |value: &Value, tokens| Step::Send(Bytes::from(format!("data: {value}\n\n")), tokens);
    let mut steps = Vec::new();
    for picture in pictures {
        let (sketch, whole) = ("image_generation.partial_image", "image_generation.completed");
        let partial = json!({ "type": sketch, "b64_json": picture, "partial_image_index": 0 });
        steps.push(event(&partial, 0));
        let whole = json!({ "type": whole, "b64_json": picture, "media_type": "image/png", "usage": usage });
        steps.push(event(&whole, TOKENS));
    }
    steps.push(Step::Generated);
    steps.push(Step::Send(Bytes::from_static(b"data: [DONE]\n\n"), 0));
    steps
}

/// A PNG of 64 × 64 pixels.
pub fn png(prompt: &str) -> Vec<u8> {
    let colour = random::sha256(&[prompt.as_bytes()]);
    let mut row = vec![0];
    (0..SIDE).for_each(|_| row.extend_from_slice(&colour[..3]));
    let mut pixels = ZlibEncoder::new(Vec::new(), Compression::default());
    for _ in 0..SIDE {
        // Writing to memory cannot fail.
        let _ = pixels.write_all(&row);
    }
    let mut header = Vec::from(SIDE.to_be_bytes());
    header.extend(SIDE.to_be_bytes());
    // Eight bits for each of red, green and blue; nothing special about the rest.
    header.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in
        [(b"IHDR", header), (b"IDAT", pixels.finish().unwrap_or_default()), (b"IEND", Vec::new())]
    {
        let mut sum = Crc::new();
        sum.update(name);
        sum.update(&data);
        png.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
        png.extend_from_slice(name);
        png.extend(&data);
        png.extend(sum.sum().to_be_bytes());
    }
    png
}
