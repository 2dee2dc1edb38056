//! How are pictures made?

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Effect, Gives, Takes,
    embed::{put, refused, settled},
};
use crate::{
    backend::openrouter::{
        Task,
        ask::{Used, kept},
        catalog::Use,
        context::of_text,
        refused::Refused,
    },
    store::conversations::Entry,
};

const DRAWS: &str = "google/gemini-3-flash-image";
const SIMULATED_DRAWS: &str = "acme/pixel-1";
/// The largest picture that is given, as base64.
const LARGEST: usize = 4 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateImage {
    /// What is to be seen.
    #[schemars(length(min = 1, max = 32_000))]
    prompt: String,
    /// A model that draws. By default the server's.
    #[serde(default)]
    model: Option<String>,
    /// How many. By default 1.
    #[serde(default)]
    #[schemars(range(min = 1, max = 4))]
    n: Option<u32>,
    /// Width to height, such as 16:9.
    #[serde(default)]
    aspect_ratio: Option<String>,
    /// How large, such as 1K or 2K.
    #[serde(default)]
    resolution: Option<String>,
    /// low, medium, high or auto.
    #[serde(default)]
    quality: Option<String>,
    /// transparent, opaque or auto.
    #[serde(default)]
    background: Option<String>,
    /// png, jpeg or webp.
    #[serde(default)]
    output_format: Option<String>,
    /// The same seed gives the same picture, where the model can.
    #[serde(default)]
    seed: Option<i64>,
    /// Pictures to go by, as https: or data: addresses.
    #[serde(default)]
    #[schemars(length(max = 10))]
    references: Vec<String>,
    /// Nothing is sent if it may cost more than this.
    #[serde(default)]
    max_cost_usd: Option<f64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct Drawn {
    /// How many pictures there are, which stand in the content.
    images: usize,
    model_used: String,
    usage: Used,
    warnings: Vec<String>,
    #[serde(skip)]
    #[schemars(skip)]
    blocks: Vec<Value>,
}

impl Gives for Drawn {
    fn blocks(&self) -> Vec<Value> {
        self.blocks.clone()
    }

    fn used(&self) -> Option<&Used> {
        Some(&self.usage)
    }
}

impl Takes for GenerateImage {
    const NAME: &'static str = "generate_image";
    const TITLE: &'static str = "Draw a picture";
    const DESCRIPTION: &'static str = "Has a model draw pictures, which are given as image content.";
    const EFFECT: Effect = Effect::COSTS;
    type Gives = Drawn;

    async fn run(self, task: Arc<Task>) -> Result<Drawn, Refused> {
        if self.references.iter().any(|url| !url.starts_with("https://") && !url.starts_with("data:image/")) {
            return Err(Refused::input("references are https: addresses or data: addresses of pictures"));
        }
        let usual = if task.work.simulated { SIMULATED_DRAWS } else { DRAWS };
        let chosen = task.choose(Some(self.model.as_deref().unwrap_or(usual))).await?;
        let n = self.n.unwrap_or(1).clamp(1, 4);
        let mut body = json!({ "model": chosen.id, "prompt": self.prompt, "n": n, "user": task.own.alias() });
        for (name, value) in [
            ("aspect_ratio", &self.aspect_ratio),
            ("resolution", &self.resolution),
            ("quality", &self.quality),
            ("background", &self.background),
            ("output_format", &self.output_format),
        ] {
            put(&mut body, name, value.clone().map(Value::from));
        }
        put(&mut body, "seed", self.seed.map(Value::from));
        if !self.references.is_empty() {
            let one = |url: &String| json!({ "type": "image_url", "image_url": { "url": url } });
            body["input_references"] = self.references.iter().map(one).collect();
        }
        let (prompt_tokens, output_tokens) = (of_text(&self.prompt), 4096 * u64::from(n));
        let used = Use { prompt_tokens, output_tokens, ..Use::default() };
        let estimate = task.estimate(&chosen, used, self.max_cost_usd)?;
        task.agree(estimate, self.max_cost_usd)?;
        let reservation = task.reserve(estimate).await?;
        let done = async {
            let _held = task.work.policy.enter(&task.who).await?;
            task.work.upstream.images(&body).await
        };
        let done = done.await.map_err(|failure| refused(&failure, &chosen));
        let drawn = settled(&task, reservation, done).await?;
        let entry = Entry {
            tool: Self::NAME.into(),
            model: chosen.id.clone(),
            usage: kept(drawn.usage.as_ref(), estimate),
            simulated: task.work.simulated,
            ..Entry::default()
        };
        let usage = Used::of(&entry.usage);
        task.own.record(entry, reservation, Timestamp::now()).await?;
        let (mut blocks, mut warnings) = (Vec::new(), Vec::new());
        for image in drawn.data {
            if image.b64_json.len() > LARGEST {
                warnings.push(format!(
                    "a picture of {} bytes is larger than can be given; ask for a smaller resolution",
                    image.b64_json.len() / 4 * 3
                ));
                continue;
            }
            let mime = image.media_type.unwrap_or_else(|| "image/png".into());
            blocks.push(json!({ "type": "image", "data": image.b64_json, "mimeType": mime }));
        }
        Ok(Drawn { images: blocks.len(), model_used: chosen.id, usage, warnings, blocks })
    }
}
