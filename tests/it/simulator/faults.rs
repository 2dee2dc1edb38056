//! Every fault, as it looks on the wire.

use std::collections::BTreeSet;

use waystation::simulator::SCENARIOS;

use super::*;

/// The scenarios that are looked at below, each in a test of its own kind.
#[tokio::test]
async fn no_scenario_is_left_out() {
    let text = include_str!("faults.rs");
    let missing: Vec<_> = SCENARIOS
        .iter()
        .filter(|(name, _)| !text.contains(&format!("{name}\"")) && !text.contains(&format!("sim:{name}")))
        .collect();
    assert!(SCENARIOS.len() > 55 && missing.is_empty(), "{missing:?}");
    let rig = Rig::new().await;
    for (name, _) in SCENARIOS.iter().filter(|(name, _)| !matches!(*name, "stall" | "huge-body")) {
        let answer = rig
            .chat(
                &json!({ "model": format!("sim/{name}"), "messages": [{ "role": "user", "content": "x" }] }),
                &[],
            )
            .await;
        assert!(answer.status >= 200, "{name}");
        assert!(*name == "flaky" || rig.last().scenario.as_deref() == Some(*name), "{name}");
    }
}

/// Scenario, status, what is in `error` by pointer, and headers.
type Row = (&'static str, u16, Vec<(&'static str, Value)>, Vec<(&'static str, &'static str)>);

/// Status, what is in `error` by pointer, and headers.
#[track_caller]
fn check(answer: &Answer, status: u16, error: &[(&str, Value)], headers: &[(&str, &str)]) {
    let body = answer.json();
    assert_eq!((answer.status, &body["error"]["code"]), (status, &json!(status)), "{body}");
    for (pointer, expected) in error {
        assert_eq!(body["error"].pointer(pointer), Some(expected), "{body}");
    }
    for (name, expected) in headers {
        assert_eq!(answer.header(name), Some(*expected), "{name} of {}", answer.head);
    }
}

#[tokio::test]
async fn refusals_have_openrouters_words() {
    let rig = Rig::new().await;
    let source = |name: &str| ("/metadata/limit_source", json!(name));
    let kind = |name: &str| ("/metadata/error_type", json!(name));
    let message = |text: &str| ("/message", json!(text));
    let rows: Vec<Row> = vec![
        (
            "429 after=7",
            429,
            vec![source("upstream_provider_shared_pool"), ("/metadata/provider_name", json!("Acme Cloud"))],
            vec![("retry-after", "7")],
        ),
        ("429-nohdr", 429, vec![kind("rate_limit_exceeded")], vec![]),
        (
            "429-daily",
            429,
            vec![source("openrouter_free_tier_daily"), ("/metadata/headers/X-RateLimit-Limit", json!("50"))],
            vec![("x-ratelimit-remaining", "0")],
        ),
        (
            "429-capacity",
            429,
            vec![
                ("/availability/retry_after", json!(2)),
                ("/availability/fallback_models", json!(["acme/atlas-8b"])),
                ("/error_type", json!("rate_limit_exceeded")),
            ],
            vec![],
        ),
        ("400-model", 400, vec![message("acme/atlas-70b is not a valid model ID")], vec![]),
        ("404-noendpoint", 404, vec![message("No endpoints found for acme/atlas-70b.")], vec![]),
        ("400-context", 400, vec![kind("context_length_exceeded")], vec![]),
        ("402", 402, vec![kind("payment_required")], vec![]),
        ("402-afford tokens=77", 402, vec![kind("payment_required")], vec![]),
        ("402-inflight", 402, vec![source("openrouter_in_flight_budget")], vec![("retry-after", "1")]),
        (
            "403-moderation",
            403,
            vec![("/metadata/reasons", json!(["violence"])), ("/metadata/model_slug", json!(MODEL))],
            vec![],
        ),
        ("403-guardrail", 403, vec![("/metadata/patterns", json!(["credit-card"]))], vec![]),
        (
            "403-budget",
            403,
            vec![source("openrouter_key_limit"), ("/metadata/spend_usd", json!(100))],
            vec![],
        ),
        ("408", 408, vec![kind("timeout")], vec![]),
        ("413", 413, vec![kind("payload_too_large")], vec![]),
        ("422", 422, vec![kind("unprocessable")], vec![]),
        ("500", 500, vec![kind("server")], vec![]),
        ("502", 502, vec![kind("provider_unavailable"), message("Provider returned error")], vec![]),
        ("503", 503, vec![kind("provider_unavailable")], vec![("retry-after", "1")]),
        ("504", 504, vec![kind("timeout")], vec![]),
        ("524", 524, vec![kind("timeout")], vec![]),
        ("529", 529, vec![kind("provider_overloaded")], vec![]),
    ];
    for (scenario, status, error, headers) in rows {
        check(&rig.stream(&format!("[[sim:{scenario}]]")).await, status, &error, &headers);
        let entry = rig.ended().await;
        assert!(!entry.billed && entry.cost == "0" && entry.status == status, "{entry:?}");
    }
    let no = rig.stream("[[sim:429-nohdr]]").await;
    assert_eq!(no.header("retry-after"), None);
    let text = rig.whole("[[sim:400-context]]").await.text();
    assert!(text.contains("maximum context length is 262144 tokens. However, you requested about 262145 tokens (12 of text input, 0 of tool input, 262133 in the output)"), "{text}");
    assert!(
        rig.whole("[[sim:402-afford tokens=77]]")
            .await
            .text()
            .contains("up to 65536 tokens, but can only afford 77.")
    );
}

