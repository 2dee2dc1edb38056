//! What each key may do, and what it is told.

use super::*;

async fn with_key(rig: &Rig, key: &str, model: &str, cap: u64) -> Answer {
    let body = json!({ "model": model, "max_completion_tokens": cap, "messages": [{ "role": "user", "content": "x" }] });
    let headers = [("authorization", bearer(key))];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    rig.send("POST", "/api/v1/chat/completions", &headers, &body.to_string()).await
}

#[tokio::test]
async fn each_key_behaves_in_its_own_way() {
    let rig = Rig::new().await;
    for (key, status, words) in [
        ("sk-or-v1-sim", 200, "turn 1"),
        ("sk-or-v1-sim-mgmt", 403, "Management keys"),
        ("sk-or-v1-sim-nocredit", 402, "Insufficient credits"),
        ("sk-or-v1-sim-poor", 402, "You requested up to 301 tokens, but can only afford 300"),
        ("sk-or-v1-sim-budget", 402, "openrouter_in_flight_budget"),
        ("sk-or-v1-sim-budget", 200, "turn 1"),
        ("sk-or-v1-sim-daily", 429, "openrouter_free_tier_daily"),
        ("sk-or-v1-sim-disabled", 401, "disabled"),
        ("sk-or-v1-somebody", 401, "User not found"),
        ("", 401, "Missing Authentication header"),
    ] {
        let answer = with_key(&rig, key, MODEL, 301).await;
        assert_eq!(answer.status, status, "{key}: {}", answer.text());
        assert!(answer.text().contains(words), "{key}: {}", answer.text());
    }
    assert_eq!(with_key(&rig, "sk-or-v1-sim-poor", MODEL, 300).await.status, 200);
    let body = said("x", false).to_string();
    let none = rig.send("POST", "/api/v1/chat/completions", &[], &body).await;
    assert_eq!(none.json(), json!({ "error": { "message": "Missing Authentication header", "code": 401 } }));
}

#[tokio::test]
async fn spending_shows_in_key_credits_and_activity() {
    let rig = Rig::new().await;
    let manager = bearer("sk-or-v1-sim-mgmt");
    let told = async |path: &str| {
        rig.send("GET", &format!("/api/v1/{path}"), &[("authorization", &manager)], "").await
    };
    assert_eq!(rig.get("credits").await.status, 403);
    assert_eq!(rig.get("activity").await.status, 403);
    let before = rig.get("key").await.json();
    assert_eq!(before["data"]["limit_remaining"], 100.0);
    rig.whole("[[sim:words n=2000]]").await;
    let free = json!({ "model": "acme/atlas-8b:free", "messages": [{ "role": "user", "content": "x" }] });
    rig.chat(&free, &[]).await;
    let spent = rig.simulator.stats().cost.parse::<f64>().unwrap();
    let key = rig.get("key").await.json();
    assert_eq!(key["data"]["usage"].as_f64(), Some(spent));
    assert!((key["data"]["limit_remaining"].as_f64().unwrap() + spent - 100.0).abs() < 1e-9);
    assert_eq!(key["data"]["free_model_daily_requests"]["used"], 1);
    assert_eq!(told("credits").await.json()["data"]["total_usage"].as_f64(), Some(spent));
    let rows = told("activity").await.json();
    let models: Vec<_> = rows["data"].as_array().unwrap().iter().map(|row| row["model"].clone()).collect();
    assert_eq!(models, ["acme/atlas-70b", "acme/atlas-8b:free"]);
    assert_eq!(told("activity?date=2020-01-01").await.json(), json!({ "data": [] }));
}

#[tokio::test]
async fn free_models_are_limited_where_that_is_wanted() {
    let rig = Rig::with(Settings { enforce_limits: true, ..Settings::default() }).await;
    let mut seen = Vec::new();
    for _ in 0..21 {
        seen.push(with_key(&rig, KEY, "acme/atlas-8b:free", 10).await.status);
    }
    assert_eq!((seen.iter().filter(|status| **status == 200).count(), seen[20]), (20, 429));
    rig.control("POST", "clock/advance", &json!({ "ms": 61_000 })).await;
    assert_eq!(with_key(&rig, KEY, "acme/atlas-8b:free", 10).await.status, 200);
}

#[tokio::test]
async fn what_a_session_has_said_before_is_cheaper() {
    let rig = Rig::new().await;
    let mut body = said(&"long ".repeat(400), false);
    body["session_id"] = "s".into();
    let first = rig.chat(&body, &[]).await.json();
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    body["messages"].as_array_mut().unwrap().push(json!({ "role": "user", "content": "and?" }));
    let second = rig.chat(&body, &[]).await.json();
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], 504);
    let cost =
        |answer: &Value| answer["usage"]["cost_details"]["upstream_inference_prompt_cost"].as_f64().unwrap();
    assert!(cost(&second) < cost(&first) / 5.0, "{second}");
    let entry = rig.ended().await;
    assert_eq!(entry.session_id.as_deref(), Some("s"));
}
