//! How is a chat answered?
//!
//! `[[sim:recall]]`, `[[sim:system]]`, `[[sim:len]]`, `[[sim:words n=500]]`, `[[sim:say text="…"]]` and
//! `[[sim:json {…}]]` in the last message of the user shape the answer; see `compose.rs`.

use std::sync::Arc;

use serde_json::{Value, json};

mod again; //   answers that are given again
mod ask; //     what is asked
mod compose; // what is answered
mod media; //   pictures, files and sounds in messages
mod schema; //  values that a JSON Schema allows
mod script; //  the events of a stream
mod vote; //    how models vote
mod whole; //   an answer in one piece

pub use self::again::Kept;
use self::{again::Again, ask::Ask, compose::compose, script::Script};
use super::{
    account::Holder,
    bill::Bill,
    catalogue::{Model, PROVIDERS},
    play::Watch,
    refusal::Refusal,
    reply::Reply,
    route::Asked,
    scenario::Scenario,
    world::World,
};

/// What an answer may have if nobody says how long it may be.
const USUAL_OUTPUT: u64 = 65_536;
/// Windows up to this are made to fit without being asked.
const SMALL_WINDOW: u64 = 8192;

/// How many tokens a text counts as.
pub fn tokens(text: &str) -> u64 {
    u64::try_from(text.len().div_ceil(4)).unwrap_or(u64::MAX)
}

/// The text of a message's content, which is a text or a list of parts.
pub fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// The last message of the user, in whatever has messages.
pub fn last_said(body: &Value) -> String {
    let mut messages = body["messages"].as_array().into_iter().flatten().rev();
    let last = messages.find(|message| message["role"] == "user");
    last.map_or_else(
        || body["prompt"].as_str().unwrap_or_default().to_owned(),
        |message| text_of(&message["content"]),
    )
}

/// How many tokens a request's text and its tools are, as far as it can be read.
pub fn estimate(body: &Value) -> (u64, u64) {
    Ask::read(body).map_or((0, 0), |ask| (ask.text_tokens(), ask.tool_tokens))
}

/// Answers `POST /chat/completions`.
pub async fn answer(
    watch: &mut Watch,
    asked: &Asked<'_>,
    body: &Value,
    holder: Holder,
    scenario: Option<&Scenario>,
) -> Result<Reply, Refusal> {
    let world = Arc::clone(watch.world());
    let mut ask = Ask::read(body)?;
    let model = chosen(&world, &ask)?;
    fit(&mut ask, &model)?;
    let now = world.clock.now();
    let most = ask.cap.or(model.max_output).unwrap_or(USUAL_OUTPUT);
    world.account().admit(holder, &model, most, now, world.settings.enforce_limits)?;
    let again = Again::of(asked, body, holder, &world);
    let earlier = again.as_ref().and_then(|again| again.earlier.clone());
    let composed = match &earlier {
        Some(kept) => kept.answer.clone(),
        None => compose(&world, &ask, &model, scenario),
    };
    let about = asked.about(body, "completions");
    let (cached, written) = prompt_cache(&world, &ask, &model, about.session.as_deref());
    let fails = scenario.is_some_and(|scenario| whole::fails(scenario.name));
    let (finish, native_finish) =
        if fails { ("error", "error") } else { (composed.finish, composed.native_finish) };
    let bill = Bill {
        holder,
        id: world.generation_id(),
        prompt: ask.prompt(),
        cached,
        written,
        source: earlier.map(|kept| kept.id),
        searches: u64::from(ask.search),
        pictures: u64::try_from(composed.pictures.len()).unwrap_or(0),
        completion: composed.tokens(),
        reasoning: u64::try_from(composed.reasoning.len()).unwrap_or(0),
        finish,
        native_finish,
        streamed: ask.stream,
        begun_ms: now,
        about,
        model: model.clone(),
    };
    let usage = bill.usage();
    let echo = scenario.is_some_and(|scenario| scenario.name == "debug-chunk") || ask.echo;
    let id = bill.id.clone();
    let script = Script {
        id: &id,
        model: &model.id,
        provider: model.provider().name,
        created: now / 1000,
        answer: &composed,
        usage: &usage,
        metadata: wants_metadata(asked).then(|| metadata(&ask, &model)),
        echo: echo.then(|| body.clone()),
        hides_reasoning: ask.hides_reasoning,
        scenario,
        ttft: world.settings.ttft,
        per_token: world.settings.per_token,
    };
    if let Some(again) = again.as_ref().filter(|again| again.earlier.is_none() && scenario.is_none()) {
        again.keep(&world, &composed, &id);
    }
    watch.charge(bill);
    let mut reply = reply(&script, ask.stream, composed.tokens(), scenario).await;
    reply.headers.extend(again.iter().flat_map(|again| again.headers(now)));
    Ok(reply.header("x-generation-id", id))
}