#[tokio::test]
async fn some_refusals_end_after_some_tries() {
    let rig = Rig::new().await;
    let statuses = async |text: &str| {
        [rig.whole(text).await.status, rig.whole(text).await.status, rig.whole(text).await.status]
    };
    assert_eq!(statuses("[[sim:429]]").await, [429, 200, 429]);
    assert_eq!(statuses("[[sim:402-inflight]]").await, [402, 200, 402]);
    assert_eq!(statuses("[[sim:502 times=2]]").await, [502, 502, 200]);
    assert_eq!(statuses("[[sim:500]]").await, [500, 500, 500]);
}

#[tokio::test]
async fn bodies_are_broken_as_they_should_be() {
    let rig = Rig::new().await;
    let html = rig.stream("[[sim:html-502]]").await;
    assert_eq!((html.status, html.header("content-type")), (502, Some("text/html; charset=utf-8")));
    let error = rig.stream("[[sim:ok-error]]").await;
    assert_eq!((error.status, error.json()["error"]["code"].as_u64()), (200, Some(502)));
    let bad = rig.whole("[[sim:bad-json]]").await;
    assert!(bad.status == 200 && serde_json::from_slice::<Value>(&bad.body).is_err());
    let empty = rig.whole("[[sim:empty-body]]").await;
    assert_eq!((empty.status, empty.body.len(), empty.header("content-length")), (200, 0, Some("0")));
    let plain = rig.whole("[[sim:wrong-type]]").await;
    assert_eq!((plain.status, plain.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    let huge = rig.whole("[[sim:huge-body]]").await;
    assert!(huge.end.is_ok() && huge.body.len() > 64 << 20, "{}", huge.body.len());
    let choice = rig.whole("[[sim:choice-error]]").await.json();
    assert_eq!(choice["choices"][0]["error"]["code"], 502);
    assert_eq!(choice["choices"][0]["finish_reason"], "error");
    assert!(!choice["choices"][0]["message"]["content"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn streams_fail_in_the_middle() {
    let rig = Rig::new().await;
    let failed = rig.stream("[[sim:midstream after=2 code=503 type=provider_overloaded]]").await;
    let events = failed.events();
    assert_eq!(events.len(), 3);
    let last = events.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "error");
    assert_eq!(
        (&last["error"]["code"], &last["error"]["metadata"]["error_type"]),
        (&json!(503), &json!("provider_overloaded"))
    );
    assert!(failed.end.is_ok() && !failed.text().contains("[DONE]"));
    // What came before is paid for, and a stream of nothing is not.
    assert!(rig.ended().await.billed);
    rig.stream("[[sim:midstream after=0]]").await;
    assert!(!rig.ended().await.billed);
    let text = rig.stream("[[sim:midstream-string]]").await.events().pop().unwrap();
    assert_eq!(text["error"]["code"], "server_error");
    let bare = rig.stream("[[sim:midstream-bare]]").await.events().pop().unwrap();
    assert_eq!(bare.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
    let bad = rig.stream("[[sim:bad-chunk after=2]]").await;
    assert_eq!(bad.data().len(), bad.events().len() + 2, "all but one event and [DONE] are JSON");
    assert!(
        serde_json::from_str::<Value>(&bad.data()[2]).is_err() && bad.text().ends_with("data: [DONE]\n\n")
    );
}

#[tokio::test]
async fn streams_end_too_soon() {
    let rig = Rig::new().await;
    let cut = rig.stream("[[sim:truncate after=4]]").await;
    assert!(cut.end.is_ok(), "HTTP ends as it should: {:?}", cut.end);
    assert_eq!(cut.events().len(), 4);
    assert!(
        cut.events()
            .iter()
            .all(|event| event["choices"][0]["finish_reason"].is_null() && event.get("usage").is_none())
    );
    assert!(!cut.text().contains("[DONE]"));
    let entry = rig.ended().await;
    assert!(entry.billed && entry.done_at.is_some() && entry.client_gone_at.is_none());
    let tool = rig.stream("[[sim:truncate-tool]]").await;
    let arguments: String = tool
        .events()
        .iter()
        .filter_map(|event| {
            event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str().map(str::to_owned)
        })
        .collect();
    assert!(!arguments.is_empty() && serde_json::from_str::<Value>(&arguments).is_err(), "{arguments}");
    let letter = rig.stream("[[sim:truncate-utf8 after=1]]").await;
    let error = std::str::from_utf8(&letter.body).unwrap_err();
    assert_eq!(
        (error.error_len(), error.valid_up_to() + 1),
        (None, letter.body.len()),
        "one byte of a letter is there"
    );
    assert!(letter.end.is_ok());
}

#[tokio::test]
async fn connections_break() {
    let rig = Rig::new().await;
    let broken = rig.stream("[[sim:reset after=2]]").await;
    assert_eq!(broken.events().len(), 2, "what was said before the reset arrives");
    assert_eq!(broken.end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(rig.ended().await.done_at.is_some());
    let whole = rig.whole("[[sim:reset]]").await;
    assert!(whole.end.is_err());
}

#[tokio::test]
async fn tails_differ() {
    let rig = Rig::new().await;
    let usages = |answer: &Answer| answer.events().iter().filter(|event| event["usage"].is_object()).count();
    let dones = |answer: &Answer| answer.text().matches("data: [DONE]").count();
    let plain = rig.stream("x").await;
    assert_eq!((usages(&plain), dones(&plain)), (1, 1));
    for (scenario, usage, done) in [
        ("no-done", 1, 0),
        ("no-usage", 0, 1),
        ("usage-empty", 1, 1),
        ("double-usage", 2, 1),
        ("late-usage", 1, 1),
    ] {
        let answer = rig.stream(&format!("[[sim:{scenario}]]")).await;
        assert_eq!((usages(&answer), dones(&answer)), (usage, done), "{scenario}");
        assert_eq!(
            answer.data().last().unwrap() == "[DONE]",
            !matches!(scenario, "no-done" | "late-usage"),
            "{scenario}"
        );
        let choices = answer.events().pop().unwrap()["choices"].as_array().unwrap().len();
        assert_eq!(choices, usize::from(scenario != "usage-empty"), "{scenario}");
    }
}

#[tokio::test]
async fn answers_are_odd() {
    let rig = Rig::new().await;
    let finish = |answer: &Answer| {
        let events = answer.events();
        let choice = events
            .iter()
            .map(|event| &event["choices"][0])
            .find(|choice| !choice["finish_reason"].is_null())
            .unwrap();
        (choice["finish_reason"].as_str().unwrap().to_owned(), choice["delta"].clone())
    };
    for (scenario, reason, content) in [
        ("empty", "stop", json!("")),
        ("null-content", "stop", Value::Null),
        ("length", "length", json!("")),
        ("content-filter", "content_filter", json!("")),
    ] {
        let answer = rig.stream(&format!("[[sim:{scenario}]] hello")).await;
        let (seen, delta) = finish(&answer);
        assert_eq!((seen.as_str(), &delta["content"]), (reason, &content), "{scenario}");
        assert_eq!(answer.said().is_empty(), reason == "stop", "{scenario}");
    }
    let spent = rig.stream("[[sim:empty-reasoning]]").await;
    assert_eq!((finish(&spent).0.as_str(), spent.said().as_str()), ("length", ""));
    let usage = spent.events().pop().unwrap()["usage"].clone();
    assert_eq!(usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]);
    let refused = finish(&rig.stream("[[sim:refusal]]").await).1;
    assert!(refused["refusal"].is_string() && refused["content"].is_null());
    let call =
        rig.whole("[[sim:tool-garbage]]").await.json()["choices"][0]["message"]["tool_calls"][0].clone();
    assert!(serde_json::from_str::<Value>(call["function"]["arguments"].as_str().unwrap()).is_err());
    let roles = rig.stream("[[sim:dup-role]]").await;
    let alone = roles
        .events()
        .iter()
        .filter(|event| event["choices"][0]["delta"] == json!({ "role": "assistant" }))
        .count();
    assert!(alone > 3);
    let mixed = rig.stream("[[sim:reorder-index]]").await;
    let order: Vec<_> = mixed
        .events()
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"][0]["index"].as_u64())
        .collect();
    assert!(order.starts_with(&[1, 0, 1, 0]), "{order:?}");
    let unknown = rig.stream("[[sim:unknown-fields]]").await.events();
    assert!(
        unknown
            .iter()
            .all(|event| event["x_unknown"].is_object()
                && event["choices"][0]["delta"]["x_unknown"].is_object())
    );
    let nulls = rig.stream("[[sim:null-everything]]").await.events();
    assert!(nulls.iter().all(|event| event.as_object().unwrap().contains_key("error")
        && event["error"].is_null()
        && event["provider"].is_null()));
    let debug = rig.stream("[[sim:debug-chunk]]").await.events();
    assert_eq!(
        (&debug[0]["choices"], &debug[0]["debug"]["echo_upstream_body"]["model"]),
        (&json!([]), &json!(MODEL))
    );
}

#[tokio::test]
async fn the_same_events_come_in_other_writes() {
    let rig = Rig::new().await;
    // All but the generation's id, which is another each time.
    let bare = |answer: &Answer| {
        let events = answer.events().into_iter();
        events.map(|event| (event["choices"].clone(), event["usage"].clone())).collect::<Vec<_>>()
    };
    let wanted = rig.chat(&said("hello ü", true), &[]).await;
    for framing in ["crlf", "split", "multi", "pad"] {
        let answer = rig.chat(&said("hello ü", true), &[("x-sim-scenario", framing)]).await;
        assert_eq!(bare(&answer), bare(&wanted), "{framing}");
        let text = answer.text();
        assert_eq!(text.contains("\r\n\r\n"), framing == "crlf");
        assert_eq!(text.contains(&"x".repeat(64 << 10)), framing == "pad");
    }
    let mut stream = rig
        .open(
            "POST",
            "/api/v1/chat/completions",
            &[("authorization", &bearer(KEY)), ("x-sim-scenario", "split")],
            &said("ü", true).to_string(),
        )
        .await;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await.unwrap();
    let head = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let sizes: BTreeSet<_> =
        raw[head + 4..].split(|byte| *byte == b'\n').step_by(2).map(<[u8]>::to_vec).collect();
    assert!(sizes.iter().all(|size| size.len() < 4), "each write has one byte: {sizes:?}");
}

#[tokio::test]
async fn answers_are_slow_in_every_way() {
    let rig = Rig::new().await;
    let began = std::time::Instant::now();
    assert!(rig.stream("[[sim:slow-headers ms=300]]").await.text().ends_with("[DONE]\n\n"));
    assert!(began.elapsed() >= Duration::from_millis(300));
    let waited = rig.stream("[[sim:slow-first ms=200]]").await;
    assert_eq!(waited.text().split("data: ").next().unwrap().matches(": OPENROUTER").count(), 6);
    let began = std::time::Instant::now();
    rig.stream("[[sim:slow-tokens ms=20]] [[sim:words n=10]]").await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    let settings = Settings {
        ttft: Duration::from_millis(100),
        per_token: Duration::from_millis(10),
        ..Settings::default()
    };
    let rig = Rig::with(settings).await;
    for stream in [true, false] {
        let began = std::time::Instant::now();
        rig.chat(&said("[[sim:words n=10]]", stream), &[]).await;
        assert!(began.elapsed() >= Duration::from_millis(200));
    }
    let body = said("[[sim:stall after=1]]", true).to_string();
    let mut stream =
        rig.open("POST", "/api/v1/chat/completions", &[("authorization", &bearer(KEY))], &body).await;
    let mut seen = String::new();
    // Comments go on after the last token.
    while seen.split("data: ").last().unwrap().matches(": OPENROUTER").count() < 3 || !seen.contains("data: ")
    {
        let mut bytes = [0; 1024];
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(count > 0, "it ended: {seen}");
        seen += &String::from_utf8_lossy(&bytes[..count]);
    }
}

#[tokio::test]
async fn flaky_answers_fail_about_as_often_as_was_asked() {
    let rig = Rig::new().await;
    let mut faults = 0;
    for number in 0..60 {
        rig.stream(&format!("[[sim:flaky p=0.5]] {number}")).await;
        faults += usize::from(rig.last().scenario.is_some());
    }
    assert!((15..45).contains(&faults), "{faults}");
}

#[tokio::test]
async fn other_models_take_over_before_the_first_token() {
    let rig = Rig::new().await;
    let body = json!({ "model": "sim/502", "models": ["sim/529", "acme/atlas-8b"], "messages": [{ "role": "user", "content": "x" }] });
    let answer = rig.chat(&body, &[]).await.json();
    assert_eq!(answer["model"], "acme/atlas-8b");
    let body = json!({ "model": "sim/502", "models": ["sim/529"], "messages": [{ "role": "user", "content": "x" }] });
    assert_eq!(rig.chat(&body, &[]).await.status, 529);
}
