//! Which answer is a request's?

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use serde_json::{Value, json};

use super::{
    account::Holder,
    bill::About,
    catalogue::{PROVIDERS, Query},
    chat, dataset, embeddings, fault, images,
    play::Watch,
    refusal::Refusal,
    reply::Reply,
    rerank,
    rules::Look,
    scenario::Scenario,
    world::World,
};

/// One request, read.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: Bytes,
}

impl Asked<'_> {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What the client says about itself, in headers and in the body.
    pub fn about(&self, body: &Value, api: &'static str) -> About {
        let own = |text: &str| Some(text.to_owned());
        About {
            user: body["user"].as_str().and_then(own),
            session: body["session_id"].as_str().or_else(|| self.header("x-session-id")).and_then(own),
            referer: self.header("http-referer").or_else(|| self.header("referer")).and_then(own),
            agent: self.header("user-agent").and_then(own),
            api,
        }
    }

    fn holder(&self) -> Result<Holder, Refusal> {
        Holder::of(self.header("authorization"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint<'a> {
    Chat,
    Embeddings,
    Images,
    Rerank,
    Models,
    ModelsCount,
    ModelsUser,
    Model(&'a str),
    Endpoints(&'a str),
    EmbeddingModels,
    ImageModels,
    Providers,
    Zdr,
    Key,
    Credits,
    Activity,
    Generation,
    Benchmarks,
    RankingsDaily,
    AppRankings,
    Tasks,
}

impl<'a> Endpoint<'a> {
    /// What is at a path below `/api/v1`.
    fn at(path: &'a str) -> Option<Self> {
        Some(match path {
            "chat/completions" => Self::Chat,
            "embeddings" => Self::Embeddings,
            "images" => Self::Images,
            "rerank" => Self::Rerank,
            "models" => Self::Models,
            "models/count" => Self::ModelsCount,
            "models/user" => Self::ModelsUser,
            "embeddings/models" => Self::EmbeddingModels,
            "images/models" => Self::ImageModels,
            "providers" => Self::Providers,
            "endpoints/zdr" => Self::Zdr,
            "key" | "auth/key" => Self::Key,
            "credits" => Self::Credits,
            "activity" => Self::Activity,
            "generation" => Self::Generation,
            "benchmarks" => Self::Benchmarks,
            "datasets/rankings-daily" => Self::RankingsDaily,
            "datasets/app-rankings" => Self::AppRankings,
            "classifications/task" => Self::Tasks,
            _ => {
                if let Some(id) = path.strip_prefix("model/") {
                    Self::Model(id)
                } else {
                    Self::Endpoints(path.strip_prefix("models/")?.strip_suffix("/endpoints")?)
                }
            }
        })
    }

    fn method(self) -> Method {
        match self {
            Self::Chat | Self::Embeddings | Self::Images | Self::Rerank => Method::POST,
            _ => Method::GET,
        }
    }
}

/// Answers one request.
pub async fn answer(watch: &mut Watch, asked: &Asked<'_>) -> Reply {
    answered(watch, asked).await.unwrap_or_else(Reply::from)
}

async fn answered(watch: &mut Watch, asked: &Asked<'_>) -> Result<Reply, Refusal> {
    let world = Arc::clone(watch.world());
    let path = asked.path.strip_prefix("/api/v1/").or_else(|| asked.path.strip_prefix("/v1/"));
    let path = percent_decoded(path.ok_or_else(Refusal::nothing_here)?);
    let endpoint = Endpoint::at(&path).ok_or_else(Refusal::nothing_here)?;
    if endpoint.method() != *asked.method {
        return Err(Refusal::new(405, "Method Not Allowed").header("allow", endpoint.method()));
    }
    let body = match endpoint.method() {
        Method::POST => serde_json::from_slice(&asked.body)
            .map_err(|why| Refusal::invalid(format!("Invalid JSON in the request body: {why}")))?,
        _ => Value::Null,
    };
    let scenario = chosen(&world, asked, &body)?;
    if let Some(scenario) = &scenario {
        world.journal.note(watch.request(), |entry| entry.scenario = Some(scenario.name.to_owned()));
        if scenario.name == "slow-headers" {
            tokio::time::sleep(Duration::from_millis(scenario.number("ms", 1000))).await;
        }
        if let Some(reply) = fault::instead(scenario, &world, &body) {
            return match next_candidate(&body).filter(|_| fails_over(reply.status)) {
                // What fails before the first token is tried with the next model that was named.
                Some(next) => Box::pin(answered(watch, &Asked { body: next, ..asked.clone() })).await,
                None => Ok(reply),
            };
        }
    }
    match endpoint {
        Endpoint::Chat => chat::answer(watch, asked, &body, asked.holder()?, scenario.as_ref()).await,
        Endpoint::Embeddings => embeddings::answer(watch, asked, &body, asked.holder()?),
        Endpoint::Images => images::answer(watch, asked, &body, asked.holder()?),
        Endpoint::Rerank => rerank::answer(watch, asked, &body, asked.holder()?),
        listed => told(&world, asked, listed).map(|value| Reply::json(&value)),
    }
}

fn fails_over(status: u16) -> bool {
    matches!(status, 404 | 408 | 429 | 500..=599)
}

/// The request with the next of its `models` as the model, if it has one.
fn next_candidate(body: &Value) -> Option<Bytes> {
    let mut body = body.clone();
    let models = body["models"].as_array_mut().filter(|models| !models.is_empty())?;
    body["model"] = models.remove(0);
    Some(body.to_string().into())
}

/// The path as it was meant: an SDK writes `/` inside of a name as `%2F`, and `:` as `%3A`.
fn percent_decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut left = path.as_bytes();
    while let [first, after @ ..] = left {
        let digits =
            after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            left = &after[2..];
        } else {
            bytes.push(*first);
            left = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn chosen(world: &World, asked: &Asked<'_>, body: &Value) -> Result<Option<Scenario>, Refusal> {
    let said = chat::last_said(body);
    let look = Look {
        path: asked.path,
        header: asked.header("x-sim-scenario"),
        model: body["model"].as_str(),
        body: &asked.body,
        said: &said,
        key: asked.header("authorization"),
    };
    let scenario = world.rules.lock().expect("no code panics while it holds this lock").choose(&look)?;
    Ok(scenario.and_then(|scenario| {
        let draw = if scenario.name == "flaky" { world.count() } else { 0 };
        scenario.drawn(&mut world.random(&format!("flaky {draw}")))
    }))
}

/// What is only told, and costs nothing.
fn told(world: &World, asked: &Asked<'_>, endpoint: Endpoint<'_>) -> Result<Value, Refusal> {
    let query = Query::read(asked.uri.query().unwrap_or_default());
    let catalogue = &world.catalogue;
    let now = world.clock.now();
    let making = |what: &str| {
        let query = Query::read(&format!("output_modalities={what}"));
        catalogue.found(&query, now / 1000)
    };
    Ok(match endpoint {
        Endpoint::Models => catalogue.page("models", &query, now / 1000)?,
        Endpoint::ModelsUser => {
            asked.holder()?;
            catalogue.page("models/user", &query, now / 1000)?
        }
        Endpoint::EmbeddingModels => {
            let all = making("embeddings")?;
            let shown: Vec<_> = all.iter().map(|model| model.shown(catalogue)).collect();
            json!({ "total_count": shown.len(), "data": shown, "links": { "next": null } })
        }
        Endpoint::ImageModels => {
            let shown: Vec<_> = making("image")?.iter().map(|model| model.shown_as_painter()).collect();
            json!({ "data": shown })
        }
        Endpoint::ModelsCount => json!({ "data": { "count": catalogue.found(&query, now / 1000)?.len() } }),
        Endpoint::Model(id) => {
            let model = catalogue.find(id).ok_or_else(|| unknown(id))?;
            json!({ "data": model.shown(catalogue) })
        }
        Endpoint::Endpoints(id) => {
            let model = catalogue.find(id).ok_or_else(|| unknown(id))?;
            json!({ "data": model.with_endpoints() })
        }
        Endpoint::Providers => {
            json!({ "data": PROVIDERS.iter().map(|provider| provider.shown()).collect::<Vec<_>>() })
        }
        Endpoint::Zdr => {
            let pairs = catalogue.models.iter().flat_map(|model| {
                let providers = model.providers.iter().map(|index| &PROVIDERS[*index]);
                providers.filter(|provider| provider.zdr).map(|provider| model.endpoint(provider))
            });
            json!({ "data": pairs.collect::<Vec<_>>() })
        }
        Endpoint::Key => world.account().key(asked.holder()?, now),
        Endpoint::Credits => world.account().credits(asked.holder()?)?,
        Endpoint::Activity => world.account().activity(asked.holder()?, query.get("date"))?,
        Endpoint::Generation => {
            asked.holder()?;
            let id = query.get("id").ok_or_else(|| Refusal::invalid("say which: ?id=gen-…"))?;
            world.generation(id).ok_or_else(|| Refusal::new(404, format!("Generation {id} not found")))?
        }
        Endpoint::Benchmarks => dataset::benchmarks(catalogue, &query, now),
        Endpoint::RankingsDaily => dataset::rankings(catalogue, now),
        Endpoint::AppRankings => dataset::apps(&query, now),
        Endpoint::Tasks => dataset::tasks(catalogue, now),
        Endpoint::Chat | Endpoint::Embeddings | Endpoint::Images | Endpoint::Rerank => Value::Null,
    })
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(404, format!("Model {id} not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_slashes_are_found_however_they_are_written() {
        let path = percent_decoded("model/%7Eacme%2Fatlas-latest");
        assert_eq!(Endpoint::at(&path), Some(Endpoint::Model("~acme/atlas-latest")));
        assert_eq!(Endpoint::at("models/acme/x:free/endpoints"), Some(Endpoint::Endpoints("acme/x:free")));
        assert_eq!(Endpoint::at("models/acme/x"), None);
        assert_eq!(percent_decoded("a%zz%4"), "a%zz%4");
    }
}
