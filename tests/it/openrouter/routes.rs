//! Free models are asked one after the other, and those that have answered come first the next time.

use serde_json::{Value, json};

use super::{Rig, answered, chat, code};
use crate::support::Gateway;

async fn free(gateway: &Gateway, mut arguments: Value) -> Value {
    arguments["route"] = "free".into();
    answered(&chat(gateway, arguments).send().await)
}

/// Of models that cost nothing, by id.
async fn metrics(gateway: &Gateway) -> Value {
    let search = json!({ "price": "free", "include_metrics": true, "limit": 50 });
    let found = answered(&gateway.call("chat__models_search", search).send().await);
    let models = found["models"].as_array().unwrap().iter();
    models.map(|model| (model["id"].as_str().unwrap().to_owned(), model["metrics"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_model_that_fails_is_replaced_and_comes_later_the_next_time() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let first = free(&gateway, json!({ "message": "hello" })).await;
    let usual = first["model_requested"].as_str().unwrap().to_owned();
    assert!(usual.ends_with(":free"), "{first}");
    assert_eq!(first["usage"]["cost_usd"], "0");

    let broken = json!({ "message": "[[sim:503 times=3]] hello" });
    let second = free(&gateway, broken).await;
    let other = second["model_used"].as_str().unwrap().to_owned();
    assert_eq!(second["model_requested"], usual, "what is equal stays in its order");
    assert_ne!(other, usual, "another answers: {second}");
    assert!(second["warnings"].to_string().contains(&other), "and it is said: {second}");

    let known = metrics(&gateway).await;
    assert_eq!((&known[&usual]["requests"], &known[&usual]["ok_rate"]), (&json!(4), &json!(0.25)), "{known}");
    assert_eq!((&known[&other]["requests"], &known[&other]["ok_rate"]), (&json!(1), &json!(1.0)), "{known}");
    assert!(known[&other]["first_token_ms"].is_number(), "{known}");
    let third = free(&gateway, json!({ "message": "hello" })).await;
    assert_eq!(third["model_requested"], other, "what has answered best");

    // It is known after a restart, too.
    let known = metrics(&gateway).await;
    gateway.stop().await;
    let gateway = rig.gateway("").await;
    assert_eq!(metrics(&gateway).await, known);
    let plain = answered(&gateway.call("chat__models_search", json!({ "price": "free" })).send().await);
    assert!(plain["models"][0].get("metrics").is_none(), "only where it is wanted: {plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn free_is_free_and_can_what_it_has_to() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("deny = [\"acme/*\"]").await;
    let dear = json!({ "message": "hello", "route": "free", "model": "openai/gpt-5" });
    assert_eq!(code(&chat(&gateway, dear).send().await), "invalid_input");
    let denied = free(&gateway, json!({ "message": "hello" })).await;
    assert!(!denied["model_requested"].as_str().unwrap().starts_with("acme/"), "{denied}");
    let named = denied["model_requested"].clone();
    assert_eq!(free(&gateway, json!({ "message": "hello", "model": named })).await["model_requested"], named);
    let picture = json!({ "kind": "image", "url": "https://example.org/a.png" });
    let seen = free(&gateway, json!({ "message": "what is it?", "attachments": [picture] })).await;
    let model = json!({ "model": seen["model_requested"] });
    let model = answered(&gateway.call("chat__model_get", model).send().await);
    assert!(
        model["model"]["input_modalities"].as_array().unwrap().contains(&json!("image")),
        "{seen} {model}"
    );
    let nobody = rig.gateway("allow = [\"openai/gpt-5\"]").await;
    let none = chat(&nobody, json!({ "message": "hello", "route": "free" })).send().await;
    assert_eq!(code(&none), "model_not_allowed");
}
