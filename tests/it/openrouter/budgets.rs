//! What may be spent, and when no is said: always before a model is asked.

use futures_util::future::join_all;
use serde_json::json;

use super::{Rig, answered, chat, code, refused};
use crate::support::Gateway;

/// What a short message may cost at the most, with the longest answer that is asked for where nobody says: 4,096 tokens
/// of acme/atlas-70b at 6 dollars a million.
const AT_MOST: f64 = 0.0246;

#[tokio::test(flavor = "multi_thread")]
async fn those_who_ask_at_once_cannot_spend_more_together() {
    let rig = Rig::new().await;
    let gateway = rig.gateway(&format!("daily_budget_usd = {}", 3.5 * AT_MOST)).await;
    let ask =
        |number| chat(&gateway, json!({ "message": format!("[[sim:slow-first ms=2000]] {number}") })).send();
    let all = join_all((0..8).map(ask)).await;
    let (refusals, answers): (Vec<_>, Vec<_>) =
        all.iter().partition(|answer| answer.result()["isError"] == true);
    assert_eq!((answers.len(), rig.asked().len()), (3, 3), "as many as there is room for");
    for answer in refusals {
        let why = refused(answer);
        assert_eq!((&why["code"], &why["retryable"]), (&json!("budget_exceeded"), &json!(false)), "{why}");
    }
    // They cost far less in the end, so there is room again.
    let after = answered(&ask(9).await);
    assert_eq!(after["status"], "completed");
    let report = answered(&gateway.call("chat__usage_report", json!({})).send().await);
    let total: f64 = report["total"]["cost_usd"].as_str().unwrap().parse().unwrap();
    assert!(total > 0.0 && total < AT_MOST, "{report}");
    assert_eq!(report["total"]["requests"], 4);
}

#[tokio::test]
async fn what_may_cost_too_much_is_not_sent() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let ask = |most: f64| chat(&gateway, json!({ "message": "hello", "max_cost_usd": most })).send();
    let why = refused(&ask(AT_MOST / 2.0).await);
    assert_eq!((&why["code"], rig.asked().len()), (&json!("budget_exceeded"), 0));
    answered(&ask(AT_MOST * 1.1).await);
    let short = json!({ "message": "hello", "max_cost_usd": AT_MOST / 2.0, "max_output_tokens": 100 });
    answered(&chat(&gateway, short).send().await);
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test]
async fn models_that_are_not_allowed_are_not_asked() {
    let rig = Rig::new().await;
    let gateway =
        rig.gateway("allow = [\"acme/*\"]\ndeny = [\"acme/atlas-8b\"]\nmax_output_price_per_m = 7.0").await;
    for (model, fallback, right) in [
        ("acme/atlas-70b", None, true),
        ("acme/atlas-8b", None, false),
        ("anthropic/claude-sonnet-4.6", None, false),
        ("acme/atlas-70b", Some("acme/atlas-8b"), false),
    ] {
        let mut arguments = json!({ "message": "hello", "model": model });
        if let Some(fallback) = fallback {
            arguments["fallback_models"] = json!([fallback]);
        }
        let answer = chat(&gateway, arguments).send().await;
        if right {
            answered(&answer);
        } else {
            assert_eq!(code(&answer), "model_not_allowed", "{model} {fallback:?}");
        }
    }
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test]
async fn the_gateways_own_limits_count_what_models_cost() {
    let rig = Rig::new().await;
    for (limit, name) in
        [("usd_per_day = 0.00004", "limit.usd_per_day"), ("tokens_per_day = 10", "limit.tokens_per_day")]
    {
        let gateway = Gateway::with(&format!("[limit]\n{limit}\n")).lines(&rig.tables("")).start().await;
        let ask = || {
            let arguments = json!({ "message": "hello", "idempotency_key": "the same" });
            chat(&gateway, arguments).send()
        };
        let cost: f64 = answered(&ask().await)["usage"]["cost_usd"].as_str().unwrap().parse().unwrap();
        assert!(cost > 0.00004, "{cost}");
        let before = rig.asked().len();
        let refused = chat(&gateway, json!({ "message": "once more" })).send().await;
        assert!(
            refused.status == 429 && refused.text().contains(name),
            "{} {}",
            refused.status,
            refused.text()
        );
        assert_eq!(rig.asked().len(), before);
    }
    // What is told again costs nothing.
    let gateway = Gateway::with("[limit]\nusd_per_day = 0.00015\n").lines(&rig.tables("")).start().await;
    for _ in 0..5 {
        let arguments = json!({ "message": "hello", "idempotency_key": "the same" });
        answered(&chat(&gateway, arguments).send().await);
    }
    answered(&chat(&gateway, json!({ "message": "another" })).send().await);
}
