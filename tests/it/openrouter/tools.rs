//! Every tool does what it is for, and every wish reaches the model.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Rig, answered, chat, code, messages, say};
use crate::support::Gateway;

async fn given(gateway: &Gateway, tool: &str, arguments: Value) -> Value {
    answered(&gateway.call(&format!("chat__{tool}"), arguments).send().await)
}

/// The smallest picture.
fn picture() -> Vec<u8> {
    let text =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    STANDARD.decode(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_are_made_found_changed_and_removed() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let asked =
        json!({ "title": "Plans", "system_prompt": "Be brief.", "model": "acme/atlas-8b", "tags": ["home"] });
    let made = given(&gateway, "conversation_create", asked).await["conversation"].clone();
    let id = made["conversation_id"].clone();
    let said = say(&gateway, Some(&id), "[[sim:system]]").await;
    assert_eq!((&said["text"], &said["model_used"]), (&json!("Be brief."), &json!("acme/atlas-8b")));
    say(&gateway, Some(&id), "where is the zebra?").await;
    say(&gateway, None, "elsewhere").await;

    let tagged = given(&gateway, "conversation_list", json!({ "tags": ["home"] })).await;
    assert_eq!(tagged["conversations"].as_array().map(Vec::len), Some(1), "{tagged}");
    let hits = given(&gateway, "conversation_search", json!({ "query": "zebra", "role": "user" })).await;
    assert_eq!(hits["hits"][0]["conversation_id"], id, "{hits}");

    let version = given(&gateway, "conversation_get", json!({ "conversation_id": id })).await["conversation"]
        ["version"]
        .clone();
    let renamed = json!({ "conversation_id": id, "expected_version": version, "title": "Animals", "state": "archived" });
    let changed = given(&gateway, "conversation_update", renamed.clone()).await["conversation"].clone();
    assert_eq!((&changed["title"], &changed["state"]), (&json!("Animals"), &json!("archived")));
    assert_eq!(
        code(&gateway.call("chat__conversation_update", renamed).send().await),
        "conversation_conflict"
    );

    let fork = given(&gateway, "conversation_fork", json!({ "conversation_id": id })).await["conversation"]["conversation_id"].clone();
    assert_eq!(messages(&gateway, &fork).await.len(), messages(&gateway, &id).await.len());
    for (format, begins) in [("markdown", "# "), ("json", "{"), ("jsonl", "{")] {
        let exported =
            given(&gateway, "conversation_export", json!({ "conversation_id": id, "format": format })).await;
        let text = exported["text"].as_str().unwrap();
        assert!(text.starts_with(begins) && text.contains("zebra"), "{format}: {exported}");
    }
    let short =
        given(&gateway, "conversation_summarize", json!({ "conversation_id": id, "keep_last": 1 })).await;
    assert!(
        !short["summary"].as_str().unwrap().is_empty() && short["covered_messages"].as_u64() > Some(0),
        "{short}"
    );

    let removed = given(&gateway, "conversation_delete", json!({ "conversation_id": id })).await;
    assert_eq!(removed["deleted"], true, "{removed}");
    let gone = gateway.call("chat__conversation_get", json!({ "conversation_id": id })).send().await;
    assert_eq!(code(&gone), "conversation_not_found");
    assert_eq!(messages(&gateway, &fork).await.len(), 4, "a fork stands alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wished_of_an_answer_reaches_the_model() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("aliases = { small = \"acme/atlas-8b\" }").await;
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"], "additionalProperties": false });
    let asked = json!({
        "message": "as data", "model": "small", "temperature": 0, "top_p": 0.5, "seed": 7, "stop": ["END"], "max_output_tokens": 64,
        "response_format": { "type": "json_schema", "name": "n", "schema": schema },
        "provider": { "order": ["Alpha"], "zdr": true, "sort": "price", "max_prompt_price_per_m": 100 },
    });
    let said = answered(&chat(&gateway, asked).send().await);
    assert!(said["parsed"]["n"].is_i64(), "{said}");
    assert!(said["timing"]["total_ms"].is_u64(), "{said}");
    let body = rig.asked().remove(0).body;
    for (member, expected) in [
        ("/model", json!("acme/atlas-8b")),
        ("/temperature", json!(0.0)),
        ("/top_p", json!(0.5)),
        ("/seed", json!(7)),
        ("/stop", json!(["END"])),
        ("/max_completion_tokens", json!(64)),
        ("/response_format/json_schema/schema", schema),
        ("/provider/order", json!(["Alpha"])),
        ("/provider/zdr", json!(true)),
        ("/stream", json!(true)),
    ] {
        assert_eq!(body.pointer(member), Some(&expected), "{member}: {body}");
    }

    let messages = json!([{ "role": "user", "content": "find it" }]);
    let found =
        given(&gateway, "complete", json!({ "messages": messages, "web_search": { "max_results": 2 } }))
            .await;
    assert!(found["citations"].as_array().is_some_and(|all| !all.is_empty()), "{found}");
    let search = json!({ "message": "find it", "web_search": { "max_results": 2 } });
    let found = answered(&chat(&gateway, search).send().await);
    assert!(found["citations"].as_array().is_some_and(|all| !all.is_empty()), "{found}");
    let free = answered(&chat(&gateway, json!({ "message": "for nothing", "route": "free" })).send().await);
    assert_eq!(free["usage"]["cost_usd"], "0", "{free}");

    // Another model in the middle of a conversation hears what was said before.
    let begun = say(&gateway, None, "one").await;
    let asked = json!({ "conversation_id": begun["conversation_id"], "message": "two [[sim:recall]]", "model": "acme/atlas-8b" });
    let switched = answered(&chat(&gateway, asked).send().await);
    assert_eq!(switched["model_used"], "acme/atlas-8b");
    assert!(switched["text"].as_str().unwrap().starts_with("one\n"), "{switched}");

    let long = json!({ "conversation_id": begun["conversation_id"], "message": "three", "context": { "keep_last_turns": 1 } });
    let fitted = answered(&chat(&gateway, long).send().await);
    assert_eq!(fitted["context"]["dropped_turns"], 1, "{fitted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_documents_and_recordings_are_seen() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let data = STANDARD.encode(picture());
    let image = json!({ "kind": "image", "data": data, "mime_type": "image/png" });
    let see = json!({ "message": "what is it?", "model": "acme/atlas-vision", "attachments": [image] });
    let seen = answered(&chat(&gateway, see.clone()).send().await);
    assert!(seen["text"].as_str().unwrap().contains("image/png 1x1 "), "{seen}");
    let mut blind = see.clone();
    blind["model"] = "openai/gpt-5".into();
    assert_eq!(code(&chat(&gateway, blind).send().await), "unsupported_modality");
    let mut wrong = see;
    wrong["attachments"][0]["mime_type"] = "image/gif".into();
    assert_eq!(code(&chat(&gateway, wrong).send().await), "media_rejected");

    let linked = json!({ "kind": "image", "url": "https://example.org/a.png" });
    let analyzed =
        given(&gateway, "analyze_media", json!({ "attachments": [linked], "model": "acme/atlas-vision" }))
            .await;
    assert!(!analyzed["text"].as_str().unwrap().is_empty(), "{analyzed}");
    assert!(
        rig.asked().last().unwrap().body.to_string().contains("https://example.org/a.png"),
        "it is passed on"
    );

    let text = json!({ "kind": "text", "data": STANDARD.encode("remember the milk"), "name": "notes.txt" });
    let read = answered(
        &chat(&gateway, json!({ "message": "read [[sim:recall]]", "attachments": [text] })).send().await,
    );
    assert!(read["text"].as_str().unwrap().contains("remember the milk"), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_asked_without_a_conversation() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("packs = [\"core\", \"embed\", \"media\", \"account\"]").await;
    let said = json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "[[sim:system]]" }]);
    let completed = given(&gateway, "complete", json!({ "messages": said })).await;
    assert_eq!(completed["text"], "Be brief.");
    let look = json!({ "type": "function", "function": { "name": "look", "parameters": { "type": "object", "properties": {} } } });
    let calls = json!({ "messages": [{ "role": "user", "content": "call:look" }], "tools": [look] });
    let called = given(&gateway, "complete", calls).await;
    assert_eq!(called["tool_calls"][0]["function"]["name"], "look", "{called}");

    let models = json!(["acme/atlas-70b", "sim/500", "acme/atlas-8b"]);
    let compared = given(&gateway, "compare_models", json!({ "models": models, "prompt": "hello" })).await;
    let ok: Vec<_> = compared["results"].as_array().unwrap().iter().map(|one| one["ok"].clone()).collect();
    assert_eq!(ok, [true, false, true], "{compared}");

    let numbers = given(
        &gateway,
        "embed",
        json!({ "model": "acme/embed-small", "input": ["a fox", "a red fox"], "dimensions": 64 }),
    )
    .await;
    assert_eq!(numbers["embeddings"][1].as_array().map(Vec::len), Some(64), "{numbers}");
    let ranked = given(
        &gateway,
        "rerank",
        json!({ "model": "acme/rerank-1", "query": "red fox", "documents": ["a cat", "a red fox"], "top_n": 1 }),
    )
    .await;
    assert_eq!(ranked["results"][0]["index"], 1, "{ranked}");
    let drawn = gateway
        .call("chat__generate_image", json!({ "model": "acme/atlas-image", "prompt": "a fox", "n": 2 }))
        .send()
        .await
        .result();
    let images = drawn["content"].as_array().unwrap().iter().filter(|block| block["type"] == "image").count();
    assert_eq!(images, 2, "{}", drawn["structuredContent"]);

    let health = given(&gateway, "health", json!({})).await;
    assert_eq!(health["reachable"], true, "{health}");
    let account = given(&gateway, "account_status", json!({})).await;
    assert_eq!(account["key"]["effective_budget"]["limit_usd"], 100.0, "{account}");
    let id = completed["generation_id"].clone();
    let generation = given(&gateway, "generation_get", json!({ "generation_id": id })).await;
    assert_eq!(
        (&generation["generation"]["id"], &generation["tool"]),
        (&id, &json!("complete")),
        "{generation}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_searched_looked_up_and_compared() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("aliases = { small = \"acme/atlas-8b\" }\ndeny = [\"beta-labs/*\"]").await;
    let seeing = json!({ "input_modalities": ["image"], "price": "free", "limit": 5 });
    let found = given(&gateway, "models_search", seeing).await;
    for model in found["models"].as_array().unwrap() {
        assert!(model["input_modalities"].as_array().unwrap().contains(&json!("image")), "{model}");
    }
    assert!(found["total"].as_u64() > Some(0), "{found}");
    let denied = given(&gateway, "models_search", json!({ "author": "beta-labs" })).await;
    assert_eq!(denied["models"], json!([]), "what may not be used is not shown");

    let got = given(&gateway, "model_get", json!({ "model": "small", "include_endpoints": true })).await;
    assert_eq!((&got["valid"], &got["resolved_id"]), (&json!(true), &json!("acme/atlas-8b")));
    assert!(!got["endpoints"].as_array().unwrap().is_empty(), "{got}");
    let unknown = given(&gateway, "model_get", json!({ "model": "acme/atlas-80b" })).await;
    assert_eq!(unknown["valid"], false);
    assert!(!unknown["suggestions"].as_array().unwrap().is_empty(), "{unknown}");

    let models =
        json!({ "models": ["acme/atlas-70b", "small"], "prompt_tokens": 1000, "output_tokens": 1000 });
    let compared = given(&gateway, "models_compare", models).await;
    assert_eq!(compared["cheapest"], "acme/atlas-8b", "{compared}");
    let providers = given(&gateway, "providers_list", json!({ "limit": 3 })).await;
    assert_eq!(providers["providers"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spent_is_told() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let said = say(&gateway, None, "hello").await;
    let billed = rig.asked().remove(0).cost;
    assert_eq!(said["usage"]["cost_usd"], billed.as_str());
    let by = async |group: &str| given(&gateway, "usage_report", json!({ "group_by": group })).await;
    for (group, key) in [
        ("model", json!("acme/atlas-70b")),
        ("tool", json!("chat")),
        ("conversation", said["conversation_id"].clone()),
    ] {
        let rows = by(group).await["rows"].clone();
        assert_eq!((&rows[0]["key"], &rows[0]["cost_usd"]), (&key, &json!(billed)), "{group}: {rows}");
    }
}
