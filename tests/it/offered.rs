//! What does the backend for models offer beside chatting, seen through the gateway?

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    identify::{Issuer, with},
    support::{Gateway, PATIENCE, Setup, UNLIMITED},
};

const ALL: &str = r#"["core", "catalog", "account", "embed", "media", "benchmark", "collective"]"#;

/// A gateway with the simulator behind the name `m`.
fn simulated(packs: &str) -> Setup {
    Gateway::with(UNLIMITED).lines(&format!("[backends.m]\nopenrouter = {{ packs = {packs} }}"))
}

/// What a tool gives, which must have worked.
async fn given(gateway: &Gateway, tool: &str, arguments: Value) -> Value {
    let result = gateway.call(&format!("m__{tool}"), arguments).send().await.result();
    assert_eq!(result["isError"], false, "{result}");
    result["structuredContent"].clone()
}

async fn refused(gateway: &Gateway, tool: &str, arguments: Value) -> (String, String) {
    let result = gateway.call(&format!("m__{tool}"), arguments).send().await.result();
    assert_eq!(result["isError"], true, "{result}");
    let code = result["_meta"]["io.waystation/error"]["code"].as_str().unwrap_or_default();
    (code.to_owned(), result["content"][0]["text"].as_str().unwrap_or_default().to_owned())
}

async fn read(gateway: &Gateway, uri: &str) -> Value {
    gateway.modern("resources/read", json!({ "uri": uri })).send().await.response()
}

fn near(value: &Value, expected: f64) {
    let number = value.as_f64().unwrap_or(f64::NAN);
    assert!((number - expected).abs() < 1e-6, "{value} is not {expected}");
}

