//! What costs more than the operator lets pass is agreed to first, by whoever can be asked.

use serde_json::{Value, json};

use super::{CHAT, Rig, answered, chat, code, refused, say};
use crate::support::{Gateway, Post};

const ASKS: &str = "confirm_above_usd = 0.000001";

/// A call of a client that can be asked by forms.
fn asked(gateway: &Gateway, tool: &str, arguments: &Value, more: Value) -> Post {
    let capabilities = json!({ "elicitation": { "form": {} } });
    let meta = json!({ "io.modelcontextprotocol/clientCapabilities": capabilities });
    let mut params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
    params.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    gateway.modern("tools/call", params)
}

/// What is said to the question of a first round.
fn said(first: &Value, answer: Value) -> Value {
    json!({ "inputResponses": { "cost": answer }, "requestState": first["requestState"] })
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_can_be_asked_is_asked_before_anything_is_sent_or_kept() {
    let rig = Rig::new().await;
    let gateway = rig.gateway(ASKS).await;
    let hello = json!({ "message": "hello" });
    let first = asked(&gateway, CHAT, &hello, json!({})).send().await.result();
    assert_eq!(first["resultType"], "input_required", "{first}");
    let question = &first["inputRequests"]["cost"];
    assert_eq!(question["method"], "elicitation/create");
    assert!(question["params"]["message"].as_str().unwrap().contains("US dollars"), "{question}");
    assert!(rig.asked().is_empty(), "nothing was sent");
    let list = answered(&gateway.call("chat__conversation_list", json!({})).send().await);
    assert_eq!(list["conversations"], json!([]), "nor kept");

    let yes = json!({ "action": "accept", "content": { "agree": true } });
    let agreed = asked(&gateway, CHAT, &hello, said(&first, yes.clone())).send().await;
    assert_eq!(answered(&agreed)["status"], "completed");
    assert_eq!(rig.asked().len(), 1);
    let again = asked(&gateway, CHAT, &hello, said(&first, yes)).send().await;
    assert_eq!(again.refusal(), (200, -32602), "that was for one call");

    for no in [
        json!({ "action": "decline" }),
        json!({ "action": "cancel" }),
        json!({ "action": "accept", "content": { "agree": false } }),
    ] {
        let first = asked(&gateway, CHAT, &hello, json!({})).send().await.result();
        let declined = asked(&gateway, CHAT, &hello, said(&first, no.clone())).send().await;
        assert_eq!(code(&declined), "confirmation_required", "{no}");
    }
    assert_eq!(rig.asked().len(), 1, "nothing more was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_before_is_asked_in_the_middle_of_its_call() {
    let rig = Rig::new().await;
    let gateway = rig.gateway(ASKS).await;
    let session = gateway.legacy_asked("2025-11-25").await;
    let mut stream = session.call(CHAT, json!({ "message": "hello" })).open().await;
    let result = loop {
        let message = stream.message().await.expect("a message");
        if message["method"] == "elicitation/create" {
            let yes = json!({ "action": "accept", "content": { "agree": true } });
            let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": yes });
            assert!(rig.asked().is_empty(), "nothing was sent yet");
            assert_eq!(session.post(answer.to_string()).send().await.status, 202);
        } else if message["method"].is_null() {
            break message;
        }
    };
    assert_eq!(result["result"]["structuredContent"]["status"], "completed", "{result}");
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_be_asked_says_what_it_may_cost() {
    let rig = Rig::new().await;
    let gateway = rig.gateway(ASKS).await;
    let answer = chat(&gateway, json!({ "message": "hello" })).send().await;
    assert_eq!(code(&answer), "confirmation_required");
    let estimate: f64 = refused(&answer)["estimate_usd"].as_str().unwrap().parse().unwrap();
    let agreed = json!({ "message": "hello", "max_cost_usd": estimate });
    assert_eq!(answered(&chat(&gateway, agreed).send().await)["status"], "completed");

    // All that costs is asked about, and what several models cost together once.
    let models = json!(["acme/atlas-70b", "acme/atlas-8b"]);
    for (tool, arguments) in [
        ("complete", json!({ "messages": [{ "role": "user", "content": "hello" }] })),
        ("compare_models", json!({ "models": models, "prompt": "hello" })),
    ] {
        let first = gateway.call(&format!("chat__{tool}"), arguments.clone()).send().await;
        assert_eq!(code(&first), "confirmation_required", "{tool}");
        let mut agreed = arguments;
        agreed["max_cost_usd"] = json!(1);
        answered(&gateway.call(&format!("chat__{tool}"), agreed).send().await);
    }
    let cheap = rig.gateway("confirm_above_usd = 10").await;
    say(&cheap, None, "hello").await;
    let unknown = chat(&cheap, json!({ "message": "hello", "model": "openrouter/auto" })).send().await;
    assert_eq!(code(&unknown), "model_not_allowed", "what it costs is not known, so it cannot be agreed to");
}
