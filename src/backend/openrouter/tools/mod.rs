//! What can callers do with models and conversations?
//!
//! Each tool is a type: what it takes is the type's members, from which its input schema is made, and
//! what it gives is a type too. So a tool cannot take what it does not declare, nor declare what it
//! does not take.

use std::{
    fmt::Debug,
    sync::{Arc, LazyLock},
};

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Task, ask::Used, refused::Refused, settings::Pack};

pub mod account; //      what there is to spend, and what was spent
pub mod benchmark; //    how fast, how dear, how good
pub mod chat; //         one message of a conversation
mod compare; //      one prompt, many models
pub mod complete; // messages without a conversation
mod consensus; //    one answer of many models
pub mod conversation; // a conversation, made and changed
mod cross_validate; //what many models find wrong
mod embed; //        texts as numbers
pub mod export; //       a conversation as a document
mod found; //        conversations and messages, listed and searched
mod free; //         models that cost nothing
mod image; //        pictures
mod media; //        what is in a picture, a document, a recording
pub mod models; //       which models there are
mod rankings; //     what others use and measured
mod recommend; //    which model for what
mod schema; //       what tools take and give, as clients read it
mod wishes; //       how an answer is to be made

/// What the result's use of tokens and dollars stands under in its `_meta`, where the gateway's daily
/// limits look for it.
const USAGE: &str = "io.waystation/usage";

/// What a tool does to the world (`annotations`).
#[derive(Debug, Clone, Copy)]
pub struct Effect {
    pub read_only: bool,
    pub destructive: bool,
    pub idempotent: bool,
    /// It asks somebody outside.
    pub open_world: bool,
}

impl Effect {
    /// Looks at what is kept here.
    pub const READS: Self = Self { read_only: true, destructive: false, idempotent: true, open_world: false };
    /// Asks OpenRouter for what costs nothing.
    pub const ASKS: Self = Self { open_world: true, ..Self::READS };
    /// Changes what is kept here.
    pub const WRITES: Self =
        Self { read_only: false, destructive: false, idempotent: false, open_world: false };
    /// Costs money. Never read-only: clients may allow such tools without asking.
    pub const COSTS: Self = Self { open_world: true, ..Self::WRITES };
    /// Removes what is kept here.
    pub const REMOVES: Self = Self { destructive: true, idempotent: true, ..Self::WRITES };
}

/// What a caller can ask for.
pub trait Takes: DeserializeOwned + JsonSchema + Send + 'static {
    const NAME: &'static str;
    const TITLE: &'static str;
    const DESCRIPTION: &'static str;
    const EFFECT: Effect;
    type Gives: Gives;

    fn run(self, task: Arc<Task>) -> impl Future<Output = Result<Self::Gives, Refused>> + Send;
}

/// What comes of it.
pub trait Gives: Serialize + JsonSchema + Debug + Send {
    /// What a model is shown; by default all of it, as JSON.
    fn text(&self) -> Option<String> {
        None
    }

    /// A member that is shown as text already, and is left out of the JSON beside it.
    const SHOWN: Option<&'static str> = None;

    /// Blocks behind the text: links, pictures.
    fn blocks(&self) -> Vec<Value> {
        Vec::new()
    }

    fn used(&self) -> Option<&Used> {
        None
    }
}

/// A tool, whatever it takes and gives.
pub struct Tool {
    pub name: &'static str,
    pack: Pack,
    listed: Value,
    #[expect(clippy::type_complexity, reason = "what every tool does, once")]
    pub run: Box<dyn Fn(Arc<Task>, Value) -> BoxFuture<'static, Result<Value, Refused>> + Send + Sync>,
}

static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    vec![
        tool::<chat::Chat>(Pack::Core),
        tool::<complete::Complete>(Pack::Core),
        tool::<compare::CompareModels>(Pack::Core),
        tool::<conversation::Create>(Pack::Core),
        tool::<found::List>(Pack::Core),
        tool::<found::Get>(Pack::Core),
        tool::<found::Search>(Pack::Core),
        tool::<conversation::Update>(Pack::Core),
        tool::<conversation::Fork>(Pack::Core),
        tool::<export::Export>(Pack::Core),
        tool::<conversation::Summarize>(Pack::Core),
        tool::<conversation::Delete>(Pack::Core),
        tool::<media::AnalyzeMedia>(Pack::Core),
        tool::<image::GenerateImage>(Pack::Media),
        tool::<models::ModelsSearch>(Pack::Catalog),
        tool::<models::ModelGet>(Pack::Catalog),
        tool::<models::ModelsCompare>(Pack::Catalog),
        tool::<recommend::ModelsRecommend>(Pack::Catalog),
        tool::<rankings::Rankings>(Pack::Catalog),
        tool::<models::ProvidersList>(Pack::Catalog),
        tool::<account::AccountStatus>(Pack::Account),
        tool::<account::UsageReport>(Pack::Account),
        tool::<account::GenerationGet>(Pack::Account),
        tool::<embed::Embed>(Pack::Embed),
        tool::<embed::Rerank>(Pack::Embed),
        tool::<benchmark::BenchmarkRun>(Pack::Benchmark),
        tool::<benchmark::BenchmarkList>(Pack::Benchmark),
        tool::<benchmark::BenchmarkReport>(Pack::Benchmark),
        tool::<consensus::Consensus>(Pack::Collective),
        tool::<cross_validate::CrossValidate>(Pack::Collective),
        tool::<account::Health>(Pack::Account),
    ]
});

