//! What is wished of an answer, and whether it came so.

use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{Rig, answered, chat, code, refused};

fn person() -> Value {
    json!({
        "type": "object",
        "properties": { "name": { "type": "string" }, "age": { "type": "integer", "minimum": 0 } },
        "required": ["name", "age"],
        "additionalProperties": false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_held_against_its_schema() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let format = json!({ "type": "json_schema", "name": "person", "schema": person() });
    let ask = async |answer: &str, format: &Value| {
        let asked = json!({ "message": format!("[[sim:json {answer}]]"), "response_format": format });
        answered(&chat(&gateway, asked).send().await)
    };
    let good = ask("{\"name\":\"Ada\",\"age\":36}", &format).await;
    assert_eq!(good["parsed"], json!({ "name": "Ada", "age": 36 }), "{good}");
    assert!(good.get("format_error").is_none(), "{good}");
    for (answer, says) in [
        ("{\"name\":\"Ada\",\"age\":\"36\"}", "at /age: "),
        ("{\"name\":\"Ada\"}", "\"age\" is a required property"),
        ("{\"name\":\"Ada\",\"age\":-1}", "at /age: "),
    ] {
        let bad = ask(answer, &format).await;
        assert!(bad.get("parsed").is_none(), "{bad}");
        assert!(bad["format_error"].as_str().unwrap().contains(says), "{bad}");
        assert_eq!(bad["status"], "completed", "the answer is given all the same");
    }
    let said = chat(
        &gateway,
        json!({ "message": "[[sim:say text=\"no JSON\"]]", "response_format": { "type": "json_object" } }),
    );
    let text = answered(&said.send().await);
    assert!(text["format_error"].as_str().unwrap().contains("not JSON"), "{text}");

    let messages = json!([{ "role": "user", "content": "[[sim:json {\"name\":1,\"age\":2}]]" }]);
    let complete = json!({ "messages": messages, "response_format": format });
    let once = answered(&gateway.call("chat__complete", complete).send().await);
    assert!(once["format_error"].as_str().unwrap().contains("at /name"), "{once}");
    assert!(once.get("parsed").is_none(), "{once}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_none_is_refused_before_anything_is_sent() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    for (schema, says) in [
        (json!({ "type": "object", "properties": { "age": { "type": "integr" } } }), "/properties/age/type"),
        (json!({ "$ref": "http://192.0.2.1/schema.json" }), "leads to no part"),
        (json!({ "$ref": "#" }), "back to themselves"),
        (Value::Null, "schema is missing"),
    ] {
        let format = json!({ "type": "json_schema", "schema": schema });
        let answer = chat(&gateway, json!({ "message": "hello", "response_format": format })).send().await;
        assert_eq!(code(&answer), "invalid_input", "{schema}");
        let why = answer.result()["content"][0]["text"].to_string();
        assert!(why.contains("response_format.schema") && why.contains(says), "{why}");
        assert_eq!(refused(&answer)["retryable"], false);
    }
    assert!(rig.asked().is_empty(), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_given_again_only_to_those_who_want_it_so() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let ask = async |cache: Value| {
        let messages = json!([{ "role": "user", "content": "what is the capital of Norway?" }]);
        let mut asked = json!({ "messages": messages, "temperature": 1 });
        if !cache.is_null() {
            asked["cache"] = cache;
        }
        answered(&gateway.call("chat__complete", asked).send().await)
    };
    let plain = ask(Value::Null).await;
    assert!(plain.get("cache").is_none(), "{plain}");
    assert!(!rig.asked()[0].headers.iter().any(|(name, _)| name.starts_with("x-openrouter-cache")));

    let first = ask(json!({ "responses": true, "ttl_s": 60 })).await;
    assert_eq!(first["cache"]["hit"], false, "{first}");
    assert_ne!(first["usage"]["cost_usd"], "0", "{first}");
    let again = ask(json!({ "responses": true })).await;
    assert_eq!((&again["cache"]["hit"], &again["text"]), (&json!(true), &first["text"]), "{again}");
    assert_eq!((&again["usage"]["cost_usd"], &again["usage"]["source"]), (&json!("0"), &json!("reported")));
    assert_eq!(ask(json!({ "responses": true, "clear": true })).await["cache"]["hit"], false);

    let said = json!({ "message": "hello", "cache": { "responses": true } });
    for hit in [false, true] {
        let chatted = answered(&chat(&gateway, said.clone()).send().await);
        assert_eq!(chatted["cache"]["hit"], hit, "{chatted}");
    }
    for wrong in
        [json!({ "ttl_s": 60 }), json!({ "clear": true }), json!({ "responses": true, "ttl_s": 86_401 })]
    {
        let answer = chat(&gateway, json!({ "message": "hello", "cache": wrong })).send().await;
        assert_eq!(code(&answer), "invalid_input", "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_wants_to_be_told_keeps_what_comes_again() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let long = "You know everything about trains. ".repeat(200);
    let turns = async |model: &str, system: &str, cache: Value| {
        let first = json!({ "message": "one", "model": model, "system_prompt": system, "cache": cache });
        let first = answered(&chat(&gateway, first).send().await);
        let second = json!({ "message": "two", "conversation_id": first["conversation_id"], "model": model, "cache": cache });
        let second = answered(&chat(&gateway, second).send().await);
        let told = rig.asked().last().unwrap().body["cache_control"] == json!({ "type": "ephemeral" });
        (told, second["usage"]["cached_tokens"].as_u64().unwrap() > 0)
    };
    let claude = "anthropic/claude-sonnet-4.5";
    assert_eq!(turns(claude, &long, json!({})).await, (true, true));
    assert_eq!(turns(claude, "Be brief.", json!({})).await, (false, false), "not worth it");
    assert_eq!(turns(claude, "Be brief.", json!({ "prompt": true })).await, (true, true));
    assert_eq!(turns(claude, &long, json!({ "prompt": false })).await, (false, false));
    assert_eq!(turns("acme/atlas-70b", &long, json!({})).await, (false, true), "does it by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_to_the_model() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = json!({ "trace_id": "0af7651916cd43dd8448eb211c80319c" });
    chat(&gateway, json!({ "message": "by a header" })).and("traceparent", parent).send().await.result();
    let meta = json!({ "traceparent": parent });
    let params = json!({ "name": super::CHAT, "arguments": { "message": "in the message" }, "_meta": meta });
    gateway.modern("tools/call", params).send().await.result();
    chat(&gateway, json!({ "message": "without" })).send().await.result();
    let asked: Vec<_> = rig.asked().into_iter().map(|entry| entry.body["trace"].clone()).collect();
    assert_eq!(asked, [traced.clone(), traced, Value::Null]);
}

/// A disk that is full, or a file that cannot be written: nothing is asked whose answer could not be kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_is_not_asked() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let before = answered(&chat(&gateway, json!({ "message": "hello" })).send().await);
    let options = SqliteConnectOptions::new().filename(rig.folder.path().join("a.db"));
    let mut rows = SqliteConnection::connect_with(&options).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON message BEGIN SELECT RAISE(ABORT, 'disk is full'); END";
    sqlx::raw_sql(full).execute(&mut rows).await.unwrap();
    for id in [Value::Null, before["conversation_id"].clone()] {
        let mut asked = json!({ "message": "more" });
        if !id.is_null() {
            asked["conversation_id"] = id;
        }
        let answer = chat(&gateway, asked).send().await;
        assert_eq!(code(&answer), "storage_unavailable");
        assert!(!answer.text().contains("full"), "why is for the log: {}", answer.text());
        assert_eq!(refused(&answer)["retryable"], true);
    }
    assert_eq!(rig.asked().len(), 1, "no model was asked");
    sqlx::raw_sql("DROP TRIGGER full").execute(&mut rows).await.unwrap();
    answered(
        &chat(&gateway, json!({ "message": "more", "conversation_id": before["conversation_id"] }))
            .send()
            .await,
    );
}
