//! What is answered instead of an answer?

use std::iter;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{chat, play::Step, refusal::Refusal, reply::Reply, scenario::Scenario, world::World};

const HTML: &str = "<!DOCTYPE html>\n<html lang=\"en-US\">\n<head><title>openrouter.ai | 502: Bad gateway</title></head>\n\
    <body><div id=\"cf-wrapper\"><h1>Bad gateway <span>Error code 502</span></h1>\n\
    <p>The web server reported a bad gateway error.</p></div></body>\n</html>\n";

const MEBIBYTE: usize = 1 << 20;

/// The answer that a scenario has before anything is generated; None if it is about what is generated.
pub fn instead(scenario: &Scenario, world: &World, body: &Value) -> Option<Reply> {
    let model = body["model"].as_str().unwrap_or("acme/atlas-70b");
    if let Some(no) = refusal(scenario, world, body, model) {
        return Some(no.into());
    }
    Some(match scenario.name {
        "html-502" => Reply::text(502, "text/html; charset=UTF-8", HTML),
        "ok-error" => {
            let no = Refusal::upstream(502, "upstream connect error", "provider_unavailable", "Acme Cloud");
            Reply::json(&no.body)
        }
        "bad-json" => Reply::text(200, "application/json", "{\"id\":\"gen-1\",\"choices\":[{\"index\":0,"),
        "empty-body" => Reply::text(200, "application/json", ""),
        "wrong-type" => Reply::text(200, "text/plain; charset=utf-8", "upstream says hello"),
        "huge-body" => huge(),
        _ => return None,
    })
}

/// 64 MiB that would even be JSON.
fn huge() -> Reply {
    let mut reply = Reply::text(200, "application/json", "{\"id\":\"gen-1\",\"filler\":\"");
    let filler = Bytes::from(vec![b'x'; MEBIBYTE]);
    reply.steps.extend(iter::repeat_n(Step::Send(filler, 0), 64));
    reply.steps.push(Step::Send(Bytes::from_static(b"\"}"), 0));
    reply
}

fn refusal(scenario: &Scenario, world: &World, body: &Value, model: &str) -> Option<Refusal> {
    let provider = world.catalogue.find(model).map_or("Acme Cloud", |model| model.provider().name);
    let after = scenario.number("after", 1);
    let midnight = (world.clock.now() / 86_400_000 + 1) * 86_400_000;
    let upstream = |status, raw, kind| Refusal::upstream(status, raw, kind, provider);
    Some(match scenario.name {
        "429" => Refusal::shared_pool(model, provider).after(after),
        "429-nohdr" => Refusal::shared_pool(model, provider),
        "429-daily" => Refusal::daily_quota(50, midnight),
        "429-capacity" => Refusal::capacity(model, scenario.number("after", 2)),
        "400-model" => Refusal::unknown_model(model),
        "404-noendpoint" => Refusal::no_endpoints(model),
        "400-context" => {
            let window = world.catalogue.find(model).map_or(131_072, |model| model.limit());
            let (text, tools) = chat::estimate(body);
            let cap = body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64());
            let least = (window + 1).saturating_sub(text + tools);
            Refusal::too_long(window, text, tools, cap.unwrap_or(0).max(least))
        }
        "402" => Refusal::no_credit(),
        "402-afford" => {
            let asked = body["max_completion_tokens"].as_u64().or_else(|| body["max_tokens"].as_u64());
            Refusal::cannot_afford(asked.unwrap_or(65_536), scenario.number("tokens", 3919))
        }
        "402-inflight" => Refusal::in_flight(),
        "403-moderation" => forbidden(
            "Your input was flagged",
            &json!({
                "reasons": ["violence"],
                "flagged_input": "some text...cut in the middle",
                "provider_name": provider,
                "model_slug": model,
            }),
        ),
        "403-guardrail" => forbidden(
            "Request blocked by a guardrail of your organization",
            &json!({
                "patterns": ["credit-card"],
                "provider_name": null,
            }),
        ),
        "403-budget" => forbidden(
            "Key limit exceeded (monthly limit)",
            &json!({
                "limit_source": "openrouter_key_limit",
                "limit_usd": 100,
                "spend_usd": 100,
                "resets_at": super::clock::next_month(world.clock.now()),
                "provider_name": null,
            }),
        ),
        "408" => upstream(408, "request timed out", "timeout"),
        "413" => upstream(413, "request entity too large", "payload_too_large"),
        "422" => upstream(422, "unprocessable entity", "unprocessable"),
        "500" => Refusal::new(500, "Internal Server Error").with(json!({ "error_type": "server" })).of_user(),
        "502" => upstream(502, "upstream connect error", "provider_unavailable"),
        "503" => upstream(503, "no healthy upstream", "provider_unavailable").after(1),
        "504" => upstream(504, "upstream request timeout", "timeout"),
        "524" => upstream(524, "a timeout occurred", "timeout"),
        "529" => upstream(529, "overloaded", "provider_overloaded"),
        _ => return None,
    })
}

fn forbidden(message: &str, metadata: &Value) -> Refusal {
    let mut metadata = metadata.clone();
    metadata["error_type"] = "permission_denied".into();
    Refusal::new(403, message).with(metadata)
}