/// The answer piece by piece, or as a whole when a model would have written so many tokens.
async fn reply(script: &Script<'_>, streamed: bool, tokens: u64, scenario: Option<&Scenario>) -> Reply {
    if streamed {
        return Reply::events(script::framed(script.steps(), scenario.map_or("", |scenario| scenario.name)));
    }
    let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
    let slow = |name: &str, usual| {
        let scenario = scenario.filter(|scenario| scenario.name == name);
        scenario.map(|scenario| std::time::Duration::from_millis(scenario.number("ms", usual)))
    };
    let first = slow("slow-first", 1000).unwrap_or(script.ttft);
    let each = slow("slow-tokens", 100).unwrap_or(script.per_token);
    tokio::time::sleep(first + each * tokens).await;
    script.whole()
}

/// The first model of those that were named that can be had, at a provider that is wanted.
fn chosen(world: &World, ask: &Ask) -> Result<Model, Refusal> {
    let mut no = Refusal::invalid("model is missing");
    for id in &ask.candidates {
        let found = world
            .catalogue
            .find(id)
            .filter(|model| model.outputs.iter().any(|output| ["text", "image"].contains(output)));
        let Some(mut model) = found else {
            no = Refusal::unknown_model(id);
            continue;
        };
        if model.id.starts_with("openrouter/") {
            let choice = if model.id == "openrouter/free" { "acme/atlas-8b:free" } else { "acme/atlas-70b" };
            model = world.catalogue.find(choice).unwrap_or(model);
        }
        model.providers = providers(&model, &ask.provider);
        if !model.providers.is_empty() {
            return Ok(model);
        }
        no = Refusal::no_endpoints(id);
    }
    Err(no)
}

/// The providers of a model that a request lets in, in its order.
fn providers(model: &Model, wanted: &Value) -> Vec<usize> {
    let named = |list: &Value, index: usize| {
        let provider = &PROVIDERS[index];
        let is_it =
            |name: &str| name.eq_ignore_ascii_case(provider.slug) || name.eq_ignore_ascii_case(provider.name);
        list.as_array().into_iter().flatten().filter_map(Value::as_str).position(is_it)
    };
    let mut providers = model.providers.clone();
    providers.retain(|index| named(&wanted["ignore"], *index).is_none());
    providers.retain(|index| !wanted["only"].is_array() || named(&wanted["only"], *index).is_some());
    providers.retain(|index| wanted["zdr"] != true || PROVIDERS[*index].zdr);
    if wanted["allow_fallbacks"] == false && wanted["order"].is_array() {
        providers.retain(|index| named(&wanted["order"], *index).is_some());
    }
    providers.sort_by_key(|index| named(&wanted["order"], *index).unwrap_or(usize::MAX));
    let too_dear =
        |name: &str, price: f64| wanted["max_price"][name].as_f64().is_some_and(|most| price > most);
    let prices = model.prices();
    if too_dear("prompt", prices.prompt.per_million())
        || too_dear("completion", prices.completion.per_million())
    {
        providers.clear();
    }
    providers
}

/// Refuses what is longer than the model's window, or leaves out its middle where that is wanted.
fn fit(ask: &mut Ask, model: &Model) -> Result<(), Refusal> {
    let window = model.limit();
    let output = ask.cap.unwrap_or(0);
    let compress = ask.compress.unwrap_or(window <= SMALL_WINDOW);
    while compress && ask.prompt() + output > window && ask.messages.len() > 2 {
        ask.messages.remove(ask.messages.len() / 2);
    }
    if ask.prompt() + output > window {
        return Err(Refusal::too_long(window, ask.text_tokens(), ask.tool_tokens, output));
    }
    Ok(())
}

/// How many tokens of the prompt were read from the provider's cache, and how many written to it. Some providers
/// do neither unless they are told to, and are paid for writing.
fn prompt_cache(world: &World, ask: &Ask, model: &Model, session: Option<&str>) -> (u64, u64) {
    if !model.caches_on_demand() {
        return (session.map_or(0, |session| known(world, ask, session)), 0);
    }
    if !ask.keeps_prompt {
        return (0, 0);
    }
    let cached = session.map_or(0, |session| known(world, ask, session));
    (cached, ask.prompt() - cached)
}

/// How many tokens of the prompt were in the session's last request, too.
fn known(world: &World, ask: &Ask, session: &str) -> u64 {
    let fingerprints = ask.messages.iter().map(|message| message.fingerprint).collect();
    let known = world.known_messages(session, fingerprints);
    ask.messages.iter().take(known).map(|message| message.tokens).sum()
}

fn wants_metadata(asked: &Asked<'_>) -> bool {
    ["x-openrouter-metadata", "x-openrouter-experimental-metadata"]
        .iter()
        .any(|name| asked.header(name) == Some("enabled"))
}

fn metadata(ask: &Ask, model: &Model) -> Value {
    let endpoints = model.providers.iter().enumerate().map(
        |(at, index)| json!({ "provider": PROVIDERS[*index].name, "model": model.id, "selected": at == 0 }),
    );
    let count = model.providers.len();
    json!({
        "requested": ask.candidates.first(),
        "strategy": "direct",
        "region": "iad",
        "summary": format!("available={count}, selected={}", model.provider().name),
        "attempt": 1,
        "is_byok": false,
        "endpoints": { "total": count, "available": endpoints.collect::<Vec<_>>() },
    })
}