/// The result of `tools/list`, which is the same for everybody.
pub fn list(packs: &[Pack]) -> String {
    let there = TOOLS.iter().filter(|tool| packs.contains(&tool.pack));
    let tools: Vec<_> = there.map(|tool| &tool.listed).collect();
    json!({ "resultType": "complete", "ttlMs": 300_000, "cacheScope": "public", "tools": tools }).to_string()
}

pub fn find(packs: &[Pack], name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name && packs.contains(&tool.pack))
}

fn tool<T: Takes>(pack: Pack) -> Tool {
    let Effect { read_only, destructive, idempotent, open_world } = T::EFFECT;
    let listed = json!({
        "name": T::NAME,
        "title": T::TITLE,
        "description": T::DESCRIPTION,
        "inputSchema": schema::of::<T>(),
        "outputSchema": schema::of_result::<T::Gives>(),
        "annotations": {
            "readOnlyHint": read_only,
            "destructiveHint": destructive,
            "idempotentHint": idempotent,
            "openWorldHint": open_world,
        },
    });
    Tool {
        name: T::NAME,
        pack,
        listed,
        run: Box::new(|task, arguments| {
            Box::pin(async move {
                let arguments = if arguments.is_null() { json!({}) } else { arguments };
                let asked: T = serde_json::from_value(arguments).map_err(|why| {
                    Refused::input(format!(
                        "the arguments of {} are not as its schema has them: {why}",
                        T::NAME
                    ))
                })?;
                let simulated = task.work.simulated;
                asked.run(task).await.map(|given| result(&given, simulated))
            })
        }),
    }
}

/// The result of a `tools/call`.
fn result<G: Gives>(given: &G, simulated: bool) -> Value {
    let mut structured = serde_json::to_value(given).unwrap_or_default();
    if simulated && let Some(members) = structured.as_object_mut() {
        members.insert("simulated".into(), true.into());
    }
    let mut shown = structured.clone();
    if let (Some(name), Some(members)) = (G::SHOWN, shown.as_object_mut()) {
        members.remove(name);
    }
    let mut content = Vec::new();
    if let Some(text) = given.text() {
        content.push(json!({ "type": "text", "text": text }));
    }
    content.push(json!({ "type": "text", "text": shown.to_string() }));
    content.extend(given.blocks());
    let mut result = json!({ "isError": false, "content": content, "structuredContent": structured });
    if let Some(used) = given.used() {
        let cost = used.cost_usd.parse::<f64>().unwrap_or(0.0);
        result["_meta"] = json!({
            USAGE: { "inputTokens": used.prompt_tokens, "outputTokens": used.completion_tokens, "costUsd": cost },
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Tokens that the list may take of a client's context.
    const LONGEST_LIST: u64 = 12_000;

    fn descriptions(schema: &Value, path: &str, missing: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{path}.{name}");
            let described = property["description"].as_str().unwrap_or_default();
            if described.is_empty() || described.chars().count() > 160 {
                missing.push(format!("{at}: {described:?}"));
            }
            descriptions(property, &at, missing);
            descriptions(&property["items"], &at, missing);
        }
    }

    #[test]
    fn tools_are_listed_as_clients_can_read_them() {
        let mut names = BTreeSet::new();
        let mut wrong = Vec::new();
        for tool in TOOLS.iter() {
            let input = &tool.listed["inputSchema"];
            assert!(names.insert(tool.name), "{} stands there twice", tool.name);
            assert!(
                tool.name.len() <= 40 && tool.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{}",
                tool.name
            );
            assert_eq!(
                (&input["type"], &input["additionalProperties"]),
                (&json!("object"), &json!(false)),
                "{}",
                tool.name
            );
            for schema in [input, &tool.listed["outputSchema"]] {
                assert_eq!(schema["type"], "object", "{}", tool.name);
                let text = schema.to_string();
                for never in ["\"$ref\"", "\"$defs\"", "\"null\"", "\"$schema\""] {
                    assert!(!text.contains(never), "{}: {never} in {text}", tool.name);
                }
                for never in ["anyOf", "oneOf", "allOf"] {
                    assert!(schema.get(never).is_none(), "{}: {never}", tool.name);
                }
            }
            descriptions(input, tool.name, &mut wrong);
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let all: Vec<_> = TOOLS.iter().map(|tool| tool.pack).collect();
        let tokens = super::super::context::of_text(&list(&all));
        assert!(tokens <= LONGEST_LIST, "{tokens} tokens");
    }
}
