//! What can tests ask of the simulator that no client of OpenRouter could?

use aws_lc_rs::constant_time;
use http::{Method, request::Parts};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{catalogue::Query, refusal::Refusal, reply::Reply, rules::Rule, world::World};

/// `POST /__sim/script`: one rule, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Script {
    Several { rules: Vec<Rule> },
    List(Vec<Rule>),
    One(Rule),
}

/// Answers one request of the control plane, if it has the token.
pub fn answer(world: &World, path: &str, parts: &Parts, body: &[u8]) -> Result<Reply, Refusal> {
    let shown = parts.headers.get("x-sim-token").map(http::HeaderValue::as_bytes);
    let token = world.settings.control.as_deref().ok_or_else(Refusal::nothing_here)?;
    let same = |shown| constant_time::verify_slices_are_equal(shown, token.as_bytes()).is_ok();
    if !shown.is_some_and(same) {
        return Err(Refusal::new(401, "x-sim-token has to be the token that the simulator was started with"));
    }
    let query = Query::read(parts.uri.query().unwrap_or_default());
    let told = match (&parts.method, path) {
        (&Method::POST, "reset") => {
            world.reset();
            json!({ "reset": true })
        }
        (&Method::POST, "script") => {
            let script = serde_json::from_slice(body).map_err(|why| {
                Refusal::invalid(format!(
                    "this is no rule: {why}; one is {{\"match\": {{\"path\": …, \"model\": …, \"contains\": …, \
                     \"nth\": …}}, \"scenario\": …, \"params\": {{…}}}}"
                ))
            })?;
            let rules = match script {
                Script::Several { rules } | Script::List(rules) => rules,
                Script::One(rule) => vec![rule],
            };
            let mut queue = world.rules.lock().expect("no code panics while it holds this lock");
            json!({ "queued": queue.queue(rules)? })
        }
        (&Method::GET, "journal") => {
            let since = query.get("since").and_then(|id| id.parse().ok()).unwrap_or(0);
            json!({ "entries": world.journal.since(since) })
        }
        (&Method::POST, "clock/advance") => {
            let asked: Value = serde_json::from_slice(body).unwrap_or_default();
            let ms = asked["ms"].as_u64().ok_or_else(|| Refusal::invalid("say how much: {\"ms\": 60000}"))?;
            world.clock.advance(ms);
            json!({ "now_ms": world.clock.now() })
        }
        (&Method::GET, "stats") => json!(world.journal.stats()),
        (_, "reset" | "script" | "journal" | "clock/advance" | "stats") => {
            return Err(Refusal::new(405, "Method Not Allowed"));
        }
        _ => return Err(Refusal::nothing_here()),
    };
    Ok(Reply::json(&told))
}
