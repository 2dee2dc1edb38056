//! Everything that can go wrong upstream, and what the caller of `chat` hears of it.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use waystation::simulator::SCENARIOS;

use super::{Rig, answered, chat, code, last_said, say};
use crate::support::{Answer, Gateway, UNLIMITED, battery::Battery, until};

/// How a turn ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// With the whole answer, and nothing to tell.
    Whole,
    /// With the whole answer, and a warning that has these words.
    Warned(&'static str),
    /// With a part of it, for this reason.
    Part(&'static str),
    /// With no answer, but this code.
    Refused(&'static str),
}

use End::{Part, Refused, Warned, Whole};

/// What is asked for, and how it ends. Where it says `times=1`, another try is worth it.
const FAULTS: &[(&str, End)] = &[
    ("429", Warned("trying again in 1.0 s")),
    ("429-nohdr", Refused("rate_limited")),
    ("429-nohdr times=1", Warned("trying again")),
    ("429-daily", Refused("rate_limited")),
    ("429-capacity", Refused("rate_limited")),
    ("429-capacity after=1 times=1", Warned("trying again in 1.0 s")),
    ("400-model", Refused("model_not_found")),
    ("404-noendpoint", Refused("model_unavailable")),
    ("400-context", Refused("context_too_large")),
    ("402", Refused("payment_required")),
    ("402-afford", Refused("payment_required")),
    ("402-afford times=1", Warned("can pay for 3527 tokens")),
    ("402-inflight", Warned("trying again in 1.0 s")),
    ("402-inflight times=9", Refused("payment_required")),
    ("403-moderation", Refused("content_blocked")),
    ("403-guardrail", Refused("content_blocked")),
    ("403-budget", Refused("payment_required")),
    ("408", Refused("upstream_timeout")),
    ("408 times=1", Warned("it took too long")),
    ("413", Refused("invalid_input")),
    ("422", Refused("invalid_input")),
    ("500", Refused("upstream_unavailable")),
    ("500 times=1", Warned("the provider failed")),
    ("502", Refused("upstream_unavailable")),
    ("502 times=1", Warned("the provider failed")),
    ("503", Refused("upstream_overloaded")),
    ("503 times=1", Warned("the provider is overloaded")),
    ("504", Refused("upstream_timeout")),
    ("504 times=1", Warned("it took too long")),
    ("524", Refused("upstream_timeout")),
    ("529", Refused("upstream_overloaded")),
    ("529 times=1", Warned("the provider is overloaded")),
    ("html-502", Refused("upstream_protocol")),
    ("html-502 times=1", Warned("was not understood")),
    ("ok-error", Refused("upstream_unavailable")),
    ("ok-error times=1", Warned("the provider failed")),
    ("choice-error", Part("upstream_error")),
    ("bad-json", Refused("upstream_protocol")),
    ("bad-json times=1", Warned("was not understood")),
    ("empty-body", Refused("upstream_protocol")),
    ("wrong-type", Refused("upstream_protocol")),
    ("huge-body", Refused("upstream_protocol")),
    ("slow-headers ms=300", Whole),
    ("slow-first ms=300", Whole),
    ("slow-tokens ms=30", Whole),
    ("midstream after=5", Part("upstream_error")),
    ("midstream after=0", Refused("upstream_unavailable")),
    ("midstream after=0 times=1", Warned("the provider failed")),
    ("midstream after=2 code=529 type=provider_overloaded", Part("upstream_error")),
    ("midstream-string", Part("upstream_error")),
    ("midstream-bare", Part("upstream_error")),
    ("truncate after=4", Part("stream_truncated")),
    ("truncate after=0", Refused("upstream_unavailable")),
    ("truncate after=0 times=1", Warned("the provider failed")),
    ("truncate-tool", Part("stream_truncated")),
    ("truncate-utf8", Part("stream_truncated")),
    ("reset", Part("upstream_error")),
    ("reset after=0", Refused("upstream_unavailable")),
    ("bad-chunk", Part("upstream_error")),
    ("no-done", Whole),
    ("no-usage", Whole),
    ("usage-empty", Whole),
    ("double-usage", Whole),
    ("late-usage", Whole),
    ("empty", Refused("empty_answer")),
    ("empty times=1", Warned("gave an empty answer")),
    ("empty-reasoning", Refused("empty_answer")),
    ("empty-reasoning times=1", Warned("spent on reasoning")),
    ("null-content", Refused("empty_answer")),
    ("length", Part("length")),
    ("content-filter", Part("content_filter")),
    ("refusal", Refused("content_blocked")),
    ("tool-garbage", Whole),
    ("dup-role", Whole),
    ("reorder-index", Whole),
    ("unknown-fields", Whole),
    ("null-everything", Whole),
    ("debug-chunk", Whole),
    ("crlf", Whole),
    ("split", Whole),
    ("multi", Whole),
    ("pad", Whole),
    ("flaky p=0", Whole),
];

/// Those that end only because somebody loses patience.
const STALLS: &[(&str, End)] = &[
    ("slow-headers ms=60000", Refused("upstream_timeout")),
    ("slow-first ms=60000", Refused("upstream_timeout")),
    ("stall", Part("timeout")),
    ("stall comments=off", Part("timeout")),
    ("stall after=0 comments=off", Refused("upstream_timeout")),
    ("slow-tokens ms=700", Part("timeout")),
];

/// What a turn that ended so is to say, besides.
fn held(end: End, answer: &Answer) -> Result<(), String> {
    let result = answer.result();
    let said = &result["structuredContent"];
    let text = said["text"].as_str().unwrap_or_default();
    let warnings = said["warnings"].to_string();
    let is = |held: bool, what: &str| if held { Ok(()) } else { Err(what.to_owned()) };
    if let Refused(wanted) = end {
        is(result["isError"] == true && code(answer) == wanted, "another end")?;
        let meta = &result["_meta"]["io.waystation/error"];
        is(meta["turn_id"].is_string() && meta["conversation_id"].is_string(), "no turn")?;
        return is(meta["retryable"].is_boolean() && !answer.text().contains("sk-or-v1"), "a secret");
    }
    is(result["isError"] != true, "an error")?;
    let cost: f64 = said["usage"]["cost_usd"].as_str().unwrap_or_default().parse().unwrap_or_default();
    is(cost > 0.0, "what came was for nothing")?;
    is(!said["generation_id"].is_null() && said["model_used"] == "acme/atlas-70b", "nobody answered")?;
    is(result["content"][0]["text"] == text, "another text is shown")?;
    match end {
        Part(reason) => is(said["status"] == "incomplete" && said["incomplete_reason"] == reason, "reason"),
        Whole | Warned(_) => {
            is(said["status"] == "completed" && said["incomplete_reason"].is_null(), "not completed")?;
            let words = if let Warned(words) = end { words } else { "[]" };
            is(warnings.contains(words), "other warnings")?;
            let is_whole = text.starts_with("[acme/atlas-70b] turn 1: ") && text.ends_with(')');
            is(is_whole || said["tool_calls"].is_array(), "not the whole text")
        }
        Refused(_) => Ok(()),
    }
}

async fn run(rig: &Rig, gateway: &Gateway, battery: &Battery, rows: &[(&str, End)]) {
    let turns = rows.iter().map(async |(scenario, end)| {
        let message = format!("[[sim:{scenario}]] hello");
        let answer = chat(gateway, json!({ "message": message })).send().await;
        let held = held(*end, &answer);
        battery.row(*scenario, held.is_ok(), (held, end, answer.response()));
        let result = answer.result();
        let ids = [&result["structuredContent"], &result["_meta"]["io.waystation/error"]];
        let id = ids.into_iter().find_map(|ids| ids["conversation_id"].as_str()).unwrap_or_default();
        // What came to nothing is not told to the model again; what was cut short is.
        let next = chat(gateway, json!({ "conversation_id": id, "message": "and now?" })).send().await;
        let turn = if matches!(end, Refused(_)) { "turn 1:" } else { "turn 2:" };
        let text = next.result()["structuredContent"]["text"].as_str().unwrap_or_default().to_owned();
        battery.row(format!("{scenario}: after it"), text.contains(turn), (text, next.response()));
    });
    stream::iter(turns).buffer_unordered(6).collect::<Vec<()>>().await;
    until("nothing is under way", || rig.simulator.stats().under_way == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_ends_as_it_should() {
    let rig = Rig::new().await;
    let lines = "retry = { breaker_failures = 0, retries = 1, max_wait = \"1500ms\" }\n";
    let toml = rig.tables("").replace("retry = { breaker_failures = 0 }\n", lines);
    let toml = toml.replace("\" }\nretry", "\", max_body = \"8MiB\" }\nretry");
    let gateway = Gateway::with(UNLIMITED).lines(&toml).start().await;
    let battery = Battery::new("chat-faults");
    run(&rig, &gateway, &battery, FAULTS).await;
    let toml = toml.replace(
        "max_body = \"8MiB\"",
        "headers_timeout = \"1s\", first_token_timeout = \"1s\", idle_timeout = \"2s\", total_timeout = \"5s\"",
    );
    let gateway = Gateway::with(UNLIMITED).lines(&toml).start().await;
    run(&rig, &gateway, &battery, STALLS).await;
    let all: BTreeSet<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
    let tried = FAULTS.iter().chain(STALLS).map(|(row, _)| row.split(' ').next().unwrap());
    assert_eq!(tried.collect::<BTreeSet<_>>(), all, "every scenario there is");
    battery.end(2 * (FAULTS.len() + STALLS.len()));
}

#[tokio::test]
async fn nobody_at_the_other_end() {
    let rig = Rig::new().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let plain = rig.simulator.address();
    for base in [format!("http://{closed}/api/v1"), format!("https://{plain}/api/v1")] {
        let toml = super::tables(&base, &rig.folder.path().join("key"), "");
        let gateway = Gateway::with(UNLIMITED).lines(&toml).start().await;
        let answer = chat(&gateway, json!({ "message": "hello" })).send().await;
        assert_eq!(code(&answer), "upstream_unavailable", "{base}");
        assert!(!answer.text().contains(&base), "addresses are the operator's: {}", answer.text());
    }
}

#[tokio::test]
async fn a_model_that_fails_before_its_first_word_is_replaced_by_the_next() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let arguments =
        json!({ "message": "hello", "model": "sim/404-noendpoint", "fallback_models": ["acme/atlas-8b"] });
    let said = answered(&chat(&gateway, arguments).send().await);
    assert_eq!(
        (&said["model_used"], &said["model_requested"]),
        (&json!("acme/atlas-8b"), &json!("sim/404-noendpoint"))
    );
    assert!(said["warnings"][0].as_str().unwrap().starts_with("fell back"), "{said}");
    // After the first word nobody else is asked.
    let arguments =
        json!({ "message": "hi", "model": "sim/midstream", "fallback_models": ["acme/atlas-8b"] });
    let said = answered(&chat(&gateway, arguments).send().await);
    assert_eq!((&said["status"], rig.asked_about("hi").len()), (&json!("incomplete"), 1));
}

#[tokio::test]
async fn an_answer_that_was_cut_off_goes_on() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let whole = say(&gateway, None, "[[sim:words n=120]]").await;
    let cut = json!({ "message": "[[sim:words n=120]]", "max_output_tokens": 50 });
    let said = answered(&chat(&gateway, cut.clone()).send().await);
    assert_eq!((&said["text"], &said["status"]), (&whole["text"], &json!("completed")), "{said}");
    assert!(said["continuations"].as_u64().unwrap() >= 1);
    let before = rig.asked().len();
    let mut alone = cut;
    alone["auto_continue"] = false.into();
    let said = answered(&chat(&gateway, alone).send().await);
    assert_eq!((&said["incomplete_reason"], rig.asked().len() - before), (&json!("length"), 1));
    assert!(whole["text"].as_str().unwrap().starts_with(said["text"].as_str().unwrap()));
}

#[tokio::test]
async fn what_was_paid_for_in_vain_is_counted_once() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let said = say(&gateway, None, "[[sim:empty-reasoning times=1]] hello").await;
    let asked = rig.asked();
    assert_eq!(asked.len(), 2);
    let sum: f64 = asked.iter().map(|entry| entry.cost.parse::<f64>().unwrap()).sum();
    let told: f64 = said["usage"]["cost_usd"].as_str().unwrap().parse().unwrap();
    assert!((told - sum).abs() < 1e-9 && told > 0.0, "{told} {sum}");
    let report = gateway.call("chat__usage_report", json!({})).send().await;
    let total = answered(&report)["total"]["cost_usd"].as_str().unwrap().parse::<f64>().unwrap();
    assert!((total - sum).abs() < 1e-9, "{total} {sum}");
    assert!(last_said(&asked[1]).contains("hello"));
}