#[tokio::test]
async fn packs_decide_which_tools_there_are() {
    let usual = Gateway::with(UNLIMITED).lines("[backends.m]\nopenrouter = {}").start().await;
    let tools = usual.tools().await;
    let has = |tools: &[String], name: &str| tools.iter().any(|tool| tool == name);
    for name in
        ["m__chat", "m__analyze_media", "m__models_recommend", "m__rankings", "m__usage_report", "m__embed"]
    {
        assert!(has(&tools, name), "{name}");
    }
    for name in ["m__generate_image", "m__benchmark_run", "m__consensus", "m__cross_validate"] {
        assert!(!has(&tools, name), "{name}");
        assert!(usual.call(name, json!({})).send().await.response()["error"].is_object(), "{name}");
    }
    let all = simulated(ALL).start().await;
    assert_eq!(all.tools().await.len(), tools.len() + 6);
    let few = simulated(r#"["embed"]"#).start().await;
    let mut left = few.tools().await;
    left.retain(|tool| tool.starts_with("m__"));
    assert_eq!(left, ["m__embed", "m__rerank"]);
    for (method, member) in [("prompts/list", "prompts"), ("resources/list", "resources")] {
        let listed = few.modern(method, json!({})).send().await.result();
        assert_eq!(listed[member], json!([]), "{method}");
    }
}

#[tokio::test]
async fn votes_are_counted() {
    let gateway = simulated(ALL).start().await;
    let voting = |strategy: &str, models: &[&str]| {
        let models: Vec<_> = models.iter().map(|name| format!("sim/persona-{name}")).collect();
        json!({ "question": "Is it so?", "models": models, "strategy": strategy })
    };
    let jury = given(&gateway, "consensus", voting("jury", &["yes", "no", "garbage"])).await;
    assert_eq!(
        (&jury["decided"], &jury["failed"][0]["model"]),
        (&json!(false), &json!("sim/persona-garbage"))
    );
    near(&jury["agreement"], 0.5);
    assert_eq!(jury["panel"].as_array().map(Vec::len), Some(3));
    let one_sided = json!({ "question": "Is it so?", "models": ["sim/persona-yes", "acme/atlas-70b", "sim/persona-no"], "strategy": "jury" });
    let jury = given(&gateway, "consensus", one_sided).await;
    assert_eq!(jury["decided"], true, "{jury}");
    near(&jury["agreement"], 2.0 / 3.0);
    assert_eq!(jury["dissent"].as_array().map(Vec::len), Some(1), "{jury}");
    for strategy in ["majority", "weighted", "confidence"] {
        let agreed = given(&gateway, "consensus", voting(strategy, &["yes", "no"])).await;
        assert!(["YES", "NO"].contains(&agreed["answer"].as_str().unwrap()), "{agreed}");
        assert_eq!(agreed["votes"].as_array().map(Vec::len), Some(2), "{agreed}");
        assert!(agreed["usage"]["completion_tokens"].as_u64() > Some(0), "{agreed}");
    }
    let (code, why) = refused(&gateway, "consensus", voting("jury", &["yes", "garbage"])).await;
    assert_eq!(code, "upstream_unavailable");
    assert!(why.contains("1 models gave") && why.contains("persona-garbage"), "{why}");
    // All calls of a run stand in the ledger.
    let used = given(&gateway, "usage_report", json!({ "group_by": "tool" })).await;
    assert!(used["rows"].as_array().unwrap().iter().any(|row| row["key"] == "consensus"), "{used}");
}

#[tokio::test]
async fn a_judge_chooses_and_one_of_no_use_is_done_without() {
    let gateway = simulated(ALL).start().await;
    let asked = |judge: &str| json!({ "question": "Why?", "models": ["acme/atlas-70b", "sim/500", "sim/persona-yes"], "strategy": "judge", "judge_model": judge });
    let judged = given(&gateway, "consensus", asked("acme/atlas-70b")).await;
    assert_eq!(judged["failed"][0]["model"], "sim/500", "{judged}");
    let answers: Vec<_> =
        judged["votes"].as_array().unwrap().iter().map(|vote| vote["answer"].clone()).collect();
    assert!(answers.contains(&judged["answer"]), "{judged}");
    assert_eq!(judged["warnings"], json!([]), "{judged}");
    let without = given(&gateway, "consensus", asked("sim/persona-garbage")).await;
    assert!(answers.contains(&without["answer"]), "{without}");
    assert!(without["warnings"][0].as_str().unwrap().contains("the judge was of no use"), "{without}");
    let fused = given(&gateway, "consensus", json!({ "question": "Why?", "strategy": "fusion" })).await;
    assert_eq!(fused["panel"], json!(["openrouter/fusion"]));
    let both = json!({ "question": "Why?", "strategy": "fusion", "models": ["a/b", "c/d"] });
    assert_eq!(refused(&gateway, "consensus", both).await.0, "invalid_input");
}

#[tokio::test]
async fn texts_are_checked_by_several() {
    let gateway = simulated(ALL).start().await;
    let models = ["sim/persona-yes", "sim/persona-no", "sim/persona-garbage"];
    let checked =
        given(&gateway, "cross_validate", json!({ "content": "2 + 2 = 5", "models": models })).await;
    assert_eq!(
        (&checked["verdict"], &checked["failed"][0]["model"]),
        (&json!("rejected"), &json!(models[2]))
    );
    near(&checked["agreement"], 0.5);
    let asked = json!({ "content": "x", "models": models, "threshold": 0.5 });
    assert_eq!(given(&gateway, "cross_validate", asked).await["verdict"], "accepted");
}

#[tokio::test]
async fn models_are_measured_and_the_reports_are_their_owners() {
    let issuer = Issuer::new();
    let gateway = Gateway::with(&issuer.tables())
        .lines(&format!("[backends.m]\nopenrouter = {{ packs = {ALL} }}"))
        .start()
        .await;
    let [ada, bob] = ["ada", "bob"].map(|who| issuer.of(who, &[]));
    let call = async |token: &str, tool: &str, arguments: Value| {
        with(gateway.call(&format!("m__{tool}"), arguments), token).send().await.result()
    };
    let read = async |token: &str, uri: &str| {
        with(gateway.modern("resources/read", json!({ "uri": uri })), token).send().await.response()
    };
    let asked = json!({ "models": ["acme/atlas-70b", "sim/500"], "prompt": "hello", "runs": 2, "judge_model": "acme/atlas-70b" });
    let ran = call(&ada, "benchmark_run", asked).await["structuredContent"].clone();
    let [best, worst] = ran["ranking"].as_array().unwrap().as_slice() else { panic!("{ran}") };
    assert_eq!(
        (&best["model"], &best["answers"], &worst["model"]),
        (&json!("acme/atlas-70b"), &json!(2), &json!("sim/500"))
    );
    near(&best["ok_rate"], 1.0);
    near(&worst["ok_rate"], 0.0);
    assert!(
        best["quality"].is_number() && best["total_ms"]["p95"].is_null() && worst["quality"].is_null(),
        "{ran}"
    );
    let id = ran["run_id"].as_str().unwrap();

    let listed = call(&ada, "benchmark_list", json!({})).await["structuredContent"].clone();
    assert_eq!(listed["runs"][0]["run_id"], id);
    assert_eq!(call(&bob, "benchmark_list", json!({})).await["structuredContent"]["runs"], json!([]));
    let report = call(&ada, "benchmark_report", json!({ "run_id": id, "format": "csv" })).await;
    let csv = report["structuredContent"]["text"].as_str().unwrap();
    assert!(csv.starts_with("rank,model,") && csv.contains("\r\n1,acme/atlas-70b,2,1,"), "{csv}");
    let uri = format!("benchmark://{id}/report.csv");
    assert_eq!(read(&ada, &uri).await["result"]["contents"][0]["text"], csv);
    assert_eq!(call(&bob, "benchmark_report", json!({ "run_id": id })).await["isError"], true);
    // What is another's reads as what is not there.
    let foreign = read(&bob, &uri).await["error"].clone();
    let missing = uri.replace(id, "bmk_0000000000000000000000");
    let unknown = read(&bob, &missing).await["error"].clone();
    assert_eq!(foreign["code"], -32602);
    let text = |error: &Value, uri: &str| error.to_string().replace(uri, "it");
    assert_eq!(text(&foreign, &uri), text(&unknown, &missing));

    let dear = json!({ "models": ["acme/atlas-70b"], "max_cost_usd": 0.000_000_1 });
    let refused = call(&ada, "benchmark_run", dear).await;
    assert_eq!(refused["_meta"]["io.waystation/error"]["code"], "budget_exceeded");

    let said = call(&ada, "chat", json!({ "message": "hush" })).await;
    let conversation = said["structuredContent"]["conversation_id"].as_str().unwrap();
    let message = said["structuredContent"]["user_message_id"].as_str().unwrap();
    for rest in ["", "/transcript.md", &format!("/messages/{message}")] {
        let uri = format!("conversation://{conversation}{rest}");
        assert!(read(&ada, &uri).await["result"].to_string().contains("hush"), "{uri}");
        assert_eq!(read(&bob, &uri).await["error"]["code"], -32602, "{uri}");
        let stolen =
            json!({ "question": "What is it?", "attachments": [{ "kind": "text", "resource_uri": uri }] });
        assert_eq!(call(&bob, "analyze_media", stolen).await["isError"], true, "{uri}");
    }
    let asked = json!({ "ref": { "type": "ref/prompt", "name": "m__continue_as" }, "argument": { "name": "conversation_id", "value": "hu" } });
    for (token, expected) in [(&ada, json!([conversation])), (&bob, json!([]))] {
        let completed =
            with(gateway.modern("completion/complete", asked.clone()), token).send().await.result();
        assert_eq!(completed["completion"]["values"], expected);
    }
    let prompt =
        json!({ "name": "m__summarize_conversation", "arguments": { "conversation_id": conversation } });
    let got = with(gateway.modern("prompts/get", prompt.clone()), &ada).send().await.result();
    assert!(got["messages"][1]["content"]["resource"]["text"].as_str().unwrap().contains("hush"), "{got}");
    assert_eq!(
        with(gateway.modern("prompts/get", prompt), &bob).send().await.response()["error"]["code"],
        -32602
    );
    assert_eq!(read(&bob, "openrouter://account").await["error"]["code"], -32602);
}

#[tokio::test]
async fn what_can_be_read_is_listed_or_fits_a_template() {
    let gateway = simulated(ALL).start().await;
    let listed = gateway.modern("resources/list", json!({})).send().await.result();
    let uris: Vec<_> =
        listed["resources"].as_array().unwrap().iter().map(|one| one["uri"].as_str().unwrap()).collect();
    assert_eq!(uris, ["openrouter://account", "openrouter://usage"]);
    let templates = gateway.modern("resources/templates/list", json!({})).send().await.result();
    assert_eq!(templates["resourceTemplates"].as_array().map(Vec::len), Some(5), "{templates}");
    for uri in uris {
        let contents = &read(&gateway, uri).await["result"]["contents"][0];
        let text: Value = serde_json::from_str(contents["text"].as_str().unwrap()).unwrap();
        assert!(text.is_object(), "{contents}");
    }
    let model = read(&gateway, "openrouter://models/acme/atlas-70b").await["result"].clone();
    assert_eq!(model["cacheScope"], "public");
    assert!(model["contents"][0]["text"].as_str().unwrap().contains("\"id\": \"acme/atlas-70b\""), "{model}");
    for unknown in [
        "openrouter://models/no/such",
        "openrouter://x",
        "conversation://x",
        "conversation://",
        "benchmark://x/report.exe",
    ] {
        assert_eq!(read(&gateway, unknown).await["error"]["code"], -32602, "{unknown}");
    }
    let said = gateway.call("m__chat", json!({ "message": "hello" })).send().await.result();
    let link = said["content"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(link["type"], "resource_link", "{said}");
    let whole = read(&gateway, link["uri"].as_str().unwrap()).await["result"]["contents"][0].clone();
    let whole: Value = serde_json::from_str(whole["text"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&whole["messages"][0]["text"], whole["messages"].as_array().map(Vec::len)),
        (&json!("hello"), Some(2))
    );
    let attached =
        json!({ "message": "see", "attachments": [{ "kind": "text", "resource_uri": link["uri"] }] });
    let said = given(&gateway, "chat", attached).await;
    assert!(said["text"].as_str().unwrap().contains("see"), "{said}");
    let wrong =
        json!({ "message": "see", "attachments": [{ "kind": "image", "resource_uri": link["uri"] }] });
    assert_eq!(refused(&gateway, "chat", wrong).await.0, "media_rejected");
}

#[tokio::test]
async fn arguments_are_completed() {
    let gateway = simulated(ALL).start().await;
    let complete = async |of: Value, name: &str, value: &str| {
        let asked = json!({ "ref": of, "argument": { "name": name, "value": value } });
        gateway.modern("completion/complete", asked).send().await.result()["completion"].clone()
    };
    let model = json!({ "type": "ref/resource", "uri": "openrouter://models/{+model_id}" });
    let found = complete(model.clone(), "model_id", "acme/atl").await;
    assert!(found["values"][0].as_str().unwrap().starts_with("acme/atl"), "{found}");
    let all = complete(model.clone(), "model_id", "").await;
    assert_eq!((all["values"].as_array().map(Vec::len), &all["hasMore"]), (Some(100), &json!(true)));
    assert_eq!(complete(model, "model_id", "no such model").await["values"], json!([]));
    let report = json!({ "type": "ref/resource", "uri": "benchmark://{run_id}/report.{format}" });
    assert_eq!(complete(report, "format", "").await["values"], json!(["md", "csv", "json"]));
    let prompts = gateway.modern("prompts/list", json!({})).send().await.result();
    assert_eq!(prompts["prompts"].as_array().map(Vec::len), Some(6));
    let jury = json!({ "name": "m__jury", "arguments": { "question": "Is {it} so?" } });
    let got = gateway.modern("prompts/get", jury).send().await.result();
    assert!(got["messages"][0]["content"]["text"].as_str().unwrap().ends_with("Is {it} so?"), "{got}");
    let bare = gateway.modern("prompts/get", json!({ "name": "m__jury" })).send().await.response();
    assert_eq!(bare["error"]["code"], -32602);
}

#[tokio::test]
async fn models_are_recommended_and_rankings_are_told() {
    let gateway = simulated(ALL).start().await;
    for task in
        ["coding", "reasoning", "vision", "long_context", "cheap", "fast", "creative", "translation", "json"]
    {
        let found = given(&gateway, "models_recommend", json!({ "task": task, "limit": 3 })).await;
        let ranked = found["ranked"].as_array().unwrap();
        assert_eq!(ranked.len(), 3, "{task}: {found}");
        let scores: Vec<_> = ranked.iter().map(|one| one["score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|one, other| one >= other), "{task}: {scores:?}");
        assert!(ranked.iter().all(|one| !one["reasons"].as_array().unwrap().is_empty()), "{task}: {found}");
    }
    let free =
        given(&gateway, "models_recommend", json!({ "task": "creative", "constraints": { "free": true } }))
            .await;
    assert!(
        free["ranked"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["reasons"].to_string().contains("costs nothing")),
        "{free}"
    );
    for kind in ["models_daily", "apps", "benchmarks", "tasks"] {
        let found = given(&gateway, "rankings", json!({ "kind": kind, "limit": 3 })).await;
        assert!((1..=3).contains(&found["rows"].as_array().unwrap().len()), "{kind}: {found}");
        assert!(found["as_of"].is_string(), "{kind}: {found}");
    }
}

/// Somebody who goes away has agreed to pay for what was begun for them.
#[tokio::test]
async fn what_was_begun_for_somebody_who_has_gone_stands_in_the_ledger() {
    let gateway = simulated(ALL).start().await;
    // So many words that the simulator says them for a while.
    let asked = json!({ "models": ["acme/atlas-70b"], "content": "[[sim:words n=4000]]", "timeout_s": 1, "max_output_tokens": 8000 });
    let (code, why) = refused(&gateway, "cross_validate", asked).await;
    assert_eq!(code, "upstream_unavailable", "{why}");
    assert!(why.contains("no whole answer within 1 s"), "{why}");
    let noted = async || {
        let used = given(&gateway, "usage_report", json!({ "group_by": "tool" })).await;
        used["rows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["key"] == "cross_validate" && row["requests"] == 1)
    };
    let begun = Instant::now();
    while !noted().await {
        assert!(begun.elapsed() < PATIENCE, "it is never noted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
